"""Many-to-many changes: what was really added, removed or cleared, from either side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.models import ManyToManyField, ManyToManyRel, QuerySet

from subscriptions import catalog
from webhooks.bodies import shape_of
from webhooks.capture import RAW, addressee, capturing, row, wanted_of, write
from webhooks.columns import ready

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from django.db.models import Model

    from subscriptions.catalog import Entry

ACTIONS = {
    "pre_add": "adding",
    "post_add": "added",
    "pre_remove": "removing",
    "post_remove": "removed",
    "pre_clear": "clearing",
    "post_clear": "cleared",
}
# What the pre_ phase of a remove or clear found, by through model, until the
# post_ phase: a stack, since a receiver may remove more.
TAKEN = "signalpost_taken"


def throughs(model: type[Model]) -> Iterator[type[Model]]:
    """The senders of the many-to-many changes that `model` takes part in."""
    for field, _, _ in ends(model):
        through = field.remote_field.through
        # A name still: it is not made yet, and when it is we come again.
        if isinstance(through, type):
            yield through


def m2m_changed(
    *,
    sender: type[Model],
    instance: Model,
    action: str,
    reverse: bool,
    model: type[Model],
    pk_set: Iterable[Any] | None,
    using: str,
    raw: bool = False,
    **kwargs: Any,
) -> None:
    entry = catalog.entry_for(type(instance))
    if entry is None or raw or RAW in instance._state.__dict__:
        return
    phase, _, verb = action.partition("_")
    before, after = ACTIONS[f"pre_{verb}"], ACTIONS[f"post_{verb}"]
    if phase == "pre":
        told, needed = wanted_of(entry, before), bool(wanted_of(entry, before, after))
    else:
        told = wanted_of(entry, after)
        needed = bool(told)
    if not needed:
        return
    with capturing(entry.topic(ACTIONS[action]), using=using):
        end = _end(type(instance), sender, reverse=reverse)
        if end is None:
            return
        # By a name: the host may pickle the instance, and no through model can be.
        taken = instance._state.__dict__.setdefault(TAKEN, {}).setdefault(sender._meta.label, [])
        if verb == "add":
            keys = list(pk_set or ())
        elif phase == "pre":
            keys = _present(instance, end[0], pk_set, reverse=reverse, using=using)
            taken.append(keys)
        else:
            keys = taken.pop() if taken else []
        if told and keys:
            _tell(entry, told[0], instance, end[1], keys, reverse=reverse, model=model, using=using)


def _tell(
    entry: Entry,
    action: str,
    instance: Model,
    name: str,
    keys: list[Any],
    *,
    reverse: bool,
    model: type[Model],
    using: str,
) -> None:
    topic = entry.topic(action)
    current = row(entry, instance, using=using)
    to = None if current is None else addressee(entry, current, topic)
    if current is None or to is None:
        return
    data = {
        "object": shape_of(entry).object(current),
        "field": name,
        "reverse": reverse,
        "model": model._meta.label_lower,
        "keys": sorted((ready(key) for key in keys), key=lambda key: (str(type(key)), key)),
    }
    write(topic, to, data, using=using)


def _present(
    instance: Model,
    field: ManyToManyField[Any, Any],
    pk_set: Iterable[Any] | None,
    *,
    reverse: bool,
    using: str,
) -> list[Any]:
    """The keys that are there to be taken: Django names those that were asked
    for in a remove, and none in a clear."""
    source, target = field.m2m_field_name(), field.m2m_reverse_field_name()
    if reverse:
        source, target = target, source
    through: Any = field.remote_field.through
    column = through._meta.get_field(source)
    rows: QuerySet[Any] = QuerySet(through, using=using).filter(
        **{source: column.get_foreign_related_value(instance)[0]}
    )
    if pk_set is not None:
        rows = rows.filter(**{f"{target}__in": pk_set})
    return list(rows.order_by().values_list(through._meta.get_field(target).attname, flat=True).distinct())


def _end(owner: type[Model], through: type[Model], *, reverse: bool) -> tuple[ManyToManyField[Any, Any], str] | None:
    """The field behind `through`, and the name that `owner` knows it by."""
    for field, name, is_reverse in ends(owner):
        if field.remote_field.through is through and is_reverse is reverse:
            return field, name
    return None


def ends(model: type[Model]) -> Iterator[tuple[ManyToManyField[Any, Any], str, bool]]:
    """The field, its name on `model`, and whether `model` is the other side."""
    for field in model._meta.many_to_many:
        yield field, field.name, False
    for relation in model._meta.related_objects:
        if isinstance(relation, ManyToManyRel):
            yield relation.field, relation.get_accessor_name() or relation.name, True

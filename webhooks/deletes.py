"""Deletes: read while the row and its parents are there, written once they are gone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db.models import Model, QuerySet

from subscriptions import catalog
from webhooks.bodies import key_of, shape_of
from webhooks.capture import Addressee, addressee, capturing, row, wanted_of, write

if TYPE_CHECKING:
    from subscriptions.catalog import Entry

# What pre_delete read, kept on the instance's state until post_delete.
READ = "signalpost_read"

ACTIONS = ("deleting", "deleted")

Origin = Model | QuerySet[Any] | None


@dataclass(frozen=True, slots=True)
class Last:
    """What there was to say of a row before it went."""

    to: Addressee
    data: dict[str, Any]


def pre_delete(*, sender: type[Model], instance: Model, using: str, origin: Origin = None, **kwargs: Any) -> None:
    state = instance._state.__dict__
    state.pop(READ, None)
    entry = _entry(sender)
    actions = wanted_of(entry, *ACTIONS) if entry is not None else []
    if entry is None or not actions:
        return
    with capturing(entry.topic(actions[-1]), using=using):
        current = _row(entry, instance, using=using, origin=origin)
        if current is None or _is_told_by_a_child(entry, current, using=using):
            return
        data = {"object": shape_of(entry).object(current), **_cause(instance, origin)}
        for action in actions:
            to = addressee(entry, current, entry.topic(action))
            if to is not None and action == "deleting":
                write(entry.topic(action), to, data, using=using)
            elif to is not None:
                state[READ] = Last(to, data)


def post_delete(*, sender: type[Model], instance: Model, using: str, **kwargs: Any) -> None:
    last: Last | None = instance._state.__dict__.pop(READ, None)
    entry = _entry(sender)
    if last is not None and entry is not None:
        topic = entry.topic("deleted")
        with capturing(topic, using=using):
            write(topic, last.to, last.data, using=using)


def _entry(sender: type[Model]) -> Entry | None:
    """The sender's own: when a child goes, Django also sends the signals of
    its parents' rows, unless they are kept."""
    concrete = sender._meta.concrete_model
    return None if concrete is None else catalog.entries().get(concrete)


def _row(entry: Entry, instance: Model, *, using: str, origin: Origin) -> Model | None:
    """What a cascade or a queryset deletes, Django has just loaded. The
    instance on which the host called delete() may have been edited, be
    partial, or have no row; and so may the parent made of it."""
    if isinstance(origin, Model) and _is_same_row(instance, origin):
        return row(entry, instance, using=using)
    if instance.get_deferred_fields():
        return row(entry, instance, using=using)
    return instance


def _is_told_by_a_child(entry: Entry, instance: Model, *, using: str) -> bool:
    """One event for the most derived class: a parent whose row is also a
    registered child's leaves it to the child."""
    children = (each for each in catalog.entries() if each is not entry.model and issubclass(each, entry.model))
    same = {entry.model._meta.pk.name: instance.pk}
    return any(QuerySet(child, using=using).filter(**same).exists() for child in children)


def _cause(instance: Model, origin: Origin) -> dict[str, Any]:
    """Whether the row went because another did, and of which model that was."""
    if origin is None or _is_direct(instance, origin):
        return {"cascade": False, "origin": None}
    return {"cascade": True, "origin": (origin.model if isinstance(origin, QuerySet) else origin)._meta.label_lower}


def _is_direct(instance: Model, origin: Model | QuerySet[Any]) -> bool:
    if isinstance(origin, Model):
        return _is_same_row(instance, origin)
    return _are_kin(type(instance), origin.model)


def _is_same_row(instance: Model, other: Model) -> bool:
    return any(
        key_of(parent, instance) == key_of(parent, other)
        for parent in (type(instance), type(other))
        if isinstance(instance, _table(parent)) and isinstance(other, _table(parent))
    )


def _are_kin(one: type[Model], other: type[Model]) -> bool:
    """Of one table, or a child's and its parent's."""
    return issubclass(one, _table(other)) or issubclass(other, _table(one))


def _table(model: type[Model]) -> type[Model]:
    return model._meta.concrete_model or model

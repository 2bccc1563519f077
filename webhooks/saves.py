"""Saves: `saving`, `created` and `updated`, in one transaction with the row."""

from __future__ import annotations

from functools import wraps
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from django import VERSION
from django.db import connections, router, transaction

from subscriptions import catalog
from webhooks.bodies import key_field, key_of, shape_of
from webhooks.capture import RAW, addressee, capturing, held, is_row, may_listen, wanted_of, write

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.db.models import Model

    from subscriptions.catalog import Entry

ACTIONS = ("saving", "created", "updated")
# Where these stand among the arguments of Model.save_base.
FORCE_UPDATE, USING = 2, 3
# What pre_save found, kept on the instance's state until post_save: a stack,
# since a receiver may save the instance that is being saved.
FOUND = "signalpost_found"
# On the state of an instance whose row must be there already.
FORCED = "signalpost_forced"


def wrap(model: type[Model]) -> None:
    """Let `model` save its row and its event in one transaction.

    Outside of `atomic()` Django has committed the row when it sends post_save.
    Inside, nothing is changed: the caller's transaction holds both.
    """
    if getattr(model.__dict__.get("save_base"), "signalpost", False):
        return
    original = model.save_base

    @wraps(original)
    def save_base(self: Model, *args: Any, **kwargs: Any) -> None:
        state = self._state.__dict__
        depth = len(state.get(FOUND, ()))
        try:
            if _argument("force_update", FORCE_UPDATE, args, kwargs):
                state[FORCED] = True
            using = _argument("using", USING, args, kwargs) or router.db_for_write(type(self), instance=self)
            if len(args) > USING:
                args = (*args[:USING], using, *args[USING + 1 :])
            else:
                kwargs["using"] = using
            if connections[using].in_atomic_block or not _is_heard(type(self)):
                return original(self, *args, **kwargs)
            with transaction.atomic(using=using, savepoint=False):
                return original(self, *args, **kwargs)
        finally:
            state.pop(FORCED, None)
            if depth:
                del state[FOUND][depth:]
            else:
                state.pop(FOUND, None)

    save_base.signalpost = True  # type: ignore[attr-defined]
    save_base.original = model.__dict__.get("save_base")  # type: ignore[attr-defined]
    model.save_base = save_base  # type: ignore[method-assign]


def _argument(name: str, position: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[position] if len(args) > position else kwargs.get(name)


def unwrap(model: type[Model]) -> None:
    wrapper: Any = model.__dict__.get("save_base")
    if not getattr(wrapper, "signalpost", False):
        return
    if wrapper.original is None:
        del model.save_base
    else:
        model.save_base = wrapper.original  # type: ignore[method-assign]


def _is_heard(model: type[Model]) -> bool:
    entry = catalog.entry_for(model)
    return entry is not None and bool(wanted_of(entry, *ACTIONS))


def pre_save(
    *, sender: type[Model], instance: Model, raw: bool, using: str, update_fields: Iterable[str] | None, **kwargs: Any
) -> None:
    entry = catalog.entry_for(sender)
    if raw or entry is None:
        return
    only = None if update_fields is None else frozenset(update_fields)
    if wanted_of(entry, "saving"):
        _saving(entry, instance, using=using, only=only)
    found: dict[str, Any] = {}
    instance._state.__dict__.setdefault(FOUND, []).append(found)
    if _may_exist(entry.model, instance) and wanted_of(entry, "updated", "created"):
        with capturing(entry.topic("updated"), using=using):
            found.update(_found(entry, sender, instance, using=using, only=only))


def _found(
    entry: Entry, sender: type[Model], instance: Model, *, using: str, only: frozenset[str] | None
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if entry.model is not sender._meta.concrete_model:
        found["exists"] = is_row(entry, instance, using=using)
    # A partial save may leave behind whose the instance says it is.
    if wanted_of(entry, "updated") and (only is not None or may_listen(entry, instance, entry.topic("updated"))):
        found["old"] = shape_of(entry).old(instance, using=using)
    return found


def post_save(
    *,
    sender: type[Model],
    instance: Model,
    created: bool,
    raw: bool,
    using: str,
    update_fields: Iterable[str] | None,
    **kwargs: Any,
) -> None:
    state = instance._state.__dict__
    if raw:
        if VERSION < (6, 1):
            state[RAW] = True
        return
    state.pop(RAW, None)
    entry = catalog.entry_for(sender)
    stack: list[dict[str, Any]] = state.get(FOUND, [])
    found = stack.pop() if stack else {}
    if entry is None:
        return
    # A child that is added to a parent's row creates a child, not a parent.
    action = "created" if created and not found.get("exists") else "updated"
    if wanted_of(entry, action):
        only = None if update_fields is None else frozenset(update_fields)
        with capturing(entry.topic(action), using=using):
            current = shape_of(entry).current(instance, using=using, only=only, old=found.get("old"))
            if stack:
                _tell_outer(stack[-1], entry, found, current)
            _saved(entry, action, current, using=using, only=only, found=found)


def _tell_outer(outer: dict[str, Any], entry: Entry, found: dict[str, Any], current: Model) -> None:
    """A receiver has saved the instance that is being saved: those changes are
    not the outer save's. What it had found is what the inner one did, unless
    it has written its own in between."""
    shape, before, old = shape_of(entry), outer.get("old"), found.get("old")
    if before is None or old is None:
        return
    if all(column.same(before[column.attname], old[column.attname]) for column in shape.watched):
        outer["old"] = {name: getattr(current, name) for name in shape.attnames}
    else:
        outer.setdefault("left", SimpleNamespace(**old))


def _saved(
    entry: Entry, action: str, current: Model, *, using: str, only: frozenset[str] | None, found: dict[str, Any]
) -> None:
    shape, topic, old = shape_of(entry), entry.topic(action), found.get("old")
    to = addressee(entry, current, topic)
    if to is None:
        return
    data: dict[str, Any] = {"object": shape.object(current)}
    if action == "created":
        write(topic, to, data, using=using)
        return
    # Nothing was found where nobody listened yet when the save began.
    changes = {} if old is None else shape.changes(old, found.get("left", current), only=only)
    if changes or old is None or not entry.skip_unchanged:
        write(topic, to, {**data, "changes": changes}, using=using, changed=list(changes))


def _saving(entry: Entry, instance: Model, *, using: str, only: frozenset[str] | None) -> None:
    topic = entry.topic("saving")
    with capturing(topic, using=using):
        to = addressee(entry, instance, topic)
        if to is not None:
            data = {**held(entry, instance, only=only), "adding": instance._state.adding}
            write(topic, to, data, using=using)


def _may_exist(model: type[Model], instance: Model) -> bool:
    """Whether the row may be there already. A new instance with a default for
    its key is inserted by Django without a look, unless an update is forced."""
    if key_of(model, instance) is None:
        return False
    parts = key_field(model, instance).model._meta.pk_fields
    made = all(part.has_default() or part.has_db_default() for part in parts)
    return not (made and instance._state.adding) or FORCED in instance._state.__dict__

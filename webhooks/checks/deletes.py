"""Rows of registered models that change or go without a signal, and so without an event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core.checks import CheckMessage, Info, Warning, register  # noqa: A004 -- Django's names
from django.db import models

from subscriptions import catalog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from subscriptions.catalog import Entry

EMPTIED = "signalpost.I060"
BY_DATABASE = "signalpost.W061"
UNLINKED = "signalpost.I062"

# Names of `on_delete` that the database itself carries out (Django 6.1).
DATABASE_DELETES = {"DB_CASCADE": "deleted", "DB_SET_NULL": "updated", "DB_SET_DEFAULT": "updated"}


@register("signalpost")
def silent_deletes(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    for entry in catalog.entries().values():
        for field in entry.model._meta.concrete_fields:
            if isinstance(field, models.ForeignKey):
                found += _foreign_key(entry, field)
    return [*found, *_through_rows()]


def _foreign_key(entry: Entry, field: models.ForeignKey[Any, Any]) -> Iterator[CheckMessage]:
    name = f"{field.model._meta.label}.{field.name}"
    target = field.remote_field.model._meta.label
    action, by_database = _silent_action(field.remote_field.on_delete)
    if action not in entry.actions:
        return
    topic = entry.topic(action)
    if by_database:
        kept = "deletes the rows" if action == "deleted" else "empties the column"
        yield Warning(
            f"{name}: when a {target} is deleted, the database itself {kept}; no {topic} is sent.",
            hint=f"Use models.{'CASCADE' if action == 'deleted' else 'SET_NULL and publish_rows()'}, "
            f"or subscribe to the deletes of {target}.",
            obj=name,
            id=BY_DATABASE,
        )
    elif action:
        yield Info(
            f"{name}: when a {target} is deleted, Django changes the rows by one UPDATE; no {topic} is sent.",
            hint=f"Where a {target} is deleted, call webhooks.events.publish_rows() for the rows that pointed to it.",
            obj=name,
            id=EMPTIED,
        )


def _silent_action(on_delete: Any) -> tuple[str, bool]:
    """The action that a delete of the target amounts to without a signal, and
    whether the database carries it out; an empty action where there is none."""
    # DB_CASCADE and its like are objects whose name is their repr; SET(...) is
    # a function made for its value. Django marks those by `deconstruct`.
    name = getattr(on_delete, "__name__", "") or str(on_delete).rpartition(".")[2]
    if name in DATABASE_DELETES:
        return DATABASE_DELETES[name], True
    if on_delete in {models.SET_NULL, models.SET_DEFAULT} or name == "set_on_delete":
        return "updated", False
    return "", False


def _through_rows() -> Iterator[CheckMessage]:
    """Many-to-many rows go when either end is deleted, and no m2m_changed says
    so. Where both ends are registered, the end's own `deleted` does."""
    for model in apps.get_models():
        for field in model._meta.local_many_to_many:
            through = field.remote_field.through
            if through is not None and through._meta.auto_created:
                yield from _through(model, field, through)


def _through(
    model: type[models.Model], field: models.ManyToManyField[Any, Any], through: type[models.Model]
) -> Iterator[CheckMessage]:
    ends = (model, field.remote_field.model)
    for end, other in (ends, ends[::-1]):
        entry, silent = catalog.entry_for(end), catalog.entry_for(other) is None
        if entry is not None and silent and "removed" in entry.actions and end._meta.concrete_model is entry.model:
            name = f"{model._meta.label}.{field.name}"
            yield Info(
                f"{name}: when a {other._meta.label} is deleted, its rows of {through._meta.label} "
                f"go with it; no {entry.topic('removed')} is sent.",
                hint=f"Register {other._meta.label}, so that its deletes are sent, or clear the relation before.",
                obj=name,
                id=UNLINKED,
            )

"""Whether a registered model tells what the catalog says it does."""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import jsonschema
from django.db import models, transaction

from subscriptions import catalog, schemas
from webhooks.testing.sent import Events, aliases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from subscriptions.entries import Entry
    from webhooks.testing.sent import Sent, SentEvent

# Sent on every row loaded, however often a test loads it.
READS = frozenset({"initializing", "initialized"})


def check(
    sent: Sent,
    what: models.Model | Callable[[], models.Model],
    *,
    change: Mapping[str, Any] | None,
    links: Mapping[str, Iterable[models.Model]],
    delete: bool,
) -> Events:
    with _rolled_back():
        steps = Steps(sent)
        if isinstance(what, models.Model):
            # A copy of its own: the test's is not to be changed and deleted.
            instance = type(what)._base_manager.using(what._state.db).get(pk=what.pk)
            steps.entry = _entry(instance)
        else:
            instance = steps.make(what)
        steps.save(instance, change or {})
        for name, rows in links.items():
            steps.link(instance, name, list(rows))
        if delete:
            steps.take("deleted", "deleting", "deleted", do=instance.delete)
        return Events(steps.seen)


class Steps:
    """One deed after the other, each with what it told."""

    entry: Entry

    def __init__(self, sent: Sent) -> None:
        self.sent = sent
        self.passed = len(sent.events)
        self.seen: list[SentEvent] = []

    def make(self, make: Callable[[], models.Model]) -> models.Model:
        instance = make()
        self.entry = _entry(instance)
        if instance.pk is None or instance._state.adding:
            raise AssertionError(f"The function made {instance!r} and did not save it.")
        self._expect("created", "saving", "created")
        return instance

    def save(self, instance: models.Model, change: Mapping[str, Any]) -> None:
        if self.entry.skip_unchanged and not change:
            raise AssertionError(f"{self.entry.label_lower} skips what changed nothing: name a field in change=.")
        for name, value in change.items():
            setattr(instance, name, value)
        told = self.take("updated", "saving", "updated", do=instance.save)
        columns = set(schemas.changing(self.entry)) & set(change)
        for event in told:
            missing = columns - set(event.changes) if event.topic == self.entry.topic("updated") else None
            if missing:
                raise AssertionError(f"{event.topic} names no change of {', '.join(sorted(missing))}: {event}")

    def link(self, instance: models.Model, name: str, rows: list[models.Model]) -> None:
        field: Any = getattr(instance, name)
        self.take(f"linked by {name}", "adding", "added", do=lambda: field.add(*rows))
        self.take(f"unlinked from {name}", "removing", "removed", do=lambda: field.remove(*rows))
        self.take(f"linked by {name}", "adding", "added", do=lambda: field.add(*rows))
        self.take(f"cleared of {name}", "clearing", "cleared", do=field.clear)

    def take(self, done: str, *actions: str, do: Callable[[], object]) -> list[SentEvent]:
        self.passed = len(self.sent.events)
        do()
        return self._expect(done, *actions)

    def _expect(self, done: str, *actions: str) -> list[SentEvent]:
        events = self.sent.events
        told = Events((each for each in events[self.passed :] if self._is_of_the_model(each)), events.notes)
        expected = [self.entry.topic(action) for action in actions if action in self.entry.actions]
        if told.topics != expected:
            why = "\n  ".join(told.topics.unlike(expected))
            raise AssertionError(f"When {self.entry.label_lower} was {done}:\n  {why}")
        for event in told:
            _check_body(self.entry, event)
        self.seen += told
        return told

    def _is_of_the_model(self, event: SentEvent) -> bool:
        label, _, action = event.topic.rpartition(".")
        return label == self.entry.label_lower and action not in READS


def _entry(instance: models.Model) -> Entry:
    entry = catalog.entry_for(type(instance))
    if entry is None:
        raise AssertionError(f"{instance._meta.label} is not registered in the catalog.")
    return entry


def _check_body(entry: Entry, event: SentEvent) -> None:
    schema = schemas.schema_of(event.topic, entry, event.topic.rpartition(".")[2])
    errors = jsonschema.Draft202012Validator(schema).iter_errors(json.loads(event.body))
    if lines := [f"  {error.json_path}: {error.message}" for error in errors]:
        raise AssertionError("\n".join([f"The body of {event.topic} does not fit its schema:", *lines]))


@contextmanager
def _rolled_back() -> Iterator[None]:
    with ExitStack() as stack:
        for alias in aliases():
            stack.enter_context(transaction.atomic(using=alias))
            stack.callback(transaction.set_rollback, True, using=alias)
        yield

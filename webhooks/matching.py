"""Who wants to hear of an event: from memory before it is written, in SQL when
it is fanned out.

What is listened to is kept per process. It is read again when the revision's
token is another one; the token is looked at at most every `LOOK_EVERY`
seconds, and only when somebody asks. A process hears of its own changes at
once, and a transaction of its own uncommitted ones: those are kept from the
other threads, since they may yet be rolled back.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.db import connections, transaction
from django.db.models import Max

from subscriptions.conf import LOG, conf
from subscriptions.entries import TEST
from subscriptions.models import Revision, Subscription, Tenant, Topic, Wish, home, wishes_changed
from webhooks import statements
from webhooks.models import Event

if TYPE_CHECKING:
    import uuid
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from django.db.backends.base.base import BaseDatabaseWrapper

    _Revision = tuple[int, uuid.UUID | None]

LOOK_EVERY = 0.5  # seconds

EVERYTHING = "*"


@lru_cache(maxsize=4096)
def candidates(topic: str) -> tuple[str, ...]:
    """The names that match `topic`: itself, each prefix with `.*`, and `*`."""
    if topic == TEST:
        return ()
    parts = topic.split(".")
    prefixes = (".".join(parts[:length]) + ".*" for length in range(len(parts) - 1, 0, -1))
    return (topic, *prefixes, EVERYTHING)


def wanted(topic: str) -> bool:
    """Whether anyone listens to `topic`. Usually no query."""
    listeners = _index().listeners
    return any(name in listeners for name in candidates(topic))


def wanted_by(topic: str, tenant_id: int | None) -> bool:
    """Whether a subscription of this tenant listens to `topic`; with None, of any tenant."""
    if tenant_id is None:
        return wanted(topic)
    listeners = _index().listeners
    return any(tenant_id in listeners.get(name, ()) for name in candidates(topic))


def slug_of(tenant_id: int) -> str | None:
    return _index().slugs.get(tenant_id)


def id_of_slug(slug: str) -> int | None:
    return _index().ids.get(slug)


def tenant_by_key(key: object) -> int | None:
    """The id of the tenant that the host project knows as `key`."""
    return _index().keys.get(str(key))


def newest() -> int:
    """The highest id of a subscription that listens, as far as is known here."""
    return _index().newest


# Of stored events that are alike, and of subscriptions: who hears of which.
# Enabled, and there when it happened, which is by the clock, or since the
# event's writer knew of it: the machines' clocks may differ, and step.
LISTENING = """
    s.disabled_at IS NULL AND (s.created_at <= e.created_at OR s.id <= e.newest_subscription)
        AND EXISTS (
            SELECT 1 FROM subscriptions_topic t
            WHERE t.subscription_id = s.id AND {names} AND (t.field = '' OR {fields})
        )
"""
# PostgreSQL is made to go from each event to its tenant's subscriptions: with
# statistics from before a tenant joined, it would walk through everybody's.
WANTING = {
    "postgresql": f"""
        SELECT e.id AS event_id, s.id AS subscription_id, s.tenant_id AS tenant_id
        FROM webhooks_event e CROSS JOIN LATERAL (
            SELECT s.id, s.tenant_id FROM subscriptions_subscription s WHERE {{whose}} AND {LISTENING} OFFSET 0
        ) s
        WHERE {{events}}
    """,  # noqa: S608
    "sqlite": f"""
        SELECT e.id AS event_id, s.id AS subscription_id, s.tenant_id AS tenant_id
        FROM webhooks_event e JOIN subscriptions_subscription s ON {{whose}}
        WHERE {LISTENING} AND {{events}}
    """,  # noqa: S608
}


def wanting(events: Sequence[Event], *, using: str) -> tuple[str, list[Any]]:
    """A query, with its parameters, for the event, the subscription and the
    tenant of each delivery that `events` are to become: those of subscriptions
    that listen to the topic, or to one of the fields that changed.

    They are one topic's, with the same changes, and all of tenants or all for
    every tenant. Not by the ORM, which takes longer to write this than
    the database to answer.
    """
    first, connection = events[0], connections[using]
    query = WANTING[connection.vendor].format(
        whose="e.tenant_id IS NULL" if first.tenant_id is None else "s.tenant_id = e.tenant_id",
        events=statements.among("e.id", using=using),
        names=statements.among("t.name", using=using),
        fields=statements.among("t.field", using=using),
    )
    key = Event._meta.pk
    ids = [key.get_db_prep_value(event.pk, connection) for event in events]
    return query, [statements.keys(each, using=using) for each in (candidates(first.topic), first.changed or (), ids)]


def forget() -> None:
    """Read everything again at the next question. For tests, and after a fork."""
    global _memory, _own
    _memory, _own = _Memory(), _Own()


@dataclass(slots=True)
class _Index:
    """What is listened to."""

    listeners: dict[str, set[int]]  # name of a Topic row -> ids of tenants
    newest: int  # id of a subscription
    slugs: dict[int, str]
    ids: dict[str, int]
    keys: dict[str, int]

    def add(self, new: _New) -> None:
        if new.topic is not None:
            name, tenant_id, subscription_id = new.topic
            self.listeners.setdefault(name, set()).add(tenant_id)
            self.newest = max(self.newest, subscription_id)
        if new.tenant is not None:
            pk, slug, key = new.tenant
            self.slugs[pk], self.ids[slug] = slug, pk
            if key is not None:
                self.keys[key] = pk


@dataclass(frozen=True, slots=True)
class _New:
    """What a new wish adds to an index, so that a thousand wishes made one by
    one are not a thousand readings."""

    topic: tuple[str, int, int] | None = None
    tenant: tuple[int, str, str | None] | None = None

    @classmethod
    def of(cls, wish: Wish | None) -> _New | None:
        """None where only reading everything again will tell."""
        if isinstance(wish, Subscription):
            return cls()  # It has no topics yet.
        if isinstance(wish, Tenant):
            # As the database holds it: the host may have given a number.
            return cls(tenant=(wish.pk, wish.slug, None if wish.key is None else str(wish.key)))
        if isinstance(wish, Topic) and Topic.subscription.is_cached(wish) and wish.subscription.enabled:
            return cls(topic=(wish.name, int(wish.subscription.tenant_id), int(wish.subscription_id)))
        return None


_NOBODY = _Index({}, 0, {}, {}, {})


@dataclass(frozen=True, slots=True)
class _Reading:
    """An index, the revision it was read under, and how many of this
    process's commits it knows of: one value, replaced as a whole."""

    index: _Index
    revision: _Revision
    commits: int


@dataclass(slots=True)
class _Memory:
    """What the threads of this process share: committed wishes only."""

    reading: _Reading | None = None
    commits: int = 0
    look_at: float = 0.0  # time.monotonic()
    migrated: bool = False
    # Who looks because it is time; and, never held over a query, who writes here.
    looking: threading.Lock = field(default_factory=threading.Lock)
    writing: threading.Lock = field(default_factory=threading.Lock)


class _Own(threading.local):
    """The wishes that this thread's open transaction has changed."""

    def __init__(self) -> None:
        # Where in `run_on_commit` each change left its mark. Django drops a
        # mark with the savepoint it belongs to, never one without those that
        # came after it: the last one alive vouches for all before it.
        self.marks: list[tuple[int, _Mark]] = []
        self.index: _Index | None = None


class _Mark:
    """Called after the commit of a change to a wish."""

    def __init__(self, new: _New | None) -> None:
        self.new = new

    def __call__(self) -> None:
        _committed(self.new)


_memory = _Memory()
_own = _Own()


def _index() -> _Index:
    if _own.marks and _is_uncommitted(connections[home()]):
        if _own.index is None:
            _own.index = _load(home())
        return _own.index
    commits, reading = _memory.commits, _memory.reading
    if reading is None or reading.commits < commits:
        return _look()
    if time.monotonic() >= _memory.look_at and _memory.looking.acquire(blocking=False):
        # One thread looks; the others go on with what there is.
        looking = _memory.looking
        try:
            return _look()
        finally:
            looking.release()
    return reading.index


def _is_uncommitted(connection: BaseDatabaseWrapper) -> bool:
    """Whether this thread's open transaction has changed a wish."""
    entries = connection.run_on_commit
    while _own.marks:
        position, mark = _own.marks[-1]
        if position < len(entries) and entries[position][1] is mark:
            return True
        _own.marks.pop()
        _own.index = None
    return False


def _look() -> _Index:
    """Read the revision, and the rest if it is another one."""
    memory, connection = _memory, connections[home()]
    before, commits = memory.reading, memory.commits
    look_at = time.monotonic() + LOOK_EVERY
    if not _migrated(connection):
        return _NOBODY
    with _harmless(connection):
        # The revision first: what is read after it is at least as new.
        revision: _Revision = Revision.current() or (0, None)
        if before is None or _is_another(revision, before.revision, connection):
            reading = _Reading(_load(connection.alias), revision, commits)
        else:
            reading = replace(before, commits=commits)
    with memory.writing:
        # If another thread was faster, its reading stands until the next look.
        if memory.reading is before:
            memory.reading, memory.look_at = reading, look_at
    return reading.index


def _harmless(connection: BaseDatabaseWrapper) -> AbstractContextManager[Any]:
    """Where the operator has failures logged, one must not break the caller's
    transaction, as a failed statement does on PostgreSQL."""
    if connection.in_atomic_block and conf.capture_errors == LOG:
        return transaction.atomic(using=connection.alias)
    return nullcontext()


def _is_another(now: _Revision, before: _Revision, connection: BaseDatabaseWrapper) -> bool:
    # A transaction with an old snapshot must not undo what others have read since.
    return now != before and not (connection.in_atomic_block and now[0] < before[0])


def _load(alias: str) -> _Index:
    listeners: dict[str, set[int]] = defaultdict(set)
    rows = Topic.objects.using(alias).filter(subscription__disabled_at=None).order_by()
    highest = 0
    for name, tenant_id, newest in rows.values_list("name", "subscription__tenant_id").annotate(Max("subscription_id")):
        listeners[name].add(tenant_id)
        highest = max(highest, newest)
    tenants = list(Tenant.objects.using(alias).order_by().values_list("id", "slug", "key"))
    return _Index(
        listeners=dict(listeners),
        newest=highest,
        slugs={pk: slug for pk, slug, _ in tenants},
        ids={slug: pk for pk, slug, _ in tenants},
        keys={key: pk for pk, _, key in tenants if key is not None},
    )


def _migrated(connection: BaseDatabaseWrapper) -> bool:
    """Whether the tables are there yet. Asked of the catalog: a query that
    fails would break the caller's transaction on PostgreSQL."""
    if not _memory.migrated:
        needed = {model._meta.db_table for model in (Revision, Tenant, Subscription, Topic)}
        _memory.migrated = needed.issubset(connection.introspection.table_names())
    return _memory.migrated


def _changed(*, added: Wish | None, **kwargs: Any) -> None:
    """A wish is being changed by this thread."""
    connection, new = connections[home()], _New.of(added)
    if not connection.in_atomic_block:
        _committed(new)
        return
    if not _is_uncommitted(connection) or new is None:
        _own.index = None
    if new is not None and _own.index is not None:
        _own.index.add(new)
    mark = _Mark(new)
    transaction.on_commit(mark, using=connection.alias, robust=True)
    _own.marks.append((len(connection.run_on_commit) - 1, mark))


def _committed(new: _New | None) -> None:
    memory = _memory
    with memory.writing:
        reading = memory.reading
        if new is not None and reading is not None and reading.commits == memory.commits:
            reading.index.add(new)
            memory.reading = replace(reading, commits=reading.commits + 1)
        memory.commits += 1


wishes_changed.connect(_changed, dispatch_uid="signalpost.matching")
os.register_at_fork(after_in_child=forget)

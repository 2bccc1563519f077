"""Deliveries: made of events by the fan-out, sent again and cancelled by people.

Claiming them is in `claims`; what others need of it has its name here, too.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from django.db import (
    DatabaseError,
    DataError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    connections,
    transaction,
)
from django.db.models import F, Q
from django.db.models.functions import Now

from subscriptions.conf import conf
from subscriptions.models import Subscription, Tenant, home, wishes_leaving
from webhooks import horizon, matching, statements, tallies, tasks, throttles, turns
from webhooks.claims import Claim, claim, forget_secrets, next_due_in, release
from webhooks.models import Delivery, Event

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from uuid import UUID

    from django.db.models import Model, QuerySet

__all__ = [
    "Claim",
    "away",
    "away_from_home",
    "cancel",
    "carry",
    "claim",
    "due_again",
    "fan_out",
    "forget_secrets",
    "in_short",
    "new_token",
    "next_due_in",
    "relay",
    "release",
    "replay",
    "requeue",
]

logger = logging.getLogger(__name__)

# How long a transaction of the fan-out may go on taking more: while it does,
# what is due waits, and SQLite lets nobody else write. One statement makes so
# many deliveries, or those of one event: 10,000 take a tenth of a second.
FAN_OUT_SECONDS = 0.01
MOST_ROWS = 100
MOST_EVENTS = 50
# An alias that could not be read is left alone for this long: connecting to a
# server that is away can take as long as its driver waits.
RELAY_PAUSE = 30.0
# PostgreSQL's codes for a server that takes nothing from anybody: a standby, as
# after a failover, and one that has no disk, memory or connections left.
READ_ONLY, NO_ROOM = frozenset({"25006"}), ("53", "58")
# So many events that the database refuses for now do not hold up those behind them.
MOST_STUCK = 1_000
UNMATCHED = "It could not be matched with subscriptions: "


# What a transaction takes up, it has locked: not much more than it has time for.
_pace = MOST_EVENTS


def fan_out(limit: int = MOST_EVENTS, *, patient: bool = False) -> int:
    """Turn waiting events into deliveries, about `limit` of them: tenants take
    turns, and each has its oldest first. With `patient`, who had more than a
    turn's worth the last time rests for a while.

    Returns how many were settled. Several workers share the work: an event is
    locked while it is fanned out, and what is locked is passed over. One that
    cannot be fanned out does not hold up the others. Raises DatabaseError
    only where the database itself is away.
    """
    global _pace  # noqa: PLW0603
    alias, limit = home(), min(limit, _pace)
    waiting = turns.tenants(limit, using=alias)
    whose = turns.restless(waiting, patient=patient)
    if not whose:
        return 0  # without a transaction, which on SQLite keeps others from writing
    began = time.monotonic()
    try:
        with transaction.atomic(using=alias):
            statements.need_not_be_flushed(alias)
            events = turns.events(whose, limit, using=alias)
            done = _settle(events, using=alias)
        if len(whose) == len(waiting):
            turns.served(whose, events, done, limit=limit, took=time.monotonic() - began)
            _pace = min(MOST_EVENTS, 2 * len(done) + 1)
        return len(done)
    except Exception as error:
        if away(error, alias):
            raise
        logger.warning("A batch of events could not be fanned out (%s); trying them one by one", in_short(error))
    return _fan_out_singly(whose, limit, using=alias)


def _fan_out_singly(whose: Sequence[int | None], limit: int, *, using: str) -> int:
    settled = 0
    for event in turns.events(whose, limit + MOST_STUCK, using=using):
        try:
            with transaction.atomic(using=using):
                settled += len(_settle(_still_waiting(event, using=using), using=using))
        except Exception as error:
            if away(error, using):
                raise
            settled += _set_aside(event.pk, error=error, using=using)
        if settled >= limit:
            break
    return settled


def _still_waiting(event: Event, *, using: str) -> list[Event]:
    skip_locked = connections[using].features.has_select_for_update_skip_locked
    waiting = Event.objects.using(using).waiting().filter(pk=event.pk)
    return list(waiting.select_for_update(skip_locked=skip_locked).defer("body"))


def _settle(events: Sequence[Event], *, using: str) -> list[Event]:
    """Returns those that were, before it took too long."""
    deadline = time.monotonic() + FAN_OUT_SECONDS
    done: list[Event] = []
    if events:
        horizon.announce(using)
    for some in _together(events, using=using):
        _insert_deliveries(some, using=using)
        done += some
        if time.monotonic() > deadline:
            break
    Event.objects.using(using).filter(pk__in=[event.pk for event in done]).update(fanned_out_at=Now())
    # With the rows themselves: what was captured is this and what still waits.
    counts = dict.fromkeys([tallies.CAPTURED, tallies.FANNED_OUT], len(done))
    tallies.add({(tallies.EVENTS, label): number for label, number in counts.items()}, using=using)
    return done


def _together(events: Sequence[Event], *, using: str) -> list[list[Event]]:
    """What one statement does: events for at most MOST_ROWS subscriptions, or a
    single one. In their order, as a feed is read in that of the deliveries."""
    tenants = {event.tenant_id for event in events if event.tenant_id is not None}
    widths = _subscriptions_of(tenants, using=using) if len(events) > 1 else {}
    portions: list[list[Event]] = []
    room = 0
    for event in events:
        width = widths.get(event.tenant_id, 1) if event.tenant_id is not None else MOST_ROWS
        if width > room:
            portions.append([])
            room = MOST_ROWS
        portions[-1].append(event)
        room -= width
    return portions


def _alike(events: Sequence[Event]) -> Iterable[list[Event]]:
    """Those that are alike but for whose they are and when."""
    found: dict[Any, list[Event]] = {}
    for event in events:
        found.setdefault((event.tenant_id is None, event.topic, *(event.changed or ())), []).append(event)
    return found.values()


def _subscriptions_of(tenants: Collection[int], *, using: str) -> dict[int, int]:
    query = f"""
        SELECT tenant_id, count(*) FROM subscriptions_subscription
        WHERE {statements.among("tenant_id", using=using)} AND disabled_at IS NULL GROUP BY tenant_id
    """  # noqa: S608 - made of names of ours
    return dict(statements.rows(query, [statements.keys(tenants, using=using)], using=using))


def _insert_deliveries(events: Sequence[Event], *, using: str) -> None:
    """One statement, however many subscriptions; again is harmless."""
    queries = [matching.wanting(some, using=using) for some in _alike(events)]
    wanting = " UNION ALL ".join(query for query, _ in queries)
    now = statements.now(using)
    with connections[using].cursor() as cursor:
        cursor.execute(
            f"""
            WITH wanting AS ({wanting})
            INSERT INTO webhooks_delivery
                (event_id, subscription_id, tenant_id, status, created_at, next_attempt_at,
                 attempt_count, schedule_step, lease, "trigger", triggered_by)
            SELECT event_id, subscription_id, tenant_id, 'pending', {now}, {now}, 0, 0, 0, 'schedule', ''
            FROM wanting WHERE true {"ORDER BY event_id" if len(events) > 1 else ""}
            ON CONFLICT (event_id, subscription_id) DO NOTHING
            """,  # noqa: S608 - made of names of ours
            [each for _, parameters in queries for each in parameters],
        )


def _set_aside(pk: UUID, *, error: Exception, using: str) -> int:
    """What the database refuses may pass next time (a lock, a migration that
    runs); what is wrong with the event itself will not, and is shown."""
    ids = {"event": Event(pk=pk).webhook_id}
    if isinstance(error, DatabaseError) and not isinstance(error, DataError):
        logger.warning("Event %s could not be fanned out, and waits: %s", pk, in_short(error), extra=ids)
        return 0
    logger.error("Event %s cannot be fanned out: %s", pk, in_short(error), extra=ids)
    text = f"{UNMATCHED}{type(error).__name__}"
    with transaction.atomic(using=using):
        settled = Event.objects.using(using).filter(pk=pk).update(fanned_out_at=Now(), error=text)
        tallies.add({(tallies.EVENTS, tallies.CAPTURED): settled}, using=using)
    return settled


def away(error: Exception, alias: str) -> bool:
    """Whether `error` says that the database is away, and nothing about the
    rows. SQLite refuses for reasons that concern them all: locked, full, no table."""
    if not isinstance(error, DatabaseError | InterfaceError):
        return False
    if connections[alias].vendor == "sqlite" and isinstance(error, OperationalError):
        return True
    return _refuses_all(error) or not _usable(alias)


def _refuses_all(error: Exception) -> bool:
    code = getattr(error.__cause__, "sqlstate", None) or ""
    return code in READ_ONLY or code.startswith(NO_ROOM)


def in_short(error: Exception) -> str:
    """For the log. The first line only: those behind it may quote the
    statement, and rows with the bodies in them."""
    first = f"{type(error).__name__}: {error}".partition("\n")[0]
    missing = isinstance(error, ProgrammingError) or "no such table" in first
    return f"{first}; has manage.py migrate been run?" if missing else first


def _usable(alias: str) -> bool:
    connection = connections[alias]
    return connection.connection is not None and connection.is_usable()


_unreadable_until: dict[str, float] = {}


def relay(limit: int = 100) -> int:
    """Carry events home from the other aliases whose changes are captured.

    First home, committed, then marked as fanned out where they came from: a
    crash in between carries them again, and home already has them.
    """
    carried = 0
    for alias in away_from_home():
        if time.monotonic() < _unreadable_until.get(alias, 0):
            continue
        try:
            carried += carry(alias, limit)
        except DatabaseError as error:
            connections[home()].ensure_connection()  # raises where it is home that is away
            if not _usable(home()):
                raise
            logger.warning("Events on %r cannot be carried home: %s", alias, in_short(error))
            connections[alias].close()
            _unreadable_until[alias] = time.monotonic() + RELAY_PAUSE
    return carried


def carry(alias: str, limit: int) -> int:
    if not Event.objects.using(alias).waiting().exists():
        return 0
    skip_locked = connections[alias].features.has_select_for_update_skip_locked
    with transaction.atomic(using=alias):
        events = list(Event.objects.using(alias).waiting().select_for_update(skip_locked=skip_locked)[:limit])
        Event.objects.using(home()).bulk_create(events, ignore_conflicts=True)
        ids = [event.pk for event in events]
        Event.objects.using(alias).filter(pk__in=ids).update(fanned_out_at=Now())
    return len(events)


def away_from_home() -> list[str]:
    """The aliases whose changes are captured, and that are another database than home."""
    return [alias for alias in conf.databases if not _same_database(alias, home())]


def _same_database(one: str, other: str) -> bool:
    """Two aliases may be two ways to one database; its events are at home."""
    first, second = (
        tuple(str(connections[alias].settings_dict[key]) for key in ("ENGINE", "HOST", "PORT", "NAME"))
        for alias in (one, other)
    )
    return first == second


def replay(queryset: QuerySet[Delivery], *, by: str) -> int:
    """Send again, now, from the start of the schedule; `by` names who wants it.

    Whatever the status, but never what is in flight. Returns how many.
    """
    chosen = _free(queryset)
    failing = throttles.waiting(chosen.values("subscription_id"), using=home())
    # No bulk replay that it was part of takes it back.
    rows: int = chosen.update(**due_again(by=by), replay=None, replayed_from="")
    # After the deliveries, as workers lock them.
    if failing:
        throttles.probe_now(failing, using=home())
    if rows:
        transaction.on_commit(tasks.ring, using=home(), robust=True)
    return rows


def due_again(*, by: str) -> dict[str, Any]:
    """What an UPDATE sets to send deliveries now, from the start of the schedule."""
    return {
        "status": Delivery.Status.PENDING,
        "next_attempt_at": Now(),
        "schedule_step": 0,
        "trigger": Delivery.Trigger.MANUAL,
        "triggered_by": by[: Delivery._meta.get_field("triggered_by").max_length],
        "ended_at": None,
        **new_token(),
    }


def cancel(queryset: QuerySet[Delivery]) -> int:
    """Never send what is still open; what is in flight is not touched. Returns how many."""
    rows: int = (
        _free(queryset)
        .open()
        .update(status=Delivery.Status.CANCELLED, ended_at=Now(), next_attempt_at=None, **new_token())
    )
    _tally_after_commit((tallies.DELIVERIES, Delivery.Status.CANCELLED), rows)
    return rows


def _tally_after_commit(key: tuple[str, str], number: int) -> None:
    """Not in a transaction that goes on to wait for other rows."""
    write = partial(tallies.add, {key: number}, using=home())
    if number:
        transaction.on_commit(write, using=home(), robust=True)


def _free(queryset: QuerySet[Delivery]) -> Any:
    chosen = queryset.order_by() if not queryset.query.is_sliced else queryset
    return Delivery.objects.using(home()).free().filter(pk__in=chosen.values("pk"))


def new_token() -> dict[str, Any]:
    """A worker that still holds a lease which has run out must not overwrite this."""
    return {"lease": F("lease") + 1, "leased_until": None}


def requeue() -> dict[str, int]:
    """Put the queue in order again from the database, such as after Redis was
    wiped: events that could not be matched get another chance, open
    deliveries without a time get one, and the bell rings anew.

    Returns how many "events" and "deliveries" wait for a worker.
    """
    alias = home()
    Event.objects.using(alias).filter(error__startswith=UNMATCHED).update(error="", fanned_out_at=None)
    Delivery.objects.using(alias).open().filter(next_attempt_at=None).update(next_attempt_at=Now())
    tasks.silence()
    transaction.on_commit(tasks.ring, using=alias, robust=True)
    return {
        "events": Event.objects.using(alias).waiting().count(),
        "deliveries": Delivery.objects.using(alias).due().count(),
    }


def _hold(sender: type[Model], *, wishes: QuerySet[Any], **kwargs: Any) -> None:
    """What is about to be deleted with its traffic gets none meanwhile, or the
    deletion would fail over a delivery or an attempt that was not yet there
    when it began. In the order in which workers lock. SQLite has one writer."""
    alias = home()
    if sender not in {Tenant, Subscription}:
        return
    ids = list(wishes.values_list("pk", flat=True))
    if sender is Tenant:
        # They were captured, although nobody will fan them out.
        leaving = Event.objects.using(alias).waiting().filter(tenant__in=ids).count()
        _tally_after_commit((tallies.EVENTS, tallies.CAPTURED), leaving)
    if not connections[alias].features.has_select_for_update:
        return
    tenants = Tenant.objects.using(alias).filter(pk__in=ids if sender is Tenant else [])
    of_them = Q(tenant__in=ids) if sender is Tenant else Q(pk__in=ids)
    subscriptions = Subscription.objects.using(alias).filter(of_them)
    events = Event.objects.using(alias).waiting().filter(tenant__in=tenants.values("pk"))
    deliveries = Delivery.objects.using(alias).filter(subscription__in=subscriptions.values("pk"))
    # The deliveries again: those made before the subscriptions were locked.
    for rows in (deliveries, events, tenants, subscriptions, deliveries):
        list(rows.order_by("pk").select_for_update(of=("self",)).values_list("pk"))


wishes_leaving.connect(_hold, dispatch_uid="signalpost.deliveries")

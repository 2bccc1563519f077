"""Many deliveries sent again, or for the first time, as one wish.

The wish is a row; the workers carry it out in steps (`advance`), each a short
transaction that also moves the row's `position` on. A step goes through at
most WINDOW rows and queues at most ROWS, so that neither a wish for a million
nor one that finds three in a million keeps anything else waiting.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID, uuid4

from django.db import connections, transaction
from django.db.models import BooleanField, Case, Count, Exists, F, Func, Max, OuterRef, Q, Subquery, Value, When
from django.db.models.functions import Coalesce, Now
from django.utils import formats, timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from subscriptions import edits
from subscriptions.edits import Refused
from subscriptions.entries import TEST
from subscriptions.models import AuditEntry, Subscription, Tenant, home
from subscriptions.trail import note
from webhooks import cursors, deliveries, horizon, matching, statements, tallies, tasks, throttles
from webhooks.filters import DeliveryFilters
from webhooks.models import Attempt, Delivery, Event, Replay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.models import QuerySet

    from subscriptions.trail import Actor
    from webhooks.models import DeliveryQuerySet

__all__ = ["Progress", "Refused", "advance", "cancel", "count", "failed_since", "progress", "start", "wish"]

logger = logging.getLogger(__name__)

Kind = Replay.Kind
Status = Delivery.Status

# Of one transaction: queued, and gone through to find them.
ROWS = 1_000
WINDOW = 4_000
# Counted exactly up to here, and for so many seconds: the number is for people.
MOST = 100_000
PATIENCE = 0.15
# Who cancels takes back what can be within this time; the workers do the rest.
CANCEL_SECONDS = 0.5
# One that the database refuses does not hold up the others.
STUCK_PAUSE = 30.0


@dataclass(frozen=True, slots=True)
class Number:
    """How many, as far as was counted."""

    number: int
    exact: bool = True

    def __bool__(self) -> bool:
        return bool(self.number) or not self.exact

    def __str__(self) -> str:
        if self.number > MOST:
            return _("more than %(number)s") % {"number": _grouped(MOST)}
        if self.exact:
            return _grouped(self.number)
        return (
            _("at least %(number)s") % {"number": _grouped(self.number)} if self.number else _("an unknown number of")
        )

    @property
    def in_deliveries(self) -> str:
        return ngettext("%(number)s delivery", "%(number)s deliveries", self.number) % {"number": self}


def _grouped(number: int) -> str:
    return formats.number_format(number, force_grouping=True)


# Asking


def wish(
    tenant: Tenant,
    kind: str,
    *,
    subscription: Subscription | None = None,
    since: datetime | None = None,
    filters: DeliveryFilters | None = None,
) -> Replay:
    """What would be replayed, not yet asked for: all that failed since then,
    that the filters match, or that was never sent since then.

    Raises Refused where it makes no sense.
    """
    filters = filters or DeliveryFilters()
    if kind not in Kind.values:
        raise Refused(_("There is no such replay."))
    if filters.errors:
        raise Refused(_("The filters cannot be read: %(errors)s") % {"errors": " ".join(filters.errors.values())})
    if kind == Kind.FILTERED and subscription is None and filters.subscription is not None:
        subscription = Subscription.objects.using(home()).for_tenant(tenant).filter(pk=filters.subscription).first()
    if subscription is not None and subscription.tenant_id != tenant.pk:
        raise Refused(_("There is no such subscription."))
    if kind == Kind.MISSED and (subscription is None or since is None):
        raise Refused(_("Choose a subscription and a time: what was missed is one subscription's, since then."))
    return Replay(
        tenant=tenant,
        kind=Kind(kind),
        subscription=subscription,
        since=None if kind == Kind.FILTERED else since,
        until=timezone.now(),
        filters=filters.as_query() if kind == Kind.FILTERED else {},
    )


def count(replay: Replay, *, patience: float = PATIENCE) -> Number:
    """How many there are, for a wish or its row: exact up to MOST, and as far
    as `patience` seconds go."""
    if replay.kind == Kind.FAILED:
        found = _meant(replay, _walked(replay))[: MOST + 1].count()
        return Number(found, exact=found <= MOST)
    deadline = time.monotonic() + patience
    number = 0
    for window in _windows(replay):
        number += window.count()
        if number > MOST or time.monotonic() > deadline:
            # What the last window left out is not known to be nothing.
            return Number(number, exact=False)
    return Number(number)


def failed_since(subscription: Subscription, since: datetime | None = None) -> Number:
    """How many of its deliveries have failed since then, by an index."""
    return count(wish(subscription.tenant, Kind.FAILED, subscription=subscription, since=since))


def start(
    replay: Replay,
    *,
    by: Actor,
    enable: bool = False,
    token: UUID | None = None,
) -> Replay:
    """Ask for what `wish` gave. With `enable`, its subscription is turned on
    first. Asked for twice with one `token`, it is one replay.

    Raises Refused where there is nothing, or the subscription may not be turned on.
    """
    alias, tenant = home(), replay.tenant
    found = count(replay)
    with transaction.atomic(using=alias):
        # Two clicks come here one after the other.
        Tenant.objects.using(alias).select_for_update(no_key=True).get(pk=tenant.pk)
        replay.token = token or uuid4()
        earlier = Replay.objects.using(alias).for_tenant(tenant).filter(token=replay.token).first()
        if earlier is not None:
            return earlier
        if not found:
            raise Refused(_("There is nothing to replay any more."))
        # Before the subscription, as workers lock them.
        throttles.probe_now(_subscriptions(replay).values("pk"), using=alias)
        if replay.subscription is not None:
            _turn_on(replay.subscription, by=by, enable=enable)
        replay.expected = found.number if found.exact else None
        replay.by = by.name[: Replay._meta.get_field("by").max_length]
        replay.created_at = timezone.now()
        replay.save(using=alias, force_insert=True)
        note(
            by,
            AuditEntry.Action.REPLAY_STARTED,
            tenant=tenant,
            about=replay,
            name=_of(replay),
            replayed=replay.kind,
            since=replay.since.isoformat() if replay.since else None,
            filters=replay.filters,
            expected=replay.expected,
        )
        transaction.on_commit(tasks.ring, using=alias, robust=True)
    return replay


def _of(replay: Replay) -> str:
    """For the audit log, where no URL stands: its path and its query may be secrets."""
    return "" if replay.subscription is None else replay.subscription.name or replay.subscription.host


def _turn_on(subscription: Subscription, *, by: Actor, enable: bool) -> None:
    if enable:
        edits.enable(subscription, by)
    elif not Subscription.objects.using(home()).enabled().filter(pk=subscription.pk).exists():
        raise Refused(_("The subscription is off. Turn it on first, or nothing can be sent."))


def cancel(replay: Replay, *, by: Actor) -> bool:
    """What is not yet queued never is; what is queued and was not attempted
    since goes back to what it was; what is in flight is left.

    False where it is cancelled already, or there is nothing left to take back.
    """
    alias = home()
    with transaction.atomic(using=alias):
        # The lock first: a step that is just being committed has queued more.
        rows = (
            Replay.objects.using(alias).filter(pk=replay.pk, cancelled_at=None).select_related("tenant", "subscription")
        )
        row = rows.select_for_update(no_key=True, of=("self",)).first()
        if row is None or (row.settled_at and not _untouched(row).exists()):
            return False
        Replay.objects.using(alias).filter(pk=row.pk).update(cancelled_at=Now(), settled_at=None)
        note(by, AuditEntry.Action.REPLAY_CANCELLED, tenant=row.tenant, about=row, name=_of(row))
        transaction.on_commit(tasks.ring, using=alias, robust=True)
    deadline = time.monotonic() + CANCEL_SECONDS
    while time.monotonic() < deadline and _step(row.pk):
        pass
    return True


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it has got, from the database."""

    total: int | None  # None while nobody knows
    queued: int
    delivered: int
    failed: int
    open: int
    taken_back: int
    cancelled: bool
    settled: bool

    @property
    def done(self) -> int:
        """At an end, or taken over by a later replay."""
        return max(0, self.queued - self.taken_back - self.open)

    @property
    def elsewhere(self) -> int:
        return max(0, self.done - self.delivered - self.failed)

    @property
    def going_on(self) -> bool:
        return not self.settled or self.open > 0

    @property
    def seen(self) -> str:
        """Another text wherever something has changed."""
        return "-".join(
            str(int(value or 0))
            for value in (
                self.queued,
                self.delivered,
                self.failed,
                self.open,
                self.taken_back,
                self.cancelled,
                self.settled,
            )
        )


def progress(replay: Replay) -> Progress:
    rows = Delivery.objects.using(home()).filter(replay=replay).order_by()
    counts = dict(rows.values_list("status").annotate(number=Count("pk")))
    is_open = sum(counts.get(status, 0) for status in Delivery.OPEN)
    settled = replay.settled_at is not None
    known = replay.queued if settled and not replay.cancelled_at else replay.expected
    return Progress(
        total=None if known is None else max(known, replay.queued),
        queued=replay.queued,
        delivered=counts.get(Status.DELIVERED, 0),
        failed=counts.get(Status.FAILED, 0),
        open=is_open,
        taken_back=replay.taken_back,
        cancelled=replay.cancelled_at is not None,
        settled=settled,
    )


def can_be_cancelled(replay: Replay) -> bool:
    return replay.cancelled_at is None and (replay.settled_at is None or _untouched(replay).exists())


# Carrying it out

_stuck_until: dict[int, float] = {}


def advance() -> bool:
    """One step of one replay, such as a worker does between others: what is to
    be taken back first, then whose turn has brought the fewest so far. False
    where there is nothing to do. Raises DatabaseError only where the database
    itself is away.
    """
    alias = home()
    running = Replay.objects.using(alias).running().order_by(F("cancelled_at").asc(nulls_last=True), "queued", "pk")
    for pk in running.values_list("pk", flat=True)[:ROWS]:
        if time.monotonic() < _stuck_until.get(pk, 0):
            continue
        try:
            if _step(pk):
                return True
        except Exception as error:
            if deliveries.away(error, alias):
                raise
            logger.warning("Replay %d cannot go on, and waits: %s", pk, deliveries.in_short(error))
            _stuck_until[pk] = time.monotonic() + STUCK_PAUSE
    return False


def _step(pk: int) -> bool:
    """Under the row's lock; False where another worker has it, or it is settled."""
    alias = home()
    with transaction.atomic(using=alias):
        rows = Replay.objects.using(alias).running().filter(pk=pk).select_related("tenant", "subscription")
        replay = rows.select_for_update(skip_locked=True, no_key=True, of=("self",)).first()
        if replay is None:
            return False
        if replay.cancelled_at is not None:
            taken = _take_back(replay)
            changes: dict[str, Any] = {"taken_back": F("taken_back") + taken}
            more = taken == ROWS
        else:
            queued, position, more = _queue(replay)
            changes = {"queued": F("queued") + queued, "position": position}
        if not more:
            changes["settled_at"] = Now()
        Replay.objects.using(alias).filter(pk=pk).update(**changes)
    return True


class _Step(NamedTuple):
    queued: int
    position: str
    more: bool


def _queue(replay: Replay) -> _Step:
    if replay.subscription is not None and not replay.subscription.enabled:
        return _Step(0, replay.position, more=False)  # It was turned off meanwhile.
    return _queue_events(replay) if replay.kind == Kind.MISSED else _queue_deliveries(replay)


def _subscriptions(replay: Replay) -> Any:
    rows = Subscription.objects.using(home()).for_tenant(replay.tenant)
    return rows if replay.subscription_id is None else rows.filter(pk=replay.subscription_id)


def _windows(replay: Replay) -> Iterator[QuerySet[Any]]:
    """What is meant, some rows after the other; the newest deliveries first."""
    if replay.kind == Kind.MISSED:
        yield from _windows_of_events(replay)
    else:
        yield from _windows_of_deliveries(replay)


# Deliveries, by their number


def _walked(replay: Replay) -> DeliveryQuerySet:
    """By one index, whatever else is asked of them."""
    filters = DeliveryFilters.from_query(replay.filters)
    rows = Delivery.objects.using(home()).for_tenant(replay.tenant)
    if replay.subscription_id is not None:
        rows = rows.filter(subscription=replay.subscription_id)
    if filters.event is not None:
        return rows.filter(event=filters.event)
    if replay.kind == Kind.FAILED:
        return rows.failed()
    return rows.filter(status=filters.status) if filters.status else rows


def _meant(replay: Replay, rows: DeliveryQuerySet) -> DeliveryQuerySet:
    if replay.subscription_id is None:
        rows = rows.filter(subscription__disabled_at=None)
    if replay.kind == Kind.FILTERED:
        return DeliveryFilters.from_query(replay.filters).apply(rows).filter(created_at__lte=replay.until)
    since = {} if replay.since is None else {"ended_at__gte": replay.since}
    return rows.failed().filter(ended_at__lte=replay.until, **since)


def _windows_of_deliveries(replay: Replay) -> Iterator[DeliveryQuerySet]:
    filters = DeliveryFilters.from_query(replay.filters)
    walked = cursors.in_order(_walked(replay), filters, newest_first=True)
    begin = walked.values_list("pk", flat=True).first()
    while begin is not None:
        rows = walked.filter(pk__lte=begin)
        end = rows.values_list("pk", flat=True)[WINDOW : WINDOW + 1].first()
        yield _meant(replay, rows if end is None else rows.filter(pk__gt=end)).order_by()
        begin = end


def _queue_deliveries(replay: Replay) -> _Step:
    rows = _walked(replay).filter(pk__gt=int(replay.position or 0)).order_by("pk")
    end = rows.values_list("pk", flat=True)[WINDOW - 1 : WINDOW].first()
    window = rows if end is None else rows.filter(pk__lte=end)
    # What another worker holds, or is just writing, is in flight.
    meant = _meant(replay, window).free().select_for_update(skip_locked=True, no_key=True, of=("self",))
    found = list(meant.values_list("pk", flat=True)[:ROWS])
    queued = Delivery.objects.using(home()).filter(pk__in=found)
    queued.update(**deliveries.due_again(by=replay.by), replay=replay, replayed_from=F("status"))
    if len(found) == ROWS:
        return _Step(ROWS, str(found[-1]), more=True)
    return _Step(len(found), str(end or ""), more=end is not None)


# Events, by their time


class _Has(Func):
    """Whether a JSON list of names, null being none, has one of these."""

    output_field = BooleanField()

    def __init__(self, names: str, wanted: set[str]) -> None:
        super().__init__(names)
        self.wanted = sorted(wanted)

    def as_sqlite(self, compiler: Any, connection: Any, **kwargs: Any) -> tuple[str, tuple[str | int, ...]]:
        names, parameters = compiler.compile(self.source_expressions[0])
        wanted = "SELECT value FROM json_each(%s)"
        query = f"EXISTS (SELECT 1 FROM json_each({names}) AS name WHERE name.value IN ({wanted}))"  # noqa: S608
        return query, (*parameters, json.dumps(self.wanted))

    def as_postgresql(self, compiler: Any, connection: Any, **kwargs: Any) -> tuple[str, tuple[Any, ...]]:
        names, parameters = compiler.compile(self.source_expressions[0])
        return f"jsonb_exists_any({names}, %s::text[])", (*parameters, self.wanted)


@dataclass(frozen=True, slots=True)
class _Place:
    """Of an event in a walk: its time, and its key where two have one time."""

    at: datetime
    pk: UUID

    @classmethod
    def of(cls, text: str, *, since: datetime) -> _Place:
        at, _slash, pk = text.partition("/")
        return cls(datetime.fromisoformat(at), UUID(pk)) if pk else cls(since, UUID(int=0))

    def __str__(self) -> str:
        return f"{self.at.astimezone(UTC).isoformat()}/{self.pk.hex}"

    @property
    def after(self) -> Q:
        # The first is for the index.
        return Q(created_at__gte=self.at) & (Q(created_at__gt=self.at) | Q(pk__gt=self.pk))

    @property
    def upto(self) -> Q:
        return Q(created_at__lte=self.at) & (Q(created_at__lt=self.at) | Q(pk__lte=self.pk))


def _events(replay: Replay, begin: _Place) -> tuple[QuerySet[Event], _Place | None]:
    """Those of the next window, and where it ends; None at the end of all."""
    walked = Event.objects.using(home()).filter(begin.after, created_at__lte=replay.until).order_by("created_at", "pk")
    ends = [
        walked.filter(tenant=tenant).values_list("created_at", "pk")[WINDOW - 1 : WINDOW].first()
        for tenant in (replay.tenant_id, None)
    ]
    places = [_Place(*end) for end in ends if end is not None]
    end = min(places, key=lambda place: (place.at, place.pk)) if places else None
    window = walked.filter(Q(tenant=replay.tenant_id) | Q(tenant=None))
    return window if end is None else window.filter(end.upto), end


def _missed(replay: Replay, window: QuerySet[Event]) -> QuerySet[Event]:
    """Those that the subscription wants, as it is now, and has no delivery of."""
    listened = replay.subscription.topics.using(home()).values_list("name", "field") if replay.subscription else []
    fields: dict[str, set[str]] = {}
    for name, field in listened:
        fields.setdefault(name, set()).add(field)
    whole: list[str] = []
    wanted = Q(pk__in=[])
    for topic in window.order_by().values_list("topic", flat=True).distinct():
        of_topic = set().union(*(fields.get(name, set()) for name in matching.candidates(topic)))
        if topic == TEST or not of_topic:
            continue
        if "" in of_topic:
            whole.append(topic)
        else:
            wanted |= Q(_Has("changed", of_topic), topic=topic)
    has = Delivery.objects.using(home()).filter(event=OuterRef("pk"), subscription=replay.subscription_id)
    return window.filter(Q(topic__in=whole) | wanted, ~Exists(has), error="")


def _windows_of_events(replay: Replay) -> Iterator[QuerySet[Event]]:
    place: _Place | None = _Place.of("", since=replay.since or replay.until)
    while place is not None:
        window, place = _events(replay, place)
        yield _missed(replay, window).order_by()


def _queue_events(replay: Replay) -> _Step:
    window, end = _events(replay, _Place.of(replay.position, since=replay.since or replay.until))
    found = list(_missed(replay, window).values_list("created_at", "pk")[:ROWS])
    queued = _insert([pk for _at, pk in found], replay)
    if len(found) == ROWS:
        return _Step(queued, str(_Place(*found[-1])), more=True)
    return _Step(queued, str(end or ""), more=end is not None)


def _insert(events: list[UUID], replay: Replay) -> int:
    """What the fan-out has just made itself stays as it is."""
    alias = home()
    now = statements.now(alias)
    key, connection = Event._meta.pk, connections[alias]
    query = f"""
        INSERT INTO webhooks_delivery
            (event_id, subscription_id, tenant_id, status, created_at, next_attempt_at,
             attempt_count, schedule_step, lease, "trigger", triggered_by, replay_id, replayed_from)
        SELECT id, %s, %s, 'pending', {now}, {now}, 0, 0, 0, 'manual', %s, %s, ''
        FROM webhooks_event WHERE {statements.among("id", using=alias)} ORDER BY created_at, id
        ON CONFLICT (event_id, subscription_id) DO NOTHING
    """  # noqa: S608 - made of names of ours
    keys = statements.keys([key.get_db_prep_value(pk, connection) for pk in events], using=alias)
    horizon.announce(alias)
    return statements.run(query, [replay.subscription_id, replay.tenant_id, replay.by, replay.pk, keys], using=alias)


# Taking back


def _untouched(replay: Replay) -> DeliveryQuerySet:
    """Queued by it, and by nobody attempted since: what is under a lease, even
    one that is over, may have arrived."""
    return Delivery.objects.using(home()).filter(replay=replay, status=Status.PENDING, leased_until=None)


def _take_back(replay: Replay) -> int:
    """What was going to be sent anyway still is. Returns how many rows it went through."""
    # In no order: that would sort them all at each step.
    rows = _untouched(replay).order_by().select_for_update(skip_locked=True, no_key=True)
    found = list(rows.values_list("pk", "replayed_from")[:ROWS])
    was_open = Q(replayed_from__in=Delivery.OPEN)
    last = Attempt.objects.filter(delivery=OuterRef("pk")).order_by().values("delivery")
    Delivery.objects.using(home()).filter(pk__in=[pk for pk, _was in found]).update(
        status=Case(When(replayed_from="", then=Value(Status.CANCELLED)), default=F("replayed_from")),
        ended_at=Case(
            When(was_open, then=None),
            default=Coalesce(Subquery(last.annotate(at=Max("ended_at")).values("at")), Now()),
        ),
        next_attempt_at=Case(When(was_open, then=F("next_attempt_at")), default=None),
        trigger=Delivery.Trigger.SCHEDULE,
        triggered_by="",
        replay=None,
        replayed_from="",
        **deliveries.new_token(),
    )
    if never := sum(not was for _pk, was in found):
        write = partial(tallies.add, {(tallies.DELIVERIES, Status.CANCELLED): never}, using=home())
        transaction.on_commit(write, using=home(), robust=True)
    return len(found)

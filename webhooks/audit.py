"""The audit: every event its deliveries, every delivery an end, every end an attempt.

It walks the events since a moment by their keys, a page at a time, and asks
of each page in a handful of statements what is missing. Each question is one
statement, so that the workers, who go on meanwhile, cannot fool it between
two of them; what they may still be about to do is given `grace`.

What it cannot know it does not call a gap: whether a subscription listened
when an event happened is known only if neither it nor its topics have been
turned on or changed since (`unknown` counts those). A change whose event was
never written, and a request for a change that was rolled back, leave nothing
here to find: against both stands that row and event share a transaction.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import connections, transaction
from django.db.models import Count, Exists, F, Max, OuterRef, Q, Subquery
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from subscriptions.entries import TEST
from subscriptions.models import Tenant, home
from webhooks import deliveries, horizon, rollups, tasks
from webhooks.models import Attempt, Delivery, DeliveryQuerySet, Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from django.db.models import QuerySet

# Events of one page; also rows of one repair.
PAGE = 1_000
# Ids of each kind of gap that are kept to be shown.
SHOWN = 20

KINDS = {
    "event_waiting": "not fanned out",
    "event_unmatched": "could not be matched with subscriptions",
    "event_away": "not carried home from another database",
    "delivery_missing": "listened, and has no delivery of the event",
    "delivery_overdue": "due, and not taken by any worker",
    "delivery_abandoned": "held under a lease that is over",
    "delivery_unproven": "at its end without the attempt that says so",
    "delivery_miscounted": "with another number of attempts than it says",
    "attempt_unended": "without an end, and its lease is over",
}
# Nothing but sending again brings back what is not written down.
BEYOND_REPAIR = frozenset({"delivery_unproven"})


@dataclass(slots=True)
class Gap:
    count: int = 0
    repaired: int = 0
    ids: list[str] = field(default_factory=list)

    def add(self, count: int, ids: list[str]) -> None:
        self.count += count
        self.ids += ids[: SHOWN - len(self.ids)]


@dataclass(slots=True)
class Report:
    """What was walked, by noun and state, and what is missing, by kind."""

    since: datetime
    until: datetime
    counts: Counter[str] = field(default_factory=Counter)
    gaps: dict[str, Gap] = field(default_factory=dict)
    unknown: int = 0

    def add(self, kind: str, count: int, ids: Callable[[], list[str]]) -> None:
        if count:
            gap = self.gaps.setdefault(kind, Gap())
            gap.add(count, ids() if len(gap.ids) < SHOWN else [])

    def repaired(self, kind: str, count: int) -> None:
        if kind in self.gaps:
            self.gaps[kind].repaired += count


@dataclass(frozen=True, slots=True)
class Page:
    """Events with keys after `after`, up to and including `last`."""

    alias: str
    ids: list[UUID]
    after: UUID
    last: UUID
    grace: timedelta

    @property
    def events(self) -> QuerySet[Event]:
        return Event.objects.using(self.alias).filter(pk__gt=self.after, pk__lte=self.last)

    @property
    def deliveries(self) -> DeliveryQuerySet:
        return Delivery.objects.using(self.alias).filter(event_id__gt=self.after, event_id__lte=self.last)

    @property
    def attempts(self) -> QuerySet[Attempt]:
        return Attempt.objects.using(self.alias).filter(
            delivery__event_id__gt=self.after, delivery__event_id__lte=self.last
        )


def audit(
    since: datetime, *, grace: timedelta, repair: bool = False, tell: Callable[[Report], None] = lambda _: None
) -> Report:
    """Walk what has happened since `since`, in memory that does not grow with it.

    What was to be done less than `grace` ago is no gap yet. With `repair`,
    what can be put right is, and the workers are rung. `tell` hears after
    every page how far it has got. Raises DatabaseError.
    """
    report = Report(since=since, until=timezone.now())
    for alias in deliveries.away_from_home():
        for page in _pages(alias, report, grace):
            _audit_away(page, report, repair=repair)
            tell(report)
    for page in _pages(home(), report, grace):
        _audit_events(page, report, repair=repair)
        _audit_missing(page, report, repair=repair)
        _audit_deliveries(page, report, repair=repair)
        _audit_attempts(page, report, repair=repair)
        tell(report)
    if repair and report.gaps:
        tasks.silence()
        tasks.ring()
    return report


def _pages(alias: str, report: Report, grace: timedelta) -> Iterator[Page]:
    """By key, which begins with the time it was made at (RFC 9562)."""
    after = _first_key(report.since)
    end = _first_key(report.until + timedelta(hours=1))  # other machines' clocks
    while True:
        events = Event.objects.using(alias).filter(pk__gt=after, pk__lt=end).order_by("pk")
        ids = list(events.values_list("pk", flat=True)[:PAGE])
        if not ids:
            return
        yield Page(alias, ids, after, ids[-1], grace)
        after = ids[-1]


def _first_key(moment: datetime) -> UUID:
    milliseconds = max(0, int(moment.timestamp() * 1000))
    return UUID(int=milliseconds << 80)


# Events


def _audit_events(page: Page, report: Report, *, repair: bool) -> None:
    waiting = Q(fanned_out_at=None, created_at__lt=Now() - page.grace)
    unmatched = Q(error__startswith=deliveries.UNMATCHED)
    found = page.events.aggregate(
        events=Count("pk"),
        fanned_out=Count("pk", filter=Q(fanned_out_at__isnull=False, error="")),
        refused=Count("pk", filter=~Q(error="") & ~unmatched),
        waiting=Count("pk", filter=waiting),
        unmatched=Count("pk", filter=unmatched),
    )
    report.counts.update({name: found[name] for name in ("events", "fanned_out", "refused")})
    report.add("event_waiting", found["waiting"], partial(_ids, page.events.filter(waiting)))
    report.add("event_unmatched", found["unmatched"], partial(_ids, page.events.filter(unmatched)))
    if repair:
        report.repaired("event_waiting", found["waiting"])  # by the ring at the end
        if found["unmatched"]:
            again = page.events.filter(unmatched).update(error="", fanned_out_at=None)
            report.repaired("event_unmatched", again)


def _audit_away(page: Page, report: Report, *, repair: bool) -> None:
    """Events on another alias than home: still waiting there, or said to have
    been carried and not there. (Of a tenant that is gone, so are its events.)"""
    waiting = page.events.filter(fanned_out_at=None, created_at__lt=Now() - page.grace)
    carried = dict(
        page.events.filter(fanned_out_at__isnull=False, error="").values_list("pk", "tenant_id")  # at most PAGE
    )
    there = set(Event.objects.using(home()).filter(pk__in=carried).values_list("pk", flat=True))
    tenants = Tenant.objects.using(home()).filter(pk__in={carried[pk] for pk in carried.keys() - there})
    known = {None, *tenants.values_list("pk", flat=True)} if carried.keys() - there else set()
    lost = [pk for pk, tenant in carried.items() if pk not in there and tenant in known]
    count = waiting.count()
    report.counts["away"] += len(page.ids)
    report.add("event_away", count + len(lost), lambda: [*map(str, lost[:SHOWN]), *_ids(waiting)][:SHOWN])
    if repair and (count or lost):
        # Carried again, which is harmless where it is there already.
        page.events.filter(pk__in=lost).update(fanned_out_at=None)
        report.repaired("event_away", count + len(lost))


# What should have been fanned out

# A pattern ends in `*`, and matches what begins like it. Literally what
# `matching.wanting` asks, from the other side: of the pairs, which are missing.
MISSING = """
    SELECT {what}
    FROM (
        SELECT e.id AS event_id, s.id AS subscription_id, e.created_at AS created_at, s.tenant_id AS tenant_id,
            min(CASE WHEN s.enabled_at <= {since} AND t.changed_at <= {since} THEN 0 ELSE 1 END) AS unknown
        FROM webhooks_event e
        JOIN subscriptions_subscription s ON {of}
        JOIN subscriptions_topic t ON t.subscription_id = s.id AND (t.name = e.topic OR (
            t.name LIKE '%%*' AND substr(e.topic, 1, length(t.name) - 1) = substr(t.name, 1, length(t.name) - 1)
        )) AND (t.field = '' OR {changed})
        WHERE e.id > %s AND e.id <= %s AND e.fanned_out_at IS NOT NULL AND e.error = ''
            AND e.topic <> '{test}' AND s.disabled_at IS NULL AND (s.created_at <= e.created_at OR s.id <= e.newest_subscription)
            AND NOT EXISTS (
                SELECT 1 FROM webhooks_delivery d WHERE d.event_id = e.id AND d.subscription_id = s.id
            )
        GROUP BY e.id, s.id, e.created_at, s.tenant_id
    ) AS pair {rest}
"""
OF = {"a tenant": "e.tenant_id IS NOT NULL AND s.tenant_id = e.tenant_id", "every tenant": "e.tenant_id IS NULL"}
CHANGED = {
    "postgresql": "jsonb_exists(e.changed, t.field)",
    "sqlite": "EXISTS (SELECT 1 FROM json_each(e.changed) AS name WHERE name.value = t.field)",
}
# What the event's time is compared with: the machines' clocks need not agree.
MARGIN = {
    "postgresql": "e.created_at - make_interval(secs => %s)",
    "sqlite": "strftime('%%Y-%%m-%%d %%H:%%M:%%f', e.created_at, '-' || %s || ' seconds')",
}


def _audit_missing(page: Page, report: Report, *, repair: bool) -> None:
    for of in OF.values():
        ((missing, unknown),) = _pairs(page, of, "coalesce(sum(1 - unknown), 0), coalesce(sum(unknown), 0)")
        report.unknown += unknown
        report.add("delivery_missing", missing, partial(_missing_ids, page, of))
        while repair and missing > 0 and (made := _make_missing(page, of)):
            report.repaired("delivery_missing", made)
            missing -= made


def _missing_ids(page: Page, of: str) -> list[str]:
    pairs = _pairs(page, of, "event_id, subscription_id", f"WHERE unknown = 0 LIMIT {SHOWN}")
    return [f"{_uuid(event)} for subscription {subscription}" for event, subscription in pairs]


def _make_missing(page: Page, of: str) -> int:
    columns = "event_id, subscription_id, tenant_id"
    with transaction.atomic(using=page.alias):
        pairs = _pairs(page, of, columns, f"WHERE unknown = 0 LIMIT {PAGE}")
        horizon.announce(page.alias)
        Delivery.objects.using(page.alias).bulk_create(
            (
                Delivery(
                    event_id=_uuid(event),
                    subscription_id=subscription,
                    tenant_id=tenant,
                    created_at=Now(),
                    next_attempt_at=Now(),
                )
                for event, subscription, tenant in pairs
            ),
            ignore_conflicts=True,
        )
    return len(pairs)


def _pairs(page: Page, of: str, what: str, rest: str = "") -> list[tuple[Any, ...]]:
    connection = connections[page.alias]
    key = Event._meta.pk
    query = MISSING.format(
        what=what,
        rest=rest,
        of=of,
        test=TEST,
        changed=CHANGED[connection.vendor],
        since=MARGIN[connection.vendor],
    )
    margin = page.grace.total_seconds()
    with connection.cursor() as cursor:
        bounds = [key.get_db_prep_value(pk, connection) for pk in (page.after, page.last)]
        cursor.execute(query, [margin, margin, *bounds])
        return [tuple(row) for row in cursor.fetchall()]


def _uuid(value: Any) -> UUID:
    return value if isinstance(value, UUID) else UUID(value)


# Deliveries


def _delivery_gaps(page: Page) -> dict[str, Q]:
    long_ago = Now() - page.grace
    late = Q(status__in=Delivery.OPEN, leased_until=None, subscription__disabled_at=None) & (
        Q(next_attempt_at=None) | Q(next_attempt_at__lte=long_ago)
    )
    # A breaker or a rate limit whose turn has not come, or has come just now.
    waits = Q(subscription__throttle__probe_at__gt=long_ago) | Q(
        subscription__rate_limit__isnull=False, subscription__throttle__next_at__gt=long_ago
    )
    attempts = Attempt.objects.using(page.alias).filter(delivery=OuterRef("pk"), ended_at__isnull=False)
    return {
        "delivery_overdue": late & (Q(next_attempt_at=None) | ~waits),
        "delivery_abandoned": Q(leased_until__lte=long_ago),
        "delivery_unproven": (Q(status=Delivery.Status.DELIVERED) & ~Exists(attempts.filter(reason="")))
        | (Q(status=Delivery.Status.FAILED) & ~Exists(attempts)),
        "delivery_miscounted": ~Q(attempt_count=_number_of_attempts(page.alias)),
    }


def _number_of_attempts(alias: str) -> Coalesce:
    rows = Attempt.objects.using(alias).filter(delivery=OuterRef("pk")).order_by().values("delivery")
    return Coalesce(Subquery(rows.annotate(number=Count("pk")).values("number")), 0)


def _audit_deliveries(page: Page, report: Report, *, repair: bool) -> None:
    gaps = _delivery_gaps(page)
    states = {status.value: Count("pk", filter=Q(status=status)) for status in Delivery.Status}
    found = page.deliveries.aggregate(
        deliveries=Count("pk"), **states, **{kind: Count("pk", filter=gap) for kind, gap in gaps.items()}
    )
    report.counts.update({name: found[name] for name in ("deliveries", *states)})
    for kind, gap in gaps.items():
        rows = page.deliveries.filter(gap)
        report.add(kind, found[kind], partial(_ids, rows))
        if repair and found[kind] and kind not in BEYOND_REPAIR:
            report.repaired(kind, REPAIRS[kind](rows, page))


def _repair_overdue(rows: QuerySet[Delivery], page: Page) -> int:
    """Rung for at the end; without a time they would never be due."""
    timeless = page.deliveries.open().filter(next_attempt_at=None, leased_until=None)
    count = rows.count()
    timeless.update(next_attempt_at=Now())
    return count


def _repair_abandoned(rows: QuerySet[Delivery], page: Page) -> int:
    """Free again, and due if they are open; a worker that comes late with a
    failure finds its lease gone."""
    free = Q(leased_until__lte=Now() - page.grace)
    count: int = page.deliveries.filter(free).open().update(leased_until=None, next_attempt_at=Now())
    return count + page.deliveries.filter(free).update(leased_until=None)


def _repair_miscounted(rows: QuerySet[Delivery], page: Page) -> int:
    """Only where the numbers are whole: with one missing, the next attempt
    would get a number that there is already."""
    repaired = 0
    numbers = Attempt.objects.using(page.alias).order_by().values("delivery_id")
    with transaction.atomic(using=page.alias):
        # Under a lock, as a claim writes both.
        locked = rows.order_by("pk").select_for_update(of=("self",), no_key=True)
        for pk in list(locked.values_list("pk", flat=True)[:PAGE]):
            found = numbers.filter(delivery_id=pk).aggregate(count=Count("pk"), highest=Max("number"))
            if found["count"] == (found["highest"] or 0):
                changed = page.deliveries.filter(pk=pk).exclude(attempt_count=found["count"])
                repaired += changed.update(attempt_count=found["count"])
    return repaired


REPAIRS: Mapping[str, Callable[[QuerySet[Delivery], Page], int]] = {
    "delivery_overdue": _repair_overdue,
    "delivery_abandoned": _repair_abandoned,
    "delivery_miscounted": _repair_miscounted,
}


# Attempts


def _audit_attempts(page: Page, report: Report, *, repair: bool) -> None:
    long_ago = Now() - page.grace
    held = Q(lease=F("delivery__lease"), delivery__leased_until__gt=long_ago)
    unended = Q(ended_at=None, started_at__lt=long_ago) & ~held
    found = page.attempts.aggregate(
        attempts=Count("pk"), ended=Count("pk", filter=Q(ended_at__isnull=False)), gap=Count("pk", filter=unended)
    )
    report.counts.update({name: found[name] for name in ("attempts", "ended")})
    report.add("attempt_unended", found["gap"], partial(_ids, page.attempts.filter(unended)))
    if repair and found["gap"]:
        report.repaired("attempt_unended", _end_as_lost(page, unended))


def _end_as_lost(page: Page, unended: Q) -> int:
    """With the counts of the charts, as when a worker finds one."""
    with transaction.atomic(using=page.alias):
        rows = page.attempts.filter(unended).order_by("pk").select_for_update(of=("self",), no_key=True)
        lost = dict(rows.values_list("pk", "delivery__subscription_id"))
        Attempt.objects.using(page.alias).filter(pk__in=lost).update(ended_at=Now(), reason=Attempt.Reason.LOST)
        rollups.add(rollups.count_lost(lost.values(), failed=()), using=page.alias)
    return len(lost)


def _ids(rows: QuerySet[Any]) -> list[str]:
    return [str(pk) for pk in rows.order_by("pk").values_list("pk", flat=True)[:SHOWN]]

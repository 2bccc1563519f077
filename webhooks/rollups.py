"""What was delivered and what failed, per subscription and hour: counted as
attempts are recorded, so that no chart scans for it.

An attempt counts once, when its end is first written down, be it late or
lost; a delivery counts when it is delivered or given up on. The clock adds
hours up to days. Hours and days are those of UTC, on the database's clock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

from django.db import connections, transaction
from django.db.models import Max, Sum
from django.db.models.functions import Coalesce, Now
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from subscriptions.models import home
from webhooks import statements
from webhooks.models import BUCKETS_MS, Rollup

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from django_stubs_ext import StrPromise

    from subscriptions.models import Subscription, Tenant
    from webhooks.claims import Claim
    from webhooks.models import RollupQuerySet
    from webhooks.recording import Outcome

    Counts = dict[int, list[int]]

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
HOURS_KEPT = 3 * DAY  # beyond those of today
DAYS_KEPT = 400 * DAY
# A transaction that began in an hour may still commit its counts after it.
SETTLED = HOUR
MOST_DELETED = 5_000  # rows of one transaction

COUNTED = ("attempts", "delivered", "at_first", "failed", *(f"took_{n}" for n in range(len(BUCKETS_MS) + 1)))
ATTEMPTS, DELIVERED, AT_FIRST, FAILED, TOOK = range(5)

THIS_HOUR = {
    "postgresql": "DATE_TRUNC('hour', STATEMENT_TIMESTAMP(), 'UTC')",
    "sqlite": "STRFTIME('%%Y-%%m-%%d %%H:00:00', 'NOW')",
}


# --- counting ---


def count(
    results: Iterable[tuple[Claim, Outcome]],
    *,
    ended: Collection[int],
    delivered: Collection[int],
    failed: Collection[int],
) -> Counts:
    """By subscription, what changed with `results`: these attempts `ended`,
    and these deliveries are now `delivered` or `failed`. Each counts once,
    however many results name it. What the receiver saw nothing of took no time."""
    ended, delivered, failed = set(ended), set(delivered), set(failed)
    counts: Counts = defaultdict(_nothing)
    for claim, outcome in results:
        if claim.attempt_id in ended:
            ended.remove(claim.attempt_id)
            row = counts[claim.subscription_id]
            row[ATTEMPTS] += 1
            if outcome.sent:
                row[TOOK + bisect_left(BUCKETS_MS, outcome.duration_ms)] += 1
        if not outcome.reason and claim.delivery_id in delivered:
            delivered.remove(claim.delivery_id)
            counts[claim.subscription_id][DELIVERED] += 1
            counts[claim.subscription_id][AT_FIRST] += claim.number == 1
        elif outcome.reason and claim.delivery_id in failed:
            failed.remove(claim.delivery_id)
            counts[claim.subscription_id][FAILED] += 1
    return counts


def count_lost(lost: Iterable[int], *, failed: Iterable[int]) -> Counts:
    """Of subscriptions: one for each attempt, and for each delivery given up on."""
    counts: Counts = defaultdict(_nothing)
    for subscription in lost:
        counts[subscription][ATTEMPTS] += 1
    for subscription in failed:
        counts[subscription][FAILED] += 1
    return counts


def _nothing() -> list[int]:
    return [0] * len(COUNTED)


def add(counts: Mapping[int, Sequence[int]], *, using: str) -> None:
    """To this hour, in the open transaction on `using`, and last in it: in one
    order, so that two workers wait for each other instead of deadlocking."""
    if not counts:
        return
    subscriptions = sorted(counts)
    columns = zip(COUNTED, zip(*(counts[pk] for pk in subscriptions), strict=True), strict=True)
    # Of most batches most columns are empty, and a column costs as much as ten rows.
    changed = {name: column for name, column in columns if any(column)}
    vendor = connections[using].vendor
    start = f"""
        INSERT INTO webhooks_rollup AS r (span, starts_at, {", ".join(COUNTED)}, subscription_id)
        SELECT 'hour', {THIS_HOUR[vendor]}, {", ".join(f"v.{name}" if name in changed else "0" for name in COUNTED)}, v.pk
    """
    end = f"""
        ON CONFLICT (subscription_id, span, starts_at)
        DO UPDATE SET {", ".join(f"{name} = r.{name} + excluded.{name}" for name in changed)}
    """
    values = [*changed.values(), subscriptions]
    with connections[using].cursor() as cursor:
        if vendor == "sqlite":
            row = ", ".join(f"%s AS {name}" for name in (*changed, "pk"))
            cursor.executemany(f"{start} FROM (SELECT {row}) AS v WHERE true {end}", list(zip(*values, strict=True)))
            return
        # As text: the driver takes longer over a list of numbers than the server over the statement.
        arrays = ", ".join([*["%s::int[]"] * len(changed), "%s::bigint[]"])
        query = f"{start} FROM unnest({arrays}) AS v ({', '.join(changed)}, pk) {end}"
        cursor.execute(query, [f"{{{','.join(map(str, column))}}}" for column in values])


# --- keeping ---


def keep() -> None:
    """Add up the days that have ended, and forget what is too old. Again is
    harmless, and so is another clock that does the same. Raises DatabaseError."""
    alias = home()
    now = Rollup.objects.using(alias).aggregate(now=Max(Now()))["now"]
    if now is None:  # there are no rows
        return
    for day in _days_to_add_up(before=_day_of(now - SETTLED), using=alias):
        _add_up(day, using=alias)
    # By whole days, so that a day's hours are never added up in part.
    _forget(Rollup.Span.HOUR, before=_day_of(now - SETTLED) - HOURS_KEPT, using=alias)
    _forget(Rollup.Span.DAY, before=_day_of(now) - DAYS_KEPT, using=alias)


def _days_to_add_up(*, before: datetime, using: str) -> list[datetime]:
    hours = Rollup.objects.using(using).filter(span=Rollup.Span.HOUR, starts_at__lt=before)
    since = _added_up_until(using)
    if since is not None:
        if since >= before:
            return []
        hours = hours.filter(starts_at__gte=since)
    return sorted({_day_of(hour) for hour in hours.order_by().values_list("starts_at", flat=True).distinct()})


def _added_up_until(using: str) -> datetime | None:
    """A day is added up for all subscriptions at once, and the days in their
    order: from the last one's end on, hours count."""
    last: datetime | None = (
        Rollup.objects.using(using).filter(span=Rollup.Span.DAY).aggregate(last=Max("starts_at"))["last"]
    )
    return None if last is None else last + DAY


def _add_up(day: datetime, *, using: str) -> None:
    begin, end = (connections[using].ops.adapt_datetimefield_value(when) for when in (day, day + DAY))
    query = f"""
        INSERT INTO webhooks_rollup (span, starts_at, subscription_id, {", ".join(COUNTED)})
        SELECT 'day', {"%s::timestamptz" if connections[using].vendor == "postgresql" else "%s"}, subscription_id,
            {", ".join(f"sum({name})" for name in COUNTED)}
        FROM webhooks_rollup WHERE span = 'hour' AND starts_at >= %s AND starts_at < %s
        GROUP BY subscription_id ORDER BY subscription_id
        ON CONFLICT (subscription_id, span, starts_at) DO NOTHING
    """  # noqa: S608 - made of names of ours
    statements.run(query, [begin, begin, end], using=using)


def _forget(span: Rollup.Span, *, before: datetime, using: str) -> None:
    rows = Rollup.objects.using(using).filter(span=span, starts_at__lt=before).order_by()
    while True:
        with transaction.atomic(using=using):
            some = Rollup.objects.using(using).filter(pk__in=list(rows.values_list("pk", flat=True)[:MOST_DELETED]))
            if not some._raw_delete(using):
                return


def _hour_of(when: datetime) -> datetime:
    return when.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _day_of(when: datetime) -> datetime:
    return _hour_of(when).replace(hour=0)


# --- reading ---


@dataclass(frozen=True, slots=True)
class Interval:
    """One hour or day. `failed` are deliveries given up on, `retried` attempts
    that failed and were not the last."""

    starts_at: datetime
    attempts: int = 0
    delivered: int = 0
    at_first: int = 0
    failed: int = 0
    took: tuple[int, ...] = ()

    @property
    def retried(self) -> int:
        return max(0, self.attempts - self.delivered - self.failed)

    @property
    def first_share(self) -> float | None:
        """Of the deliveries that ended: how many were delivered by their first attempt."""
        ended = self.delivered + self.failed
        return self.at_first / ended if ended else None

    @property
    def p50_ms(self) -> float | None:
        return quantile(self.took, 0.5)

    @property
    def p95_ms(self) -> float | None:
        return quantile(self.took, 0.95)


@dataclass(frozen=True, slots=True)
class Series:
    """Intervals without a gap, oldest first; `running`: the last is not over yet."""

    span: Rollup.Span
    intervals: tuple[Interval, ...]
    total: Interval
    running: bool = False


def quantile(took: Sequence[int], share: float) -> float | None:
    """Milliseconds within which that share of attempts ended, interpolated in
    their bucket: off by no more than its width. What took longer than the last
    bound is given as that bound."""
    rank = share * sum(took)
    if not rank:
        return None
    for (low, high), number in zip(pairwise((0, *BUCKETS_MS)), took, strict=False):
        if number and rank <= number:
            return low + (high - low) * rank / number
        rank -= number
    return float(BUCKETS_MS[-1])


def hours(rows: RollupQuerySet, number: int = 24) -> Series:
    """The last `number` hours of these rows, this one included; one query."""
    first = _hour_of(timezone.now()) - (number - 1) * HOUR
    found = rows.filter(span=Rollup.Span.HOUR, starts_at__gte=first)
    return _series(Rollup.Span.HOUR, [first + n * HOUR for n in range(number)], _sums(found))


def days(rows: RollupQuerySet, number: int = 30) -> Series:
    """The last `number` days of these rows, today included; two queries. What
    has not been added up yet is read from its hours."""
    first = _day_of(timezone.now()) - (number - 1) * DAY
    since = max(first, _added_up_until(rows.db) or first)
    added_up = rows.filter(span=Rollup.Span.DAY, starts_at__gte=first, starts_at__lt=since)
    not_yet = rows.filter(span=Rollup.Span.HOUR, starts_at__gte=since)
    return _series(Rollup.Span.DAY, [first + n * DAY for n in range(number)], _sums(added_up, not_yet))


def _sums(*rows: RollupQuerySet) -> list[tuple[datetime, list[int]]]:
    """By start; in one query, and not by OR, for which no index is of use."""
    sums = {f"sum_{name}": Sum(name) for name in COUNTED}
    # Not the bare column, in whose order SQLite would walk the rows of every tenant.
    by_start = [each.order_by().annotate(at=Coalesce("starts_at", "starts_at")).values("at") for each in rows]
    first, *others = [each.annotate(**sums).values_list("at", *sums) for each in by_start]
    return [(starts_at, counts) for starts_at, *counts in first.union(*others, all=True)]


def _series(span: Rollup.Span, starts: Sequence[datetime], found: Iterable[tuple[datetime, list[int]]]) -> Series:
    of = _hour_of if span == Rollup.Span.HOUR else _day_of
    counts = {start: _nothing() for start in starts}
    total = _nothing()
    for starts_at, numbers in found:
        if row := counts.get(of(starts_at)):  # none of a clock that is ahead
            row[:] = map(sum, zip(row, numbers, strict=True))
            total = [*map(sum, zip(total, numbers, strict=True))]
    return Series(
        span, tuple(_interval(start, row) for start, row in counts.items()), _interval(starts[0], total), running=True
    )


def _interval(starts_at: datetime, row: Sequence[int]) -> Interval:
    attempts, delivered, at_first, failed, *took = row
    return Interval(starts_at, attempts, delivered, at_first, failed, tuple(took))


def sparklines(subscriptions: Collection[int], number: int = 24) -> dict[int, list[tuple[int, int]]]:
    """By subscription: attempts of the last `number` hours that were delivered
    and that failed, hour by hour, oldest first; one query."""
    using = home()
    ends = _hour_of(timezone.now()) + HOUR
    first = connections[using].ops.adapt_datetimefield_value(ends - number * HOUR)
    # As numbers: the driver takes longer over the times than over all the rest.
    epoch = {
        "postgresql": "extract(epoch FROM starts_at)::bigint",
        "sqlite": "CAST(strftime('%%s', starts_at) AS integer)",
    }
    query = f"""
        SELECT subscription_id, {epoch[connections[using].vendor]} / 3600, delivered, attempts FROM webhooks_rollup
        WHERE {statements.among("subscription_id", using=using)} AND span = 'hour' AND starts_at >= %s
    """  # noqa: S608 - made of names of ours
    lines = {pk: [(0, 0)] * number for pk in subscriptions}
    beyond = int(ends.timestamp()) // 3600
    for pk, hour, delivered, attempts in statements.rows(
        query, [statements.keys(lines, using=using), first], using=using
    ):
        if hour < beyond:
            lines[pk][number - (beyond - hour)] = (delivered, max(0, attempts - delivered))
    return lines


# --- the panel of a page ---


@dataclass(frozen=True, slots=True)
class Period:
    key: str  # in the page's query
    name: StrPromise
    heading: StrPromise
    read: Callable[[RollupQuerySet], Series]


PERIODS = (
    Period("24h", _("24 hours"), _("The last 24 hours"), hours),
    Period("30d", _("30 days"), _("The last 30 days"), days),
)


@dataclass(frozen=True, slots=True)
class Charts:
    """What `webhooks/charts/panel.html` shows."""

    period: Period
    series: Series
    periods: tuple[Period, ...] = PERIODS

    @property
    def zone_differs(self) -> bool:
        """Days are those of UTC, whatever the reader's are."""
        return self.series.span == Rollup.Span.DAY and bool(timezone.localtime().utcoffset())


def panel(
    *, tenant: Tenant | None = None, subscription: Subscription | None = None, period: str | None = None
) -> dict[str, Charts]:
    """The context of the panel: of a subscription, or of all of a tenant's.
    `period` is as the reader wrote it; what is none is the first."""
    if subscription is not None:
        rows = Rollup.objects.filter(subscription=subscription)
    elif tenant is not None:
        rows = Rollup.objects.for_tenant(tenant)
    else:
        raise TypeError("panel() takes a tenant or a subscription.")
    chosen = next((each for each in PERIODS if each.key == period), PERIODS[0])
    return {"charts": Charts(chosen, chosen.read(rows.using(home())))}

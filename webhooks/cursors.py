"""Long lists of deliveries, a page at a time, for the pages and the API alike:
newest first, by key, and never with a look at all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.db import connections
from django.db.models import F, OuterRef, Subquery

from subscriptions.models import home
from webhooks import statements
from webhooks.models import Delivery, Event

if TYPE_CHECKING:
    from datetime import datetime

    from subscriptions.models import Tenant
    from webhooks.filters import DeliveryFilters
    from webhooks.models import DeliveryQuerySet

PAGE = 50
# No index knows of topics and times: at most so many deliveries are looked
# through for one page, and what is behind them is another page's.
MOST_LOOKED_AT = 10_000
# Keys are handed out in the order of time, but for what workers with clocks
# and transactions of their own do at once.
SLACK = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Page:
    """`newer` and `older` are keys, or None where the list ends: what comes
    next is `after` the one and `before` the other. `cut`: all that may be
    looked at was, and there is more behind it."""

    rows: list[Delivery]
    newer: int | None
    older: int | None
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """The keys that are looked at, both included."""

    low: int | None = None
    high: int | None = None

    def of(self, rows: DeliveryQuerySet) -> DeliveryQuerySet:
        if self.low is not None:
            rows = rows.filter(pk__gte=self.low)
        return rows if self.high is None else rows.filter(pk__lte=self.high)


def page(
    tenant: Tenant,
    filters: DeliveryFilters,
    *,
    before: int | None = None,
    after: int | None = None,
    size: int = PAGE,
    exact: bool = False,
) -> Page:
    """The newest deliveries `before` a key, or the oldest `after` one, of those
    that the filters match; without either, the newest of all. Bodies stay unread.

    For people the newest page is full, and has one address; with `exact`, it
    has what is `after` the key and nothing else."""
    if after is not None:
        found = _forward(tenant, filters, after, size)
        return found if found.newer or exact else page(tenant, filters, size=size)
    return _backward(tenant, filters, before, size)


def _backward(tenant: Tenant, filters: DeliveryFilters, before: int | None, size: int) -> Page:
    indexed = in_order(_indexed(tenant, filters), filters, newest_first=True)
    span = Span(high=None if before is None else before - 1)
    end = _end(span.of(indexed), filters)
    if end is not None and (filters.since or filters.until):
        span = _narrowed(span, tenant, filters)
        end = _end(span.of(indexed), filters)
    rows = _read((span if end is None else replace(span, low=end)).of(indexed), filters, size)
    more, rows = len(rows) > size, rows[:size]
    newer = None if before is None else rows[0].pk if rows else before - 1
    return Page(rows, newer=newer, older=rows[-1].pk if more else end, cut=not more and end is not None)


def _forward(tenant: Tenant, filters: DeliveryFilters, after: int, size: int) -> Page:
    indexed = in_order(_indexed(tenant, filters), filters, newest_first=False)
    span = Span(low=after + 1)
    end = _end(span.of(indexed), filters)
    rows = _read(replace(span, high=end).of(indexed), filters, size)
    more, rows = len(rows) > size, rows[:size][::-1]
    older = rows[-1].pk if rows else after + 1
    return Page(rows, newer=rows[0].pk if more else end, older=older, cut=not more and end is not None)


def _read(rows: DeliveryQuerySet, filters: DeliveryFilters, size: int) -> list[Delivery]:
    chosen = replace(filters, topic="").apply(rows)
    if filters.topic:
        chosen = _of_topic(chosen, filters.topic)
    return list(chosen.select_related("event", "subscription").defer("event__body", "event__changed")[: size + 1])


def _of_topic(rows: DeliveryQuerySet, topic: str) -> DeliveryQuerySet:
    """One by one, until the page is full: planners that may join read all events."""
    events = Event.objects.using(home()).filter(pk=OuterRef("event_id"))
    what: Any = rows.alias(happened=Subquery(events.values("topic")))
    chosen: DeliveryQuerySet = (
        what.filter(happened__startswith=topic[:-1]) if topic.endswith("*") else what.filter(happened=topic)
    )
    return chosen


def _indexed(tenant: Tenant, filters: DeliveryFilters) -> DeliveryQuerySet:
    """What the indexes find."""
    rows = Delivery.objects.using(home()).for_tenant(tenant)
    if filters.subscription is not None:
        rows = rows.filter(subscription=filters.subscription)
    return rows.filter(status=filters.status) if filters.status else rows


def in_order(rows: DeliveryQuerySet, filters: DeliveryFilters, *, newest_first: bool) -> DeliveryQuerySet:
    """By key. The few of one event are found by it and sorted: PostgreSQL would
    rather walk through all of the tenant's, which come in this order anyway."""
    key = F("pk") if filters.event is None else F("pk") + 0
    return rows.order_by(key.desc() if newest_first else key.asc())


def _end(rows: DeliveryQuerySet, filters: DeliveryFilters) -> int | None:
    """The last key that may be looked at, where the list goes on behind it."""
    if filters.event is not None or not (filters.topic or filters.since or filters.until):
        return None
    last_and_next = list(rows.values_list("pk", flat=True)[MOST_LOOKED_AT - 1 : MOST_LOOKED_AT + 1])
    return last_and_next[0] if len(last_and_next) > 1 else None


def _narrowed(span: Span, tenant: Tenant, filters: DeliveryFilters) -> Span:
    """To the keys between which the filters' times lie."""
    low, high = span.low, span.high
    if filters.since is not None:
        low = _first_key(tenant, filters.since - SLACK)
    if filters.until is not None:
        last = _first_key(tenant, filters.until + SLACK)
        high = last if high is None else min(high, last)
    return Span(low, high)


# Halves the keys until one is left: as many steps of an index as the number
# of deliveries has binary digits. The first and the last each by themselves, as
# SQLite would look for both at once through all of them.
SEARCH = """
    WITH RECURSIVE halved (low, high) AS (
        SELECT (SELECT min(id) FROM webhooks_delivery WHERE tenant_id = %s),
            (SELECT max(id) FROM webhooks_delivery WHERE tenant_id = %s) + 1
        UNION ALL
        SELECT CASE WHEN {middle} < {when} THEN (low + high) / 2 + 1 ELSE low END,
            CASE WHEN {middle} < {when} THEN high ELSE (low + high) / 2 END
        FROM halved WHERE low < high
    )
    SELECT low FROM halved WHERE low = high
"""
MIDDLE = """
    (SELECT d.created_at FROM webhooks_delivery d
     WHERE d.tenant_id = %s AND d.id >= (low + high) / 2 ORDER BY d.id LIMIT 1)
"""


def _first_key(tenant: Tenant, when: datetime) -> int:
    """The key of the tenant's first delivery since `when`, or past its last."""
    using = home()
    connection = connections[using]
    moment = connection.ops.adapt_datetimefield_value(when)
    place = "%s::timestamptz" if connection.vendor == "postgresql" else "%s"
    query = SEARCH.format(middle=MIDDLE, when=place)
    found = statements.rows(query, [tenant.pk, tenant.pk, *[tenant.pk, moment] * 2], using=using)
    return int(found[0][0]) if found else 0

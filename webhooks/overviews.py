"""A tenant's subscriptions at a glance: which are well, which need somebody."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.db.models import Case, Count, F, OuterRef, Prefetch, Q, Subquery, Value, When
from django.utils import timezone

from subscriptions.models import Subscription, Topic, home
from webhooks import replays, rollups
from webhooks.models import Delivery

if TYPE_CHECKING:
    from datetime import datetime

    from django.db.models import QuerySet

    from subscriptions.models import SubscriptionQuerySet, Tenant

PAGE = 25
# Topics of a subscription that the list names; the rest is a number.
NAMED = 3
# Subscriptions that the sentence of health names.
TOLD = 2
# What failed before that, nobody asks for any more.
RECENT = timedelta(days=7)

OFF = Q(disabled_at__isnull=False)
FAILING = Q(disabled_at=None, throttle__failing_since__isnull=False)
# Whoever turned one off on purpose need not be told.
NEEDS_SOMEBODY = FAILING | (OFF & ~Q(disabled_by=Subscription.DisabledBy.MEMBER))


def state(subscription: Subscription) -> str:
    """`on`, `off` or `failing`, with the throttle at hand."""
    if not subscription.enabled:
        return "off"
    throttle = getattr(subscription, "throttle", None)
    return "failing" if throttle and throttle.failing_since else "on"


@dataclass(frozen=True, slots=True)
class Health:
    total: int
    off: int
    needy: int
    # Of those that need somebody, the first few.
    told: list[Subscription]

    @property
    def on(self) -> int:
        return self.total - self.off

    @property
    def untold(self) -> int:
        return self.needy - len(self.told)


def health(tenant: Tenant) -> Health:
    rows = Subscription.objects.using(home()).for_tenant(tenant)
    counts = rows.aggregate(total=Count("pk"), off=Count("pk", filter=OFF), needy=Count("pk", filter=NEEDS_SOMEBODY))
    return Health(**counts, told=list(needing(tenant)[:TOLD]) if counts["needy"] else [])


def needing(tenant: Tenant) -> SubscriptionQuerySet:
    """Those that need somebody; who has failed for the longest first."""
    longest = F("throttle__failing_since").asc(nulls_last=True)
    rows = Subscription.objects.using(home()).for_tenant(tenant).filter(NEEDS_SOMEBODY)
    return rows.select_related("throttle").order_by(longest, "-pk")


@dataclass(slots=True)
class Row:
    """A subscription as the list shows it."""

    subscription: Subscription
    last: Delivery | None = None
    spark: list[tuple[int, int]] = field(default_factory=list)

    @property
    def state(self) -> str:
        return state(self.subscription)

    @property
    def topics(self) -> list[str]:
        return list(dict.fromkeys(topic.name for topic in self.subscription.topics.all()))

    @property
    def named(self) -> list[str]:
        return self.topics[:NAMED]

    @property
    def unnamed(self) -> int:
        return max(0, len(self.topics) - NAMED)


@dataclass(frozen=True, slots=True)
class Listing:
    rows: list[Row]
    # What the next page begins after, or empty.
    next: str = ""


def listing(
    tenant: Tenant,
    *,
    search: str = "",
    whole_urls: bool = True,
    needy: bool = False,
    after: str = "",
    size: int = PAGE,
) -> Listing:
    """Those that need somebody first, then the newest. A handful of queries,
    however many there are. Without `whole_urls` nobody finds out by searching
    what stands in the query of one."""
    rows = Subscription.objects.for_tenant(tenant)
    if needy:
        rows = rows.filter(NEEDS_SOMEBODY)
    if search:
        in_url = Q(url__icontains=search) if whole_urls else Q(url__iregex=_before_the_query(search))
        rows = rows.filter(Q(name__icontains=search) | in_url)
    rows = _ordered(rows, after).select_related("throttle").annotate(last=Subquery(_newest()))
    found = list(rows.prefetch_related(Prefetch("topics", Topic.objects.order_by("pk")))[: size + 1])
    more, found = len(found) > size, found[:size]
    lasts = Delivery.objects.in_bulk([subscription.last for subscription in found if subscription.last])
    lines = rollups.sparklines([subscription.pk for subscription in found]) if found else {}
    shown = [Row(each, lasts.get(each.last), lines.get(each.pk, [])) for each in found]
    return Listing(shown, next=f"{found[-1].rank}-{found[-1].pk}" if more else "")


def _before_the_query(words: str) -> str:
    return "^[^?]*" + re.escape(words.partition("?")[0])


def _ordered(rows: SubscriptionQuerySet, after: str) -> SubscriptionQuerySet:
    rows = rows.annotate(rank=Case(When(NEEDS_SOMEBODY, then=Value(0)), default=Value(1))).order_by("rank", "-pk")
    rank, _dash, pk = after.partition("-")
    if not (rank.isdecimal() and pk.isdecimal() and len(after) <= 20):  # noqa: PLR2004
        return rows
    return rows.filter(Q(rank__gt=int(rank)) | Q(rank=int(rank), pk__lt=int(pk)))


def _newest() -> QuerySet[Any, Any]:
    return Delivery.objects.filter(subscription=OuterRef("pk")).order_by("-pk").values("pk")[:1]


@dataclass(frozen=True, slots=True)
class Failures:
    """How many have failed lately, and since when."""

    number: replays.Number
    since: datetime | None

    @property
    def since_text(self) -> str:
        """For the query of an address."""
        return self.since.isoformat() if self.since else ""


def failures(subscription: Subscription) -> Failures:
    horizon = (subscription.disabled_at or timezone.now()) - RECENT
    number = replays.failed_since(subscription, horizon)
    if not number:
        return Failures(number, None)
    failed = Delivery.objects.for_tenant(subscription.tenant).failed().filter(subscription=subscription)
    since = failed.filter(ended_at__gte=horizon).order_by("ended_at").values_list("ended_at", flat=True).first()
    return Failures(number, since)

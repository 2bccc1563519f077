"""Who must wait, although something is due: a subscription with a rate limit,
and one that keeps failing, which gets one probe at a time (a circuit breaker).

Both are rows on the database's clock, so that any number of workers keep them
together.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.db import connections, transaction
from django.db.models import F, Q
from django.db.models.functions import Now

from subscriptions.conf import conf
from subscriptions.models import Subscription
from webhooks import statements
from webhooks.models import Attempt, Throttle

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from django.db.models import QuerySet

# What a subscription did not use of its rate limit, it may catch up for this long.
BURST = timedelta(seconds=1)
# A request that took the time until now to come due must not be rounded away.
EPSILON = 1e-6
# Says nothing of the receiver.
OURS = frozenset({Attempt.Reason.UNSENDABLE, Attempt.Reason.LOST})

# The earliest moment at which a subscription `s` with the throttle `t` and
# something due since `oldest` may be sent to; NULLs count for nothing.
EARLIEST = {
    "postgresql": "greatest(oldest, t.probe_at, t.next_at + interval '1 second' / s.rate_limit)",
    "sqlite": "max(oldest, coalesce(t.probe_at, ''), coalesce("
    "strftime('%%Y-%%m-%%d %%H:%%M:%%f', t.next_at, (1.0 / s.rate_limit) || ' seconds'), ''))",
}


@dataclass(frozen=True, slots=True)
class Permit:
    """How many requests may begin now. `probe`: one, to see whether the receiver is back."""

    throttle: Throttle
    rate: int | None
    now: datetime

    @property
    def probe(self) -> bool:
        return self.throttle.probe_at is not None

    @property
    def since(self) -> datetime:
        """What was earned since then has not been spent."""
        earliest = self.now - BURST
        return max(self.throttle.next_at or earliest, earliest)

    @property
    def requests(self) -> int | None:
        earned = None if self.rate is None else int((self.now - self.since).total_seconds() * self.rate + EPSILON)
        if not self.probe:
            return earned
        return 1 if earned is None else min(1, earned)

    def spend(self, requests: int) -> Throttle:
        if self.rate is not None:
            self.throttle.next_at = self.since + timedelta(seconds=requests / self.rate)
        if self.probe:
            # Nobody else probes until this one is recorded, or its lease is over.
            self.throttle.probe_at = self.now + timedelta(seconds=conf.lease_seconds)
        return self.throttle


def permits(subscriptions: Sequence[int], *, using: str) -> dict[int, Permit]:
    """For the throttled ones of `subscriptions`, locked until the transaction
    ends; what another worker has locked is missing."""
    if not subscriptions:
        return {}
    _make(subscriptions, using=using)
    locked = (
        Throttle.objects.using(using)
        .filter(pk__in=subscriptions)
        .annotate(rate=F("subscription__rate_limit"), now=Now())
    )
    features = connections[using].features
    if features.has_select_for_update_skip_locked:
        locked = locked.select_for_update(skip_locked=True, no_key=True, of=("self",))
    return {row.pk: Permit(throttle=row, rate=row.rate, now=row.now) for row in locked}


def spend(permits: Mapping[int, Permit], requests: Mapping[int, int], *, using: str) -> None:
    """Write down that so many requests begin, by subscription."""
    spent = [permits[pk].spend(number) for pk, number in sorted(requests.items()) if pk in permits]
    if spent:
        Throttle.objects.using(using).bulk_create(
            spent, update_conflicts=True, unique_fields=["subscription"], update_fields=["next_at", "probe_at"]
        )


def record(outcomes: Iterable[tuple[int, str]], *, using: str) -> list[int]:
    """Take in what came of requests: (subscription, reason of the failure or "").

    One success closes the breaker; `conf.breaker_failures` in a row open it.
    Returns the subscriptions that have done nothing but fail for
    `conf.disable_after` seconds.
    """
    failures: Counter[int] = Counter()
    answering: set[int] = set()
    for subscription, reason in outcomes:
        if not reason:
            answering.add(subscription)
        elif reason not in OURS:
            failures[subscription] += 1
    failing = failures.keys() - answering
    there = _locked(failing, beside=answering, using=using) if failing else set()
    _close(answering, using=using)
    return _count({pk: failures[pk] for pk in sorted(failing & there)}, using=using)


def _make(subscriptions: Collection[int], *, using: str) -> None:
    """The rows that are missing; none where a subscription is being deleted, or is gone."""
    lock = "FOR KEY SHARE OF s SKIP LOCKED" if connections[using].features.has_select_for_update_skip_locked else ""
    query = f"""
        INSERT INTO webhooks_throttle (subscription_id, failures)
        SELECT s.id, 0 FROM subscriptions_subscription s
        WHERE {statements.among("s.id", using=using)}
            AND NOT EXISTS (SELECT 1 FROM webhooks_throttle t WHERE t.subscription_id = s.id)
        ORDER BY s.id {lock}
        ON CONFLICT (subscription_id) DO NOTHING
    """  # noqa: S608 - made of names of ours
    statements.run(query, [statements.keys(subscriptions, using=using)], using=using)


def _locked(failing: Collection[int], *, beside: Collection[int], using: str) -> set[int]:
    """All that is about to change, in one order: two workers whose results
    contradict each other would deadlock if they closed first and counted then."""
    _make(failing, using=using)
    lock = "FOR NO KEY UPDATE" if connections[using].features.has_select_for_update else ""
    query = f"""
        SELECT subscription_id FROM webhooks_throttle
        WHERE {statements.among("subscription_id", using=using)} ORDER BY subscription_id {lock}
    """  # noqa: S608 - made of names of ours
    return {pk for (pk,) in statements.rows(query, [statements.keys({*failing, *beside}, using=using)], using=using)}


def _close(subscriptions: Collection[int], *, using: str) -> None:
    # Locked in one order, as two workers may do this at once.
    lock = "ORDER BY subscription_id FOR NO KEY UPDATE" if connections[using].features.has_select_for_update else ""
    query = f"""
        UPDATE webhooks_throttle SET failures = 0, failing_since = NULL, probe_at = NULL WHERE subscription_id IN (
            SELECT subscription_id FROM webhooks_throttle
            WHERE {statements.among("subscription_id", using=using)} AND failing_since IS NOT NULL {lock}
        )
    """  # noqa: S608 - made of names of ours
    if subscriptions:
        statements.run(query, [statements.keys(subscriptions, using=using)], using=using)


def _count(failures: Mapping[int, int], *, using: str) -> list[int]:
    if not failures:
        return []
    now_plus = statements.now_plus(using)
    probe = f"CASE WHEN %s >= %s THEN {now_plus} END"
    query = f"""
        INSERT INTO webhooks_throttle AS t (subscription_id, failures, failing_since, probe_at)
        VALUES {", ".join([f"(%s, %s, {now_plus}, {probe})"] * len(failures))}
        ON CONFLICT (subscription_id) DO UPDATE SET
            failures = t.failures + excluded.failures,
            failing_since = coalesce(t.failing_since, excluded.failing_since),
            probe_at = {probe.replace("%s >=", "t.failures + excluded.failures >=", 1)}
        RETURNING subscription_id, failing_since <= {now_plus}
    """  # noqa: S608 - made of names of ours
    most, pause = conf.breaker_failures, conf.breaker_seconds
    values: list[Any] = [each for pk, number in failures.items() for each in (pk, number, 0, number, most, pause)]
    with connections[using].cursor() as cursor:
        cursor.execute(query, [*values, most, pause, -conf.disable_after])
        long = [pk for pk, is_long in cursor.fetchall() if is_long]
    # What failed before it was turned on again is forgiven.
    later = Q(enabled_at__gt=Now() - timedelta(seconds=conf.disable_after))
    return (
        list(Subscription.objects.using(using).filter(pk__in=long).exclude(later).values_list("pk", flat=True))
        if long
        else []
    )


def waiting(subscriptions: QuerySet[Any, Any], *, using: str) -> list[int]:
    """Those that `probe_now` would make probe."""
    rows = Throttle.objects.using(using).filter(pk__in=subscriptions, probe_at__gt=Now())
    return list(rows.values_list("pk", flat=True))


def probe_now(subscriptions: QuerySet[Any, Any] | Sequence[int], *, using: str) -> None:
    """Somebody wants to know at once whether the receiver is back."""
    rows = Throttle.objects.using(using).filter(pk__in=subscriptions, probe_at__gt=Now()).order_by("pk")
    with transaction.atomic(using=using):
        locked = list(rows.select_for_update(no_key=True, of=("self",)).values_list("pk", flat=True))
        if locked:
            Throttle.objects.using(using).filter(pk__in=locked).update(probe_at=Now())

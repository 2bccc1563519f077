"""Rate limits and the breaker, on the database's clock."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import F
from django.utils import timezone

from tests.webhooks.traffic import make_delivery
from webhooks import claims, deliveries, throttles
from webhooks.models import Attempt, Delivery, Throttle
from webhooks.recording import Outcome, record

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_django.fixtures import Settings

    from subscriptions.models import Subscription, Tenant

pytestmark = pytest.mark.django_db

Reason = Attempt.Reason
LONG_AGO = timedelta(days=6)


@pytest.fixture
def subscription(tenant: Tenant, subscribe: Callable[..., Subscription]) -> Subscription:
    return subscribe(tenant, "shop.*")


def make_due(subscription: Subscription, number: int = 1, *, age: timedelta = timedelta(seconds=1)) -> list[Delivery]:
    due = timezone.now() - age
    return [make_delivery(subscription, "pending", next_attempt_at=due) for _ in range(number)]


def limit(subscription: Subscription, rate: int) -> None:
    subscription.rate_limit = rate
    subscription.save(update_fields=["rate_limit"])


def throttle(subscription: Subscription) -> Throttle:
    return Throttle.objects.get(pk=subscription.pk)


def answer(claimed: list[claims.Claim], reason: Reason | str = "") -> Counter[str]:
    status = None if reason else 204
    return record([(each, Outcome(each.url, 5, True, reason=reason, status=status)) for each in claimed])  # type: ignore[arg-type]


def fail(subscription: Subscription, times: int, reason: Reason = Reason.CONNECT) -> None:
    throttles.record([(subscription.pk, reason)] * times, using="default")


def rewind(subscription: Subscription, seconds: float) -> None:
    """As if so much time had passed."""
    past = timedelta(seconds=seconds)
    rows = Throttle.objects.filter(pk=subscription.pk)
    rows.update(next_at=F("next_at") - past, probe_at=F("probe_at") - past, failing_since=F("failing_since") - past)


# A rate limit


def test_a_rate_limit_is_what_one_second_gets(subscription: Subscription) -> None:
    limit(subscription, 4)
    make_due(subscription, 20)
    assert len(claims.claim(100)) == 4
    assert claims.claim(100) == []
    assert 0 < (claims.next_due_in() or 0) <= 0.25
    rewind(subscription, 0.5)
    assert len(claims.claim(100)) == 2


def test_what_was_not_used_for_a_minute_is_caught_up_for_a_second_only(subscription: Subscription) -> None:
    limit(subscription, 3)
    make_due(subscription, 20)
    assert len(claims.claim(100)) == 3
    rewind(subscription, 60)
    assert len(claims.claim(100)) == 3


def test_one_request_a_second_goes_once_a_second(subscription: Subscription) -> None:
    limit(subscription, 1)
    make_due(subscription, 3)
    assert len(claims.claim(100)) == 1
    rewind(subscription, 0.9)
    assert claims.claim(100) == []
    rewind(subscription, 0.2)
    assert len(claims.claim(100)) == 1


def test_a_rate_limit_is_no_licence_to_exceed_the_cap(subscription: Subscription, settings: Settings) -> None:
    settings.SIGNALPOST_IN_FLIGHT_PER_SUBSCRIPTION = 5
    limit(subscription, 100)
    make_due(subscription, 20)
    assert len(claims.claim(100, busy={subscription.pk: 3})) == 2


def test_a_rate_limit_does_not_hold_up_others(
    subscription: Subscription, tenant: Tenant, subscribe: Callable[..., Subscription]
) -> None:
    limit(subscription, 1)
    other = subscribe(tenant, "shop.*")
    make_due(subscription, 20)
    make_due(other, 5)
    claimed = Counter(each.subscription_id for each in claims.claim(100))
    assert claimed == {subscription.pk: 1, other.pk: 5}


def test_no_rate_limit_of_nought_can_be_written(subscription: Subscription) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        limit(subscription, 0)


def test_a_throttle_that_another_worker_holds_gets_nothing_here(subscription: Subscription) -> None:
    ready = [claims.Ready(subscription.pk, subscription.tenant_id, throttled=True)]
    assert claims._allowed(ready, {}) == []


# The breaker


def test_failures_in_a_row_leave_one_probe_at_a_time(subscription: Subscription, settings: Settings) -> None:
    settings.SIGNALPOST_BREAKER_FAILURES = 3
    make_due(subscription, 20)
    fail(subscription, 2)
    assert throttle(subscription).probe_at is None
    fail(subscription, 1)
    assert claims.claim(100) == []
    assert 59 < (claims.next_due_in() or 0) <= 60
    rewind(subscription, 60)
    (probe,) = claims.claim(100)
    assert claims.claim(100) == []
    answer([probe], Reason.TIMEOUT)
    assert claims.claim(100) == []
    assert throttle(subscription).failures == 4


def test_an_answered_probe_lets_all_flow_again(subscription: Subscription, settings: Settings) -> None:
    settings.SIGNALPOST_IN_FLIGHT_PER_SUBSCRIPTION = 7
    fail(subscription, 10)
    rewind(subscription, 60)
    make_due(subscription, 20)
    answer(claims.claim(100))
    row = throttle(subscription)
    assert (row.failures, row.failing_since, row.probe_at) == (0, None, None)
    assert len(claims.claim(100)) == 7


def test_what_waits_for_a_probe_uses_up_nothing_of_its_schedule(subscription: Subscription) -> None:
    fail(subscription, 10)
    rewind(subscription, 60)
    waiting = make_due(subscription, 5)
    answer(claims.claim(100), Reason.CONNECT)
    steps = Delivery.objects.filter(pk__in=[each.pk for each in waiting]).values_list("schedule_step", flat=True)
    assert sorted(steps) == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("reason", [Reason.UNSENDABLE, Reason.LOST])
def test_what_is_our_own_fault_is_not_held_against_a_receiver(subscription: Subscription, reason: Reason) -> None:
    fail(subscription, 50, reason)
    assert not Throttle.objects.exists()


def test_one_success_among_failures_counts(subscription: Subscription) -> None:
    fail(subscription, 9)
    outcomes = [(subscription.pk, Reason.CONNECT), (subscription.pk, ""), (subscription.pk, Reason.CONNECT)]
    throttles.record(outcomes, using="default")
    assert throttle(subscription).failures == 0


def test_a_first_batch_of_failures_opens_it_at_once(subscription: Subscription) -> None:
    fail(subscription, 10)
    assert throttle(subscription).probe_at is not None


def test_a_replay_probes_at_once(subscription: Subscription) -> None:
    fail(subscription, 10)
    delivery = make_delivery(subscription, "failed")
    deliveries.replay(Delivery.objects.filter(pk=delivery.pk), by="alice")
    (claimed,) = claims.claim(100)
    assert claimed.delivery_id == delivery.pk


def test_the_limit_holds_for_what_comes_after_a_probe(subscription: Subscription) -> None:
    limit(subscription, 2)
    fail(subscription, 10)
    rewind(subscription, 60)
    make_due(subscription, 20)
    answer(claims.claim(100))
    rewind(subscription, 60)
    assert len(claims.claim(100)) == 2


# What has waited for long


def test_of_a_backlog_the_newest_go_with_the_oldest(subscription: Subscription, settings: Settings) -> None:
    settings.SIGNALPOST_IN_FLIGHT_PER_SUBSCRIPTION = 4
    old = make_due(subscription, 10, age=timedelta(hours=1))
    new = make_due(subscription, 10)
    claimed = {each.delivery_id for each in claims.claim(4)}
    assert len(claimed & {each.pk for each in old}) == 2
    assert len(claimed & {each.pk for each in new}) == 2


def test_the_last_of_a_backlog_is_claimed_once(subscription: Subscription) -> None:
    backlog = make_due(subscription, 3, age=timedelta(hours=1))
    assert sorted(each.delivery_id for each in claims.claim(10)) == sorted(each.pk for each in backlog)


def test_without_a_backlog_the_oldest_go_first(subscription: Subscription) -> None:
    newer = make_due(subscription, 2, age=timedelta(seconds=1))
    older = make_due(subscription, 2, age=timedelta(seconds=5))
    assert {each.delivery_id for each in claims.claim(2)} == {each.pk for each in older}
    assert {each.delivery_id for each in claims.claim(2)} == {each.pk for each in newer}


# Giving up


def test_nothing_but_failures_for_days_is_told(subscription: Subscription) -> None:
    subscription.__class__.objects.filter(pk=subscription.pk).update(enabled_at=timezone.now() - LONG_AGO)
    fail(subscription, 1)
    rewind(subscription, LONG_AGO.total_seconds())
    assert throttles.record([(subscription.pk, Reason.CONNECT)], using="default") == [subscription.pk]


def test_days_that_end_with_a_success_are_not(subscription: Subscription) -> None:
    fail(subscription, 1)
    rewind(subscription, LONG_AGO.total_seconds())
    outcomes = [(subscription.pk, Reason.CONNECT), (subscription.pk, "")]
    assert throttles.record(outcomes, using="default") == []


def test_failures_from_before_it_was_turned_on_again_are_forgiven(subscription: Subscription) -> None:
    fail(subscription, 1)
    rewind(subscription, LONG_AGO.total_seconds())
    subscription.disable(reason="pause")
    subscription.enable()
    assert throttles.record([(subscription.pk, Reason.CONNECT)], using="default") == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="SQLite has one writer at a time")
def test_two_workers_keep_one_limit_together(subscription: Subscription) -> None:
    limit(subscription, 5)
    make_due(subscription, 50)
    from concurrent.futures import ThreadPoolExecutor

    def work() -> int:
        try:
            return len(claims.claim(100))
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as workers:
        claimed = sum(future.result() for future in [workers.submit(work) for _ in range(12)])
    assert 5 <= claimed <= 10  # a second may pass meanwhile

"""Workers that lock rows of one another: nobody waits in a circle."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection, connections, transaction
from django.utils import timezone

from subscriptions import edits
from subscriptions.trail import Actor
from tests.webhooks.traffic import make_delivery
from webhooks import claims, deliveries, disabling, recording, replays, throttles
from webhooks.models import Attempt, Delivery, Replay, Rollup, Throttle
from webhooks.recording import Outcome, record

if TYPE_CHECKING:
    from collections.abc import Callable

    from subscriptions.models import Subscription, Tenant

    Subscribe = Callable[..., Subscription]

# Other threads work on the database.
pytestmark = pytest.mark.django_db(transaction=True)

Reason = Attempt.Reason
ALICE = Actor("alice@acme.example")
# How long one waits for the other, which in the right order never comes.
MOMENT = 0.5


@pytest.fixture
def pair(tenant: Tenant, subscribe: Subscribe) -> tuple[Subscription, Subscription]:
    return subscribe(tenant, "shop.*"), subscribe(tenant, "shop.*")


def claim_due(*subscriptions: Subscription) -> list[claims.Claim]:
    due = timezone.now() - timedelta(seconds=1)
    for each in subscriptions:
        make_delivery(each, "pending", next_attempt_at=due)
    return sorted(claims.claim(100), key=lambda claim: claim.subscription_id)


def came(claim: claims.Claim, reason: Reason | str = "", *, status: int | None = None) -> tuple[claims.Claim, Outcome]:
    return claim, Outcome(claim.url, 5, True, reason=reason, status=status)  # type: ignore[arg-type]


def both(*acts: Callable[[], Any]) -> list[Any]:
    """What each gave, in threads and on connections of their own."""

    def run(act: Callable[[], Any]) -> Any:
        try:
            return act()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(acts)) as pool:
        return [future.result(30) for future in [pool.submit(run, act) for act in acts]]


def meet(barrier: threading.Barrier) -> None:
    with suppress(threading.BrokenBarrierError):
        barrier.wait(MOMENT)


def test_results_that_contradict_each_other_are_recorded_at_once(
    pair: tuple[Subscription, Subscription], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (each.pk for each in pair)
    throttles.record([(first, Reason.CONNECT), (second, Reason.CONNECT)], using="default")
    close, closed = throttles._close, threading.Barrier(2)

    def close_and_meet(*args: Any, **options: Any) -> None:
        close(*args, **options)
        if connection.vendor == "postgresql":  # SQLite has one writer, with or without us
            meet(closed)

    monkeypatch.setattr(throttles, "_close", close_and_meet)

    def work(good: int, bad: int) -> None:
        with transaction.atomic():
            throttles.record([(good, ""), (bad, Reason.CONNECT)], using="default")

    both(lambda: work(first, second), lambda: work(second, first))
    assert sorted(Throttle.objects.values_list("failures", flat=True)) == [0, 1]


def test_what_comes_of_a_subscription_that_is_gone_costs_no_other_result(
    pair: tuple[Subscription, Subscription],
) -> None:
    gone, left = pair
    claimed = claim_due(gone, left)
    edits.delete(gone, ALICE)
    counts = record([came(each, Reason.CONNECT) for each in claimed])
    assert +counts == Counter(retrying=1, late=1)
    assert list(Throttle.objects.values_list("pk", "failures")) == [(left.pk, 1)]
    assert list(Rollup.objects.values_list("subscription_id", flat=True)) == [left.pk]


def test_a_subscription_that_is_gone_keeps_nobody_from_claiming(
    pair: tuple[Subscription, Subscription], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, left = pair
    for each in pair:
        each.rate_limit = 5
        each.save(update_fields=["rate_limit"])
        make_delivery(each, "pending", next_attempt_at=timezone.now() - timedelta(seconds=1))
    ready = claims._ready("default")
    gone.delete()
    monkeypatch.setattr(claims, "_ready", lambda alias: ready)
    assert [claim.subscription_id for claim in claims.claim(10)] == [left.pk]


def test_a_worker_and_a_member_turn_subscriptions_off_at_once(
    pair: tuple[Subscription, Subscription], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair
    claimed = claim_due(*pair)
    disable, meeting = disabling.disable, threading.Barrier(2)

    def disable_and_meet(pk: int, **options: Any) -> bool:
        done = disable(pk, **options)
        if pk == first.pk and connection.vendor == "postgresql":
            meet(meeting)  # The revision is locked, and in the wrong order not yet the second.
        return done

    monkeypatch.setattr(disabling, "disable", disable_and_meet)

    def member() -> None:
        with transaction.atomic():
            edits._locked(second)
            if connection.vendor == "postgresql":
                meet(meeting)
            second.disable(reason="A member turned it off.", by=second.DisabledBy.MEMBER)

    both(lambda: record([came(each, Reason.STATUS, status=410) for each in claimed]), member)
    for each in pair:
        each.refresh_from_db()
        assert not each.enabled
    assert set(Delivery.objects.values_list("status", flat=True)) == {"failed"}


def test_a_replay_that_turns_its_subscription_on_waits_for_the_workers_in_their_order(
    pair: tuple[Subscription, Subscription], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing, other = pair
    claimed = claim_due(failing, other)
    make_delivery(failing, "failed")
    failing.disable(reason="A test.")
    Throttle.objects.create(subscription=failing, failures=9, probe_at=timezone.now() + timedelta(hours=1))
    turn_off, meeting = disabling.disable, threading.Barrier(2)

    def meet_and_turn_off(pk: int, **options: Any) -> bool:
        if connection.vendor == "postgresql":
            meet(meeting)
        return turn_off(pk, **options)

    turn_on = replays._turn_on

    def turn_on_and_meet(*args: Any, **options: Any) -> None:
        turn_on(*args, **options)
        if connection.vendor == "postgresql":
            meet(meeting)

    monkeypatch.setattr(disabling, "disable", meet_and_turn_off)
    monkeypatch.setattr(replays, "_turn_on", turn_on_and_meet)
    outcomes = [came(claimed[0], Reason.CONNECT), came(claimed[1], Reason.STATUS, status=410)]
    wish = replays.wish(failing.tenant, Replay.Kind.FAILED, subscription=failing)
    both(lambda: record(outcomes), lambda: replays.start(wish, by=ALICE, enable=True))
    failing.refresh_from_db()
    other.refresh_from_db()
    assert failing.enabled
    assert not other.enabled


def test_a_replay_of_what_a_worker_records_late_waits_for_the_worker(
    pair: tuple[Subscription, Subscription], monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription, _ = pair
    delivery = make_delivery(subscription, "failed")
    Throttle.objects.create(subscription=subscription, failures=9, probe_at=timezone.now() + timedelta(hours=1))
    probe_now, meeting = throttles.probe_now, threading.Barrier(2)

    def probe_and_meet(*args: Any, **options: Any) -> None:
        probe_now(*args, **options)
        if connection.vendor == "postgresql":
            meet(meeting)

    monkeypatch.setattr(throttles, "probe_now", probe_and_meet)

    def worker() -> None:
        with transaction.atomic():
            recording._lock([delivery.pk], using="default")
            if connection.vendor == "postgresql":
                meet(meeting)
            throttles.record([(subscription.pk, Reason.CONNECT)], using="default")

    def member() -> int:
        with transaction.atomic():
            return deliveries.replay(Delivery.objects.filter(pk=delivery.pk), by="alice")

    assert both(worker, member) == [None, 1]
    delivery.refresh_from_db()
    assert delivery.status == "pending"

from __future__ import annotations

import threading
import time
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection, connections, transaction
from django.db.models import F
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from subscriptions import secrets
from subscriptions.conf import conf
from subscriptions.models import Secret, Subscription
from tests.traffic import BODY, let_leases_end, make_deliveries, make_event
from webhooks import claims
from webhooks.claims import claim, next_due_in, release, share_out
from webhooks.models import Attempt, Delivery, Event

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_django.fixtures import Settings

    from subscriptions.models import Tenant

    Subscribe = Callable[..., Subscription]

pytestmark = pytest.mark.django_db

Status = Delivery.Status
# As PostgreSQL says it.
FULL_SCAN = "Seq Scan on webhooks_delivery"


@pytest.fixture
def subscription(tenant: Tenant, subscribe: Subscribe) -> Subscription:
    return subscribe(tenant, "shop.*")


def counted(claimed: list[claims.Claim]) -> Counter[int]:
    return Counter(one.subscription_id for one in claimed)


def test_the_age_of_a_claim_counts_the_time_that_the_machine_slept() -> None:
    slept = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    assert abs(time.clock_gettime(slept) - claims.clock()) < 1


def test_a_claim_holds_all_that_sending_needs(subscription: Subscription) -> None:
    (delivery,) = make_deliveries(subscription)
    before = claims.clock()
    (claimed,) = claim(10)
    attempt = Attempt.objects.get()
    assert claimed == claims.Claim(
        delivery_id=delivery.pk,
        lease=1,
        attempt_id=attempt.pk,
        number=1,
        step=0,
        webhook_id=delivery.event.webhook_id,
        body=BODY,
        subscription_id=subscription.pk,
        tenant_id=subscription.tenant_id,
        url=subscription.url,
        secrets=(subscription.secrets.get().value,),
        claimed_at=claimed.claimed_at,
    )
    assert before <= claimed.claimed_at <= claims.clock()


def test_the_attempt_is_written_with_the_claim(subscription: Subscription) -> None:
    make_deliveries(subscription, trigger=Delivery.Trigger.MANUAL, triggered_by="alice")
    claim(10)
    attempt = Attempt.objects.get()
    assert (attempt.number, attempt.lease, attempt.trigger, attempt.triggered_by) == (1, 1, "manual", "alice")
    assert attempt.url == subscription.url
    assert attempt.ended_at is None
    assert abs(attempt.started_at - timezone.now()) < timedelta(seconds=5)


def test_what_is_claimed_is_leased_by_the_clock_of_the_database(subscription: Subscription) -> None:
    make_deliveries(subscription)
    claim(10)
    (left,) = Delivery.objects.annotate(left=F("leased_until") - Now()).values_list("left", flat=True)
    assert timedelta(seconds=conf.lease_seconds - 5) < left <= timedelta(seconds=conf.lease_seconds)
    assert claim(10) == []


def test_nothing_due_is_an_empty_list(subscription: Subscription) -> None:
    make_deliveries(subscription, next_attempt_at=timezone.now() + timedelta(minutes=1))
    make_deliveries(subscription, status=Status.DELIVERED, next_attempt_at=None)
    assert claim(10) == []
    assert claim(0) == []


def test_no_room_is_an_empty_list(subscription: Subscription) -> None:
    make_deliveries(subscription)
    assert claim(0) == []
    assert claim(-1) == []


def test_a_disabled_subscription_is_passed_over_until_it_is_enabled_again(subscription: Subscription) -> None:
    make_deliveries(subscription)
    subscription.disable(reason="Enough.")
    assert claim(10) == []
    assert Delivery.objects.get().status == Status.PENDING
    subscription.enable()
    assert len(claim(10)) == 1


def test_the_longest_waiting_goes_first(subscription: Subscription) -> None:
    made = make_deliveries(subscription, 30)
    last = made[-1]
    Delivery.objects.filter(pk=last.pk).update(next_attempt_at=Now() - timedelta(hours=1))
    (claimed,) = claim(1)
    assert claimed.delivery_id == last.pk


def test_secrets_are_the_live_ones_newest_first(subscription: Subscription) -> None:
    first = subscription.secrets.get().value
    second = subscription.rotate_secret()
    expired = secrets.generate()
    past = timezone.now() - timedelta(hours=1)
    subscription.secrets.create(ciphertext=secrets.encrypt(expired), expires_at=past)
    make_deliveries(subscription)
    assert claim(10)[0].secrets == (second, first)


def test_a_secret_that_cannot_be_read_fails_only_its_own_deliveries_and_is_named_once(
    subscription: Subscription, tenant: Tenant, subscribe: Subscribe, caplog: pytest.LogCaptureFixture
) -> None:
    claims.forget_secrets()
    broken = subscribe(tenant, "shop.*")
    broken.rotate_secret()
    newest = Secret.objects.filter(subscription=broken).first()
    assert newest is not None
    Secret.objects.filter(pk=newest.pk).update(ciphertext=b"not of any key")
    make_deliveries(subscription)
    make_deliveries(broken)
    by_subscription = {one.subscription_id: one for one in claim(10)}
    assert by_subscription[subscription.pk].secrets
    assert by_subscription[broken.pk].secrets == ()
    make_deliveries(broken)
    assert claim(10)[0].secrets == ()
    (said,) = [record.getMessage() for record in caplog.records]
    assert f"secrets of subscriptions [{broken.pk}] cannot be read: No key of SIGNALPOST_ENCRYPTION_KEYS" in said


def test_a_subscription_without_a_secret_is_claimed_without(tenant: Tenant) -> None:
    bare = Subscription.objects.create(tenant=tenant, url="https://receiver.example/")
    make_deliveries(bare)
    assert claim(10)[0].secrets == ()


def test_secrets_are_decrypted_once_and_forgotten_on_request(
    subscription: Subscription, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims.forget_secrets()
    make_deliveries(subscription, 3)
    claim(1)
    claim(1)
    assert claims._open.cache_info().misses == 1
    claims.forget_secrets()
    assert claims._open.cache_info().currsize == 0


# Leases


def test_after_its_lease_a_delivery_is_claimed_again_with_the_same_webhook_id(subscription: Subscription) -> None:
    make_deliveries(subscription)
    (first,) = claim(10)
    let_leases_end()
    (second,) = claim(10)
    assert (second.delivery_id, second.webhook_id) == (first.delivery_id, first.webhook_id)
    assert (second.lease, second.number, second.step) == (2, 2, 0)
    lost, present = Attempt.objects.order_by("number")
    assert lost.reason == Attempt.Reason.LOST
    assert lost.ended_at is not None
    assert present.ended_at is None


def test_an_attempt_that_was_recorded_is_not_lost(subscription: Subscription) -> None:
    make_deliveries(subscription)
    claim(10)
    Attempt.objects.update(ended_at=Now(), reason=Attempt.Reason.TIMEOUT)
    Delivery.objects.update(status=Status.RETRYING, leased_until=None, next_attempt_at=Now(), schedule_step=1)
    (again,) = claim(10)
    assert (again.number, again.step) == (2, 1)
    assert Attempt.objects.get(number=1).reason == Attempt.Reason.TIMEOUT


def test_a_delivery_that_takes_its_workers_with_it_is_given_up(
    subscription: Subscription, caplog: pytest.LogCaptureFixture
) -> None:
    (poison,) = make_deliveries(subscription)
    for number in range(1, claims.LOST_LIMIT + 1):
        assert [one.number for one in claim(10)] == [number]
        let_leases_end()
    make_deliveries(subscription)
    (innocent,) = claim(10)
    assert innocent.delivery_id != poison.pk
    poison.refresh_from_db()
    assert (poison.status, poison.attempt_count) == (Status.FAILED, claims.LOST_LIMIT)
    assert poison.ended_at is not None
    assert poison.next_attempt_at is poison.leased_until is None
    reasons = set(Attempt.objects.filter(delivery=poison).values_list("reason", flat=True))
    assert reasons == {Attempt.Reason.LOST}
    assert str(poison.pk) in caplog.text


def test_losses_in_a_row_are_what_counts(subscription: Subscription) -> None:
    make_deliveries(subscription)
    for number in range(1, 2 * claims.LOST_LIMIT):
        assert [one.number for one in claim(10)] == [number]
        if number == claims.LOST_LIMIT - 1:
            Attempt.objects.filter(number=number).update(ended_at=Now(), reason=Attempt.Reason.STATUS)
        let_leases_end()
    assert Delivery.objects.get().status == Status.PENDING


# Handing back


def test_what_is_handed_back_is_as_if_never_claimed(subscription: Subscription) -> None:
    make_deliveries(subscription, 3)
    claimed = claim(10)
    release(claimed[:2])
    assert Attempt.objects.count() == 1
    again = claim(10)
    assert {one.delivery_id for one in again} == {one.delivery_id for one in claimed[:2]}
    assert {(one.number, one.lease) for one in again} == {(1, 2)}


def test_handing_back_changes_nothing_that_another_has_claimed_or_that_has_ended(subscription: Subscription) -> None:
    taken, ended = make_deliveries(subscription, 2)
    mine = claim(10)
    let_leases_end()
    Delivery.objects.filter(pk=ended.pk).update(status=Status.DELIVERED, leased_until=None, next_attempt_at=None)
    (theirs,) = claim(10)
    release(mine)
    taken.refresh_from_db()
    ended.refresh_from_db()
    assert (taken.lease, taken.attempt_count) == (theirs.lease, 2)
    assert taken.leased_until is not None
    assert ended.status == Status.DELIVERED
    assert Attempt.objects.count() == 3


def test_nothing_to_hand_back_asks_nothing(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        release([])


# Turns


@pytest.mark.parametrize(
    ("ready", "room", "busy", "shares"),
    [
        ([], 5, {}, {}),
        ([(1, 1)], 0, {}, {}),
        ([(1, 1)], 100, {}, {1: 4}),
        ([(1, 1)], 100, {1: 3}, {1: 1}),
        ([(1, 1)], 100, {1: 4}, {}),
        ([(1, 1), (2, 1)], 3, {}, {1: 2, 2: 1}),
        # The one with nothing in flight goes first, though the other waits longer.
        ([(1, 1), (2, 1)], 1, {1: 2}, {2: 1}),
        # A tenant with many subscriptions gets no more than a tenant with one.
        ([(1, 1), (2, 1), (3, 1), (4, 2)], 4, {}, {1: 1, 2: 1, 4: 2}),
        ([(1, 1), (2, 1), (3, 1), (4, 2)], 2, {1: 1, 2: 1}, {4: 2}),
        # A busy tenant waits, also with a subscription that is not.
        ([(1, 1), (2, 1), (9, 2)], 1, {1: 4}, {9: 1}),
    ],
)
def test_turns_go_to_who_has_the_fewest_in_flight(
    ready: list[tuple[int, int]], room: int, busy: dict[int, int], shares: dict[int, int]
) -> None:
    assert share_out([claims.Ready(*each) for each in ready], room, busy=busy, most=4) == shares


def test_a_subscription_never_has_more_in_flight_than_it_may(subscription: Subscription, settings: Settings) -> None:
    settings.SIGNALPOST_IN_FLIGHT_PER_SUBSCRIPTION = 4
    make_deliveries(subscription, 20)
    assert len(claim(100)) == 4
    assert len(claim(100, busy={subscription.pk: 3})) == 1
    assert claim(100, busy={subscription.pk: 4}) == []


def test_room_that_one_has_no_use_for_goes_to_the_others(
    subscription: Subscription, make_tenant: Callable[..., Tenant], subscribe: Subscribe
) -> None:
    other = subscribe(make_tenant("umbrella"), "shop.*")
    make_deliveries(subscription, 10)
    make_deliveries(other, 1)
    assert counted(claim(8)) == {subscription.pk: 7, other.pk: 1}


def test_a_backlog_of_ten_thousand_does_not_delay_another_ones_single_delivery(
    subscription: Subscription, tenant: Tenant, make_tenant: Callable[..., Tenant], subscribe: Subscribe
) -> None:
    neighbour, stranger = subscribe(tenant, "shop.*"), subscribe(make_tenant("umbrella"), "shop.*")
    make_deliveries(subscription, 10_000, next_attempt_at=timezone.now() - timedelta(days=1))
    make_deliveries(neighbour)
    make_deliveries(stranger)
    assert counted(claim(3)) == {subscription.pk: 1, neighbour.pk: 1, stranger.pk: 1}
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE webhooks_delivery")
    assert FULL_SCAN not in plan(ready_query())
    began = time.monotonic()
    assert len(claim(200)) == conf.in_flight_per_subscription
    assert time.monotonic() - began < 0.2


def ready_query() -> str:
    return f"{claims._ready_query('default')} SELECT * FROM ready"  # noqa: S608


def plan(query: str, parameters: list[Any] | None = None) -> str:
    explain = "EXPLAIN QUERY PLAN " if connection.vendor == "sqlite" else "EXPLAIN "
    with connection.cursor() as cursor:
        cursor.execute(explain + query, parameters or [])
        return "\n".join(str(row[-1]) for row in cursor.fetchall()).replace("SCAN webhooks_delivery", FULL_SCAN)


def test_what_is_due_is_found_by_the_index(subscription: Subscription, tenant: Tenant, subscribe: Subscribe) -> None:
    for one in (subscription, subscribe(tenant, "shop.*")):
        make_deliveries(one, 500)
        make_deliveries(one, 500, status=Status.DELIVERED, next_attempt_at=None)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE webhooks_delivery")
    with CaptureQueriesContext(connection) as queries:
        claim(20)
    (lease,) = [query["sql"] for query in queries if "picked" in query["sql"]]
    picks = lease.partition("MATERIALIZED (")[2].partition("UPDATE webhooks_delivery")[0].rstrip().removesuffix(")")
    for query in (ready_query(), picks):
        shown = plan(query)
        assert "delivery_due" in shown
        assert FULL_SCAN not in shown
        assert "SCAN d" not in shown


def test_a_claim_of_200_takes_a_handful_of_statements(
    tenant: Tenant, subscribe: Subscribe, django_assert_max_num_queries: Any
) -> None:
    for _ in range(25):
        make_deliveries(subscribe(tenant, "shop.*"), 8)
    with django_assert_max_num_queries(11):
        assert len(claim(200)) == 200


def test_more_subscriptions_than_one_statement_takes(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "MOST_SUBSCRIPTIONS", 3)
    made = Subscription.objects.bulk_create(Subscription(tenant=tenant, url="https://a.example/") for _ in range(8))
    for subscription in made:
        make_deliveries(subscription)
    got: list[claims.Claim] = []
    while more := claim(100):
        got += more
    assert len({one.delivery_id for one in got}) == len(got) == 8


# Two workers


@pytest.mark.django_db(transaction=True)
def test_two_workers_never_hold_the_same_delivery_at_once(
    make_tenant: Callable[..., Tenant], subscribe: Subscribe
) -> None:
    for slug in ("acme", "umbrella"):
        tenant = make_tenant(slug)
        for _ in range(5):
            make_deliveries(subscribe(tenant, "shop.*"), 50)
    start, got = threading.Barrier(2), []

    def work() -> None:
        start.wait()
        try:
            while more := claim(17):
                got.extend(more)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Passing over what the other is taking may leave some for later; there is no other.
    while more := claim(17):
        got += more
    assert len({(one.delivery_id, one.number) for one in got}) == len(got) == 500
    assert Attempt.objects.count() == 500


@pytest.mark.django_db(transaction=True)
def test_what_another_worker_is_taking_is_passed_over_not_waited_for(subscription: Subscription) -> None:
    if not connection.features.has_select_for_update_skip_locked:
        pytest.skip("SQLite lets one write at a time")
    locked, free = make_deliveries(subscription, 2)
    got: list[claims.Claim] = []

    def other_worker() -> None:
        try:
            got.extend(claim(10))
        finally:
            connections.close_all()

    with transaction.atomic():
        Delivery.objects.select_for_update().get(pk=locked.pk)
        thread = threading.Thread(target=other_worker)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
    assert [one.delivery_id for one in got] == [free.pk]


def test_a_claim_that_breaks_leaves_nothing_behind(subscription: Subscription, monkeypatch: pytest.MonkeyPatch) -> None:
    make_deliveries(subscription, 3)

    def broken(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(claims, "_secrets", broken)
        with pytest.raises(RuntimeError):
            claim(10)
    assert Attempt.objects.count() == 0
    assert [one.number for one in claim(10)] == [1, 1, 1]


# The next due time


def test_without_work_nothing_is_due(subscription: Subscription) -> None:
    assert next_due_in() is None
    make_deliveries(subscription, status=Status.DELIVERED, next_attempt_at=None)
    assert next_due_in() is None


def test_an_event_that_waits_is_due_now(tenant: Tenant) -> None:
    make_event(tenant)
    assert next_due_in() == 0.0


def test_the_next_due_time_is_the_earliest_of_all_enabled_subscriptions(
    subscription: Subscription, tenant: Tenant, subscribe: Subscribe
) -> None:
    off = subscribe(tenant, "shop.*")
    off.disable(reason="Enough.")
    make_deliveries(off)
    make_deliveries(subscription, next_attempt_at=timezone.now() + timedelta(seconds=100))
    make_deliveries(subscribe(tenant, "shop.*"), next_attempt_at=timezone.now() + timedelta(seconds=50))
    due = next_due_in()
    assert due is not None
    assert 40 < due < 51
    make_deliveries(subscription)
    assert next_due_in() == 0.0


def test_the_end_of_a_lease_is_a_due_time(subscription: Subscription) -> None:
    make_deliveries(subscription)
    claim(1)
    due = next_due_in()
    assert due is not None
    assert conf.lease_seconds - 10 < due < conf.lease_seconds + 1


def test_events_share_one_body(subscription: Subscription, tenant: Tenant, subscribe: Subscribe) -> None:
    (first,) = make_deliveries(subscription)
    Delivery.objects.create(
        event=first.event,
        subscription=subscribe(tenant, "shop.*"),
        tenant=tenant,
        created_at=timezone.now(),
        next_attempt_at=timezone.now() - timedelta(seconds=1),
    )
    one, two = claim(10)
    assert one.body is two.body
    assert Event.objects.count() == 1

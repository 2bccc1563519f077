"""Bulk replays: asked for, carried out in steps, watched, cancelled."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from django.db import IntegrityError, OperationalError, connection, connections, transaction
from django.db.models.functions import Now
from django.utils import timezone

from subscriptions.models import AuditEntry, Subscription
from subscriptions.trail import Actor
from tests.traffic import TOPIC, let_leases_end, make_deliveries, make_event
from webhooks import deliveries, drain, replays, tallies, tasks
from webhooks.claims import claim
from webhooks.filters import DeliveryFilters
from webhooks.models import Attempt, Delivery, Event, Replay, Throttle
from webhooks.replays import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_django import DjangoAssertNumQueries
    from pytest_django.fixtures import Settings

    from subscriptions.models import Tenant
    from tests.receiver import Receiver

    Subscribe = Callable[..., Subscription]

pytestmark = pytest.mark.django_db
# For tests in which another thread works on the database.
committed = pytest.mark.django_db(transaction=True)

Status = Delivery.Status
ALICE = Actor("alice@acme.example", 7, "203.0.113.7")
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    rings: list[str] = []
    monkeypatch.setattr(tasks, "ring", lambda: rings.append("ring"))
    monkeypatch.setattr(replays, "_stuck_until", {})
    return rings


@pytest.fixture
def subscription(tenant: Tenant, subscribe: Subscribe) -> Subscription:
    return subscribe(tenant, "shop.*")


def failed(subscription: Subscription, number: int = 1, *, age: timedelta = HOUR, **fields: Any) -> list[Delivery]:
    ended = timezone.now() - age
    values = {"status": Status.FAILED, "next_attempt_at": None, "ended_at": ended, "attempt_count": 10, **fields}
    rows = make_deliveries(subscription, number, **values)
    Attempt.objects.bulk_create(
        Attempt(
            delivery=row, number=10, lease=1, trigger="schedule", started_at=ended, ended_at=row.ended_at, reason="dns"
        )
        for row in rows
    )
    return rows


def begin(of: Subscription, kind: str = "failed", **options: Any) -> Replay:
    filters = DeliveryFilters.from_query(options.pop("filters", {}))
    told = {name: options.pop(name) for name in ("enable", "token") if name in options}
    options.setdefault("subscription", None if kind == "filtered" else of)
    wish = replays.wish(of.tenant, kind, filters=filters, **options)
    return replays.start(wish, by=ALICE, **told)


def work_off(most: int = 100) -> int:
    """As workers do; returns in how many steps."""
    for steps in range(most):
        if not replays.advance():
            return steps
    raise AssertionError("It does not end.")


def statuses(rows: list[Delivery]) -> list[str]:
    found = dict(Delivery.objects.values_list("pk", "status"))
    return [found[row.pk] for row in rows]


# Asking


def test_what_failed_since_a_time_is_counted_and_sent_again(
    subscription: Subscription, subscribe: Subscribe, quiet: list[str], django_capture_on_commit_callbacks: Any
) -> None:
    old = failed(subscription, 2, age=3 * HOUR)
    new = failed(subscription, 3)
    (delivered,) = make_deliveries(subscription, status=Status.DELIVERED, next_attempt_at=None)
    others = failed(subscribe(subscription.tenant, "*"), 4)
    assert str(replays.failed_since(subscription, timezone.now() - 2 * HOUR)) == "3"
    with django_capture_on_commit_callbacks(execute=True):
        replay = begin(subscription, since=timezone.now() - 2 * HOUR)
    assert quiet == ["ring"]
    assert (replay.expected, replay.by) == (3, ALICE.name)
    assert statuses(new) == ["failed"] * 3, "nothing happens in the request"
    work_off()
    assert (
        statuses(old + new + [delivered] + others) == ["failed"] * 2 + ["pending"] * 3 + ["delivered"] + ["failed"] * 4
    )
    replay.refresh_from_db()
    assert (replay.queued, replay.settled_at is not None) == (3, True)
    claimed = claim(10)
    assert {each.delivery_id for each in claimed} == {row.pk for row in new}
    assert {each.step for each in claimed} == {0}
    assert set(Attempt.objects.filter(number=11).values_list("trigger", "triggered_by")) == {("manual", ALICE.name)}


def test_what_failed_of_a_tenant_is_that_of_all_its_subscriptions_that_are_on(
    subscription: Subscription, subscribe: Subscribe, make_tenant: Callable[..., Tenant]
) -> None:
    second, off, strangers = (
        subscribe(subscription.tenant, "*"),
        subscribe(subscription.tenant, "*"),
        subscribe(make_tenant("other"), "*"),
    )
    rows = [failed(each)[0] for each in (subscription, second, off, strangers)]
    off.disable(reason="It is being rebuilt.")
    replay = begin(subscription, subscription=None)
    assert replay.expected == 2
    work_off()
    assert statuses(rows) == ["pending", "pending", "failed", "failed"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ["pending"] * 4),
        ({"status": "delivered"}, ["retrying", "pending", "failed", "cancelled"]),
        ({"status": "retrying"}, ["pending", "delivered", "failed", "cancelled"]),
        ({"topic": "shop.order.*", "status": "failed"}, ["retrying", "delivered", "pending", "cancelled"]),
    ],
)
def test_what_the_filters_match_is_sent_again_whatever_it_is(
    subscription: Subscription, query: dict[str, str], expected: list[str]
) -> None:
    rows = [
        make_deliveries(subscription, status=status, schedule_step=3)[0]
        for status in ("retrying", "delivered", "failed", "cancelled")
    ]
    replay = begin(subscription, "filtered", filters=query)
    work_off()
    assert statuses(rows) == expected
    replay.refresh_from_db()
    assert replay.filters == query
    assert replay.queued == replay.expected == expected.count("pending")


def test_the_filters_of_a_subscription_or_an_event_reach_no_other(
    subscription: Subscription, subscribe: Subscribe
) -> None:
    mine, twin = failed(subscription, 2), failed(subscribe(subscription.tenant, "*"), 2)
    begin(subscription, "filtered", filters={"subscription": str(subscription.pk)})
    work_off()
    assert statuses(mine + twin) == ["pending", "pending", "failed", "failed"]
    begin(subscription, "filtered", filters={"event": twin[0].event.webhook_id})
    work_off()
    assert statuses(twin) == ["pending", "failed"]


def test_what_comes_to_match_after_it_was_asked_for_is_left(subscription: Subscription) -> None:
    failed(subscription)
    begin(subscription)
    begin(subscription, "filtered")
    later = failed(subscription, age=-HOUR, created_at=timezone.now() + HOUR)
    work_off()
    assert statuses(later) == ["failed"]


def test_a_filter_with_a_mistake_in_it_replays_nothing(subscription: Subscription) -> None:
    failed(subscription)
    with pytest.raises(Refused, match="no such status"):
        begin(subscription, "filtered", filters={"status": "lost"})
    assert not Replay.objects.exists()


@pytest.mark.parametrize("kind", ["", "everything", "FAILED"])
def test_an_unknown_kind_is_refused(subscription: Subscription, kind: str) -> None:
    with pytest.raises(Refused, match="no such replay"):
        begin(subscription, kind)


def test_another_tenants_subscription_is_refused(
    subscription: Subscription, make_tenant: Callable[..., Tenant]
) -> None:
    with pytest.raises(Refused, match="no such subscription"):
        replays.wish(make_tenant("other"), "failed", subscription=subscription)


def test_where_there_is_nothing_none_is_started(subscription: Subscription) -> None:
    with pytest.raises(Refused, match="nothing to replay"):
        begin(subscription)
    assert not Replay.objects.exists()
    assert not AuditEntry.objects.exists()


def test_a_form_that_is_sent_twice_starts_one(subscription: Subscription) -> None:
    failed(subscription)
    token = uuid4()
    replay = begin(subscription, token=token)
    work_off()
    assert begin(subscription, token=token) == replay
    assert Replay.objects.count() == 1
    assert AuditEntry.objects.count() == 1


def test_two_tenants_may_have_the_same_token(
    subscription: Subscription, subscribe: Subscribe, make_tenant: Callable[..., Tenant]
) -> None:
    other = subscribe(make_tenant("other"), "*")
    failed(subscription)
    failed(other)
    token = uuid4()
    assert begin(subscription, token=token) != begin(other, token=token)


@committed
def test_two_clicks_at_once_start_one(subscription: Subscription) -> None:
    failed(subscription)
    token = uuid4()
    start, got = threading.Barrier(2), []

    def click() -> None:
        start.wait()
        got.append(begin(subscription, token=token).pk)
        connections.close_all()

    threads = [threading.Thread(target=click) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 2
    assert set(got) == {Replay.objects.get().pk}


def test_start_and_cancel_stand_in_the_audit_log(subscription: Subscription) -> None:
    failed(subscription, 2)
    replay = begin(subscription, since=timezone.now() - 5 * HOUR)
    assert replays.cancel(replay, by=ALICE)
    cancelled, started = AuditEntry.objects.all()
    assert (started.action, started.actor, started.number) == ("replay.started", ALICE.name, str(replay.pk))
    assert started.detail["expected"] == 2
    assert started.detail["replayed"] == "failed"
    assert (cancelled.action, cancelled.kind, cancelled.number) == ("replay.cancelled", "replay", str(replay.pk))


# Turning on


def test_it_turns_the_subscription_on_first_where_that_is_asked_for(subscription: Subscription) -> None:
    rows = failed(subscription, 2)
    subscription.disable(reason="Nothing but failures.", by=Subscription.DisabledBy.ENGINE)
    assert replays.failed_since(subscription, timezone.now() - 2 * HOUR).number == 2
    with pytest.raises(Refused, match="is off"):
        begin(subscription)
    begin(subscription, enable=True)
    subscription.refresh_from_db()
    assert subscription.enabled
    work_off()
    assert statuses(rows) == ["pending", "pending"]
    assert set(AuditEntry.objects.values_list("action", flat=True)) == {"replay.started", "subscription.enabled"}


@pytest.mark.parametrize("by", [Subscription.DisabledBy.OPERATOR, Subscription.DisabledBy.TENANT])
def test_what_the_operator_turned_off_stays_off_and_nothing_is_started(subscription: Subscription, by: str) -> None:
    failed(subscription)
    subscription.disable(reason="It attacks others.", by=by)
    with pytest.raises(Refused, match="It attacks others"):
        begin(subscription, enable=True)
    subscription.refresh_from_db()
    assert not subscription.enabled
    assert not Replay.objects.exists()


def test_a_breaker_lets_a_probe_pass_at_once(subscription: Subscription) -> None:
    failed(subscription)
    Throttle.objects.create(subscription=subscription, failures=9, probe_at=Now() + HOUR)
    begin(subscription)
    work_off()
    assert len(claim(1)) == 1


# What was missed


def missed(subscription: Subscription) -> Replay:
    return begin(subscription, "missed", since=timezone.now() - 2 * HOUR)


def event(tenant: Tenant | None, topic: str = TOPIC, *, age: timedelta = HOUR, **fields: Any) -> Any:
    at = timezone.now() - age
    return make_event(tenant, **{"topic": topic, "created_at": at, "fanned_out_at": at, **fields})


def sent(replay: Replay) -> set[Any]:
    return set(Delivery.objects.filter(replay=replay).values_list("event_id", flat=True))


def test_a_subscription_made_late_gets_what_its_topics_match_since_then(
    tenant: Tenant, subscribe: Subscribe, make_tenant: Callable[..., Tenant]
) -> None:
    wanted = [event(tenant), event(tenant, "shop.order.updated"), event(None)]
    event(tenant, age=3 * HOUR)
    event(tenant, "shop.customer.created")
    event(make_tenant("other"))
    event(tenant, error="The body is too large.")
    subscription = subscribe(tenant, "shop.order.*")
    replay = missed(subscription)
    assert replay.expected == 3
    work_off()
    assert sent(replay) == {each.pk for each in wanted}
    assert Delivery.objects.count() == 3
    assert {(row.status, row.trigger, row.triggered_by, row.tenant) for row in Delivery.objects.all()} == {
        ("pending", "manual", ALICE.name, tenant)
    }
    assert len(claim(10)) == 3


def test_what_has_a_delivery_is_not_missed(tenant: Tenant, subscription: Subscription, subscribe: Subscribe) -> None:
    had, other = event(tenant), event(tenant)
    for row, to in ((had, subscription), (other, subscribe(tenant, "shop.*"))):
        Delivery.objects.create(event=row, subscription=to, tenant=tenant, status="delivered", created_at=Now())
    replay = missed(subscription)
    work_off()
    assert sent(replay) == {other.pk}
    with pytest.raises(Refused, match="nothing to replay"):
        missed(subscription)


def test_the_fields_that_must_have_changed_hold_for_what_was_missed(tenant: Tenant, subscribe: Subscribe) -> None:
    paid = event(tenant, "shop.order.updated", changed=["status", "total"])
    event(tenant, "shop.order.updated", changed=["note"])
    event(tenant, "shop.order.updated", changed=None)
    created = event(tenant, "shop.order.created")
    subscription = subscribe(tenant, "shop.order.updated", changed=("status", "number"))
    subscription.listen_to("shop.order.created")
    replay = missed(subscription)
    assert replay.expected == 2
    work_off()
    assert sent(replay) == {paid.pk, created.pk}


def test_one_unlimited_pattern_wins_over_a_limited_topic(tenant: Tenant, subscribe: Subscribe) -> None:
    updated = event(tenant, "shop.order.updated", changed=["note"])
    subscription = subscribe(tenant, "shop.order.updated", changed=("status",))
    subscription.listen_to("shop.*")
    replay = missed(subscription)
    work_off()
    assert sent(replay) == {updated.pk}


def test_a_test_event_of_another_subscription_is_not_missed(tenant: Tenant, subscription: Subscription) -> None:
    event(tenant, "signalpost.test")
    with pytest.raises(Refused, match="nothing"):
        missed(subscription)


def test_an_event_that_still_waits_is_delivered_once(tenant: Tenant, subscription: Subscription) -> None:
    waiting = event(tenant, fanned_out_at=None)
    replay = missed(subscription)
    work_off()
    deliveries.fan_out()
    assert sent(replay) == {waiting.pk}
    assert Delivery.objects.count() == 1


def test_many_of_one_moment_are_walked_through_one_by_one(
    tenant: Tenant, subscription: Subscription, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays, "ROWS", 3)
    monkeypatch.setattr(replays, "WINDOW", 4)
    at = timezone.now() - HOUR
    for number in range(10):
        event(tenant if number % 3 else None, created_at=at)
    event(tenant, created_at=at + timedelta(minutes=1))
    replay = missed(subscription)
    assert replay.expected == 11
    assert work_off() > 3
    replay.refresh_from_db()
    assert (replay.queued, Delivery.objects.count()) == (11, 11)


@pytest.mark.parametrize("options", [{"since": None}, {"subscription": None}])
def test_what_was_missed_needs_a_subscription_and_a_time(subscription: Subscription, options: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="Choose a subscription and a time"):
        begin(subscription, "missed", **{"since": timezone.now(), **options})


# Carried out in steps


def test_it_goes_on_from_where_it_was(subscription: Subscription, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "ROWS", 2)
    rows = failed(subscription, 5)
    replay = begin(subscription)
    assert replays.advance()
    assert statuses(rows) == ["pending"] * 2 + ["failed"] * 3
    # What has failed again meanwhile is not sent a second time.
    Delivery.objects.filter(pk=rows[0].pk).update(status="failed", ended_at=Now())
    work_off()
    assert statuses(rows) == ["failed"] + ["pending"] * 4
    replay.refresh_from_db()
    assert replay.queued == 5


def test_a_few_among_many_are_found_in_steps_of_bounded_length(
    subscription: Subscription, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays, "WINDOW", 10)
    first = failed(subscription)
    make_deliveries(subscription, 35, status=Status.DELIVERED, next_attempt_at=None)
    last = failed(subscription)
    Event.objects.filter(deliveries__in=first + last).update(topic="rare.thing.created")
    assert begin(subscription, "filtered", filters={"topic": "rare.*"}).expected == 2
    assert work_off() == 4
    assert statuses(first + last) == ["pending", "pending"]
    assert Delivery.objects.filter(status=Status.DELIVERED).count() == 35
    assert begin(subscription, "filtered", filters={"topic": "rare.*", "status": "pending"}).expected == 2
    assert work_off() == 1, "a status has an index"


def test_a_worker_that_is_killed_in_the_middle_leaves_the_step_to_another(
    subscription: Subscription, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays, "ROWS", 2)
    rows = failed(subscription, 5)
    replay = begin(subscription)
    replays.advance()
    with transaction.atomic():
        replays.advance()
        assert statuses(rows).count("pending") == 4
        transaction.set_rollback(True)
    assert statuses(rows).count("pending") == 2
    work_off()
    replay.refresh_from_db()
    assert (statuses(rows), replay.queued) == (["pending"] * 5, 5)


@committed
def test_two_workers_at_once_queue_each_once(subscription: Subscription, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "ROWS", 5)
    rows = failed(subscription, 60)
    replay = begin(subscription)
    start = threading.Barrier(2)

    def work() -> None:
        start.wait()
        while Replay.objects.running().exists():
            replays.advance()
        connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    replay.refresh_from_db()
    assert replay.queued == 60
    assert set(statuses(rows)) == {"pending"}
    assert set(Delivery.objects.values_list("lease", flat=True)) == {1}, "queued once each"


@committed
def test_what_another_worker_works_at_is_passed_over(subscription: Subscription) -> None:
    if not connection.features.has_select_for_update_skip_locked:
        pytest.skip("SQLite lets one write at a time")
    failed(subscription)
    begin(subscription)
    got = []

    def other() -> None:
        got.append(replays.advance())
        connections.close_all()

    with transaction.atomic():
        Replay.objects.select_for_update(no_key=True).get()
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert got == [False]


def test_what_is_in_flight_is_not_touched(subscription: Subscription) -> None:
    make_deliveries(subscription, 2)
    (flying,) = claim(1)
    replay = begin(subscription, "filtered")
    work_off()
    assert Delivery.objects.get(pk=flying.delivery_id).lease == flying.lease
    replay.refresh_from_db()
    assert replay.queued == 1


def test_five_thousand_take_a_bounded_number_of_statements(
    subscription: Subscription, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    make_deliveries(subscription, 5_000, status=Status.FAILED, next_attempt_at=None, ended_at=timezone.now())
    begin(subscription)
    with django_assert_max_num_queries(60):
        assert work_off() == 6
    assert Delivery.objects.filter(status=Status.PENDING).count() == 5_000


def test_without_any_it_asks_once(django_assert_max_num_queries: DjangoAssertNumQueries) -> None:
    with django_assert_max_num_queries(1):
        assert not replays.advance()


def test_the_one_that_has_brought_the_fewest_has_its_turn(
    subscription: Subscription,
    subscribe: Subscribe,
    make_tenant: Callable[..., Tenant],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replays, "ROWS", 2)
    small = subscribe(make_tenant("other"), "*")
    failed(subscription, 8)
    (few,) = failed(small)
    begin(subscription)
    replays.advance()
    begin(small)
    replays.advance()
    assert statuses([few]) == ["pending"]


def test_one_that_the_database_refuses_does_not_hold_up_the_others(
    subscription: Subscription, subscribe: Subscribe, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    second = subscribe(subscription.tenant, "*")
    rows = [*failed(subscription), *failed(second)]
    bad = begin(subscription)
    begin(second)
    step = replays._step

    def refuse(pk: int) -> bool:
        if pk == bad.pk:
            raise IntegrityError("refused")
        return step(pk)

    monkeypatch.setattr(replays, "_step", refuse)
    work_off()
    assert statuses(rows) == ["failed", "pending"]
    assert f"Replay {bad.pk} cannot go on" in caplog.text
    assert caplog.text.count("cannot go on") == 1


def test_a_database_that_is_away_is_raised(subscription: Subscription, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pk: int) -> bool:
        raise OperationalError("away")

    failed(subscription)
    begin(subscription)
    monkeypatch.setattr(replays, "_step", refuse)
    monkeypatch.setattr(deliveries, "_usable", lambda alias: False)
    with pytest.raises(OperationalError):
        replays.advance()


def test_it_ends_where_the_subscription_is_turned_off_meanwhile(
    subscription: Subscription, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays, "ROWS", 1)
    rows = failed(subscription, 3)
    replay = begin(subscription)
    replays.advance()
    subscription.disable(reason="410 Gone")
    work_off()
    assert statuses(rows) == ["pending", "failed", "failed"]
    replay.refresh_from_db()
    assert replays.progress(replay).total == 1


# Cancelling


@pytest.mark.parametrize("was", Status.values)
def test_what_was_not_attempted_goes_back_to_what_it_was(subscription: Subscription, was: str) -> None:
    (row,) = failed(subscription, status=was)
    row.refresh_from_db()
    replay = begin(subscription, "filtered")
    work_off()
    assert replays.cancel(replay, by=ALICE)
    after = Delivery.objects.get()
    assert (after.status, after.replay, after.replayed_from) == (was, None, "")
    assert (after.trigger, after.triggered_by) == ("schedule", "")
    replay.refresh_from_db()
    assert (replay.queued, replay.taken_back, replay.settled_at is not None) == (1, 1, True)
    if was in Delivery.OPEN:
        # It was going to be sent anyway.
        assert (after.ended_at, len(claim(1))) == (None, 1)
    else:
        assert (after.ended_at, after.next_attempt_at, claim(1)) == (row.ended_at, None, [])


def test_what_was_missed_and_is_taken_back_is_cancelled_and_counted(
    tenant: Tenant, subscription: Subscription, django_capture_on_commit_callbacks: Any
) -> None:
    event(tenant)
    replay = missed(subscription)
    work_off()
    with django_capture_on_commit_callbacks(execute=True):
        assert replays.cancel(replay, by=ALICE)
    delivery = Delivery.objects.get()
    assert (delivery.status, delivery.ended_at is not None, claim(1)) == ("cancelled", True, [])
    assert tallies.totals()[tallies.DELIVERIES, "cancelled"] == 1


def test_what_is_not_yet_queued_never_is(subscription: Subscription, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "ROWS", 2)
    rows = failed(subscription, 6)
    replay = begin(subscription)
    replays.advance()
    assert replays.cancel(replay, by=ALICE)
    work_off()
    assert statuses(rows) == ["failed"] * 6
    assert not replays.advance()


def test_what_was_attempted_or_is_in_flight_stays_when_it_is_cancelled(subscription: Subscription) -> None:
    failed(subscription, 5)
    replay = begin(subscription)
    work_off()
    flying, lost, retrying, delivered = (each.delivery_id for each in claim(4))
    Delivery.objects.filter(pk=lost).update(leased_until=Now() - HOUR)
    Delivery.objects.filter(pk=retrying).update(status="retrying", leased_until=None)
    Delivery.objects.filter(pk=delivered).update(status="delivered", leased_until=None, next_attempt_at=None)
    assert replays.cancel(replay, by=ALICE)
    found = dict(Delivery.objects.values_list("pk", "status"))
    assert [found.pop(pk) for pk in (flying, lost, retrying, delivered)] == [
        "pending",
        "pending",
        "retrying",
        "delivered",
    ]
    assert list(found.values()) == ["failed"]
    replay.refresh_from_db()
    seen = replays.progress(replay)
    assert (seen.delivered, seen.open, seen.taken_back, seen.going_on) == (1, 3, 1, True)


def test_two_cancels_do_one_thing(subscription: Subscription) -> None:
    failed(subscription)
    replay = begin(subscription)
    assert replays.cancel(replay, by=ALICE)
    assert not replays.cancel(replay, by=ALICE)
    assert AuditEntry.objects.filter(action="replay.cancelled").count() == 1


def test_one_that_has_ended_cannot_be_cancelled(subscription: Subscription) -> None:
    failed(subscription)
    replay = begin(subscription)
    work_off()
    Delivery.objects.update(status="delivered", next_attempt_at=None)
    replay.refresh_from_db()
    assert not replays.can_be_cancelled(replay)
    assert not replays.cancel(replay, by=ALICE)


def test_a_worker_takes_back_what_the_request_had_no_time_for(
    subscription: Subscription, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays, "CANCEL_SECONDS", 0.0)
    monkeypatch.setattr(replays, "ROWS", 2)
    rows = failed(subscription, 5)
    replay = begin(subscription)
    work_off()
    assert replays.cancel(replay, by=ALICE)
    replay.refresh_from_db()
    assert replays.progress(replay).going_on
    assert statuses(rows) == ["pending"] * 5
    work_off()
    assert statuses(rows) == ["failed"] * 5
    replay.refresh_from_db()
    assert not replays.progress(replay).going_on


def test_what_somebody_replays_by_itself_is_not_taken_back(subscription: Subscription) -> None:
    rows = failed(subscription, 2)
    replay = begin(subscription)
    work_off()
    deliveries.replay(Delivery.objects.filter(pk=rows[0].pk), by="bob")
    assert replays.cancel(replay, by=ALICE)
    assert statuses(rows) == ["pending", "failed"]


@committed
def test_a_cancel_waits_for_the_step_and_takes_back_what_it_queued(
    subscription: Subscription, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = failed(subscription, 3)
    replay = begin(subscription)
    queue, queued = replays._queue, threading.Event()

    def slow(row: Replay) -> Any:
        done = queue(row)
        queued.set()
        cancelling.wait(5)
        return done

    cancelling = threading.Event()
    monkeypatch.setattr(replays, "_queue", slow)

    def work() -> None:
        replays.advance()
        connections.close_all()

    thread = threading.Thread(target=work)
    thread.start()
    queued.wait(5)
    timer = threading.Timer(0.1, cancelling.set)
    timer.start()
    assert replays.cancel(replay, by=ALICE)
    thread.join()
    timer.join()
    work_off()
    assert statuses(rows) == ["failed"] * 3


def test_a_worker_that_comes_late_cannot_overwrite_what_was_taken_back(subscription: Subscription) -> None:
    failed(subscription)
    replay = begin(subscription)
    work_off()
    late = claim(1)
    let_leases_end()
    deliveries.release(late)
    assert replays.cancel(replay, by=ALICE)
    assert Delivery.objects.get().status == "failed"
    deliveries.release(late)
    delivery = Delivery.objects.get()
    assert (delivery.status, delivery.next_attempt_at) == ("failed", None)


# Progress


def test_progress_is_read_from_the_deliveries(subscription: Subscription) -> None:
    rows = failed(subscription, 5)
    replay = begin(subscription)
    assert (replays.progress(replay).total, replays.progress(replay).done) == (5, 0)
    work_off()
    for row, status in zip(rows, ["delivered", "failed", "retrying"], strict=False):
        Delivery.objects.filter(pk=row.pk).update(status=status)
    deliveries.replay(Delivery.objects.filter(pk=rows[3].pk), by="bob")
    replay.refresh_from_db()
    seen = replays.progress(replay)
    assert (seen.total, seen.done, seen.delivered, seen.failed, seen.open, seen.elsewhere) == (5, 3, 1, 1, 2, 1)
    assert seen.going_on
    Delivery.objects.update(status="delivered")
    after = replays.progress(replay)
    assert (after.done, after.going_on) == (5, False)
    assert after.seen != seen.seen


def test_a_count_ends_where_nobody_wants_to_know_more(
    subscription: Subscription, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays, "MOST", 3)
    failed(subscription, 3)
    assert str(replays.failed_since(subscription)) == "3"
    failed(subscription, 2)
    assert str(replays.failed_since(subscription)) == "more than 3"
    assert replays.failed_since(subscription).in_deliveries == "more than 3 deliveries"
    replay = begin(subscription)
    assert (replay.expected, replays.progress(replay).total) == (None, None)
    work_off()
    replay.refresh_from_db()
    assert replays.progress(replay).total == 5


def test_a_count_ends_when_it_takes_too_long(subscription: Subscription, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "WINDOW", 2)
    failed(subscription, 5)
    wish = replays.wish(subscription.tenant, "filtered")
    assert str(replays.count(wish, patience=60)) == "5"
    assert str(replays.count(wish, patience=0)) == "at least 2"
    none = replays.wish(subscription.tenant, "filtered", filters=DeliveryFilters.from_query({"topic": "rare.*"}))
    assert str(replays.count(none, patience=0)) == "an unknown number of"
    assert replays.count(none, patience=0), "there may be some"


# In the drain


@committed
def test_a_drain_carries_it_out_and_delivers(
    subscription: Subscription, receiver: Receiver, redis_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SIGNALPOST_DATABASES = ["default"]
    monkeypatch.setattr(drain, "_stopping", False)
    monkeypatch.setattr(drain, "_watch", None)
    subscription.url = receiver.url
    subscription.save(update_fields=["url"])
    failed(subscription, 3)
    event(subscription.tenant)
    replay, second = begin(subscription), missed(subscription)
    drain.run()
    assert len(receiver.wait_for(4)) == 4
    for each, number in ((replay, 3), (second, 1)):
        each.refresh_from_db()
        seen = replays.progress(each)
        assert (seen.delivered, seen.going_on) == (number, False)


def test_while_requests_are_in_flight_it_is_not_asked_at_every_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def advance() -> bool:
        asked.append("asked")
        return False

    monkeypatch.setattr(replays, "advance", advance)
    monkeypatch.setattr(drain.Drain, "flying", 3)
    each = drain.Drain()
    for _ in range(5):
        each._replay()
    assert len(asked) == 1
    monkeypatch.setattr(drain.Drain, "flying", 0)
    each._replay()
    assert len(asked) == 2


def test_deleting_the_subscription_takes_its_replays_along(subscription: Subscription) -> None:
    failed(subscription)
    begin(subscription)
    work_off()
    subscription.delete()
    assert not Replay.objects.exists()
    assert not replays.advance()

from __future__ import annotations

import logging
import threading
import time
import tracemalloc
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db import DatabaseError, DataError, IntegrityError, OperationalError, connection, connections, transaction
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from subscriptions.models import Subscription, Tenant, Topic
from tests.servers import wait_for
from tests.traffic import TOPIC, let_leases_end, make_deliveries, make_event
from webhooks import deliveries, tasks, turns
from webhooks.deliveries import cancel, claim, fan_out, relay, replay, requeue
from webhooks.models import Attempt, Delivery, Event

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_django.fixtures import Settings

    Subscribe = Callable[..., Subscription]

pytestmark = pytest.mark.django_db

Status = Delivery.Status
UPDATED = "shop.order.updated"
PAST = timezone.now() - timedelta(days=1)


@pytest.fixture
def subscription(tenant: Tenant, subscribe: Subscribe) -> Subscription:
    return subscribe(tenant, "shop.*")


@pytest.fixture
def rung(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []
    monkeypatch.setattr(tasks, "ring", lambda: calls.append("ring"))
    monkeypatch.setattr(tasks, "silence", lambda: calls.append("silence"))
    return calls


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Callable[[Event, Exception], None]:
    """`poison(event, error)`: the database refuses to fan this one out."""
    insert = deliveries._insert_deliveries

    def refuse(poisoned: Event, error: Exception) -> None:
        def refusing(events: Sequence[Event], *, using: str) -> None:
            if poisoned in events:
                raise error
            insert(events, using=using)

        monkeypatch.setattr(deliveries, "_insert_deliveries", refusing)

    return refuse


# Fan out


def test_an_event_becomes_one_delivery_for_each_that_wants_it(
    tenant: Tenant, subscription: Subscription, make_tenant: Callable[..., Tenant], subscribe: Subscribe
) -> None:
    second = subscribe(tenant, "*", TOPIC)
    subscribe(tenant, "shop.customer.*")
    subscribe(make_tenant("umbrella"), "*")
    event = make_event(tenant)
    assert fan_out() >= 1
    made = Delivery.objects.filter(event=event)
    assert {one.subscription_id for one in made} == {subscription.pk, second.pk}
    for one in made:
        assert (one.tenant_id, one.status, one.lease, one.attempt_count) == (tenant.pk, Status.PENDING, 0, 0)
        assert (one.trigger, one.triggered_by, one.schedule_step) == (Delivery.Trigger.SCHEDULE, "", 0)
        assert one.next_attempt_at is not None
        assert abs(one.next_attempt_at - timezone.now()) < timedelta(seconds=5)
    event.refresh_from_db()
    assert event.fanned_out_at is not None
    assert fan_out() == 0


def test_an_event_that_concerns_every_tenant_goes_to_the_subscriptions_of_all(
    subscription: Subscription, make_tenant: Callable[..., Tenant], subscribe: Subscribe
) -> None:
    other = subscribe(make_tenant("umbrella"), "shop.*")
    make_event(None)
    fan_out()
    made = Delivery.objects.values_list("subscription_id", "tenant_id")
    assert set(made) == {(subscription.pk, subscription.tenant_id), (other.pk, other.tenant_id)}


def test_an_event_that_nobody_wants_is_settled_without_deliveries(tenant: Tenant) -> None:
    make_event(tenant)
    assert fan_out() == 1
    assert not Delivery.objects.exists()


def test_the_oldest_are_fanned_out_first_and_no_more_than_asked_for(tenant: Tenant, subscription: Subscription) -> None:
    events = [make_event(tenant) for _ in range(5)]
    first = sorted(event.pk for event in events)[:3]
    assert fan_out(3) == 3
    assert set(Delivery.objects.values_list("event_id", flat=True)) == set(first)


def test_fanning_out_again_changes_nothing(tenant: Tenant, subscription: Subscription) -> None:
    make_event(tenant)
    fan_out()
    (claimed,) = claim(1)
    Event.objects.update(fanned_out_at=None)
    assert fan_out() == 1
    assert Delivery.objects.get().lease == claimed.lease


def test_ten_thousand_subscriptions_take_one_statement_and_little_memory(
    tenant: Tenant, django_assert_max_num_queries: Any
) -> None:
    made = Subscription.objects.bulk_create(
        [Subscription(tenant=tenant, url="https://receiver.example/") for _ in range(10_000)]
    )
    Topic.objects.bulk_create([Topic(subscription=one, name="shop.*") for one in made])
    Subscription.objects.update(created_at=PAST)
    Event.objects.all().delete()
    make_event(tenant)
    tracemalloc.start()
    with django_assert_max_num_queries(9):
        assert fan_out() == 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000
    assert Delivery.objects.count() == 10_000


def test_a_batch_ends_in_time_for_others_to_write(
    tenant: Tenant, subscription: Subscription, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "FAN_OUT_SECONDS", -1)
    monkeypatch.setattr(deliveries, "MOST_ROWS", 1)
    for _ in range(3):
        make_event(tenant)
    assert [fan_out(), fan_out(), fan_out(), fan_out()] == [1, 1, 1, 0]


def test_events_of_few_subscriptions_take_one_statement(
    tenant: Tenant, make_tenant: Callable[..., Tenant], subscribe: Subscribe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "MOST_ROWS", 4)
    other = make_tenant("umbrella")
    ours, of_status = subscribe(tenant, "shop.*"), subscribe(tenant, UPDATED, changed=("status",))
    theirs = subscribe(other, "*")
    Event.objects.all().delete()
    plain = [make_event(tenant), make_event(other), make_event(tenant)]
    changed = make_event(tenant, topic=UPDATED, changed=["status"])
    for_all = make_event(None)
    with CaptureQueriesContext(connection) as queries:
        assert fan_out() == 5
    inserts = [query for query in queries.captured_queries if "INSERT INTO webhooks_delivery" in query["sql"]]
    # One of all tenants; then two, of any topics, for three and for four subscriptions at most.
    assert len(inserts) == 3
    assert set(Delivery.objects.values_list("event_id", "subscription_id", "tenant_id")) == {
        (plain[0].pk, ours.pk, tenant.pk),
        (plain[1].pk, theirs.pk, other.pk),
        (plain[2].pk, ours.pk, tenant.pk),
        (changed.pk, ours.pk, tenant.pk),
        (changed.pk, of_status.pk, tenant.pk),
        (for_all.pk, ours.pk, tenant.pk),
        (for_all.pk, theirs.pk, other.pk),
    }


def test_deliveries_of_a_tenant_are_numbered_as_its_events_came(
    tenant: Tenant, make_tenant: Callable[..., Tenant], subscribe: Subscribe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "MOST_ROWS", 7)
    other = make_tenant("umbrella")
    for each in (tenant, other):
        subscribe(each, "billing.*")
    made = [make_event((tenant, other)[n % 2], topic=f"billing.kind_{n % 3}.made").pk for n in range(40)]
    assert fan_out() == 40
    for each, expected in ((tenant, made[::2]), (other, made[1::2])):
        assert list(Delivery.objects.for_tenant(each).order_by("pk").values_list("event_id", flat=True)) == expected


@pytest.fixture
def three(make_tenant: Callable[..., Tenant], subscribe: Subscribe) -> list[Tenant]:
    """Tenants with a subscription each."""
    made = [make_tenant(name) for name in ("one", "two", "three")]
    for each in made:
        subscribe(each, "shop.*")
    Event.objects.all().delete()
    return made


def fanned_out() -> Counter[str]:
    """Settled events, by tenant."""
    return Counter(Event.objects.exclude(fanned_out_at=None).values_list("tenant__slug", flat=True))


def test_the_newest_event_of_one_tenant_does_not_wait_for_the_many_of_another(three: list[Tenant]) -> None:
    one, two, _ = three
    old = [make_event(one) for _ in range(30)]
    new = make_event(two)
    assert fan_out(10) == 6
    assert Delivery.objects.filter(event=new).exists()
    assert set(Delivery.objects.exclude(event=new).values_list("event_id", flat=True)) == {
        event.pk for event in sorted(old, key=lambda event: event.pk)[:5]
    }
    assert fan_out(10) == 10


def test_more_tenants_than_a_batch_holds_come_one_after_the_other(three: list[Tenant]) -> None:
    for each in three:
        for _ in range(3):
            make_event(each)
    seen = []
    for _ in range(3):
        assert fan_out(2) == 2
        seen.append(fanned_out())
    assert seen == [{"one": 1, "two": 1}, {"one": 1, "two": 1, "three": 2}, {"one": 2, "two": 2, "three": 2}]


def test_who_was_left_out_for_want_of_time_is_next(three: list[Tenant], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "FAN_OUT_SECONDS", -1)
    monkeypatch.setattr(deliveries, "MOST_ROWS", 1)
    for each in three:
        for _ in range(2):
            make_event(each)
    seen = []
    for _ in range(4):
        assert fan_out() == 1
        seen.append(fanned_out())
    assert seen == [
        {"one": 1},
        {"one": 1, "two": 1},
        {"one": 1, "two": 1, "three": 1},
        {"one": 2, "two": 1, "three": 1},
    ]


def test_who_has_more_than_a_turns_worth_rests_while_others_are_sent(
    three: list[Tenant], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "REST", 1e9)
    one, two, _ = three
    for _ in range(25):
        make_event(one)
    assert fan_out(10, patient=True) == 10
    assert 0 < turns.pause(60.0) <= 60
    assert fan_out(10, patient=True) == 0
    make_event(two)
    assert fan_out(10, patient=True) == 1
    assert fanned_out() == {"one": 10, "two": 1}
    assert fan_out(10) == 10  # with nothing else to do
    assert fan_out(10, patient=True) == 0
    monkeypatch.setattr(turns, "_rest_until", time.monotonic())
    assert turns.pause(60.0) == 0
    assert fan_out(10, patient=True) == 5
    assert turns.pause(60.0) == 60


@pytest.mark.parametrize("how", ["by another worker", "with an error"])
def test_nobody_rests_for_a_backlog_that_is_gone_or_stuck(
    three: list[Tenant], monkeypatch: pytest.MonkeyPatch, poison: Callable[[Event, Exception], None], how: str
) -> None:
    one, *_ = three
    events = [make_event(one) for _ in range(10)]
    assert fan_out(5) == 5
    monkeypatch.setattr(turns, "_rest_until", time.monotonic())
    if how == "by another worker":
        Event.objects.update(fanned_out_at=timezone.now())
    else:
        poison(max(events, key=lambda event: event.pk), IntegrityError())
    fan_out(5, patient=True)
    assert turns.pause(60.0) == 60


def test_events_for_every_tenant_have_a_turn_among_the_others(three: list[Tenant]) -> None:
    one, *_ = three
    for _ in range(10):
        make_event(one)
    for_all = make_event(None)
    fan_out(4)
    assert Delivery.objects.filter(event=for_all).count() == 3
    assert fanned_out() == {"one": 2, None: 1}


def test_whose_turn_it_is_takes_a_few_steps_of_an_index_however_many_events_wait(three: list[Tenant]) -> None:
    one, two, _ = three
    Event.objects.bulk_create(
        [Event(tenant=each, topic=TOPIC, body=b"{}", created_at=PAST) for each in (one, two) for _ in range(2_000)]
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
        explain = "EXPLAIN" if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN"
        whose = turns.tenants(10, using="default")
        query, parameters = turns._oldest(whose, 5, using="default")
        for statement, values in ((turns.TENANTS, [turns.BEFORE_ALL, 10]), (query, parameters)):
            cursor.execute(f"{explain} {statement}", values)
            plan = " ".join(str(value) for row in cursor.fetchall() for value in row)
            assert "event_turn" in plan
            assert "Seq Scan on webhooks_event" not in plan
            assert "SCAN webhooks_event" not in plan.replace("SCAN webhooks_event USING COVERING INDEX event_turn", "")


def test_an_event_that_cannot_be_matched_is_set_aside_and_says_why(
    tenant: Tenant, subscription: Subscription, caplog: pytest.LogCaptureFixture
) -> None:
    before, broken, after = (make_event(tenant), make_event(tenant, changed=5), make_event(tenant))
    assert fan_out() == 3
    assert set(Delivery.objects.values_list("event_id", flat=True)) == {before.pk, after.pk}
    broken.refresh_from_db()
    assert broken.error == "It could not be matched with subscriptions: TypeError"
    assert broken.fanned_out_at is not None
    assert str(broken.pk) in caplog.text


def test_data_that_the_database_never_takes_is_set_aside(
    tenant: Tenant, poison: Callable[[Event, Exception], None]
) -> None:
    event = make_event(tenant)
    poison(event, DataError("a NUL"))
    assert fan_out() == 1
    event.refresh_from_db()
    assert event.error.endswith("DataError")


def test_what_the_database_refuses_for_now_waits_and_holds_up_nobody(
    tenant: Tenant,
    subscription: Subscription,
    poison: Callable[[Event, Exception], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = sorted((make_event(tenant) for _ in range(2)), key=lambda event: event.pk)
    poison(first, IntegrityError("a subscription that is just being deleted"))
    assert fan_out() == 1
    assert Delivery.objects.get().event_id == second.pk
    assert fan_out(1) == 0
    monkeypatch.undo()
    assert fan_out() == 1
    assert Delivery.objects.filter(event=first).exists()


def test_one_by_one_it_also_stops_at_the_limit(
    tenant: Tenant, subscription: Subscription, poison: Callable[[Event, Exception], None]
) -> None:
    events = sorted((make_event(tenant) for _ in range(4)), key=lambda event: event.pk)
    poison(events[0], IntegrityError())
    assert fan_out(2) == 2
    assert Event.objects.filter(fanned_out_at=None).count() == 2


@pytest.mark.parametrize("moment", ["the batch", "one by one"])
def test_a_database_that_is_away_is_raised(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch, poison: Callable[[Event, Exception], None], moment: str
) -> None:
    event = make_event(tenant)
    poison(event, OperationalError("gone"))
    answers = iter([True, False] if moment == "one by one" else [False])
    monkeypatch.setattr(deliveries, "away", lambda error, alias: not next(answers))
    with pytest.raises(OperationalError):
        fan_out()
    event.refresh_from_db()
    assert (event.fanned_out_at, event.error) == (None, "")


def test_away_means_the_connection_and_on_sqlite_every_refusal() -> None:
    refused = OperationalError("locked")
    assert deliveries.away(refused, "default") is (connection.vendor == "sqlite")
    assert not deliveries.away(IntegrityError(), "default")
    assert not deliveries.away(ValueError(), "default")


@pytest.mark.parametrize(
    ("code", "away"),
    [
        ("25006", True),  # read only
        ("53100", True),  # disk full
        ("53300", True),  # too many connections
        ("58030", True),  # I/O
        ("22001", False),  # too long a value
        ("40P01", False),  # deadlock
        (None, False),
    ],
)
def test_a_server_that_takes_nothing_from_anybody_is_away(code: str | None, *, away: bool) -> None:
    cause = Exception()
    cause.sqlstate = code  # type: ignore[attr-defined]
    error = DatabaseError()
    error.__cause__ = cause
    connection.ensure_connection()
    assert deliveries.away(error, "default") is away


@pytest.mark.django_db(transaction=True)
def test_a_connection_that_is_gone_is_away() -> None:
    connection.close()
    assert deliveries.away(IntegrityError(), "default")


@pytest.mark.django_db(transaction=True)
def test_two_drains_share_the_events(tenant: Tenant, subscription: Subscription) -> None:
    if not connection.features.has_select_for_update_skip_locked:
        pytest.skip("SQLite lets one write at a time")
    locked, free = sorted((make_event(tenant) for _ in range(2)), key=lambda event: event.pk)
    settled: list[int] = []

    def other_drain() -> None:
        try:
            settled.append(fan_out())
        finally:
            connections.close_all()

    with transaction.atomic():
        Event.objects.select_for_update().get(pk=locked.pk)
        thread = threading.Thread(target=other_drain)
        thread.start()
        thread.join(10)
        assert settled == [1]
        assert Delivery.objects.get().event_id == free.pk
    assert fan_out() == 1


# Events of other databases


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
class TestRelay:
    def test_events_come_home_and_go_out(self, tenant: Tenant, subscription: Subscription) -> None:
        away = make_event(tenant, using="other", changed=["status"])
        assert relay() == 1
        at_home = Event.objects.get(pk=away.pk)
        assert (at_home.topic, bytes(at_home.body), at_home.changed) == (away.topic, away.body, ["status"])
        assert at_home.created_at == away.created_at
        assert at_home.fanned_out_at is None
        assert relay() == 0
        assert fan_out() == 1
        assert Delivery.objects.get().event_id == away.pk

    def test_a_crash_between_the_two_commits_carries_it_twice_and_delivers_it_once(
        self, tenant: Tenant, subscription: Subscription, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        away = make_event(tenant, using="other")
        with monkeypatch.context() as patch:
            # The first thing after the commit at home.
            def crash(*args: Any, **kwargs: Any) -> None:
                assert Event.objects.filter(pk=away.pk).exists()
                raise KeyboardInterrupt

            patch.setattr(deliveries, "Now", crash)
            with pytest.raises(KeyboardInterrupt):
                relay()
        assert Event.objects.using("other").get().fanned_out_at is None
        fan_out()
        assert relay() == 1
        assert fan_out() == 0
        assert Delivery.objects.count() == 1

    def test_no_more_than_asked_for_at_once(self, tenant: Tenant) -> None:
        for _ in range(3):
            make_event(tenant, using="other")
        assert [relay(2), relay(2), relay(2)] == [2, 1, 0]

    def test_what_cannot_be_sent_stays_where_it_is(self, tenant: Tenant) -> None:
        make_event(tenant, using="other", body=b"", error="Too large.", fanned_out_at=timezone.now())
        assert relay() == 0

    def test_a_database_that_is_away_is_left_alone_for_a_while(
        self, tenant: Tenant, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(deliveries, "_unreadable_until", {})
        make_event(tenant, using="other")
        with monkeypatch.context() as patch:
            patch.setattr(deliveries, "carry", _refuse)
            connection.ensure_connection()
            assert relay() == 0
            assert relay() == 0
        assert relay() == 0
        assert len(caplog.records) == 1
        deliveries._unreadable_until.clear()
        assert relay() == 1

    def test_when_home_is_away_it_is_raised(self, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(deliveries, "carry", _refuse)
        monkeypatch.setattr(deliveries, "_usable", lambda alias: False)
        with pytest.raises(OperationalError):
            relay()

    def test_a_second_name_for_home_is_not_carried_from(
        self, tenant: Tenant, subscription: Subscription, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(
            connections.settings, "other", {**connections.settings["other"], "NAME": connection.settings_dict["NAME"]}
        )
        monkeypatch.setitem(connections["other"].settings_dict, "NAME", connection.settings_dict["NAME"])
        make_event(tenant)
        assert relay() == 0
        assert fan_out() == 1


def _refuse(*args: Any) -> int:
    raise OperationalError("away")


# Replay, cancel, requeue


@pytest.mark.parametrize("status", Status.values)
def test_a_replay_is_a_fresh_start_of_the_same_delivery_from_every_status(
    subscription: Subscription, status: str, rung: list[str], django_capture_on_commit_callbacks: Any
) -> None:
    (delivery,) = make_deliveries(
        subscription,
        status=status,
        ended_at=timezone.now(),
        attempt_count=3,
        schedule_step=3,
        lease=3,
        next_attempt_at=timezone.now() + timedelta(hours=5),
    )
    with django_capture_on_commit_callbacks(execute=True):
        assert replay(Delivery.objects.all(), by="alice") == 1
    assert rung == ["ring"]
    delivery.refresh_from_db()
    assert (delivery.status, delivery.ended_at, delivery.schedule_step) == (Status.PENDING, None, 0)
    (claimed,) = claim(1)
    assert (claimed.webhook_id, claimed.number, claimed.step) == (delivery.event.webhook_id, 4, 0)
    attempt = Attempt.objects.get()
    assert (attempt.trigger, attempt.triggered_by) == (Delivery.Trigger.MANUAL, "alice")


def test_a_replay_touches_only_what_was_chosen_and_nothing_in_flight(
    subscription: Subscription, rung: list[str]
) -> None:
    chosen, flying, other = make_deliveries(subscription, 3, status=Status.FAILED, next_attempt_at=None)
    Delivery.objects.filter(pk=flying.pk).update(leased_until=Now() + timedelta(minutes=1))
    assert replay(Delivery.objects.filter(pk__in=[chosen.pk, flying.pk]), by="command") == 1
    statuses = dict(Delivery.objects.values_list("pk", "status"))
    assert statuses == {chosen.pk: Status.PENDING, flying.pk: Status.FAILED, other.pk: Status.FAILED}


def test_a_replay_takes_any_queryset(subscription: Subscription, rung: list[str]) -> None:
    make_deliveries(subscription, 5, status=Status.FAILED, next_attempt_at=None)
    joined = Delivery.objects.filter(event__topic=TOPIC).select_related("event").order_by("-event__created_at")
    assert replay(joined[:2], by="alice") == 2
    assert replay(joined.distinct(), by="a name of more than 150 letters" * 10) == 5
    assert replay(Delivery.objects.none(), by="alice") == 0
    assert rung == []


def test_a_worker_whose_lease_ran_out_before_the_replay_cannot_hand_it_back(
    subscription: Subscription, rung: list[str]
) -> None:
    make_deliveries(subscription)
    late = claim(1)
    let_leases_end()
    replay(Delivery.objects.all(), by="alice")
    deliveries.release(late)
    delivery = Delivery.objects.get()
    assert (delivery.lease, delivery.attempt_count) == (2, 1)
    (claimed,) = claim(1)
    assert (claimed.lease, claimed.number) == (3, 2)
    assert Attempt.objects.get(number=1).reason == Attempt.Reason.LOST


def test_what_is_open_is_cancelled_and_what_has_ended_or_is_in_flight_is_not(subscription: Subscription) -> None:
    pending, retrying, flying = make_deliveries(subscription, 3)
    (failed,) = make_deliveries(subscription, status=Status.FAILED, next_attempt_at=None)
    Delivery.objects.filter(pk=retrying.pk).update(status=Status.RETRYING)
    Delivery.objects.filter(pk=flying.pk).update(leased_until=Now() + timedelta(minutes=1))
    assert cancel(Delivery.objects.all()) == 2
    statuses = dict(Delivery.objects.values_list("pk", "status"))
    assert statuses == {
        pending.pk: Status.CANCELLED,
        retrying.pk: Status.CANCELLED,
        flying.pk: Status.PENDING,
        failed.pk: Status.FAILED,
    }
    pending.refresh_from_db()
    assert (pending.next_attempt_at, pending.leased_until) == (None, None)
    assert pending.ended_at is not None
    assert claim(10) == []


def test_requeue_rings_anew_and_mends_what_is_stuck(
    tenant: Tenant, subscription: Subscription, rung: list[str], django_capture_on_commit_callbacks: Any
) -> None:
    unmatched = make_event(tenant, error=f"{deliveries.UNMATCHED}TypeError", fanned_out_at=timezone.now())
    too_large = make_event(tenant, error="The body is too large.", fanned_out_at=timezone.now())
    make_deliveries(subscription)
    make_deliveries(subscription, status=Status.RETRYING, next_attempt_at=None)
    make_deliveries(subscription, status=Status.RETRYING, next_attempt_at=timezone.now() + timedelta(hours=1))
    with django_capture_on_commit_callbacks(execute=True):
        counts = requeue()
    assert rung == ["silence", "ring"]
    assert counts == {"events": 1, "deliveries": 2}
    unmatched.refresh_from_db()
    too_large.refresh_from_db()
    assert (unmatched.error, unmatched.fanned_out_at) == ("", None)
    assert too_large.error
    assert too_large.fanned_out_at is not None


def test_a_batch_that_was_refused_says_so(
    tenant: Tenant,
    subscription: Subscription,
    poison: Callable[[Event, Exception], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    poison(make_event(tenant), IntegrityError("busy"))
    with caplog.at_level(logging.WARNING):
        fan_out()
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]


def test_only_listed_databases_are_carried_from(tenant: Tenant, settings: Settings) -> None:
    settings.SIGNALPOST_DATABASES = ["default"]
    assert relay() == 0


# Deleting what has traffic


def waits_for_a_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")  # a transaction sees one otherwise
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(cursor.fetchone()[0])


def claim_some() -> object:
    return claim(10)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("busy", "delete"),
    [
        (claim_some, lambda: Subscription.objects.get().delete()),
        (claim_some, lambda: Subscription.objects.all().delete()),
        (claim_some, lambda: Tenant.objects.get().delete()),
        (claim_some, lambda: Tenant.objects.all().delete()),
        (fan_out, lambda: Tenant.objects.get().delete()),
    ],
)
def test_what_a_worker_is_just_busy_with_can_be_deleted(
    tenant: Tenant, subscription: Subscription, busy: Callable[[], object], delete: Callable[[], object]
) -> None:
    if not connection.features.has_select_for_update:
        pytest.skip("SQLite has one writer at a time")
    make_deliveries(subscription, 3)
    make_event(tenant)
    errors: list[Exception] = []

    def delete_meanwhile() -> None:
        try:
            delete()
        except Exception as error:  # noqa: BLE001 - shown by the test
            errors.append(error)
        finally:
            connections.close_all()

    with transaction.atomic():
        assert busy()
        thread = threading.Thread(target=delete_meanwhile)
        thread.start()
        wait_for(waits_for_a_lock)
    thread.join(10)
    assert errors == []
    assert not Subscription.objects.exists()
    assert not Delivery.objects.exists()
    assert not Attempt.objects.exists()

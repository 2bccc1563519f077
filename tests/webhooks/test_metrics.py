from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import OperationalError, connections
from django.db.models.functions import Now
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from subscriptions.models import Subscription
from tests.traffic import make_deliveries, make_event
from webhooks import claims, deliveries, metrics, tallies
from webhooks.models import Attempt, Delivery, Event, Throttle, new_event_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_django import DjangoAssertNumQueries
    from pytest_django.fixtures import Settings

    from subscriptions.models import Tenant

    Subscribe = Callable[..., Subscription]
    Samples = dict[tuple[str, str], float]

pytestmark = pytest.mark.django_db

TOKEN = "k0n3b7LtDqvJb1vYk1mN5eGfO1q0x2s8pZ4w6yRzTac"


@pytest.fixture(autouse=True)
def one_database(settings: Settings) -> None:
    settings.SIGNALPOST_DATABASES = ["default"]
    tallies._noted.clear()


def read() -> Samples:
    """As Prometheus reads it: (name, value of the label) → number."""
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(metrics.exposition())
        for sample in family.samples
    }


def get(path: str = "/metrics", **headers: str) -> Any:
    return Client().get(path, headers=headers)


def make_user(**fields: Any) -> User:
    return User.objects.create_user("ann", password="pw", **fields)


def permit(user: User) -> None:
    user.user_permissions.add(Permission.objects.get(codename="view_metrics"))


def as_(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


# Who may read them


def test_staff_who_may_read_them_can() -> None:
    user = make_user(is_staff=True)
    permit(user)
    response = as_(user).get("/metrics")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "no-store" in response.headers["Cache-Control"]


@pytest.mark.parametrize(("staff", "permitted"), [(True, False), (False, True)])
def test_to_all_others_there_is_nothing(staff: bool, permitted: bool) -> None:
    user = make_user(is_staff=staff)
    if permitted:
        permit(user)
    assert as_(user).get("/metrics").status_code == 404
    assert get().status_code == 404


def test_the_token_opens_without_a_session(settings: Settings) -> None:
    settings.SIGNALPOST_METRICS_TOKEN = TOKEN
    assert get(authorization=f"Bearer {TOKEN}").status_code == 200
    assert get(authorization=f"bearer {TOKEN}").status_code == 200


@pytest.mark.parametrize("sent", ["Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, "Bearer ключ"])
def test_a_wrong_token_is_refused(settings: Settings, sent: str) -> None:
    settings.SIGNALPOST_METRICS_TOKEN = TOKEN
    response = get(authorization=sent)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("sent", ["Bearer", "Bearer ", "Bearer x"])
def test_without_a_token_in_the_settings_none_opens(settings: Settings, sent: str) -> None:
    settings.SIGNALPOST_METRICS_TOKEN = ""
    assert get(authorization=sent).status_code == 401


def test_a_wrong_token_is_not_made_good_by_a_session(settings: Settings) -> None:
    settings.SIGNALPOST_METRICS_TOKEN = TOKEN
    client = as_(make_user(is_staff=True, is_superuser=True))
    assert client.get("/metrics", headers={"authorization": "Bearer x"}).status_code == 401


def test_they_are_only_read(settings: Settings) -> None:
    settings.SIGNALPOST_METRICS_TOKEN = TOKEN
    assert Client().post("/metrics", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 405


def test_a_database_that_is_away_is_said_without_its_name(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> str:
        raise OperationalError("connection to server at db.example failed")

    settings.SIGNALPOST_METRICS_TOKEN = TOKEN
    monkeypatch.setattr(metrics, "exposition", refuse)
    response = get(authorization=f"Bearer {TOKEN}")
    assert response.status_code == 503
    assert b"db.example" not in response.content


# What they say


def test_before_anything_has_happened_every_counter_is_there_and_nought() -> None:
    samples = read()
    assert set(samples.values()) == {0.0}
    for reason in Attempt.Reason.values:
        assert ("signalpost_attempts_failed_total", reason) in samples
    for status in ("delivered", "failed", "cancelled"):
        assert ("signalpost_deliveries_ended_total", status) in samples
    assert ("signalpost_worker_looked_seconds", "") not in samples


def test_every_count_is_shown() -> None:
    counts = {
        (tallies.ATTEMPTS, tallies.DELIVERED): 5,
        (tallies.ATTEMPTS, "timeout"): 2,
        (tallies.DELIVERIES, "cancelled"): 3,
        (tallies.DRAINS, tallies.COUNT): 4,
        (tallies.DRAINS, tallies.SECONDS): 1.5,
        (tallies.LEASES, tallies.EXPIRED): 6,
        (tallies.LOOKS, tallies.COUNT): 1,
        (tallies.SUBSCRIPTIONS, tallies.TURNED_OFF): 7,
    }
    tallies.add(counts, using="default")
    samples = read()
    assert samples["signalpost_attempts_delivered_total", ""] == 5
    assert samples["signalpost_attempts_failed_total", "timeout"] == 2
    assert samples["signalpost_deliveries_ended_total", "cancelled"] == 3
    assert samples["signalpost_drain_seconds_sum", ""] == 1.5
    assert samples["signalpost_drain_seconds_count", ""] == 4
    assert samples["signalpost_leases_expired_total", ""] == 6
    assert samples["signalpost_subscriptions_turned_off_total", ""] == 7
    assert 0 <= samples["signalpost_worker_looked_seconds", ""] < 60


def test_events_are_captured_before_they_are_fanned_out_and_stay_so(tenant: Tenant) -> None:
    for _ in range(3):
        make_event(tenant)
    before = read()
    deliveries.fan_out(limit=2)
    after = read()
    name = "signalpost_events_captured_total", ""
    assert before[name] == after[name] == 3
    assert [each["signalpost_events_fanned_out_total", ""] for each in (before, after)] == [0, 2]
    assert [each["signalpost_events_waiting", ""] for each in (before, after)] == [3, 1]


def test_the_age_of_the_oldest_event_is_since_it_was_written(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    written = new_event_id()
    make_event(tenant, id=written, created_at=timezone.now() - timedelta(days=365))
    monkeypatch.setattr(time, "time", lambda: (written.int >> 80) / 1000 + 42.0)
    assert read()["signalpost_events_oldest_waiting_seconds", "default"] == pytest.approx(42.0)


@pytest.mark.django_db(databases="__all__")
def test_events_that_wait_on_another_database_are_seen(tenant: Tenant, settings: Settings) -> None:
    settings.SIGNALPOST_DATABASES = ["default", "other"]
    Event.objects.using("other").create(tenant_id=tenant.pk, topic="a.b", body=b"{}", created_at=timezone.now())
    samples = read()
    assert samples["signalpost_events_oldest_waiting_seconds", "other"] > 0
    assert samples["signalpost_events_oldest_waiting_seconds", "default"] == 0


@pytest.mark.django_db(databases="__all__", transaction=True)
def test_another_database_that_is_away_is_left_out(settings: Settings) -> None:
    settings.SIGNALPOST_DATABASES = ["default", "other"]

    def away(*args: Any) -> None:
        raise OperationalError("away")

    with connections["other"].execute_wrapper(away):
        samples = read()
    assert ("signalpost_events_oldest_waiting_seconds", "other") not in samples
    assert ("signalpost_events_oldest_waiting_seconds", "default") in samples
    with connections["default"].execute_wrapper(away), pytest.raises(OperationalError):
        read()


def test_open_deliveries_are_counted_by_status_and_up_to_a_bound(
    tenant: Tenant, subscribe: Subscribe, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription = subscribe(tenant, "*")
    make_deliveries(subscription, 3)
    make_deliveries(subscription, 2, status="retrying")
    make_deliveries(subscription, 4, status="delivered", next_attempt_at=None)
    samples = read()
    assert samples["signalpost_deliveries_open", "pending"] == 3
    assert samples["signalpost_deliveries_open", "retrying"] == 2
    monkeypatch.setattr(metrics, "MOST", 4)
    samples = read()
    assert samples["signalpost_deliveries_open", "pending"] + samples["signalpost_deliveries_open", "retrying"] == 4


def test_what_a_worker_holds_is_in_flight_and_no_longer_due(tenant: Tenant, subscribe: Subscribe) -> None:
    make_deliveries(subscribe(tenant, "*"), 3)
    make_deliveries(subscribe(tenant, "*"), 2, status="retrying", next_attempt_at=Now() + timedelta(seconds=20))
    before = read()
    assert len(claims.claim(10)) == 3
    after = read()
    assert [each["signalpost_deliveries_in_flight", ""] for each in (before, after)] == [0, 3]
    assert before["signalpost_deliveries_oldest_due_seconds", ""] >= 1
    assert after["signalpost_deliveries_oldest_due_seconds", ""] == 0


def test_a_lease_that_is_over_is_due_and_not_in_flight(tenant: Tenant, subscribe: Subscribe) -> None:
    make_deliveries(subscribe(tenant, "*"), 1)
    claims.claim(1)
    past = Now() - timedelta(seconds=100)
    Delivery.objects.update(leased_until=past, next_attempt_at=past)
    samples = read()
    assert samples["signalpost_deliveries_in_flight", ""] == 0
    assert samples["signalpost_deliveries_oldest_due_seconds", ""] == pytest.approx(100, abs=30)


def test_what_waits_for_its_receiver_does_not_make_the_workers_late(tenant: Tenant, subscribe: Subscribe) -> None:
    off, failing = subscribe(tenant, "*"), subscribe(tenant, "*")
    long_ago = Now() - timedelta(hours=1)
    for subscription in (off, failing):
        make_deliveries(subscription, 1, next_attempt_at=long_ago)
    off.disable(reason="")
    Throttle.objects.create(subscription=failing, failures=10, probe_at=Now() + timedelta(seconds=60))
    assert read()["signalpost_deliveries_oldest_due_seconds", ""] == 0


def test_open_breakers_and_subscriptions_that_are_off_are_counted(tenant: Tenant, subscribe: Subscribe) -> None:
    on, failing, off = (subscribe(tenant, "*") for _ in range(3))
    for subscription, probe_at in ((on, None), (failing, Now()), (off, Now())):
        Throttle.objects.create(subscription=subscription, failures=10, probe_at=probe_at)
    off.disable(reason="")
    samples = read()
    assert samples["signalpost_breakers_open", ""] == 1
    assert samples["signalpost_subscriptions", "on"] == 2
    assert samples["signalpost_subscriptions", "off"] == 1


def test_no_label_and_no_text_is_a_tenants(tenant: Tenant, subscribe: Subscribe) -> None:
    subscription = subscribe(tenant, "shop.*", url="https://billing.example/in")
    make_deliveries(subscription, 2)
    make_event(tenant)
    text = metrics.exposition()
    assert "billing.example" not in text
    assert tenant.slug not in text
    assert "shop." not in text


def test_a_scrape_takes_as_many_queries_whatever_there_is(
    tenant: Tenant, subscribe: Subscribe, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(8):
        metrics.exposition()
    for _ in range(3):
        make_deliveries(subscribe(tenant, "*"), 20)
        make_event(tenant)
    with django_assert_num_queries(8):
        metrics.exposition()


@pytest.mark.skipif("connections['default'].vendor != 'sqlite'", reason="PostgreSQL may know of a better way")
def test_a_backlog_is_counted_in_an_index_alone(tenant: Tenant, subscribe: Subscribe) -> None:
    make_deliveries(subscribe(tenant, "*"), 50)
    with CaptureQueriesContext(connections["default"]) as queries:
        metrics.exposition()
    (counting,) = [query["sql"] for query in queries.captured_queries if "SELECT status, count(*)" in query["sql"]]
    with connections["default"].cursor() as cursor:
        cursor.execute(f"EXPLAIN QUERY PLAN {counting}")
        assert "USING COVERING INDEX delivery_due" in str(cursor.fetchall())


@pytest.mark.skipif("connections['default'].vendor != 'postgresql'", reason="SQLite explains otherwise")
def test_no_query_walks_through_all_deliveries_or_attempts(tenant: Tenant, subscribe: Subscribe) -> None:
    subscription = subscribe(tenant, "*")
    make_deliveries(subscription, 5_000, status="delivered", next_attempt_at=None)
    make_deliveries(subscription, 20)
    plans: list[str] = []

    def explain(execute: Any, sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        with context["connection"].cursor().cursor as cursor:
            cursor.execute(f"EXPLAIN {sql}", params)
            plans.append("\n".join(row for (row,) in cursor.fetchall()))
        return execute(sql, params, many, context)

    with connections["default"].cursor() as cursor:
        cursor.execute("ANALYZE webhooks_delivery")
    with connections["default"].execute_wrapper(explain):
        metrics.exposition()
    assert len(plans) == 8
    assert not [plan for plan in plans if "Seq Scan on webhooks_delivery" in plan or "webhooks_attempt" in plan]

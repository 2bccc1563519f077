from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection, connections, transaction
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from tests.traffic import let_leases_end, make_deliveries
from webhooks import claims, cron, deliveries, recording, rollups, tasks
from webhooks.models import BUCKETS_MS, Attempt, Delivery, Rollup
from webhooks.recording import Outcome
from webhooks.rollups import DAY, HOUR

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_django import DjangoAssertNumQueries
    from pytest_django.fixtures import Settings

    from subscriptions.models import Subscription, Tenant
    from webhooks.claims import Claim

    Subscribe = Callable[..., Subscription]

pytestmark = pytest.mark.django_db

Reason = Attempt.Reason


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    settings.SIGNALPOST_DATABASES = ["default"]
    monkeypatch.setattr(tasks, "ring", lambda: False)


@pytest.fixture
def subscription(tenant: Tenant, subscribe: Subscribe) -> Subscription:
    return subscribe(tenant)


def came(claim: Claim, reason: Reason | str = "", *, ms: int = 30, sent: bool = True) -> tuple[Claim, Outcome]:
    status = 200 if not reason else 500 if reason == Reason.STATUS else None
    return claim, Outcome(
        url=claim.url, duration_ms=ms, sent=sent, reason=Reason(reason) if reason else "", status=status
    )


def again_now() -> None:
    past = timezone.now() - timedelta(seconds=1)
    Delivery.objects.open().update(next_attempt_at=past)


def counted(subscription: Subscription) -> tuple[int, ...]:
    """Attempts, delivered, at first, failed: of its one hour."""
    row = Rollup.objects.get(subscription=subscription, span="hour")
    return row.attempts, row.delivered, row.at_first, row.failed


def took(subscription: Subscription) -> list[int]:
    row = Rollup.objects.get(subscription=subscription, span="hour")
    return [getattr(row, f"took_{n}") for n in range(len(BUCKETS_MS) + 1)]


class TestCounting:
    def test_a_batch_is_counted_in_this_hour_of_utc(self, subscription: Subscription) -> None:
        make_deliveries(subscription, 3)
        one, two, three = deliveries.claim(10)
        before = timezone.now()
        recording.record([came(one), came(two), came(three, Reason.STATUS)])
        row = Rollup.objects.get()
        begins = {when.astimezone(UTC).replace(minute=0, second=0, microsecond=0) for when in (before, timezone.now())}
        assert row.starts_at in begins
        assert counted(subscription) == (3, 2, 2, 0)

    def test_what_comes_later_in_the_hour_is_added(self, subscription: Subscription) -> None:
        for number in (1, 2, 3):
            make_deliveries(subscription, number)
            recording.record([came(claim) for claim in deliveries.claim(10)])
        assert counted(subscription) == (6, 6, 6, 0)

    def test_each_subscription_has_its_own(self, tenant: Tenant, subscribe: Subscribe) -> None:
        first, second = subscribe(tenant), subscribe(tenant)
        make_deliveries(first, 2)
        make_deliveries(second, 1)
        recording.record(
            [
                came(claim, "" if claim.subscription_id == first.pk else Reason.TIMEOUT, ms=20_500)
                for claim in deliveries.claim(10)
            ]
        )
        assert counted(first) == (2, 2, 2, 0)
        assert counted(second) == (1, 0, 0, 0)
        assert took(second)[-1] == 1

    def test_what_arrives_by_a_retry_did_not_arrive_at_first(self, subscription: Subscription) -> None:
        make_deliveries(subscription)
        recording.record([came(claim, Reason.STATUS) for claim in deliveries.claim(1)])
        again_now()
        recording.record([came(claim) for claim in deliveries.claim(1)])
        assert counted(subscription) == (2, 1, 0, 0)

    def test_what_is_given_up_on_has_failed(self, subscription: Subscription, settings: Settings) -> None:
        settings.SIGNALPOST_RETRY_SCHEDULE = []
        make_deliveries(subscription)
        recording.record([came(claim, Reason.STATUS) for claim in deliveries.claim(1)])
        assert counted(subscription) == (1, 0, 0, 1)

    def test_to_record_the_same_again_counts_nothing(self, subscription: Subscription) -> None:
        make_deliveries(subscription, 2)
        one, two = deliveries.claim(2)
        for _ in range(2):
            recording.record([came(one), came(two, Reason.STATUS)])
        assert counted(subscription) == (2, 1, 1, 0)
        assert sum(took(subscription)) == 2

    def test_what_is_rolled_back_is_not_counted(self, subscription: Subscription) -> None:
        make_deliveries(subscription)
        with transaction.atomic():
            recording.record([came(claim) for claim in deliveries.claim(1)])
            transaction.set_rollback(True)
        assert not Rollup.objects.exists()

    def test_a_lost_attempt_counts_when_it_is_found(self, subscription: Subscription) -> None:
        make_deliveries(subscription)
        deliveries.claim(1)
        let_leases_end()
        (claim,) = deliveries.claim(1)
        assert counted(subscription) == (1, 0, 0, 0)
        assert sum(took(subscription)) == 0
        recording.record([came(claim)])
        assert counted(subscription) == (2, 1, 0, 0)

    def test_a_success_that_comes_late_is_no_second_attempt(self, subscription: Subscription) -> None:
        make_deliveries(subscription)
        (late,) = deliveries.claim(1)
        let_leases_end()
        deliveries.claim(1)
        recording.record([came(late)])
        assert counted(subscription) == (1, 1, 1, 0)

    def test_a_late_failure_changes_nothing(self, subscription: Subscription) -> None:
        make_deliveries(subscription)
        (late,) = deliveries.claim(1)
        let_leases_end()
        (claim,) = deliveries.claim(1)
        recording.record([came(claim)])
        recording.record([came(late, Reason.STATUS)])
        assert counted(subscription) == (2, 1, 0, 0)

    def test_a_delivery_that_arrives_twice_counts_as_two_attempts_and_one_delivery(
        self, subscription: Subscription
    ) -> None:
        make_deliveries(subscription)
        (first,) = deliveries.claim(1)
        Delivery.objects.update(leased_until=None, next_attempt_at=timezone.now() - timedelta(seconds=1))
        Attempt.objects.update(number=7)  # so that it is not taken for lost
        Delivery.objects.update(attempt_count=7)
        (second,) = deliveries.claim(1)
        recording.record([came(first), came(second)])
        attempts, delivered, _, _ = counted(subscription)
        assert (attempts, delivered) == (2, 1)

    def test_what_stops_every_worker_has_failed(self, subscription: Subscription) -> None:
        make_deliveries(subscription)
        for _ in range(claims.LOST_LIMIT):
            assert deliveries.claim(1)
            let_leases_end()
        assert deliveries.claim(1) == []
        assert counted(subscription) == (claims.LOST_LIMIT, 0, 0, 1)

    def test_a_replay_that_arrives_is_delivered_once_more(self, subscription: Subscription) -> None:
        make_deliveries(subscription)
        recording.record([came(claim) for claim in deliveries.claim(1)])
        deliveries.replay(Delivery.objects.all(), by="alice")
        again_now()
        recording.record([came(claim) for claim in deliveries.claim(1)])
        assert counted(subscription) == (2, 2, 1, 0)

    @pytest.mark.parametrize(
        ("ms", "bucket"), [(0, 0), (10, 0), (11, 1), (100, 3), (101, 4), (20_000, 10), (20_001, 11), (900_000, 11)]
    )
    def test_a_bucket_reaches_up_to_its_bound(self, subscription: Subscription, ms: int, bucket: int) -> None:
        make_deliveries(subscription)
        recording.record([came(claim, ms=ms) for claim in deliveries.claim(1)])
        assert took(subscription) == [int(n == bucket) for n in range(len(BUCKETS_MS) + 1)]

    def test_what_never_left_took_no_time(self, subscription: Subscription) -> None:
        make_deliveries(subscription)
        recording.record([came(claim, Reason.DNS, ms=5_000, sent=False) for claim in deliveries.claim(1)])
        assert counted(subscription) == (1, 0, 0, 0)
        assert sum(took(subscription)) == 0

    def test_a_batch_costs_one_statement_more_however_many_subscriptions(
        self, tenant: Tenant, subscribe: Subscribe, django_assert_num_queries: DjangoAssertNumQueries
    ) -> None:
        def statements(subscriptions: int) -> int:
            Rollup.objects.all().delete()
            for _ in range(subscriptions):
                make_deliveries(subscribe(tenant), 2)
            results = [came(claim) for claim in deliveries.claim(100)]
            with django_assert_num_queries(ANY) as captured:
                recording.record(results)
            assert Rollup.objects.count() == subscriptions
            return len(captured)

        assert statements(2) == statements(20)


class _Any:
    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


ANY: Any = _Any()


@pytest.mark.django_db(transaction=True)
def test_two_workers_that_record_for_the_same_subscriptions_do_not_deadlock(
    tenant: Tenant, subscribe: Subscribe
) -> None:
    subscriptions = [subscribe(tenant) for _ in range(8)]
    for subscription in subscriptions:
        make_deliveries(subscription, 10)
    taken = deliveries.claim(80)
    halves = taken[::2], list(reversed(taken[1::2]))
    errors: list[BaseException] = []

    def work(mine: Sequence[Claim]) -> None:
        try:
            for start in range(0, len(mine), 8):
                recording.record([came(claim) for claim in mine[start : start + 8]])
        except BaseException as error:  # noqa: BLE001 - told below
            errors.append(error)
        finally:
            connections.close_all()

    workers = [threading.Thread(target=work, args=(half,)) for half in halves]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not errors
    assert {counted(subscription) for subscription in subscriptions} == {(10, 10, 10, 0)}


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture
def fill(subscription: Subscription) -> Callable[..., Rollup]:
    def make(starts_at: datetime, span: str = "hour", of: Subscription = subscription, **counts: int) -> Rollup:
        return Rollup.objects.create(subscription=of, span=span, starts_at=starts_at, **counts)

    return make


def today() -> datetime:
    return timezone.now().astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def this_hour() -> datetime:
    return timezone.now().astimezone(UTC).replace(minute=0, second=0, microsecond=0)


class TestKeeping:
    @pytest.fixture(autouse=True)
    def at_noon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Yesterday has ended more than an hour ago, whenever the tests run."""
        monkeypatch.setattr(rollups, "SETTLED", timedelta(0))

    def test_the_hours_of_a_day_that_has_ended_become_one_day(self, fill: Callable[..., Rollup]) -> None:
        yesterday = today() - DAY
        for hour in (0, 9, 23):
            fill(yesterday + hour * HOUR, attempts=5, delivered=3, at_first=2, failed=1, took_3=4)
        fill(today(), attempts=100)
        rollups.keep()
        row = Rollup.objects.get(span="day")
        assert row.starts_at == yesterday
        assert (row.attempts, row.delivered, row.at_first, row.failed, row.took_3) == (15, 9, 6, 3, 12)

    def test_again_changes_nothing(self, fill: Callable[..., Rollup]) -> None:
        fill(today() - DAY, attempts=5)
        fill(today() - 2 * DAY, attempts=7)
        for _ in range(3):
            rollups.keep()
        assert list(Rollup.objects.filter(span="day").order_by("starts_at").values_list("attempts", flat=True)) == [
            7,
            5,
        ]
        assert Rollup.objects.filter(span="hour").count() == 2

    def test_another_clock_that_was_as_quick_changes_nothing(self, fill: Callable[..., Rollup]) -> None:
        fill(today() - DAY, attempts=5)
        rollups._add_up(today() - DAY, using="default")
        rollups._add_up(today() - DAY, using="default")
        assert Rollup.objects.get(span="day").attempts == 5

    def test_a_clock_that_stood_still_adds_up_every_day_it_missed(self, fill: Callable[..., Rollup]) -> None:
        for days in range(10):
            fill(today() - days * DAY + HOUR * (days == 0) * 0, attempts=days + 1)
        rollups.keep()
        found = Rollup.objects.filter(span="day").order_by("-starts_at").values_list("attempts", flat=True)
        assert list(found) == [2, 3, 4, 5, 6, 7, 8, 9, 10]
        assert Rollup.objects.filter(span="hour").count() == 4

    def test_hours_are_kept_for_three_days_and_days_for_400(self, fill: Callable[..., Rollup]) -> None:
        for days in (0, 1, 3, 4, 5):
            fill(today() - days * DAY)
        for days in (6, 400, 401, 500):
            fill(today() - days * DAY, "day")
        rollups.keep()
        ages = [(row.span, (today() - row.starts_at).days) for row in Rollup.objects.order_by("-starts_at", "span")]
        assert ages == [
            ("hour", 0), ("day", 1), ("hour", 1), ("day", 3), ("hour", 3), ("day", 4), ("day", 5), ("day", 6), ("day", 400)
        ]  # fmt: skip

    def test_what_is_old_goes_in_batches(self, fill: Callable[..., Rollup], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rollups, "MOST_DELETED", 2)
        for hour in range(5):
            fill(today() - 9 * DAY + hour * HOUR, attempts=1)
        rollups.keep()
        assert Rollup.objects.get().attempts == 5

    def test_where_nothing_was_sent_there_is_nothing_to_keep(self) -> None:
        rollups.keep()
        assert not Rollup.objects.exists()

    def test_a_day_that_has_just_ended_waits(
        self, fill: Callable[..., Rollup], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rollups, "SETTLED", DAY)
        fill(today() - DAY, attempts=5)
        rollups.keep()
        assert not Rollup.objects.filter(span="day").exists()

    def test_the_clock_does_it(self, fill: Callable[..., Rollup]) -> None:
        fill(today() - DAY, attempts=5)
        cron.keep()
        assert Rollup.objects.filter(span="day").count() == 1


class TestReading:
    def test_the_hours_have_no_gap_and_end_with_this_one(
        self, subscription: Subscription, fill: Callable[..., Rollup]
    ) -> None:
        fill(this_hour(), attempts=4, delivered=3, failed=1, at_first=2)
        fill(this_hour() - 23 * HOUR, attempts=10, delivered=10)
        fill(this_hour() - 24 * HOUR, attempts=1_000)
        fill(this_hour() + HOUR, attempts=1_000)
        series = rollups.hours(Rollup.objects.all())
        assert [interval.starts_at for interval in series.intervals] == [
            this_hour() - hours * HOUR for hours in range(23, -1, -1)
        ]
        assert [interval.attempts for interval in series.intervals] == [10, *[0] * 22, 4]
        total = series.total
        assert (total.attempts, total.delivered, total.failed, total.at_first) == (14, 13, 1, 2)

    def test_the_days_are_those_that_were_added_up_and_the_hours_since(self, fill: Callable[..., Rollup]) -> None:
        fill(today() - 29 * DAY, "day", attempts=1)
        fill(today() - 2 * DAY, "day", attempts=2)
        fill(today() - 2 * DAY, attempts=1_000)  # it is in that day
        fill(today() - DAY + 3 * HOUR, attempts=3)
        fill(today() - DAY + 4 * HOUR, attempts=4)
        fill(today(), attempts=5)
        fill(today() - 30 * DAY, "day", attempts=1_000)
        series = rollups.days(Rollup.objects.all())
        assert len(series.intervals) == 30
        assert [interval.attempts for interval in series.intervals] == [1, *[0] * 26, 2, 7, 5]
        assert series.total.attempts == 15

    def test_days_are_the_same_before_and_after_they_are_added_up(
        self, fill: Callable[..., Rollup], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rollups, "SETTLED", timedelta(0))
        for hours in range(0, 71, 7):
            fill(this_hour() - hours * HOUR, attempts=hours, took_2=hours)
        before = rollups.days(Rollup.objects.all())
        rollups.keep()
        assert Rollup.objects.filter(span="day").exists()
        assert rollups.days(Rollup.objects.all()) == before

    def test_before_any_clock_has_run_the_hours_are_all_there_is(self, fill: Callable[..., Rollup]) -> None:
        fill(today() - 29 * DAY, attempts=1)
        assert rollups.days(Rollup.objects.all()).intervals[0].attempts == 1

    def test_a_tenant_has_the_sum_of_its_own(
        self, tenant: Tenant, make_tenant: Callable[..., Tenant], subscribe: Subscribe, fill: Callable[..., Rollup]
    ) -> None:
        fill(this_hour(), attempts=1)
        fill(this_hour(), of=subscribe(tenant), attempts=2)
        fill(this_hour(), of=subscribe(make_tenant("other")), attempts=1_000)
        assert rollups.hours(Rollup.objects.for_tenant(tenant)).total.attempts == 3
        assert rollups.days(Rollup.objects.for_tenant(tenant)).total.attempts == 3
        assert rollups.panel(tenant=tenant)["charts"].series.total.attempts == 3

    def test_a_series_takes_one_query_or_two(
        self,
        tenant: Tenant,
        subscribe: Subscribe,
        fill: Callable[..., Rollup],
        django_assert_num_queries: DjangoAssertNumQueries,
    ) -> None:
        for _ in range(10):
            fill(this_hour(), of=subscribe(tenant), attempts=1)
        with django_assert_num_queries(1):
            rollups.hours(Rollup.objects.for_tenant(tenant))
        with django_assert_num_queries(2):
            rollups.days(Rollup.objects.for_tenant(tenant))

    def test_sparklines_of_many_take_one_query(
        self,
        tenant: Tenant,
        subscribe: Subscribe,
        fill: Callable[..., Rollup],
        django_assert_num_queries: DjangoAssertNumQueries,
    ) -> None:
        one, two, silent = subscribe(tenant), subscribe(tenant), subscribe(tenant)
        fill(this_hour(), of=one, attempts=5, delivered=3)
        fill(this_hour() - 23 * HOUR, of=one, attempts=1, delivered=1)
        fill(this_hour() - 24 * HOUR, of=one, attempts=99)
        fill(this_hour() + HOUR, of=one, attempts=99)
        fill(today() - DAY, "day", of=two, attempts=99)
        fill(this_hour() - HOUR, of=two, attempts=2, delivered=2)
        with django_assert_num_queries(1):
            lines = rollups.sparklines([one.pk, two.pk, silent.pk])
        assert lines == {
            one.pk: [(1, 0), *[(0, 0)] * 22, (3, 2)],
            two.pk: [*[(0, 0)] * 22, (2, 0), (0, 0)],
            silent.pk: [(0, 0)] * 24,
        }

    def test_sparklines_of_nobody_are_none(self) -> None:
        assert rollups.sparklines([]) == {}


def took_of(*milliseconds: int) -> list[int]:
    took = [0] * (len(BUCKETS_MS) + 1)
    for ms in milliseconds:
        took[sum(ms > bound for bound in BUCKETS_MS)] += 1
    return took


class TestQuantiles:
    def test_of_nothing_there_is_none(self) -> None:
        assert rollups.quantile(took_of(), 0.5) is None
        assert rollups.Interval(this_hour()).p95_ms is None

    def test_it_is_interpolated_in_its_bucket(self) -> None:
        assert rollups.quantile(took_of(*[60] * 10), 0.5) == 75  # half way from 50 to 100
        assert rollups.quantile(took_of(*[5] * 90, *[700] * 10), 0.95) == 750

    def test_what_is_beyond_the_last_bound_is_given_as_that(self) -> None:
        assert rollups.quantile(took_of(30_000), 0.5) == BUCKETS_MS[-1]

    @given(st.lists(st.integers(0, BUCKETS_MS[-1]), min_size=1, max_size=200), st.sampled_from([0.5, 0.95]))
    def test_it_is_off_by_no_more_than_its_bucket(self, milliseconds: list[int], share: float) -> None:
        milliseconds.sort()
        exact = milliseconds[max(0, -int(-share * len(milliseconds) // 1) - 1)]
        bounds = (0, *BUCKETS_MS)
        bucket = sum(exact > bound for bound in BUCKETS_MS)
        found = rollups.quantile(took_of(*milliseconds), share)
        assert found is not None
        assert bounds[bucket] <= found <= bounds[bucket + 1]

    def test_the_share_at_first_is_of_all_that_ended(self) -> None:
        assert rollups.Interval(this_hour()).first_share is None
        assert rollups.Interval(this_hour(), delivered=8, at_first=6, failed=2).first_share == 0.6

    def test_what_is_neither_delivered_nor_failed_was_retried(self) -> None:
        assert rollups.Interval(this_hour(), attempts=10, delivered=6, failed=1).retried == 3
        # Lost in one hour, and delivered in the next after all.
        assert rollups.Interval(this_hour(), attempts=0, delivered=1).retried == 0


class TestPanel:
    @pytest.mark.parametrize(
        ("asked", "key", "number"),
        [("30d", "30d", 30), ("24h", "24h", 24), (None, "24h", 24), ("", "24h", 24), ("9y", "24h", 24)],
    )
    def test_the_period_is_one_of_two(
        self, subscription: Subscription, asked: str | None, key: str, number: int
    ) -> None:
        charts = rollups.panel(subscription=subscription, period=asked)["charts"]
        assert (charts.period.key, len(charts.series.intervals)) == (key, number)

    def test_it_is_of_somebody(self) -> None:
        with pytest.raises(TypeError):
            rollups.panel()

    def test_it_says_that_days_are_utcs_to_whoever_has_others(self, subscription: Subscription) -> None:
        def differs(zone: str, period: str) -> bool:
            with timezone.override(zone):
                return bool(rollups.panel(subscription=subscription, period=period)["charts"].zone_differs)

        assert differs("Asia/Kolkata", "30d")
        assert not differs("UTC", "30d")
        assert not differs("Asia/Kolkata", "24h")


def test_an_hour_is_stored_as_django_would(subscription: Subscription) -> None:
    make_deliveries(subscription)
    recording.record([came(claim) for claim in deliveries.claim(1)])
    row = Rollup.objects.get()
    assert Rollup.objects.filter(starts_at=row.starts_at).count() == 1
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("SELECT CAST(starts_at AS text) FROM webhooks_rollup")
            (raw,) = cursor.fetchall()
        assert raw == (row.starts_at.strftime("%Y-%m-%d %H:%M:%S"),)

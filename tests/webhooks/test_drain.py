from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import threading
import time
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings as django_settings
from django.db import DataError, OperationalError, connection, connections
from django.utils import timezone
from redis import Redis

from subscriptions.models import Secret
from tests.receiver import Reply
from tests.servers import wait_for
from tests.traffic import BODY, make_deliveries, make_event
from webhooks import claims, deliveries, drain, network, sending, signing, tallies, tasks, transport
from webhooks.models import Attempt, Delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_django.fixtures import Settings

    from subscriptions.models import Subscription, Tenant
    from tests.receiver import Receiver

    Subscribe = Callable[..., Subscription]

pytestmark = pytest.mark.django_db
# For tests in which another thread works on the database.
committed = pytest.mark.django_db(transaction=True)

Status = Delivery.Status


@pytest.fixture(autouse=True)
def going(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    settings.SIGNALPOST_DATABASES = ["default"]
    monkeypatch.setattr(drain, "_stopping", False)
    monkeypatch.setattr(drain, "_watch", None)


@pytest.fixture
def redis(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Redis]:
    monkeypatch.setitem(django_settings.RQ_QUEUES["default"], "URL", redis_url)
    tasks.forget()
    client = Redis.from_url(redis_url)
    client.flushdb()
    yield client
    client.close()
    tasks.forget()


@pytest.fixture
def no_bell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "ring", lambda: False)
    monkeypatch.setattr(tasks, "silence", lambda: False)


@pytest.fixture
def subscription(tenant: Tenant, subscribe: Subscribe, receiver: Receiver, no_bell: None) -> Subscription:
    return subscribe(tenant, "shop.*", url=receiver.url)


@pytest.fixture
def watch(subscription: Subscription) -> Iterator[drain.Watch]:
    started = drain.watch()
    yield started
    drain.stop()
    started.join(10)
    assert not started.is_alive()


def statuses() -> Counter[str]:
    return Counter(Delivery.objects.values_list("status", flat=True))


# One drain


def test_what_happened_arrives_signed_and_is_recorded(
    tenant: Tenant, subscription: Subscription, receiver: Receiver
) -> None:
    event = make_event(tenant)
    counts = drain.run()
    (received,) = receiver.received
    assert received.body == BODY
    assert received.webhook_id == event.webhook_id
    signing.verify(received.headers, received.body, [subscription.secrets.get().value])
    assert statuses() == {Status.DELIVERED: 1}
    assert counts == {"events": 1, "claimed": 1, "delivered": 1}


def test_nothing_to_do_starts_no_thread_and_says_nothing(
    subscription: Subscription, caplog: pytest.LogCaptureFixture
) -> None:
    drain.run()
    with caplog.at_level(logging.INFO):
        assert drain.run() == {}
    assert caplog.records == []
    assert not [thread for thread in threading.enumerate() if thread.name == "signalpost-network"]


def test_it_says_once_what_it_did_and_no_secret(subscription: Subscription, caplog: pytest.LogCaptureFixture) -> None:
    make_deliveries(subscription, 30)
    with caplog.at_level(logging.INFO, "webhooks"):
        drain.run()
    (line,) = [record.getMessage() for record in caplog.records]
    assert "30 claimed" in line
    assert "30 delivered" in line
    assert "whsec_" not in caplog.text
    assert BODY.decode() not in caplog.text


def test_a_failure_is_an_attempt_and_waits_for_its_turn(subscription: Subscription, receiver: Receiver) -> None:
    receiver.reply = lambda _: Reply(500)
    make_deliveries(subscription)
    assert drain.run() == {"claimed": 1, "retrying": 1}
    assert len(receiver.received) == 1
    assert Attempt.objects.get().response_status == 500


def test_a_lost_key_fails_its_own_deliveries_only(
    tenant: Tenant, subscription: Subscription, subscribe: Subscribe, receiver: Receiver
) -> None:
    broken = subscribe(tenant, "shop.*", url=receiver.url)
    Secret.objects.filter(subscription=broken).update(ciphertext=b"not of any key")
    make_deliveries(subscription, 2)
    make_deliveries(broken, 2)
    drain.run()
    assert len(receiver.received) == 2
    assert set(Attempt.objects.filter(delivery__subscription=broken).values_list("reason", flat=True)) == {
        Attempt.Reason.UNSENDABLE
    }


@committed
def test_claims_roll_on_while_a_receiver_hangs(
    tenant: Tenant, subscription: Subscription, subscribe: Subscribe, receiver: Receiver, settings: Settings
) -> None:
    settings.SIGNALPOST_IN_FLIGHT = 6
    settings.SIGNALPOST_IN_FLIGHT_PER_SUBSCRIPTION = 2
    hung = subscribe(tenant, "shop.*", url=receiver.url + "hung")
    receiver.hold("/hung")
    make_deliveries(hung, 8)
    make_deliveries(subscription, 60)
    thread = threading.Thread(target=in_thread, args=(drain.run,))
    thread.start()
    try:
        receiver.wait_until(lambda received: sum(one.path == "/" for one in received) == 60)
        assert sum(one.path == "/hung" for one in receiver.received) == 2
        # Also what comes only now does not wait for the one that hangs.
        make_event(tenant)
        receiver.wait_until(lambda received: sum(one.path == "/" for one in received) == 61)
    finally:
        receiver.let_go()
        thread.join(20)
    assert statuses() == {Status.DELIVERED: 70}


def in_thread(act: Callable[[], Any]) -> None:
    try:
        act()
    finally:
        connections.close_all()


# The bell


def test_a_bell_that_rings_while_a_drain_is_ending_is_heard(
    tenant: Tenant, subscribe: Subscribe, receiver: Receiver, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscribe(tenant, "shop.*", url=receiver.url)
    drain.run()
    redis.flushdb()
    tasks.ring()  # for the drain that is about to run
    redis.delete("rq:queue:default")  # a worker has taken the job
    claim = deliveries.claim
    heard: list[bool] = []

    def last_look(room: int, *, busy: Any) -> Any:
        claimed = claim(room, busy=busy)
        if not heard:
            # It has looked, found nothing, and is about to end: now something happens.
            assert claimed == []
            make_event(tenant)
            heard.append(tasks.ring())
        return claimed

    with monkeypatch.context() as patch:
        patch.setattr(deliveries, "claim", last_look)
        drain.run()
    assert heard == [True]
    assert receiver.received == []
    assert redis.llen("rq:queue:default") == 1
    drain.run()
    assert len(receiver.received) == 1


def test_the_bell_is_taken_away_before_the_look(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks.ring()
    rings: list[bool] = []

    def look(**named: Any) -> int:
        rings.append(tasks.ring())
        return 0

    monkeypatch.setattr(deliveries, "fan_out", look)
    drain.run()
    assert rings == [True]


def test_after_its_time_a_drain_claims_no_more_and_rings_for_the_next(
    tenant: Tenant, subscribe: Subscribe, receiver: Receiver, redis: Redis
) -> None:
    make_deliveries(subscribe(tenant, "shop.*", url=receiver.url))
    redis.flushdb()
    assert drain.run(longest=0) == {}
    assert receiver.received == []
    assert redis.llen("rq:queue:default") == 1


@committed
def test_a_second_drain_of_the_process_waits_and_then_looks(
    tenant: Tenant, subscription: Subscription, receiver: Receiver
) -> None:
    receiver.hold()
    make_deliveries(subscription)
    first = threading.Thread(target=in_thread, args=(drain.run,))
    first.start()
    receiver.wait_for(1)
    ended = threading.Event()

    def run_and_say() -> None:
        drain.run()
        ended.set()

    second = threading.Thread(target=in_thread, args=(run_and_say,))
    second.start()
    assert not ended.wait(0.3)
    receiver.let_go()
    make_event(tenant)
    first.join(10)
    second.join(10)
    assert ended.is_set()
    assert statuses() == {Status.DELIVERED: 2}


def test_a_drain_that_was_told_to_stop_claims_nothing(subscription: Subscription, receiver: Receiver) -> None:
    make_deliveries(subscription)
    drain.stop()
    assert drain.run() == {}
    assert receiver.received == []


# What goes wrong


def test_a_result_that_cannot_be_recorded_costs_no_other(
    subscription: Subscription, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_deliveries(subscription, 5)
    record = sending.record

    def refuse(results: Any) -> Counter[str]:
        if any(claim.delivery_id == made[2].pk and outcome.response_body for claim, outcome in results):
            raise DataError("of what the receiver wrote")
        return record(results)

    monkeypatch.setattr(sending, "record", refuse)
    drain.run()
    assert statuses() == {Status.DELIVERED: 5}
    assert Attempt.objects.get(delivery=made[2]).detail == drain.UNSTORABLE
    assert len(receiver.received) == 5


def test_a_result_that_can_never_be_recorded_ends_nothing(
    subscription: Subscription, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = make_deliveries(subscription, 3)
    record = sending.record

    def refuse(results: Any) -> Counter[str]:
        if any(claim.delivery_id == made[0].pk for claim, _ in results):
            raise TypeError
        return record(results)

    monkeypatch.setattr(sending, "record", refuse)
    drain.run()
    assert statuses() == {Status.DELIVERED: 2, Status.PENDING: 1}
    assert f"delivery {made[0].pk} is lost" in caplog.text


@pytest.mark.parametrize("moment", ["the batch", "one by one"])
def test_results_are_kept_while_the_database_is_away(
    subscription: Subscription, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    make_deliveries(subscription, 3)
    record, refusals = sending.record, iter([True, True, False])
    away = iter([False, True] if moment == "one by one" else [True, True])

    def refuse(results: Any) -> Counter[str]:
        if next(refusals, False):
            raise OperationalError("away")
        return record(results)

    monkeypatch.setattr(sending, "record", refuse)
    monkeypatch.setattr(deliveries, "away", lambda *args: next(away))
    drain.run()
    assert statuses() == {Status.DELIVERED: 3}
    assert len(receiver.received) == 3


def test_a_database_that_is_away_ends_the_drain_but_not_the_job(
    subscription: Subscription, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(**named: Any) -> int:
        raise OperationalError("the server is restarting")

    with monkeypatch.context() as patch:
        patch.setattr(deliveries, "fan_out", away)
        assert drain.run() == {}
    assert "the server is restarting" in caplog.text
    make_deliveries(subscription)
    drain.run()
    assert statuses() == {Status.DELIVERED: 1}


def test_after_a_mistake_of_ours_what_is_in_flight_is_still_recorded(
    subscription: Subscription, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_deliveries(subscription)
    claim = deliveries.claim
    calls = iter([True])

    def broken(room: int, *, busy: Any) -> Any:
        if next(calls, False):
            return claim(room, busy=busy)
        raise RuntimeError("a mistake")

    receiver.hold()
    monkeypatch.setattr(deliveries, "claim", broken)
    threading.Timer(0.5, receiver.let_go).start()
    with pytest.raises(RuntimeError):
        drain.run()
    assert statuses() == {Status.DELIVERED: 1}


@pytest.mark.parametrize(
    ("error", "reason", "detail"),
    [
        (RuntimeError("oh"), Attempt.Reason.LOST, "RuntimeError: oh"),
        (TimeoutError(), Attempt.Reason.TIMEOUT, "TimeoutError"),
    ],
)
def test_a_call_that_breaks_is_an_attempt_that_failed(
    subscription: Subscription, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str, detail: str
) -> None:
    async def broken(*args: Any) -> sending.Outcome:
        raise error

    make_deliveries(subscription, 2)
    monkeypatch.setattr(sending, "call", broken)
    assert drain.run() == {"claimed": 2, "retrying": 2}
    assert set(Attempt.objects.values_list("reason", "detail")) == {(reason, detail)}


def test_a_call_that_does_not_keep_its_deadline_is_broken_off(
    subscription: Subscription, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    async def hanging(*args: Any) -> sending.Outcome:
        await asyncio.Event().wait()
        raise AssertionError

    settings.SIGNALPOST_TOTAL_TIMEOUT = 0.1
    monkeypatch.setattr(network, "SPARE", 0.1)
    monkeypatch.setattr(sending, "call", hanging)
    make_deliveries(subscription, 2)
    assert drain.run() == {"claimed": 2, "retrying": 2}
    assert set(Attempt.objects.values_list("reason", "detail")) == {(Attempt.Reason.TIMEOUT, "TimeoutError")}


def test_settings_that_allow_no_client_hand_the_claims_back(
    subscription: Subscription, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong() -> transport.Client:
        raise ValueError("SIGNALPOST_ALLOWED_NETWORKS")

    make_deliveries(subscription)
    with monkeypatch.context() as patch:
        patch.setattr(transport, "Client", wrong)
        with pytest.raises(ValueError, match="ALLOWED_NETWORKS"):
            drain.run()
    assert not Attempt.objects.exists()
    drain.run()
    assert statuses() == {Status.DELIVERED: 1}


def test_a_process_that_was_frozen_hands_back_instead_of_sending(
    subscription: Subscription, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    make_deliveries(subscription)
    claim = deliveries.claim
    frozen = iter([True])

    def late(room: int, *, busy: Any) -> Any:
        age = settings.SIGNALPOST_LEASE_SECONDS if next(frozen, False) else 0
        return [replace(one, claimed_at=one.claimed_at - age) for one in claim(room, busy=busy)]

    settings.SIGNALPOST_LEASE_SECONDS = 30.0
    monkeypatch.setattr(deliveries, "claim", late)
    drain.run()
    assert statuses() == {Status.DELIVERED: 1}
    assert len(receiver.received) == 1
    # The first attempt was never made, and left no trace.
    assert [attempt.number for attempt in Attempt.objects.all()] == [1]
    assert Delivery.objects.get().lease == 2


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS], ids=os.strerror)
def test_what_this_machine_lacks_is_no_attempt_and_halves_what_it_takes(
    subscription: Subscription, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: int
) -> None:
    make_deliveries(subscription, 6)
    make, short = socket.socket, iter(range(6))
    mosts: list[int] = []

    def lacking(*args: Any, **kwargs: Any) -> socket.socket:
        if args == (socket.AF_INET,) and next(short, None) is not None:
            raise OSError(error, os.strerror(error))
        return make(*args, **kwargs)

    def claim(room: int, *, busy: Any) -> Any:
        mosts.append(room)
        return claims.claim(room, busy=busy)

    monkeypatch.setattr(network, "SHORT_SECONDS", 0.05)
    monkeypatch.setattr(deliveries, "claim", claim)
    monkeypatch.setattr(socket, "socket", lacking)
    assert drain.run()["delivered"] == 6
    assert set(Delivery.objects.values_list("attempt_count", flat=True)) == {1}
    assert set(Attempt.objects.values_list("reason", flat=True)) == {""}
    assert mosts[0] > 6
    assert max(mosts[1:]) == 3
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR] == [
        f"This machine has no room for so many requests ({os.strerror(error)}); for now 3 at once"
    ]


@pytest.mark.parametrize(
    ("lease", "total", "age", "fresh"),
    [(45, 20, 24, True), (45, 20, 26, False), (2, 20, 0.9, True), (2, 20, 1.1, False)],
)
def test_a_claim_is_fresh_while_a_request_can_end_within_its_lease(
    settings: Settings, lease: float, total: float, age: float, fresh: bool
) -> None:
    settings.SIGNALPOST_LEASE_SECONDS = lease
    settings.SIGNALPOST_TOTAL_TIMEOUT = total

    class Old:
        claimed_at = claims.clock() - age

    assert network.fresh(Old()) is fresh  # type: ignore[arg-type]


def test_a_network_that_died_holds_up_nothing(subscription: Subscription, receiver: Receiver) -> None:
    drained = drain.Drain()
    make_deliveries(subscription)
    receiver.hold()
    assert drained.step()
    assert drained.network is not None
    receiver.wait_for(1)
    drained.network.close()
    assert not drained.network.alive
    assert not drained.step(claim=False)
    assert drained.flying == 0
    drained.close()


@pytest.mark.parametrize("ends", [True, False])
def test_while_the_database_is_away_at_the_end_it_says_so_once(
    subscription: Subscription,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    ends: bool,
) -> None:
    settings.SIGNALPOST_TOTAL_TIMEOUT = 5.0 if ends else 0.5
    monkeypatch.setattr(deliveries, "away", lambda *args: True)
    make_deliveries(subscription, 2)
    drained, record = drain.Drain(), sending.record
    refused: list[int] = []

    def refuse(results: Any) -> Counter[str]:
        if ends and len(refused) >= 3:
            return record(results)
        refused.append(1)
        raise OperationalError("the server closed the connection\nDETAIL: a row")

    monkeypatch.setattr(sending, "record", refuse)
    drained._claim()
    drained.finish()
    assert len(refused) >= 3
    assert caplog.text.count("Results wait for the database: OperationalError: the server closed the connection") == 1
    assert ("results are lost" in caplog.text) is not ends
    assert "DETAIL" not in caplog.text
    assert statuses() == {Status.DELIVERED if ends else Status.PENDING: 2}


def test_what_the_database_says_of_a_row_stays_out_of_the_log(
    subscription: Subscription, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(results: Any) -> Counter[str]:
        raise DataError("value too long\nDETAIL: Failing row contains (whsec_, what the receiver wrote)")

    monkeypatch.setattr(sending, "record", refuse)
    make_deliveries(subscription)
    drain.run()
    assert "DataError: value too long" in caplog.text
    assert "receiver wrote" not in caplog.text


# The watch


@committed
def test_a_watch_that_is_asked_while_it_finds_nothing_looks_again(
    tenant: Tenant, subscription: Subscription, receiver: Receiver, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SIGNALPOST_LOOK_SECONDS = 60
    next_due_in = deliveries.next_due_in
    looked, asked = threading.Event(), threading.Event()

    def last_look() -> float | None:
        due = next_due_in()
        if not asked.is_set():
            # It has looked, found nothing and knows of nothing to come: now something happens.
            assert due is None
            looked.set()
            assert asked.wait(10)
        return due

    monkeypatch.setattr(deliveries, "next_due_in", last_look)
    watch = drain.watch()
    try:
        assert looked.wait(10)
        make_event(tenant)
        job = threading.Thread(target=drain.run)
        job.start()
        wait_for(lambda: not watch._asked.empty())
        assert receiver.received == []
        asked.set()
        receiver.wait_for(1, timeout=10)
        job.join(10)
    finally:
        asked.set()
        drain.stop()
        watch.join(10)


@committed
def test_a_watch_looks_by_itself(tenant: Tenant, watch: drain.Watch, receiver: Receiver, settings: Settings) -> None:
    settings.SIGNALPOST_LOOK_SECONDS = 0.1
    make_event(tenant)
    receiver.wait_for(1)
    wait_for(lambda: statuses() == {Status.DELIVERED: 1})


@committed
def test_a_watch_that_is_asked_looks_at_once_and_the_job_does_not_wait_for_receivers(
    tenant: Tenant, receiver: Receiver, subscription: Subscription, settings: Settings
) -> None:
    settings.SIGNALPOST_LOOK_SECONDS = 60
    watch = drain.watch()
    try:
        receiver.hold()
        for number in (1, 2):
            make_event(tenant)
            assert drain.run() == {}
            receiver.wait_for(number)
    finally:
        receiver.let_go()
        drain.stop()
        watch.join(10)
    assert statuses() == {Status.DELIVERED: 2}


@committed
def test_a_watch_that_waits_for_a_slow_receiver_looks_when_asked(
    subscription: Subscription, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "POLL", 60.0)
    make_deliveries(subscription)
    receiver.hold()
    watch = drain.watch()
    try:
        receiver.wait_for(1, timeout=10)
        make_deliveries(subscription)
        watch.nudge()
        receiver.wait_for(2, timeout=10)
    finally:
        receiver.let_go()
        drain.stop()
        watch.join(10)
    assert statuses() == {Status.DELIVERED: 2}


@committed
def test_a_watch_wakes_when_something_comes_due(
    receiver: Receiver, subscription: Subscription, settings: Settings
) -> None:
    settings.SIGNALPOST_LOOK_SECONDS = 60
    make_deliveries(subscription)
    began = time.monotonic()
    Delivery.objects.update(next_attempt_at=timezone.now() + timedelta(seconds=0.4))
    watch = drain.watch()
    try:
        receiver.wait_for(1, timeout=10)
        assert time.monotonic() - began >= 0.3
    finally:
        drain.stop()
        watch.join(10)


@committed
def test_a_watch_says_once_that_the_database_is_away_and_goes_on(  # noqa: PLR0917 - fixtures
    tenant: Tenant,
    watch: drain.Watch,
    receiver: Receiver,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings.SIGNALPOST_LOOK_SECONDS = 0.02
    refused: list[int] = []

    def away(**named: Any) -> int:
        refused.append(1)
        raise OperationalError("restarting")

    with caplog.at_level(logging.INFO, "webhooks.drain"), monkeypatch.context() as patch:
        patch.setattr(deliveries, "fan_out", away)
        watch.ask(patience=5)
        wait_for(lambda: len(refused) >= 5)
        patch.undo()
        make_event(tenant)
        receiver.wait_for(1)
        wait_for(lambda: "answers again" in caplog.text)
    said = [record.getMessage() for record in caplog.records if "database" in record.getMessage()]
    assert len(said) == 2
    assert "refuses (OperationalError: restarting)" in said[0]
    assert "answers again" in said[1]


@committed
def test_a_watch_outlives_a_mistake_of_ours(
    tenant: Tenant, watch: drain.Watch, receiver: Receiver, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SIGNALPOST_LOOK_SECONDS = 0.02
    broken = threading.Event()

    def mistake() -> float:
        broken.set()
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(deliveries, "next_due_in", mistake)
        watch.ask(patience=5)
        assert broken.wait(5)
    make_event(tenant)
    receiver.wait_for(1)


@committed
def test_a_watch_whose_connection_is_cut_makes_another(
    tenant: Tenant, watch: drain.Watch, receiver: Receiver, settings: Settings
) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has no connection to cut")
    settings.SIGNALPOST_LOOK_SECONDS = 0.05
    for number in (1, 2):
        make_event(tenant)
        receiver.wait_for(number)
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
    wait_for(lambda: statuses() == {Status.DELIVERED: 2}, timeout=60)


@committed
def test_a_watch_that_stops_lets_what_is_in_flight_end_and_claims_no_more(
    subscription: Subscription, receiver: Receiver, settings: Settings
) -> None:
    settings.SIGNALPOST_IN_FLIGHT_PER_SUBSCRIPTION = 2
    make_deliveries(subscription, 5)
    receiver.hold()
    watch = drain.watch()
    receiver.wait_for(2)
    drain.stop()
    receiver.let_go()
    watch.join(10)
    assert not watch.is_alive()
    assert statuses() == {Status.DELIVERED: 2, Status.PENDING: 3}
    assert not Attempt.objects.filter(ended_at=None).exists()


@committed
def test_a_watch_that_never_rests_still_reports(
    subscription: Subscription,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(drain, "REPORT_SECONDS", 0.0)
    make_deliveries(subscription, 3)
    receiver.hold()
    with caplog.at_level(logging.INFO, "webhooks.drain"):
        watch = drain.watch()
        try:
            wait_for(lambda: "3 claimed" in caplog.text)
            assert len(receiver.received) <= 3
        finally:
            receiver.let_go()
            drain.stop()
            watch.join(10)


def test_drains_that_follow_each_other_share_a_line_but_are_counted_each(
    subscription: Subscription, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    drained = drain.Drain()
    monkeypatch.setattr(tallies, "_noted", defaultdict(float))

    def lines() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "webhooks.drain"]

    def one_drain() -> None:
        make_deliveries(subscription)
        while drained.step():
            pass
        drained.report(at_once=False)

    with caplog.at_level(logging.INFO, "webhooks.drain"):
        for _ in range(4):
            one_drain()
        assert len(lines()) == 1
        drained.report(at_once=False)
        assert len(lines()) == 1
        drained.next_line = time.monotonic()
        drained.report(at_once=False)
        drained.finish()
    first, second = lines()
    assert first.endswith("s: 1 claimed, 1 delivered")
    assert second.endswith("s (3 times): 3 claimed, 3 delivered")
    assert tallies._noted[tallies.DRAINS, tallies.COUNT] == 4
    assert drained.total == {"claimed": 4, "delivered": 4}


@committed
def test_what_is_still_untold_when_a_worker_stops_is_told(
    subscription: Subscription, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "webhooks.drain"):
        watch = drain.watch()
        try:
            for number in (1, 2):
                make_deliveries(subscription)
                watch.nudge()
                wait_for(lambda number=number: statuses() == {Status.DELIVERED: number})  # type: ignore[misc]
        finally:
            drain.stop()
            watch.join(10)
    told = [record.getMessage() for record in caplog.records if "Drained" in record.getMessage()]
    assert sum(int(line.split(", ")[-1].split()[0]) for line in told) == 2


def test_more_than_a_batch_is_sent_batch_by_batch(
    subscription: Subscription, receiver: Receiver, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "BATCH", 2)
    claimed: list[int] = []
    recorded: list[int] = []
    claim, record = deliveries.claim, sending.record

    def counted_claim(room: int, **named: Any) -> Any:
        claims = claim(room, **named)
        claimed.append(len(claims))
        return claims

    def counted_record(results: Any) -> Any:
        recorded.append(len(results))
        return record(results)

    monkeypatch.setattr(deliveries, "claim", counted_claim)
    monkeypatch.setattr(sending, "record", counted_record)
    make_deliveries(subscription, 5)
    drain.run()
    assert statuses() == {Status.DELIVERED: 5}
    assert claimed[:3] == [2, 2, 1]  # before anything is waited for
    assert max(recorded) <= 2


def test_nobody_waits_for_a_watch_that_has_ended() -> None:
    watch = drain.Watch()
    began = time.monotonic()
    watch.ask(patience=30)
    assert time.monotonic() - began < 5


def test_secrets_are_forgotten_when_the_drain_ends(subscription: Subscription) -> None:
    make_deliveries(subscription)
    drain.run()
    assert claims._open.cache_info().currsize == 0


def test_what_cannot_be_finished_in_time_is_let_go(
    subscription: Subscription, receiver: Receiver, settings: Settings
) -> None:
    drained = drain.Drain()
    make_deliveries(subscription)
    receiver.hold()
    drained.step()
    receiver.wait_for(1)
    settings.SIGNALPOST_TOTAL_TIMEOUT = 0.1
    drained.finish()
    assert drained.network is None
    assert statuses() == {Status.PENDING: 1}
    with suppress(OSError):
        receiver.let_go()


# More than one worker


@committed
def test_a_worker_that_is_full_asks_another_to_join(
    tenant: Tenant, subscribe: Subscribe, receiver: Receiver, redis: Redis, settings: Settings
) -> None:
    settings.SIGNALPOST_IN_FLIGHT = 2
    make_deliveries(subscribe(tenant, "shop.*", url=receiver.url), 6)
    redis.flushdb()
    drain.run()
    assert len(receiver.received) == 6
    assert redis.llen("rq:queue:default") == 1  # once a second, however often it was full


@committed
def test_a_worker_with_room_left_asks_nobody(
    tenant: Tenant, subscribe: Subscribe, receiver: Receiver, redis: Redis
) -> None:
    make_deliveries(subscribe(tenant, "shop.*", url=receiver.url), 3)
    redis.flushdb()
    drain.run()
    assert len(receiver.received) == 3
    assert redis.llen("rq:queue:default") == 0

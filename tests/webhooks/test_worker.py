from __future__ import annotations

import re
import resource
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from django.conf import settings as django_settings
from django.db import OperationalError, connection
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

from tests.receiver import Reply
from tests.servers import Process, Valkey, wait_for
from tests.traffic import let_leases_end, make_deliveries, make_event
from webhooks import tasks, worker
from webhooks.models import Attempt, Delivery
from webhooks.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytest_django.fixtures import Settings

    from subscriptions.models import Subscription, Tenant
    from tests.receiver import Receiver

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

RQWORKER = ("rqworker", "default")
Status = Delivery.Status


@pytest.fixture
def valkey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Valkey]:
    """Not started yet."""
    valkey = Valkey(tmp_path)
    monkeypatch.setitem(django_settings.RQ_QUEUES["default"], "URL", valkey.url)
    tasks.forget()
    yield valkey
    if valkey.process is not None:
        valkey.kill()
    tasks.forget()


@pytest.fixture
def env(process_env: dict[str, str], valkey: Valkey) -> dict[str, str]:
    return {**process_env, "REDIS_URL": valkey.url}


@pytest.fixture
def subscription(
    tenant: Tenant, subscribe: Callable[..., Subscription], receiver: Receiver, valkey: Valkey
) -> Subscription:
    return subscribe(tenant, "shop.*", url=receiver.url)


def statuses() -> Counter[str]:
    return Counter(Delivery.objects.values_list("status", flat=True))


def registered(valkey: Valkey) -> int:
    return Worker.count(connection=Redis.from_url(valkey.url))


def test_a_ring_is_heard_at_once_and_sigterm_ends_it_cleanly(  # noqa: PLR0917 - fixtures
    tenant: Tenant, subscription: Subscription, receiver: Receiver, valkey: Valkey, env: dict[str, str], tmp_path: Path
) -> None:
    valkey.start()
    with Process(*RQWORKER, env=env, log=tmp_path / "log") as worker:
        worker.wait_to_say("Listening on")
        wait_for(lambda: registered(valkey) == 1)
        heard = []
        for number in range(1, 6):
            began = time.monotonic()
            make_event(tenant)
            tasks.ring()
            receiver.wait_for(number)
            heard.append(time.monotonic() - began)
        # Not found by its own look every two seconds, which may be the first's luck.
        assert sorted(heard)[2] < 0.5, heard
        wait_for(lambda: statuses() == {Status.DELIVERED: 5})
        assert worker.stop() == 0
    assert "rq.worker" not in worker.text, "RQ speaks of every job"
    assert "Traceback" not in worker.text
    assert registered(valkey) == 0


def test_redis_may_be_away_at_the_start_die_come_back_empty_and_be_wiped(  # noqa: PLR0917 - fixtures
    tenant: Tenant, subscription: Subscription, receiver: Receiver, valkey: Valkey, env: dict[str, str], tmp_path: Path
) -> None:
    with Process(*RQWORKER, env=env, log=tmp_path / "log") as worker:
        make_event(tenant)
        receiver.wait_for(1)

        valkey.start()
        wait_for(lambda: registered(valkey) == 1, what="not registered once Redis is there")
        make_event(tenant)
        receiver.wait_for(2)

        valkey.kill()
        make_event(tenant)
        receiver.wait_for(3)

        valkey.start()
        wait_for(lambda: registered(valkey) == 1, what="not registered again")
        make_event(tenant)
        tasks.ring()
        outages = worker.text
        Redis.from_url(valkey.url).flushall()
        receiver.wait_for(4)

        def registered_after_a_job() -> bool:
            tasks.silence()
            tasks.ring()
            return registered(valkey) == 1

        wait_for(registered_after_a_job, what="not registered after FLUSHALL")

        valkey.kill()
        assert worker.stop() == 0
    assert statuses() == {Status.DELIVERED: 4}
    # Each outage is told once, and its end.
    said = re.findall(r"Redis does not answer|Redis answers again", worker.text)
    assert said[:4] == ["Redis does not answer", "Redis answers again"] * 2
    # A wipe in the very middle of a job is one that RQ itself tells of.
    assert "Traceback" not in outages
    assert "ERROR" not in outages


def test_a_killed_workers_deliveries_go_out_again_after_their_lease_with_the_same_id(
    subscription: Subscription, receiver: Receiver, valkey: Valkey, env: dict[str, str], tmp_path: Path
) -> None:
    made = make_deliveries(subscription, 50)
    receiver.hold()
    with Process(*RQWORKER, env=env, log=tmp_path / "log") as worker:
        receiver.wait_for(10)
        worker.stop(signal.SIGKILL)
    receiver.let_go()
    before = set(receiver.webhook_ids)
    let_leases_end()
    with Process(*RQWORKER, env=env, log=tmp_path / "log") as worker:
        wait_for(lambda: statuses() == {Status.DELIVERED: 50}, timeout=30)
        assert worker.stop() == 0
    times = Counter(receiver.webhook_ids)
    assert set(times) == {delivery.event.webhook_id for delivery in made}
    assert {webhook_id for webhook_id, number in times.items() if number > 1} == before
    lost = Attempt.objects.filter(reason=Attempt.Reason.LOST)
    assert {attempt.delivery.event.webhook_id for attempt in lost} == before


def freeze(worker: Process) -> None:
    """Between two transactions: SQLite would keep its lock for as long."""
    worker.process.send_signal(signal.SIGSTOP)
    while connection.vendor == "sqlite" and is_locked():
        worker.process.send_signal(signal.SIGCONT)
        worker.process.send_signal(signal.SIGSTOP)


def is_locked() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout = 100")
        try:
            cursor.execute("BEGIN IMMEDIATE")
            cursor.execute("ROLLBACK")
        except OperationalError:
            return True
        finally:
            cursor.execute("PRAGMA busy_timeout = 20000")
    return False


def test_a_worker_that_was_frozen_past_its_leases_overwrites_nothing(
    subscription: Subscription, receiver: Receiver, valkey: Valkey, env: dict[str, str], tmp_path: Path
) -> None:
    # No more than it may have in flight, or it might be frozen in the middle of another claim.
    make_deliveries(subscription, 10)
    receiver.hold()
    with Process(*RQWORKER, env=env, log=tmp_path / "frozen") as frozen:
        first = receiver.wait_for(10)
        freeze(frozen)
        receiver.reply = lambda received: Reply(500 if any(received is one for one in first) else 200)
        receiver.let_go()
        let_leases_end()
        with Process(*RQWORKER, env=env, log=tmp_path / "awake") as awake:
            wait_for(lambda: statuses() == {Status.DELIVERED: 10}, timeout=30)
            before = list(Delivery.objects.order_by("pk").values())
            frozen.process.send_signal(signal.SIGCONT)
            # The failures that it wakes up with are written down, on its own attempts only.
            wait_for(lambda: Attempt.objects.filter(number=1, response_status=500).count() == 10, timeout=30)
            assert (frozen.stop(), awake.stop()) == (0, 0)
    assert list(Delivery.objects.order_by("pk").values()) == before
    assert len(receiver.received) == 20
    assert Counter(Attempt.objects.filter(number=2).values_list("reason", flat=True)) == {"": 10}


def test_sigterm_lets_what_is_in_flight_end_and_leaves_the_rest(
    subscription: Subscription, receiver: Receiver, valkey: Valkey, env: dict[str, str], tmp_path: Path
) -> None:
    valkey.start()
    make_deliveries(subscription, 25)
    receiver.hold()
    with Process(*RQWORKER, env=env, log=tmp_path / "log") as worker:
        receiver.wait_for(10)
        worker.process.send_signal(signal.SIGTERM)
        worker.wait_to_say("Stopping: what is in flight may end")
        receiver.let_go()
        assert worker.process.wait(15) == 0
    assert statuses() == {Status.DELIVERED: 10, Status.PENDING: 15}
    assert not Attempt.objects.filter(ended_at=None).exists()


def test_two_workers_send_each_of_500_deliveries_once(
    make_tenant: Callable[..., Tenant],
    subscribe: Callable[..., Subscription],
    receiver: Receiver,
    env: dict[str, str],
    tmp_path: Path,
) -> None:
    for slug in ("acme", "umbrella"):
        tenant = make_tenant(slug)
        for _ in range(5):
            make_deliveries(subscribe(tenant, "shop.*", url=receiver.url), 50)
    logs = [tmp_path / "one", tmp_path / "two"]
    receiver.hold()
    with Process(*RQWORKER, env=env, log=logs[0]) as one, Process(*RQWORKER, env=env, log=logs[1]) as two:
        receiver.wait_for(200, timeout=30)  # more than one of them may have in flight
        receiver.let_go()
        wait_for(lambda: statuses() == {Status.DELIVERED: 500}, timeout=30)
        assert (one.stop(), two.stop()) == (0, 0)
    assert len(receiver.received) == len(set(receiver.webhook_ids)) == 500
    assert list(Attempt.objects.values_list("number", flat=True).distinct()) == [1]
    assert all("Drained" in log.read_text() for log in logs)


@pytest.mark.on("sqlite")
@pytest.mark.parametrize(
    "arguments",
    [
        ("--worker-class", "rq.SimpleWorker", "--serializer", "rq.serializers.JSONSerializer"),
        ("--worker-class", "rq.Worker", "--serializer", "json"),
        (),
    ],
    ids=["rq.SimpleWorker", "rq.Worker", "ours"],
)
def test_any_worker_of_rq_can_drain(  # noqa: PLR0917 - fixtures
    tenant: Tenant,
    subscription: Subscription,
    receiver: Receiver,
    valkey: Valkey,
    env: dict[str, str],
    tmp_path: Path,
    arguments: tuple[str, ...],
) -> None:
    valkey.start()
    make_event(tenant)
    assert tasks.ring()
    with Process(*RQWORKER, "--burst", *arguments, env=env, log=tmp_path / "log") as worker:
        assert worker.process.wait(20) == 0, worker.text
    assert len(receiver.received) == 1, worker.text
    assert statuses() == {Status.DELIVERED: 1}
    # A job leaves nothing behind.
    assert not Redis.from_url(valkey.url).keys("rq:job:*")


@pytest.mark.on("sqlite")
@pytest.mark.parametrize(
    ("verbosity", "shown"), [("0", False), ("1", False), ("2", True)], ids=["quiet", "usual", "verbose"]
)
def test_rq_speaks_of_each_job_only_when_asked_to(
    valkey: Valkey, env: dict[str, str], tmp_path: Path, verbosity: str, shown: bool
) -> None:
    valkey.start()
    assert tasks.ring()
    with Process(*RQWORKER, "--burst", "-v", verbosity, env=env, log=tmp_path / "log") as worker:
        assert worker.process.wait(20) == 0
    assert ("webhooks.drain.run" in worker.text) is shown


@pytest.mark.on("sqlite")
def test_a_database_without_the_tables_is_one_line_that_says_what_to_do(
    valkey: Valkey, env: dict[str, str], tmp_path: Path
) -> None:
    env |= {"DATABASE_URL": f"sqlite:///{tmp_path / 'empty.sqlite3'}", "SIGNALPOST_DATABASES": "default"}
    with Process(*RQWORKER, "--skip-checks", env=env, log=tmp_path / "log") as worker:
        worker.wait_to_say("has manage.py migrate been run?")
        worker.stop()
    (line,) = [line for line in worker.text.splitlines() if "no such table" in line]
    assert "ERROR webhooks.drain: The database refuses" in line
    assert "Traceback" not in worker.text


@pytest.mark.on("sqlite")
def test_what_a_job_raises_is_shown(valkey: Valkey, env: dict[str, str], tmp_path: Path) -> None:
    valkey.start()
    queue = Queue("default", connection=Redis.from_url(valkey.url), serializer=JSONSerializer)
    queue.enqueue("redis.Redis.from_url", "nonsense://")
    queue.enqueue("tests.servers.raise_connection_error")
    with Process(*RQWORKER, "--burst", env=env, log=tmp_path / "log") as worker:
        assert worker.process.wait(20) == 0
    assert "Redis URL must specify" in worker.text
    assert "of a job's own" in worker.text


@pytest.mark.on("sqlite")
def test_pickled_jobs_are_not_read(valkey: Valkey, env: dict[str, str], tmp_path: Path) -> None:
    valkey.start()
    queue = Queue("default", connection=Redis.from_url(valkey.url))
    queue.enqueue("webhooks.drain.run")
    with Process(*RQWORKER, "--burst", env=env, log=tmp_path / "log") as worker:
        assert worker.process.wait(20) == 0
    assert queue.failed_job_registry.count == 1


@pytest.mark.on("sqlite")
def test_the_serializer_is_json_whatever_is_asked_for(valkey: Valkey) -> None:
    valkey.start()
    client = Redis.from_url(valkey.url)
    worker = Worker([Queue("default", connection=client)], connection=client, serializer="pickle")
    assert worker.serializer is JSONSerializer
    Worker.all(connection=client)


@pytest.mark.on("sqlite")
def test_a_thread_whose_connection_is_closed_on_purpose_does_not_complain(valkey: Valkey) -> None:
    valkey.start()
    client = Redis.from_url(valkey.url)
    worker = Worker([Queue("default", connection=client)], connection=client)
    worker.subscribe()  # type: ignore[no-untyped-call]
    pubsub, thread = worker.pubsub, worker.pubsub_thread
    assert pubsub is not None
    with pytest.raises(ValueError, match="a mistake"):
        worker._pubsub_exception_handler(ValueError("a mistake"), pubsub, thread)
    worker.unsubscribe()
    worker._pubsub_exception_handler(ValueError("closed"), pubsub, thread)
    thread.join(30)
    assert not thread.is_alive()
    client.close()


@pytest.mark.on("sqlite")
def test_a_worker_that_may_run_one_job_ends_after_it(  # noqa: PLR0917 - fixtures
    tenant: Tenant, subscription: Subscription, receiver: Receiver, valkey: Valkey, env: dict[str, str], tmp_path: Path
) -> None:
    valkey.start()
    make_event(tenant)
    tasks.ring()
    with Process(*RQWORKER, "--max-jobs", "1", env=env, log=tmp_path / "log") as worker:
        assert worker.process.wait(20) == 0, worker.text
    assert statuses() == {Status.DELIVERED: 1}


@pytest.mark.on("sqlite")
@pytest.mark.parametrize(
    ("soft", "hard", "then", "says"),
    [
        (4096, 4096, None, ""),
        (1024, 1 << 20, 1524, ""),
        (1024, resource.RLIM_INFINITY, 1524, ""),
        (1024, 1200, 1200, "The system allows 1200 open files, of the 1524 that SIGNALPOST_IN_FLIGHT takes"),
    ],
)
def test_a_worker_asks_for_the_files_that_it_takes(  # noqa: PLR0917 - fixtures
    monkeypatch: pytest.MonkeyPatch,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    soft: int,
    hard: int,
    then: int | None,
    says: str,
) -> None:
    asked: list[tuple[int, int]] = []
    settings.SIGNALPOST_IN_FLIGHT = 1000
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    worker._make_room()
    assert asked == ([(then, hard)] if then else [])
    assert caplog.messages == ([says] if says else [])

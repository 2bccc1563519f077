from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings
from django.db import InterfaceError, OperationalError
from redis import Redis
from rq.cron import CronScheduler

from subscriptions.conf import conf
from tests.servers import Process, Valkey, wait_for
from webhooks import cron, rollups, tasks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_django.fixtures import Settings

pytestmark = pytest.mark.django_db

QUEUE = "rq:queue:default"


@pytest.fixture
def valkey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Valkey]:
    with Valkey(tmp_path) as valkey:
        monkeypatch.setitem(settings.RQ_QUEUES["default"], "URL", valkey.url)
        tasks.forget()
        yield valkey
    tasks.forget()


@pytest.fixture
def redis(valkey: Valkey) -> Any:
    return Redis.from_url(valkey.url)


def test_the_clock_rings_every_sweep(valkey: Valkey, redis: Any, settings: Settings) -> None:
    settings.SIGNALPOST_SWEEP_SECONDS = 7.0
    clock = cron.clock()
    job, keeping = clock.get_jobs()
    assert (job.interval, job.queue_name) == (7, conf.queue)
    assert clock.enqueue_jobs() == [job, keeping]
    assert redis.llen(QUEUE) == 1
    assert clock.enqueue_jobs() == []
    assert 6 < clock.calculate_sleep_interval() <= 7


def test_it_keeps_the_counts_every_ten_minutes(monkeypatch: pytest.MonkeyPatch, valkey: Valkey) -> None:
    kept: list[int] = []
    monkeypatch.setattr(rollups, "keep", lambda: kept.append(1))
    clock = cron.clock()
    _, job = clock.get_jobs()
    assert job.interval == 600
    clock.enqueue_jobs()
    clock.enqueue_jobs()
    assert kept == [1]


@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
def test_a_database_that_refuses_does_not_stop_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: type[Exception]
) -> None:
    def refuse() -> None:
        raise error("the server went away")

    monkeypatch.setattr(rollups, "keep", refuse)
    cron.keep()
    (line,) = caplog.messages
    assert line.startswith("Hours are not added up to days: ")


def test_two_clocks_ring_once(valkey: Valkey, redis: Any) -> None:
    cron.clock().enqueue_jobs()
    cron.clock().enqueue_jobs()
    assert redis.llen(QUEUE) == 1


def test_what_it_rings_for_is_an_ordinary_ring(valkey: Valkey, redis: Any) -> None:
    cron.clock().enqueue_jobs()
    (job_id,) = redis.lrange(QUEUE, 0, -1)
    job = redis.hgetall(b"rq:job:" + job_id)
    assert (job[b"result_ttl"], job[b"ttl"]) == (b"0", str(tasks.JOB_TTL).encode())


def test_it_is_shown_among_rqs_schedulers_until_it_stops(
    valkey: Valkey, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = cron.clock()
    shown: list[str] = []

    def sleep(seconds: float) -> None:
        shown.extend(scheduler.name for scheduler in CronScheduler.all(redis))
        clock._stopped = True

    monkeypatch.setattr(clock, "_install_signal_handlers", lambda: None)
    # Its own name for the module: the server's end is waited for with the other.
    monkeypatch.setattr(cron, "time", SimpleNamespace(sleep=sleep))
    clock.start()
    assert shown == [clock.name]
    assert CronScheduler.all(redis) == []


def test_a_signal_in_the_middle_of_a_ring_stops_it(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = cron.clock()
    monkeypatch.setattr(clock, "_install_signal_handlers", lambda: None)

    def interrupted(door: Any) -> bool:
        clock._request_stop(signal.SIGTERM, None)
        return True

    monkeypatch.setattr(tasks.Door, "ring", interrupted)
    monkeypatch.setattr(cron, "time", SimpleNamespace(sleep=lambda seconds: None))
    clock.start()


@pytest.mark.on("sqlite")
def test_the_process_outlives_redis_and_ends_cleanly(
    valkey: Valkey, redis: Any, process_env: dict[str, str], tmp_path: Path
) -> None:
    env = {**process_env, "REDIS_URL": valkey.url, "SIGNALPOST_SWEEP_SECONDS": "1"}
    valkey.kill()
    with Process("clock", env=env, log=tmp_path / "log") as clock:
        clock.wait_to_say("Redis cannot be rung")
        for _ in range(2):
            valkey.start()
            wait_for(lambda: redis.llen(QUEUE) == 1)
            wait_for(lambda: len(CronScheduler.all(redis)) == 1)
            redis.flushall()
            wait_for(lambda: redis.llen(QUEUE) == 1)
            valkey.kill()
        assert clock.process.poll() is None
        assert clock.stop() == 0
    assert "Traceback" not in clock.text

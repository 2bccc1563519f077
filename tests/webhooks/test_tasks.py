from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings
from django.db import transaction
from redis import Redis

from subscriptions.conf import conf
from tests.servers import Valkey
from webhooks import tasks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BELL = "signalpost:bell:default"
QUEUE = "rq:queue:default"


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`use(url)`: what the queue's settings say from now on."""

    def change(url: str) -> Redis:
        monkeypatch.setitem(settings.RQ_QUEUES["default"], "URL", url)
        tasks.forget()
        return Redis.from_url(url)

    yield change
    tasks.forget()


@pytest.fixture
def redis(use: Any, redis_url: str) -> Redis:
    client: Redis = use(redis_url)
    client.flushdb()
    return client


def jobs(client: Any) -> list[dict[bytes, bytes]]:
    return [client.hgetall(b"rq:job:" + key) for key in client.lrange(QUEUE, 0, -1)]


def test_a_ring_enqueues_one_drain(redis: Redis) -> None:
    assert tasks.ring()
    (job,) = jobs(redis)
    name, _, arguments, named = json.loads(zlib.decompress(job[b"data"]))
    assert (name, arguments, named) == ("webhooks.drain.run", [], {})
    assert job[b"result_ttl"] == b"0"
    assert 0 < redis.ttl(BELL) <= tasks.BELL_SECONDS


def test_the_job_outlasts_no_outage_and_no_hung_database(redis: Redis) -> None:
    tasks.ring()
    (job,) = jobs(redis)
    assert int(job[b"ttl"]) == tasks.JOB_TTL
    assert int(job[b"failure_ttl"]) == tasks.FAILURE_TTL
    assert int(job[b"timeout"]) > tasks.LONGEST_RUN + conf.total_timeout


def test_who_rings_while_the_bell_rings_enqueues_nothing(redis: Redis) -> None:
    assert tasks.ring()
    assert not tasks.ring()
    assert len(jobs(redis)) == 1


def test_after_a_silence_a_ring_is_heard_again(redis: Redis) -> None:
    tasks.ring()
    assert tasks.silence()
    assert not tasks.silence()
    assert tasks.ring()
    assert len(jobs(redis)) == 2


def test_many_rings_use_one_connection(use: Any, tmp_path: Path) -> None:
    # A server of its own, since it counts everybody's connections.
    with Valkey(tmp_path) as valkey:
        client = use(valkey.url)
        tasks.ring()
        before = client.info("stats")["total_connections_received"]
        for _ in range(50):
            tasks.ring()
            tasks.silence()
        assert client.info("stats")["total_connections_received"] == before


def test_a_ring_inside_a_transaction_does_not_wait_for_its_commit(redis: Redis, transactional_db: None) -> None:
    with transaction.atomic():
        assert tasks.ring()
        assert len(jobs(redis)) == 1


def test_a_queue_that_is_not_asynchronous_still_does_not_deliver_in_the_commit(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(settings.RQ_QUEUES["default"], "ASYNC", False)
    tasks.forget()
    assert tasks.ring()
    assert len(jobs(redis)) == 1


def test_without_redis_a_ring_is_a_warning_once_per_outage(
    use: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "PAUSE", 0)
    monkeypatch.setattr(tasks, "PAUSE_PER_SECOND_LOST", 0)
    valkey = Valkey(tmp_path)
    use(valkey.url)
    with caplog.at_level(logging.INFO, "webhooks.tasks"):
        assert [tasks.ring(), tasks.silence(), tasks.ring()] == [False, False, False]
        with valkey:
            time.sleep(0)
            assert _until_true(tasks.ring)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def _until_true(act: Any) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if act():
            return True
    return False


def test_after_a_failure_the_next_rings_do_not_even_try(use: Any, tmp_path: Path) -> None:
    use(Valkey(tmp_path).url)
    tasks.ring()
    began = time.monotonic()
    for _ in range(1_000):
        assert not tasks.ring()
    assert time.monotonic() - began < 0.5


def test_a_redis_that_hangs_costs_a_commit_half_a_second_and_then_a_long_nothing(use: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        use(f"redis://127.0.0.1:{deaf.getsockname()[1]}/0")
        began = time.monotonic()
        assert not tasks.ring()
        lost = time.monotonic() - began
        assert tasks.PATIENCE <= lost < 6 * tasks.PATIENCE
        assert tasks._door is not None
        assert tasks._door.closed_until - time.monotonic() > 15 * lost


def test_an_interrupted_ring_leaves_no_answer_for_the_next_one(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tasks.ring()
    assert tasks._door is not None

    def interrupted() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(tasks._door.line.connection, "read_response", interrupted)
        tasks.silence()
        with pytest.raises(KeyboardInterrupt):
            tasks.ring()
    assert redis.exists(BELL)
    # The interrupted one's answer, read now, would say that this one rang first.
    assert not tasks.ring()


def test_a_ring_does_not_wait_for_another_threads_answer(redis: Redis) -> None:
    tasks.ring()
    tasks.silence()
    assert tasks._door is not None
    with tasks._door.line.busy:
        assert tasks.ring()
        assert not tasks.ring()
    assert len(jobs(redis)) == 2


def test_a_redis_that_refuses_the_bell_is_a_warning(use: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Valkey(tmp_path) as valkey:
        client = use(valkey.url)
        assert tasks.ring()
        client.config_set("min-replicas-to-write", 1)
        assert not tasks.ring()
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_restarted_redis_is_rung_at_the_first_try(use: Any, tmp_path: Path) -> None:
    with Valkey(tmp_path) as valkey:
        use(valkey.url)
        assert tasks.ring()
        valkey.kill()
        valkey.start()
        assert tasks.ring()


def test_flushall_takes_the_bell_with_the_job(redis: Redis) -> None:
    tasks.ring()
    redis.flushdb()
    assert tasks.ring()
    assert len(jobs(redis)) == 1


def test_settings_that_make_no_connection_fail_no_commit(
    use: Any, caplog: pytest.LogCaptureFixture, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(redis_url)
    monkeypatch.setitem(settings.RQ_QUEUES["default"], "URL", "nonsense://")
    assert not tasks.ring()
    assert not tasks.ring()
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_child_process_makes_its_own_connection(redis: Redis) -> None:
    tasks.ring()
    tasks.silence()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child
        os.write(writing, b"heard" if tasks.ring() else b"lost")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 10) == b"heard"
    assert not tasks.ring()
    assert tasks.silence()
    assert tasks.ring()


def test_of_many_threads_one_enqueues(redis: Redis) -> None:
    tasks.forget()
    start, rung = threading.Barrier(16), []

    def ring() -> None:
        start.wait()
        rung.append(tasks.ring())

    threads = [threading.Thread(target=ring) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(rung) == [False] * 15 + [True]
    assert len(jobs(redis)) == 1

"""Redis is a doorbell: whatever becomes of it, nothing is lost, and no save fails."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest
from redis import Redis

from tests.faults.world import PATIENT, frozen
from tests.servers import wait_for
from webhooks.models import Event

if TYPE_CHECKING:
    from tests.faults.world import World

# By itself, so that it can only have heard a ring.
RARELY = {"SIGNALPOST_LOOK_SECONDS": "300"}


def ask(world: World, *words: str) -> object:
    with Redis.from_url(world.valkey.url) as client:
        return client.execute_command(*words)


def test_everything_in_redis_is_wiped_with_a_backlog(world: World) -> None:
    world.subscribe("one", "two")
    world.sell(30)
    assert ask(world, "DBSIZE")
    ask(world, "FLUSHALL")
    assert ask(world, "DBSIZE") == 0
    world.worker()
    world.all_delivered(60)


def test_everything_in_redis_is_wiped_again_and_again_while_a_worker_drains(world: World) -> None:
    world.subscribe("one", "two")
    world.working()
    for _ in range(3):
        world.sell(10)
        ask(world, "FLUSHALL")
    world.all_delivered(60)


def test_a_worker_that_only_listens_hears_the_clock_after_a_wipe(world: World) -> None:
    """The bell and the job are gone, and nobody else would ring."""
    world.subscribe("one")
    worker = world.working(**RARELY)
    world.sell(6)
    wait_for(lambda: world.delivered() == 6)
    worker.process.send_signal(signal.SIGSTOP)
    wait_for(lambda: frozen(worker))
    world.sell(6)
    ask(world, "FLUSHALL")
    worker.process.send_signal(signal.SIGCONT)
    world.start("clock")
    world.all_delivered(12)


def test_redis_is_killed_and_comes_back_empty(world: World) -> None:
    world.subscribe("one", "two")
    worker = world.working(**PATIENT)
    world.start("clock")
    world.receiver.hold("/one")
    world.sell(10)
    world.receiver.wait_until(lambda received: sum(each.path == "/one" for each in received) == 10)
    world.valkey.kill()
    world.receiver.let_go()
    world.valkey.start()
    worker.wait_to_say("Redis answers again", timeout=40)
    world.sell(10)
    arrived = world.all_delivered(40)
    assert set(arrived.values()) == {1}


def test_redis_is_down_at_the_commit(world: World) -> None:
    """The save succeeds, is not kept waiting, and is sent before Redis is back."""
    world.subscribe("one")
    world.working()
    world.start("clock")
    world.valkey.kill()
    began = time.monotonic()
    world.sell(60)
    assert time.monotonic() - began < 30  # of which most is the start of a process
    world.all_delivered(60)
    late = world.worker()
    late.wait_to_say("looking without it", timeout=40)
    world.sell(6)
    world.all_delivered(66)
    world.valkey.start()
    late.wait_to_say("Listening on", timeout=40)
    world.sell(6)
    world.all_delivered(72)


@pytest.mark.parametrize(
    ("words", "back"),
    [
        (["REPLICAOF", "127.0.0.1", "1"], ["REPLICAOF", "NO", "ONE"]),
        (["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"]),
        (["CONFIG", "SET", "min-replicas-to-write", "1"], ["CONFIG", "SET", "min-replicas-to-write", "0"]),
    ],
    ids=["read-only", "out of memory", "without its replicas"],
)
def test_redis_refuses_to_write(world: World, words: list[str], back: list[str]) -> None:
    world.subscribe("one")
    world.working()
    clock = world.start("clock")
    ask(world, *words)
    world.sell(12)
    world.all_delivered(12)
    world.worker()
    world.sell(12)
    world.all_delivered(24)
    ask(world, *back)
    assert clock.process.poll() is None
    assert all(each.process.poll() in {None, 0} for each in world.processes)
    world.sell(6)
    world.all_delivered(30)


def test_redis_hangs(world: World) -> None:
    """It accepts, and does not answer: a save waits for it a moment, not for ever."""
    world.subscribe("one")
    world.working()
    ask(world, "CLIENT", "PAUSE", "20000")
    began = time.monotonic()
    world.sell(60)
    assert time.monotonic() - began < 15
    world.all_delivered(60)
    assert Event.objects.count() == 60

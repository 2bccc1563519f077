"""The clock that rings, the clocks of the machines, and drains that meet."""

from __future__ import annotations

import json
import signal
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from django.db.models.functions import Now
from redis import Redis

from subscriptions.models import Subscription
from tests.faults.world import PATIENT
from tests.servers import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.world import World
    from tests.receiver import Received

HOUR = 3600
RARELY = {"SIGNALPOST_LOOK_SECONDS": "300"}


def test_the_clock_is_killed(world: World) -> None:
    """Workers look by themselves, and the next clock goes on where it was."""
    world.subscribe("one")
    world.working()
    clock = world.start("clock")
    wait_for(lambda: rings(world) > 0, timeout=40)
    clock.stop(signal.SIGKILL)
    world.sell(12, fault="committed=SIGKILL@3", status=-signal.SIGKILL)
    arrived = world.reconcile()
    assert len(arrived) == 7
    world.start("clock")
    world.sell(12)
    world.all_delivered(19)


def test_two_clocks_ring_and_nothing_is_sent_twice(world: World) -> None:
    world.subscribe("one", "two")
    world.working(**PATIENT)
    clocks = [world.start("clock", SIGNALPOST_SWEEP_SECONDS="1") for _ in range(2)]
    wait_for(lambda: rings(world) >= 3, timeout=40)
    world.sell(30)
    arrived = world.all_delivered(60)
    assert set(arrived.values()) == {1}
    assert [clock.stop() for clock in clocks] == [0, 0]


def test_a_clock_alone_brings_a_sleeping_worker_to_what_nobody_rang_for(world: World) -> None:
    world.subscribe("one")
    world.working(**RARELY)
    world.sell(6)
    wait_for(lambda: world.delivered() == 6)
    world.sell(6, fault="committed=SIGKILL", status=-signal.SIGKILL)
    assert world.delivered() == 6
    world.start("clock")
    world.all_delivered(7)


def rings(world: World) -> int:
    """What clocks and scripts have asked of Redis: the bell is set, or there already."""
    with Redis.from_url(world.valkey.url) as client:
        return int(client.info("commandstats").get("cmdstat_set", {}).get("calls", 0))


def test_two_drains_started_by_hand_at_once_share_the_work(world: World) -> None:
    world.subscribe(*map(str, range(10)))
    world.sell(40)
    drains = [world.start("drain", **PATIENT) for _ in range(2)]
    assert [drain.process.wait(60) for drain in drains] == [0, 0]
    arrived = world.all_delivered(400)
    assert set(arrived.values()) == {1}
    done: Counter[str] = Counter()
    for drain in drains:
        done.update(json.loads(drain.text.splitlines()[-1]))
    assert (done["events"], done["claimed"], done["delivered"]) == (40, 400, 400)


def test_a_drain_by_hand_beside_a_worker(world: World) -> None:
    world.subscribe(*map(str, range(10)))
    worker = world.working(**PATIENT)
    world.sell(40)
    drain = world.start("drain", **PATIENT)
    assert drain.process.wait(60) == 0
    arrived = world.all_delivered(400)
    assert set(arrived.values()) == {1}
    assert worker.stop() == 0


def test_the_time_steps_an_hour_forth_and_back_between_claim_and_record(world: World, tmp_path: Path) -> None:
    """Leases are on the database's clock. PostgreSQL's is another machine's,
    and right: nothing is sent twice. SQLite's is the machine's own: a step
    forth ends every lease, and what is in flight may go out again, under the
    same id; a step back keeps nothing from being recorded."""
    clock = tmp_path / "clock"
    clock.write_text("0")
    wrong = {"FAULT_CLOCK": str(clock), **PATIENT}
    world.subscribe("one")
    workers = [world.working(**wrong) for _ in range(2)]
    arrived: Counter[tuple[str, str]] = Counter()
    for number, step in enumerate((HOUR, 0, -HOUR, 0), start=1):
        world.receiver.hold("/one")
        world.sell(6, env=wrong)
        world.receiver.wait_until(partial(are_distinct, 6 * number))
        clock.write_text(str(step))
        world.receiver.let_go()
        arrived = world.all_delivered(6 * number)
    if world.postgresql:
        assert set(arrived.values()) == {1}
    assert [worker.stop() for worker in workers] == [0, 0]


def test_an_application_whose_clock_is_an_hour_slow_is_heard_by_who_subscribed_just_now(
    world: World, tmp_path: Path
) -> None:
    """By the clocks the subscription came after the event. It was there, all the same."""
    clock = tmp_path / "clock"
    clock.write_text(str(-HOUR))
    world.subscribe("one")
    Subscription.objects.update(created_at=Now())
    world.working()
    world.sell(6, env={"FAULT_CLOCK": str(clock)})
    world.all_delivered(6)


def are_distinct(number: int, received: list[Received]) -> bool:
    return len({each.webhook_id for each in received}) == number

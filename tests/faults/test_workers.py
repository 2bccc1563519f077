"""Workers that are killed, frozen and told to stop, at every step of the drain."""

from __future__ import annotations

import resource
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.world import PATIENT, frozen
from tests.receiver import Reply
from tests.servers import wait_for
from webhooks.models import Attempt, Delivery, Event

if TYPE_CHECKING:
    from tests.faults.world import World
    from tests.receiver import Received

KILLED = -signal.SIGKILL


# What a worker that died at this moment had sent, and what the database knew of it.
@pytest.mark.parametrize(
    ("moment", "sent", "leased"),
    [
        ("matching", False, False),
        ("matched", False, False),
        ("fanned out", False, False),
        ("leased", False, False),
        ("claimed", False, True),
        ("answered", True, True),
        ("recording", True, True),
        ("recorded", True, None),
    ],
)
def test_a_worker_killed_at_any_step_loses_nothing(world: World, moment: str, sent: bool, leased: bool | None) -> None:
    world.subscribe("one", "two")
    world.sell(12)
    doomed = world.worker(FAULT=f"{moment}=SIGKILL")
    assert doomed.process.wait(40) == KILLED, doomed.text
    assert bool(world.receiver.received) is sent
    if leased is not None:
        assert Delivery.objects.filter(leased_until__isnull=False).exists() is leased
        assert Attempt.objects.filter(ended_at=None).exists() is leased
        assert world.delivered() == 0
    world.worker()
    arrived = world.all_delivered(24)
    if moment != "recorded":  # when others may have been on their way
        assert max(arrived.values()) == (2 if sent else 1)


def test_a_worker_killed_in_the_middle_of_its_requests_sends_them_again_under_the_same_id(world: World) -> None:
    world.subscribe("one", "two")
    world.sell(6)
    world.receiver.hold("/one")
    doomed = world.worker()
    world.receiver.wait_until(lambda received: sum(each.path == "/one" for each in received) == 6, timeout=40)
    wait_for(lambda: world.delivered() == 6)
    assert doomed.stop(signal.SIGKILL) == KILLED
    world.receiver.let_go()
    world.worker()
    arrived = world.all_delivered(12)
    times = {path: {number for (at, _), number in arrived.items() if at == path} for path in ("one", "two")}
    assert times == {"one": {2}, "two": {1}}


def test_workers_killed_one_after_the_other_lose_nothing(world: World) -> None:
    world.subscribe(*map(str, range(20)))
    world.sell(20)
    for moment in ("claimed", "recording", "answered"):
        doomed = world.worker(FAULT=f"{moment}=SIGKILL")
        assert doomed.process.wait(40) == KILLED, doomed.text
    world.worker()
    world.all_delivered(400)


def test_a_worker_frozen_with_its_claims_does_not_send_on_waking(world: World) -> None:
    world.subscribe("one", "two")
    world.sell(10)
    sleeper = world.worker(FAULT="claimed=SIGSTOP")
    wait_for(lambda: frozen(sleeper), timeout=40)
    world.worker()
    world.settle()
    assert world.delivered() == 20
    sleeper.process.send_signal(signal.SIGCONT)
    sleeper.wait_to_say("Listening on", timeout=40)
    # It has come to its senses once it has taken what is new.
    world.sell(5)
    arrived = world.all_delivered(30)
    assert set(arrived.values()) == {1}
    assert sleeper.stop() == 0


def test_a_worker_frozen_in_the_middle_of_its_requests_overwrites_nothing(world: World) -> None:
    """It wakes to the answers of before, when another has sent again and been refused."""
    world.subscribe("one")
    times: Counter[str] = Counter()
    awake = threading.Event()

    def reply(received: Received) -> Reply:
        times[received.webhook_id] += 1
        return Reply(status=200 if times[received.webhook_id] == 1 or awake.is_set() else 500)

    world.receiver.reply = reply
    world.receiver.hold("/one")
    world.sell(6)
    sleeper = world.worker()
    world.receiver.wait_for(6, timeout=40)
    sleeper.process.send_signal(signal.SIGSTOP)
    wait_for(lambda: frozen(sleeper))
    world.receiver.let_go()
    wait_for(lambda: len(times) == 6)
    world.worker()
    wait_for(lambda: Attempt.objects.filter(number=2, reason="status").count() == 6, timeout=40)
    sleeper.process.send_signal(signal.SIGCONT)
    awake.set()
    world.all_delivered(6)
    for delivery in Delivery.objects.all():
        numbers = delivery.attempts.order_by("number").values_list("number", flat=True)
        assert [*numbers] == [*range(1, delivery.attempt_count + 1)]


def test_sigterm_among_500_slow_requests(world: World) -> None:
    """Claims nothing more, and ends within 20 s with all of them recorded,
    although half of the receivers never answer: with the times as shipped."""
    times = {"TOTAL_TIMEOUT": "20", "REQUEST_TIMEOUT": "15", "CONNECT_TIMEOUT": "5", "LEASE_SECONDS": "45"}
    shipped = {f"SIGNALPOST_{name}": value for name, value in {**times, "IN_FLIGHT": "500"}.items()}
    world.subscribe(*map(str, range(50)))
    for path in range(50):
        world.receiver.hold(f"/{path}")
    world.sell(12)
    worker = world.worker(**shipped)
    world.receiver.wait_for(500, timeout=60)
    assert Delivery.objects.count() == 600
    asked = time.monotonic()
    worker.process.send_signal(signal.SIGTERM)
    worker.wait_to_say("Stopping", timeout=20)
    world.receiver.let_go(*(f"/{path}" for path in range(25)))
    assert worker.process.wait(30) == 0, worker.text
    assert time.monotonic() - asked < 20
    assert len(world.receiver.received) == Attempt.objects.count() == 500
    assert world.delivered() == 250
    assert Attempt.objects.filter(reason="timeout").count() == 250
    assert not Delivery.objects.filter(leased_until__isnull=False).exists()
    world.receiver.let_go()
    world.worker(**PATIENT)
    arrived = world.all_delivered(600)
    assert max(arrived.values()) == 2


def test_sigterm_to_the_whole_group_stops_it_whole(world: World) -> None:
    """As Ctrl-C does, and as some supervisors do."""
    world.subscribe("one")
    worker = world.working()
    world.sell(10)
    world.receiver.wait_for(1)
    for _ in range(2):  # and once more, out of impatience
        worker.process.send_signal(signal.SIGINT)
    assert worker.process.wait(20) in {0, -signal.SIGINT}
    world.worker()
    world.all_delivered(10)


@pytest.mark.parametrize(("commit", "committed"), [(1, 0), (2, 1)], ids=["alone", "in a transaction"])
def test_a_change_whose_application_dies_before_the_commit_was_never_made(
    world: World, commit: int, committed: int
) -> None:
    world.subscribe("one")
    world.sell(6, status=KILLED, fault=f"committing=SIGKILL@{commit}")
    assert Event.objects.count() == committed
    world.worker()
    world.all_delivered(committed)


def test_an_application_that_dies_between_commit_and_ring_has_its_events_sent(world: World) -> None:
    world.subscribe("one")
    world.sell(6, status=KILLED, fault="committed=SIGKILL@2")
    assert Event.objects.count() == 6
    world.worker()
    world.all_delivered(6)


def test_a_worker_that_runs_out_of_files_fails_no_delivery(world: World) -> None:
    """What this machine lacks is no receiver's fault: no attempt is spent on it."""
    world.subscribe(*map(str, range(30)))
    for path in range(30):
        world.receiver.hold(f"/{path}")
    worker = world.working(**PATIENT)
    files = len([*Path(f"/proc/{worker.process.pid}/fd").iterdir()]) + 40
    resource.prlimit(worker.process.pid, resource.RLIMIT_NOFILE, (files, files))
    world.sell(10)
    world.receiver.wait_for(20, timeout=40)
    worker.wait_to_say("no room for so many requests", timeout=20)
    world.receiver.let_go()
    world.all_delivered(300)
    assert set(Delivery.objects.values_list("attempt_count", flat=True)) == {1}
    assert not Attempt.objects.exclude(reason="").exists()

"""The database is the truth: what it has committed is sent, however it was away meanwhile."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection, connections

from tests.faults.cluster import Cluster, Disk, Folder, UnavailableError
from tests.faults.conftest import environment
from tests.faults.world import PATIENT, migrate
from tests.servers import wait_for
from webhooks.models import Attempt, Delivery, Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.faults.world import World
    from tests.servers import Process


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Folder() as folder:
        try:
            made = Cluster(folder)
        except UnavailableError as why:
            pytest.skip(str(why))
        with made:
            yield made


@pytest.fixture
def on_cluster(
    cluster: Cluster, make_world: Callable[[Mapping[str, Any]], World], tmp_path: Path
) -> tuple[Cluster, World]:
    migrate(environment(cluster.place, tmp_path))
    return cluster, make_world(cluster.place)


@pytest.mark.only("postgresql")
@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_postgresql_is_restarted_while_requests_are_in_flight(on_cluster: tuple[Cluster, World], mode: str) -> None:
    cluster, world = on_cluster
    world.subscribe("one", "two")
    worker = world.working(**PATIENT)
    world.receiver.hold("/one")
    world.sell(12)
    # Ten of one subscription at once is the cap.
    world.receiver.wait_until(lambda received: sum(each.path == "/one" for each in received) == 10, timeout=40)
    cluster.stop(mode=mode)
    world.receiver.let_go()
    worker.wait_to_say("The database refuses", timeout=40)
    cluster.start()
    world.sell(6)
    arrived = world.all_delivered(36)
    assert set(arrived.values()) == {1}  # what came back meanwhile was kept, and recorded
    assert worker.stop() == 0


@pytest.mark.only("postgresql")
def test_postgresql_is_restarted_again_and_again(on_cluster: tuple[Cluster, World]) -> None:
    cluster, world = on_cluster
    world.subscribe(*map(str, range(20)))
    world.sell(24)
    world.worker()
    world.worker()
    for part in (50, 150, 300):
        wait_for(partial(arrived_at, world, part), timeout=40)
        cluster.stop(mode="immediate")
        cluster.start()
    world.all_delivered(480, timeout=60)


def arrived_at(world: World, number: int) -> bool:
    return world.delivered() >= number


@pytest.mark.only("postgresql")
def test_a_worker_that_starts_without_its_database_waits_for_it(on_cluster: tuple[Cluster, World]) -> None:
    cluster, world = on_cluster
    world.subscribe("one")
    world.sell(6)
    worker = world.working()
    world.all_delivered(6)
    cluster.stop(mode="fast")
    worker.wait_to_say("The database refuses", timeout=40)
    world.sell(6, status=1)
    cluster.start()
    worker.wait_to_say("The database answers again", timeout=40)
    world.sell(6)
    world.all_delivered(12)


@pytest.mark.only("postgresql")
def test_postgresql_takes_no_writes_for_a_while(on_cluster: tuple[Cluster, World]) -> None:
    """As when another server takes over, and this one answers on."""
    cluster, world = on_cluster
    world.subscribe("one")
    worker = world.working(**PATIENT)
    world.receiver.hold("/one")
    world.sell(6)
    world.receiver.wait_for(6, timeout=40)
    cluster.tell("ALTER SYSTEM SET default_transaction_read_only = on")
    world.receiver.let_go()
    worker.wait_to_say("The database refuses", timeout=40)
    world.sell(6, status=1)
    cluster.tell("SET default_transaction_read_only = off", "ALTER SYSTEM RESET default_transaction_read_only")
    worker.wait_to_say("The database answers again", timeout=40)
    world.sell(6)
    assert set(world.all_delivered(12).values()) == {1}  # what came back meanwhile was kept


@pytest.mark.only("postgresql")
def test_connections_are_cut_all_the_time(world: World) -> None:
    world.subscribe(*map(str, range(20)))
    world.sell(24)
    stop = threading.Event()
    cut = Counter[str]()

    def cutting() -> None:
        """All but its own; as a failover, or an impatient administrator."""
        with closing(connections.create_connection("default")) as own:
            own.settings_dict = connections["default"].settings_dict
            with own.cursor() as cursor:
                while not stop.wait(0.15):
                    cursor.execute(
                        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    )
                    cut["connections"] += cursor.fetchone()[0]

    workers = [world.working() for _ in range(2)]
    thread = threading.Thread(target=cutting)
    thread.start()
    try:
        wait_for(lambda: cut["connections"] >= 20 and world.delivered() >= 100, timeout=60)
    finally:
        stop.set()
        thread.join()
    world.all_delivered(480, timeout=60)
    assert [worker.stop() for worker in workers] == [0, 0]


@contextmanager
def write_lock(path: str) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@pytest.mark.only("sqlite")
def test_sqlite_is_locked_for_longer_than_anybody_waits(world: World) -> None:
    """What came back meanwhile is kept, and recorded once."""
    impatient = {"FAULT_BUSY_TIMEOUT": "0.3", **PATIENT}
    world.subscribe("one", "two")
    worker = world.working(**impatient)
    world.receiver.hold("/one")
    world.sell(12)
    world.receiver.wait_until(lambda received: sum(each.path == "/one" for each in received) == 10, timeout=40)
    wait_for(lambda: world.delivered() == 12)
    with write_lock(str(connection.settings_dict["NAME"])):
        world.receiver.let_go()
        worker.wait_to_say("The database refuses (OperationalError: database is locked)", timeout=40)
        world.sell(1, status=1, env=impatient)
        assert world.delivered() == 12
    arrived = world.all_delivered(24)
    assert set(arrived.values()) == {1}
    assert worker.stop() == 0


@pytest.fixture
def disk() -> Iterator[Callable[[int], Disk]]:
    with ExitStack() as stack:
        folder = stack.enter_context(Folder())

        def mount(megabytes: int) -> Disk:
            try:
                return stack.enter_context(Disk(folder, megabytes=megabytes))
            except UnavailableError as why:
                pytest.skip(str(why))

        yield mount


def fill_up(world: World, disk: Disk) -> Process:
    """A worker's answers come when nothing more can be written; no save succeeds."""
    world.subscribe("one", "two")
    worker = world.working(**PATIENT)
    world.receiver.hold("/one")
    world.sell(12)
    world.receiver.wait_until(lambda received: sum(each.path == "/one" for each in received) == 10, timeout=40)
    wait_for(lambda: world.delivered() == 12)
    disk.fill()
    world.sell(5_000, status=1)
    world.receiver.let_go()
    return worker


def go_on(world: World, worker: Process) -> None:
    # What the script could save before the disk was full is sent, too.
    sold = Event.objects.count()
    world.all_delivered(2 * sold, timeout=120)
    world.sell(6)
    world.all_delivered(2 * (sold + 6), timeout=60)
    assert worker.stop() == 0


@pytest.mark.only("sqlite")
def test_the_disk_of_sqlite_is_full(
    disk: Callable[[int], Disk], make_world: Callable[[Mapping[str, Any]], World], tmp_path: Path
) -> None:
    small = disk(8)
    place = {**connection.settings_dict, "NAME": small.folder / "world.sqlite3"}
    migrate(environment(place, tmp_path))
    world = make_world(place)
    worker = fill_up(world, small)
    worker.wait_to_say("The database refuses", timeout=40)
    small.clear()
    worker.wait_to_say("The database answers again", timeout=40)
    go_on(world, worker)


@pytest.mark.only("postgresql")
def test_the_disk_of_postgresql_is_full(
    disk: Callable[[int], Disk], make_world: Callable[[Mapping[str, Any]], World], tmp_path: Path
) -> None:
    small = disk(160)
    try:
        cluster = Cluster(small.folder)
    except UnavailableError as why:
        pytest.skip(str(why))
    with cluster:
        migrate(environment(cluster.place, tmp_path))
        world = make_world(cluster.place)
        worker = fill_up(world, small)
        small.clear()
        cluster.start_again()
        go_on(world, worker)


def test_the_next_release_migrates_while_this_one_s_workers_run(world: World) -> None:
    """Its columns may be null, and this one's code knows nothing of them."""
    world.subscribe(*map(str, range(10)))
    workers = [world.working(**PATIENT) for _ in range(2)]
    selling = world.start("sell", "60")
    wait_for(lambda: world.delivered() >= 20, timeout=40)
    migrating = world.start("migrate", FAULT_RELEASE="1")
    assert migrating.process.wait(60) == 0, migrating.text
    assert "Applying release.0001_note... OK" in migrating.text
    assert selling.process.wait(60) == 0, selling.text
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM webhooks_attempt WHERE note IS NULL")
        assert cursor.fetchone()[0] >= 20
    world.sell(6)
    arrived = world.all_delivered(660)
    assert set(arrived.values()) == {1}
    assert [worker.stop() for worker in workers] == [0, 0]
    assert Attempt.objects.count() == Delivery.objects.count()


def test_the_audit_s_command_finds_what_a_careless_hand_did_and_repairs_it(world: World) -> None:
    world.subscribe("one", "two")
    worker = world.working()
    world.sell(12)
    world.all_delivered(24)
    first, second = Event.objects.order_by("pk")[:2]
    Delivery.objects.filter(event=first).delete()
    Event.objects.filter(pk=second.pk).update(fanned_out_at=None)
    Delivery.objects.filter(event=second).delete()
    assert worker.stop() == 0
    wait_for(lambda: audit(world) == 1)
    assert audit(world, "--repair") == 1
    world.working()
    arrived = world.all_delivered(24)
    assert Counter(arrived.values()) == {1: 20, 2: 4}
    assert audit(world) == 0


def audit(world: World, *arguments: str) -> int:
    process = world.start("audit", "--since", "1h", "--grace", "1s", *arguments)
    return process.process.wait(40)

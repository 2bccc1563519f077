"""A resolver that hangs holds up nobody else."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.webhooks.strangers import on_every_loop
from webhooks.resolving import Resolver

if TYPE_CHECKING:
    from collections.abc import Iterator


class System:
    """Stands in for the system's resolver: names that begin with `hung` or
    `stuck` get their answer when the test lets them."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.freed = threading.Event()
        self.asked: list[bytes] = []
        self.threads: list[threading.Thread] = []

    def __call__(self, host: bytes, port: None, **kwargs: Any) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        self.threads.append(threading.current_thread())
        if host.startswith(b"hung"):
            assert self.free.wait(20)
        if host.startswith(b"stuck"):
            assert self.freed.wait(20)
        if host.endswith(b".none"):
            raise socket.gaierror(-2, "Name or service not known")
        return [(2, 1, 6, "", (address, 0)) for address in ("192.0.2.1", "192.0.2.2", "192.0.2.1")]


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    system = System()
    monkeypatch.setattr("webhooks.resolving.socket.getaddrinfo", system)
    yield system
    system.free.set()
    system.freed.set()
    for thread in system.threads:
        thread.join(20)


@on_every_loop
async def test_the_system_answers() -> None:
    assert "127.0.0.1" in await Resolver()("localhost")


@on_every_loop
async def test_every_address_is_named_once_in_its_order(system: System) -> None:
    assert await Resolver()("fine.example") == ["192.0.2.1", "192.0.2.2"]


@on_every_loop
async def test_a_name_without_an_address_raises(system: System) -> None:
    resolve = Resolver()
    for _ in range(2):
        with pytest.raises(socket.gaierror, match="not known"):
            await resolve("any.none")
    assert len(system.asked) == 2


@on_every_loop
async def test_a_name_that_hangs_holds_one_thread_however_many_wait(system: System) -> None:
    resolve = Resolver(lookups=2)
    waiting = [asyncio.ensure_future(resolve("hung.example")) for _ in range(50)]
    await asyncio.sleep(0)
    assert await resolve("fine.example") == ["192.0.2.1", "192.0.2.2"]
    assert system.asked.count(b"hung.example") == 1
    for task in waiting[1:]:
        task.cancel()
    system.free.set()
    assert await waiting[0] == ["192.0.2.1", "192.0.2.2"]
    await asyncio.gather(*waiting, return_exceptions=True)


@on_every_loop
async def test_names_that_hang_hold_only_so_many_threads(system: System) -> None:
    resolve = Resolver(lookups=2)
    waiting = [asyncio.ensure_future(resolve(f"hung-{number}.example")) for number in range(2)]
    waiting += [asyncio.ensure_future(resolve("stuck.example")) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await resolve("late.example")
    assert sorted(system.asked) == [b"hung-0.example", b"hung-1.example"]
    system.free.set()
    assert await resolve("late.example") == ["192.0.2.1", "192.0.2.2"]
    system.freed.set()
    await asyncio.gather(*waiting)
    assert system.asked.count(b"stuck.example") == 1


@on_every_loop
async def test_a_system_without_threads_fails_the_lookup_and_not_the_next(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    resolve = Resolver(lookups=1)
    with monkeypatch.context() as patched:
        patched.setattr("webhooks.resolving.threading.Thread.start", refuse)
        with pytest.raises(OSError, match="can't start new thread"):
            await resolve("fine.example")
    assert await resolve("fine.example") == ["192.0.2.1", "192.0.2.2"]


@on_every_loop
async def test_a_failure_that_nobody_waits_for_any_more_is_quiet(system: System) -> None:
    resolve = Resolver()
    waiting = asyncio.ensure_future(resolve("hung.none"))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    system.free.set()
    with pytest.raises(socket.gaierror):
        await resolve("hung.none")


def test_an_answer_after_the_end_of_the_loop_is_dropped(system: System) -> None:
    async def give_up() -> None:
        async with asyncio.timeout(0.01):
            await Resolver()("hung.example")

    with pytest.raises(TimeoutError):
        asyncio.run(give_up())
    system.free.set()  # an error in the thread would fail this test

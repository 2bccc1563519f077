"""Receivers that nobody vouches for, on real sockets, and a client to send to them."""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from webhooks.transport import Answer, Client, SafeTransport, SendFailure

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Hashable

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SECONDS = 20  # after which a test hangs


def on_every_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on asyncio's own loop and on uvloop; it leaves no task behind."""

    async def watched(**fixtures: Any) -> None:
        async with asyncio.timeout(SECONDS):
            await test(**fixtures)
        # A server's half of a handshake ends a moment after ours.
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            _, left = await asyncio.wait(others, timeout=2)
            assert not left

    @functools.wraps(test)
    def run(*, loop: str, **fixtures: Any) -> None:
        factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(watched(**fixtures))

    signature = inspect.signature(test)
    parameter = inspect.Parameter("loop", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), parameter], return_annotation=None
    )
    pytest.mark.parametrize("loop", ["asyncio", "uvloop"])(run)  # marks it in place
    return run


@dataclass
class Request:
    head: bytes
    body: bytes

    @property
    def line(self) -> bytes:
        return self.head.partition(b"\r\n")[0]

    @property
    def headers(self) -> bytes:
        return self.head.partition(b"\r\n")[2].removesuffix(b"\r\n")


async def read_request(reader: asyncio.StreamReader) -> Request:
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    return Request(head, await reader.readexactly(int(length[1]) if length else 0))


@dataclass
class Receiver:
    port: int = 0
    connections: int = 0
    closed: int = 0
    requests: list[Request] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/in?from=us"

    async def until(self, met: Callable[[Receiver], bool]) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: met(self))

    async def tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()


@asynccontextmanager
async def receiver(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter, Receiver], Awaitable[None]],
    *,
    host: str = "127.0.0.1",
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Receiver]:
    """Serve every connection with `handle` until it returns or the test ends."""
    it = Receiver()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        it.connections += 1
        await it.tell()
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                await handle(reader, writer, it)
        finally:
            writer.close()
            with suppress(ConnectionError, asyncio.CancelledError, OSError):
                await writer.wait_closed()
            it.closed += 1
            tasks.discard(task)
            await it.tell()

    server = await asyncio.start_server(serve, host, 0, ssl=tls, backlog=512)
    it.port = server.sockets[0].getsockname()[1]
    try:
        yield it
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        while tasks:
            await asyncio.sleep(0)
        await server.wait_closed()


def answering(*answers: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter, Receiver], Awaitable[None]]:
    """Answer request after request, of all connections, with `answers`, the last one for ever."""
    left = list(answers)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, it: Receiver) -> None:
        while True:
            it.requests.append(await read_request(reader))
            writer.write(left.pop(0) if len(left) > 1 else left[0])
            await it.tell()

    return handle


@asynccontextmanager
async def sender(**options: Any) -> AsyncIterator[Client]:
    """A client of ours that may send to 127.0.0.1, and is in a hurry."""
    defaults = {
        "allowed_networks": ["127.0.0.1/32", "::1/128"],
        "connect_timeout": 5,
        "request_timeout": 5,
        "total_timeout": 10,
        "response_limit": 1000,
    }
    client = Client(SafeTransport(**{**defaults, **options}))
    try:
        yield client
    finally:
        await client.aclose()


async def post(
    client: Client, url: str, *, headers: dict[str, str] | None = None, body: bytes = b"{}", pool: Hashable = 1
) -> Answer:
    return await client.post(url, headers=headers or {}, body=body, pool=pool)


async def failure(client: Client, url: str, *, body: bytes = b"{}", pool: Hashable = 1) -> SendFailure:
    """What went wrong when it had to."""
    with pytest.raises(SendFailure) as caught:
        await post(client, url, body=body, pool=pool)
    return caught.value

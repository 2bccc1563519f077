"""The receiver of every benchmark: a process of its own that counts and waits.

`POST /RUN/DELAY/NUMBER` is answered after DELAY milliseconds, or never where
DELAY is `hang`; `GET /RUN` lists what arrived under that name. Just enough of
HTTP/1.1 for that, on uvloop: it must not be what limits the sender.
"""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, cast

import uvloop

from bench.processes import wait_for_number

if TYPE_CHECKING:
    from collections.abc import Iterable

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
HANG = "hang"
BACKLOG = 4096
# Who measures the receiver itself: connections, and for how many seconds.
CONNECTIONS = 100
SECONDS = 0.5


class Arrival(NamedTuple):
    at: float  # time.time()
    number: int
    webhook_id: str


_arrived: dict[bytes, list[tuple[float, bytes, bytes]]] = defaultdict(list)


class Protocol(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._loop = asyncio.get_running_loop()
        self._data = b""

    def data_received(self, data: bytes) -> None:
        data = self._data + data if self._data else data
        while (end := data.find(b"\r\n\r\n")) >= 0:
            head = data[:end].lower()
            whole = end + 4 + int(_header(head, b"content-length") or 0)
            if len(data) < whole:
                break
            data = data[whole:]
            self._take(head)
        self._data = data

    def _take(self, head: bytes) -> None:
        method, path, _ = head.split(b" ", 2)
        if method == b"get":
            self._tell(path[1:])
            return
        _, run, delay, number = path.split(b"/")
        _arrived[run].append((time.time(), number, _header(head, b"webhook-id")))
        if delay == b"0":
            self._transport.write(ANSWER)
        elif delay != HANG.encode():
            self._loop.call_later(int(delay) / 1000, self._answer)

    def _answer(self) -> None:
        # Whoever asked may have been stopped by now.
        if not self._transport.is_closing():
            self._transport.write(ANSWER)

    def _tell(self, run: bytes) -> None:
        listed = [(at, int(number), webhook_id.decode()) for at, number, webhook_id in _arrived[run]]
        body = json.dumps(listed).encode()
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))


def _header(head: bytes, name: bytes) -> bytes:
    start = head.find(b"\r\n%b:" % name)
    if start < 0:
        return b""
    start += len(name) + 3
    end = head.find(b"\r\n", start)
    return head[start : end if end >= 0 else None].strip()


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Protocol, "127.0.0.1", 0, backlog=BACKLOG)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@dataclass(frozen=True, slots=True)
class Receiver:
    """The receiver as the other processes see it."""

    url: str

    def target(self, run: str, *, delay: int | str, number: int | str = "") -> str:
        return f"{self.url}/{run}/{delay}/{number}"

    def arrivals(self, run: str) -> list[Arrival]:
        """In the order in which they came."""
        with urllib.request.urlopen(f"{self.url}/{run}", timeout=30) as answer:  # noqa: S310 - our own
            return [Arrival(*row) for row in json.load(answer)]

    def wait_for(self, run: str, number: int) -> list[Arrival]:
        wait_for_number(lambda: min(number, len(self.arrivals(run))), number, what="arrivals")
        return self.arrivals(run)


class _Asking(asyncio.Protocol):
    """One connection that asks again as soon as it is answered."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.answers = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.answers += 1
        self.transport.write(self.request)


async def _ask(receiver: Receiver, body: bytes) -> float:
    host, port = receiver.url.removeprefix("http://").split(":")
    head = f"POST /own-speed/0/0 HTTP/1.1\r\nhost: {host}\r\nwebhook-id: evt_0\r\ncontent-length: {len(body)}\r\n\r\n"
    loop = asyncio.get_running_loop()
    asking: Iterable[_Asking] = [
        (await loop.create_connection(lambda: _Asking(head.encode() + body), host, int(port)))[1]
        for _ in range(CONNECTIONS)
    ]
    before, began = sum(each.answers for each in asking), time.perf_counter()
    await asyncio.sleep(SECONDS)
    answers, seconds = sum(each.answers for each in asking) - before, time.perf_counter() - began
    for each in asking:
        each.transport.abort()
    return answers / seconds


def own_speed(receiver: Receiver, *, body: bytes) -> float:
    """Requests per second that it takes from a client that does nothing else."""
    return uvloop.run(_ask(receiver, body))


if __name__ == "__main__":
    uvloop.run(serve())

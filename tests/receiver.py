"""A real receiver on a real socket, that remembers what it was sent."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class Received:
    path: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    at: float  # time.monotonic()

    @property
    def webhook_id(self) -> str:
        return self.headers["webhook-id"]


@dataclass(frozen=True)
class Reply:
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"ok"


class Receiver(ThreadingHTTPServer):
    """`with Receiver() as receiver:` listens at `receiver.url`; answers 200,
    or what `receiver.reply` says; `receiver.hold()` keeps requests to a path
    waiting until `receiver.let_go()`."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, reply: Callable[[Received], Reply] | None = None, *, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.reply = reply or (lambda _: Reply())
        self.received: list[Received] = []
        self._news = threading.Condition()
        self._held: dict[str, threading.Event] = {}
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"

    @property
    def webhook_ids(self) -> list[str]:
        return [received.webhook_id for received in list(self.received)]

    def wait_for(self, number: int, *, timeout: float = 15) -> list[Received]:
        """The requests, once there are `number` of them."""
        self.wait_until(lambda received: len(received) >= number, timeout=timeout)
        return list(self.received)

    def wait_until(self, condition: Callable[[list[Received]], bool], *, timeout: float = 15) -> None:
        with self._news:
            met = self._news.wait_for(lambda: condition(self.received), timeout)
        assert met, f"{len(self.received)} requests after {timeout} s"

    def hold(self, path: str = "/") -> None:
        self._held[path] = threading.Event()

    def let_go(self, *paths: str) -> None:
        """All that is held, or only that of `paths`."""
        for path in paths or tuple(self._held):
            self._held.pop(path).set()

    def take(self, received: Received) -> Reply:
        with self._news:
            self.received.append(received)
            self._news.notify_all()
        held = self._held.get(received.path)
        if held is not None:
            held.wait(60)
        return self.reply(received)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.let_go()
        self.shutdown()
        self._thread.join(5)
        self.server_close()

    def handle_error(self, *args: Any) -> None:
        """A sender that goes away in the middle is no failure of a test."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.server.take(Received(path=self.path, headers=headers, body=body, at=time.monotonic()))
        self.send_response(reply.status)
        for name, value in {"content-length": str(len(reply.body)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, *args: Any) -> None:
        """Quiet."""

"""The HTTP server behind `manage.py listen`: reads webhooks, verifies them, answers.

Whoever reaches the port can send to it, so nothing that comes in may end it
or fill its memory.
"""

from __future__ import annotations

import re
import socket
import socketserver
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from webhooks import signing

BODY_LIMIT = 1024 * 1024  # bytes of a body
DISCARD_LIMIT = 16 * BODY_LIMIT  # bytes read past that, so that the sender gets to read the refusal
REMEMBERED = 10_000  # ids, to tell what comes again
IDLE_SECONDS = 30.0  # a connection that says nothing for so long is closed

TLS_HANDSHAKE = b"\x16\x03"

_DIGITS = re.compile(r"[0-9]{1,12}")


@dataclass(frozen=True, slots=True)
class Orders:
    """How to answer: with `status` to the first `times` webhooks (None: to
    all), verified or not; and each only after `delay` seconds."""

    status: int | None = None
    times: int | None = None
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Received:
    at: datetime
    webhook_id: str
    body: bytes
    problem: str  # why it is not verified; empty if it is
    again: bool  # a verified one with this id came before
    status: int  # what it is answered with


class Receiver(ThreadingHTTPServer):
    """Hands each webhook to `on_webhook`, and what is no webhook, in a line
    of text that may hold anything, to `on_nonsense`; both from any thread."""

    daemon_threads = True
    request_queue_size = 512  # a worker opens hundreds of connections at once; the usual 5 turns them away

    def __init__(
        self,
        address: tuple[str, int],
        *,
        secrets: Sequence[str],
        orders: Orders,
        on_webhook: Callable[[Received], None],
        on_nonsense: Callable[[str], None],
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.secrets, self.orders = secrets, orders
        self.on_webhook, self.on_nonsense = on_webhook, on_nonsense
        self._lock = threading.Lock()
        self._count = 0
        self._seen: OrderedDict[str, None] = OrderedDict()
        super().__init__(address, Handler)

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return f"http://[{host!s}]:{port}/" if self.address_family == socket.AF_INET6 else f"http://{host!s}:{port}/"

    def server_bind(self) -> None:
        # Past HTTPServer's own, which asks the name service who we are and
        # may wait for it for long.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def receive(self, headers: Mapping[str, str], body: bytes) -> Received:
        problem = ""
        try:
            signing.verify(headers, body, self.secrets)
        except signing.VerificationError as error:
            problem = str(error)
        webhook_id = {name.lower(): value for name, value in headers.items()}.get(signing.ID, "")
        with self._lock:
            again = not problem and self._remember(webhook_id)
            self._count += 1
            status = self._status(problem)
        received = Received(datetime.now(UTC), webhook_id, body, problem, again, status)
        self.on_webhook(received)
        return received

    def _remember(self, webhook_id: str) -> bool:
        again = webhook_id in self._seen
        self._seen[webhook_id] = None
        self._seen.move_to_end(webhook_id)
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return again

    def _status(self, problem: str) -> int:
        told, times = self.orders.status, self.orders.times
        if told is not None and (times is None or self._count <= times):
            return told
        return HTTPStatus.BAD_REQUEST if problem else HTTPStatus.NO_CONTENT

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if not isinstance(error, OSError):  # that is: more than a sender who went away
            self.on_nonsense(f"{type(error).__name__}: {error}")


class RefusedError(Exception):
    """This request is no webhook."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    server: Receiver
    raw_requestline: bytes
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS

    def do_POST(self) -> None:
        try:
            body = self._read()
        except RefusedError as refused:
            self._refuse(refused)
            return
        received = self.server.receive(dict(self.headers.items()), body)
        time.sleep(self.server.orders.delay)
        self._answer(received.status, received.problem)

    def do_GET(self) -> None:
        self._refuse(RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, "Webhooks come by POST."))

    def do_HEAD(self) -> None:
        self.do_GET()

    def _read(self) -> bytes:
        length = self._length()
        if length > BODY_LIMIT:
            self._discard(min(length, DISCARD_LIMIT))
            raise RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body has {length:,} bytes; the limit is {BODY_LIMIT:,}."
            )
        body = self.rfile.read(length)
        if len(body) < length:
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"The body ended after {len(body):,} of {length:,} bytes.")
        return body

    def _discard(self, length: int) -> None:
        while length > 0 and (chunk := self.rfile.read1(min(length, 65_536))):
            length -= len(chunk)

    def _length(self) -> int:
        given = set(self.headers.get_all("content-length", []))
        if "transfer-encoding" in self.headers or not given:
            raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "The request needs a content-length.")
        if len(given) > 1 or not _DIGITS.fullmatch(length := given.pop()):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "The content-length is not a number of bytes.")
        return int(length)

    def _refuse(self, refused: RefusedError) -> None:
        self.close_connection = True  # whatever follows on it was not read
        what = f"{self.command} {self.path}: " if self.command else ""  # unless the request line was none
        self.server.on_nonsense(f"{what}{refused} Answered {refused.status}.")
        self._answer(refused.status, str(refused))

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class could not read as HTTP."""
        why = f"{message or HTTPStatus(code).phrase}."
        if self.raw_requestline.startswith(TLS_HANDSHAKE):
            why = "The sender speaks TLS; here the URL begins with http://."
        self.request_version = self.protocol_version  # without one, HTTP/0.9 is taken for granted: no status line
        self._refuse(RefusedError(HTTPStatus(code), why))

    def version_string(self) -> str:
        return "Signalpost-listen"

    def _answer(self, status: int, why: str) -> None:
        self.send_response(status)
        if self.close_connection:
            self.send_header("connection", "close")
        if status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
            self.end_headers()
            return
        text = f"{why}\n".encode() if why else b""
        self.send_header("content-type", "text/plain; charset=utf-8")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Each webhook is told to `on_webhook` instead."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's signature
        """Such as a connection that said nothing."""
        self.server.on_nonsense(format % args)

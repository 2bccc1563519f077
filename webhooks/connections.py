"""One connection to a receiver: a request goes out, a reply comes in.

A connection is used again only after an exchange that ended exactly where it
should.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, NamedTuple, cast

from webhooks.failures import Reason, SendFailure
from webhooks.replies import Incoming, Outcome, Reply

if TYPE_CHECKING:
    from collections.abc import Iterable

WRITE_PIECE = 64 * 1024  # bytes

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_LINE = re.compile(rb"%b [\x21-\x7e]+ HTTP/1\.1" % _TOKEN)
# What frames the body is written here, and by nobody else.
_FRAMES = rb"(?!(?i:content-length|transfer-encoding):)"
_LINES = re.compile(rb"(?:%b%b: [^\x00-\x08\x0a-\x1f\x7f]*\r\n)*" % (_FRAMES, _TOKEN))


class Request(NamedTuple):
    """As it is written. `headers` is lines, each ended by CR LF."""

    line: bytes
    headers: bytes
    body: bytes

    @classmethod
    def make(cls, *, method: bytes, target: bytes, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> Request:
        """Raises SendFailure for what would not be read as it is meant."""
        line = b"%b %b HTTP/1.1" % (method, target)
        lines = [b"%b: %b\r\n" % header for header in headers]
        block = b"".join(lines)
        # As many line ends as lines: none was brought along by a header.
        if not _LINE.fullmatch(line) or not _LINES.fullmatch(block) or block.count(b"\n") != len(lines):
            raise SendFailure(Reason.UNSENDABLE, "The request's line and headers are not HTTP.")
        return cls(line, b"%bContent-Length: %d\r\n" % (block, len(body)), body)


class Connection(asyncio.Protocol):
    """Idle, or in one exchange. A protocol and not a pair of streams: data on
    an idle connection is noticed at once, as nobody asked for it, and a reply
    may come while the request is still being written."""

    def __init__(self, *, response_limit: int, connections: set[Connection]) -> None:
        """`connections` holds this one for as long as it is open."""
        loop = asyncio.get_running_loop()
        self.opened_at = loop.time()
        self.lost: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._connections = connections
        self._made = False
        self._transport: asyncio.Transport  # from connection_made() on
        self._incoming = Incoming(limit=response_limit)
        # Of the exchange that goes on, if any: done is as good as none.
        self._result: asyncio.Future[Outcome] = loop.create_future()
        self._result.cancel()
        self._written = False
        self._paused: asyncio.Future[None] | None = None

    async def exchange(self, request: Request, *, until: float) -> Reply:
        """One request and its reply, by `until` on the loop's clock. The caller
        aborts the connection unless it is `reusable` afterwards.

        Raises SendFailure, and Unanswered as long as another connection may
        be tried.
        """
        self._incoming.expect()
        self._written = False
        self._result = self._loop.create_future()
        timer = self._loop.call_at(until, self._time_out)
        try:
            await self._write(request)
            result = await self._result
        finally:
            timer.cancel()
        if isinstance(result, Reply):
            return result
        raise result

    async def _write(self, request: Request) -> None:
        """Piece by piece as the receiver takes them, until it has answered."""
        body = request.body
        self._transport.write(b"%b\r\n%b\r\n%b" % (request.line, request.headers, body[:WRITE_PIECE]))
        for start in range(WRITE_PIECE, len(body), WRITE_PIECE):
            while self._paused is not None and not self._concluded:
                await self._paused
            if self._concluded:
                return
            self._transport.write(body[start : start + WRITE_PIECE])
        self._written = True

    @property
    def _concluded(self) -> bool:
        """Nothing that arrives now belongs to a reply."""
        return self._result.done()

    @property
    def reusable(self) -> bool:
        """The exchange ended exactly where it should, on both sides."""
        return self.open and self._written and self._incoming.reusable and self._transport.get_write_buffer_size() == 0

    @property
    def open(self) -> bool:
        return self._made and not self._transport.is_closing()

    def abort(self) -> None:
        """Close without a word: what is unread or unwritten concerns nobody,
        and a TLS shutdown would wait for the receiver."""
        if self._made:
            self._transport.abort()

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._made = True
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self._concluded:
            # It could only be read as the answer to the next request.
            self.abort()
        elif (result := self._incoming.feed(data)) is not None:
            self._conclude(result)

    def eof_received(self) -> None:
        self._conclude(self._incoming.end())
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._conclude(self._incoming.broke_off())
        self._incoming.close()
        self._connections.discard(self)
        self.lost.set_result(None)

    def pause_writing(self) -> None:
        self._paused = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._paused is not None and not self._paused.done():
            self._paused.set_result(None)
        self._paused = None

    def _time_out(self) -> None:
        self._conclude(self._incoming.partial() or SendFailure(Reason.TIMEOUT, self._incoming.awaited()))

    def _conclude(self, result: Outcome) -> None:
        """What comes first is what counts."""
        if not self._concluded:
            self._result.set_result(result)
        self.resume_writing()

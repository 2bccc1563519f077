"""A reply as it arrives: bytes go in, and what they come to comes out, by llhttp (httptools).

Nothing here trusts the other side: what is read is bounded in bytes and in
pieces. llhttp refuses whatever two parsers could read in two ways (bare line
feeds, folded lines, two lengths, a length beside chunks, spaces around a
chunk's size); what it lets pass and we do not is said where it is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

import httptools

from webhooks.failures import Reason, SendFailure

Headers = list[tuple[bytes, bytes]]

HEADER_LIMIT = 16 * 1024  # bytes, of one header block
INTERIM_LIMIT = 10  # answers of 1xx before the answer
# Pieces in which a body is taken: one byte per chunk costs the loop, which
# all receivers share, a microsecond a byte.
PIECES_LIMIT = 1024
START = b"HTTP/"

_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_FRAMES = frozenset({b"content-length", b"transfer-encoding"})
_SWITCHING_PROTOCOLS = 101


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: Headers
    body: bytes
    cut: bool


class Unanswered(Exception):  # noqa: N818 — an outcome
    """The connection ended before a byte of the answer."""


Outcome = Reply | SendFailure | Unanswered


class _Known(Exception):  # noqa: N818 — leaves llhttp
    """The outcome does not depend on what else came."""


class Incoming:
    """The replies of one connection, one after the other."""

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._parser = httptools.HttpResponseParser(self)
        self.expect()

    def expect(self) -> None:
        """From now on what comes is the next reply; `reusable` held, if there was one before."""
        # The reply ended with the last byte that came, and the receiver keeps
        # the connection.
        self.reusable = False
        self._outcome: Outcome | None = None
        self._start = b""
        self._overhead = 0  # bytes, of what is neither a header that was read nor body
        self._size = 0  # bytes, of this header block or the trailers
        self._interim = 0
        self._pieces = 0
        self._version = ""
        self._status: int | None = None
        self._headers: Headers = []
        self._framed = False
        self._keeps = False
        self._body = bytearray()

    def feed(self, data: bytes) -> Outcome | None:
        """What the reply comes to, as soon as that is known; then nothing more may be fed."""
        if len(self._start) < len(START):
            self._start += data[: len(START) - len(self._start)]
            if not START.startswith(self._start):
                # A mail or SSH server says no more than its name and waits.
                return SendFailure(
                    Reason.PROTOCOL, f"The answer begins with {self._start.decode('latin-1')!r} and not with HTTP/."
                )
        self._overhead += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserCallbackError as error:
            if not isinstance(error.__context__, _Known):
                raise
        except httptools.HttpParserError as error:
            self._outcome = self._outcome or self._garbled(str(error))
        if self._outcome is None and self._overhead > HEADER_LIMIT:
            self._outcome = self._too_much()
        return self._outcome

    def _parse(self, data: bytes) -> None:
        # By itself the last byte shows whether the reply ended with it: llhttp
        # does not tell where, and passes over empty lines behind.
        self._parser.feed_data(data[:-1])
        if self._outcome is None:
            self._parser.feed_data(data[-1:])
            self.reusable = self._keeps

    def close(self) -> None:
        """Nothing more is fed. llhttp holds the methods below, and thereby
        this: a cycle for every connection, which only the collector would end."""
        del self._parser

    def end(self) -> Outcome:
        """What the reply comes to when the receiver has said that no more comes."""
        return self.broke_off() if self._status is None or self._framed else self._reply(cut=False)

    def broke_off(self, why: str = "the connection was closed") -> Outcome:
        if not self._start:
            return Unanswered()
        if self._status is None:
            return SendFailure(Reason.PROTOCOL, f"The answer broke off in its headers: {why}.")
        detail = f"The answer, {self._status}, broke off after {len(self._body):,} bytes of its body: {why}."
        return self.partial() or SendFailure(Reason.PROTOCOL, detail)

    def partial(self) -> Reply | None:
        """The reply as far as it came, if its status alone says that the
        attempt failed; a 2xx counts only when it is complete."""
        if self._status is None or self._status // 100 == 2:  # noqa: PLR2004
            return None
        return self._reply(cut=True)

    def awaited(self) -> str:
        """What is still lacking."""
        if not self._start:
            return "no answer came"
        if self._status is None:
            return "the headers of the answer did not end"
        return f"the body of the answer, {self._status}, did not end"

    # What llhttp calls

    def on_message_begin(self) -> None:
        if self._outcome is not None:  # and this is the next
            raise _Known

    def on_status(self, reason: bytes) -> None:
        if _CONTROL.search(reason):
            self._conclude(self._garbled("Invalid character in the status line"))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._size += len(name) + len(value) + 4
        if self._size > HEADER_LIMIT:
            self._conclude(self._too_much())
        kind = name.lower()
        # Of another coding llhttp decodes the chunks and no more, or takes all
        # that comes for the body.
        if kind == b"transfer-encoding" and (self._framed or value.lower() != b"chunked"):
            self._conclude(self._garbled("Transfer-Encoding is not chunked, once"))
        if self._status is None:  # and this is no trailer
            self._headers.append((name, value.rstrip(b" \t")))
            self._framed = self._framed or kind in _FRAMES

    def on_headers_complete(self) -> None:
        self._overhead -= self._size
        self._size = 0
        status = self._parser.get_status_code()
        self._version = self._parser.get_http_version()
        if self._version not in ("1.1", "1.0"):
            self._conclude(self._garbled("Invalid HTTP version"))
        if status >= 200:  # noqa: PLR2004
            self._status = status
        else:
            self._wait_on(status)

    def on_body(self, data: bytes) -> None:
        self._overhead -= len(data)
        self._pieces += 1
        self._body += data[: self._limit - len(self._body) + 1]
        if len(self._body) > self._limit or self._pieces > PIECES_LIMIT:
            self._conclude(self._reply(cut=True))

    def on_message_complete(self) -> None:
        if self._status is not None:
            # HTTP/1.0 keeps no connection; and behind an interim answer llhttp
            # passes over empty lines.
            self._keeps = self._version == "1.1" and not self._interim and self._parser.should_keep_alive()
            self._outcome = self._reply(cut=False)

    def _wait_on(self, status: int) -> None:
        self._interim += 1
        self._headers, self._framed = [], False
        if status < 100:  # noqa: PLR2004
            self._conclude(self._garbled("Invalid status code"))
        if status == _SWITCHING_PROTOCOLS:
            self._conclude(SendFailure(Reason.PROTOCOL, "The answer, 101, changes to another protocol."))
        if self._interim > INTERIM_LIMIT:
            self._conclude(SendFailure(Reason.PROTOCOL, f"More than {INTERIM_LIMIT} interim answers (1xx) came."))

    def _conclude(self, outcome: Outcome) -> NoReturn:
        self._outcome = outcome
        raise _Known

    def _garbled(self, why: str) -> Outcome:
        if self._status is not None:
            return self.broke_off(why)
        return SendFailure(Reason.PROTOCOL, f"The answer is not valid HTTP: {why}.")

    def _too_much(self) -> Outcome:
        if self._status is not None:
            return self.broke_off("there is too much beside it")
        return SendFailure(Reason.TOO_LARGE, f"The answer's headers are over {HEADER_LIMIT:,} bytes.")

    def _reply(self, *, cut: bool) -> Reply:
        assert self._status is not None  # noqa: S101 — nothing is replied before there is a status
        return Reply(self._status, self._headers, bytes(self._body[: self._limit]), cut)

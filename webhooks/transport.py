"""Send one request to a stranger's URL: the only door to the network, and to httpx.

Of httpx we take the types and the seam (`AsyncBaseTransport`), not the
client: its layers keep cookies, follow redirects, read proxies and netrc from
the environment and decompress, and its pool collapses under many connections.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import re
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from subscriptions.addresses import DEFAULT_PORTS, ParsedTarget, RefusedAddress, check_url, parse_networks
from subscriptions.conf import conf
from webhooks.connections import Connection, Request
from webhooks.failures import Reason, SendFailure, ShortageError
from webhooks.opening import Opener, describe, tls_context
from webhooks.pooling import Pool
from webhooks.replies import Reply, Unanswered
from webhooks.resolving import Resolver

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    from subscriptions.addresses import Network
    from webhooks.opening import Resolve

__all__ = ["Answer", "Client", "SafeTransport", "SendFailure", "ShortageError", "tls_context"]

log = logging.getLogger(__name__)

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"([\x21-\x7e]([\t\x20-\x7e]*[\x21-\x7e])?)?")
_FRAMES = frozenset({b"content-length", b"transfer-encoding"})
# They say how the bytes are framed and who is meant; that is ours to say.
_OWN_HEADERS = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. Header blocks are `name: value` lines, each ended by
    CR LF; `body` is as it came, compressed or not; `cut` says that there was
    more of it."""

    status: int
    headers: bytes
    body: bytes
    cut: bool
    request_headers: bytes


@dataclass(frozen=True, slots=True)
class Route:
    """Where a URL leads, and what is asked for there. Without a target it is `refused`."""

    target: ParsedTarget | None
    refused: str
    host: bytes  # of the header
    path: bytes  # with the query


class SafeTransport(httpx.AsyncBaseTransport):
    """Reaches only addresses that it may, and ends in time whatever the receiver does.

    Timeouts are in seconds and cover: `connect_timeout` the lookup, and each
    connection with its TLS handshake; `request_timeout` everything from the
    connection on; `total_timeout` everything. Of a body, `response_limit`
    bytes are read. For the use of one event loop, and closed in it.

    Extensions of a request: "pool", whose connections alone it may reuse
    (without it none); "url", the URL as its owner wrote it.
    """

    def __init__(
        self,
        *,
        allowed_networks: Iterable[str | Network] = (),
        connect_timeout: float,
        request_timeout: float,
        total_timeout: float,
        response_limit: int,
        resolve: Resolve | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.response_limit = response_limit
        self._networks = parse_networks(allowed_networks)
        self._request_timeout = request_timeout
        self._total_timeout = total_timeout
        self._opener = Opener(
            networks=self._networks,
            connect_timeout=connect_timeout,
            response_limit=response_limit,
            resolve=resolve or Resolver(),
            ssl_context=ssl_context,
        )
        self._pool = Pool()
        self._closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises SendFailure, and no exception of httpx."""
        extensions = request.extensions
        route = _route(str(extensions.get("url") or request.url), self._networks, request.url)
        # Read whole, it is sent with its length, however it was to be framed.
        body = await request.aread()
        headers = [header for header in request.headers.raw if header[0].lower() not in _FRAMES]
        pool = None if "close" in request.headers.get("connection", "").lower() else extensions.get("pool")
        made = Request.make(
            method=request.method.encode("ascii"), target=request.url.raw_path, headers=headers, body=body
        )
        reply = await self.send(route, made, pool=pool)
        # A stream and not content: httpx would decompress content at once.
        return httpx.Response(
            reply.status,
            headers=reply.headers,
            stream=httpx.ByteStream(reply.body),
            extensions={"cut": reply.cut},
            request=request,
        )

    async def aclose(self) -> None:
        """Close every connection, in use or not, and wait until they are."""
        self._closed = True
        self._pool.close()
        connections = list(self._opener.connections)
        for connection in connections:
            connection.abort()
        for connection in connections:
            await connection.lost

    def drop_idle(self) -> None:
        """Close the connections that are kept and not in use."""
        self._pool.close()

    def _check_open(self) -> None:
        if self._closed:
            raise SendFailure(Reason.CONNECT, "The transport is closed.")

    def route(self, url: str) -> Route:
        """Raises SendFailure where `url` is none."""
        return _route(url, self._networks)

    async def send(self, route: Route, request: Request, *, pool: Hashable) -> Reply:
        """What `handle_async_request` does, without what httpx makes of a
        request and its answer: a fifth of what a delivery takes of the worker.

        Raises SendFailure and ShortageError."""
        self._check_open()
        target = route.target
        if target is None:
            raise SendFailure(Reason.REFUSED_ADDRESS, route.refused)
        deadline = asyncio.get_running_loop().time() + self._total_timeout
        key = None if pool is None else (pool, target.scheme, target.host, target.port)
        connection = await self._pool.take(key)
        if connection is not None:
            # A POST may be repeated here: the receiver closed a connection
            # that it had kept, most often before it saw the request. If it
            # did see it, it gets the event twice under one webhook-id, which
            # at least once allows anyhow.
            try:
                return await self._exchange(connection, request, key=key, deadline=deadline)
            except Unanswered:
                pass
        connection = await self._opener.open(target, deadline=deadline)
        try:
            return await self._exchange(connection, request, key=key, deadline=deadline)
        except Unanswered:
            raise SendFailure(Reason.PROTOCOL, "The connection was closed before an answer came.") from None

    async def _exchange(self, connection: Connection, request: Request, *, key: Hashable, deadline: float) -> Reply:
        until = min(asyncio.get_running_loop().time() + self._request_timeout, deadline)
        try:
            self._check_open()  # still, after a lookup and a handshake
            return await connection.exchange(request, until=until)
        finally:
            if key is not None and not self._closed and connection.reusable:
                self._pool.keep(key, connection)
            else:
                connection.abort()


class Client:
    """Posts, by a transport of ours or any other (a test's)."""

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._transport = transport or SafeTransport(
            allowed_networks=conf.allowed_networks,
            connect_timeout=conf.connect_timeout,
            request_timeout=conf.request_timeout,
            total_timeout=conf.total_timeout,
            response_limit=conf.response_limit,
        )
        self._limit: int = conf.response_limit
        self._timeout: float | None = conf.total_timeout
        if isinstance(self._transport, SafeTransport):
            self._limit, self._timeout = self._transport.response_limit, None  # it keeps its own time

    async def post(self, url: str, *, headers: Mapping[str, str], body: bytes, pool: Hashable) -> Answer:
        """POST `body`, once (see `SafeTransport.send` for the one exception).

        `pool` says whose kept connections may be used: the subscription's id.
        Raises SendFailure, or ShortageError where this machine has no room for it.
        """
        _check_headers(headers)
        if isinstance(self._transport, SafeTransport):
            return await self._post(self._transport, url, headers=headers, body=body, pool=pool)
        request = _request(url, headers=headers, body=body, pool=pool)
        sent = _block(request.headers.raw)
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._transport.handle_async_request(request)
                received, cut = await self._read(response)
        except SendFailure as failure:
            raise failure.with_headers(sent) from None
        except Exception as error:  # nothing that one delivery raises may end the drain
            raise _failure(error).with_headers(sent) from error
        return Answer(
            status=response.status_code,
            headers=_block(response.headers.raw),
            body=received,
            cut=cut or bool(response.extensions.get("cut")),
            request_headers=sent,
        )

    async def _post(
        self, transport: SafeTransport, url: str, *, headers: Mapping[str, str], body: bytes, pool: Hashable
    ) -> Answer:
        route = transport.route(url)
        raw = [
            (b"Host", route.host),
            *((name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()),
            (b"accept-encoding", b"identity"),
        ]
        request = Request.make(method=b"POST", target=route.path, headers=raw, body=body)
        sent = request.headers
        try:
            reply = await transport.send(route, request, pool=pool)
        except SendFailure as failure:
            raise failure.with_headers(sent) from None
        except ShortageError:
            transport.drop_idle()
            raise
        except Exception as error:  # nothing that one delivery raises may end the drain
            raise _failure(error).with_headers(sent) from error
        return Answer(
            status=reply.status, headers=_block(reply.headers), body=reply.body, cut=reply.cut, request_headers=sent
        )

    async def aclose(self) -> None:
        await self._transport.aclose()

    async def _read(self, response: httpx.Response) -> tuple[bytes, bool]:
        """The body as it came, up to the limit, and whether there was more."""
        received = bytearray()
        stream = response.stream
        if not isinstance(stream, httpx.AsyncByteStream):
            raise TypeError("The transport answered with a stream that blocks.")
        try:
            # Not aiter_raw(): it refuses what httpx itself has read already.
            async for piece in stream:
                received += piece
                if len(received) > self._limit:
                    return bytes(received[: self._limit]), True
        finally:
            await stream.aclose()
        return bytes(received), False


@functools.lru_cache(maxsize=4096)
def _route(url: str, networks: tuple[Network, ...], read: httpx.URL | None = None) -> Route:
    """Two parsers must read the same in the URL: ours, that decides, and
    httpx's (`read`), that says what is asked for."""
    try:
        read = read or httpx.URL(url)
    except (httpx.InvalidURL, ValueError, TypeError) as error:
        raise _invalid(error) from None
    target: ParsedTarget | None = None
    refused = ""
    try:
        target = check_url(url, allowed_networks=networks)
    except RefusedAddress as error:
        refused = str(error)
    else:
        port = read.port or DEFAULT_PORTS.get(read.scheme)
        if (read.scheme, read.raw_host.decode("ascii").lower(), port) != (target.scheme, target.host, target.port):
            target, refused = None, "Nothing is sent to a URL that can be read in two ways."
    return Route(target=target, refused=refused, host=read.netloc, path=read.raw_path or b"/")


def _invalid(error: Exception) -> SendFailure:
    return SendFailure(Reason.REFUSED_ADDRESS, f"The URL is not valid: {str(error).rstrip('.')}.")


def _check_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if not _may_be_set(name):
            raise SendFailure(Reason.UNSENDABLE, f"The header {name!r} cannot be set.")
        if not _VALUE.fullmatch(value):
            raise SendFailure(Reason.UNSENDABLE, f"The value of the header {name} is not plain ASCII text.")


@functools.lru_cache(maxsize=256)
def _may_be_set(name: str) -> bool:
    return bool(_TOKEN.fullmatch(name)) and name.lower() not in _OWN_HEADERS


def _request(url: str, *, headers: Mapping[str, str], body: bytes, pool: Hashable) -> httpx.Request:
    try:
        return httpx.Request(
            "POST",
            url,
            headers={**headers, "accept-encoding": "identity"},
            content=body,
            extensions={"pool": pool, "url": url},
        )
    except (httpx.InvalidURL, ValueError, TypeError) as error:
        raise _invalid(error) from None


def _block(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"%b: %b\r\n" % header for header in headers)


def _failure(error: Exception) -> SendFailure:
    """What an exception of a transport that is not ours means."""
    causes = [error, error.__cause__, error.__context__]
    reason = next((reason for kind, reason in _REASONS if any(isinstance(cause, kind) for cause in causes)), None)
    if reason is None:
        log.error("A request broke", exc_info=error)
        return SendFailure(Reason.LOST, type(error).__name__)
    return SendFailure(reason, describe(error))


_REASONS: list[tuple[type[Exception], Reason]] = [
    (httpx.TimeoutException, Reason.TIMEOUT),
    (TimeoutError, Reason.TIMEOUT),
    (ssl.SSLError, Reason.TLS),
    (socket.gaierror, Reason.DNS),
    (httpx.ConnectError, Reason.CONNECT),
    (httpx.LocalProtocolError, Reason.UNSENDABLE),
    (httpx.UnsupportedProtocol, Reason.UNSENDABLE),
    (httpx.HTTPError, Reason.PROTOCOL),
]

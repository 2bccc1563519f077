"""Open a socket to a target: the moment at which its address is checked."""

from __future__ import annotations

import asyncio
import errno
import functools
import ipaddress
import os
import socket
import ssl
from typing import TYPE_CHECKING

from subscriptions.addresses import refusal
from webhooks.connections import Connection
from webhooks.failures import Reason, SendFailure, ShortageError, is_shortage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from subscriptions.addresses import Address, Network, ParsedTarget

    Resolve = Callable[[str], Awaitable[Sequence[str]]]

ADDRESSES_TRIED = 4
IPV4 = 4


def tls_context(*, cadata: str | None = None) -> ssl.SSLContext:
    """What proves a receiver: a certificate for its very hostname, from an
    authority that the system (or `cadata`, PEM) trusts."""
    context = ssl.create_default_context(cadata=cadata)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    context.set_alpn_protocols(["http/1.1"])
    return context


# Reading the system's authorities takes 20 ms and the context holds nothing
# of any connection.
_system_tls_context = functools.cache(tls_context)


class Opener:
    """Opens connections to addresses that may be targets, and to no other.

    `connect_timeout`, in seconds, bounds the lookup, and each connection with
    its TLS handshake.
    """

    def __init__(
        self,
        *,
        networks: tuple[Network, ...],
        connect_timeout: float,
        response_limit: int,
        resolve: Resolve,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        self._networks = networks
        self._connect_timeout = connect_timeout
        self._response_limit = response_limit
        self._resolve = resolve
        self._ssl_context = ssl_context
        # Every one that is open, idle or in use.
        self.connections: set[Connection] = set()

    async def open(self, target: ParsedTarget, *, deadline: float) -> Connection:
        failure = SendFailure(Reason.DNS, f"The name {target.host} has no address.")
        for address in (await self._addresses(target, deadline=deadline))[:ADDRESSES_TRIED]:
            try:
                return await self._connect(address, target=target, deadline=deadline)
            except SendFailure as error:
                failure = error
                if error.reason not in (Reason.CONNECT, Reason.TIMEOUT):
                    break
        raise failure

    async def _addresses(self, target: ParsedTarget, *, deadline: float) -> list[Address]:
        """Where `target` may be reached; one address that is refused refuses all."""
        addresses = [target.ip] if target.ip else await self._look_up(target.host, deadline=deadline)
        for address in addresses:
            if kind := refusal(address, allowed_networks=self._networks):
                # Not the number: a tenant could map the network we are in.
                detail = f"Nothing is sent to {target.host}: it has an address that is {kind}."
                raise SendFailure(Reason.REFUSED_ADDRESS, detail)
        return addresses

    async def _look_up(self, host: str, *, deadline: float) -> list[Address]:
        until = min(asyncio.get_running_loop().time() + self._connect_timeout, deadline)
        try:
            async with asyncio.timeout_at(until):
                found = await self._resolve(host)
            return [ipaddress.ip_address(address) for address in found]
        except TimeoutError:
            raise SendFailure(Reason.DNS, f"The lookup of {host} took too long.") from None
        except (OSError, ValueError) as error:
            _check_shortage(error)
            raise SendFailure(Reason.DNS, f"The lookup of {host} failed: {describe(error)}.") from None

    async def _connect(self, address: Address, *, target: ParsedTarget, deadline: float) -> Connection:
        """A connection to the number that was checked, never to the name."""
        loop = asyncio.get_running_loop()
        until = min(loop.time() + self._connect_timeout, deadline)
        secure = target.scheme == "https"
        step = Reason.CONNECT
        sock: socket.socket | None = None
        connection = Connection(response_limit=self._response_limit, connections=self.connections)
        try:
            async with asyncio.timeout_at(until):
                sock = socket.socket(socket.AF_INET if address.version == IPV4 else socket.AF_INET6)
                sock.setblocking(False)
                await loop.sock_connect(sock, (str(address), target.port))
                _check_peer(sock, address, target.port)
                step = Reason.TLS if secure else step
                await loop.create_connection(
                    lambda: connection,
                    sock=sock,
                    ssl=(self._ssl_context or _system_tls_context()) if secure else None,
                    server_hostname=target.host if secure else None,
                )
        except BaseException as error:
            connection.abort()
            if sock is not None:
                sock.close()
            if isinstance(error, TimeoutError):
                detail = "no connection was made" if step is Reason.CONNECT else "the TLS handshake did not end"
                raise SendFailure(Reason.TIMEOUT, detail) from None
            if isinstance(error, OSError):
                _check_shortage(error)
                raise SendFailure(step, describe(error)) from None
            raise
        return connection


def _check_shortage(error: Exception) -> None:
    if is_shortage(error):
        raise ShortageError(describe(error)) from error


def _check_peer(sock: socket.socket, address: Address, port: int) -> None:
    host, connected_port = sock.getpeername()[:2]
    if (ipaddress.ip_address(host), connected_port) != (address, port):
        raise SendFailure(
            Reason.REFUSED_ADDRESS, "The connection led to another address than the one that was checked."
        )


def describe(error: Exception) -> str:
    """What `error` says, without addresses and file names."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"The certificate was refused: {error.verify_message.rstrip('.')}."
    if isinstance(error, ssl.SSLError):
        return f"The TLS handshake failed: {(error.reason or str(error)).replace('_', ' ').lower()}."
    if isinstance(error, socket.gaierror):
        return str(error.strerror)
    if isinstance(error, ConnectionResetError):  # asyncio's own has no number
        return os.strerror(errno.ECONNRESET)
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__

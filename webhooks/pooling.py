"""Connections that are kept for the next request of the same subscription."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

    from webhooks.connections import Connection

IDLE_PER_KEY = 10
IDLE_IN_ALL = 400  # files, of which a process has 1,024 by default
IDLE_SECONDS = 10.0
# A connection in constant use never asks again where its name leads, nor
# whether its certificate still holds.
AGE_SECONDS = 60.0


class Pool:
    """Idle connections by key: a subscription and an origin. They are never
    shared across keys: on a kept connection a receiver could plant the answer
    to somebody else's request."""

    def __init__(self) -> None:
        self._idle: dict[Hashable, list[Connection]] = {}
        # In the order in which they became idle: key and time.
        self._since: dict[Connection, tuple[Hashable, float]] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def take(self, key: Hashable) -> Connection | None:
        """The one used last that is still open, if any."""
        while idle := self._idle.get(key):
            connection = idle[-1]
            self._remove(connection)
            try:
                # The loop looks at its sockets between two steps, so that what
                # came unasked, or the end, is known before the request is written.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            except BaseException:
                connection.abort()
                raise
            if connection.open:
                return connection
        return None

    def keep(self, key: Hashable, connection: Connection) -> None:
        now = asyncio.get_running_loop().time()
        if now - connection.opened_at > AGE_SECONDS or len(self._idle.get(key, ())) >= IDLE_PER_KEY:
            connection.abort()
            return
        self._idle.setdefault(key, []).append(connection)
        self._since[connection] = key, now
        if len(self._since) > IDLE_IN_ALL:
            self._drop(next(iter(self._since)))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._sweep)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for connection in list(self._since):
            self._drop(connection)

    def _sweep(self) -> None:
        """Drop what was idle for too long; come again when the next will be."""
        self._timer = None
        loop = asyncio.get_running_loop()
        for connection, (_, since) in list(self._since.items()):
            if since + IDLE_SECONDS > loop.time():
                self._timer = loop.call_at(since + IDLE_SECONDS, self._sweep)
                return
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        self._remove(connection)
        connection.abort()

    def _remove(self, connection: Connection) -> None:
        key, _ = self._since.pop(connection)
        self._idle[key].remove(connection)
        if not self._idle[key]:
            del self._idle[key]

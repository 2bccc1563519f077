"""From the name of a host to its addresses, with a deadline."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress

# Lookups at once. A thread that the system's resolver hangs in cannot be
# stopped; it keeps its place until the resolver gives up by itself.
LOOKUPS = 64


class Resolver:
    """Asks the system, in threads, since getaddrinfo() blocks and knows no deadline.

    Not the loop's executor: a few names whose servers never answer would use
    up its threads for everybody. Here a name holds one thread however many
    requests wait for it, and the threads are daemons, begun per lookup, so
    that one that hangs delays neither another name nor the end of the process.
    """

    def __init__(self, *, lookups: int = LOOKUPS) -> None:
        self._places = asyncio.Semaphore(lookups)
        self._running: dict[str, asyncio.Future[list[str]]] = {}

    async def __call__(self, host: str) -> list[str]:
        """Every address of `host`, in the order to try them; OSError if there is none.

        The caller sets the deadline: a cancelled wait leaves the lookup to itself.
        """
        while host not in self._running:
            await self._places.acquire()
            if host in self._running:  # begun while this one waited for a place
                self._places.release()
            else:
                self._begin(host)
        return await asyncio.shield(self._running[host])

    def _begin(self, host: str) -> None:
        """In a place that is taken already."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[str]] = loop.create_future()
        # Whoever waited may be gone when it fails.
        answer.add_done_callback(lambda future: future.exception())

        def end(found: list[str] | Exception) -> None:
            del self._running[host]
            self._places.release()
            if isinstance(found, Exception):
                answer.set_exception(found)
            else:
                answer.set_result(found)

        def look() -> None:
            found = _look_up(host)
            with suppress(RuntimeError):  # the loop was closed in the meantime
                loop.call_soon_threadsafe(end, found)

        try:
            threading.Thread(target=look, name=f"lookup of {host}", daemon=True).start()
        except RuntimeError as error:  # the system gives no more threads
            self._places.release()
            raise OSError(str(error)) from error
        self._running[host] = answer


def _look_up(host: str) -> list[str] | Exception:
    try:
        # Bytes, so that the codec "idna", an older IDNA than ours, has no say.
        found = socket.getaddrinfo(host.encode("ascii"), None, type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:
        return error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))

"""The thread that sends: one event loop, hundreds of requests at once.

It knows claims and outcomes, and never the database: that stays with the
thread that submits and takes.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from subscriptions.conf import conf
from webhooks import sending, transport
from webhooks.claims import clock
from webhooks.models import Attempt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from webhooks.claims import Claim

new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
with suppress(ImportError):  # where there is no wheel for the platform
    from uvloop import new_event_loop

logger = logging.getLogger(__name__)

# Every request keeps its own deadline; this is for a mistake in keeping it.
SPARE = 5.0
# Where this machine lacks files or memory, nothing more is taken for so long,
# and then half as much; all of it again after so long without.
SHORT_SECONDS, SCARCE_SECONDS = 1.0, 60.0


class Network:
    """Used by one thread. Raises what `transport.Client()` raises on wrong settings."""

    def __init__(self) -> None:
        self.flying: dict[int, Claim] = {}  # by attempt
        # None wakes whoever waits for it.
        self._finished: SimpleQueue[tuple[Claim, sending.Outcome | None] | None] = SimpleQueue()
        # By when each must have ended; in the order of that.
        self._sends: dict[asyncio.Task[None], float] = {}
        self._started: SimpleQueue[BaseException | None] = SimpleQueue()
        self._short_at = -SCARCE_SECONDS
        self._most = conf.in_flight
        # A daemon: whatever hangs in it must not keep the worker from ending.
        self._thread = threading.Thread(target=self._run, name="signalpost-network", daemon=True)
        self._thread.start()
        error = self._started.get()
        if error is not None:
            raise error

    @property
    def busy(self) -> Counter[int]:
        """Requests in flight, by subscription."""
        return Counter(claim.subscription_id for claim in self.flying.values())

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def room(self) -> int:
        """How many more requests it takes."""
        since = time.monotonic() - self._short_at
        if since < SHORT_SECONDS:
            return 0
        return (self._most if since < SCARCE_SECONDS else conf.in_flight) - len(self.flying)

    def submit(self, claims: Iterable[Claim]) -> None:
        claims = list(claims)
        self._loop.call_soon_threadsafe(self._start, claims)
        self.flying.update((claim.attempt_id, claim) for claim in claims)

    def take(self, timeout: float, most: int) -> list[tuple[Claim, sending.Outcome | None]]:
        """What has finished, `most` at once, after at most `timeout` seconds of
        waiting for the first, or until `wake`. No outcome says that it was not
        sent: the claim was too old, or there was no room for it."""
        finished = []
        try:
            finished.append(self._finished.get(timeout=timeout))
            while len(finished) < most:
                finished.append(self._finished.get_nowait())
        except Empty:
            pass
        taken = [each for each in finished if each is not None]
        for claim, _ in taken:
            # Once only: a database that failed over without its last
            # commits gives out the same numbers again.
            self.flying.pop(claim.attempt_id, None)
        return taken

    def wake(self) -> None:
        """From any thread, or a signal handler: whoever waits in `take` waits no longer."""
        self._finished.put(None)

    def close(self) -> None:
        """Break off what is in flight."""
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(SPARE)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                runner.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - raised where it can be handled
            self._started.put(error)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._closing = asyncio.Event()
        self._client = transport.Client()
        self._started.put(None)
        self._stop_overdue()
        try:
            await self._closing.wait()
        finally:
            for send in self._sends:
                send.cancel()
            await asyncio.gather(*self._sends, return_exceptions=True)
            await self._client.aclose()

    def _start(self, claims: Iterable[Claim]) -> None:
        until = self._loop.time() + conf.total_timeout + SPARE
        for claim in claims:
            send = self._loop.create_task(self._send(claim))
            self._sends[send] = until
            send.add_done_callback(self._sends.pop)

    def _stop_overdue(self) -> None:
        """One timer for all: one for each costs as much as the signature."""
        for send, until in self._sends.items():
            if until > self._loop.time():
                break
            send.cancel()
        self._loop.call_later(SPARE / 2, self._stop_overdue)

    async def _send(self, claim: Claim) -> None:
        outcome = None
        began = time.monotonic()
        try:
            if fresh(claim):
                outcome = await sending.call(claim, self._client)
        except transport.ShortageError as error:
            self._run_short(error)
        except asyncio.CancelledError:
            if self._closing.is_set():
                raise
            outcome = _broke(claim, TimeoutError(), began)
        except Exception as error:  # noqa: BLE001 - logged there
            outcome = _broke(claim, error, began)
        self._finished.put((claim, outcome))

    def _run_short(self, error: transport.ShortageError) -> None:
        """All that were submitted together fail together: that is one time."""
        now = time.monotonic()
        since = now - self._short_at
        if since < SHORT_SECONDS:
            return
        self._most = max(1, min(len(self._sends), self._most if since < SCARCE_SECONDS else conf.in_flight) // 2)
        self._short_at = now
        logger.error("This machine has no room for so many requests (%s); for now %d at once", error, self._most)


def _broke(claim: Claim, error: Exception, began: float) -> sending.Outcome:
    logger.error("Sending delivery %d broke", claim.delivery_id, exc_info=error, extra=claim.ids)
    return sending.Outcome(
        url=claim.url,
        duration_ms=round((time.monotonic() - began) * 1000),
        sent=True,
        reason=Attempt.Reason.TIMEOUT if isinstance(error, TimeoutError) else Attempt.Reason.LOST,
        detail=f"{type(error).__name__}: {error}".removesuffix(": "),
    )


def fresh(claim: Claim) -> bool:
    """Whether a request that begins now can end within the claim's lease. A
    process that was frozen, or a machine that slept, must not send on waking
    what another has sent meanwhile."""
    longest = min(conf.total_timeout, conf.lease_seconds / 2)
    return clock() - claim.claimed_at < conf.lease_seconds - longest

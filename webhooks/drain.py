"""The drain: fan out, claim, send, record, until nothing is due.

Two ways in, one loop: `run` is the job that a ring enqueues; `Watch` is the
thread in which a worker of ours looks by itself, whether or not anybody
could ring. Where there is a Watch, a job only asks it to look: a drain in the
worker's main thread would have to end in time for RQ, while its slowest
receiver keeps it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError, InterfaceError, connections

from subscriptions.conf import conf
from subscriptions.models import home
from webhooks import deliveries, feeds, inbox, replays, sending, tallies, tasks, turns
from webhooks.network import Network

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from webhooks.claims import Claim

    Results = list[tuple[Claim, sending.Outcome]]

logger = logging.getLogger(__name__)

# While requests are in flight: how long new work may wait for a look.
POLL = 0.1
# The shortest pause before a look that follows a failed one, or one for
# something that was due and could not be taken.
SHORTEST_PAUSE = 0.05
# Claimed and recorded at once, at most: the first of a wave of answers make
# room for others while the rest is recorded.
BATCH = 200
# While requests are in flight: how often to ask whether there is a bulk replay.
REPLAY_SECONDS = 0.5
# How often a worker that is full asks another to join it.
SHARE_SECONDS = 1.0
# A Watch that is never idle says this often what it did, and one that is idle
# again and again at most this often.
REPORT_SECONDS = 60.0
QUIET_SECONDS = 10.0
UNSTORABLE = "What came back could not be stored."


class Drain:
    """One thread's requests in flight, and what is still to be recorded of them."""

    def __init__(self) -> None:
        self.network: Network | None = None
        self.unrecorded: Results = []
        self.counts: Counter[str] = Counter()  # since `began`
        self.total: Counter[str] = Counter()
        self.began = time.monotonic()
        self.untold: Counter[str] = Counter()  # since the last line in the log
        self.times = 0
        self.seconds = 0.0
        self.next_line = 0.0
        self.next_share = 0.0
        self.next_replay = 0.0

    @property
    def flying(self) -> int:
        return len(self.network.flying) if self.network else 0

    def step(self, *, claim: bool = True) -> bool:
        """Record what came back, take what is due. False when there is nothing left to do."""
        self.record([])
        carried = events = claims = 0
        replayed = False
        if claim:
            carried = deliveries.relay()
            replayed = self._replay()
            events = deliveries.fan_out(patient=bool(self.flying))
            claims = self._claim()
        self.counts.update(events=events, claimed=claims)
        if claims == BATCH and self.flying < conf.in_flight:
            return True
        more = bool(carried or replayed or events)
        results = self.take(0 if more else turns.pause(POLL))
        return more or bool(claims or results or self.flying) or (claim and self._waited_for_room())

    def _waited_for_room(self) -> bool:
        """What this machine has no room for is due, and so nothing has ended."""
        if self.network is None or self.network.room > 0:
            return False
        time.sleep(POLL)
        return True

    def _replay(self) -> bool:
        if self.flying and time.monotonic() < self.next_replay:
            return False
        stepped = replays.advance()
        self.next_replay = time.monotonic() + (0.0 if stepped else REPLAY_SECONDS)
        return stepped

    def _claim(self) -> int:
        room = min(self.network.room if self.network else conf.in_flight, BATCH)
        claims = deliveries.claim(room, busy=self.network.busy if self.network else {}) if room > 0 else []
        if not claims:
            return 0
        try:
            answered = inbox.answer([claim for claim in claims if inbox.takes(claim)])
            answered += feeds.answer([claim for claim in claims if feeds.takes(claim)])
            self._submit([claim for claim in claims if not (inbox.takes(claim) or feeds.takes(claim))])
        except Exception:
            deliveries.release(claims)
            raise
        self.record(answered)
        if self.flying >= conf.in_flight:
            self._share()
        return len(claims)

    def _submit(self, claims: Sequence[Claim]) -> None:
        if not claims:
            return
        if self.network is None:
            self.network = Network()
        self.network.submit(claims)

    def _share(self) -> None:
        """There is more than this worker takes: one ring woke one worker."""
        if time.monotonic() >= self.next_share:
            self.next_share = time.monotonic() + SHARE_SECONDS
            tasks.ring()

    def take(self, timeout: float) -> int:
        if self.network is None or not self.flying:
            return 0
        if not self.network.alive:
            logger.error("The network's thread ended; %d deliveries go out again after their lease", self.flying)
            self.network = None
            return 0
        taken = self.network.take(timeout, BATCH)
        self.record([(claim, outcome) for claim, outcome in taken if outcome is not None])
        deliveries.release([claim for claim, outcome in taken if outcome is None])
        return len(taken)

    def record(self, results: Results) -> None:
        """Keeps what the database does not take because it is away, and raises."""
        self.unrecorded += results
        if not self.unrecorded:
            return
        try:
            self.counts += sending.record(self.unrecorded)
        except Exception as error:
            if deliveries.away(error, home()):
                raise
            complain("A batch of results could not be recorded; trying them one by one", error)
            self._record_singly()
        self.unrecorded = []

    def _record_singly(self) -> None:
        while self.unrecorded:
            claim, outcome = self.unrecorded[0]
            # At least whether it was delivered, without what the receiver wrote.
            bare = replace(outcome, detail=UNSTORABLE, request_headers=b"", response_headers=b"", response_body=b"")
            if not (self._recorded(claim, outcome) or self._recorded(claim, bare)):
                logger.error("What came of delivery %d is lost; it goes out again", claim.delivery_id, extra=claim.ids)
            self.unrecorded.pop(0)

    def _recorded(self, claim: Claim, outcome: sending.Outcome) -> bool:
        try:
            self.counts += sending.record([(claim, outcome)])
        except Exception as error:
            if deliveries.away(error, home()):
                raise
            complain(f"What came of delivery {claim.delivery_id} could not be recorded", error, claim.ids)
            return False
        return True

    def finish(self) -> None:
        """Wait for what is in flight, at most as long as a request may take; then let go."""
        deadline = time.monotonic() + conf.total_timeout + POLL
        told = False
        while (self.flying or self.unrecorded) and time.monotonic() < deadline:
            try:
                self.record([])
                self.take(POLL)
            except (DatabaseError, InterfaceError) as error:
                if not told:
                    told = True
                    logger.error("Results wait for the database: %s", deliveries.in_short(error))
                time.sleep(POLL)
                _renew_connections()
        if self.unrecorded:
            logger.error("%d results are lost with the database away; they go out again", len(self.unrecorded))
        self.close()
        self.report()

    def close(self) -> None:
        if self.network is not None:
            self.network.close()
            self.network = None
        deliveries.forget_secrets()

    def report(self, *, at_once: bool = True) -> None:
        """A drain has ended. Small ones that follow each other share a line in
        the log, where it need not be `at_once`."""
        now, done = time.monotonic(), +self.counts
        if done:
            seconds = now - self.began
            tallies.note(tallies.DRAINS, {tallies.COUNT: 1, tallies.SECONDS: seconds})
            self.times += 1
            self.seconds += seconds
        self.total += done
        self.untold += done
        self.counts.clear()
        self.began = now
        if self.untold and (at_once or now >= self.next_line):
            self._tell()
            self.next_line = now + QUIET_SECONDS

    def _tell(self) -> None:
        what = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in self.untold.items())
        times = f" ({self.times} times)" if self.times > 1 else ""
        logger.info("Drained in %.1f s%s: %s", self.seconds, times, what)
        self.untold.clear()
        self.times, self.seconds = 0, 0.0


class Watch(threading.Thread):
    """Looks every `conf.look_seconds`, when something comes due, and when asked."""

    def __init__(self) -> None:
        super().__init__(name="signalpost-watch", daemon=True)
        # SimpleQueue, since its put may be called from a signal handler.
        self._asked: SimpleQueue[SimpleQueue[None] | None] = SimpleQueue()
        self.stopping = False
        self._drain = Drain()
        self._outage = False

    def ask(self, *, patience: float) -> None:
        """Return once a look has begun that sees all that is committed by now."""
        begun: SimpleQueue[None] = SimpleQueue()
        self._asked.put(begun)
        self._wake()
        deadline = time.monotonic() + patience
        while self.is_alive() and not self.stopping and time.monotonic() < deadline:
            try:
                begun.get(timeout=POLL)
            except Empty:
                continue
            return

    def nudge(self) -> None:
        """Look soon; whoever must know that it has begun calls `ask`."""
        self._asked.put(None)
        self._wake()

    def _wake(self) -> None:
        """It may be waiting for what is in flight."""
        network = self._drain.network
        if network is not None:
            network.wake()

    def stop(self) -> None:
        self.stopping = True
        self._asked.put(None)

    def run(self) -> None:
        drain, pause = self._drain, 0.0
        while not self.stopping:
            self._hear(pause)
            pause = self._look(drain)
        try:
            drain.finish()
            tallies.flush(at_once=True)
        finally:
            connections.close_all()

    def _hear(self, pause: float) -> None:
        asked = []
        try:
            asked.append(self._asked.get(timeout=pause) if pause else self._asked.get_nowait())
            while True:
                asked.append(self._asked.get_nowait())
        except Empty:
            for begun in asked:
                if begun is not None:
                    begun.put(None)

    def _look(self, drain: Drain) -> float:
        """One step; the seconds until the next."""
        try:
            if not drain.flying:
                _renew_connections()
                if not drain.counts:
                    drain.began = time.monotonic()
            busy = drain.step(claim=not self.stopping)
            tallies.note(tallies.LOOKS, {tallies.COUNT: 1})
            tallies.flush()
            if not busy or time.monotonic() - drain.began > REPORT_SECONDS:
                drain.report(at_once=False)
                deliveries.forget_secrets()
            due = 0.0 if busy else deliveries.next_due_in()
        except Exception as error:  # noqa: BLE001 - this thread is the one that must go on
            self._complain(error)
            return conf.look_seconds
        if self._outage:
            self._outage = False
            logger.info("The database answers again")
        if busy:
            return 0.0
        # Due, and yet not taken: another worker is at it.
        return min(conf.look_seconds, max(due, SHORTEST_PAUSE)) if due else conf.look_seconds

    def _complain(self, error: Exception) -> None:
        if not isinstance(error, DatabaseError | InterfaceError):
            logger.error("A look broke", exc_info=error)
        elif not self._outage:
            self._outage = True
            logger.error(
                "The database refuses (%s); trying again every %.0f s", deliveries.in_short(error), conf.look_seconds
            )
        _renew_connections()


def complain(what: str, error: Exception, ids: Mapping[str, Any] | None = None) -> None:
    """A traceback only of a mistake of ours: a database's ends with the row, and what the receiver wrote."""
    traceback = None if isinstance(error, DatabaseError) else error
    logger.error("%s (%s)", what, deliveries.in_short(error), exc_info=traceback, extra=ids)


def _renew_connections() -> None:
    """Django does so between requests: close what is broken or too old."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()


_watch: Watch | None = None
_running = threading.Lock()
_stopping = False


def watch() -> Watch:
    """Start this process's Watch."""
    global _watch, _stopping  # noqa: PLW0603
    _stopping = False
    _watch = Watch()
    _watch.start()
    return _watch


def nudge() -> None:
    """Let this process's Watch, if it has one, look at once."""
    if _watch is not None:
        _watch.nudge()


def stop() -> None:
    """Claim nothing more in this process. May be called from a signal handler."""
    global _stopping  # noqa: PLW0603
    _stopping = True
    if _watch is not None:
        _watch.stop()


def run(*, longest: float = tasks.LONGEST_RUN) -> dict[str, int]:
    """Drain until nothing is due; the job behind every ring. Returns counts.

    One drain per process: a second one waits for the first, and then looks.
    After `longest` seconds it claims no more, and rings for the next. Where
    the database is away it ends, and whoever looks next goes on.
    """
    if _watch is not None and _watch.is_alive():
        tasks.silence()
        _watch.ask(patience=longest)
        return {}
    with _running:
        return _run(lambda began: not _stopping and time.monotonic() - began < longest)


def _run(may_claim: Callable[[float], bool]) -> dict[str, int]:
    # Before the look: whoever rings from here on is heard by a job of its own.
    tasks.silence()
    drain = Drain()
    began = drain.began
    try:
        _renew_connections()
        while drain.step(claim=may_claim(began)):
            pass
        tallies.note(tallies.LOOKS, {tallies.COUNT: 1})
    except (DatabaseError, InterfaceError) as error:
        logger.error("The drain ends, since the database refuses: %s", deliveries.in_short(error))
        _renew_connections()
        drain.finish()
    except Exception:
        drain.finish()
        raise
    finally:
        drain.close()
        drain.report()
        tallies.flush(at_once=True)
    if not may_claim(began) and not _stopping:
        tasks.ring()
    return dict(drain.total)

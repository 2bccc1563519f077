"""The queue's door: what reaches RQ, and through it the drain, goes through here.

Redis is a doorbell, never the truth: what is rung for lies in the database,
and every worker also looks by itself. So nothing here may fail a caller that
has just committed, or keep it waiting.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeVar

import django_rq
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisAwayError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisSilentError
from redis.retry import Retry
from rq import cron_scheduler_registry, worker_registration
from rq.serializers import JSONSerializer
from rq.utils import as_text, utcparse

from subscriptions.conf import conf

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis import Redis
    from rq import Queue

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

# By name: the caller need not import the drain, nor what it sends with.
DRAIN = "webhooks.drain.run"

# A bell that rang for a job that was lost keeps silent for this long at most.
BELL_SECONDS = 30
# Nobody needs a job that waited this long: the clock has rung again by then.
JOB_TTL = 60
FAILURE_TTL = 3_600
# A drain that RQ started ends by itself after `LONGEST_RUN` and what is then
# still in flight. RQ's own limit only has to catch a database that hangs.
LONGEST_RUN = 60.0
SPARE = 120.0

# Seconds that a commit waits for a Redis that accepts but does not answer.
PATIENCE = 0.25
# Seconds without another try after a failure; after a slow one longer, so
# that a Redis that hangs costs its callers one part in twenty at most.
PAUSE = 1.0
PAUSE_PER_SECOND_LOST = 20.0


def connect() -> Redis:
    """A connection to the queue's Redis that gives up soon."""
    connection: Redis = django_rq.get_connection(conf.queue)
    connection.connection_pool.connection_kwargs.update(socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE)
    # Once, and at once: for a kept connection that the server has dropped.
    connection.set_retry(Retry(NoBackoff(), 1))
    return connection


@dataclass(frozen=True, slots=True)
class SeenWorker:
    name: str
    born_at: datetime | None
    beat_at: datetime | None

    @classmethod
    def read(cls, row: Sequence[bytes | None]) -> SeenWorker:
        hostname, pid, born, beat = (as_text(value) if value else "" for value in row)
        return cls(f"{hostname}, process {pid}", *(utcparse(when) if when else None for when in (born, beat)))


@dataclass(frozen=True, slots=True)
class Seen:
    """What Redis knows: who listens to it, and when a clock last rang."""

    workers: tuple[SeenWorker, ...]
    ticked_at: datetime | None


class Line:
    """The bell's own connection: one command, packed once. What the client
    does around a command costs six times as much as the command, and every
    commit pays for it. Not one of the client's pool, which may be small."""

    def __init__(self, client: Redis, *command: str | int) -> None:
        pool = client.connection_pool
        # `ask` is the one that tries again: with both, a Redis that is away would cost twice as long.
        self.connection = pool.connection_class(**{**pool.connection_kwargs, "retry": Retry(NoBackoff(), 0)})
        self.command = self.connection.pack_command(*command)
        self.busy = threading.Lock()

    def ask(self) -> object:
        """Redis's answer; once more, and at once, where the server has dropped the connection."""
        try:
            return self._ask()
        except (RedisAwayError, RedisSilentError):
            return self._ask()

    def _ask(self) -> object:
        try:
            self.connection.connect()  # A kept one stays; with Sentinel, this is what asks for the master.
            self.connection.send_packed_command(self.command)
            return self.connection.read_response()
        except BaseException:
            # Whatever came between question and answer: the next one must not read this one's.
            self.connection.disconnect()
            raise


class Door:
    """One process's kept connections. (django-rq would make one per call, at
    1.9 ms instead of 0.3.) Redis's client is safe for threads, and a race
    between two threads here makes a client too many, nothing worse."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.closed_until = 0.0
        self.outage = False

    @cached_property
    def connection(self) -> Redis:
        return connect()

    @cached_property
    def queue(self) -> Queue:
        # Not django-rq's default of waiting for the commit (we come from
        # there), and never in this process, whatever the queue's ASYNC says: a
        # commit must not deliver.
        made: Queue = django_rq.get_queue(
            conf.queue, connection=self.connection, serializer=JSONSerializer, is_async=True, commit_mode="auto"
        )
        return made

    @cached_property
    def line(self) -> Line:
        return Line(self.connection, "SET", self.bell, 1, "NX", "EX", BELL_SECONDS)

    @property
    def bell(self) -> str:
        return f"signalpost:bell:{conf.queue}"

    def ring(self) -> bool:
        if not self._is_first():
            return False
        self.queue.enqueue_call(
            DRAIN,
            timeout=int(LONGEST_RUN + conf.total_timeout + SPARE),
            result_ttl=0,
            ttl=JOB_TTL,
            failure_ttl=FAILURE_TTL,
            description=DRAIN,
        )
        return True

    def _is_first(self) -> bool:
        line = self.line
        if not line.busy.acquire(blocking=False):
            # Another thread's question is out: the client has a connection for each.
            return bool(self.connection.set(self.bell, 1, nx=True, ex=BELL_SECONDS))
        try:
            return line.ask() is not None
        finally:
            line.busy.release()

    def silence(self) -> bool:
        return bool(self.connection.delete(self.bell))

    def answers(self) -> bool:
        return bool(self.connection.ping())

    def seen(self) -> Seen:
        """In few commands, however many workers there are. What died without a
        word is listed by RQ until its row expires."""
        names = sorted(worker_registration.get_keys(queue=self.queue))
        with self.connection.pipeline(transaction=False) as asked:
            for name in names:
                asked.hmget(name, "hostname", "pid", "birth", "last_heartbeat")
            asked.zrange(cron_scheduler_registry.get_registry_key(), -1, -1, withscores=True)
            *rows, ticks = asked.execute()
        return Seen(
            workers=tuple(SeenWorker.read(row) for row in rows if row[1]),
            ticked_at=datetime.fromtimestamp(ticks[0][1], UTC) if ticks else None,
        )


_door: Door | None = None


def ring() -> bool:
    """Ask for a drain; True where this call, and not an earlier one, enqueued it.

    Never raises. With Redis away it returns False within about half a second,
    and during the pause that follows at once.
    """
    return _at_the_door(Door.ring)


def silence() -> bool:
    """Take the bell away, *before* looking for work: who rings from now on is
    heard by a drain of its own. True where it had been rung. Never raises."""
    return _at_the_door(Door.silence)


def answers() -> bool:
    """Whether Redis does; during the pause after a failure it is not asked. Never raises."""
    return _at_the_door(Door.answers)


def seen() -> Seen | None:
    """None where Redis is away. Never raises."""
    return _at_the_door(Door.seen) or None


def forget() -> None:
    """Drop the kept connection; the next ring makes another from the settings."""
    global _door  # noqa: PLW0603
    _door = None


def _at_the_door(act: Callable[[Door], Answer]) -> Answer | Literal[False]:
    global _door  # noqa: PLW0603
    began = time.monotonic()
    door = _door
    if door is None or door.pid != os.getpid():
        # After a fork the connection is the parent's, and so may be a lock
        # that one of its threads held.
        door = _door = Door()
    if began < door.closed_until:
        return False
    try:
        done = act(door)
    except Exception as error:  # noqa: BLE001 - whatever it is, the change has been committed
        ended = time.monotonic()
        door.closed_until = ended + max(PAUSE, PAUSE_PER_SECOND_LOST * (ended - began))
        if not door.outage:
            door.outage = True
            # What is no word of Redis's may quote the settings, password and all.
            reason = error if isinstance(error, RedisError) else type(error).__name__
            logger.warning("Redis cannot be rung (%s); workers look by themselves until it can", reason)
        return False
    if door.outage:
        door.outage = False
        logger.info("Redis answers again")
    return done

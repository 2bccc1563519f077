"""The clock: rings every `conf.sweep_seconds`, whatever else was lost, and
adds up the hours of what was delivered to days.

RQ's own cron, run by a command of ours (`manage.py clock`) and not by
django-rq's `rqcron`, for two reasons that were tried: `rqcron` ends with a
ConnectionError when Redis is away for a moment, and it enqueues with pickle
whatever the queue's serializer is, which our worker refuses to read.

There is no leader: two clocks ring twice, and the bell makes one of it.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from django.db import DatabaseError, InterfaceError, connections
from redis.exceptions import RedisError
from rq.cron import CronJob, CronScheduler
from rq.exceptions import StopRequested
from rq.utils import now

from subscriptions.conf import conf
from subscriptions.models import home
from webhooks import deliveries, rollups, tasks

if TYPE_CHECKING:
    from types import FrameType

    from redis import Redis

logger = logging.getLogger(__name__)

KEEP_SECONDS = 600


def keep() -> None:
    """Keep the counts in order; what does not work now does the next time."""
    _renew_connection()
    try:
        rollups.keep()
    except (DatabaseError, InterfaceError) as error:
        logger.warning("Hours are not added up to days: %s", deliveries.in_short(error))
        _renew_connection()


def _renew_connection() -> None:
    """Django does so between requests: close what is broken or too old."""
    connection = connections[home()]
    if not connection.in_atomic_block:
        connection.close_if_unusable_or_obsolete()


class Clock(CronScheduler):
    """RQ's pages show it, with its last heartbeat, like any other scheduler."""

    def __init__(self, connection: Redis | None = None, name: str = "") -> None:
        super().__init__(connection or tasks.connect(), name=name)
        self._stopped = False

    def enqueue_jobs(self) -> list[CronJob]:
        """Ring here: as a job, a ring would need a worker before it is heard."""
        due = [job for job in self.get_jobs() if job.should_run()]
        for job in due:
            if job.func is not None:
                job.func()
            job.set_enqueue_time(now())
        return due

    def start(self) -> None:
        """Ring until told to stop."""
        self._install_signal_handlers()  # type: ignore[no-untyped-call]
        try:
            while not self._stopped:
                self.enqueue_jobs()
                self._show()
                time.sleep(self.calculate_sleep_interval())
        except (StopRequested, KeyboardInterrupt):
            logger.info("The clock stops")
        try:
            self.register_death()
        except RedisError:
            return  # its row expires

    def _request_stop(self, signum: int, frame: FrameType | None) -> None:
        # Also as a flag: what rings lets no exception out, RQ's neither.
        self._stopped = True
        raise StopRequested

    def _show(self) -> None:
        try:
            self.heartbeat()
            self.save()
        except RedisError as error:
            logger.debug("The clock cannot be shown: %s", error)


def clock() -> Clock:
    """The clock with what it rings for. More than one may run."""
    made = Clock()
    made.register(tasks.ring, conf.queue, interval=max(1, round(conf.sweep_seconds)))
    made.register(keep, conf.queue, interval=KEEP_SECONDS)
    return made

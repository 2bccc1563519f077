"""RQ's worker, made to deliver with or without Redis.

RQ's own ends when Redis is away at its start, times out, or fails in the
middle of a job; it sleeps up to a minute between tries, and is not in
`Worker.all()` again after Redis has come back empty. The work itself is done
in the drain's Watch, a thread of this process, which needs none of that.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError
from rq import SimpleWorker, worker_registration
from rq.exceptions import StopRequested
from rq.serializers import JSONSerializer
from rq.worker import WorkerStatus

from subscriptions.conf import conf
from webhooks import drain
from webhooks.pooling import IDLE_IN_ALL

if TYPE_CHECKING:
    from types import FrameType

    from redis import Redis
    from redis.client import Pipeline, PubSub, PubSubWorkerThread
    from rq import Queue
    from rq.job import Job

logger = logging.getLogger(__name__)

# Seconds between tries to reach Redis; deliveries do not wait for it.
PAUSE = 1.0
# Beyond the requests in flight: to record what came of them.
SPARE = 5.0
# Files that a worker has open beside its connections to receivers.
OTHER_FILES = 124


def _make_room() -> None:
    """As many open files as the requests in flight and the kept connections
    take: 1,024 are what most systems allow at first, and more if asked."""
    try:
        import resource
    except ImportError:  # no Unix
        return
    needed = conf.in_flight + IDLE_IN_ALL + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < needed:
        logger.warning("The system allows %d open files, of the %d that SIGNALPOST_IN_FLIGHT takes", allowed, needed)


class Quiet(logging.Filter):
    """RQ's log as an operator reads it. Of each job it would say four lines,
    and of a Redis that is away an error a second: all of that is shown by
    `rqworker -v 2`, and what there is to know the worker says itself, once."""

    def __init__(self, worker: Worker) -> None:
        super().__init__()
        self.worker = worker

    def filter(self, record: logging.LogRecord) -> bool:
        error = sys.exc_info()[1]  # RQ logs what it catches where it catches it
        lost = isinstance(error, RedisError) and record.funcName != "handle_exception"  # which is a job's own
        if isinstance(error, RedisError) and lost:
            self.worker.redis_is_away(error)
        return self.worker.log.isEnabledFor(logging.DEBUG) or not (lost or record.levelno == logging.INFO)


class Worker(SimpleWorker):
    """Looks by itself, runs jobs in its own process, and takes JSON only: who
    can write to Redis must not be able to run code here."""

    max_connection_wait_time = 2.0
    pubsub_thread: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # `manage.py rqworker` passes RQ's default, which is pickle.
        super().__init__(*args, **{**kwargs, "serializer": JSONSerializer})
        self._stop_signal = False
        self._outage = False

    def work(self, *args: Any, **kwargs: Any) -> bool:
        """Work until told to stop; with `burst`, `max_jobs` or `max_idle_time` as RQ does."""
        quiet = Quiet(self)
        self.log.addFilter(quiet)
        try:
            if kwargs.get("burst") or (args and args[0]):
                # What is queued now is drained here, and then it ends.
                return super().work(*args, **kwargs)
            return self._work(*args, **kwargs)
        finally:
            self.log.removeFilter(quiet)

    def _work(self, *args: Any, **kwargs: Any) -> bool:
        _make_room()
        once = bool(kwargs.get("max_jobs") or kwargs.get("max_idle_time"))
        self._install_signal_handlers()  # type: ignore[no-untyped-call]
        watch = drain.watch()
        worked = False
        try:
            while not self._stop_signal:
                try:
                    worked = super().work(*args, **kwargs) or worked
                except RedisError as error:
                    self.redis_is_away(error)
                if once or self._stop_signal:
                    break
                time.sleep(PAUSE)
        except StopRequested:
            pass
        finally:
            drain.stop()
            patience = conf.total_timeout + SPARE
            logger.info("Stopping: what is in flight may end, for at most %.0f s", patience)
            watch.join(patience)
            if watch.is_alive():
                logger.warning("What is still in flight goes out again after its lease")
        return worked

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        super().bootstrap(*args, **kwargs)
        logger.info("Listening on %s as process %d", ", ".join(self.queue_names()), os.getpid())

    def redis_is_away(self, error: RedisError) -> None:
        if not self._outage:
            self._outage = True
            logger.warning("Redis does not answer (%s); looking without it", error)

    def _pubsub_exception_handler(self, exc: Exception, pubsub: PubSub, pubsub_thread: PubSubWorkerThread) -> None:
        # As RQ's, but quiet, and not the end of the thread when Redis only
        # hangs. Once unsubscribed, its connection is closed under its hands.
        if pubsub_thread is not self.pubsub_thread:
            return
        if not isinstance(exc, RedisError):
            raise exc
        time.sleep(PAUSE)

    def execute_job(self, job: Job, queue: Queue) -> None:
        # What RQ writes to Redis before it runs a job takes longer than a look.
        drain.nudge()
        super().execute_job(job, queue)

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """Let what is in flight end; `work` waits for it."""
        self._stop_signal = True
        drain.stop()
        super().request_stop(signum, frame)  # type: ignore[no-untyped-call]

    def _shutdown(self) -> None:
        # As RQ's, without its note to Redis: this runs in a signal handler.
        if self.get_state() == WorkerStatus.BUSY:
            self._stop_requested = True
        else:
            raise StopRequested

    def _set_ip_address(self, connection: Redis) -> None:
        try:
            super()._set_ip_address(connection)
        except RedisError:
            self.ip_address = "unknown"

    def register_birth(self) -> None:
        if self.birth_date is not None:
            # Born again after an outage; the row of before is our own.
            self.connection.delete(self.key)
        super().register_birth()  # type: ignore[no-untyped-call]

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        super().heartbeat(timeout, pipeline)
        if pipeline is None and self._outage:
            self._outage = False
            logger.info("Redis answers again")
        if pipeline is None and not self.connection.sismember(self.redis_workers_keys, self.key):
            # Redis has forgotten us, such as by a restart or FLUSHALL.
            self.connection.hset(self.key, mapping={**self.serialize(), "state": self.get_state()})
            worker_registration.register(self)

    def teardown(self) -> None:
        # RQ's, but to its end: it would leave a thread behind for each outage.
        with suppress(RedisError):
            self.register_death()  # type: ignore[no-untyped-call]
        self.unsubscribe()

    def unsubscribe(self) -> None:
        pubsub, thread = self.pubsub, self.pubsub_thread
        if pubsub is None or thread is None:
            return
        self.pubsub_thread = None
        thread.stop()  # first, or what unsubscribe() wakes goes to sleep again
        with suppress(RedisError):
            pubsub.unsubscribe()  # type: ignore[no-untyped-call]
        thread.join(timeout=1)
        with suppress(RedisError):
            pubsub.close()

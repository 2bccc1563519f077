"""Processes that tests start, stop and kill: Valkey, workers, the clock."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from config.embedded import socket_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


def wait_for(condition: Callable[[], object], *, timeout: float = 15, what: str = "") -> None:
    """Look at `condition` until it holds; a test that waits longer has failed."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, what or "waited in vain"
        time.sleep(0.02)


@contextmanager
def empty_database(server: str) -> Iterator[str | None]:
    """The URL of a database on `server` for this process alone, or None.

    Tests flush what they use, and the server may hold somebody's data: so only
    a database that is empty, never the default one, and never one whose lock
    another process of tests has.
    """
    address, _, query = server.partition("?")
    for index in range(15, 0, -1):
        # Of several numbers redis-py takes the first of the query.
        url = f"{address}?{'&'.join(filter(None, (f'db={index}', query)))}"
        lock = Path(tempfile.gettempdir()) / f"signalpost-tests-{os.getuid()}-redis-{index}"
        with lock.open("w") as file, Redis.from_url(url) as client:
            if _locked(file) and _empty(client):
                yield url
                client.flushdb()
                return
    yield None


def _locked(file: IO[str]) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _empty(client: Redis) -> bool:
    with suppress(ResponseError):  # a server with fewer databases
        return client.dbsize() == 0
    return False


class Valkey:
    """A server of the test's own, that may go away and come back empty."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.url = socket_url(data_dir)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("REDIS_URL")}
        environment["SIGNALPOST_DATA_DIR"] = str(self.data_dir)
        self.process = subprocess.Popen([sys.executable, "-m", "config.embedded"], env=environment)
        wait_for(self._answers, what="Valkey does not answer")

    def kill(self) -> None:
        """At once, with everything in it."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)
        self.process = None

    def _answers(self) -> bool:
        with suppress(RedisError), Redis.from_url(self.url, retry=None) as client:
            return bool(client.ping())
        return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *args: object) -> None:
        if self.process is not None:
            self.kill()


def raise_connection_error() -> None:
    """A job that has trouble with a Redis of its own."""
    raise RedisConnectionError("of a job's own")


class Process:
    """`manage.py` with some arguments; its output is kept in `log`."""

    PROGRAM: tuple[str, ...] = ("manage.py",)

    def __init__(self, *arguments: str, env: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, *self.PROGRAM, *arguments], env=dict(env), stdout=output, stderr=subprocess.STDOUT
            )

    @property
    def text(self) -> str:
        return self.log.read_text()

    def wait_to_say(self, words: str, *, timeout: float = 15) -> None:
        wait_for(lambda: words in self.text or self.process.poll() is not None, timeout=timeout, what=self.text)
        assert words in self.text, self.text

    def stop(self, number: int = signal.SIGTERM, *, timeout: float = 15) -> int:
        """The exit status, after the signal."""
        self.process.send_signal(number)
        return self.process.wait(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)

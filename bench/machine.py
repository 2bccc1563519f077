"""What the benchmarks run on: databases of their own, a Valkey, the receiver.

All of it is made at the start and gone at the end.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql
from redis import Redis
from redis.exceptions import RedisError

from bench.processes import ROOT, wait_for
from bench.receiver import Receiver
from config.embedded import socket_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SQLITE, POSTGRESQL = "sqlite", "postgresql"
# Of the caller's environment: the databases that the benchmarks make are their own.
ASIDE = ("DATABASE_URL", "DATABASE_URL_FILE", "REDIS_URL", "REDIS_URL_FILE", "SECRET_KEY_FILE")


def server() -> str | None:
    """The URL of a PostgreSQL that answers and lets us make databases."""
    url = os.environ.get("DATABASE_URL", "postgres://postgres@127.0.0.1:5432/postgres")
    try:
        with psycopg.connect(url, connect_timeout=2) as connection:
            may = connection.execute("SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user")
            (allowed,) = may.fetchone() or (False,)
    except psycopg.Error:
        return None
    return url if allowed else None


@contextmanager
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="signalpost-bench-", ignore_cleanup_errors=True) as path:
        yield Path(path)


@contextmanager
def _running(command: list[str], **options: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, text=True, **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def receiver() -> Iterator[Receiver]:
    with _running(["-m", "bench.receiver"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield Receiver(f"http://127.0.0.1:{port}")


@contextmanager
def valkey(data: Path) -> Iterator[str]:
    """The URL of an embedded server that is ours alone."""
    env = {**_outside(), "SIGNALPOST_DATA_DIR": str(data)}
    url = socket_url(data)
    with _running(["-m", "config.embedded"], env=env), Redis.from_url(url, retry=None) as client:
        wait_for(lambda: _answers(client), what="Valkey does not answer")
        yield url


def _answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisError:
        return False


@contextmanager
def database(kind: str, *, data: Path, redis_url: str) -> Iterator[Mapping[str, str]]:
    """The environment of processes that use a fresh, migrated database of that kind."""
    env = {
        **_outside(),
        "DJANGO_SETTINGS_MODULE": "bench.settings",
        "SIGNALPOST_APPS": "bench.warehouse",
        "SIGNALPOST_ALLOWED_NETWORKS": "127.0.0.0/8",
        "SIGNALPOST_DATA_DIR": str(data / kind),
        "SECRET_KEY": secrets.token_urlsafe(50),
        "REDIS_URL": redis_url,
        "PYTHONUNBUFFERED": "1",
    }
    if kind == SQLITE:
        _migrate(env)
        yield env
        return
    with _created() as url:
        env["DATABASE_URL"] = url
        _migrate(env)
        yield env


@contextmanager
def _created() -> Iterator[str]:
    base = server()
    assert base is not None
    name = f"signalpost_bench_{os.getpid()}"
    with psycopg.connect(base, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield urlunsplit(urlsplit(base)._replace(path=f"/{name}"))
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _migrate(env: Mapping[str, str]) -> None:
    command = [sys.executable, "manage.py", "migrate", "--run-syncdb", "-v", "0"]
    subprocess.run(command, cwd=ROOT, env={**env, "BENCH_VARIANT": "all"}, check=True)


def _outside() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ASIDE}


@contextmanager
def measuring(
    env: Mapping[str, str], *, receiver: Receiver, quick: bool, names: Sequence[str]
) -> Iterator[subprocess.Popen[str]]:
    """The process that measures, and, when it is left early, the end of all that it started."""
    command = ["-m", "bench.measuring", receiver.url, "quick" if quick else "full", *names]
    process = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env=dict(env), text=True, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()

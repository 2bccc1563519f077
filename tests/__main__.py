"""`python -m tests`: the whole suite on SQLite and an embedded Valkey, then,
where PostgreSQL answers, what touches a database again on it. What asks the
same of both, as most pages do, is marked `on` one of them.

PostgreSQL is DATABASE_URL, or 127.0.0.1:5432 if that lets `postgres` in;
Redis is REDIS_URL, or 127.0.0.1:6379. Arguments go to pytest.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psycopg
import redis

ASIDE = ("DATABASE_URL", "DATABASE_URL_FILE", "REDIS_URL", "REDIS_URL_FILE", "SIGNALPOST_DATA_DIR")
NO_TESTS = 5  # pytest's exit code


def postgresql() -> str | None:
    url = os.environ.get("DATABASE_URL", "postgres://postgres@127.0.0.1:5432/postgres")
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.Error:
        return None
    return url


def redis_server() -> str | None:
    url = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")
    try:
        redis.Redis.from_url(url, socket_connect_timeout=2).ping()
    except redis.RedisError:
        return None
    return url


def run(title: str, arguments: list[str], extra: dict[str, str]) -> int:
    """pytest's exit code for one round."""
    print(f"\n== {title} ==", flush=True)
    env = {name: value for name, value in os.environ.items() if name not in ASIDE} | extra
    # Otherwise each of some hundred processes compiles all of it anew.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "3", "--dist", "worksteal", *arguments]
    return subprocess.run(command, env=env, check=False).returncode


def main() -> int:
    started = time.monotonic()
    arguments = sys.argv[1:]
    database, queue = postgresql(), redis_server()
    both = ["--two-databases"] if database else []
    code = run("SQLite, embedded Valkey", [*both, *arguments], {})
    if database is None:
        print("\nPostgreSQL does not answer; its round is left out (DATABASE_URL names another)")
    elif code == 0 or (code == NO_TESTS and arguments):
        extra = {"DATABASE_URL": database, "SECRET_KEY": "tests"} | ({"REDIS_URL": queue} if queue else {})
        title = "PostgreSQL, " + ("Redis" if queue else "embedded Valkey")
        first, code = code, run(title, ["--only-database", *both, *arguments], extra)
        # Of tests that ARGS picks, one round may have none.
        code = 0 if {first, code} == {0, NO_TESTS} and arguments else code
    print(f"\n{'passed' if code == 0 else 'FAILED'} in {time.monotonic() - started:.0f} s")
    return code


if __name__ == "__main__":
    sys.exit(main())

"""Workers as people start them: `manage.py rqworker`, a process of its own."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from bench.processes import Process

if TYPE_CHECKING:
    from pathlib import Path

    from redis import Redis

_numbers = count(1)


def worker(redis: Redis, *, data: Path, worker_class: str | None = None) -> Process:
    """Signalpost's, or RQ's own `worker_class`; it has started when this returns."""
    name = f"bench-{next(_numbers)}"
    arguments = ["manage.py", "rqworker", "--name", name]
    if worker_class is not None:
        arguments += ["--worker-class", worker_class, "--serializer", "rq.serializers.JSONSerializer"]
    process = Process(*arguments, log=data / f"{name}.log")
    try:
        process.wait_until(lambda: redis.exists(f"rq:worker:{name}"), what=f"the worker {name}")
    except BaseException:
        process.stop()
        raise
    return process

"""The process that measures: all figures of one database, one after the other.

Started by the runner with the environment of that database; each result is a
line of JSON on its output.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import django
from redis import Redis

from bench.figures import MEASURES
from bench.receiver import Receiver
from bench.savers import Saver
from bench.workers import worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import ExitStack

    from bench.processes import Process


@dataclass
class Bench:
    """What a figure needs to know and to use."""

    quick: bool
    data: Path
    receiver: Receiver
    redis: Redis
    kept: dict[str, Any] = field(default_factory=dict)
    started: list[Process] = field(default_factory=list)
    _runs: count[int] = field(default_factory=lambda: count(1))

    @property
    def repeats(self) -> int:
        return 1 if self.quick else 3

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    def run(self) -> str:
        """A name for what arrives at the receiver next."""
        return f"{os.getpid()}-{next(self._runs)}"

    def medians(self, measure: Callable[[], float]) -> float:
        return median(measure() for _ in range(self.repeats))

    def once(self, name: str, measure: Callable[[], Any]) -> Any:
        """What several figures are made of is measured once."""
        if name not in self.kept:
            self.kept[name] = measure()
        return self.kept[name]

    def saver(self, variant: str) -> Saver:
        """Kept: to start one takes longer than most that it is asked."""
        saver: Saver = self.once(f"saver {variant}", lambda: Saver(variant, data=self.data))
        return saver

    def worker(self, stack: ExitStack, *, worker_class: str | None = None) -> Process:
        process = worker(self.redis, data=self.data, worker_class=worker_class)
        stack.callback(process.stop)
        self.started.append(process)
        return process


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def main(arguments: Sequence[str]) -> int:
    receiver_url, mode, *names = arguments
    django.setup()
    # They import models, which needs the settings.
    from bench import arrive, deliver, match, memory, pages, publish, save, sites, traffic  # noqa: F401

    data = Path(os.environ["SIGNALPOST_DATA_DIR"])
    (data / "static").mkdir(parents=True, exist_ok=True)  # WhiteNoise warns where it is missing
    code = 0
    with Redis.from_url(os.environ["REDIS_URL"]) as redis:
        bench = Bench(quick=mode == "quick", data=data, receiver=Receiver(receiver_url), redis=redis)
        for measure in dict.fromkeys(MEASURES[name] for name in names):
            began = time.monotonic()
            bench.started.clear()
            redis.flushall()
            traffic.clear(wishes=True)
            try:
                for result in measure(bench):
                    print(json.dumps(result.as_dict()), flush=True)
            except Exception:  # noqa: BLE001 - the others are measured all the same
                traceback.print_exc()
                for process in bench.started:
                    print(f"{process.log.name}: … {process.text[-1500:]}", file=sys.stderr)
                code = 1
            print(f"  {measure.__name__}: {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

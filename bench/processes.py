"""Processes that a benchmark starts and stops again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 30.0
# Longer than a request that hangs may take.
STUCK = 20.0


def wait_for(condition: Callable[[], object], *, timeout: float = PATIENCE, what: str) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: waited {timeout:.0f} s in vain")
        time.sleep(0.01)


def wait_for_number(count: Callable[[], int], wanted: int, *, what: str) -> None:
    """Wait for as long as `count` moves: a slow machine may take its time, a worker that is stuck may not."""
    seen, moved = -1, time.monotonic()
    while (now := count()) != wanted:
        if now != seen:
            seen, moved = now, time.monotonic()
        elif time.monotonic() - moved > STUCK:
            raise TimeoutError(f"{what}: {now} instead of {wanted}, and nothing for {STUCK:.0f} s")
        time.sleep(0.02)


class Process:
    """`python` with some arguments in the project's directory; what it says goes to `log`."""

    def __init__(self, *arguments: str, log: Path, variant: str = "signalpost", piped: bool = False) -> None:
        self.log = log
        pipe = subprocess.PIPE if piped else None
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env={**os.environ, "BENCH_VARIANT": variant},
                stdin=pipe,
                stdout=pipe or output,
                stderr=output,
                text=True,
            )

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_until(self, condition: Callable[[], object], *, what: str) -> None:
        wait_for(lambda: condition() or self.process.poll() is not None, what=f"{what}\n{self.text[-2000:]}")
        if self.process.poll() is not None:
            raise RuntimeError(f"{what}: it ended with {self.process.returncode}\n{self.text[-2000:]}")

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.stop()

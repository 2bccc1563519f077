"""Processes that live and end together, each line they print behind their name.

The demo's own, though honcho has a manager for this: that one loses its head
when Ctrl-C comes before every process has started, and leaves them behind;
and it takes the first exit code for that of the whole.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import FrameType

PATIENCE = 10.0  # seconds, from SIGTERM to SIGKILL
LOOK_SECONDS = 0.05
COLOURS = (36, 33, 32, 35, 34, 96)


class Processes:
    """Started within a `with`, and none of them is left when it ends, however it ends."""

    def __init__(self, *, env: Mapping[str, str], cwd: Path, width: int, output: TextIO | None = None) -> None:
        self.told: int | None = None  # the signal that told us to stop, if any
        self._env, self._cwd, self._width = dict(env), cwd, width
        self._output = output or sys.stdout
        self._coloured = self._output.isatty() and "NO_COLOR" not in os.environ
        self._lock = threading.Lock()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._readers: dict[str, threading.Thread] = {}

    def __enter__(self) -> Self:
        # A closed terminal stops them as Ctrl-C does.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._tell)
        return self

    def __exit__(self, *args: object) -> None:
        """Stop the first one last: the others need it."""
        names = list(self._running)
        self._end(names[1:])
        self._end(names[:1])

    def start(self, name: str, command: str) -> None:
        """In a session of its own, so that Ctrl-C reaches us alone."""
        process = subprocess.Popen(  # noqa: S602 — the Procfile's lines are written for a shell
            command, shell=True, env=self._env, cwd=self._cwd, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._running[name] = process
        colour = COLOURS[len(self._readers) % len(COLOURS)]
        reader = threading.Thread(target=self._relay, args=(name, process, colour), daemon=True)
        reader.start()
        self._readers[name] = reader

    def wait(self) -> tuple[str, int] | None:
        """The first that ends, and its exit status; None if we were told to stop."""
        while self.told is None:
            for name, process in self._running.items():
                if (status := process.poll()) is not None:
                    self._end([name])
                    return name, status
            time.sleep(LOOK_SECONDS)
        return None

    def say(self, text: str = "") -> None:
        with self._lock:
            try:
                self._output.write(f"{text}\n")
                self._output.flush()
            except OSError:
                # Whoever read has gone (`make demo | head`, a closed
                # terminal): so do we, quietly.
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._output.fileno())
                self.told = self.told or signal.SIGPIPE

    def _tell(self, number: int, frame: FrameType | None) -> None:
        self.told = number

    def _relay(self, name: str, process: subprocess.Popen[bytes], colour: int) -> None:
        label = f"{name:{self._width}} |"
        label = f"\033[{colour}m{label}\033[0m" if self._coloured else label
        assert process.stdout is not None  # noqa: S101 — it was asked for
        with process.stdout as lines:
            for line in lines:
                self.say(f"{label} {line.decode(errors='replace').rstrip()}")

    def _end(self, names: list[str]) -> None:
        """Those named, and whatever they have started; what they said last is told."""
        ending = [self._running.pop(name) for name in names]
        for process in ending:
            _send(process, signal.SIGTERM)
        until = time.monotonic() + PATIENCE
        for process in ending:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))
            _send(process, signal.SIGKILL)
            process.wait()
        for name in names:
            self._readers[name].join(PATIENCE)


def _send(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)

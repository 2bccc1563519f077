"""What the demo starts ends with it, whatever happens."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from examples import processes
from examples.processes import Processes
from tests.servers import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
WAITS = "sleep 60 & wait"


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def started(output: io.StringIO, tmp_path: Path) -> Iterator[Processes]:
    with Processes(env={"PATH": os.environ["PATH"]}, cwd=tmp_path, width=6, output=output) as running:
        yield running


def printed(output: io.StringIO, line: str) -> None:
    wait_for(lambda: line in output.getvalue(), what=line)


def runs(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state) and not state.startswith("Z")


def test_each_line_stands_behind_the_name_of_who_printed_it(output: io.StringIO, tmp_path: Path) -> None:
    with Processes(env={"WORD": "two"}, cwd=tmp_path, width=6, output=output) as running:
        running.start("second", f"echo $WORD >&2; {WAITS}")
        printed(output, "second")
        running.start("one", "printf 'é\\377\\n'; pwd")
        assert running.wait() == ("one", 0)
    assert output.getvalue().splitlines() == ["second | two", "one    | é\ufffd", f"one    | {tmp_path}"]


def test_who_ends_first_is_named_with_the_exit_status(started: Processes) -> None:
    started.start("one", "exec sleep 60")
    started.start("two", "exit 3")
    assert started.wait() == ("two", 3)
    started.start("three", "kill -9 $$")
    assert started.wait() == ("three", -signal.SIGKILL)


def test_nothing_is_left_not_even_what_they_started_themselves(output: io.StringIO, tmp_path: Path) -> None:
    with Processes(env={}, cwd=tmp_path, width=1, output=output) as running:
        running.start("a", "sleep 60 & echo pid $!; exec sleep 60")
        running.start("b", "sleep 60 & echo pid $!; exit 0")
        wait_for(lambda: output.getvalue().count("pid") == 2)
        pids = [int(line.split()[-1]) for line in output.getvalue().splitlines()]
        assert runs(pids[0])
        assert running.wait() == ("b", 0)
    wait_for(lambda: not any(map(runs, pids)), what="left behind")


def test_one_that_does_not_obey_is_killed(output: io.StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "PATIENCE", 0.2)
    with Processes(env={}, cwd=tmp_path, width=1, output=output) as running:
        running.start("a", "trap '' TERM; echo pid $$; while :; do sleep 1; done")
        printed(output, "pid")
    assert not runs(int(output.getvalue().split()[-1]))


def test_the_first_one_stops_last(output: io.StringIO, tmp_path: Path) -> None:
    with Processes(env={}, cwd=tmp_path, width=1, output=output) as running:
        for name in "abc":
            running.start(name, f"trap 'echo bye; exit' TERM; echo up; {WAITS}")
            printed(output, f"{name} | up")
    byes = [line for line in output.getvalue().splitlines() if line.endswith("bye")]
    assert sorted(byes[:2]) == ["b | bye", "c | bye"]
    assert byes[2:] == ["a | bye"]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_wait(started: Processes, number: int) -> None:
    started.start("one", WAITS)
    threading.Timer(0.05, os.kill, [os.getpid(), number]).start()
    assert started.wait() is None
    assert started.told == number


def test_a_signal_before_the_start_is_heard(started: Processes) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    started.start("one", WAITS)
    assert started.wait() is None


def test_a_reader_that_went_away_ends_it_quietly(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as output, Processes(env={}, cwd=tmp_path, width=1, output=output) as running:  # noqa: PTH123
        running.start("a", f"echo up; {WAITS}")
        assert running.wait() is None
        assert running.told == signal.SIGPIPE
        running.say("nobody reads this")


def test_names_are_coloured_on_a_terminal_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    with Processes(env={}, cwd=tmp_path, width=1, output=(terminal := Terminal())) as running:
        running.start("a", "echo up")
        running.wait()
    assert terminal.getvalue() == "\033[36ma |\033[0m up\n"
    monkeypatch.setenv("NO_COLOR", "1")
    with Processes(env={}, cwd=tmp_path, width=1, output=(plain := Terminal())) as running:
        running.start("a", "echo up")
        running.wait()
    assert plain.getvalue() == "a | up\n"

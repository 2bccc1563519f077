"""The demo around its story: ports, a place of its own, and how it says that it failed."""

from __future__ import annotations

import io
import signal
import socket
from typing import TYPE_CHECKING

import pytest

from examples import demo
from examples.processes import Processes

if TYPE_CHECKING:
    from pathlib import Path


def test_the_usual_ports_are_taken_where_they_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        free, taken = one.getsockname()[1], two.getsockname()[1]
        one.close()
        monkeypatch.setattr(demo, "PORTS", {"A": free, "B": taken, "C": taken})
        ports = demo.free_ports()
    assert ports["A"] == str(free)
    assert len(set(ports.values())) == 3
    assert str(taken) not in ports.values()


def test_two_demos_in_one_directory_do_not_take_each_others_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "DATA", tmp_path / "var" / "demo")
    with demo.alone():
        (demo.DATA / "rows").touch()
        with pytest.raises(SystemExit, match="runs already in this directory"), demo.alone():
            pass
        assert (demo.DATA / "rows").exists()
    with demo.alone():
        assert not (demo.DATA / "rows").exists()


def test_what_runs_is_what_the_procfile_says_and_the_story_comes_last() -> None:
    env = demo.environment()
    wanted = list(demo.commands(env, once=True))
    assert wanted == ["valkey", "web", "worker", "clock", "receiver", "flaky", "story"]


@pytest.mark.parametrize(
    ("migrate", "wanted", "failure"),
    [
        ("raise SystemExit(2)", {"story": "exit 0"}, "migrate ended with 2"),
        ("", {"web": "exec sleep 60", "story": "exit 0"}, ""),
        ("", {"web": "exec sleep 60", "story": "exit 1"}, "story ended with 1"),
        ("", {"web": "exit 0", "story": "exec sleep 60"}, "web ended with 0"),
        ("", {"web": "kill -9 $$", "story": "exec sleep 60"}, "web ended, killed by SIGKILL"),
    ],
)
def test_whoever_ends_before_the_story_is_named(
    tmp_path: Path, migrate: str, wanted: dict[str, str], failure: str
) -> None:
    (tmp_path / "manage.py").write_text(migrate)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    with Processes(env={}, cwd=tmp_path, width=6, output=io.StringIO()) as processes:
        found = demo.run(processes, wanted)
    for number, handler in before.items():
        signal.signal(number, handler)
    assert found == failure

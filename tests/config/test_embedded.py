from __future__ import annotations

import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from config import embedded

if TYPE_CHECKING:
    from pathlib import Path


def test_the_socket_lies_in_the_data_directory(tmp_path: Path) -> None:
    assert embedded.socket_path(tmp_path) == tmp_path / "valkey.sock"


def test_a_path_too_long_for_a_socket_gets_a_private_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("config.embedded.tempfile.gettempdir", lambda: str(tmp_path))
    path = embedded.socket_path(tmp_path / ("long" * 40))
    assert path.parent.parent == tmp_path
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_folder_that_others_can_enter_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("config.embedded.tempfile.gettempdir", lambda: str(tmp_path))
    data = tmp_path / ("long" * 40)
    embedded.socket_path(data).parent.chmod(0o777)
    with pytest.raises(RuntimeError, match="not a private folder"):
        embedded.socket_path(data)


def test_a_secret_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "var" / "secret_key"
    first = embedded.lasting_secret(path)
    assert len(first) >= 50
    assert embedded.lasting_secret(path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_processes_that_start_together_agree_on_the_secret(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        made = pool.map(embedded.lasting_secret, [tmp_path / "secret_key"] * 8, chunksize=1)
    assert len(set(made)) == 1


def test_the_server_ends_with_0_on_sigterm_and_leaves_nothing(tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("REDIS_URL")}
    env["SIGNALPOST_DATA_DIR"] = str(tmp_path)
    server = subprocess.Popen([sys.executable, "-m", "config.embedded"], env=env, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    path = tmp_path / "valkey.sock"
    deadline = time.monotonic() + 10
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    server.send_signal(signal.SIGTERM)
    with server.stdout:
        assert "WARNING" not in server.stdout.read()
    assert server.wait(10) == 0
    assert not path.exists()


def serve(data_dir: Path) -> subprocess.CompletedProcess[str]:
    """What it says, of a server that ends by itself."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("REDIS_URL")}
    return subprocess.run(
        [sys.executable, "-m", "config.embedded"],
        env={**env, "SIGNALPOST_DATA_DIR": str(data_dir)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_a_server_that_cannot_start_says_where_the_reason_is(tmp_path: Path) -> None:
    (tmp_path / "valkey.sock").mkdir()
    ended = serve(tmp_path)
    assert ended.returncode == 1
    assert f"in {tmp_path / 'valkey.log'}" in ended.stdout
    assert "Unix socket" in (tmp_path / "valkey.log").read_text()


def test_with_a_redis_url_there_is_nothing_to_serve(tmp_path: Path) -> None:
    env = {**os.environ, "SIGNALPOST_DATA_DIR": str(tmp_path), "REDIS_URL": "redis://127.0.0.1:1/0"}
    waiting = subprocess.Popen([sys.executable, "-m", "config.embedded"], env=env, stdout=subprocess.PIPE, text=True)
    assert waiting.stdout is not None
    with waiting.stdout:
        assert "not started" in waiting.stdout.readline()
    assert waiting.poll() is None
    waiting.terminate()
    assert waiting.wait(10) == -signal.SIGTERM
    assert not (tmp_path / "valkey.sock").exists()

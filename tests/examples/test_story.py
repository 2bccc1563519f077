"""The story names the step at which it ends before its end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def test_stopped_in_the_middle_it_says_where(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as web:
        web.settimeout(20)
        env = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "SIGNALPOST_DATA_DIR": str(tmp_path),
            "PORT": str(web.getsockname()[1]),
        }
        with subprocess.Popen(
            [sys.executable, "-m", "examples.story", "--once"], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True
        ) as story:
            web.accept()[0].close()  # it asks whether the web process answers
            story.terminate()
            said, _ = story.communicate(timeout=20)
    assert said == "Stopped at: the web process answers\n"
    assert story.returncode == 1

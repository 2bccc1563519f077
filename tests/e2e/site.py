"""The whole stack, as the Procfile starts it, with a receiver beside it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Self

from django.conf import settings as project

from tests.receiver import Receiver
from tests.servers import Process, Valkey, wait_for

if TYPE_CHECKING:
    from pathlib import Path

OUTSIDE = ("DATABASE_URL", "DATABASE_URL_FILE", "REDIS_URL", "REDIS_URL_FILE", "TEST_DIR", "DJANGO_SETTINGS_MODULE")
HURRY = {
    "SIGNALPOST_RETRY_SCHEDULE": "0.2",
    "SIGNALPOST_RETRY_JITTER": "0",
    "SIGNALPOST_LOOK_SECONDS": "0.3",
    "SIGNALPOST_BREAKER_FAILURES": "1000",
}


class Site:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mails = folder / "mails"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.receiver = Receiver()
        self.valkey = Valkey(folder)
        self.database = folder / "signalpost.sqlite3"
        self.env = {
            **{name: value for name, value in os.environ.items() if name not in OUTSIDE},
            **HURRY,
            "SIGNALPOST_DATA_DIR": str(folder),
            "SIGNALPOST_ALLOWED_NETWORKS": "127.0.0.0/8",
            "SECRET_KEY": project.SECRET_KEY,
            "REDIS_URL": self.valkey.url,
            "EMAIL_URL": f"filemail:///{self.mails}",
            "PYTHONUNBUFFERED": "1",
        }
        self.processes: list[Process] = []
        self.web: subprocess.Popen[bytes] | None = None

    def manage(self, *arguments: str) -> None:
        subprocess.run([sys.executable, "manage.py", *arguments], env=self.env, check=True, timeout=120)

    def start(self, *arguments: str) -> Process:
        log = self.folder / f"{arguments[0]}-{len(self.processes)}.log"
        self.processes.append(Process(*arguments, env=self.env, log=log))
        return self.processes[-1]

    def serve(self) -> None:
        log = (self.folder / "web.log").open("ab")
        command = [sys.executable, "-m", "gunicorn", "config.wsgi", "--bind", f"127.0.0.1:{self.port}"]
        command += ["--threads", "4", "--no-control-socket"]
        with log:
            self.web = subprocess.Popen(command, env=self.env, stdout=log, stderr=subprocess.STDOUT)
        wait_for(self._answers, timeout=40, what="the web process does not answer")

    def _answers(self) -> bool:
        with suppress(OSError):
            return bool(urllib.request.urlopen(f"{self.url}/healthz", timeout=2).status == 200)  # noqa: S310
        return False

    def mail(self, *words: str) -> str:
        """The text of the newest mail that has all the `words`, once it is there."""
        found: list[str] = []

        def arrived() -> bool:
            files = sorted(self.mails.glob("*.log"), key=lambda file: file.stat().st_mtime, reverse=True)
            mails = [mail for file in files for mail in reversed(file.read_text().split("-" * 79))]
            found[:] = [mail for mail in mails if all(word in mail for word in words)]
            return bool(found)

        wait_for(arrived, what=f"no mail with {words}")
        return found[0]

    @property
    def logs(self) -> str:
        return "\n".join(f"== {path.name}\n{path.read_text()}" for path in sorted(self.folder.glob("*.log")))

    def __enter__(self) -> Self:
        self.mails.mkdir()
        (self.folder / "static").mkdir(exist_ok=True)
        self.manage("migrate", "-v", "0")
        with ExitStack() as stack:  # what was started ends, too, where the next thing does not start
            stack.enter_context(self.valkey)
            stack.enter_context(self.receiver)
            stack.callback(self._stop)
            self.serve()
            self._running = stack.pop_all()
        return self

    def work(self) -> None:
        """Let a worker deliver from here on."""
        if not self.processes:
            self.start("rqworker").wait_to_say("Listening on", timeout=40)

    def rest(self) -> None:
        """No more deliveries, until somebody lets a worker deliver again."""
        for process in self.processes:
            process.stop()
        self.processes.clear()

    def __exit__(self, *args: object) -> None:
        self._running.close()

    def _stop(self) -> None:
        for process in self.processes:
            process.__exit__()
        if self.web is not None:
            self.web.terminate()
            self.web.wait(20)

"""`make demo`: the whole house on this machine, and a story told in it.

Starts what the Procfile starts, and two receivers; `examples.story` changes
orders in the shop and waits for each delivery. With --once everything stops
after the story, and the exit code says whether all of it arrived.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import secrets
import shutil
import signal
import socket
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from honcho.environ import parse_procfile

from examples.processes import Processes
from subscriptions.secrets import generate

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "var" / "demo"
FROM_OUTSIDE = ("DATABASE_URL", "DATABASE_URL_FILE", "REDIS_URL", "REDIS_URL_FILE")
PORTS = {"PORT": 8000, "DEMO_PORT": 9000, "DEMO_FLAKY_PORT": 9001}
STORY = "story"


def free_ports() -> dict[str, str]:
    """The wanted port of each, or any other where something listens there already."""
    with ExitStack() as held:  # until all are chosen, so that none is chosen twice
        return {name: str(_free_port(wanted, held)) for name, wanted in PORTS.items()}


def _free_port(wanted: int, held: ExitStack) -> int:
    for port in (wanted, 0):
        probe = held.enter_context(socket.socket())
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return int(probe.getsockname()[1])
    raise SystemExit("FAILED: no port is free on 127.0.0.1")


def environment() -> dict[str, str]:
    """The demo's own data, fresh at each start; a DATABASE_URL or REDIS_URL
    that is set is used as it is."""
    return {
        **os.environ,
        "SIGNALPOST_DATA_DIR": str(DATA),
        "SIGNALPOST_ALLOWED_NETWORKS": "127.0.0.0/8",
        "SECRET_KEY": os.environ.get("SECRET_KEY", secrets.token_urlsafe(50)),
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "utf-8",
        # The story is to be seen, and what goes wrong.
        "LOG_LEVEL": os.environ.get("LOG_LEVEL", "WARNING"),
        "GUNICORN_CMD_ARGS": "--log-level warning",
        "HOST": "127.0.0.1",
        **free_ports(),
        "DEMO_PASSWORD": secrets.token_urlsafe(9),
        "DEMO_SECRET": generate(),
    }


def commands(env: dict[str, str], *, once: bool) -> dict[str, str]:
    """What runs, by name; the story comes last."""
    python = f"exec '{sys.executable}'"
    listen = f"{python} manage.py listen --secret {env['DEMO_SECRET']}"
    return {
        **parse_procfile((ROOT / "Procfile").read_text()).processes,
        "receiver": f"{listen} --port {env['DEMO_PORT']} {'--quiet' if once else ''}",
        "flaky": f"{listen} --port {env['DEMO_FLAKY_PORT']} --status 500 --times 1 --quiet",
        STORY: f"{python} -m examples.story {'--once' if once else ''}",
    }


def run(processes: Processes, wanted: dict[str, str]) -> str:
    """Until one of them ends; why that is a failure, empty if it is none."""
    processes.say("Migrating …")
    processes.start("migrate", f"exec '{sys.executable}' manage.py migrate -v 0")
    ended = processes.wait()
    if ended is not None and ended[1] == 0:
        *others, _ = wanted
        processes.say(f"Starting {', '.join(others)}; Ctrl-C stops them")
        for name, command in wanted.items():
            processes.start(name, command)
        ended = processes.wait()
    if ended is None or ended == (STORY, 0):
        return ""
    name, status = ended
    return f"{name} ended" + (f" with {status}" if status >= 0 else f", killed by {signal.Signals(-status).name}")


@contextmanager
def alone() -> Iterator[None]:
    """One demo at a time in this directory: the next one's fresh start would
    take the database from under this one."""
    DATA.parent.mkdir(exist_ok=True, mode=0o700)
    with DATA.with_name("demo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit("FAILED: the demo runs already in this directory; stop it with Ctrl-C there") from None
        if DATA.exists():
            shutil.rmtree(DATA)
        (DATA / "static").mkdir(parents=True)  # WhiteNoise warns where it is missing
        yield


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo")
    parser.add_argument("--once", action="store_true", help="prove it, stop everything, say so by the exit code")
    once = parser.parse_args().once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a terminal that lacks a letter

    with alone():
        env = environment()
        given = ", ".join(name for name in FROM_OUTSIDE if name in env)
        wanted = commands(env, once=once)
        processes = Processes(env=env, cwd=ROOT, width=max(map(len, wanted)))
        processes.say(f"Database and queue: {f'{given} of the environment' if given else 'embedded, in var/demo'}")
        with processes:
            failure = run(processes, wanted)
        if failure:
            processes.say(f"FAILED: {failure}")
            return 1
        if processes.told is not None:
            processes.say("Stopped.")
            return 128 + processes.told if once else 0
        return 0


if __name__ == "__main__":
    sys.exit(main())

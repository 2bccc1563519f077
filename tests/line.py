"""A line between two programs that can be cut, and mended."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self


class Line:
    """`with Line(port) as line:` leads from `line.port` to `port` of this machine."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        self.server: socket.socket | None = None
        self.open: set[socket.socket] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def mend(self) -> None:
        self.server = socket.create_server(("127.0.0.1", self.port))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._accept, args=(self.server,), daemon=True).start()

    def cut(self) -> None:
        """Whoever is on it, and whoever comes, is turned away."""
        server, self.server = self.server, None
        for each in [*([server] if server else []), *tuple(self.open)]:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self, server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = server.accept()
                far = socket.create_connection(("localhost", self.target))
                self.open |= {near, far}
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65_536):
                other.sendall(data)
        for each in (one, other):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self.open -= {one, other}

    def __enter__(self) -> Self:
        self.mend()
        return self

    def __exit__(self, *args: object) -> None:
        self.cut()

"""A machine whose clock steps: FAULT_CLOCK names a file that says by how many seconds.

The process reads the wrong time from `time.time` and `datetime.now`, and so
does SQLite inside it. PostgreSQL is another machine, whose clock is right;
`time.monotonic` does not step anywhere.
"""

from __future__ import annotations

import datetime as module
import os
import re
import sqlite3
import time
from pathlib import Path
from typing import Any

from django.db.backends.signals import connection_created

real_time = time.time
real_datetime = module.datetime


def _step() -> float:
    return float(Path(os.environ["FAULT_CLOCK"]).read_text())


class Stepping(real_datetime):
    @classmethod
    def now(cls, tz: module.tzinfo | None = None) -> Any:
        return real_datetime.now(tz) + module.timedelta(seconds=_step())


def wind() -> None:
    if "FAULT_CLOCK" not in os.environ:
        return
    from django.utils import timezone

    from webhooks import events, sending

    time.time = lambda: real_time() + _step()
    for user in (timezone, events, sending):
        assert user.datetime is real_datetime
        user.datetime = Stepping  # type: ignore[attr-defined]
    connection_created.connect(_wind_sqlite, weak=False)


def _wind_sqlite(connection: Any, **kwargs: Any) -> None:
    if connection.vendor != "sqlite":
        return
    plain = sqlite3.connect(":memory:", check_same_thread=False)

    def stepped(function: str) -> Any:
        def call(*arguments: Any) -> Any:
            shown = [_now() if re.fullmatch("now", str(each), re.IGNORECASE) else each for each in arguments]
            places = ", ".join("?" * len(shown))
            return plain.execute(f"SELECT {function}({places})", shown).fetchone()[0]

        return call

    for function in ("strftime", "julianday"):
        connection.connection.create_function(function, -1, stepped(function))


def _now() -> str:
    return f"{Stepping.now(module.UTC):%Y-%m-%d %H:%M:%S.%f}"

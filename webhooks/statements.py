"""SQL for the few statements that are written by hand, on both databases.

The ORM takes as long to build a batch's statements as the database to run
them; see bench/README.md.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from django.db import connections

if TYPE_CHECKING:
    from collections.abc import Iterable

# On the database's clock, as the leases are: the workers' clocks need not
# agree. `NOW_PLUS` takes seconds as its parameter.
NOW = {"postgresql": "STATEMENT_TIMESTAMP()", "sqlite": "STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f', 'NOW')"}
NOW_PLUS = {
    "postgresql": "STATEMENT_TIMESTAMP() + CAST({} AS double precision) * INTERVAL '1 second'",
    "sqlite": "STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f', 'NOW', {} || ' seconds')",
}
_AMONG = {"postgresql": "{} = ANY({})", "sqlite": "{} IN (SELECT value FROM json_each({}))"}


def now(using: str) -> str:
    return NOW[connections[using].vendor]


def now_plus(using: str, seconds: str = "%s") -> str:
    return NOW_PLUS[connections[using].vendor].format(seconds)


def among(column: str, *, using: str, place: str = "%s") -> str:
    """A condition with one parameter, however many keys: `keys` makes it."""
    return _AMONG[connections[using].vendor].format(column, place)


def keys(values: Iterable[Any], *, using: str) -> Any:
    """As the column holds them: what a statement of ours has read."""
    return json.dumps(list(values)) if connections[using].vendor == "sqlite" else list(values)


def rows(query: str, parameters: list[Any], *, using: str) -> list[tuple[Any, ...]]:
    with connections[using].cursor() as cursor:
        cursor.execute(query, parameters)
        found: list[tuple[Any, ...]] = cursor.fetchall()
    return found


def run(query: str, parameters: list[Any], *, using: str) -> int:
    """Returns how many rows it changed."""
    with connections[using].cursor() as cursor:
        cursor.execute(query, parameters)
        return int(cursor.rowcount)


def beside(using: str) -> Any:
    """A cursor whose values (%b) travel beside the statement, in binary, as what
    it answers does: 3 to 6 µs of processor for a row among others, and not 30,
    as when psycopg writes them into the statement. None where it is not psycopg."""
    connection: Any = connections[using]
    if connection.vendor != "postgresql" or not hasattr(connection.Database, "ServerCursor"):
        return None
    connection.ensure_connection()
    raw = connection.Database.Cursor(connection.connection)
    raw.format = connection.Database.pq.Format.BINARY
    return connection.make_debug_cursor(raw) if connection.queries_logged else connection.make_cursor(raw)


def rows_by_columns(query: str, columns: list[list[Any]], *, using: str) -> list[tuple[Any, ...]]:
    """As `rows`, where the parameters (%b) are arrays, of a column each."""
    server = beside(using)
    if server is None:
        return rows(query.replace("%b", "%s"), columns, using=using)
    with server as cursor:
        cursor.execute(query, columns)
        found: list[tuple[Any, ...]] = cursor.fetchall()
    return found


def need_not_be_flushed(using: str) -> None:
    """The open transaction's commit does not wait for the disk. For what can be
    done again: a crash may take it, but never before what was committed after it."""
    if connections[using].vendor == "postgresql":
        with connections[using].cursor() as cursor:
            cursor.execute("SET LOCAL synchronous_commit = off")

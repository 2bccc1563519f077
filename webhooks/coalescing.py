"""The events of one transaction, written together.

From its second one on, a transaction's events may wait here, for one INSERT
before COMMIT. It is as if each had been inserted at once, for these reasons:

1. While rows wait, nothing runs but plain reads and writes of other tables.
   Before any other statement (a savepoint, DDL, SET, whatever names one of
   our tables) they are inserted, so that it finds what it would have found.
2. So all that wait came after the last savepoint, made by Django or by hand:
   whatever is rolled back to takes all of them along.
3. COMMIT inserts what waits. If that fails, the transaction is rolled back
   and the error raised: no change is committed without its event.
4. ROLLBACK and a closed connection forget it.

Nobody tells us of what is done on the driver's own connection, past Django:
nothing that is written inside psycopg's `transaction()` waits, but savepoints
written there by hand are not seen, as Django's on_commit sees neither.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from django.db import Error, connections

from subscriptions.conf import LOG, conf
from webhooks import statements
from webhooks.models import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

    # The values of a row's columns, in their order, as `prepared` makes them.
    Row = tuple[Any, ...]

COLUMNS = Event._meta.concrete_fields
NAMES = [field.attname for field in COLUMNS]
# What waits at most; SQLite and PostgreSQL gain nothing by more.
MOST_ROWS = 100
MOST_BYTES = 1_000_000
BODY = NAMES.index("body")
# Other kinds of fields are given to the driver as they are.
ADAPTED = {"postgresql": {"JSONField"}, "sqlite": {"UUIDField", "JSONField", "DateTimeField"}}

HARMLESS = re.compile(r"(?:SELECT|INSERT|UPDATE|DELETE|RELEASE)\b[^;]*", re.IGNORECASE)
UNDONE = re.compile(r"\s*ROLLBACK\b", re.IGNORECASE)
OURS = f"{Event._meta.app_label}_"
# Where the connection keeps what waits for it.
PLACE = "signalpost_waiting"
DOORS = ("commit", "rollback", "close")


def prepared(values: Sequence[Any], *, using: str) -> Row:
    row, connection = list(values), connections[using]
    for place, field in _adapted(connection.vendor):
        if row[place] is not None:
            row[place] = field.get_db_prep_save(row[place], connection)
    return tuple(row)


@cache
def _adapted(vendor: str) -> list[tuple[int, Any]]:
    kinds = ADAPTED.get(vendor)
    fields: Iterable[tuple[int, Any]] = enumerate(COLUMNS)
    return [(place, field) for place, field in fields if kinds is None or field.get_internal_type() in kinds]


def add(row: Row, *, using: str) -> None:
    """Insert an event as late as before COMMIT, or at once where it may not wait."""
    connection = connections[using]
    if _may_wait(connection):
        waiting = vars(connection).get(PLACE) or Waiting(connection)
        if waiting.add(row):
            return
    insert([row], using=using)


def _may_wait(connection: BaseDatabaseWrapper) -> bool:
    """In a transaction that Django commits. Where errors are logged, the row
    of a capture has to be inserted inside that capture's savepoint."""
    return (
        connection.in_atomic_block
        and connection.commit_on_exit
        and not connection.needs_rollback
        and connection.vendor in {"postgresql", "sqlite"}
        and conf.capture_errors != LOG
        and not _is_nested(connection.connection)
    )


def _is_nested(raw: Any) -> bool:
    """Inside psycopg's own `transaction()`, whose savepoints pass Django by."""
    return bool(getattr(raw, "_num_transactions", 0))


class Waiting:
    """The rows that wait on one connection."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.connection = connection
        self.rows: list[Row] = []
        self.size = 0
        # The driver's connection that they belong to.
        self.raw: Any = None
        self.then = {door: getattr(connection, door) for door in DOORS}
        self.doors = {door: getattr(self, door) for door in DOORS}
        vars(connection).update(self.doors, **{PLACE: self})

    def add(self, row: Row) -> bool:
        """False where somebody has put something else in the place of our doors."""
        if not self.rows:
            held = vars(self.connection)
            if any(held.setdefault(door, ours) is not ours for door, ours in self.doors.items()):
                return False
            self.raw = self.connection.connection
            # The first is called first, and the last is what execute_wrapper() takes away.
            self.connection.execute_wrappers.insert(0, self)
        self.rows.append(row)
        self.size += len(row[BODY])
        if len(self.rows) >= MOST_ROWS or self.size >= MOST_BYTES:
            self.flush()
        return True

    def __call__(self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
        """Around each statement while rows wait."""
        if not self.rows or _is_nested(self.raw):
            return execute(sql, params, many, context)
        undone = isinstance(sql, str) and UNDONE.match(sql) is not None
        if not undone and not _is_harmless(sql):
            self.flush()
        try:
            done = execute(sql, params, many, context)
        except Exception:
            # SQLite ends a transaction for some errors, such as a full disk.
            if not getattr(self.raw, "in_transaction", True):
                self.forget()
            raise
        if undone:
            self.forget()
        return done

    def flush(self) -> None:
        rows, raw = self.rows, self.raw
        self.forget()
        if not rows or raw is not self.connection.connection:
            return  # They went with the connection they were made on.
        try:
            insert(rows, using=self.connection.alias)
        except BaseException:
            if self.connection.in_atomic_block:
                self.connection.set_rollback(True)
            raise

    def forget(self) -> None:
        self.rows, self.size, self.raw = [], 0, None
        if self in self.connection.execute_wrappers:
            self.connection.execute_wrappers.remove(self)

    def commit(self) -> None:
        if self.rows and not self.connection.in_atomic_block:
            try:
                self.flush()
            except BaseException:
                # Django rolls back after a DatabaseError only.
                self._undo()
                raise
        self.then["commit"]()

    def _undo(self) -> None:
        try:
            self.connection.rollback()
        except Error:
            self.connection.close()

    def rollback(self) -> None:
        self.then["rollback"]()
        self.forget()

    def close(self) -> None:
        try:
            self.then["close"]()
        finally:
            if self.connection.closed_in_transaction or self.connection.connection is None:
                self.forget()


def _is_harmless(sql: Any) -> bool:
    return isinstance(sql, str) and OURS not in sql and HARMLESS.fullmatch(sql) is not None


def insert(rows: Sequence[Row], *, using: str) -> int:
    """Returns how many they were."""
    connection = connections[using]
    server = statements.beside(using) if rows else None
    if server is not None and len(rows) > 1:
        with server as cursor:
            cursor.execute(_by_columns(using), list(map(list, zip(*rows, strict=True))))
    elif server is not None:
        with server as cursor:
            cursor.execute(_by_row(using, "%b"), rows[0])
    elif rows:
        with connection.cursor() as cursor:
            cursor.executemany(_by_row(using, "%s"), rows)
    return len(rows)


@cache
def _by_row(using: str, place: str) -> str:
    return f"{_into(using)} VALUES ({', '.join([place] * len(COLUMNS))})"


@cache
def _by_columns(using: str) -> str:
    # A type with a length would cut what is too long, and not refuse it.
    types = [str(field.db_type(connections[using])).partition("(")[0] for field in COLUMNS]
    return f"{_into(using)} SELECT * FROM unnest({', '.join(f'%b::{kind}[]' for kind in types)})"  # noqa: S608 - our own names


def _into(using: str) -> str:
    quote = connections[using].ops.quote_name
    columns = ", ".join(quote(str(field.column)) for field in COLUMNS)
    return f"INSERT INTO {quote(Event._meta.db_table)} ({columns})"

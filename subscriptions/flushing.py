"""`flush` on SQLite, past the triggers that refuse deletes.

SQLite knows no TRUNCATE: Django empties its tables by DELETE, after each test
that commits, too. Triggers that refuse that would break `flush` in every
project that has this app, so they step aside for it, in its transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.db.backends.signals import connection_created

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from django.db.backends.base.base import BaseDatabaseWrapper

GUARDED = "subscriptions_auditentry"
TRIGGERS = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = %s"


def let_flush_pass() -> None:
    connection_created.connect(_prepare, dispatch_uid="signalpost.flush", weak=False)


def _prepare(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    operations: Any = connection.ops
    if connection.vendor == "sqlite" and not isinstance(operations.execute_sql_flush, Flush):
        operations.execute_sql_flush = Flush(connection, operations.execute_sql_flush)


class Flush:
    """In the place of the connection's `ops.execute_sql_flush`."""

    def __init__(self, connection: BaseDatabaseWrapper, then: Callable[[Iterable[str]], None]) -> None:
        self.connection = connection
        self.then = then

    def __call__(self, sql_list: Iterable[str]) -> None:
        with transaction.atomic(using=self.connection.alias), self.connection.cursor() as cursor:
            cursor.execute(TRIGGERS, [GUARDED])
            triggers = cursor.fetchall()
            for name, _ in triggers:
                cursor.execute(f"DROP TRIGGER {self.connection.ops.quote_name(name)}")
            self.then(sql_list)
            for _, sql in triggers:
                cursor.execute(sql)

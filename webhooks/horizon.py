"""Up to which number no delivery can still appear, so that who reads them by
number misses none.

A number is given when a row is inserted, and seen when its transaction
commits: a later one may be seen first. On PostgreSQL whoever inserts says so
before: a shared lock that names the number reached by then, and that goes with
the transaction. What it inserts has higher numbers. So a reader asks, in this
order: which number was given last; which locks are held; which rows there are.
A transaction that had a number by the first question has its lock still, and
its rows lie beyond it, or it has ended, and its rows are seen. SQLite has one
writer at a time: what is seen is all there is.
"""

from __future__ import annotations

from django.db import connections

from webhooks import statements

# Of advisory locks, the first of two keys; and what the second has room for.
LOCKS = 1_936_287_588  # "sign" and some
ROOM = 2**31

# Null before the first.
REACHED = "SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence('webhooks_delivery', 'id')::regclass), 0)"
ANNOUNCE = (
    f"SELECT pg_advisory_xact_lock_shared(%s, (reached.number %% {ROOM})::int) FROM ({REACHED}) AS reached (number)"  # noqa: S608
)
# By how much each that is about to insert lies behind the number reached.
BEHIND = f"""
    SELECT max((%s - objid::bigint + {ROOM}) %% {ROOM}) FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 2 AND classid = %s AND pid IS DISTINCT FROM pg_backend_pid()
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""  # noqa: S608


def announce(using: str) -> None:
    """Say, in the open transaction, that deliveries are about to be inserted."""
    if connections[using].vendor == "postgresql":
        statements.rows(ANNOUNCE, [LOCKS], using=using)


def reached(using: str) -> int | None:
    """The highest number up to which all deliveries are there; None for all.
    To be asked before the rows are read, in another statement."""
    if connections[using].vendor != "postgresql":
        return None
    [[number]] = statements.rows(REACHED, [], using=using)
    [[behind]] = statements.rows(BEHIND, [number % ROOM, LOCKS], using=using)
    return int(number) - int(behind or 0)


def keep(using: str) -> None:
    """Let nothing that was just read be lost in a crash: the fan-out does not
    wait for the disk, and after a crash the same numbers would be given again,
    to others. A commit that does wait takes all before it along."""
    if connections[using].vendor == "postgresql":
        statements.rows("SELECT pg_logical_emit_message(true, 'signalpost', '')", [], using=using)

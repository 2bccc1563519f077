"""Counts of what was done, for `/metrics`: kept as they grow, since counting
the rows of a million attempts at each scrape takes longer than sending some.

What workers do is noted in memory and written every few seconds: a batch that
is recorded pays nothing for it, and a worker that is killed takes with it what
it noted since, as it would take counters of its own. `audit` counts rows.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import defaultdict
from typing import TYPE_CHECKING

from django.db import DatabaseError, InterfaceError, connections
from django.db.models import Max, Sum
from django.db.models.functions import Now

from subscriptions.models import home
from webhooks.models import Tally

if TYPE_CHECKING:
    from collections.abc import Mapping

    Key = tuple[str, str]

logger = logging.getLogger(__name__)

# Rows that one count is spread over, so that workers seldom wait for each
# other; each process has one of them.
SLOTS = 32
FLUSH_SECONDS = 5.0

ATTEMPTS = "attempts"  # by the reason of the failure, or DELIVERED
DELIVERED = "delivered"
DELIVERIES = "deliveries"  # that ended, by status
DRAINS = "drains"  # COUNT of them, and their SECONDS
COUNT = "count"
SECONDS = "seconds"
EVENTS = "events"  # CAPTURED as far as they are no longer waiting, and FANNED_OUT
CAPTURED = "captured"
FANNED_OUT = "fanned_out"
LEASES = "leases"  # EXPIRED
EXPIRED = "expired"
LOOKS = "looks"  # COUNT of them; when a row of these was written, a worker was alive
SUBSCRIPTIONS = "subscriptions"  # TURNED_OFF by the machine
TURNED_OFF = "turned_off"

_slot = secrets.randbelow(SLOTS)
_noted: defaultdict[Key, float] = defaultdict(float)
_lock = threading.Lock()
_next_flush = 0.0
_outage = False


def note(name: str, counts: Mapping[str, float]) -> None:
    """In memory, until the next `flush`."""
    _note({(name, label): number for label, number in counts.items()})


def _note(counts: Mapping[Key, float]) -> None:
    with _lock:
        for key, number in counts.items():
            _noted[key] += number


def flush(*, at_once: bool = False) -> None:
    """Write what was noted, at most every `FLUSH_SECONDS`. What the database
    does not take waits for the next time: nothing that is sent depends on it."""
    global _next_flush, _outage  # noqa: PLW0603
    if not at_once and time.monotonic() < _next_flush:
        return
    _next_flush = time.monotonic() + FLUSH_SECONDS
    with _lock:
        taken = dict(_noted)
        _noted.clear()
    try:
        add(taken, using=home())
    except (DatabaseError, InterfaceError) as error:
        _note(taken)
        if not _outage:
            _outage = True
            logger.warning("Counts for the metrics wait: %s", type(error).__name__)
        return
    _outage = False


def add(counts: Mapping[Key, float], *, using: str) -> None:
    """In the open transaction on `using`, and last in it: whoever holds one of
    these rows must wait for nobody. Raises DatabaseError."""
    rows = [(name, label, _slot, number) for (name, label), number in sorted(counts.items()) if number]
    if not rows:
        return
    connection = connections[using]
    now, _ = Tally.objects.using(using).all().query.get_compiler(using=using).compile(Now())
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            INSERT INTO webhooks_tally AS t (name, label, slot, value, written_at)
            VALUES {", ".join([f"(%s, %s, %s, %s, {now})"] * len(rows))}
            ON CONFLICT (name, label, slot)
            DO UPDATE SET value = t.value + excluded.value, written_at = excluded.written_at
            """,  # noqa: S608 - made of the ORM's own SQL
            [value for row in rows for value in row],
        )


def totals() -> dict[Key, float]:
    rows = Tally.objects.using(home()).order_by().values_list("name", "label").annotate(total=Sum("value"))
    return {(name, label): total for name, label, total in rows}


def looked_ago() -> float | None:
    """Seconds since a worker last wrote that it had looked, by the database's
    clock; None where none ever has."""
    last = Tally.objects.using(home()).filter(name=LOOKS).aggregate(at=Max("written_at"), now=Max(Now()))
    return None if last["at"] is None else max(0.0, (last["now"] - last["at"]).total_seconds())

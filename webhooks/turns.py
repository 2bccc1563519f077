"""Whose events are fanned out next.

Tenants take turns: what one has a hundred thousand of keeps nobody else
waiting. Found by a few steps of an index, however many events wait.
"""

from __future__ import annotations

import time
from collections import Counter
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from django.db import connections

from webhooks.models import Event

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# In the order and under the condition of the index event_turn, and a tenant by
# a range: to a planner with statistics from another hour, other indexes look
# as good, and lead through all that is done.
WAITING, IN_ORDER = "fanned_out_at IS NULL", "ORDER BY tenant_id, id"
# From one tenant to the next, by a step of the index each.
TENANTS = f"""
    WITH RECURSIVE turn (tenant_id, place) AS (
        SELECT (SELECT tenant_id FROM webhooks_event WHERE {WAITING} AND tenant_id > %s {IN_ORDER} LIMIT 1), 1
        UNION ALL
        SELECT (SELECT e.tenant_id FROM webhooks_event e
                WHERE e.{WAITING} AND e.tenant_id > turn.tenant_id {IN_ORDER} LIMIT 1), turn.place + 1
        FROM turn WHERE turn.tenant_id IS NOT NULL AND turn.place < %s
    )
    SELECT tenant_id, (SELECT 1 FROM webhooks_event WHERE {WAITING} AND tenant_id IS NULL {IN_ORDER} LIMIT 1) FROM turn
"""  # noqa: S608
COLUMNS = "id, tenant_id, topic, changed, created_at, newest_subscription"
OLDEST = f"""
    SELECT {COLUMNS} FROM webhooks_event WHERE {WAITING} AND {{whose}} {IN_ORDER} LIMIT %s
"""  # noqa: S608
OF_TENANT = "tenant_id >= {0} AND tenant_id <= {0}"
OF_ALL = "tenant_id IS NULL"
BEFORE_ALL = -1

# Who has more than their share waits for so many times as long as it took:
# what has long been waiting can wait for what has just begun to.
REST = 2.0

# The tenant that this process served last, who had more than their share, and
# until when (time.monotonic()) they rest.
_served = BEFORE_ALL
_behind: frozenset[int | None] = frozenset()
_rest_until = 0.0


def forget() -> None:
    """As at the start of the process."""
    global _served, _behind, _rest_until
    _served, _behind, _rest_until = BEFORE_ALL, frozenset(), 0.0


def tenants(limit: int, *, using: str) -> list[int | None]:
    """Who has events that wait, beginning behind the one that was served last,
    at most `limit`. None stands for the events that concern every tenant."""
    return _tenants(_served, limit, using=using) or (_tenants(BEFORE_ALL, limit, using=using) if _served >= 0 else [])


def restless(whose: Sequence[int | None], *, patient: bool) -> list[int | None]:
    """Those who need not rest; with nothing else to do nobody needs to."""
    global _behind  # noqa: PLW0603
    if not patient or time.monotonic() >= _rest_until:
        _behind = frozenset()
    return [tenant for tenant in whose if tenant not in _behind]


def pause(longest: float) -> float:
    """For how long those that rest go on doing so; `longest` if nobody does."""
    return min(longest, max(0.0, _rest_until - time.monotonic())) if _behind else longest


def _tenants(after: int, limit: int, *, using: str) -> list[int | None]:
    with connections[using].cursor() as cursor:
        cursor.execute(TENANTS, [after, limit])
        rows = cursor.fetchall()
    for_all: list[int | None] = [None] if rows[0][1] else []
    return [*for_all, *(tenant for tenant, _ in rows if tenant is not None)]


def events(whose: Sequence[int | None], limit: int, *, using: str) -> list[Event]:
    """The oldest of each, in turns, about `limit` in all; without their bodies.

    Locked where the database locks rows, and without those that another
    worker has locked."""
    share = max(1, limit // len(whose))
    query, parameters = _oldest(whose, share, using=using)
    queues: dict[int | None, list[Event]] = {tenant: [] for tenant in whose}
    for event in Event.objects.using(using).raw(query, parameters):
        queues[event.tenant_id].append(event)
    for queue in queues.values():
        queue.sort(key=lambda event: event.pk)
    rounds: Iterable[tuple[Event | None, ...]] = zip_longest(*queues.values())
    return [event for each in rounds for event in each if event is not None]


def _oldest(whose: Sequence[int | None], share: int, *, using: str) -> tuple[str, list[Any]]:
    of_tenants = [tenant for tenant in whose if tenant is not None]
    queries: list[str] = []
    parameters: list[Any] = []
    if connections[using].features.has_select_for_update_skip_locked:
        oldest = f"SELECT e.* FROM ({OLDEST} FOR NO KEY UPDATE SKIP LOCKED) AS e"  # noqa: S608
        if of_tenants:
            each = OLDEST.format(whose=OF_TENANT.format("turn.tenant_id"))
            locked = f"LATERAL ({each} FOR NO KEY UPDATE SKIP LOCKED) AS e"
            queries.append(f"SELECT e.* FROM unnest(%s::bigint[]) AS turn (tenant_id), {locked}")  # noqa: S608
            parameters += [of_tenants, share]
    else:
        oldest = f"SELECT * FROM ({OLDEST})"  # noqa: S608
        queries += [oldest.format(whose=OF_TENANT.format("%s"))] * len(of_tenants)
        parameters += [value for tenant in of_tenants for value in (tenant, tenant, share)]
    if len(of_tenants) < len(whose):
        queries.append(oldest.format(whose=OF_ALL))
        parameters.append(share)
    return " UNION ALL ".join(queries), parameters


def served(
    whose: Sequence[int | None], listed: Sequence[Event], done: Sequence[Event], *, limit: int, took: float
) -> None:
    """The next turn begins with the first that was left out, or else behind the last."""
    global _served, _behind, _rest_until  # noqa: PLW0603
    share = Counter(event.tenant_id for event in listed)
    _behind = frozenset(tenant for tenant in whose if share[tenant] >= max(1, limit // len(whose)))
    _rest_until = time.monotonic() + REST * took
    left_out = share.keys() - {event.tenant_id for event in done}
    place = next((place for place, tenant in enumerate(whose) if tenant in left_out), len(whose))
    if place == len(whose) < limit:
        _served = BEFORE_ALL
    elif place and (last := whose[place - 1]) is not None:
        _served = last

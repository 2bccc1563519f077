"""What came of requests, written down: a batch at a time, in a few statements.

Whoever locks rows of several tables in one transaction does it in this order,
so that nobody waits in a circle, and within a table in the order of the keys:
a replay, deliveries, attempts, throttles, a tenant, subscriptions, the
revision, the inbox, rollups. Claims and replays begin elsewhere, and pass
over the deliveries that are locked. A deletion locks the deliveries before the
subscriptions, and again after them.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from random import SystemRandom
from typing import TYPE_CHECKING, Any, Literal

from django.db import connections, transaction

from subscriptions.conf import conf
from subscriptions.models import Subscription, home
from webhooks import disabling, retry, rollups, statements, tallies, throttles
from webhooks.models import Attempt, InboxRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from webhooks.deliveries import Claim

logger = logging.getLogger(__name__)

DETAIL_LIMIT = Attempt._meta.get_field("detail").max_length
DAY = 86_400.0  # seconds
# SQLite takes 32,766 parameters in one statement.
MOST_ROWS = 1_000
_random = SystemRandom().random


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one request. `reason` is empty only for a delivery;
    `retry_after` is in seconds, not yet held within any bounds; `sent` says
    that the receiver may have seen something of it; `arrived` is what the
    built-in inbox got."""

    url: str
    duration_ms: int
    sent: bool
    reason: Attempt.Reason | Literal[""] = ""
    detail: str = ""
    request_headers: bytes = b""
    status: int | None = None
    response_headers: bytes = b""
    response_body: bytes = b""
    cut: bool = False
    retry_after: float | None = None
    arrived: InboxRequest | None = None


def record(results: Sequence[tuple[Claim, Outcome]]) -> Counter[str]:
    """Write down what came of `results`, in one transaction.

    A failure counts only under the lease it was claimed with: a worker that
    wakes up late must not overwrite what another has done since. A success
    is final whoever brings it, since the receiver has it. Either way the
    attempt's own row says what happened. To record the same again is harmless.

    Returns how many deliveries were "delivered", "retrying" or "failed", how
    many results came "late", and how many subscriptions were "turned_off",
    by a 410 or by nothing but failures.
    Raises DatabaseError, and then nothing was written.
    """
    counts: Counter[str] = Counter()
    if not results:
        return counts
    policy = retry.Policy(conf.retry_schedule, conf.retry_jitter, conf.retry_after_max)
    delivered: list[Claim] = []
    again: list[tuple[Claim, float]] = []
    ended: list[tuple[Claim, retry.GiveUp]] = []
    for claim, outcome in results:
        match retry.decide(outcome, claim.step, policy=policy, random=_random):
            case None:
                delivered.append(claim)
            case retry.RetryAfter(seconds=seconds):
                again.append((claim, seconds))
            case given_up:
                ended.append((claim, given_up))
    alias = home()
    with transaction.atomic(using=alias):
        _lock([claim.delivery_id for claim, _ in results], using=alias)
        arrived = _deliver(delivered, using=alias)
        counts["delivered"] = len(arrived)
        counts["retrying"] = _retry(again, using=alias)
        failed = _fail([claim for claim, _ in ended], using=alias)
        counts["failed"] = len(failed)
        filled_in = _fill_in(results, using=alias)
        outcomes = [(claim.subscription_id, outcome.reason) for claim, outcome in results]
        off = dict.fromkeys(throttles.record(outcomes, using=alias), _given_up_on())
        off |= {claim.subscription_id: end.why for claim, end in ended if end.turn_off and claim.delivery_id in failed}
        counts["turned_off"] = _turn_off(off, using=alias)
        _keep_arrived(results, filled_in=filled_in, using=alias)
        rollups.add(rollups.count(results, ended=filled_in, delivered=arrived, failed=failed), using=alias)
    counts["late"] = len(results) - counts["delivered"] - counts["retrying"] - counts["failed"]
    tallies.note(tallies.ATTEMPTS, Counter(outcome.reason or tallies.DELIVERED for _, outcome in results))
    tallies.note(tallies.DELIVERIES, {status: counts[status] for status in ("delivered", "failed")})
    tallies.note(tallies.SUBSCRIPTIONS, {tallies.TURNED_OFF: counts["turned_off"]})
    for claim, end in ended:
        if claim.delivery_id in failed:
            logger.warning("Delivery %d has failed. %s", claim.delivery_id, end.why, extra=claim.ids)
    return counts


def _keep_arrived(results: Sequence[tuple[Claim, Outcome]], *, filled_in: set[int], using: str) -> None:
    arrived = [outcome.arrived for claim, outcome in results if outcome.arrived and claim.attempt_id in filled_in]
    if arrived:
        InboxRequest.objects.using(using).keep(arrived)


def _turn_off(off: Mapping[int, str], *, using: str) -> int:
    """All of them locked first: the first that is turned off renews the
    revision, for which somebody may wait who holds the second."""
    if len(off) > 1:
        rows = Subscription.objects.using(using).filter(pk__in=off).order_by("pk")
        list(rows.select_for_update(no_key=True).values_list("pk", flat=True))
    return sum(disabling.disable(pk, reason=off[pk], using=using) for pk in sorted(off))


def _given_up_on() -> str:
    return f"Nothing but failures for {conf.disable_after / DAY:g} days."


def _lock(deliveries: Sequence[int], *, using: str) -> None:
    """Take the rows in one order, so that two workers that bring results for
    the same deliveries wait for each other instead of deadlocking. SQLite
    locks the whole database with the first write."""
    if connections[using].features.has_select_for_update:
        among = statements.among("id", using=using)
        query = f"SELECT id FROM webhooks_delivery WHERE {among} ORDER BY id FOR NO KEY UPDATE"  # noqa: S608
        statements.rows(query, [statements.keys(deliveries, using=using)], using=using)


def _deliver(claims: Sequence[Claim], *, using: str) -> set[int]:
    """Whatever they are now: cancelled, failed, or claimed by another. Returns
    those that were not delivered before."""
    if not claims:
        return set()
    query = f"""
        UPDATE webhooks_delivery
        SET status = 'delivered', ended_at = {statements.now(using)}, next_attempt_at = NULL, leased_until = NULL
        WHERE {statements.among("id", using=using)} AND status <> 'delivered'
        RETURNING id
    """  # noqa: S608 - made of names of ours
    keys = statements.keys((claim.delivery_id for claim in claims), using=using)
    return {pk for (pk,) in statements.rows(query, [keys], using=using)}


# A failure is compared and set: nobody has claimed, cancelled, replayed or
# ended the delivery since. What comes after it is the schedule's wish again,
# whoever wanted this attempt.
UPDATE_HELD = """
    UPDATE webhooks_delivery AS d SET leased_until = NULL, "trigger" = 'schedule', triggered_by = '', {changes}
    FROM (VALUES {rows}) AS v
    WHERE d.id = v.column1 AND d.lease = v.column2
        AND d.leased_until IS NOT NULL AND d.status IN ('pending', 'retrying')
    RETURNING id
"""


def _retry(again: Sequence[tuple[Claim, float]], *, using: str) -> int:
    due = statements.now_plus(using, "v.column4")
    changes = f"status = 'retrying', schedule_step = v.column3, next_attempt_at = {due}"
    rows = [(claim.delivery_id, claim.lease, claim.step + 1, f"{seconds:.3f}") for claim, seconds in again]
    return len(_update_held(changes, rows, using=using))


def _fail(claims: Sequence[Claim], *, using: str) -> set[int]:
    changes = f"status = 'failed', ended_at = {statements.now(using)}, next_attempt_at = NULL"
    return _update_held(changes, [(claim.delivery_id, claim.lease) for claim in claims], using=using)


def _update_held(changes: str, rows: Sequence[tuple[Any, ...]], *, using: str) -> set[int]:
    updated: set[int] = set()
    for some in _chunks(rows):
        with connections[using].cursor() as cursor:
            cursor.execute(UPDATE_HELD.format(changes=changes, rows=_places(some)), _flat(some))
            updated.update(pk for (pk,) in cursor.fetchall())
    return updated


# Of an attempt's row, with what each is to PostgreSQL.
RECORDED = {
    "duration_ms": "int",
    "request_headers": "bytea",
    "response_status": "smallint",
    "response_headers": "bytea",
    "response_body": "bytea",
    "response_cut": "boolean",
    "reason": "text",
    "detail": "text",
}


def _fill_in(results: Sequence[tuple[Claim, Outcome]], *, using: str) -> set[int]:
    """The attempts' rows: `bulk_update` takes 1 ms for each. PostgreSQL gets a
    column at a time, as it is the parsing of a long statement that costs.

    Returns those whose end nobody had written down; their deliveries are locked.
    """
    rows = [(*_values(outcome), claim.attempt_id) for claim, outcome in results]
    now = statements.now(using)
    if connections[using].vendor == "sqlite":
        changes = ", ".join(f"{name} = %s" for name in RECORDED)
        unended = _unended([claim.attempt_id for claim, _ in results], using=using)
        with connections[using].cursor() as cursor:
            cursor.executemany(f"UPDATE webhooks_attempt SET ended_at = {now}, {changes} WHERE id = %s", rows)  # noqa: S608
        return unended
    changes = ", ".join(f"{name} = v.{name}" for name in RECORDED)
    columns = ", ".join(f"%b::{kind}[]" for kind in (*RECORDED.values(), "bigint"))
    query = f"""
        UPDATE webhooks_attempt AS a SET ended_at = {now}, {changes}
        FROM unnest({columns}) AS v ({", ".join(RECORDED)}, id) JOIN webhooks_attempt AS before ON before.id = v.id
        WHERE a.id = v.id RETURNING a.id, before.ended_at IS NULL
    """  # noqa: S608 - made of names of ours
    updated = statements.rows_by_columns(query, [list(column) for column in zip(*rows, strict=True)], using=using)
    return {pk for pk, is_first in updated if is_first}


def _unended(attempts: Sequence[int], *, using: str) -> set[int]:
    query = f"SELECT id FROM webhooks_attempt WHERE {statements.among('id', using=using)} AND ended_at IS NULL"  # noqa: S608
    return {pk for (pk,) in statements.rows(query, [statements.keys(attempts, using=using)], using=using)}


def _values(outcome: Outcome) -> tuple[Any, ...]:
    return (
        outcome.duration_ms,
        outcome.request_headers,
        outcome.status,
        outcome.response_headers,
        outcome.response_body,
        outcome.cut,
        outcome.reason,
        _storable(outcome.detail),
    )


def _storable(text: str) -> str:
    """Text that every database takes: no NUL and no lone surrogate, which
    PostgreSQL refuses, and no longer than the column."""
    return text.replace("\0", "").encode(errors="replace").decode()[:DETAIL_LIMIT]


def _chunks(rows: Sequence[tuple[Any, ...]]) -> Iterable[Sequence[tuple[Any, ...]]]:
    return (rows[start : start + MOST_ROWS] for start in range(0, len(rows), MOST_ROWS))


def _places(rows: Sequence[tuple[Any, ...]]) -> str:
    return ", ".join(["(" + ", ".join(["%s"] * len(rows[0])) + ")"] * len(rows))


def _flat(rows: Sequence[tuple[Any, ...]]) -> list[Any]:
    return [value for row in rows for value in row]

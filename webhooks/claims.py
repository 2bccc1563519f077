"""Who may send what, now: deliveries that are due become claims.

A claim is a lease on the database's clock, with a token. The attempt's row is
written with it, before the request: a crash leaves evidence.
"""

from __future__ import annotations

import heapq
import logging
import time
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache, partial
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from django.db import connections, transaction
from django.db.models import Count, F
from django.db.models.functions import Now

from subscriptions import secrets
from subscriptions.conf import conf
from subscriptions.models import home
from webhooks import rollups, statements, tallies, throttles
from webhooks.models import Attempt, Delivery, Event

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from webhooks.throttles import Permit

logger = logging.getLogger(__name__)

# After so many leases in a row that ended without a word, the delivery itself
# is what stops the workers.
LOST_LIMIT = 5
# SQLite takes 500 SELECTs in one statement, and what is behind has two.
MOST_SUBSCRIPTIONS = 200
# Who waits for longer than this gets the newest as well as the oldest.
BEHIND_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to send one delivery, until its lease runs out."""

    delivery_id: int
    lease: int
    attempt_id: int
    number: int
    step: int  # of the schedule, before this attempt
    webhook_id: str
    body: bytes
    subscription_id: int
    tenant_id: int
    url: str
    secrets: tuple[str, ...]  # live ones, newest first; empty where one cannot be read
    claimed_at: float  # clock(), from just before the lease began

    @property
    def ids(self) -> dict[str, Any]:
        """For the log."""
        return {
            "event": self.webhook_id,
            "delivery": self.delivery_id,
            "attempt": self.attempt_id,
            "subscription": self.subscription_id,
        }


# Also counts the time that the machine slept, which on Linux time.monotonic() leaves out.
clock = partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic

OPEN = "status IN ('pending', 'retrying')"  # literally the condition of the index delivery_due
# The subscriptions that have open deliveries, found by one step of the index
# each, however many deliveries those are.
READY = f"""
    WITH RECURSIVE walk (subscription_id) AS (
        SELECT min(subscription_id) FROM webhooks_delivery WHERE {OPEN}
        UNION ALL
        SELECT (SELECT min(d.subscription_id) FROM webhooks_delivery d
                WHERE d.{OPEN} AND d.subscription_id > walk.subscription_id)
        FROM walk WHERE walk.subscription_id IS NOT NULL
    ),
    wanting (subscription_id, tenant_id, rate_limit, oldest) AS MATERIALIZED (
        SELECT s.id, s.tenant_id, s.rate_limit, (SELECT min(d.next_attempt_at) FROM webhooks_delivery d
                                                 WHERE d.{OPEN} AND d.subscription_id = s.id)
        FROM walk JOIN subscriptions_subscription s ON s.id = walk.subscription_id
        WHERE s.disabled_at IS NULL
    ),
    ready (subscription_id, tenant_id, oldest, earliest, throttled) AS MATERIALIZED (
        SELECT s.subscription_id, s.tenant_id, s.oldest, {{earliest}},
            s.rate_limit IS NOT NULL OR t.probe_at IS NOT NULL
        FROM wanting s LEFT JOIN webhooks_throttle t ON t.subscription_id = s.subscription_id
        WHERE s.oldest IS NOT NULL
    )
"""  # noqa: S608
CLAIMED = 'id, event_id, subscription_id, tenant_id, lease, attempt_count, schedule_step, "trigger", triggered_by'


class Ready(NamedTuple):
    """A subscription that has something due. `behind` says that it has waited
    for so long that oldest first would keep what is new waiting, too."""

    subscription_id: int
    tenant_id: int
    behind: bool = False
    throttled: bool = False


class _Row(NamedTuple):
    pk: int
    event_id: Any
    subscription_id: int
    tenant_id: int
    lease: int
    number: int
    step: int
    trigger: str
    triggered_by: str

    @property
    def webhook_id(self) -> str:
        # As the database has it: a UUID, or on SQLite its 32 digits.
        return f"evt_{self.event_id.hex if isinstance(self.event_id, UUID) else self.event_id}"

    @property
    def ids(self) -> dict[str, Any]:
        return {"event": self.webhook_id, "delivery": self.pk, "subscription": self.subscription_id}


def claim(room: int, *, busy: Mapping[int, int] = MappingProxyType({})) -> list[Claim]:
    """Take at most `room` due deliveries for this worker alone.

    `busy` says how many requests this worker has in flight by subscription:
    none gets more than `conf.in_flight_per_subscription`, and turns go to the
    tenants and subscriptions that have the fewest. The rows of the attempts
    are written in the same transaction. May return fewer than there are due;
    an empty list says that there is nothing this worker can take now.
    """
    alias = home()
    claimed_at = clock()
    ready = _ready(alias)
    if not ready or room <= 0:
        return []
    with transaction.atomic(using=alias):
        permits = throttles.permits([each.subscription_id for each in ready if each.throttled], using=alias)
        rows = _lease_shares(_allowed(ready, permits), room, busy=busy, permits=permits, using=alias)
        throttles.spend(permits, Counter(row.subscription_id for row in rows), using=alias)
        return _begin(_without_lost(rows, using=alias), claimed_at=claimed_at, using=alias)


def _allowed(ready: Sequence[Ready], permits: Mapping[int, Permit]) -> list[Ready]:
    return [each for each in ready if not each.throttled or each.subscription_id in permits]


def _lease_shares(
    ready: Sequence[Ready], room: int, *, busy: Mapping[int, int], permits: Mapping[int, Permit], using: str
) -> list[_Row]:
    """Round by round: what one subscription had no use for goes to the others."""
    rows: list[_Row] = []
    flying = Counter(busy)
    most = conf.in_flight_per_subscription
    caps = {
        pk: min(most, flying[pk] + permit.requests) for pk, permit in permits.items() if permit.requests is not None
    }
    behind = {each.subscription_id for each in ready if each.behind}
    while True:
        turns = share_out(ready, room - len(rows), busy=flying, most=most, caps=caps)
        shares = dict(islice(turns.items(), MOST_SUBSCRIPTIONS))
        leased = _lease(shares, behind=behind, using=using) if shares else []
        rows += leased
        got = Counter(row.subscription_id for row in leased)
        if got == shares:
            return rows
        flying += got
        ready = [each for each in ready if got[each.subscription_id] >= shares.get(each.subscription_id, 0)]


def share_out(
    ready: Sequence[Ready],
    room: int,
    *,
    busy: Mapping[int, int],
    most: int,
    caps: Mapping[int, int] = MappingProxyType({}),
) -> dict[int, int]:
    """How many each subscription may get of `room`.

    `ready` has the longest waiting first. Each turn goes to the tenant that
    has the fewest in flight, and within it to the subscription that has the
    fewest. None gets more in flight than `most`, or than its own cap.
    """
    queues: dict[int, list[tuple[int, int, int]]] = {}
    load: Counter[int] = Counter()
    for waited, (subscription, tenant, *_) in enumerate(ready):
        flying = busy.get(subscription, 0)
        load[tenant] += flying
        if flying < caps.get(subscription, most):
            queues.setdefault(tenant, []).append((flying, waited, subscription))
    for queue in queues.values():
        heapq.heapify(queue)
    turns = [(load[tenant], queue[0][1], tenant) for tenant, queue in queues.items()]
    heapq.heapify(turns)
    shares: Counter[int] = Counter()
    for _ in range(room):
        if not turns:
            break
        tenant_flying, first, tenant = heapq.heappop(turns)
        queue = queues[tenant]
        flying, waited, subscription = heapq.heappop(queue)
        shares[subscription] += 1
        if flying + 1 < caps.get(subscription, most):
            heapq.heappush(queue, (flying + 1, waited, subscription))
        if queue:
            heapq.heappush(turns, (tenant_flying + 1, first, tenant))
    return dict(shares)


def _ready(alias: str) -> list[Ready]:
    now, _ = _now(alias)
    long_ago, parameters = _now(alias, plus=-BEHIND_SECONDS)
    query = f"""
        {_ready_query(alias)}
        SELECT subscription_id, tenant_id, oldest <= {long_ago}, throttled FROM ready
        WHERE earliest <= {now} ORDER BY earliest
    """  # noqa: S608
    with connections[alias].cursor() as cursor:
        cursor.execute(query, parameters)
        return [Ready(*row) for row in cursor.fetchall()]


def _ready_query(alias: str) -> str:
    return READY.format(earliest=throttles.EARLIEST[connections[alias].vendor])


def _lease(shares: Mapping[int, int], *, behind: Collection[int], using: str) -> list[_Row]:
    """The rows, locked and marked in one statement: on PostgreSQL what another
    worker is just taking is passed over, on SQLite it waits for its turn."""
    now, _ = _now(using)
    until, parameters = _now(using, plus=conf.lease_seconds)
    due = f"{OPEN} AND next_attempt_at <= {now} AND (leased_until IS NULL OR leased_until <= {now})"
    picks, picked = _picks(shares, behind=behind, due=due, using=using)
    # While it is held, the lease's end is when it is due again: what is in
    # flight is then no longer among what the index calls due.
    query = f"""
        WITH picked (id) AS MATERIALIZED ({picks})
        UPDATE webhooks_delivery SET lease = lease + 1, attempt_count = attempt_count + 1,
            leased_until = {until}, next_attempt_at = {until}
        WHERE id IN (SELECT id FROM picked)
        RETURNING {CLAIMED}
    """  # noqa: S608
    with connections[using].cursor() as cursor:
        cursor.execute(query, [*picked, *parameters, *parameters])
        return [_Row(*row) for row in cursor.fetchall()]


def _picks(shares: Mapping[int, int], *, behind: Collection[int], due: str, using: str) -> tuple[str, list[Any]]:
    """Oldest first; of what is behind, the newest, too, so that both move."""
    newest = {pk: share // 2 for pk, share in shares.items() if pk in behind and share > 1}
    oldest = {pk: share - newest.get(pk, 0) for pk, share in shares.items()}
    if connections[using].features.has_select_for_update_skip_locked:
        pick = f"""
            SELECT d.id FROM unnest(%s::bigint[], %s::int[]) AS pick (subscription_id, share), LATERAL (
                SELECT id FROM webhooks_delivery
                WHERE subscription_id = pick.subscription_id AND {due}
                ORDER BY next_attempt_at {{order}} LIMIT pick.share
                FOR NO KEY UPDATE SKIP LOCKED
            ) d
        """  # noqa: S608
        query, parameters = pick.format(order="ASC"), [list(oldest), list(oldest.values())]
        if newest:
            query += f" UNION ALL {pick.format(order='DESC')}"
            parameters += [list(newest), list(newest.values())]
        return query, parameters
    pick = f"""
        SELECT id FROM (
            SELECT id FROM webhooks_delivery WHERE subscription_id = %s AND {due}
            ORDER BY next_attempt_at {{order}} LIMIT %s
        )
    """  # noqa: S608
    each = [pick.format(order="ASC")] * len(oldest) + [pick.format(order="DESC")] * len(newest)
    return " UNION ALL ".join(each), [value for pairs in (oldest, newest) for pair in pairs.items() for value in pair]


def _now(alias: str, *, plus: float | None = None) -> tuple[str, Sequence[Any]]:
    """SQL for the database's own clock: workers' clocks need not agree."""
    query = Delivery.objects.using(alias).query
    expression = Now() if plus is None else Now() + timedelta(seconds=plus)
    sql, parameters = query.get_compiler(using=alias).compile(expression.resolve_expression(query))
    return sql, parameters


def _without_lost(rows: list[_Row], *, using: str) -> list[_Row]:
    """Close the attempts of leases that ran out, and give up on deliveries
    that have taken too many workers with them."""
    before = [row.pk for row in rows if row.number > 1]
    unended = Attempt.objects.using(using).filter(delivery_id__in=before, ended_at=None) if before else None
    lost = list(unended.values_list("delivery_id", flat=True)) if unended is not None else []
    if unended is None or not lost:
        return rows
    unended.update(ended_at=Now(), reason=Attempt.Reason.LOST)
    _tally(tallies.LEASES, tallies.EXPIRED, len(lost), using=using)
    _tally(tallies.ATTEMPTS, Attempt.Reason.LOST, len(lost), using=using)
    hopeless = set(
        Attempt.objects.using(using)
        .filter(delivery_id__in=lost, reason=Attempt.Reason.LOST, number__gte=F("delivery__attempt_count") - LOST_LIMIT)
        .values("delivery_id")
        .annotate(times=Count("pk"))
        .filter(times__gte=LOST_LIMIT)
        .values_list("delivery_id", flat=True)
    )
    subscriptions = {row.pk: row.subscription_id for row in rows}
    rollups.add(
        rollups.count_lost((subscriptions[pk] for pk in lost), failed=(subscriptions[pk] for pk in hopeless)),
        using=using,
    )
    if hopeless:
        for row in rows:
            if row.pk in hopeless:
                logger.error(
                    "Delivery %d is given up: %d workers in a row stopped over it", row.pk, LOST_LIMIT, extra=row.ids
                )
        Delivery.objects.using(using).filter(pk__in=hopeless).update(
            status=Delivery.Status.FAILED,
            ended_at=Now(),
            next_attempt_at=None,
            leased_until=None,
            attempt_count=F("attempt_count") - 1,
        )
        _tally(tallies.DELIVERIES, Delivery.Status.FAILED, len(hopeless), using=using)
    return [row for row in rows if row.pk not in hopeless]


def _tally(name: str, label: str, number: int, *, using: str) -> None:
    """Only what is committed counts."""
    transaction.on_commit(partial(tallies.note, name, {label: number}), using=using)


def _begin(rows: list[_Row], *, claimed_at: float, using: str) -> list[Claim]:
    """Write the attempts' rows and gather what sending needs."""
    if not rows:
        return []
    attempts = _start_attempts([row.pk for row in rows], using=using)
    bodies = _bodies({row.event_id for row in rows}, using=using)
    keys = _secrets({row.subscription_id for row in rows}, using=using)
    return [
        Claim(
            delivery_id=row.pk,
            lease=row.lease,
            attempt_id=attempt,
            number=row.number,
            step=row.step,
            webhook_id=row.webhook_id,
            body=bodies[row.event_id],
            subscription_id=row.subscription_id,
            tenant_id=row.tenant_id,
            url=url,
            secrets=keys.get(row.subscription_id, ()),
            claimed_at=claimed_at,
        )
        for row in rows
        for attempt, url in [attempts[row.pk]]
    ]


def _start_attempts(deliveries: Sequence[int], *, using: str) -> dict[int, tuple[int, str]]:
    """By delivery: the attempt and the URL that it is made to."""
    query = f"""
        INSERT INTO webhooks_attempt
            (delivery_id, number, lease, "trigger", triggered_by, url, started_at,
             request_headers, response_headers, response_body, response_cut, reason, detail)
        SELECT d.id, d.attempt_count, d.lease, d."trigger", d.triggered_by, s.url, {statements.now(using)},
            {NOTHING[connections[using].vendor]}, '', ''
        FROM webhooks_delivery d JOIN subscriptions_subscription s ON s.id = d.subscription_id
        WHERE {statements.among("d.id", using=using)}
        RETURNING delivery_id, id, url
    """  # noqa: S608 - made of names of ours
    rows = statements.rows(query, [statements.keys(deliveries, using=using)], using=using)
    return {delivery: (attempt, url) for delivery, attempt, url in rows}


# Three empty values of bytes, and no.
NOTHING = {"postgresql": "'', '', '', false", "sqlite": "x'', x'', x'', 0"}


def _bodies(events: Iterable[Any], *, using: str) -> dict[Any, bytes]:
    among = statements.among("id", using=using, place="%b")
    query, keys = f"SELECT id, body FROM webhooks_event WHERE {among}", statements.keys(events, using=using)  # noqa: S608
    return {pk: bytes(body) for pk, body in statements.rows_by_columns(query, [keys], using=using)}


# Kept by ciphertext, so that a rotated secret is never mistaken for the old one.
_open = lru_cache(maxsize=4096)(secrets.decrypt)
_unreadable: set[int] = set()  # subscriptions, of which it has been said


def forget_secrets() -> None:
    """Keep no secret in memory, such as when there is nothing left to send."""
    _open.cache_clear()
    _unreadable.clear()


def _secrets(subscriptions: Iterable[int], *, using: str) -> dict[int, tuple[str, ...]]:
    """By subscription. One that cannot be read leaves none: its deliveries
    fail, and say so, instead of going out with half of their signatures."""
    found: dict[int, list[str]] = {}
    unreadable: dict[int, str] = {}
    query = f"""
        SELECT subscription_id, ciphertext FROM subscriptions_secret
        WHERE {statements.among("subscription_id", using=using)}
            AND (expires_at IS NULL OR expires_at > {statements.now(using)})
        ORDER BY id DESC
    """  # noqa: S608
    for subscription, ciphertext in statements.rows(query, [statements.keys(subscriptions, using=using)], using=using):
        try:
            found.setdefault(subscription, []).append(_open(bytes(ciphertext)))
        except ValueError as error:
            unreadable[subscription] = str(error)
    if new := sorted(unreadable.keys() - _unreadable):
        logger.error("The secrets of subscriptions %s cannot be read: %s", new, unreadable[new[0]])
        _unreadable.update(new)
    return {subscription: tuple(keys) for subscription, keys in found.items() if subscription not in unreadable}


def release(claims: Sequence[Claim]) -> None:
    """Hand back claims that were not sent: due at once, as if never claimed.

    What has since been claimed by another, or has ended, stays as it is.
    """
    if not claims:
        return
    alias = home()
    leases = {claim.delivery_id: claim.lease for claim in claims}
    with transaction.atomic(using=alias):
        rows = Delivery.objects.using(alias).open().filter(pk__in=leases, leased_until__isnull=False).order_by("pk")
        held = [pk for pk, lease in rows.select_for_update().values_list("pk", "lease") if leases[pk] == lease]
        Attempt.objects.using(alias).filter(
            pk__in=[claim.attempt_id for claim in claims if claim.delivery_id in held], ended_at=None
        ).delete()
        Delivery.objects.using(alias).filter(pk__in=held).update(
            leased_until=None, next_attempt_at=Now(), attempt_count=F("attempt_count") - 1
        )


def next_due_in() -> float | None:
    """Seconds until something is to be done: 0 for now, None for never, as far as is known."""
    alias = home()
    if Event.objects.using(alias).waiting().exists():
        return 0.0
    if connections[alias].vendor == "postgresql":
        seconds = "extract(epoch FROM min(earliest) - statement_timestamp())"
    else:
        seconds = "(julianday(min(earliest)) - julianday('now')) * 86400.0"
    with connections[alias].cursor() as cursor:
        cursor.execute(f"{_ready_query(alias)} SELECT {seconds} FROM ready", [])  # noqa: S608
        (due,) = cursor.fetchone()
    return None if due is None else max(0.0, float(due))

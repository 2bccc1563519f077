"""`/metrics`, for the operator's Prometheus: how much, how late, what fails.

Written here, as the text format is a few lines where every label is one of
ours: no name, URL or topic of a tenant is ever among them.

What grows is counted as it happens (`tallies`); what there is now is read from
the indexes that the drain itself uses, so that a scrape does not get slower
with the rows that are done.
"""

from __future__ import annotations

import hmac
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError, InterfaceError, connections, transaction
from django.db.models import Count, Q
from django.http import Http404, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from subscriptions.conf import conf
from subscriptions.models import Subscription, home
from webhooks import claims, deliveries, tallies, throttles
from webhooks.models import Attempt, Delivery, Event, Throttle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from django.http import HttpRequest

logger = logging.getLogger(__name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PERMISSION = "webhooks.view_metrics"
# A backlog is counted so far and no further; how old it is says more.
MOST = 10_000
ENDED = (Delivery.Status.DELIVERED, Delivery.Status.FAILED, Delivery.Status.CANCELLED)


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. `samples` are (suffix of the name, label's name and value, number)."""

    name: str
    kind: str
    help: str
    samples: list[tuple[str, tuple[str, str] | None, float]] = field(default_factory=list)

    def add(self, value: float | None, *, suffix: str = "", **label: str) -> Family:
        if value is not None:
            self.samples.append((suffix, next(iter(label.items()), None), value))
        return self

    def lines(self) -> Iterator[str]:
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} {self.kind}"
        for suffix, label, value in self.samples:
            labels = '{{{}="{}"}}'.format(*label) if label else ""
            yield f"{self.name}{suffix}{labels} {float(value)!r}"


@never_cache
@require_safe
@transaction.non_atomic_requests
def metrics(request: HttpRequest) -> HttpResponse:
    if not _may_read(request):
        if "authorization" in request.headers:
            return HttpResponse(status=401, headers={"WWW-Authenticate": "Bearer"})
        raise Http404
    try:
        text = exposition()
    except (DatabaseError, InterfaceError) as error:
        logger.warning("There are no metrics: %s", deliveries.in_short(error))
        return HttpResponse("The database does not answer.\n", status=503, content_type="text/plain")
    return HttpResponse(text, headers={"Content-Type": CONTENT_TYPE})


def _may_read(request: HttpRequest) -> bool:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if conf.metrics_token and scheme.lower() == "bearer":
        return hmac.compare_digest(token.strip().encode(), conf.metrics_token.encode())
    user: Any = getattr(request, "user", None)  # a host project may know no users
    return user is not None and user.is_active and user.is_staff and user.has_perm(PERMISSION)


def exposition() -> str:
    """Raises DatabaseError."""
    return "".join(f"{line}\n" for family in families() for line in family.lines())


def families() -> Iterator[Family]:
    """Raises DatabaseError."""
    alias = home()
    totals = tallies.totals()

    def total(name: str, label: str) -> float:
        return totals.get((name, label), 0.0)

    yield from _of_events(alias, fanned_out=total(tallies.EVENTS, tallies.FANNED_OUT))
    yield from _of_deliveries(alias)
    ended = _counter("deliveries_ended", "Deliveries that came to their end, by its status.")
    for status in ENDED:
        ended.add(total(tallies.DELIVERIES, status), status=status)
    yield ended
    yield _counter("attempts_delivered", "Attempts that a receiver answered with 2xx.").add(
        total(tallies.ATTEMPTS, tallies.DELIVERED)
    )
    failed = _counter("attempts_failed", "Attempts that failed, by the reason.")
    for reason in Attempt.Reason:
        failed.add(total(tallies.ATTEMPTS, reason), reason=reason)
    yield failed
    yield _counter("leases_expired", "Deliveries whose worker stopped before the answer was recorded.").add(
        total(tallies.LEASES, tallies.EXPIRED)
    )
    yield (
        Family("signalpost_drain_seconds", "summary", "Time in which workers had something to send.")
        .add(total(tallies.DRAINS, tallies.SECONDS), suffix="_sum")
        .add(total(tallies.DRAINS, tallies.COUNT), suffix="_count")
    )
    yield _gauge("worker_looked_seconds", "Since any worker wrote that it had looked.").add(tallies.looked_ago())
    yield from _of_subscriptions(alias)
    yield _counter(
        "subscriptions_turned_off", "Subscriptions that were turned off by a 410 or by nothing but failures."
    ).add(total(tallies.SUBSCRIPTIONS, tallies.TURNED_OFF))


def _counter(name: str, text: str) -> Family:
    return Family(f"signalpost_{name}_total", "counter", text)


def _gauge(name: str, text: str) -> Family:
    return Family(f"signalpost_{name}", "gauge", text)


def _of_events(alias: str, *, fanned_out: float) -> Iterator[Family]:
    waiting, settled = waiting_and_settled(alias)
    yield _counter("events_captured", "Events that were committed, to be sent.").add(waiting + settled)
    yield _counter("events_fanned_out", "Events that were made into deliveries.").add(fanned_out)
    yield _gauge("events_waiting", f"Events that are not fanned out yet, counted up to {MOST}.").add(waiting)
    age = _gauge("events_oldest_waiting_seconds", "Age of the oldest event that is not fanned out yet; 0 without one.")
    for each in dict.fromkeys([alias, *deliveries.away_from_home()]):
        age.add(oldest_waiting(each), database=each)
    yield age


def waiting_and_settled(alias: str) -> tuple[int, float]:
    """In one statement, and so of one moment: their sum must never fall,
    which Prometheus would take for a counter that began anew."""
    query = f"""
        SELECT
            (SELECT count(*) FROM (
                SELECT id FROM webhooks_event WHERE fanned_out_at IS NULL ORDER BY id LIMIT {MOST}
            ) AS waiting),
            (SELECT coalesce(sum(value), 0) FROM webhooks_tally WHERE name = %s AND label = %s)
    """  # noqa: S608 - a number of ours
    with connections[alias].cursor() as cursor:
        cursor.execute(query, [tallies.EVENTS, tallies.CAPTURED])
        waiting, settled = cursor.fetchone()
    return waiting, settled


def oldest_waiting(alias: str) -> float | None:
    """None where another database than home is away: what is there waits, too."""
    try:
        oldest: UUID | None = Event.objects.using(alias).waiting().values_list("pk", flat=True).first()
    except (DatabaseError, InterfaceError):
        if alias == home():
            raise
        connections[alias].close()
        return None
    # By the key, which begins with the milliseconds of its making (RFC 9562):
    # whoever publishes may say that something happened long ago.
    return 0.0 if oldest is None else max(0.0, time.time() - (oldest.int >> 80) / 1000)


def _of_deliveries(alias: str) -> Iterator[Family]:
    counted = _open_deliveries(alias)
    waiting = _gauge("deliveries_open", f"Deliveries that are still to be sent, by status, of the first {MOST}.")
    for status in Delivery.OPEN:
        waiting.add(counted.get(status, 0), status=status)
    yield waiting
    in_flight, age = held_and_due(alias)
    yield _gauge("deliveries_in_flight", "Deliveries that a worker holds under a lease.").add(in_flight)
    yield _gauge(
        "deliveries_oldest_due_seconds", "For how long a delivery that may be sent has waited; 0 without one."
    ).add(age)


def _open_deliveries(alias: str) -> dict[str, int]:
    # In the order of the index, or PostgreSQL might look for them among all the others.
    query = f"""
        SELECT status, count(*) FROM (
            SELECT status FROM webhooks_delivery WHERE {claims.OPEN}
            ORDER BY subscription_id, next_attempt_at LIMIT {MOST}
        ) AS waiting GROUP BY status
    """  # noqa: S608 - made of names of ours
    with connections[alias].cursor() as cursor:
        cursor.execute(query)
        return dict(cursor.fetchall())


# What is held is due again when its lease ends (`claims`), and so stands
# close together in the index. "Due" is what `claims` would take, so that a
# receiver that is rate limited or failing does not make the workers look late.
HELD_AND_DUE = {
    "postgresql": """
        SELECT
            (SELECT coalesce(sum((
                SELECT count(*) FROM webhooks_delivery d
                WHERE d.{open} AND d.subscription_id = walk.subscription_id
                    AND d.next_attempt_at > statement_timestamp() AND d.leased_until > statement_timestamp()
                    AND d.next_attempt_at <= statement_timestamp() + %s * interval '1 second'
            )), 0) FROM walk),
            (SELECT extract(epoch FROM statement_timestamp() - min(earliest)) FROM ready)
    """,
    "sqlite": """
        SELECT
            (SELECT coalesce(sum((
                SELECT count(*) FROM webhooks_delivery d
                WHERE d.{open} AND d.subscription_id = walk.subscription_id
                    AND d.next_attempt_at > strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now')
                    AND d.leased_until > strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now')
                    AND d.next_attempt_at <= strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', %s || ' seconds')
            )), 0) FROM walk),
            (SELECT (julianday('now') - julianday(min(earliest))) * 86400.0 FROM ready)
    """,
}


def held_and_due(alias: str) -> tuple[int, float]:
    vendor = connections[alias].vendor
    ready = claims.READY.format(earliest=throttles.EARLIEST[vendor])
    query = f"{ready} {HELD_AND_DUE[vendor].format(open=claims.OPEN)}"
    with connections[alias].cursor() as cursor:
        cursor.execute(query, [conf.lease_seconds])
        held, age = cursor.fetchone()
    return int(held), max(0.0, float(age or 0.0))


def _of_subscriptions(alias: str) -> Iterator[Family]:
    counted = Subscription.objects.using(alias).aggregate(
        on=Count("pk", filter=Q(disabled_at=None)), off=Count("pk", filter=Q(disabled_at__isnull=False))
    )
    subscriptions = _gauge("subscriptions", "Subscriptions that are on and off.")
    for state, number in counted.items():
        subscriptions.add(number, state=state)
    yield subscriptions
    failing = Throttle.objects.using(alias).filter(probe_at__isnull=False, subscription__disabled_at=None)
    yield _gauge("breakers_open", "Subscriptions that get one probe at a time, since they keep failing.").add(
        failing.count()
    )

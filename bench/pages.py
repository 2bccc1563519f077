"""Pages over a table that has grown."""

from __future__ import annotations

import gc
import time
from statistics import mean, median
from typing import TYPE_CHECKING

from django.db import connection
from django.utils import timezone

from bench import traffic
from bench.figures import Result, figure
from subscriptions.models import Tenant
from webhooks.models import Delivery, Event

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.measuring import Bench

ROWS = 50
DEEP = 1_000  # the page far back
TIMES = 30
WARM = 5


@figure("page_1m")
def page(bench: Bench) -> Iterable[Result]:
    subscriptions = len(traffic.subscribe(tenants=10, each=20))
    tenant = Tenant.objects.order_by("pk")[3]
    few = []
    _grow(10_000 // subscriptions)
    few.append(_first(bench, tenant))
    _grow(bench.size(1_000_000, 30_000) // subscriptions)
    first, deep = _first(bench, tenant), _deep(bench, tenant)
    # Again: half a minute has passed, and with it what else the machine did.
    _grow(10_000 // subscriptions)
    few.append(_first(bench, tenant))
    peer = mean(few)
    yield Result(
        "page_1m",
        max(first, deep) / peer,
        f"{first * 1e6:,.0f} µs, {deep * 1e6:,.0f} µs",
        f"{peer * 1e6:,.0f} µs",
    )


def _grow(events: int) -> None:
    """All of `events` to all subscriptions, each with one attempt that is done."""
    traffic.clear()
    now = timezone.now()
    Event.objects.bulk_create(
        Event(topic=traffic.TOPIC, body=traffic.BODY, created_at=now, fanned_out_at=now) for _ in range(events)
    )
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO webhooks_delivery
                (event_id, subscription_id, tenant_id, status, created_at, ended_at,
                 attempt_count, schedule_step, lease, "trigger", triggered_by)
            SELECT e.id, s.id, s.tenant_id, 'delivered', e.created_at, e.created_at, 1, 0, 1, 'schedule', ''
            FROM webhooks_event e CROSS JOIN subscriptions_subscription s ORDER BY e.id, s.id
            """
        )
        cursor.execute(
            """
            INSERT INTO webhooks_attempt
                (delivery_id, number, lease, "trigger", triggered_by, url, started_at, ended_at, duration_ms,
                 request_headers, response_status, response_headers, response_body, response_cut, reason, detail)
            SELECT d.id, 1, 1, 'schedule', '', 'http://127.0.0.1/', d.created_at, d.ended_at, 7,
                '', 200, '', 'ok', %s, '', ''
            FROM webhooks_delivery d ORDER BY d.id
            """,
            [False],
        )
    traffic.analyze()


def _first(bench: Bench, tenant: Tenant) -> float:
    return bench.medians(lambda: _median(tenant, None))


def _deep(bench: Bench, tenant: Tenant) -> float:
    keys = Delivery.objects.for_tenant(tenant).order_by("-pk").values_list("pk", flat=True)
    rows = (DEEP - 1) * ROWS
    cursor = keys[min(rows, keys.count() - ROWS - 1)]
    return bench.medians(lambda: _median(tenant, cursor))


def _median(tenant: Tenant, before: int | None) -> float:
    # What the rows were made of is not to be searched while a page is timed.
    gc.collect()
    return median([_seconds(tenant, before) for _ in range(WARM + TIMES)][WARM:])


def _seconds(tenant: Tenant, before: int | None) -> float:
    rows = Delivery.objects.for_tenant(tenant).select_related("event", "subscription").defer("event__body")
    if before is not None:
        rows = rows.filter(pk__lt=before)
    began = time.perf_counter()
    assert len(rows.order_by("-pk")[:ROWS]) == ROWS
    return time.perf_counter() - began

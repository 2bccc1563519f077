"""From an event to its deliveries."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING

from django.db import transaction
from django.utils import timezone

from bench import traffic
from bench.figures import Result, figure
from subscriptions.models import Tenant, home
from webhooks import deliveries, matching, statements
from webhooks.models import Delivery, Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bench.measuring import Bench

TIMES = 100


@figure("fan_out_10k")
def fan_out(bench: Bench) -> Iterable[Result]:
    number = bench.size(10_000, 10_000)
    traffic.subscribe(tenants=1, each=number, prefix=traffic.SOLO, secret=False)
    tenant = Tenant.objects.get()
    traffic.analyze()

    def ours() -> float:
        traffic.clear()
        _event(tenant, fanned_out=False)
        return _seconds(deliveries.fan_out)

    def peers() -> float:
        event = _event(tenant)
        rows = list(Delivery.objects.all())
        traffic.clear()
        event.save(force_insert=True)
        for row in rows:
            row.pk, row.event = None, event
        return _seconds(lambda: _in_bulk(rows))

    took, bulk = [], []
    for _ in range(bench.size(7, 1)):
        took.append(ours())
        assert Delivery.objects.count() == number
        bulk.append(peers())
        assert Delivery.objects.count() == number
    yield Result(
        "fan_out_10k", median(took) / median(bulk), f"{median(took) * 1000:.0f} ms", f"{median(bulk) * 1000:.0f} ms"
    )


def _in_bulk(rows: list[Delivery]) -> None:
    with transaction.atomic():
        Delivery.objects.bulk_create(rows)


def _event(tenant: Tenant, *, fanned_out: bool = True) -> Event:
    now = timezone.now()
    return Event.objects.create(
        tenant=tenant, topic=traffic.TOPIC, body=traffic.BODY, created_at=now, fanned_out_at=now if fanned_out else None
    )


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@figure("match_100k")
def match(bench: Bench) -> Iterable[Result]:
    tenants = bench.size(10_000, 300)
    few = _matching(bench, tenants=10)
    many = _matching(bench, tenants=tenants)
    yield Result("match_100k", many / few, f"{many * 1e6:,.0f} µs", f"{few * 1e6:,.0f} µs")


def _matching(bench: Bench, *, tenants: int) -> float:
    """Seconds to know from memory that somebody listens, and from the database who."""
    traffic.clear(wishes=True)
    traffic.subscribe(tenants=tenants, each=10, secret=False)
    traffic.analyze()
    traffic.settle()
    tenant = Tenant.objects.order_by("pk")[tenants // 2]
    event = _event(tenant)
    matching.wanted_by(event.topic, tenant.pk)

    def one() -> None:
        assert matching.wanted_by(event.topic, tenant.pk)
        assert len(statements.rows(*matching.wanting([event], using=home()), using=home())) == 10

    return bench.medians(lambda: median(_seconds(one) for _ in range(TIMES)))

"""Whether a worker grows."""

from __future__ import annotations

from contextlib import ExitStack
from statistics import median
from typing import TYPE_CHECKING

import psutil
from django.db import connection, transaction
from django.utils import timezone

from bench import traffic
from bench.figures import Result, figure
from webhooks import tasks
from webhooks.models import Event

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.measuring import Bench
    from subscriptions.models import Subscription


@figure("memory_100k")
def memory(bench: Bench) -> Iterable[Result]:
    """One worker; the median of three readings around 10,000 and at the end."""
    portion, portions = bench.size(5_000, 400), bench.size(20, 6)
    subscriptions = traffic.subscribe()
    traffic.aim(bench.receiver, bench.run(), delay=0)
    readings: list[float] = []
    with ExitStack() as stack:
        process = psutil.Process(bench.worker(stack).process.pid)
        for _ in range(portions):
            traffic.clear()
            _portion(subscriptions, portion)
            traffic.recorded()
            readings.append(process.memory_info().rss / 2**20)
    before, after = median(readings[:3]), median(readings[-3:])
    yield Result("memory_100k", after / before, f"{after:.1f} MiB", f"{before:.1f} MiB")


def _portion(subscriptions: list[Subscription], number: int) -> None:
    """`number` deliveries in two statements: each event goes to all subscriptions."""
    now = timezone.now()
    with transaction.atomic():
        Event.objects.bulk_create(
            Event(topic=traffic.TOPIC, body=traffic.BODY, created_at=now, fanned_out_at=now)
            for _ in range(number // len(subscriptions))
        )
        with connection.cursor() as cursor:
            cursor.execute(
                """
                INSERT INTO webhooks_delivery
                    (event_id, subscription_id, tenant_id, status, created_at, next_attempt_at,
                     attempt_count, schedule_step, lease, "trigger", triggered_by)
                SELECT e.id, s.id, s.tenant_id, 'pending', e.created_at, e.created_at, 0, 0, 0, 'schedule', ''
                FROM webhooks_event e CROSS JOIN subscriptions_subscription s
                """
            )
        traffic.analyze()
    tasks.ring()

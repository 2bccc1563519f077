"""The tenant's pages at the size of a large tenant: until the first byte of each."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import TYPE_CHECKING

from django.contrib.auth import get_user_model
from django.db import connection
from django.dispatch import Signal
from django.test import Client
from django.utils import timezone

from bench import traffic
from bench.figures import Result, figure
from subscriptions import catalog
from subscriptions.models import Membership, Role, Tenant
from webhooks.models import Delivery, Event, Rollup

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.measuring import Bench

SUBSCRIPTIONS = 500
DELIVERIES = 1_000_000
TOPICS = 300
APART = timedelta(minutes=20)  # one event and the next
EARLY = 50  # the event of a day long past, from the oldest on
HOURS, DAYS = 72, 28
TIMES = 3
WARM = 2


@figure("page_first_byte_ms")
def first_byte(bench: Bench) -> Iterable[Result]:
    """The slowest of all pages, each by the median of its own times. Asked in
    this process, through all middleware: a network is nobody's fault here."""
    client, tenant = _tenant(bench)
    asked = WARM + bench.size(TIMES, 0)
    times = {name: median(_seconds(client, path) for _ in range(asked)) for name, path in _paths(tenant).items()}
    slowest = max(times, key=times.__getitem__)
    others = ", ".join(
        f"{name} {seconds * 1000:.0f}" for name, seconds in sorted(times.items(), key=lambda each: -each[1])
    )
    yield Result("page_first_byte_ms", times[slowest] * 1000, others)


def _seconds(client: Client, path: str) -> float:
    began = time.perf_counter()
    response = client.get(path, headers={"host": "localhost"})
    taken = time.perf_counter() - began
    assert response.status_code == 200, f"{path} answered {response.status_code}"
    return taken


def _paths(tenant: Tenant) -> dict[str, str]:
    start = f"/t/{tenant.slug}/"
    keys = Delivery.objects.for_tenant(tenant).order_by("-pk").values_list("pk", "subscription_id")
    delivery, subscription = keys[0]
    failing = Delivery.objects.for_tenant(tenant).failed().values_list("subscription_id", flat=True)[0]
    event = Event.objects.filter(tenant=tenant).order_by("created_at")[EARLY]
    day = f"since={_written(event.created_at - timedelta(days=1))}&until={_written(event.created_at)}"
    return {
        "overview": start,
        "overview, 30 days": f"{start}?period=30d",
        "subscription": f"{start}subscriptions/{subscription}/",
        "create": f"{start}subscriptions/new/",
        "edit": f"{start}subscriptions/{subscription}/edit/",
        "deliveries": f"{start}deliveries/",
        "deliveries, failed": f"{start}deliveries/?status=failed",
        "deliveries, one topic": f"{start}deliveries/?topic=warehouse.heard.*",
        "deliveries, a topic of nobody": f"{start}deliveries/?topic=warehouse.never.created",
        "deliveries, one subscription": f"{start}deliveries/?subscription={subscription}&status=failed",
        "deliveries, delivered": f"{start}deliveries/?status=delivered&topic=warehouse.*",
        "deliveries, of a day": f"{start}deliveries/?{day}",
        "deliveries, failed on a day": f"{start}deliveries/?{day}&status=failed&subscription={failing}",
        "deliveries, of an event": f"{start}deliveries/?event={event.webhook_id}",
        "delivery": f"{start}deliveries/{delivery}/",
        "replay": f"{start}replays/new/?kind=failed",
        "topics": f"{start}topics/",
        "keys": f"{start}keys/",
        "members": f"{start}members/",
        "audit": f"{start}audit/",
        "inbox": f"{start}inbox/",
    }


def _written(when: datetime) -> str:
    return f"{when.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _tenant(bench: Bench) -> tuple[Client, Tenant]:
    for number in range(TOPICS - len(catalog.topics())):
        topic = f"warehouse.signal_{number}.sent"
        catalog.register_signal(Signal(), topic=topic, tenant=lambda *_, **__: None, payload=lambda *_, **__: {})
    subscriptions = bench.size(SUBSCRIPTIONS, 100)
    traffic.subscribe(tenants=1, each=subscriptions, prefix="large")
    tenant = Tenant.objects.get(slug="large-0")
    _grow(bench.size(DELIVERIES, 20_000) // subscriptions)
    user, _ = get_user_model().objects.get_or_create(username="large", email="large@example.com")
    Membership.objects.create(tenant=tenant, user=user, role=Role.OWNER)
    client = Client()
    client.force_login(user)
    return client, tenant


def _grow(events: int) -> None:
    """All of `events` to all subscriptions; of a hundred deliveries one has failed."""
    now = timezone.now()
    tenant = Tenant.objects.get(slug="large-0")
    Event.objects.bulk_create(
        Event(tenant=tenant, topic=traffic.TOPIC, body=traffic.BODY, created_at=at, fanned_out_at=at)
        for at in (now - back * APART for back in reversed(range(events)))
    )
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO webhooks_delivery
                (event_id, subscription_id, tenant_id, status, created_at, ended_at,
                 attempt_count, schedule_step, lease, "trigger", triggered_by)
            SELECT e.id, s.id, s.tenant_id, CASE WHEN s.id % 100 = 0 THEN 'failed' ELSE 'delivered' END,
                e.created_at, e.created_at, 1, 0, 1, 'schedule', ''
            FROM webhooks_event e CROSS JOIN subscriptions_subscription s ORDER BY e.id, s.id
            """
        )
    hour = now.replace(minute=0, second=0, microsecond=0)
    day = hour.replace(hour=0)
    spans = [(Rollup.Span.HOUR, hour - timedelta(hours=back)) for back in range(HOURS)]
    spans += [(Rollup.Span.DAY, day - timedelta(days=back)) for back in range(3, 3 + DAYS)]
    keys = list(tenant.subscriptions.values_list("pk", flat=True))
    Rollup.objects.bulk_create(
        (
            Rollup(
                subscription_id=pk, span=span, starts_at=at, attempts=40, delivered=38, at_first=37, failed=1, took_3=40
            )
            for span, at in spans
            for pk in keys
        ),
        batch_size=1_000,
    )
    traffic.analyze()

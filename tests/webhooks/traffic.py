"""Traffic as rows, for tests that need no sending."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.utils import timezone

from webhooks.models import Attempt, Delivery, Event

if TYPE_CHECKING:
    from subscriptions.models import Subscription, Tenant

BODY = b'{"type":"shop.order.updated","data":{"object":{"id":1}}}'


def make_event(
    tenant: Tenant | None, topic: str = "shop.order.updated", *, age: timedelta = timedelta(0), **fields: Any
) -> Event:
    created_at = timezone.now() - age
    defaults = {"body": BODY, "created_at": created_at, "fanned_out_at": created_at}
    return Event.objects.create(tenant=tenant, topic=topic, **{**defaults, **fields})


def make_delivery(
    subscription: Subscription,
    status: str = "failed",
    *,
    event: Event | None = None,
    topic: str = "shop.order.updated",
    age: timedelta = timedelta(0),
    **fields: Any,
) -> Delivery:
    event = event or make_event(subscription.tenant, topic, age=age)
    is_open = status in Delivery.OPEN
    defaults = {
        "created_at": event.created_at,
        "next_attempt_at": timezone.now() + timedelta(hours=1) if is_open else None,
        "ended_at": None if is_open else timezone.now(),
    }
    return Delivery.objects.create(
        event=event, subscription=subscription, tenant=subscription.tenant, status=status, **{**defaults, **fields}
    )


def make_attempt(delivery: Delivery, reason: str = "", **fields: Any) -> Attempt:
    """The delivery's next attempt, ended unless `ended_at` is None."""
    delivery.attempt_count += 1
    delivery.save(update_fields=["attempt_count"])
    defaults = {
        "number": delivery.attempt_count,
        "lease": delivery.attempt_count,
        "trigger": "schedule",
        "url": delivery.subscription.url,
        "started_at": timezone.now(),
        "ended_at": timezone.now(),
        "duration_ms": 120,
        "request_headers": b"content-type: application/json\r\n",
        "response_status": None if reason and reason != "status" else 500 if reason else 204,
    }
    return Attempt.objects.create(delivery=delivery, reason=reason, **{**defaults, **fields})

"""Events and deliveries made directly, for tests of what comes after the capture."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.db.models.functions import Now
from django.utils import timezone

from webhooks.models import Delivery, Event

if TYPE_CHECKING:
    from subscriptions.models import Subscription, Tenant

TOPIC = "shop.order.created"
BODY = b'{"type":"shop.order.created","data":{"object":{"id":1}}}'


def make_event(tenant: Tenant | None, *, using: str = "default", **fields: Any) -> Event:
    values = {"tenant": tenant, "topic": TOPIC, "body": BODY, "created_at": timezone.now(), **fields}
    return Event.objects.using(using).create(**values)


def make_deliveries(subscription: Subscription, number: int = 1, **fields: Any) -> list[Delivery]:
    """Due since a second ago, each with an event of its own."""
    now = timezone.now() - timedelta(seconds=1)
    events = Event.objects.bulk_create(
        Event(tenant_id=subscription.tenant_id, topic=TOPIC, body=BODY, created_at=now, fanned_out_at=now)
        for _ in range(number)
    )
    return Delivery.objects.bulk_create(
        Delivery(
            **{
                "event": event,
                "subscription": subscription,
                "tenant_id": subscription.tenant_id,
                "created_at": now,
                "next_attempt_at": now,
                **fields,
            }
        )
        for event in events
    )


def let_leases_end() -> None:
    """As if the time of every lease had passed."""
    past = Now() - timedelta(seconds=1)
    Delivery.objects.filter(leased_until__isnull=False).update(leased_until=past, next_attempt_at=past)

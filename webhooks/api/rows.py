"""The rows that an address names, of the asker's own tenant; 404 for any other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.http import Http404

from subscriptions.models import Subscription, home
from webhooks.filters import EVENT
from webhooks.models import Attempt, Delivery, Event, Replay

if TYPE_CHECKING:
    from django.db.models import QuerySet

    from subscriptions.models import Tenant


def subscription(tenant: Tenant, pk: int) -> Subscription:
    row: Subscription = _one(Subscription.objects.using(home()).for_tenant(tenant).select_related("tenant"), pk)
    return row


def delivery(tenant: Tenant, pk: int) -> Delivery:
    rows = Delivery.objects.using(home()).for_tenant(tenant)
    row: Delivery = _one(rows.select_related("event", "subscription__tenant", "tenant").defer("event__body"), pk)
    return row


def attempt(tenant: Tenant, pk: int) -> Attempt:
    row: Attempt = _one(Attempt.objects.using(home()).for_tenant(tenant).select_related("delivery__event"), pk)
    return row


def replay(tenant: Tenant, pk: int) -> Replay:
    rows = Replay.objects.using(home()).for_tenant(tenant)
    row: Replay = _one(rows.select_related("subscription__tenant", "tenant"), pk)
    return row


def event(tenant: Tenant, name: str) -> Event:
    found = EVENT.fullmatch(name)
    if found is None:
        raise Http404
    row: Event = _one(Event.objects.using(home()).for_tenant(tenant), UUID(found[1]))
    return row


def _one(rows: QuerySet[Any], pk: int | UUID) -> Any:
    row = rows.filter(pk=pk).first()
    if row is None:
        raise Http404
    return row

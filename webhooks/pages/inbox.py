"""The built-in inbox: the last requests that a tenant sent to itself, each with its verification."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db.models import BinaryField, Max
from django.db.models.functions import Length, Substr
from django.http import HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from subscriptions.addresses import INBOX
from subscriptions.models import Role, Subscription
from subscriptions.pages.access import TenantRequest, page
from webhooks import readable
from webhooks.models import KEPT, Delivery, InboxRequest
from webhooks.pages.deliveries import NOTHING_NEW, key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from subscriptions.models import Tenant

# Bytes of a body that are shown here; the delivery's page has all of it.
SHOWN = 16 * 1024
# In the query of a poll: the newest that is shown.
SEEN = "seen"
# Our bodies begin with it.
_TYPE = re.compile(rb'\{"type":\s*"([a-z0-9_.]+)"')


@dataclass(frozen=True, slots=True)
class Arrived:
    """One request, as it is shown."""

    request: InboxRequest
    delivery: int | None
    beginning: bytes
    octets: int

    @property
    def topic(self) -> str:
        found = _TYPE.match(self.beginning)
        return found[1].decode() if found else ""

    @property
    def is_cut(self) -> bool:
        return self.octets > len(self.beginning)

    @property
    def body(self) -> str:
        return readable.body_text(self.beginning) if self.is_cut else readable.pretty(self.beginning)

    @property
    def shown_size(self) -> str:
        return readable.size(len(self.beginning))

    @property
    def size(self) -> str:
        return readable.size(self.octets)

    @property
    def headers(self) -> str:
        return readable.header_text(self.request.headers)


@page()
@require_safe
@never_cache
def inbox(request: TenantRequest) -> HttpResponse:
    seen = key(request.GET.get(SEEN, ""))
    if seen is None:
        return render(request, "webhooks/inbox.html", {**_context(request), **_senders(request)})
    newest = InboxRequest.objects.for_tenant(request.tenant).aggregate(pk=Max("pk"))["pk"] or 0
    if newest == seen:
        return HttpResponse(status=NOTHING_NEW)
    context = _context(request)
    context["new"] = sum(each.request.pk > seen for each in context["arrived"])
    if not context["arrived"]:
        context.update(_senders(request))
    return render(request, "webhooks/inbox/list.html", context)


def _context(request: TenantRequest) -> dict[str, Any]:
    arrived = _arrived(request.tenant)
    newest = arrived[0].request.pk if arrived else 0
    address = reverse("webhooks:inbox", args=[request.tenant.slug])
    return {"section": "overview", "arrived": arrived, "kept": KEPT, "poll": f"{address}?{SEEN}={newest}"}


def _arrived(tenant: Tenant) -> list[Arrived]:
    beginning = Substr("body", 1, SHOWN, output_field=BinaryField())
    rows = InboxRequest.objects.for_tenant(tenant).order_by("-pk").select_related("subscription").defer("body")
    requests: list[Any] = list(rows.annotate(beginning=beginning, octets=Length("body"))[:KEPT])
    deliveries = _deliveries(tenant, requests)
    return [
        Arrived(
            request=row,
            delivery=deliveries.get((row.subscription_id, row.webhook_id)),
            beginning=bytes(row.beginning),
            octets=row.octets,
        )
        for row in requests
    ]


def _deliveries(tenant: Tenant, requests: Sequence[InboxRequest]) -> dict[tuple[int, str], int]:
    """Of those whose delivery is still there, its key."""
    events = {UUID(row.webhook_id.partition("_")[2]) for row in requests}
    subscriptions = {row.subscription_id for row in requests}
    rows = Delivery.objects.for_tenant(tenant).filter(event__in=events, subscription__in=subscriptions)
    found = rows.values_list("pk", "subscription_id", "event_id") if requests else ()
    return {(subscription, f"evt_{event.hex}"): pk for pk, subscription, event in found}


def _senders(request: TenantRequest) -> dict[str, Any]:
    """The subscriptions that send here."""
    rows = Subscription.objects.for_tenant(request.tenant).filter(url=INBOX).order_by("pk")
    return {"senders": list(rows[:KEPT]), "may_create": request.may(Role.DEVELOPER)}

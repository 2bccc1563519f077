"""The list of deliveries: of a tenant, and as a part of a subscription's page."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.http import HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.functional import cached_property
from django.views.decorators.http import require_safe

from subscriptions.models import Role, Subscription, Topic
from subscriptions.pages.access import TenantRequest, page
from webhooks import cursors, replays
from webhooks.filters import HIGHEST_KEY, READ, DeliveryFilters
from webhooks.models import Delivery, Replay

if TYPE_CHECKING:
    from django.http import HttpRequest

    from subscriptions.models import Tenant

# Of the panel in a subscription's page.
FEW = 15
NOTHING_NEW = 204
# The query of a poll, beside the filters: which part it renews, and what is shown there.
PART, SEEN, TOP = "part", "seen", "top"
BRIEF = "brief"
# Seconds that the number of what matches may take.
PATIENCE = 0.05
MOST_TOPICS = 300


@dataclass(frozen=True)
class Panel:
    """What `webhooks/deliveries/panel.html` shows. `brief`: the newest of one subscription."""

    tenant: Tenant
    filters: DeliveryFilters
    page: cursors.Page
    brief: bool = False

    @property
    def live(self) -> bool:
        """The first page, where something new may come."""
        past = self.filters.until is not None and self.filters.until <= timezone.now()
        return self.page.newer is None and not past and not self.filters.errors

    @cached_property
    def fingerprint(self) -> str:
        """Another one as soon as anything shown is another."""
        shown = [(row.pk, row.status, row.attempt_count, row.in_flight, row.is_due) for row in self.page.rows]
        return hashlib.sha256(repr(shown).encode()).hexdigest()[:16]

    @property
    def most_looked_at(self) -> int:
        return cursors.MOST_LOOKED_AT

    @property
    def top(self) -> int:
        return self.page.rows[0].pk if self.page.rows else 0

    @property
    def poll(self) -> str:
        query = QueryDict(mutable=True)
        query.update({**self.filters.as_query(), PART: BRIEF if self.brief else "list"})
        query.update({SEEN: self.fingerprint, TOP: str(self.top)})
        return f"{reverse('webhooks:deliveries', args=[self.tenant.slug])}?{query.urlencode()}"

    def newer_than(self, top: int) -> int:
        return sum(row.pk > top for row in self.page.rows)


def brief(tenant: Tenant, subscription: Subscription) -> Panel:
    filters = DeliveryFilters(subscription=subscription.pk)
    return Panel(tenant, filters, cursors.page(tenant, filters, size=FEW), brief=True)


@page()
@require_safe
def deliveries(request: TenantRequest) -> HttpResponse:
    filters = DeliveryFilters.from_query(request.GET)
    if PART in request.GET:
        return _renewed(request, filters)
    if not filters.errors and _written(request.GET) != filters.as_query():
        return redirect(_address(request, filters))
    panel = Panel(request.tenant, filters, _page(request, filters))
    return render(request, "webhooks/deliveries.html", {**_choices(request), **_shown(request, panel)})


def _page(request: HttpRequest, filters: DeliveryFilters) -> cursors.Page:
    before, after = (key(request.GET.get(name, "")) for name in ("before", "after"))
    return cursors.page(request.tenant, filters, before=before, after=after)  # type: ignore[attr-defined]


def key(text: str) -> int | None:
    """A row's key, where it can be one."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 19 and int(text) <= HIGHEST_KEY else None  # noqa: PLR2004


def _written(query: QueryDict) -> dict[str, str]:
    return {name: str(value) for name, value in query.items() if name in READ}


def _address(request: HttpRequest, filters: DeliveryFilters) -> str:
    """The one that is worth sharing: nothing empty, and times in UTC."""
    query = QueryDict(mutable=True)
    query.update(filters.as_query())
    query.update({name: request.GET[name] for name in ("before", "after") if request.GET.get(name)})
    return f"{request.path}?{query.urlencode()}" if query else request.path


def _shown(request: TenantRequest, panel: Panel) -> dict[str, Any]:
    folded = {"since", "until", "event"} & {name for name, text in panel.filters.typed.items() if text}
    return {"section": "deliveries", "panel": panel, "matching": _matching(request, panel), "more_open": bool(folded)}


def _matching(request: TenantRequest, panel: Panel) -> dict[str, Any] | None:
    """How many could be replayed, and where to ask for it."""
    filters = panel.filters
    if not filters or filters.errors or not panel.page.rows or not request.may(Role.DEVELOPER):
        return None
    query = QueryDict(mutable=True)
    query.update({"kind": Replay.Kind.FILTERED, **filters.as_query()})
    try:
        wish = replays.wish(request.tenant, Replay.Kind.FILTERED, filters=filters)
    except replays.Refused:
        return None
    address = reverse("webhooks:replay_new", args=[request.tenant.slug])
    return {"number": replays.count(wish, patience=PATIENCE), "url": f"{address}?{query.urlencode()}"}


def _choices(request: TenantRequest) -> dict[str, Any]:
    """What the filters offer."""
    subscriptions = Subscription.objects.for_tenant(request.tenant).only("pk", "name", "url").order_by("name", "url")
    topics = Topic.objects.filter(subscription__tenant=request.tenant).order_by("name")
    return {
        "statuses": Delivery.Status,
        "subscriptions": list(subscriptions),
        "topics": list(topics.values_list("name", flat=True).distinct()[:MOST_TOPICS]),
    }


def _renewed(request: TenantRequest, filters: DeliveryFilters) -> HttpResponse:
    """What a poll gets: the newest, or nothing where that is what it has."""
    is_brief = request.GET[PART] == BRIEF
    rows = cursors.page(request.tenant, filters, size=FEW if is_brief else cursors.PAGE)
    panel = Panel(request.tenant, filters, rows, brief=is_brief)
    if request.GET.get(SEEN) == panel.fingerprint:
        return HttpResponse(status=NOTHING_NEW)
    newer = panel.newer_than(key(request.GET.get(TOP, "")) or 0)
    return render(request, "webhooks/deliveries/panel.html", {"panel": panel, "newer": newer, "renewed": True})

"""What a tenant sees first: one sentence of health, and its subscriptions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.shortcuts import render
from django.views.decorators.http import require_safe

from subscriptions.models import Role
from subscriptions.pages.access import TenantRequest, page
from webhooks import overviews, rollups

if TYPE_CHECKING:
    from django.http import HttpResponse

LONGEST_SEARCH = 200
# So many are found without a search.
FEW = 10


@page()
@require_safe
def overview(request: TenantRequest) -> HttpResponse:
    health = overviews.health(request.tenant)
    context = {"section": "overview", "health": health, "may_edit": request.may(Role.DEVELOPER)}
    if not health.total:
        return render(request, "webhooks/overview/empty.html", context)
    search = request.GET.get("q", "").replace("\0", "").strip()[:LONGEST_SEARCH]
    needy, after = "needy" in request.GET, request.GET.get("after", "")
    listing = overviews.listing(
        request.tenant, search=search, whole_urls=request.may(Role.DEVELOPER), needy=needy, after=after
    )
    context |= {"listing": listing, "search": search, "needy": needy, "after": after}
    context["has_search"] = bool(search) or needy or health.total > FEW
    if request.headers.get("HX-Target") == "subscriptions":
        return render(request, "webhooks/overview/subscriptions.html", context)
    charts = rollups.panel(tenant=request.tenant, period=request.GET.get("period"))
    return render(request, "webhooks/overview.html", {**context, **charts})

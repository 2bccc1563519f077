"""Everything that the tenant may hear."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.shortcuts import render
from django.views.decorators.http import require_safe

from subscriptions import offers
from subscriptions.models import Role
from subscriptions.pages.access import TenantRequest, page

if TYPE_CHECKING:
    from django.http import HttpResponse


@page()
@require_safe
def topics(request: TenantRequest) -> HttpResponse:
    words = request.GET.get("q", "").strip()
    groups = [group for group in (offers.only(group, words) for group in offers.groups()) if group.models]
    singles = [offer for offer in offers.singles(request.tenant) if offer.is_found(words)]
    context = {
        "section": "topics",
        "words": words,
        "groups": groups,
        "singles": singles,
        "count": sum(len(model.offers) for group in groups for model in group.models) + len(singles),
        "may_edit": request.may(Role.DEVELOPER),
    }
    return render(request, "subscriptions/topics.html", context)

"""One topic: what it says, and the body that would be sent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from django.http import Http404
from django.shortcuts import render
from django.views.decorators.http import require_safe

from subscriptions import offers
from subscriptions.models import Role
from subscriptions.pages.access import TenantRequest, page
from webhooks import readable
from webhooks.samples import sample_of

if TYPE_CHECKING:
    from django.http import HttpResponse

# The part of the edit page that shows a body.
PART = "sample"


@page()
@require_safe
def topic(request: TenantRequest, topic: str) -> HttpResponse:
    offer = offers.find(topic, request.tenant)
    if offer is None:
        raise Http404
    sample = sample_of(offer, request.tenant)
    context: dict[str, Any] = {"offer": offer, "sample": sample, "body": readable.pretty(sample.body)}
    if request.headers.get("HX-Target") == PART:
        return render(request, "webhooks/sample.html", context)
    model = offers.model_of(offer.entry) if offer.entry else None
    schema = json.dumps(offer.schema(), indent=2, ensure_ascii=False)
    context |= {"section": "topics", "model": model, "schema": schema, "may_edit": request.may(Role.DEVELOPER)}
    return render(request, "webhooks/topic.html", context)

"""Deleting a subscription: with the number of deliveries that go along."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import messages
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _

from subscriptions import edits
from subscriptions.models import Role, Subscription
from subscriptions.pages.access import TenantRequest, page
from subscriptions.trail import actor_of
from webhooks import removal

if TYPE_CHECKING:
    from django.http import HttpResponse


def _removed(subscription: Subscription, request: TenantRequest) -> bool:
    try:
        return removal.remove(subscription, actor_of(request))
    except edits.Refused:
        return True  # Somebody else was quicker.


@page(Role.DEVELOPER)
def delete(request: TenantRequest, pk: int) -> HttpResponse:
    subscription = get_object_or_404(Subscription.objects.for_tenant(request.tenant), pk=pk)
    is_going = False
    if request.method == "POST":
        if _removed(subscription, request):
            name = subscription.name or subscription.host
            messages.success(request, _("The subscription %(name)s was deleted.") % {"name": name})
            return redirect("webhooks:overview", request.tenant.slug)
        is_going = True
    deliveries = removal.count(subscription)
    context = {
        "section": "overview",
        "subscription": subscription,
        "deliveries": min(deliveries, removal.COUNTED),
        "more": deliveries > removal.COUNTED,
        "is_going": is_going,
        "may_delete": request.may(Role.DEVELOPER),
    }
    part = request.headers.get("HX-Target") == "delete"
    return render(request, "webhooks/delete_form.html" if part else "webhooks/delete.html", context)

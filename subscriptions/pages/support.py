from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import NoReverseMatch, reverse
from django.views.decorators.http import require_POST

from subscriptions import support


@login_required
@require_POST
def end(request: HttpRequest) -> HttpResponse:
    """Stop looking at a tenant's pages, and go back to where that began."""
    tenant = support.end(request)
    try:
        return redirect("admin:subscriptions_tenant_change", tenant.pk) if tenant else redirect(reverse("admin:index"))
    except NoReverseMatch:  # a project without the admin
        return redirect("/")

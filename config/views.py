"""Where a person begins: home, and a tenant of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from allauth.decorators import rate_limit
from django import forms
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods

from config.accounts import CompanyField
from subscriptions.founding import found
from subscriptions.models import Role, Tenant
from subscriptions.trail import actor_of

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.http import HttpRequest, HttpResponse


class NewTenant(forms.Form):
    company = CompanyField()


@require_GET
def home(request: HttpRequest) -> HttpResponse:
    if not request.user.is_authenticated:
        return redirect("account_login")
    tenants = list(Tenant.objects.filter(memberships__user=request.user).order_by("name"))
    if len(tenants) == 1:
        return redirect("webhooks:overview", tenants[0].slug)
    if not tenants and settings.SIGNUP:
        return redirect("tenant_new")
    return render(request, "home.html", {"tenants": tenants, "may_make": settings.SIGNUP})


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
@rate_limit(action="signup")  # type: ignore[untyped-decorator]
def tenant_new(request: HttpRequest) -> HttpResponse:
    if not settings.SIGNUP:  # who is invited gets no tenant of their own
        raise PermissionDenied(_("Nobody makes tenants here but the operator. Ask an owner of yours to invite you."))
    form = NewTenant(request.POST or None)
    if request.method == "POST" and form.is_valid():
        return redirect("webhooks:overview", _made_once(request, form.cleaned_data["company"]).slug)
    return render(request, "tenant_new.html", {"form": form})


def _made_once(request: HttpRequest, name: str) -> Tenant:
    """A double click, or the same form sent again, makes no second tenant."""
    user = cast("User", request.user)
    with transaction.atomic():
        get_user_model().objects.select_for_update().get(pk=user.pk)
        own = Tenant.objects.filter(memberships__user=user, memberships__role=Role.OWNER, name=name)
        return own.first() or found(name, owner=user, actor=actor_of(request))

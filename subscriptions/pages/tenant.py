"""What a tenant is called, and the way out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django import forms
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from subscriptions import people
from subscriptions.edits import Refused
from subscriptions.models import Role
from subscriptions.pages.access import TenantRequest, page
from subscriptions.trail import actor_of

if TYPE_CHECKING:
    from django.http import HttpResponse


class NameForm(forms.Form):
    name = forms.CharField(
        label=gettext_lazy("Name"),
        max_length=200,
        help_text=gettext_lazy("What the pages and mails call you. Addresses and webhooks stay as they are."),
        error_messages={"required": gettext_lazy("Write a name, such as Acme.")},
    )
    was = forms.CharField(max_length=200, widget=forms.HiddenInput, strip=False)


@page(write=Role.OWNER)
def tenant(request: TenantRequest) -> HttpResponse:
    form = NameForm(request.POST or None, initial={"name": request.tenant.name, "was": request.tenant.name})
    if request.method == "POST" and form.is_valid():
        try:
            people.rename(request.tenant, actor_of(request), **form.cleaned_data)
        except people.StaleError as stale:
            form.data = {**form.data.dict(), "was": stale.now}  # type: ignore[attr-defined]
            form.add_error("name", str(stale))
        except ValidationError as wrong:
            form.add_error(None, wrong)
        except Refused as refused:
            form.add_error(None, str(refused))
        else:
            messages.success(request, _("The name is changed."))
            return redirect("subscriptions:settings", request.tenant.slug)
    context = {"section": "settings", "form": form, "role": request.role, "manages": request.may(Role.OWNER)}
    return render(request, "subscriptions/tenant.html", context)

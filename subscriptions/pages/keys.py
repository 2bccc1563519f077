"""A tenant's API keys: each shown once, when it is made."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from subscriptions import keys as rules
from subscriptions.edits import Refused
from subscriptions.models import ApiKey, Role
from subscriptions.pages.access import TenantRequest, page
from subscriptions.pages.cursor import cut
from subscriptions.trail import actor_of

if TYPE_CHECKING:
    from django.http import HttpResponse

SECTION = {"section": "keys"}
SIZE = 50
# Days, as text: what a form posts.
EXPIRIES = {
    "": gettext_lazy("Never"),
    "7": gettext_lazy("In 7 days"),
    "30": gettext_lazy("In 30 days"),
    "90": gettext_lazy("In 90 days"),
    "365": gettext_lazy("In a year"),
}
MODES = {
    ApiKey.Mode.LIVE: gettext_lazy("For your programs in production."),
    ApiKey.Mode.TEST: gettext_lazy("For trying things out; named sp_test_…, so that nobody takes it for the other."),
}
CHOICE = '<span class="choice"><b>{}</b> <span class="soft">{}</span></span>'


def _scopes() -> list[tuple[str, str]]:
    return [(scope.value, format_html(CHOICE, str(scope.label).capitalize(), rules.MAY[scope])) for scope in rules.MAY]


def _modes() -> list[tuple[str, str]]:
    return [(mode.value, format_html(CHOICE, str(mode.label).capitalize(), MODES[mode])) for mode in MODES]


class Networks(forms.CharField):
    widget = forms.Textarea(attrs={"rows": 2, "class": "mono", "spellcheck": "false"})

    def clean(self, value: Any) -> list[str]:
        return rules.networks_in(super().clean(value))


class KeyForm(forms.Form):
    name = forms.CharField(
        label=gettext_lazy("Name"),
        max_length=rules.NAME_LENGTH,
        help_text=gettext_lazy("What it is for, such as Billing server."),
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
        error_messages={"required": gettext_lazy("Write what the key is for, such as Billing server.")},
    )
    scopes = forms.MultipleChoiceField(
        label=gettext_lazy("What it may do"),
        choices=_scopes,
        initial=[rules.Scope.READ.value],
        widget=forms.CheckboxSelectMultiple,
        error_messages={"required": gettext_lazy("Choose at least one.")},
    )
    mode = forms.ChoiceField(
        label=gettext_lazy("Mode"), choices=_modes, initial=ApiKey.Mode.LIVE, widget=forms.RadioSelect
    )
    expires = forms.ChoiceField(label=gettext_lazy("Expires"), choices=[*EXPIRIES.items()], required=False)
    networks = Networks(
        label=gettext_lazy("Allowed networks"),
        required=False,
        help_text=gettext_lazy(
            "One a line, such as 203.0.113.0/24. Requests from elsewhere are refused. Empty: from anywhere."
        ),
    )

    def wanted(self) -> dict[str, Any]:
        wanted = dict(self.cleaned_data)
        days = wanted.pop("expires")
        return {**wanted, "expires_at": timezone.now() + timedelta(days=int(days)) if days else None}


@page()
@require_safe
def keys(request: TenantRequest) -> HttpResponse:
    found = cut(ApiKey.objects.for_tenant(request.tenant), request.GET, size=SIZE)
    context = {**SECTION, "page": found, "manages": request.may(Role.OWNER)}
    return render(request, "subscriptions/keys.html", context)


@page(Role.OWNER)
@never_cache
def key_new(request: TenantRequest) -> HttpResponse:
    form = KeyForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            key, value = rules.create(request.tenant, actor_of(request), **form.wanted())
        except (Refused, ValidationError) as wrong:
            form.add_error(None, wrong if isinstance(wrong, ValidationError) else str(wrong))
        else:
            # On this answer only: never in a message, the session, a URL or the log.
            return render(request, "subscriptions/key_made.html", {**SECTION, "key": key, "value": value})
    return render(request, "subscriptions/key_new.html", {**SECTION, "form": form})


@page(Role.OWNER)
def key_revoke(request: TenantRequest, pk: int) -> HttpResponse:
    key = get_object_or_404(ApiKey.objects.for_tenant(request.tenant).select_related("tenant"), pk=pk)
    if request.method == "POST":
        if rules.revoke(key, actor_of(request)):
            messages.success(request, _("%(name)s is revoked.") % {"name": key.name})
        else:
            messages.warning(request, _("%(name)s was revoked already.") % {"name": key.name})
        return redirect("subscriptions:keys", request.tenant.slug)
    return render(request, "subscriptions/key_revoke.html", {**SECTION, "key": key})

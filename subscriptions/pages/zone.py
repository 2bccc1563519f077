"""The reader chooses the time zone; with scripts, the browser has told it already."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from django import forms
from django.contrib import messages
from django.http import HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods

from subscriptions.zones import COOKIE, known

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

BROWSER = "browser"  # no choice: its script says which
YEAR = 31_536_000  # seconds
# Those that a place stands in; the rest are older names of the same.
PARTS = {"Africa", "America", "Antarctica", "Arctic", "Asia", "Atlantic", "Australia", "Europe", "Indian", "Pacific"}


def choices() -> list[tuple[str, object]]:
    """By part of the world, in the order of their names."""
    places = sorted(name for name in known() if name.split("/", 1)[0] in PARTS)
    parts = groupby(places, key=lambda name: name.split("/", 1)[0])
    named = [(part, [(name, name.split("/", 1)[1].replace("_", " ")) for name in names]) for part, names in parts]
    return [(BROWSER, gettext_lazy("As the browser says, else UTC")), ("UTC", "UTC"), *named]


class ZoneForm(forms.Form):
    zone = forms.ChoiceField(label=gettext_lazy("Time zone"), choices=choices)


@require_http_methods(["GET", "HEAD", "POST"])
def zone(request: HttpRequest) -> HttpResponse:
    chosen = unquote(request.COOKIES.get(COOKIE, BROWSER))
    form = ZoneForm(request.POST or None, initial={"zone": chosen})
    after = _own(request, request.POST.get("next") or request.GET.get("next", ""))
    if request.method != "POST" or not form.is_valid():
        return render(request, "subscriptions/zone.html", {"form": form, "next": after})
    response = HttpResponseRedirect(after or reverse("subscriptions:zone"))
    name = form.cleaned_data["zone"]
    if name == BROWSER:
        response.delete_cookie(COOKIE, samesite="Lax")
    else:
        response.set_cookie(COOKIE, quote(name, safe=""), max_age=YEAR, samesite="Lax", secure=request.is_secure())
    messages.success(request, _("Times are shown in your zone now."))
    return response


def _own(request: HttpRequest, url: str) -> str:
    """`url` if it is on this site."""
    own = url_has_allowed_host_and_scheme(url, {request.get_host()}, require_https=request.is_secure())
    return url if own else ""

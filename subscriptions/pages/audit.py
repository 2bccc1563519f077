"""The audit log of a tenant.

Every member may read it: who asks who turned this off is more often a
developer than an owner. Where colleagues were when they did something is
nobody's business but the owners'.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django import forms
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_safe

from subscriptions import people, trail
from subscriptions.models import AuditEntry, Membership, Role, Subscription
from subscriptions.pages.access import TenantRequest, page
from subscriptions.pages.cursor import cut

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.http import HttpResponse
    from django.utils.safestring import SafeString

SIZE = 50
# Where a model's own name is no word.
KINDS = {"apikey": gettext_lazy("API key")}


class FilterForm(forms.Form):
    action = forms.ChoiceField(
        label=gettext_lazy("What"),
        required=False,
        choices=[("", gettext_lazy("Everything")), *AuditEntry.Action.choices],
        error_messages={"invalid_choice": gettext_lazy("Choose one of the list.")},
    )
    actor = forms.CharField(
        label=gettext_lazy("Who"),
        required=False,
        max_length=254,
        widget=forms.TextInput(attrs={"list": "people", "autocomplete": "off"}),
    )


@dataclass(frozen=True, slots=True)
class Line:
    entry: AuditEntry
    sentence: SafeString
    kind: str
    address: str | None  # where the reader may know it
    details: list[tuple[str, str]]
    subscription: int | None  # where there still is one


@page()
@require_safe
def audit(request: TenantRequest) -> HttpResponse:
    form = FilterForm(request.GET)
    rows = AuditEntry.objects.for_tenant(request.tenant)
    if form.is_valid():
        rows = rows.filter(**{name: value for name, value in form.cleaned_data.items() if value})
    else:
        rows = rows.none()
    found = cut(rows, request.GET, size=SIZE)
    members = Membership.objects.for_tenant(request.tenant).with_people()[:SIZE]
    context = {
        "section": "audit",
        "form": form,
        "page": found,
        "lines": list(_lines(request, found.rows)),
        "people": [people.name_of(member.user) for member in members],
        "filtered": form.is_valid() and any(form.cleaned_data.values()),
    }
    return render(request, "subscriptions/audit.html", context)


def _lines(request: TenantRequest, entries: list[AuditEntry]) -> Iterator[Line]:
    numbers = {int(each.number) for each in entries if each.kind == "subscription" and each.number.isdecimal()}
    rows = (
        Subscription.objects.for_tenant(request.tenant).filter(pk__in=numbers)
        if numbers
        else Subscription.objects.none()
    )
    there = set(rows.values_list("pk", flat=True))
    for entry in entries:
        own = entry.user_id is not None and entry.user_id == request.user.pk
        shown = own or request.support or request.may(Role.OWNER)
        number = int(entry.number) if entry.kind == "subscription" and entry.number.isdecimal() else None
        yield Line(
            entry=entry,
            sentence=trail.sentence(entry),
            kind=str(KINDS.get(entry.kind, entry.kind)),
            address=entry.address if shown else None,
            details=[(name, _written(value)) for name, value in _pairs(entry.detail)],
            subscription=number if number in there else None,
        )


def _pairs(detail: Any) -> list[tuple[str, Any]]:
    """What is known of it: a filter that was not set is no news."""
    pairs = detail.items() if isinstance(detail, dict) else ()
    return [(str(name).replace("_", " "), value) for name, value in pairs if value is not None]


def _written(value: Any) -> str:
    """For people: `{"from": 1, "to": 2}` as 1 → 2, a list by its items."""
    if isinstance(value, dict) and value.keys() == {"from", "to"}:
        return f"{_written(value['from'])} → {_written(value['to'])}"
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_written(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(_written(each) for each in value) or _("none")
    return _("none") if value in (None, "") else str(value)

"""Bulk replays: asked for with their number before, watched, cancelled."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from django import forms
from django.contrib import messages
from django.db.models import Exists, OuterRef
from django.http import HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_safe
from django_htmx.http import HttpResponseStopPolling

from subscriptions import edits
from subscriptions.models import Role, Subscription
from subscriptions.pages.access import TenantRequest, page
from subscriptions.pages.cursor import cut
from subscriptions.trail import actor_of
from webhooks import replays as rules
from webhooks.filters import DeliveryFilters, moment
from webhooks.models import Delivery, Replay

if TYPE_CHECKING:
    from datetime import datetime

    from subscriptions.models import Tenant

SECTION = {"section": "deliveries"}
SIZE = 25
NOTHING_NEW = 204
Kind = Replay.Kind

# Seconds between two looks at the progress: of what is young and small, and of the rest.
SOON, LATER = 1, 10
YOUNG = timedelta(minutes=10)
SMALL = 50_000

TITLES = {
    Kind.FAILED: gettext_lazy("Replay of what failed"),
    Kind.FILTERED: gettext_lazy("Replay of what the filters matched"),
    Kind.MISSED: gettext_lazy("Sending what was missed"),
}


class OneOfTheTenants(forms.ModelChoiceField):  # type: ignore[type-arg]
    def label_from_instance(self, obj: Any) -> str:
        return f"{obj.name} · {obj.host}" if obj.name else str(obj.host)


class ChoiceForm(forms.Form):
    """Which ones, where no page before has said so. Its answer is a URL."""

    kind = forms.ChoiceField(
        label=gettext_lazy("What to send"),
        choices=[
            (Kind.FAILED.value, gettext_lazy("What failed, once more")),
            (Kind.MISSED.value, gettext_lazy("What was never sent, as the subscription was made or changed later")),
        ],
        widget=forms.RadioSelect,
        error_messages={"invalid_choice": gettext_lazy("Choose one of the two.")},
    )
    subscription = OneOfTheTenants(
        label=gettext_lazy("Subscription"),
        queryset=Subscription.objects.none(),
        required=False,
        empty_label=gettext_lazy("All of them"),
        error_messages={"invalid_choice": gettext_lazy("Choose one of the list.")},
    )
    since = forms.CharField(
        label=gettext_lazy("Since"),
        required=False,
        widget=forms.TextInput(attrs={"type": "datetime-local"}),
        help_text=gettext_lazy("In your time zone. What failed is counted by when it was given up."),
    )

    def __init__(self, data: QueryDict | None, *, tenant: Tenant) -> None:
        yesterday = timezone.localtime() - timedelta(days=1)
        initial = {"kind": Kind.FAILED.value, "since": f"{yesterday:%Y-%m-%dT%H:%M}"}
        super().__init__(data, initial=initial)
        rows = Subscription.objects.for_tenant(tenant).only("pk", "name", "url").order_by("name", "url")
        self.fields["subscription"].queryset = rows  # type: ignore[attr-defined]
        if data and "since" in self.errors:
            # What was typed stays, which a field for times would not show.
            self.fields["since"].widget.input_type = "text"

    def clean_since(self) -> datetime | None:
        text = self.cleaned_data["since"].strip()
        try:
            return moment(text) if text else None
        except ValueError as error:
            raise forms.ValidationError(str(error)) from error

    def clean(self) -> dict[str, Any]:
        values = self.cleaned_data
        if values.get("kind") == Kind.MISSED:
            if "subscription" in values and not values["subscription"]:
                self.add_error("subscription", _("Choose the subscription that missed something."))
            if "since" in values and not values["since"]:
                self.add_error("since", _("Write since when it missed something."))
        return values


@page(Role.DEVELOPER)
def replay_new(request: TenantRequest) -> HttpResponse:
    """GET shows the number and what will happen, POST does it. What is meant
    stands in the query, so that a lost session comes back to it."""
    filters = DeliveryFilters.from_query(request.GET)
    subscription = _subscription(request, filters)
    if request.GET.get("kind") == Kind.FILTERED:
        if filters.errors:
            # There each mistake is said at its field.
            return redirect(_address("webhooks:deliveries", request, kind=None))
        wish = rules.wish(request.tenant, Kind.FILTERED, filters=filters)
    else:
        form = ChoiceForm(request.GET if request.GET else None, tenant=request.tenant)
        if not form.is_valid():
            return render(request, "webhooks/replay_choice.html", {**SECTION, "form": form})
        wish = rules.wish(request.tenant, form.cleaned_data["kind"], subscription=subscription, since=filters.since)
    refused = ""
    if request.method == "POST":
        enable = request.GET.get("enable") == "1"
        try:
            started = rules.start(wish, by=actor_of(request), enable=enable, token=_token(request))
        except rules.Refused as error:
            refused = str(error)
        else:
            return redirect("webhooks:replay", request.tenant.slug, started.pk)
    return render(request, "webhooks/replay_new.html", {**SECTION, **_asked(request, wish), "refused": refused})


def _asked(request: TenantRequest, wish: Replay) -> dict[str, Any]:
    off = wish.subscription if wish.subscription is not None and not wish.subscription.enabled else None
    return {
        "wish": wish,
        "shown": Shown(wish),
        "number": rules.count(wish),
        "off": off,
        "keeps_off": "" if off is None else edits.keeps_off(off),
        # Only by the button that says so.
        "address": _address("webhooks:replay_new", request, enable=None if off is None else "1"),
        "token": uuid4(),
    }


def _subscription(request: TenantRequest, filters: DeliveryFilters) -> Subscription | None:
    """404 for another tenant's."""
    if filters.subscription is None:
        return None
    found: Subscription = get_object_or_404(Subscription.objects.for_tenant(request.tenant), pk=filters.subscription)
    return found


def _address(name: str, request: TenantRequest, **changes: str | None) -> str:
    """A page with the query of this one, but for `changes`; None takes one away."""
    query = request.GET.copy()
    for key, value in changes.items():
        query.pop(key, None)
        if value is not None:
            query[key] = value
    return f"{reverse(name, args=[request.tenant.slug])}?{query.urlencode()}"


def _token(request: TenantRequest) -> UUID | None:
    try:
        return UUID(request.POST.get("token", ""))
    except ValueError:
        return None


@page()
@require_safe
def replay(request: TenantRequest, pk: int) -> HttpResponse:
    row = get_object_or_404(_rows(request), pk=pk)
    shown = Shown(row)
    may = request.may(Role.DEVELOPER)
    context = {
        **SECTION,
        "shown": shown,
        "may_cancel": may and rules.can_be_cancelled(row),
        "may_replay": may and shown.progress.failed and not shown.progress.going_on,
    }
    if not request.htmx:  # type: ignore[attr-defined]
        return render(request, "webhooks/replay.html", context)
    if not shown.progress.going_on:
        return HttpResponseStopPolling(render(request, "webhooks/replay_progress.html", context).content)
    if request.GET.get("seen") == shown.progress.seen:
        return HttpResponse(status=NOTHING_NEW)
    return render(request, "webhooks/replay_progress.html", context)


@page(Role.DEVELOPER)
def replay_cancel(request: TenantRequest, pk: int) -> HttpResponse:
    row = get_object_or_404(_rows(request), pk=pk)
    # Whoever comes back from signing in finds the button on the replay's page.
    if request.method == "POST":
        if rules.cancel(row, by=actor_of(request)):
            messages.success(request, _("Cancelled. What was not attempted yet goes back to what it was."))
        else:
            messages.info(request, _("There was nothing left to cancel."))
    return redirect("webhooks:replay", request.tenant.slug, pk)


@page()
@require_safe
def replays(request: TenantRequest) -> HttpResponse:
    waiting = Delivery.objects.open().filter(replay=OuterRef("pk"))
    found = cut(_rows(request).annotate(waits=Exists(waiting)), request.GET, size=SIZE)
    context = {
        **SECTION,
        "page": found,
        "lines": [Shown(row) for row in found.rows],
        "may_replay": request.may(Role.DEVELOPER),
    }
    return render(request, "webhooks/replays.html", context)


def _rows(request: TenantRequest) -> Any:
    return Replay.objects.for_tenant(request.tenant).select_related("subscription", "tenant")


@dataclass(frozen=True)
class Shown:
    """A replay as people read it."""

    row: Replay

    @property
    def title(self) -> str:
        return str(TITLES[Kind(self.row.kind)])

    @property
    def filters(self) -> DeliveryFilters:
        return DeliveryFilters.from_query(self.row.filters)

    @property
    def state(self) -> tuple[str, str]:
        """Of the list, where nobody counts."""
        if self.row.cancelled_at:
            return "cancelled", _("Cancelled") if self.row.settled_at else _("Being taken back")
        if not self.row.settled_at:
            return "pending", _("Queueing")
        return ("retrying", _("Sending")) if getattr(self.row, "waits", False) else ("on", _("Done"))

    @cached_property
    def progress(self) -> rules.Progress:
        return rules.progress(self.row)

    @property
    def state_now(self) -> tuple[str, str]:
        seen = self.progress
        if self.row.cancelled_at:
            return "cancelled", _("Cancelled") if seen.settled else _("Being taken back")
        if not seen.settled:
            return "pending", _("Queueing")
        if seen.open:
            return "retrying", _("Sending")
        return ("failing", _("Done, not all arrived")) if seen.failed else ("on", _("Done"))

    @property
    def pause(self) -> int:
        """Seconds until the browser asks again."""
        young = timezone.now() - self.row.created_at < YOUNG
        return SOON if young and self.progress.queued < SMALL else LATER

"""One subscription: how it does, its secret, its deliveries, and what can be done to it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from subscriptions import edits
from subscriptions.models import OVERLAP, AuditEntry, Role, Subscription
from subscriptions.pages.access import TenantRequest, page
from subscriptions.snippets import SNIPPETS
from subscriptions.trail import actor_of
from webhooks import overviews, rollups, trials
from webhooks.models import Delivery
from webhooks.pages import deliveries
from webhooks.pages.delivery import STOP_POLLING, Shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.utils.functional import _StrPromise as Text

# By how much two machines' clocks may differ.
CLOCKS = timedelta(minutes=1)
ASKED = require_http_methods(["GET", "HEAD", "POST"])


@page()
@require_safe
def subscription(request: TenantRequest, pk: int) -> HttpResponse:
    row = _found(request, pk)
    failures = overviews.failures(row)
    context = {
        **_about(request, row),
        "topics": edits.topics_of(row),
        "failures": failures,
        "off_by": _turned_off_by(row),
        "panel": deliveries.brief(request.tenant, row),
        "snippets": SNIPPETS,
        "overlap_hours": OVERLAP.total_seconds() // 3600,
        "test": _tried(request, row, deliveries.key(request.GET.get("test", ""))),
        **rollups.panel(subscription=row, period=request.GET.get("period")),
    }
    return render(request, "webhooks/subscription.html", context)


def _found(request: TenantRequest, pk: int) -> Subscription:
    rows = Subscription.objects.for_tenant(request.tenant).select_related("tenant", "throttle")
    row: Subscription = get_object_or_404(rows.prefetch_related("topics"), pk=pk)
    return row


def _about(request: TenantRequest, row: Subscription) -> dict[str, Any]:
    return {
        "section": "overview",
        "subscription": row,
        "state": overviews.state(row),
        "may_edit": request.may(Role.DEVELOPER),
        "keeps_off": edits.keeps_off(row),
    }


def _turned_off_by(row: Subscription) -> AuditEntry | None:
    """Who it was, where it was a member."""
    if row.disabled_at is None or row.disabled_by != Subscription.DisabledBy.MEMBER:
        return None
    entries = AuditEntry.objects.for_tenant(row.tenant).filter(kind="subscription", number=str(row.pk))
    # By the web server's clock, and the other by the database's.
    since = row.disabled_at - CLOCKS
    return entries.filter(action=AuditEntry.Action.SUBSCRIPTION_DISABLED, as_operator=False, at__gte=since).first()


@page(write=Role.DEVELOPER)
@require_POST
@never_cache
def secret(request: TenantRequest, pk: int) -> HttpResponse:
    """The secret is in this answer and nowhere else."""
    row = _found(request, pk)
    try:
        live = edits.reveal(row, actor_of(request))
    except edits.Refused as refused:
        return _told(request, row, refused)
    name = "secret_shown.html" if request.htmx else "secret.html"  # type: ignore[attr-defined]
    return render(request, f"webhooks/subscription/{name}", {**_about(request, row), "secrets": live})


def _told(request: TenantRequest, row: Subscription, refused: edits.Refused) -> HttpResponse:
    messages.warning(request, str(refused))
    address = reverse("webhooks:subscription", args=[request.tenant.slug, row.pk])
    return HttpResponse(headers={"HX-Redirect": address}) if request.htmx else redirect(address)  # type: ignore[attr-defined]


def _deed(name: str, question: Text, deed: Callable[[TenantRequest, Subscription], str]) -> Callable[..., HttpResponse]:
    """A view that asks, by GET, and does, by POST. `deed` returns what to say."""

    @page(Role.DEVELOPER)
    @ASKED
    @never_cache
    def view(request: TenantRequest, pk: int) -> HttpResponse:
        row = _found(request, pk)
        if request.method != "POST":
            context = {**_about(request, row), "question": question, "form": f"webhooks/subscription/{name}_form.html"}
            return render(request, "webhooks/subscription/ask.html", context)
        try:
            told = deed(request, row)
        except edits.Refused as refused:
            return _told(request, row, refused)
        messages.success(request, told)
        return redirect("webhooks:subscription", request.tenant.slug, pk)

    return view


def _rotate(request: TenantRequest, row: Subscription) -> str:
    edits.rotate(row, actor_of(request))
    return _("There is a new secret: reveal it, and give it to the receiver. The one before signs for 24 more hours.")


def _disable(request: TenantRequest, row: Subscription) -> str:
    reason = request.POST.get("reason", "").replace("\0", "")[
        : Subscription._meta.get_field("disabled_reason").max_length
    ]
    if not edits.disable(row, actor_of(request), reason=reason):
        raise edits.Refused(_("It was off already."))
    return _("It is off: nothing more is sent to it.")


def _enable(request: TenantRequest, row: Subscription) -> str:
    if not edits.enable(row, actor_of(request)):
        raise edits.Refused(_("It was on already."))
    return _("It is on again.")


rotate = _deed("rotate", gettext_lazy("Rotate the secret?"), _rotate)
disable = _deed("disable", gettext_lazy("Turn it off?"), _disable)
enable = _deed("enable", gettext_lazy("Turn it on?"), _enable)


@page(write=Role.DEVELOPER)
@ASKED
@never_cache
def test(request: TenantRequest, pk: int) -> HttpResponse:
    """By POST, sends one; by GET, tells whether it has arrived."""
    row = _found(request, pk)
    sent = deliveries.key(request.GET.get("delivery", ""))
    if request.method == "POST":
        try:
            sent = trials.send(row, actor_of(request)).pk
        except edits.Refused as refused:
            return _told(request, row, refused)
    if not request.htmx:  # type: ignore[attr-defined]
        address = reverse("webhooks:subscription", args=[request.tenant.slug, pk])
        return redirect(f"{address}?test={sent}#test" if sent else address)
    tried = _tried(request, row, sent)
    status = STOP_POLLING if request.method != "POST" and _is_over(tried) else 200
    return render(request, "webhooks/subscription/arrival.html", {"subscription": row, "test": tried}, status=status)


def _is_over(tried: dict[str, Any] | None) -> bool:
    return tried is None or not tried["delivery"].is_open


def _tried(request: TenantRequest, row: Subscription, pk: int | None) -> dict[str, Any] | None:
    rows = Delivery.objects.for_tenant(request.tenant).filter(subscription=row, pk=pk or 0)
    sent = rows.select_related("event", "subscription").defer("event__body").first()
    if sent is None:
        return None
    ended = sent.attempts.filter(ended_at__isnull=False).order_by("-number").first()
    return {"delivery": sent, "last": Shown(ended) if ended else None}

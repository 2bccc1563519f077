"""One delivery: what went wrong, what was sent, what came back, and what to do."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.timesince import timeuntil
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from subscriptions.edits import Refused
from subscriptions.models import Role
from subscriptions.pages.access import TenantRequest, page
from subscriptions.trail import actor_of
from webhooks import curl as command
from webhooks import deeds, readable, reasons
from webhooks.models import Attempt, Delivery, Throttle
from webhooks.pages.deliveries import NOTHING_NEW, SEEN, key
from webhooks.sending import UNSENT

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from subscriptions.trail import Actor

# The newest attempts that the page shows; a link leads to those before.
MOST_ATTEMPTS = 20
# Of htmx: the poll ends with this answer.
STOP_POLLING = 286
HTTP = ("http://", "https://")


@dataclass(frozen=True)
class Shown:
    """An attempt, for people."""

    attempt: Attempt

    @property
    def state(self) -> str:
        if self.attempt.delivered:
            return "delivered"
        return "failed" if self.attempt.reason else "pending"

    @property
    def sentence(self) -> str:
        return reasons.sentence(self.attempt)

    @property
    def advice(self) -> str:
        return reasons.advice(self.attempt)

    @property
    def ended(self) -> bool:
        return self.attempt.ended_at is not None

    @property
    def duration(self) -> str:
        taken = self.attempt.duration_ms
        return "" if taken is None else readable.duration(taken)

    @property
    def request_headers(self) -> str:
        return readable.header_text(self.attempt.request_headers)

    @property
    def response_headers(self) -> str:
        return readable.header_text(self.attempt.response_headers)

    @property
    def response_body(self) -> str:
        return readable.pretty(self.attempt.response_body)

    @property
    def response_size(self) -> str:
        return readable.size(len(self.attempt.response_body))

    @property
    def unsent(self) -> str:
        """Why the receiver has none of it; empty where it has, or may have."""
        if self.attempt.reason in UNSENT:
            return _("It was prepared, and nothing of it was sent.") if self.request_headers else _("Nothing was sent.")
        if self.request_headers:
            return ""
        if self.attempt.reason == Attempt.Reason.LOST:
            return _("Whether it was sent is not known.")
        return _("Nothing was sent.") if self.ended else _("It is on its way.")


@dataclass(frozen=True)
class Next:
    """The attempt that will be made. `at` is None where it does not wait for a time."""

    kind: str  # flying, off, due, probe, later
    at: datetime | None = None

    @property
    def wait(self) -> str:
        return timeuntil(self.at) if self.at else ""


def _next(delivery: Delivery) -> Next | None:
    if not delivery.is_open:
        return None
    if delivery.in_flight:
        return Next("flying")
    if not delivery.subscription.enabled:
        return Next("off")
    probe = Throttle.objects.filter(pk=delivery.subscription_id).values_list("probe_at", flat=True).first()
    due = delivery.next_attempt_at
    if probe and probe > timezone.now() and (due is None or due < probe):
        return Next("probe", probe)
    return Next("later", due) if due and not delivery.is_due else Next("due")


@page()
@require_safe
def delivery(request: TenantRequest, pk: int) -> HttpResponse:
    row = _found(request, pk)
    upto = key(request.GET.get("upto", ""))
    context = {"section": "deliveries", "delivery": row, **_timeline(row, upto), **_allowed(request, row)}
    context["fingerprint"] = fingerprint = _fingerprint(row, context["next"])
    if SEEN not in request.GET:
        body = bytes(row.event.body)
        context |= {"body": readable.pretty(body), "body_size": readable.size(len(body)), "is_json": _is_json(body)}
        return render(request, "webhooks/delivery.html", context)
    if request.GET[SEEN] == fingerprint:
        return HttpResponse(status=NOTHING_NEW)
    status = 200 if row.is_open else STOP_POLLING
    return render(request, "webhooks/delivery/live.html", context, status=status)


def _found(request: TenantRequest, pk: int) -> Delivery:
    rows = Delivery.objects.for_tenant(request.tenant).select_related("event", "subscription__tenant", "tenant")
    # A poll needs no body, and it may be long.
    return get_object_or_404(rows.defer("event__body", "event__changed") if SEEN in request.GET else rows, pk=pk)


def _timeline(row: Delivery, upto: int | None) -> dict[str, Any]:
    attempts = row.attempts.order_by("-number")
    chosen = attempts if upto is None else attempts.filter(number__lte=upto)
    shown = [Shown(attempt) for attempt in chosen[: MOST_ATTEMPTS + 1]]
    older = len(shown) > MOST_ATTEMPTS
    ended = next((each for each in shown if each.ended), None) if upto is None else None
    return {
        "attempts": shown[:MOST_ATTEMPTS],
        "older": shown[MOST_ATTEMPTS].attempt.number if older else None,
        "newest_shown": upto is None,
        "last": ended if ended and ended.attempt.reason and row.status != Delivery.Status.DELIVERED else None,
        "next": _next(row),
        "live": row.is_open and upto is None,
    }


def _allowed(request: TenantRequest, row: Delivery) -> dict[str, Any]:
    may = request.may(Role.DEVELOPER)
    on = row.subscription.enabled
    return {
        "may_replay": may and on and not row.in_flight,
        "may_cancel": may and row.is_open and not row.in_flight,
        "may_curl": may and row.subscription.url.startswith(HTTP),
    }


def _fingerprint(row: Delivery, upcoming: Next | None) -> str:
    waits = (upcoming.kind, upcoming.wait) if upcoming else None
    shown = (row.status, row.attempt_count, row.lease, row.subscription.enabled, waits)
    return hashlib.sha256(repr(shown).encode()).hexdigest()[:16]


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


@page(write=Role.DEVELOPER)
@require_POST
def replay(request: TenantRequest, pk: int) -> HttpResponse:
    lease = key(request.POST.get("lease", ""))
    return _do(request, pk, lambda row, by: deeds.replay(row, by, lease=lease), _("It is being sent again."))


@page(write=Role.DEVELOPER)
@require_POST
def cancel(request: TenantRequest, pk: int) -> HttpResponse:
    return _do(request, pk, deeds.cancel, _("It is cancelled, and will not be sent."))


def _do(request: TenantRequest, pk: int, deed: Callable[[Delivery, Actor], None], told: str) -> HttpResponse:
    row = _found(request, pk)
    try:
        deed(row, actor_of(request))
    except Refused as refused:
        messages.warning(request, str(refused))
    else:
        messages.success(request, told)
    return redirect("webhooks:delivery", request.tenant.slug, pk)


@page()
@require_safe
def body(request: TenantRequest, pk: int) -> HttpResponse:
    """The exact bytes, to look at and never to be run."""
    row = _found(request, pk)
    return HttpResponse(bytes(row.event.body), content_type="text/plain; charset=utf-8")


@page(Role.DEVELOPER)
@require_safe
@never_cache
def curl(request: TenantRequest, pk: int) -> HttpResponse:
    """A command with a signature of this moment. It holds no secret, and does
    no more than a replay does."""
    row = _found(request, pk)
    if not request.may(Role.DEVELOPER):
        raise PermissionDenied(_("Support looks, and changes nothing."))
    try:
        text = _command(row)
    except ValueError:
        text = ""
    if text and "plain" in request.GET:
        return HttpResponse(text, content_type="text/plain; charset=utf-8")
    return render(request, "webhooks/delivery/curl.html", {"section": "deliveries", "delivery": row, "command": text})


def _command(row: Delivery) -> str:
    """Raises ValueError where there is none."""
    if not row.subscription.url.startswith(HTTP):
        raise ValueError(row.subscription.url)
    return command.command(
        url=row.subscription.url,
        webhook_id=row.event.webhook_id,
        timestamp=int(time.time()),
        body=bytes(row.event.body),
        secrets=[secret.value for secret in row.subscription.secrets.live()],
    )

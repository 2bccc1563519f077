"""How the admin writes states, times and bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from subscriptions.admin.shown import NOTHING, state
from webhooks import readable
from webhooks.models import Attempt, Delivery, Event
from webhooks.readable import body_text, header_text, pretty, size

if TYPE_CHECKING:
    from django.utils.safestring import SafeString

__all__ = ["body_text", "duration", "header_text", "outcome", "pretty", "progress", "size", "status"]

ICONS = {
    Delivery.Status.PENDING: "○",
    Delivery.Status.RETRYING: "↻",
    Delivery.Status.DELIVERED: "✓",
    Delivery.Status.FAILED: "✕",
    Delivery.Status.CANCELLED: "⊘",
}

# In a word, for lists; `reasons` says it in a sentence.
REASONS = {
    Attempt.Reason.DNS: gettext_lazy("no such host"),
    Attempt.Reason.REFUSED_ADDRESS: gettext_lazy("refused address"),
    Attempt.Reason.CONNECT: gettext_lazy("no connection"),
    Attempt.Reason.TLS: gettext_lazy("TLS"),
    Attempt.Reason.TIMEOUT: gettext_lazy("timeout"),
    Attempt.Reason.PROTOCOL: gettext_lazy("not HTTP"),
    Attempt.Reason.STATUS: gettext_lazy("not 2xx"),
    Attempt.Reason.TOO_LARGE: gettext_lazy("too large"),
    Attempt.Reason.UNSENDABLE: gettext_lazy("unsendable"),
    Attempt.Reason.LOST: gettext_lazy("lost"),
}


def status(delivery: Delivery) -> SafeString:
    return state(delivery.status, ICONS[Delivery.Status(delivery.status)], delivery.get_status_display().lower())


def outcome(attempt: Attempt) -> SafeString:
    if attempt.delivered:
        return state("delivered", "✓", _("delivered"))
    if attempt.reason:
        return state("failed", "✕", str(REASONS[Attempt.Reason(attempt.reason)]))
    return state("pending", "○", _("in flight"))


def progress(event: Event) -> SafeString:
    if event.error:
        return state("failed", "✕", _("refused"))
    if event.fanned_out_at is None:
        return state("pending", "○", _("waiting"))
    return state("delivered", "✓", _("fanned out"))


def duration(milliseconds: int | None) -> str:
    if milliseconds is None:
        return NOTHING
    return readable.duration(milliseconds)

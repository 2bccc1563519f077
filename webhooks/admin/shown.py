"""How the admin writes states, times and bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from subscriptions.admin.shown import NOTHING, state
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


def status(delivery: Delivery) -> SafeString:
    return state(delivery.status, ICONS[Delivery.Status(delivery.status)], delivery.get_status_display().lower())


def outcome(attempt: Attempt) -> SafeString:
    if attempt.delivered:
        return state("delivered", "✓", "delivered")
    if attempt.reason:
        return state("failed", "✕", attempt.reason.replace("_", " "))
    return state("pending", "○", "in flight")


def progress(event: Event) -> SafeString:
    if event.error:
        return state("failed", "✕", "refused")
    if event.fanned_out_at is None:
        return state("pending", "○", "waiting")
    return state("delivered", "✓", "fanned out")


def duration(milliseconds: int | None) -> str:
    if milliseconds is None:
        return NOTHING
    seconds = milliseconds / 1000
    return f"{seconds:.1f} s" if seconds >= 1 else f"{milliseconds} ms"

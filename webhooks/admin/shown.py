"""How the admin writes states, times and bytes."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from subscriptions.admin.shown import NOTHING, state
from webhooks.models import Attempt, Delivery, Event

if TYPE_CHECKING:
    from django.utils.safestring import SafeString

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


def size(octets: int) -> str:
    return f"{octets / 1024:,.0f} KiB" if octets >= 10 * 1024 else f"{octets:,} bytes"


def body_text(data: bytes | memoryview) -> str:
    """Any bytes as text a person can read: what is no UTF-8, or cannot be
    seen, such as NUL and the marks that turn the direction of writing, as
    backslash escapes."""
    return _visible(bytes(data).decode("utf-8", "backslashreplace"))


def header_text(data: bytes | memoryview) -> str:
    """A header block; every byte is a character of latin-1."""
    return _visible(bytes(data).decode("latin-1").replace("\r\n", "\n").rstrip("\n"))


def pretty(data: bytes | memoryview) -> str:
    """JSON indented, for reading; anything else as `body_text`."""
    try:
        return _visible(json.dumps(json.loads(bytes(data)), indent=2, ensure_ascii=False))
    except (ValueError, RecursionError):
        return body_text(data)


def _visible(text: str) -> str:
    return re.sub(r"[^\x20-\x7e\n\t]", lambda found: _escape(found[0]), text)


def _escape(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()

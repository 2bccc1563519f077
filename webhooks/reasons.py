"""What became of an attempt, in one sentence for people."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from webhooks.models import Attempt

if TYPE_CHECKING:
    from collections.abc import Mapping

CONSEQUENCE: Mapping[int, str] = {
    HTTPStatus.GONE: "the subscription was turned off",
    HTTPStatus.MOVED_PERMANENTLY: "redirects are not followed",
    HTTPStatus.FOUND: "redirects are not followed",
    HTTPStatus.SEE_OTHER: "redirects are not followed",
    HTTPStatus.TEMPORARY_REDIRECT: "redirects are not followed",
    HTTPStatus.PERMANENT_REDIRECT: "redirects are not followed",
}


def sentence(attempt: Attempt) -> str:
    """Such as "410 Gone: the subscription was turned off" or "Timed out after 15 s"."""
    if attempt.ended_at is None and not attempt.reason:
        return "Under way"
    if not attempt.reason:
        return f"Delivered: {_status(attempt.response_status)}"
    if attempt.reason == Attempt.Reason.STATUS:
        said = _status(attempt.response_status)
        consequence = CONSEQUENCE.get(attempt.response_status or 0)
        return f"{said}: {consequence}" if consequence else said
    if attempt.reason == Attempt.Reason.TIMEOUT and attempt.duration_ms is not None:
        after = f"Timed out after {_seconds(attempt.duration_ms)} s"
        return f"{after}: {attempt.detail}" if attempt.detail else after
    return _explained(str(Attempt.Reason(attempt.reason).label), attempt.detail)


def _status(status: int | None) -> str:
    try:
        return f"{status} {HTTPStatus(status or 0).phrase}"
    except ValueError:
        return str(status)  # one that nobody has registered


def _seconds(milliseconds: int) -> str:
    """Two digits that matter: 0.25, 1.5, 15."""
    return f"{milliseconds / 1000:.0f}" if milliseconds >= 9_950 else f"{milliseconds / 1000:.2g}"  # noqa: PLR2004


def _explained(what: str, detail: str) -> str:
    """A detail that is a sentence says it all; one that is a part of one, such
    as a system's "Connection refused", says more about `what`."""
    if detail.endswith("."):
        return detail[:-1]
    return f"{what}: {detail}" if detail else what

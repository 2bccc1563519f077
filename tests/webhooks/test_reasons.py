from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone

from webhooks.models import Attempt
from webhooks.reasons import sentence

Reason = Attempt.Reason


def ended(**fields: Any) -> Attempt:
    return Attempt(**{"ended_at": timezone.now(), "duration_ms": 15_003, **fields})


def answered(status: int | None, **fields: Any) -> Attempt:
    return ended(response_status=status, reason=Reason.STATUS, **fields)


def failed(reason: Attempt.Reason, detail: str = "", **fields: Any) -> Attempt:
    return ended(reason=reason, detail=detail, **fields)


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (Attempt(), "Under way"),
        (ended(response_status=204), "Delivered: 204 No Content"),
        (ended(response_status=299), "Delivered: 299"),
        (answered(500), "500 Internal Server Error"),
        (answered(404), "404 Not Found"),
        (answered(410), "410 Gone: the subscription was turned off"),
        (answered(302), "302 Found: redirects are not followed"),
        (answered(308), "308 Permanent Redirect: redirects are not followed"),
        (answered(304), "304 Not Modified"),
        (answered(799), "799"),
        (failed(Reason.TIMEOUT), "Timed out after 15 s"),
        (failed(Reason.TIMEOUT, duration_ms=9_949), "Timed out after 9.9 s"),
        (failed(Reason.TIMEOUT, duration_ms=9_950), "Timed out after 10 s"),
        (failed(Reason.TIMEOUT, duration_ms=250), "Timed out after 0.25 s"),
        (failed(Reason.TIMEOUT, duration_ms=0), "Timed out after 0 s"),
        (
            failed(Reason.TIMEOUT, "no answer came"),
            "Timed out after 15 s: no answer came",
        ),
        (failed(Reason.TIMEOUT, duration_ms=None), "The receiver did not answer in time"),
        (
            failed(Reason.TLS, "certificate has expired"),
            "The certificate or the TLS handshake was refused: certificate has expired",
        ),
        (failed(Reason.CONNECT, "Connection refused"), "No connection could be made: Connection refused"),
        # A sentence says it all.
        (failed(Reason.TLS, "The certificate was refused: it expired."), "The certificate was refused: it expired"),
        (failed(Reason.DNS, "The name a.example has no address."), "The name a.example has no address"),
        (failed(Reason.LOST), "The worker stopped before the answer was recorded"),
        (Attempt(reason=Reason.LOST), "The worker stopped before the answer was recorded"),
    ],
)
def test_an_attempt_is_told_in_a_sentence(attempt: Attempt, said: str) -> None:
    assert sentence(attempt) == said


@pytest.mark.parametrize("reason", Reason.values)
def test_every_reason_has_a_sentence(reason: str) -> None:
    said = sentence(ended(reason=reason, response_status=500))
    assert said[:1].isupper() or said[:1].isdigit()
    assert len(said) > 10

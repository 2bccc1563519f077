from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone

from webhooks.models import Attempt
from webhooks.reasons import advice, sentence

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


@pytest.mark.parametrize("reason", Reason.values)
def test_every_failure_comes_with_advice(reason: str) -> None:
    said = advice(ended(reason=reason, response_status=500))
    assert said.endswith(".")
    assert len(said) > 20


@pytest.mark.parametrize(
    "status", [300, 301, 400, 401, 403, 404, 405, 409, 410, 413, 415, 429, 500, 502, 503, 599, 799]
)
def test_every_status_comes_with_advice(status: int) -> None:
    assert advice(answered(status)).endswith(".")


@pytest.mark.parametrize(
    ("attempt", "part"),
    [
        (answered(308), "redirects to"),
        (answered(401), "valid signature"),
        (answered(418), "may say why"),
        (answered(410), "turn the subscription on again"),
        (answered(503), "behind it"),
        (answered(507), "broke"),
        (answered(304), "2xx"),
        (failed(Reason.TLS, "certificate verify failed: certificate has expired"), "Renew"),
        (failed(Reason.TLS, "certificate verify failed: self signed certificate"), "public authority"),
        (failed(Reason.TLS, "certificate verify failed: unable to get local issuer certificate"), "intermediate"),
        (failed(Reason.TLS, "Hostname mismatch, certificate is not valid for 'a.example'."), "another name"),
        (failed(Reason.TLS, "handshake failure"), "chain"),
        (failed(Reason.TIMEOUT), "2xx first"),
    ],
)
def test_advice_is_about_what_happened(attempt: Attempt, part: str) -> None:
    assert part in advice(attempt)


def test_where_nothing_is_wrong_there_is_no_advice() -> None:
    assert advice(ended(response_status=204)) == ""
    assert advice(Attempt()) == ""

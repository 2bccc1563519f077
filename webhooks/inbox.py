"""The built-in receiver: what goes to `inbox:` is answered here, in the
worker, with the very headers and bytes that would have gone out.

It checks the signature as any receiver would: with secrets that it reads for
itself, and not with those that signed.
"""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING

from django.utils import timezone

from subscriptions.addresses import INBOX
from subscriptions.models import Secret, home
from webhooks import sending, signing
from webhooks.models import Attempt, InboxRequest
from webhooks.recording import Outcome

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from webhooks.deliveries import Claim

ACCEPTED, REFUSED = 200, 400
VALID = "The signature is valid."
ANSWER_HEADERS = b"content-type: text/plain; charset=utf-8\r\n"


def takes(claim: Claim) -> bool:
    return claim.url == INBOX


def answer(claims: Sequence[Claim]) -> list[tuple[Claim, Outcome]]:
    """As a receiver at the other end would. What arrived is kept when its
    outcome is recorded. Raises DatabaseError."""
    secrets = _secrets({claim.subscription_id for claim in claims}) if claims else {}
    return [(claim, _answer(claim, secrets.get(claim.subscription_id, ()))) for claim in claims]


def refusal_of(headers: Mapping[str, str], body: bytes, secrets: Sequence[str]) -> str:
    """Why the request cannot be trusted; empty where it can."""
    if not secrets:
        return "The subscription has no secret that can be read, so nothing can be checked."
    try:
        signing.verify(headers, body, secrets)
    except signing.VerificationError as error:
        return str(error)
    return ""


def _answer(claim: Claim, secrets: Sequence[str]) -> Outcome:
    began = time.monotonic()
    try:
        request = sending.prepare(claim, timestamp=int(time.time()))
    except ValueError as error:
        return Outcome(url=claim.url, duration_ms=0, sent=False, reason=Attempt.Reason.UNSENDABLE, detail=str(error))
    refusal = refusal_of(request.headers, request.body, secrets)
    headers = {**request.headers, "content-length": str(len(request.body))}
    block = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("latin-1")
    return Outcome(
        url=claim.url,
        duration_ms=round((time.monotonic() - began) * 1_000),
        sent=True,
        reason=Attempt.Reason.STATUS if refusal else "",
        request_headers=block,
        status=REFUSED if refusal else ACCEPTED,
        response_headers=ANSWER_HEADERS,
        response_body=(refusal or VALID).encode(),
        arrived=InboxRequest(
            tenant_id=claim.tenant_id,
            subscription_id=claim.subscription_id,
            received_at=timezone.now(),
            webhook_id=claim.webhook_id,
            headers=block,
            body=request.body,
            refusal=refusal,
        ),
    )


def _secrets(subscriptions: Collection[int]) -> dict[int, list[str]]:
    """Those that are live, newest first; what cannot be read is none."""
    found: defaultdict[int, list[str]] = defaultdict(list)
    for secret in Secret.objects.using(home()).live().filter(subscription__in=subscriptions).order_by("-pk"):
        try:
            found[secret.subscription_id].append(secret.value)
        except ValueError:
            continue
    return found

"""One attempt: prepare it (pure), call the receiver (network), record what came of it (database).

The three never overlap: no transaction is open while a request is. How it is
recorded is in `recording`; it has its name here, too.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from webhooks import __version__, retry, signing, transport
from webhooks.models import Attempt
from webhooks.recording import Outcome, record

if TYPE_CHECKING:
    from webhooks.deliveries import Claim

__all__ = ["Outcome", "Request", "call", "prepare", "record"]

log = logging.getLogger(__name__)

USER_AGENT = f"Signalpost/{__version__}"
# Failures before the first byte of the request could have left.
UNSENT = frozenset(
    {
        Attempt.Reason.UNSENDABLE,
        Attempt.Reason.DNS,
        Attempt.Reason.REFUSED_ADDRESS,
        Attempt.Reason.CONNECT,
        Attempt.Reason.TLS,
    }
)


@dataclass(frozen=True, slots=True)
class Request:
    url: str
    headers: Mapping[str, str]
    body: bytes


def prepare(claim: Claim, *, timestamp: int) -> Request:
    """The request that `claim` makes at `timestamp` (Unix seconds).

    Raises ValueError where none can be made, such as without a live secret.
    """
    signed = signing.headers(webhook_id=claim.webhook_id, timestamp=timestamp, body=claim.body, secrets=claim.secrets)
    return Request(
        url=claim.url,
        headers={"content-type": "application/json", "user-agent": USER_AGENT, **signed},
        body=claim.body,
    )


async def call(claim: Claim, client: transport.Client) -> Outcome:
    """Send it, once. Whatever goes wrong is an outcome; only a cancellation is
    raised, and a ShortageError, as nothing was tried."""
    began = time.monotonic()

    def failed(reason: Attempt.Reason, detail: str, *, request_headers: bytes = b"") -> Outcome:
        return Outcome(
            url=claim.url,
            duration_ms=_milliseconds_since(began),
            sent=reason not in UNSENT,
            reason=reason,
            detail=detail,
            request_headers=request_headers,
        )

    try:
        request = prepare(claim, timestamp=int(time.time()))
    except ValueError as error:
        return failed(Attempt.Reason.UNSENDABLE, str(error))
    try:
        answer = await client.post(request.url, headers=request.headers, body=request.body, pool=claim.subscription_id)
    except transport.SendFailure as failure:
        return failed(failure.reason, failure.detail, request_headers=failure.request_headers)
    except transport.ShortageError:
        raise
    except Exception as error:
        # A mistake of ours must cost this one attempt, not the drain. What the
        # receiver saw of it nobody knows, as after a crash.
        log.exception("The attempt %d of delivery %d broke", claim.number, claim.delivery_id, extra=claim.ids)
        return failed(Attempt.Reason.LOST, f"{type(error).__name__}: {error}")
    return Outcome(
        url=claim.url,
        duration_ms=_milliseconds_since(began),
        sent=True,
        reason="" if retry.delivered(answer.status) else Attempt.Reason.STATUS,
        request_headers=answer.request_headers,
        status=answer.status,
        response_headers=answer.headers,
        response_body=answer.body,
        cut=answer.cut,
        retry_after=_retry_after(answer.headers),
    )


def _milliseconds_since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)


def _retry_after(block: bytes) -> float | None:
    """Of a header block as on the wire; the first counts where there are several."""
    for line in block.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"retry-after":
            return retry.parse_retry_after(value.decode("latin-1"), now=datetime.now(UTC))
    return None

"""Standard Webhooks signatures, made and checked. Pure: no clock but the one given."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from typing import TYPE_CHECKING

from subscriptions.secrets import key_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
VERSION = "v1"
# Seconds, either way. Standard Webhooks leaves the number open; five minutes
# is what its official libraries take.
TOLERANCE = 300

# The signed content joins its parts by dots and the header its signatures by
# spaces, so an id can hold neither.
_ID = re.compile(r"[A-Za-z0-9_-]+")
# Twelve digits reach the year 33658; more are an attack on int().
_SECONDS = re.compile(r"[0-9]{1,12}")


class VerificationError(Exception):
    """Why a webhook cannot be trusted, in a sentence for people."""


def headers(*, webhook_id: str, timestamp: int, body: bytes, secrets: Sequence[str]) -> dict[str, str]:
    """The three headers of Standard Webhooks ("Webhook headers"), over exactly `body`.

    `timestamp` is in Unix seconds; `secrets` are whsec_ strings, newest first,
    and each of them signs. Raises ValueError for an id with a dot or a space,
    an empty body, no secret, or one that is not a secret.
    """
    if not _ID.fullmatch(webhook_id):
        raise ValueError("A webhook-id is letters, digits, - and _ only.")
    if not body:
        raise ValueError("There is no body to sign.")
    if not secrets:
        raise ValueError("There is no secret to sign with.")
    return {
        ID: webhook_id,
        TIMESTAMP: str(timestamp),
        SIGNATURE: " ".join(f"{VERSION},{_sign(webhook_id, str(timestamp), body, secret)}" for secret in secrets),
    }


def verify(
    headers: Mapping[str, str],
    body: bytes,
    secrets: Sequence[str],
    *,
    tolerance: float = TOLERANCE,
    now: float | None = None,
) -> None:
    """Return if one of `secrets` signed exactly `body`, within `tolerance` seconds of `now`.

    Names of headers may be of any case. Raises VerificationError, whose text
    says what is wrong, and ValueError for a secret that is none.
    """
    given = {name.lower(): value for name, value in headers.items()}
    for name in (ID, TIMESTAMP, SIGNATURE):
        if not given.get(name):
            raise VerificationError(f"The {name} header is missing.")
    if not given[ID].isascii():
        raise VerificationError(f"The {ID} header holds characters other than ASCII.")
    _check_age(given[TIMESTAMP], tolerance=tolerance, now=time.time() if now is None else now)
    _check_signature(given, body, secrets)


def _check_age(timestamp: str, *, tolerance: float, now: float) -> None:
    if not _SECONDS.fullmatch(timestamp):
        raise VerificationError(f"The {TIMESTAMP} header is not a number of Unix seconds.")
    age = now - int(timestamp)
    if age > tolerance:
        raise VerificationError(f"The {TIMESTAMP} is {age:.0f} s old; at most {tolerance:.0f} s are accepted.")
    if age < -tolerance:
        raise VerificationError(
            f"The {TIMESTAMP} is {-age:.0f} s in the future; at most {tolerance:.0f} s are accepted."
        )


def _check_signature(given: Mapping[str, str], body: bytes, secrets: Sequence[str]) -> None:
    pairs = (part.partition(",") for part in given[SIGNATURE].split())
    signatures = [signature.encode(errors="replace") for version, _, signature in pairs if version == VERSION]
    if not signatures:
        raise VerificationError(f"The {SIGNATURE} header holds no {VERSION} signature.")
    expected = [_sign(given[ID], given[TIMESTAMP], body, secret).encode() for secret in secrets]
    # Every pair is compared, each in constant time: how long it takes tells
    # nothing about which secret came how close.
    if not sum(hmac.compare_digest(one, other) for one in signatures for other in expected):
        raise VerificationError("No signature matches: it was made with another secret, or for another body.")


def _sign(webhook_id: str, timestamp: str, body: bytes, secret: str) -> str:
    content = b"%b.%b.%b" % (webhook_id.encode(), timestamp.encode(), body)
    return base64.b64encode(hmac.digest(key_of(secret), content, hashlib.sha256)).decode()

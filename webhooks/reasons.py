"""What became of an attempt, in one sentence for people, and what to do about it."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from webhooks.models import Attempt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from django.utils.functional import _StrPromise

    Text = str | _StrPromise

Reason = Attempt.Reason

NOT_FOLLOWED = gettext_lazy("redirects are not followed")
CONSEQUENCE: Mapping[int, Text] = {
    HTTPStatus.GONE: gettext_lazy("the subscription was turned off"),
    HTTPStatus.MOVED_PERMANENTLY: NOT_FOLLOWED,
    HTTPStatus.FOUND: NOT_FOLLOWED,
    HTTPStatus.SEE_OTHER: NOT_FOLLOWED,
    HTTPStatus.TEMPORARY_REDIRECT: NOT_FOLLOWED,
    HTTPStatus.PERMANENT_REDIRECT: NOT_FOLLOWED,
}

BY_REASON: Mapping[str, Text] = {
    Reason.DNS: gettext_lazy("Check the host name in the URL, and that its DNS record can be seen from outside."),
    Reason.REFUSED_ADDRESS: gettext_lazy(
        "Webhooks go to public addresses only. Give the receiver a public address, or put a public proxy before it."
    ),
    Reason.CONNECT: gettext_lazy(
        "Check that the receiver runs, that the port in the URL is right, and that no firewall keeps us out."
    ),
    Reason.TLS: gettext_lazy("Check the receiver's certificate: its names, its dates, and that its chain is complete."),
    Reason.TIMEOUT: gettext_lazy("Answer with 2xx first and do the work afterwards, in a queue of your own."),
    Reason.PROTOCOL: gettext_lazy(
        "Check that the URL's port speaks HTTP, and https:// where it expects TLS; look for a crash in its log."
    ),
    Reason.TOO_LARGE: gettext_lazy("Let the receiver answer with fewer headers; an empty 204 is enough."),
    Reason.UNSENDABLE: gettext_lazy("Rotate the subscription's secret. If that does not help, tell the operator."),
    Reason.LOST: gettext_lazy(
        "Nothing is wrong at the receiver. It may have got this request; it knows the next one by the same webhook-id."
    ),
}

REDIRECTED = gettext_lazy("Put the address that it redirects to into the subscription's URL.")
LET_IN = gettext_lazy(
    "Let requests in that carry a valid signature: they bring no other credentials. Check the secret, too."
)
BROKE = gettext_lazy("The receiver broke. Look in its log for this webhook-id.")
AWAY = gettext_lazy("A proxy answered, and what is behind it did not. Check that the receiver itself runs.")
BY_STATUS: Mapping[int, Text] = {
    **dict.fromkeys(CONSEQUENCE, REDIRECTED),
    HTTPStatus.BAD_REQUEST: gettext_lazy(
        "The receiver refused the request. Its answer below may say why; check the secret it verifies with."
    ),
    HTTPStatus.UNAUTHORIZED: LET_IN,
    HTTPStatus.FORBIDDEN: LET_IN,
    HTTPStatus.NOT_FOUND: gettext_lazy("There is nothing at this path. Check the subscription's URL."),
    HTTPStatus.METHOD_NOT_ALLOWED: gettext_lazy("Let the receiver take POST at this path, or change the URL."),
    HTTPStatus.GONE: gettext_lazy(
        "By 410 a receiver says that it wants no more. If it does want more, let it answer 2xx, and turn the subscription on again."
    ),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: gettext_lazy("Raise the size of a body that the receiver accepts."),
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: gettext_lazy("Let the receiver take application/json."),
    HTTPStatus.TOO_MANY_REQUESTS: gettext_lazy("Give the subscription a rate limit that the receiver keeps up with."),
    HTTPStatus.INTERNAL_SERVER_ERROR: BROKE,
    HTTPStatus.BAD_GATEWAY: AWAY,
    HTTPStatus.SERVICE_UNAVAILABLE: AWAY,
    HTTPStatus.GATEWAY_TIMEOUT: AWAY,
}
OTHER_REFUSAL = gettext_lazy("The receiver refused the request. Its answer below may say why.")
OTHER_STATUS = gettext_lazy("Let the receiver answer with 2xx once it has taken the webhook.")

# A part of what OpenSSL says -> what helps.
BY_CERTIFICATE: Sequence[tuple[str, Text]] = (
    ("has expired", gettext_lazy("Renew the receiver's certificate, and let it renew itself from now on.")),
    ("not yet valid", gettext_lazy("The certificate begins later. Check the clock of the machine that made it.")),
    (
        "self-signed",
        gettext_lazy(
            "Use a certificate of a public authority, such as Let's Encrypt; a self-signed one proves nothing."
        ),
    ),
    (
        "unable to get local issuer",
        gettext_lazy("Let the receiver send the intermediate certificates, too: its full chain."),
    ),
    (
        "mismatch, certificate",
        gettext_lazy("The certificate is for another name. Get one for the host in the URL, or change the URL."),
    ),
)


def sentence(attempt: Attempt) -> str:
    """Such as "410 Gone: the subscription was turned off" or "Timed out after 15 s"."""
    if attempt.ended_at is None and not attempt.reason:
        return _("Under way")
    if not attempt.reason:
        return _("Delivered: %(status)s") % {"status": _status(attempt.response_status)}
    if attempt.reason == Reason.STATUS:
        said = _status(attempt.response_status)
        consequence = CONSEQUENCE.get(attempt.response_status or 0)
        return f"{said}: {consequence}" if consequence else said
    if attempt.reason == Reason.TIMEOUT and attempt.duration_ms is not None:
        after = _("Timed out after %(seconds)s s") % {"seconds": _seconds(attempt.duration_ms)}
        return f"{after}: {attempt.detail}" if attempt.detail else after
    return _explained(str(Reason(attempt.reason).label), attempt.detail)


def advice(attempt: Attempt) -> str:
    """What to do about it, in a sentence or two; empty where nothing is wrong."""
    if not attempt.reason:
        return ""
    if attempt.reason == Reason.STATUS:
        return str(_about_status(attempt.response_status or 0))
    if attempt.reason == Reason.TLS:
        said = attempt.detail.lower().replace("self signed", "self-signed")
        for part, text in BY_CERTIFICATE:
            if part in said:
                return str(text)
    return str(BY_REASON[attempt.reason])


def _about_status(status: int) -> Text:
    if status in BY_STATUS:
        return BY_STATUS[status]
    if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return OTHER_REFUSAL
    return BROKE if HTTPStatus.INTERNAL_SERVER_ERROR <= status < 600 else OTHER_STATUS  # noqa: PLR2004


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

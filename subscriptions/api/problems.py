"""What the API answers where it does not do what was asked: RFC 9457, with a
code that programs may rely on. docs/api.md has the same table for people."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core import signals
from django.core.exceptions import DisallowedHost, SuspiciousOperation, TooManyFieldsSent, ValidationError
from django.db import InterfaceError, InternalError, OperationalError
from django.http import Http404, UnreadablePostError
from django.urls import NoReverseMatch, reverse
from django.utils.translation import gettext_lazy as _
from rest_framework import exceptions
from rest_framework.response import Response

from subscriptions import edits, people

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from django_stubs_ext import StrOrPromise
    from rest_framework.request import Request

logger = logging.getLogger(__name__)

NAMESPACE = "signalpost-api"
MEDIA_TYPE = "application/problem+json"
MOST_FAULTS = 100
LONGEST = 500  # characters of a pointer: names are as long as whoever sends them likes
RETRY_SECONDS = 5  # while the database is away
READ_ONLY = "25006"  # PostgreSQL's code


@dataclass(frozen=True, slots=True)
class Kind:
    """`advice` is what to do about it."""

    status: int
    title: StrOrPromise
    advice: StrOrPromise


CODES: dict[str, Kind] = {
    "malformed_json": Kind(
        400, _("The body is not JSON"), _("Send one JSON object as UTF-8, without NaN or Infinity.")
    ),
    "duplicate_key": Kind(400, _("A key stands twice in one object"), _("Send each key once.")),
    "too_deep": Kind(400, _("The body is nested too deeply"), _("Nest at most 64 objects and arrays.")),
    "bad_number": Kind(400, _("A number is too large"), _("Send integers of 64 bits at most, or send them as text.")),
    "bad_text": Kind(400, _("A text holds a NUL character"), _("Leave U+0000 out.")),
    "invalid": Kind(400, _("A value is wrong"), _("Correct what `errors` names.")),
    "unknown_field": Kind(400, _("There is no such field"), _("Leave it out, or correct its name.")),
    "unknown_topic": Kind(
        400, _("There is no such topic"), _("Publish a topic that the project has declared; `GET topics/` lists them.")
    ),
    "topic_reserved": Kind(
        400, _("Nobody may publish this topic"), _("Publish a topic that was declared for it: no model's, no signal's.")
    ),
    "schema_mismatch": Kind(
        400, _("The data does not fit the schema"), _("Correct what `errors` names; `GET topics/` has the schema.")
    ),
    "unknown_parameter": Kind(
        400, _("There is no such parameter"), _("Leave it out of the query, or correct its name.")
    ),
    "bad_filter": Kind(400, _("A parameter's value is wrong"), _("Correct what `errors` names.")),
    "bad_cursor": Kind(400, _("The cursor cannot be read"), _("Follow `next` and `previous` as they are given.")),
    "tenant_required": Kind(
        400, _("No tenant is named"), _("An operator's key names the tenant: add `?tenant=` and its slug.")
    ),
    "unauthorized": Kind(
        401, _("No valid key"), _("Send `Authorization: Bearer sp_…` with a key that is live, from an allowed network.")
    ),
    "missing_scope": Kind(403, _("The key may not do this"), _("Use a key with the scope that `detail` names.")),
    "not_found": Kind(404, _("Nothing is here"), _("Check the address, and whether the key is of the right tenant.")),
    "method_not_allowed": Kind(405, _("This cannot be done here"), _("Use a method that `Allow` names.")),
    "refused": Kind(409, _("This is not possible now"), _("Read `detail`: it says why, and what would help.")),
    "length_required": Kind(
        411, _("The length of the body is not said"), _("Send `Content-Length`, and the body in one piece.")
    ),
    "stale": Kind(412, _("It was changed meanwhile"), _("Get it again, then change it with the new `ETag`.")),
    "too_large": Kind(413, _("The body is too large"), _("Send less: 1 MiB at most, 10 MiB in a batch.")),
    "unsupported_media_type": Kind(
        415, _("The body is of another type"), _("Send `Content-Type: application/json`, not compressed.")
    ),
    "idempotency_mismatch": Kind(
        422, _("The key was used for another request"), _("Use a new `Idempotency-Key` for each request.")
    ),
    "throttled": Kind(429, _("Too many requests"), _("Wait for the seconds that `Retry-After` names.")),
    "internal": Kind(500, _("Something broke here"), _("Try again; if it stays, tell the operator when it was.")),
    "unavailable": Kind(503, _("The database is away"), _("Try again after the seconds that `Retry-After` names.")),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong. `field` is a JSON pointer into the body, as
    /topics/0/name, or the name of a parameter of the query."""

    field: str
    detail: StrOrPromise
    code: str = "invalid"


class Problem(Exception):  # noqa: N818 - it is an answer
    """Raise it anywhere behind a view of the API."""

    def __init__(
        self,
        code: str,
        detail: StrOrPromise = "",
        *,
        errors: Iterable[Fault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail
        self.errors = list(errors)
        self.headers = dict(headers or {})


def handle(error: Exception, context: Mapping[str, Any]) -> Response | None:
    """The answer; None where the exception is to reach Django."""
    request = context["request"]
    problem = _of(error) or _of_framework(error)
    if problem is None:
        if settings.DEBUG:
            return None
        problem = _broken(error, context)
    return answer(problem, request)


def answer(problem: Problem, request: Request) -> Response:
    kind = CODES[problem.code]
    faults = problem.errors[:MOST_FAULTS]
    page = address(request, "docs")
    body = {
        "type": f"{page}#{problem.code}" if page else "about:blank",
        "title": str(kind.title),
        "status": kind.status,
        "code": problem.code,
        "detail": str(problem.detail) or (str(faults[0].detail) if len(faults) == 1 else str(kind.advice)),
        "errors": [{"field": each.field[:LONGEST], "detail": str(each.detail), "code": each.code} for each in faults],
    }
    return Response(body, status=kind.status, headers=problem.headers, content_type=MEDIA_TYPE)


def pointer(*parts: object) -> str:
    """RFC 6901."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in parts)


def address(request: Any, name: str) -> str:
    """Of one of our routes, wherever the host has mounted them, in a namespace
    of its own or not; empty where they are not found."""
    match = request.resolver_match
    namespace = match.namespace if match and match.namespace else NAMESPACE
    try:
        return str(request.build_absolute_uri(reverse(f"{namespace}:{name}")))
    except (NoReverseMatch, DisallowedHost):
        return ""


def _of(error: Exception) -> Problem | None:
    """Of our own rules."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, edits.StaleError | people.StaleError):
        return Problem("stale", str(error))
    if isinstance(error, edits.Refused):
        return Problem("refused", str(error))
    return Problem("invalid", errors=_by_field(error)) if isinstance(error, ValidationError) else None


def _of_framework(error: Exception) -> Problem | None:
    if isinstance(error, exceptions.ValidationError):
        return _invalid(list(_faults(error.detail)))
    if isinstance(error, exceptions.AuthenticationFailed | exceptions.NotAuthenticated):
        return Problem("unauthorized", str(error.detail), headers={"WWW-Authenticate": 'Bearer realm="api"'})
    for kinds, code in KINDS:
        if isinstance(error, kinds):
            return Problem(code)
    if isinstance(error, OperationalError | InterfaceError) or _is_read_only(error):
        # Its first line: those behind it may quote the statement, and rows.
        logger.error("The database failed behind the API: %s", str(error).partition("\n")[0])
        return Problem("unavailable", headers={"Retry-After": str(RETRY_SECONDS)})
    return None


def _is_read_only(error: Exception) -> bool:
    """Such as a standby, during a failover: it takes no writes from anybody."""
    return isinstance(error, InternalError) and getattr(error.__cause__, "sqlstate", "") == READ_ONLY


KINDS: list[tuple[Any, str]] = [
    (Http404, "not_found"),
    (exceptions.NotFound, "not_found"),
    (exceptions.MethodNotAllowed, "method_not_allowed"),
    (exceptions.UnsupportedMediaType, "unsupported_media_type"),
    (exceptions.ParseError, "malformed_json"),
    (UnreadablePostError, "malformed_json"),
    # More than any route has.
    (TooManyFieldsSent, "unknown_parameter"),
    (SuspiciousOperation, "invalid"),
]


def _invalid(faults: list[Fault]) -> Problem:
    unknown = all(fault.code == "unknown_field" for fault in faults)
    return Problem("unknown_field" if unknown else "invalid", errors=faults)


def _by_field(error: ValidationError) -> Iterator[Fault]:
    if not hasattr(error, "error_dict"):
        yield from (Fault("", message) for message in error.messages)
        return
    for field, wrong in error.message_dict.items():
        where = "" if field == "__all__" else pointer(field)
        yield from (Fault(where, message) for message in wrong)


def _faults(detail: Any, *path: object) -> Iterator[Fault]:
    """DRF's errors, which lie as the body does: objects by name, arrays by place."""
    if isinstance(detail, dict):
        for name, each in detail.items():
            yield from _faults(each, *(path if name == "non_field_errors" else (*path, name)))
    elif isinstance(detail, list):
        for number, each in enumerate(detail):
            yield from _faults(each, *((*path, number) if isinstance(each, dict) else path))
    else:
        yield Fault(pointer(*path), str(detail), getattr(detail, "code", "invalid"))


def _broken(error: Exception, context: Mapping[str, Any]) -> Problem:
    """Django, and whoever watches it, hears of it as of any other."""
    request = context["request"]._request
    logger.error("An error behind the API: %s", request.path, exc_info=error)
    signals.got_request_exception.send(sender=type(context["view"]), request=request)
    return Problem("internal")

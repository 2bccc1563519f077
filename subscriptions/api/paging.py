"""Long lists, a page at a time: by key, so that what is added meanwhile moves
nothing, and never by OFFSET."""

from __future__ import annotations

import base64
import binascii
import json
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from django.db.models import Q
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from rest_framework.response import Response

from subscriptions.api.fields import moment
from subscriptions.api.problems import Fault, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from django.db.models import Model, QuerySet
    from django_stubs_ext import StrOrPromise
    from rest_framework.request import Request

    Row = TypeVar("Row", bound=Model)

MOST = 100
USUAL = 50
LONGEST_CURSOR = 500
HIGHEST = 2**63 - 1
TIME = {"type": "string", "format": "date-time"}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One of the query: what is not declared is refused, and what is stands in
    the OpenAPI document."""

    name: str
    about: StrOrPromise
    schema: dict[str, Any] = field(default_factory=lambda: {"type": "string"})


TENANT = Parameter("tenant", gettext_lazy("The tenant's slug; needed with a key of the operator's, and only there."))
LIMIT = Parameter(
    "limit",
    gettext_lazy("How many to give at most."),
    {"type": "integer", "minimum": 1, "maximum": MOST, "default": USUAL},
)
CURSOR = Parameter(
    "cursor",
    gettext_lazy("From `next` or `previous` of another page; follow those as they are."),
    {"type": "string", "minLength": 1},
)
CREATED_AFTER = Parameter("created_after", gettext_lazy("Only what was made at this time or later."), TIME)
CREATED_BEFORE = Parameter("created_before", gettext_lazy("Only what was made before this time."), TIME)
PAGING = (LIMIT, CURSOR)
TIMES = (CREATED_AFTER, CREATED_BEFORE)


def trouble(parameter: Parameter, text: str) -> StrOrPromise:
    """Why `text` is no value of it by its schema; empty where it is one."""
    schema = parameter.schema
    if len(text) > schema.get("maxLength", len(text)):
        return _("Write at most %(most)s characters.") % {"most": schema["maxLength"]}
    if "enum" in schema and text not in schema["enum"]:
        return _("Choose from: %(values)s.") % {"values": ", ".join(schema["enum"])}
    if schema["type"] == "integer" and not _is_within(text, schema):
        return _("Write a whole number from %(low)s to %(high)s.") % {
            "low": schema.get("minimum", 0),
            "high": schema.get("maximum", HIGHEST),
        }
    return ""


def _is_within(text: str, schema: dict[str, Any]) -> bool:
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(HIGHEST))):
        return False
    return bool(schema.get("minimum", 0) <= int(text) <= schema.get("maximum", HIGHEST))


@dataclass(frozen=True, slots=True)
class Cursor:
    """`way` is "<" for what is older than `key`, ">" for newer; with "=", that too."""

    way: str
    key: tuple[Any, ...]

    def __str__(self) -> str:
        text = json.dumps([self.way, *map(_text, self.key)], separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @property
    def is_forward(self) -> bool:
        return self.way.startswith(">")


@dataclass(frozen=True, slots=True)
class Cut:
    """Rows of one page, the newest first, and where it goes on."""

    rows: list[Any]
    older: Cursor | None
    newer: Cursor | None


def page(
    request: Request, rows: QuerySet[Row, Any], write: Callable[[Row], Any], *, by: Sequence[str] = ("pk",)
) -> Response:
    """The part of `rows` that the query asks for, the newest first: ordered by
    the columns `by`, the last of which is unique."""
    found = cut(rows, cursor=cursor_of(request, len(by)), limit=limit_of(request), by=by)
    return answer(request, [write(row) for row in found.rows], older=found.older, newer=found.newer)


def answer(request: Request, data: list[Any], *, older: Cursor | None, newer: Cursor | None) -> Response:
    return Response({"data": data, "next": link(request, older), "previous": link(request, newer)})


def cut(rows: QuerySet[Row, Any], *, cursor: Cursor | None, limit: int, by: Sequence[str]) -> Cut:
    forward = cursor is not None and cursor.is_forward
    chosen = rows if cursor is None else rows.filter(_beyond(rows, by, cursor))
    found: list[Any] = list(chosen.order_by(*(by if forward else [f"-{name}" for name in by]))[: limit + 1])
    more, found = len(found) > limit, found[:limit]
    if forward:
        found.reverse()
    behind = None if cursor is None else _turned(cursor)
    newest = Cursor(">", _key(found[0], by)) if found else behind
    oldest = Cursor("<", _key(found[-1], by)) if found else behind
    if forward:
        return Cut(found, older=oldest, newer=newest if more else None)
    return Cut(found, older=oldest if more else None, newer=newest if cursor else None)


def limit_of(request: Request) -> int:
    return int(request.query_params.get(LIMIT.name, USUAL))


def cursor_of(request: Request, columns: int = 1) -> Cursor | None:
    """Raises Problem where it is none of ours."""
    text = request.query_params.get("cursor")
    if text is None:
        return None
    try:
        way, *key = json.loads(base64.urlsafe_b64decode(text[:LONGEST_CURSOR] + "=" * (-len(text) % 4)))
        if way not in {"<", "<=", ">", ">="} or len(key) != columns:
            raise ValueError(text)
        return Cursor(way, tuple(map(_value, key)))
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise Problem("bad_cursor") from None


def time_of(request: Request, name: str) -> datetime | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    # A plus sign that nobody escaped has come as a space.
    found = moment(text.replace(" ", "+"))
    if found is None:
        raise bad_filter(name, _("Write a time such as 2026-11-21T09:30:00Z."))
    return found


def created(request: Request, rows: QuerySet[Row, Any], *, column: str = "created_at") -> QuerySet[Row, Any]:
    """Those of the times that the query names."""
    after, before = time_of(request, CREATED_AFTER.name), time_of(request, CREATED_BEFORE.name)
    if after is not None:
        rows = rows.filter(**{f"{column}__gte": after})
    return rows if before is None else rows.filter(**{f"{column}__lt": before})


def bad_filter(name: str, detail: StrOrPromise) -> Problem:
    return Problem("bad_filter", errors=[Fault(name, detail)])


def link(request: Request, cursor: Cursor | None) -> str | None:
    """The same list, from there."""
    if cursor is None:
        return None
    query = request._request.GET.copy()
    query["cursor"] = str(cursor)
    return request._request.build_absolute_uri(f"{request.path}?{query.urlencode()}")


def _beyond(rows: QuerySet[Row, Any], by: Sequence[str], cursor: Cursor) -> Q:
    """A comparison of rows, which is (a, b) < (x, y), for databases that have none."""
    strict = {"<": "lt", ">": "gt"}[cursor.way[0]]
    last = strict if len(cursor.way) == 1 else f"{strict}e"
    key = [_typed(rows.model, name, value) for name, value in zip(by, cursor.key, strict=True)]
    wanted = Q(**{f"{by[-1]}__{last}": key[-1]})
    for name, value in reversed([*zip(by[:-1], key[:-1], strict=True)]):
        wanted = Q(**{f"{name}__{strict}": value}) | Q(wanted, **{name: value})
    # Said once more on the first column alone, by which an index finds it.
    return Q(**{f"{by[0]}__{strict}e": key[0]}) & wanted if len(by) > 1 else wanted


def _typed(model: type[Model], name: str, value: Any) -> Any:
    """As the column has it; an integer is no UUID, nor a text."""
    column: Any = model._meta.pk if name == "pk" else model._meta.get_field(name)
    kinds = {"UUIDField": uuid.UUID, "DateTimeField": datetime}
    wanted = kinds.get(column.get_internal_type(), int)
    if not isinstance(value, wanted):
        raise Problem("bad_cursor")
    return value


def _turned(cursor: Cursor) -> Cursor:
    """The way back, with the row at which it began."""
    return Cursor(">=" if cursor.way[0] == "<" else "<=", cursor.key)


def _key(row: Any, by: Sequence[str]) -> tuple[Any, ...]:
    return tuple(getattr(row, name) for name in by)


def _text(value: Any) -> Any:
    """Times and UUIDs as texts that begin with what they are."""
    if isinstance(value, datetime):
        return f"t{value.isoformat()}"
    return f"u{value.hex}" if isinstance(value, uuid.UUID) else value


def _value(text: Any) -> Any:
    if isinstance(text, int) and not isinstance(text, bool) and abs(text) <= HIGHEST:
        return text
    if not isinstance(text, str):
        raise ValueError(text)
    if text.startswith("t"):
        found = moment(text[1:])
        if found is None:
            raise ValueError(text)
        return found
    return uuid.UUID(hex=text[1:]) if text.startswith("u") else _unknown(text)


def _unknown(text: str) -> Any:
    raise ValueError(text)

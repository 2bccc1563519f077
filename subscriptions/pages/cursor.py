"""Long lists, the newest first, a page at a time: by number, never by OFFSET."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from django.db.models import Model

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import QueryDict

Row = TypeVar("Row", bound=Model)

NUMBER = re.compile(r"[0-9]{1,18}")  # each fits into a bigint


@dataclass(frozen=True, slots=True)
class Slice(Generic[Row]):
    rows: list[Row]
    older: int | None  # ?before=
    newer: int | None  # ?after=


def cut(rows: QuerySet[Row, Any], query: QueryDict, *, size: int) -> Slice[Row]:
    """What `?before=` or `?after=` a row's number asks for; the newest, without."""
    before, after = _number(query.get("before", "")), _number(query.get("after", ""))
    if after is not None:
        found = list(rows.filter(pk__gt=after).order_by("pk")[: size + 1])
        more, found = len(found) > size, found[:size][::-1]
        if found:
            return Slice(found, older=found[-1].pk, newer=found[0].pk if more else None)
    found = list((rows.filter(pk__lt=before) if before is not None else rows).order_by("-pk")[: size + 1])
    more, found = len(found) > size, found[:size]
    return Slice(
        found, older=found[-1].pk if more else None, newer=found[0].pk if found and before is not None else None
    )


def _number(text: str) -> int | None:
    return int(text) if NUMBER.fullmatch(text) else None

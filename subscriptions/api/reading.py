"""Reading a body: JSON as the RFC has it, and nothing that another reader
would take for something else."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import IO, TYPE_CHECKING, Any, NoReturn

import orjson
from django.utils.translation import gettext as _
from rest_framework.parsers import BaseParser

from subscriptions.api.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

LIMIT = 1024 * 1024  # bytes
CHUNK = 64 * 1024
DEEPEST = 64
MOST_COMMAS = 1_000_000
LOWEST, HIGHEST = -(2**63), 2**64 - 1
DIGITS = len(str(LOWEST))
CHARSETS = {"", "utf-8", "utf8"}


class StrictJSONParser(BaseParser):
    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        context = parser_context or {}
        request = context["request"]
        _check_encoding(request)
        body = _body(stream, getattr(context.get("view"), "body_limit", LIMIT))
        if len(body) < _length(request):
            raise Problem("malformed_json", _("The body ends before its length."))
        return parse(body)


def check_length(request: Any) -> None:
    """Django takes a body in pieces, whose length nobody says, for none."""
    if "HTTP_TRANSFER_ENCODING" in request.META and not request.META.get("CONTENT_LENGTH"):
        raise Problem("length_required")


def _length(request: Any) -> int:
    """As a header says it."""
    text = str(request.META.get("CONTENT_LENGTH") or "")
    return int(text) if text.isdecimal() and len(text) <= DIGITS else 0


def parse(body: bytes) -> Any:
    """Raises Problem."""
    # A value takes 50 bytes and more of memory, however few it takes of the body.
    if body.count(b",") > MOST_COMMAS:
        raise Problem("too_large", _("The body holds more than %(most)s commas.") % {"most": MOST_COMMAS})
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if error.msg.startswith("depth"):
            raise Problem("too_deep") from None
        where = {"what": error.msg, "line": error.lineno, "column": error.colno}
        raise Problem("malformed_json", _("Line %(line)s, column %(column)s: %(what)s.") % where) from None
    _check_depth(value)
    del value  # or memory holds it twice
    # The fast reader keeps the last of two keys, and makes floats of large numbers.
    value = json.loads(body, object_pairs_hook=_once, parse_int=_int, parse_float=_float, parse_constant=_constant)
    if b"\\u0000" in body:
        _check_texts(value)
    return value


def _body(stream: IO[Any], limit: int) -> bytes:
    """In pieces: what a header says of its length is not believed."""
    chunks: list[bytes] = []
    size = 0
    while chunk := stream.read(min(CHUNK, limit + 1 - size)):
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            told = _("The body is longer than %(limit)s bytes.")
            raise Problem("too_large", told % {"limit": limit})
    return b"".join(chunks)


def _check_encoding(request: Any) -> None:
    charset = request.content_type.partition("charset=")[2].split(";")[0].strip(' "').lower()
    if charset not in CHARSETS or request.META.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity":
        raise Problem("unsupported_media_type")


def _check_depth(value: Any) -> None:
    level = [value] if isinstance(value, dict | list) else []
    for _depth in range(DEEPEST):
        if not level:
            return
        level = [each for parent in level for each in _inside(parent) if isinstance(each, dict | list)]
    if level:
        raise Problem("too_deep")


def _check_texts(value: Any) -> None:
    """Names of fields, too."""
    if isinstance(value, str) and "\0" in value:
        raise Problem("bad_text")
    if isinstance(value, dict | list):
        for each in value:
            _check_texts(each)
    if isinstance(value, dict):
        for each in value.values():
            _check_texts(each)


def _inside(parent: dict[str, Any] | list[Any]) -> Any:
    return parent.values() if isinstance(parent, dict) else parent


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        times = Counter(name for name, _value in pairs)
        [(twice, _times)] = times.most_common(1)
        raise Problem("duplicate_key", _("%(name)s stands twice.") % {"name": twice[:100]})
    return found


def _int(text: str) -> int:
    if len(text) > DIGITS or not LOWEST <= int(text) <= HIGHEST:
        raise Problem("bad_number")
    return int(text)


def _float(text: str) -> float:
    found = float(text)
    if math.isinf(found):
        raise Problem("bad_number")
    return found


def _constant(text: str) -> NoReturn:
    raise Problem("malformed_json", text)

"""Bytes that strangers sent, as text that a person can read."""

from __future__ import annotations

import json
import re

from django.utils import formats
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

KIB = 1024
SECOND = 1_000  # milliseconds
# Of lists and objects in each other: what is deeper would grow by its indents
# a thousandfold, for a receiver who answers so on purpose.
DEEPEST = 20


def size(octets: int) -> str:
    if octets >= 10 * KIB:
        return _("%(number)s KiB") % {"number": formats.number_format(octets // KIB, force_grouping=True)}
    told = ngettext("%(number)s byte", "%(number)s bytes", octets)
    return told % {"number": formats.number_format(octets, force_grouping=True)}


def duration(milliseconds: int) -> str:
    if milliseconds < SECOND:
        return _("%(n)s ms") % {"n": formats.number_format(milliseconds)}
    seconds = round(milliseconds / SECOND, 1)
    return _("%(n)s s") % {"n": formats.number_format(seconds, 0 if seconds == int(seconds) else 1)}


def body_text(data: bytes | memoryview) -> str:
    """Any bytes as text a person can read: what is no UTF-8, or cannot be
    seen, such as NUL and the marks that turn the direction of writing, as
    backslash escapes."""
    return _visible(bytes(data).decode("utf-8", "backslashreplace"))


def header_text(data: bytes | memoryview) -> str:
    """A header block; every byte is a character of latin-1."""
    return _visible(bytes(data).decode("latin-1").replace("\r\n", "\n").rstrip("\n"))


def pretty(data: bytes | memoryview) -> str:
    """JSON indented, for reading; anything else, and what is too deep, as `body_text`."""
    try:
        value = json.loads(bytes(data))
    except (ValueError, RecursionError):
        return body_text(data)
    return body_text(data) if _is_deep(value) else _visible(json.dumps(value, indent=2, ensure_ascii=False))


def _is_deep(value: object, left: int = DEEPEST) -> bool:
    if not isinstance(value, dict | list):
        return False
    inside = value.values() if isinstance(value, dict) else value
    return left == 0 or any(_is_deep(each, left - 1) for each in inside)


def _visible(text: str) -> str:
    return re.sub(r"[^\x20-\x7e\n\t]", lambda found: _escape(found[0]), text)


def _escape(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()

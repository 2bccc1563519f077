"""What people and things may be called: nothing that cannot be seen, and
nothing that turns the writing around it (pure)."""

from __future__ import annotations

import re

from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

# Controls (C0, DEL, C1), halves of characters, which PostgreSQL takes for none,
# ends of lines, and Unicode's Bidi_Control: with these a name reads as another.
UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def trouble(name: str) -> str:
    """Why it may not be called so; empty where it may."""
    return _("The name holds an invisible character; leave it out.") if UNSEEN.search(name) else ""


def check(name: str) -> None:
    """For forms. Raises ValidationError."""
    if told := trouble(name):
        raise ValidationError(told, code="unseen")

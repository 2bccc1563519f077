"""ETag, If-Match and If-None-Match (RFC 9110) of what counts its versions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from django.utils.translation import gettext as _

from subscriptions.api.problems import Problem

if TYPE_CHECKING:
    from rest_framework.request import Request

ANY = re.compile(r'(?:W/)?"([^"]*)"')
STRONG = re.compile(r'"([0-9]{1,10})"')


def tag(version: int) -> str:
    return f'"{version}"'


def seen(request: Request) -> int | None:
    """The version that If-Match names, for a deed to compare under its lock;
    None where any will do. Raises Problem where it can be none of ours."""
    wanted = request.headers.get("If-Match", "").strip()
    if wanted in {"", "*"}:
        return None
    # A weak one never matches here, as the RFC says.
    found = STRONG.fullmatch(wanted)
    if found is None:
        raise Problem("stale", _("If-Match holds no ETag of this. Send one as it was given."))
    return int(found[1])


def is_known(request: Request, version: int) -> bool:
    """Whether If-None-Match names it: 304 is enough."""
    wanted = request.headers.get("If-None-Match", "").strip()
    return wanted == "*" or str(version) in ANY.findall(wanted)

"""ETag, If-Match and If-None-Match (RFC 9110) of what counts its versions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from django.utils.translation import gettext as _

from subscriptions.api.problems import Problem

if TYPE_CHECKING:
    from rest_framework.request import Request

TAG = re.compile(r'(?:W/)?"([^"]*)"')


def tag(version: int) -> str:
    return f'"{version}"'


def check_match(request: Request, version: int) -> None:
    """Raises Problem where If-Match names other versions than this one."""
    wanted = request.headers.get("If-Match", "").strip()
    if not wanted or wanted == "*":
        return
    # A weak one never matches here, as the RFC says.
    if tag(version) not in [part.strip() for part in wanted.split(",")]:
        raise Problem(
            "stale", _("It is at version %(version)s now.") % {"version": version}, headers={"ETag": tag(version)}
        )


def is_known(request: Request, version: int) -> bool:
    """Whether If-None-Match names it: 304 is enough."""
    wanted = request.headers.get("If-None-Match", "").strip()
    return wanted == "*" or str(version) in TAG.findall(wanted)

"""The reader's time zone: a cookie that the browser's script, or the reader, has set."""

from __future__ import annotations

import zoneinfo
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import unquote

from django.utils import timezone

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponse

COOKIE = "signalpost_zone"


@lru_cache(maxsize=1)
def known() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


class ReadersZone:
    """Middleware. An unknown zone is none, and none is the project's own."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        name = unquote(request.COOKIES.get(COOKIE, ""))
        if name not in known():
            return self.get_response(request)
        with timezone.override(zoneinfo.ZoneInfo(name)):
            return self.get_response(request)

"""How often a key may ask: counted per key and window of time, in Django's
cache, for all web processes together."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.core.cache import cache

from subscriptions.api.problems import Problem
from subscriptions.conf import RATE, conf

if TYPE_CHECKING:
    from subscriptions.models import ApiKey

logger = logging.getLogger(__name__)

SECONDS = {"s": 1, "m": 60, "h": 3600}

_away = False  # whether it was said that the cache is


@dataclass(frozen=True, slots=True)
class Room:
    """How many requests are left until the window ends, in `seconds`."""

    limit: int
    used: int
    seconds: int

    def headers(self) -> dict[str, str]:
        return {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(max(0, self.limit - self.used)),
            "RateLimit-Reset": str(self.seconds),
        }


def rate() -> tuple[int, int] | None:
    """Requests and seconds; None for no limit. A system check says where it cannot be read."""
    found = RATE.fullmatch(conf.api_rate or "")
    return (int(found[1]), SECONDS[found[2][0]]) if found else None


def count(key: ApiKey) -> Room | None:
    """One request more; None where nothing is limited, or nothing can be counted."""
    allowed = rate()
    if allowed is None:
        return None
    limit, period = allowed
    window, into = divmod(time.time(), period)
    used = _counted(f"signalpost:api:{key.pk}:{period}:{int(window)}", period)
    return None if used is None else Room(limit, used, max(1, round(period - into)))


def check(room: Room | None) -> None:
    if room is not None and room.used > room.limit:
        raise Problem("throttled", headers={"Retry-After": str(room.seconds)})


def _counted(name: str, period: int) -> int | None:
    """Without a cache nobody is kept out, and the log has one line about it."""
    global _away  # noqa: PLW0603 - of this process
    try:
        used = _plus_one(name, 2 * period)
    except Exception as error:  # noqa: BLE001 - whatever a host's cache raises
        if not _away:
            logger.warning("No cache counts requests to the API: %s", type(error).__name__)
        _away = True
        return None
    _away = False
    return used


def _plus_one(name: str, seconds: int) -> int:
    try:
        return int(cache.incr(name))
    except ValueError:  # the first one
        return 1 if cache.add(name, 1, seconds) else int(cache.incr(name))

"""How often a key may ask: counted per key and window of time, in Django's
cache, for all web processes together."""

from __future__ import annotations

import logging
import os
import threading
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

# While more than half is left, a process counts by itself, and tells the cache
# this often: asking it each time takes longer than reading what was asked.
EVERY = 0.25  # seconds
MOST_WINDOWS = 10_000

_away = False  # whether it was said that the cache is
_windows: dict[int, _Window] = {}  # by key
_counting = threading.Lock()


@dataclass(slots=True)
class _Window:
    """What a key has asked: of all processes when the cache was told, of this one since then."""

    name: str
    used: int = 0
    own: int = 0
    tell_at: float = 0.0  # time.monotonic()


def forget() -> None:
    """For tests, and after a fork."""
    global _counting  # noqa: PLW0603
    _windows.clear()
    _counting = threading.Lock()


os.register_at_fork(after_in_child=forget)


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
    used = _used(key.pk, f"signalpost:api:{key.pk}:{period}:{int(window)}", limit=limit, period=period)
    return None if used is None else Room(limit, used, max(1, round(period - into)))


def check(room: Room | None) -> None:
    if room is not None and room.used > room.limit:
        raise Problem("throttled", headers={"Retry-After": str(room.seconds)})


def _used(key: int, name: str, *, limit: int, period: int) -> int | None:
    with _counting:
        window = _window(key, name)
        window.own += 1
        if 2 * (window.used + window.own) < limit and time.monotonic() < window.tell_at:
            return window.used + window.own
        own, window.own = window.own, 0
    used = _counted(name, own, period)
    if used is not None:
        window.used, window.tell_at = max(window.used, used), time.monotonic() + EVERY
    return used


def _window(key: int, name: str) -> _Window:
    found = _windows.get(key)
    if found is None or found.name != name:
        if len(_windows) >= MOST_WINDOWS:
            _windows.clear()
        found = _windows[key] = _Window(name)
    return found


def _counted(name: str, own: int, period: int) -> int | None:
    """Without a cache nobody is kept out, and the log has one line about it."""
    global _away  # noqa: PLW0603 - of this process
    try:
        used = _plus(own, name, 2 * period)
    except Exception as error:  # noqa: BLE001 - whatever a host's cache raises
        if not _away:
            logger.warning("No cache counts requests to the API: %s", type(error).__name__)
        _away = True
        return None
    _away = False
    return used


def _plus(own: int, name: str, seconds: int) -> int:
    try:
        return int(cache.incr(name, own))
    except ValueError:  # the first one
        return own if cache.add(name, own, seconds) else int(cache.incr(name, own))

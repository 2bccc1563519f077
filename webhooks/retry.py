"""What comes after an attempt: data in, decision out. No clock, no database, no queue."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

# Of these a receiver says "too much, not now": 60 seconds at least, whatever
# the schedule says.
BUSY = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
BUSY_WAIT = 60.0

_DELTA_SECONDS = re.compile(r"[0-9]+")


@dataclass(frozen=True, slots=True)
class Policy:
    """`schedule` is the seconds between an attempt and the next; `jitter` the
    share of a wait by which it may vary, either way; `retry_after_max` the
    longest Retry-After, in seconds, that is honoured."""

    schedule: tuple[float, ...]
    jitter: float
    retry_after_max: float


class Result(Protocol):
    """What `decide` wants to know of an attempt."""

    @property
    def status(self) -> int | None: ...
    @property
    def reason(self) -> str: ...
    @property
    def retry_after(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class RetryAfter:
    seconds: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """`turn_off`: nothing more is to be sent to this subscription at all."""

    turn_off: bool
    why: str


def delivered(status: int | None) -> bool:
    """Standard Webhooks, "Success": any 2xx, and nothing else."""
    return status is not None and HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES


def decide(outcome: Result, step: int, *, policy: Policy, random: Callable[[], float]) -> RetryAfter | GiveUp | None:
    """None if `outcome` is a delivery, else what to do after attempt number `step` (from 0).

    Every failure is tried again, also a 4xx and a redirect (people repair
    their receivers) and a request that could not be built (operators repair
    their keys), except 410, by which the receiver says that it is gone.
    `random` gives numbers from 0 to 1.
    """
    if not outcome.reason and delivered(outcome.status):
        return None
    if outcome.status == HTTPStatus.GONE:
        return GiveUp(turn_off=True, why="The receiver answered 410 Gone.")
    if step >= len(policy.schedule):
        return GiveUp(turn_off=False, why="The schedule has no more attempts.")
    return RetryAfter(_wait(outcome, policy.schedule[step], policy=policy, random=random))


def _wait(outcome: Result, scheduled: float, *, policy: Policy, random: Callable[[], float]) -> float:
    """Seconds. Retry-After replaces the schedule's wait where it is the longer
    of the two: a receiver may ask for more time, not for more traffic. It has
    no jitter, being the receiver's own word; the cap on the requests in
    flight to one subscription keeps what waited for it from falling on it at once.
    """
    spread = 1 + policy.jitter * (2 * random() - 1)
    floor = BUSY_WAIT if outcome.status in BUSY else 0.0
    asked = min(outcome.retry_after or 0.0, policy.retry_after_max)
    return max(scheduled * spread, floor, asked)


def parse_retry_after(value: str, *, now: datetime) -> float | None:
    """Seconds from `now`, not below 0, or None where `value` is neither of the
    two forms of RFC 9110, 10.2.3: whole seconds, or a date in any of the
    three formats of 5.6.7."""
    value = value.strip()
    if _DELTA_SECONDS.fullmatch(value):
        return float(value)  # of any length: past the largest number it is infinite
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if date.tzinfo is None:  # asctime() names no zone; it is UTC by definition
        date = date.replace(tzinfo=UTC)
    return max((date - now).total_seconds(), 0.0)

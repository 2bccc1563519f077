"""What the commands are told, as values: spans of time, moments, ids."""

from __future__ import annotations

import re
import uuid
from datetime import datetime, timedelta

from django.core.management.base import CommandError
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
LONGEST = timedelta(days=36_500)


def duration(text: str) -> timedelta:
    """Such as 90m, 12h, 30d; CommandError for anything else, nothing and less."""
    found = re.fullmatch(r"([0-9]{1,6})([smhdw])", text.strip())
    if found is None:
        raise CommandError(f"{text!r} is no span of time. Write a number and s, m, h, d or w, such as 90m, 12h or 30d.")
    span = timedelta(**{UNITS[found[2]]: int(found[1])})
    if not timedelta(0) < span <= LONGEST:
        raise CommandError(f"{text!r} is no span of time from 1s to 100 years.")
    return span


def moment(text: str) -> datetime:
    """So long ago (2h), or then (2026-11-21, 2026-11-21T09:30, with or without
    a zone); CommandError for anything else and for the future."""
    if re.fullmatch(r"\s*[0-9]+[a-z]\s*", text):
        return timezone.now() - duration(text)
    try:
        then = parse_datetime(text)
        if then is None and (day := parse_date(text)) is not None:
            then = datetime(day.year, day.month, day.day)  # noqa: DTZ001 -- made aware below
    except ValueError as error:
        raise CommandError(f"{text!r} is no moment: {error}.") from error
    if then is None:
        raise CommandError(f"{text!r} is no moment. Write 2h, 2026-11-21 or 2026-11-21T09:30.")
    if timezone.is_naive(then):
        then = timezone.make_aware(then)
    if then > timezone.now():
        raise CommandError(f"{text} is yet to come.")
    return then


def row_id(text: str | int) -> int:
    """A row's number, as far as a column of numbers holds it."""
    if not re.fullmatch(r"[0-9]{1,19}", str(text)) or int(text) >= 2**63:
        raise CommandError(f"{text!r} is no number of a row.")
    return int(text)


def event_id(text: str | uuid.UUID) -> uuid.UUID:
    """An event's UUID, or the webhook-id that a receiver knows it by."""
    try:
        return uuid.UUID(str(text).removeprefix("evt_"))
    except ValueError as error:
        raise CommandError(f"{text!r} is no event's id. Write a UUID, or evt_ and 32 hex digits.") from error


def counted(count: int, noun: str) -> str:
    """`1 delivery`, `2 deliveries`, `1,000 events`."""
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun[:-1]}ies" if noun[-2:] in {"ry", "ty"} else f"{count:,} {noun}s"

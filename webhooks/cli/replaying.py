"""`signalpost replay`: deliveries by their numbers, or all that fit."""

from __future__ import annotations

import re
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from webhooks.cli.showing import BAD, GOOD, rfc3339
from webhooks.cli.site import RefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from webhooks.cli.showing import Out
    from webhooks.cli.site import Site

FAILED = "failed"
EVERY = 1.0  # seconds between two looks at the progress
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
CLIENT_ERRORS = range(400, 500)


@dataclass(frozen=True, slots=True)
class Wish:
    """What failed, or what the filters match."""

    subscription: int | None = None
    since: datetime | None = None
    topic: str | None = None
    status: str | None = None

    def __bool__(self) -> bool:
        return any(value is not None for value in (self.subscription, self.since, self.topic, self.status))

    def body(self) -> dict[str, Any]:
        """As the API has it. What failed counts by when it was given up, the rest by when it was made."""
        since = None if self.since is None else rfc3339(self.since)
        if self.topic is None and self.status in {None, FAILED}:
            found: dict[str, Any] = {"kind": FAILED, "subscription": self.subscription, "since": since}
        else:
            wanted = {"status": self.status or FAILED, "topic": self.topic, "subscription": self.subscription}
            filters = {**wanted, "created_after": since}
            found = {"kind": "filtered", "filters": {name: each for name, each in filters.items() if each is not None}}
        return {name: value for name, value in found.items() if value is not None}


def replay_some(site: Site, out: Out, numbers: Sequence[int]) -> int:
    """Each by itself: one that is refused does not keep the others."""
    failed = False
    for number in numbers:
        try:
            row = site.post(f"deliveries/{number}/replay/")
        except RefusedError as error:
            if error.status not in CLIENT_ERRORS or error.code in {"unauthorized", "missing_scope"}:
                raise
            failed = True
            out.line(f"delivery {number}: {error}", colour=BAD, id=number, error=str(error), code=error.code)
        else:
            out.line(f"delivery {number} of {row['topic']} will be sent again.", colour=GOOD, **row)
    return int(failed)


def replay_all(site: Site, out: Out, wish: Wish, *, dry: bool, yes: bool, wait: bool) -> int:
    found = site.post("replays/count/", wish.body())
    said = f"{'' if found['exact'] else 'at least '}{counted(found['number'])}"
    if dry or not found["number"]:
        out.line(f"{said} found.", **found)
        return 0
    if not yes and sys.stdin.isatty() and not _agreed(said):
        out.say("Nothing was replayed.")
        return 1
    row = site.post("replays/", wish.body())
    out.line(f"Replay {row['id']} has begun: {said}.", **row)
    return _watch(site, out, row["id"]) if wait else 0


def moment(text: str, *, now: datetime | None = None) -> datetime:
    """So long ago (2h), or then (2026-11-21, 2026-11-21T09:30; without a zone
    it is this machine's). Raises ValueError."""
    at = now or datetime.now(UTC)
    found = re.fullmatch(r"([0-9]{1,6})([smhdw])", text.strip())
    if found is not None:
        return at - timedelta(**{UNITS[found[2]]: int(found[1])})
    when = datetime.fromisoformat(text.strip()).astimezone(UTC)
    if when > at:
        raise ValueError(f"{text} is yet to come")
    return when


def counted(number: int) -> str:
    return f"{number:,} {'delivery' if number == 1 else 'deliveries'}"


def _agreed(said: str) -> bool:
    return input(f"Send {said} again? [y/N] ").strip().lower() in {"y", "yes"}


def _watch(site: Site, out: Out, number: int) -> int:
    """Until none is open; 1 where any failed."""
    before = None
    while True:
        row = site.patiently(lambda: site.get(f"replays/{number}/"), told=out.warn, back=lambda: None)
        progress = row["progress"]
        if progress != before:
            parts = ", ".join(f"{progress[name]:,} {name}" for name in ("delivered", "failed", "open"))
            out.line(f"Replay {number}: {parts}", **row)
        if not progress["going_on"]:
            return int(progress["failed"] > 0)
        before = progress
        time.sleep(EVERY)

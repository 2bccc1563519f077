"""`signalpost tail`: deliveries, as they are made and as they end."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from webhooks.cli.showing import COLOURS, clock, now
from webhooks.management.stopping import stopped_by_signals

if TYPE_CHECKING:
    from webhooks.cli.showing import Out
    from webhooks.cli.site import Site

EVERY = 1.0  # seconds between two looks
MOST = 1_000  # deliveries that are watched at once, the newest
PAGE = 100
OPEN = ("pending", "retrying")


def tail(site: Site, out: Out, *, status: str | None, topic: str | None, subscription: int | None) -> int:
    watched = Watched(site, {"topic": topic, "subscription": subscription})
    with stopped_by_signals():
        try:
            site.patiently(watched.begin, told=out.warn, back=lambda: None)
            out.say("Following deliveries that are made from now on (Ctrl-C stops)")
            while True:
                for row in site.patiently(watched.news, told=out.warn, back=lambda: out.say("The site answers again.")):
                    if status in {None, row["status"]}:
                        _print(out, row)
                time.sleep(EVERY)
        except KeyboardInterrupt:
            return 0


@dataclass
class Watched:
    """What has been made since `begin`, and what is known of it."""

    site: Site
    filters: dict[str, Any]
    newest: int = 0
    since: str | None = None
    known: dict[int, tuple[str, int]] = field(default_factory=dict)

    def begin(self) -> None:
        """The site's clock says from when on, and not this machine's."""
        for row in self.site.get("deliveries/", limit=1)["data"]:
            self.newest, self.since = row["id"], row["created_at"]

    def news(self) -> list[dict[str, Any]]:
        """What is not as it was, the oldest first."""
        found = self.site.all("deliveries/", limit=PAGE, created_after=self.since, **self.filters)
        rows = [row for row in islice(found, MOST) if row["id"] > self.newest][::-1]
        new = [row for row in rows if self._is_new(row)]
        self._forget(rows)
        return new

    def _is_new(self, row: dict[str, Any]) -> bool:
        state = (row["status"], row["attempt_count"])
        if row["in_flight"] or self.known.get(row["id"]) == state:
            return False
        self.known[row["id"]] = state
        return True

    def _forget(self, rows: list[dict[str, Any]]) -> None:
        """What came to its end before all that is open need not be asked for again."""
        first = next((place for place, row in enumerate(rows) if row["status"] in OPEN), len(rows))
        for row in rows[:first]:
            self.newest, self.since = row["id"], row["created_at"]
            self.known.pop(row["id"], None)


def _print(out: Out, row: dict[str, Any]) -> None:
    text = f"{clock()} {row['status']:<9} {row['topic']} {row['event']} delivery {row['id']} of {row['subscription']}"
    if row["attempt_count"]:
        text += f", attempt {row['attempt_count']}"
    if row["status"] == "retrying":
        text += f", the next at {clock(row['next_attempt_at'])}"
    out.line(text, colour=COLOURS.get(row["status"], ""), time=now(), **row)

"""The subscription that a listener has for as long as it runs.

A listener that was killed cannot delete its own. So the name says until when
it is wanted, which a listener that lives on puts off, and each new listener
deletes those whose time has passed.
"""

from __future__ import annotations

import getpass
import re
import socket
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from webhooks.cli.site import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from webhooks.cli.site import Site

LIFE = timedelta(hours=12)
BEGINNING = "signalpost listen"
NAME = re.compile(rf"{BEGINNING} .*until (\d{{4}}-\d\d-\d\dT\d\d:\d\d)Z")
FEED = "feed:"
GONE = 404


class Temporary:
    def __init__(self, site: Site, topics: Sequence[str]) -> None:
        self.site, self.topics = site, list(topics)
        self.id: int | None = None
        self.secrets: list[str] = []
        self.renew_at = datetime.max.replace(tzinfo=UTC)

    @property
    def path(self) -> str:
        return f"subscriptions/{self.id}/"

    def open(self) -> None:
        body = {"name": self._name(), "url": FEED, "topics": [{"name": topic} for topic in self.topics]}
        made = self.site.post("subscriptions/", body)
        self.id, self.secrets = made["id"], [made["secret"]]

    def renew(self) -> None:
        """Once half of its time is over, put its end off."""
        if datetime.now(UTC) >= self.renew_at:
            self.site.patch(self.path, {"name": self._name()})

    def close(self) -> None:
        if self.id is not None:
            try:
                self.site.delete(self.path)
            except RefusedError as error:
                if error.status != GONE:
                    raise
            self.id = None

    def _name(self) -> str:
        now = datetime.now(UTC)
        self.renew_at = now + LIFE / 2
        return f"{BEGINNING} by {_who()}, until {now + LIFE:%Y-%m-%dT%H:%M}Z"


def stale(site: Site) -> Iterator[dict[str, Any]]:
    """Those that nobody put off."""
    now = datetime.now(UTC)
    for row in site.all("subscriptions/", q=BEGINNING):
        found = NAME.fullmatch(row["name"])
        if found is not None and datetime.fromisoformat(f"{found[1]}+00:00") < now:
            yield row


def clean_up(site: Site) -> int:
    """Delete the stale ones; returns how many. What another listener has just deleted is gone."""
    deleted = 0
    for row in list(stale(site)):
        try:
            site.delete(f"subscriptions/{row['id']}/")
        except RefusedError as error:
            if error.status != GONE:
                raise
        else:
            deleted += 1
    return deleted


def _who() -> str:
    """Of letters that a name may hold."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no name for this number, as in a container
        user = "somebody"
    return re.sub(r"[^\w.@-]", "-", f"{user}@{socket.gethostname()}", flags=re.ASCII)[:100]

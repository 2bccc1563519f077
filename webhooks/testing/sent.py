"""What a test would have sent.

    with capture() as sent:
        order.save()
    assert sent.topics == ["shop.order.updated"]

Everything is as in production, down to the rows of the events, but for two
things: each tenant listens to everything, and nobody rings at Redis. What is
rolled back is gone from the database, and so from here.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from django.db import models
from django.test.testcases import DatabaseOperationForbidden  # type: ignore[attr-defined]  # left out of the stubs

from subscriptions.models import Subscription, Tenant, home
from webhooks import deliveries, matching, tasks
from webhooks.capture import skipped
from webhooks.models import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from webhooks.models import Attempt

SHOWN = 160  # characters of what a body says, in a failure
RECEIVER = "https://receiver.example/"


@dataclass(frozen=True, slots=True)
class SentEvent:
    """One event, as every receiver would get it. `tenant` is the slug; None: every tenant."""

    id: str  # the webhook-id
    topic: str
    tenant: str | None
    timestamp: datetime
    data: dict[str, Any]
    body: bytes

    @classmethod
    def of(cls, row: Event) -> SentEvent:
        body = bytes(row.body)
        content = json.loads(body)
        return cls(
            id=row.webhook_id,
            topic=content["type"],
            tenant=content["tenant"],
            timestamp=datetime.fromisoformat(content["timestamp"]),
            data=content["data"],
            body=body,
        )

    @property
    def object(self) -> Any:
        """The row, as the body shows it."""
        return self.data.get("object")

    @property
    def changes(self) -> dict[str, dict[str, Any]]:
        """Of an update: `{field: {"from": …, "to": …}}`."""
        return dict(self.data.get("changes") or {})

    def __str__(self) -> str:
        said = json.dumps(self.changes or self.object or self.data, ensure_ascii=False)
        cut = f"{said[:SHOWN]}…" if len(said) > SHOWN else said
        return f"{self.topic} of {self.tenant or 'every tenant'}: {cut}"


class Topics(list[str]):
    """Their names, in order, which know why they are not what was expected."""

    def __init__(self, events: Iterable[SentEvent], notes: Iterable[str]) -> None:
        self.events, self.notes = list(events), list(notes)
        super().__init__(event.topic for event in self.events)

    def unlike(self, expected: list[Any]) -> list[str]:
        had, wanted = Counter(self), Counter(expected)
        lines = [f"{len(self)} sent, {len(expected)} expected"]
        lines += [f"not sent: {_times(topic, number)}" for topic, number in (wanted - had).items()]
        lines += [f"not expected: {_times(topic, number)}" for topic, number in (had - wanted).items()]
        if had == wanted:
            lines += ["the same topics, in another order", f"expected: {', '.join(map(str, expected))}"]
        lines += [f"{number}. {event}" for number, event in enumerate(self.events, start=1)]
        return [*lines, *self.notes]


class Events(list[SentEvent]):
    """Events in the order in which they happened."""

    def __init__(self, events: Iterable[SentEvent], notes: Iterable[str] = ()) -> None:
        super().__init__(events)
        self.notes = list(notes)

    @property
    def topics(self) -> Topics:
        return Topics(self, self.notes)

    def of(self, *topics: str, tenant: Tenant | str | None = None) -> Events:
        """Those of any of `topics`, which may be patterns such as shop.order.*
        (none: of all), and of `tenant` (its slug); None: whoever's they are."""
        slug = tenant.slug if isinstance(tenant, Tenant) else tenant
        return Events(
            (
                event
                for event in self
                if (not topics or set(topics).intersection(matching.candidates(event.topic)))
                and (slug is None or event.tenant == slug)
            ),
            self.notes,
        )

    def one(self, *topics: str, tenant: Tenant | str | None = None) -> SentEvent:
        """The only one `of` them; AssertionError where there are others, or none."""
        found = self.of(*topics, tenant=tenant)
        if len(found) == 1:
            return found[0]
        what = " or ".join(topics) or "anything"
        lines = [f"{len(found)} events of {what} were sent, not 1:", *(f"  {event}" for event in self), *self.notes]
        raise AssertionError("\n".join(lines))


class Sent:
    """Asked anew at each look: every `events` and `topics` is a query."""

    def __init__(self) -> None:
        self._before = {pk for alias in aliases() for pk in _rows(alias).values_list("pk", flat=True)}
        self._skipped = Counter(skipped)

    @property
    def events(self) -> Events:
        """What would be sent, in the order in which it happened."""
        return Events((SentEvent.of(row) for row in self._all() if not row.error), self._notes())

    @property
    def topics(self) -> Topics:
        return self.events.topics

    @property
    def refused(self) -> dict[str, str]:
        """What would never be sent, by its id, and why: a body over the limit."""
        return {row.webhook_id: row.error for row in self._all() if row.error}

    def of(self, *topics: str, tenant: Tenant | str | None = None) -> Events:
        return self.events.of(*topics, tenant=tenant)

    def one(self, *topics: str, tenant: Tenant | str | None = None) -> SentEvent:
        return self.events.one(*topics, tenant=tenant)

    def clear(self) -> None:
        """Forget what was sent until now, such as while the test was set up."""
        self._before.update(row.pk for row in self._all())
        self._skipped = Counter(skipped)

    def subscribe(self, tenant: Tenant, *topics: str, url: str = RECEIVER, changed: Iterable[str] = ()) -> Subscription:
        """A subscription with a secret, for `deliver`. Only what happens from
        now on is for it, and that it was made is told to nobody."""
        with patch.multiple(matching, wanted=_is_unheard, wanted_by=_is_unheard):
            subscription = Subscription.objects.create(tenant=tenant, url=url)
            subscription.listen_to(*(topics or ("*",)), changed=changed)
            subscription.rotate_secret()
        return subscription

    def deliver(self, to: Any = None) -> list[Attempt]:
        """Deliver what is due to the subscriptions in the test's database, now:
        match, claim, sign, send, record. `to` is a respx router, an httpx
        transport, or a function from an httpx.Request to an httpx.Response;
        without it each receiver answers 200. Returns the attempts."""
        from webhooks.testing.delivering import deliver

        return deliver(to, using=aliases())

    def check(
        self,
        what: models.Model | Callable[[], models.Model],
        *,
        change: Mapping[str, Any] | None = None,
        links: Mapping[str, Iterable[models.Model]] | None = None,
        delete: bool = True,
    ) -> Events:
        """AssertionError unless a registered model tells what the catalog says.

        `what` is an instance, or a function that makes and saves one. It is
        made, saved with `change`, linked to and unlinked from `links` (of
        many-to-many fields) and deleted; each step must tell exactly the
        topics of its actions, in bodies that fit their schemas. All of it is
        rolled back. Returns the model's events.
        """
        from webhooks.testing.checking import check

        return check(self, what, change=change, links=links or {}, delete=delete)

    def _all(self) -> list[Event]:
        """By their ids, which are in the order in which this process made them."""
        rows = {row.pk: row for alias in aliases() for row in _rows(alias) if row.pk not in self._before}
        return [rows[pk] for pk in sorted(rows)]

    def _notes(self) -> list[str]:
        new = Counter(skipped) - self._skipped
        return [
            f"{number} of {label} had no tenant, or one that is no row of Tenant: no event"
            for label, number in new.items()
        ]


@contextmanager
def capture() -> Iterator[Sent]:
    """What is sent from here on. Needs a database that the test may use."""
    matching.forget()
    heard = patch.multiple(matching, wanted=_is_heard, wanted_by=_is_heard)
    try:
        with heard, patch.object(tasks, "ring", _without_redis):
            yield Sent()
    finally:
        # What was read in the test's transaction will never have been there.
        matching.forget()


def aliases() -> list[str]:
    """Where the test may look for events."""
    found = []
    for alias in [home(), *deliveries.away_from_home()]:
        try:
            _rows(alias).exists()
        except DatabaseOperationForbidden:
            continue
        found.append(alias)
    return found


def _rows(alias: str) -> models.QuerySet[Event]:
    return Event.objects.using(alias).order_by("pk")


def _is_heard(topic: str, tenant_id: int | None = None) -> bool:
    return bool(matching.candidates(topic))


def _is_unheard(topic: str, tenant_id: int | None = None) -> bool:
    return False


def _without_redis() -> bool:
    return False


def _times(topic: Any, number: int) -> str:
    return str(topic) if number == 1 else f"{topic}, {number} times"

"""The feed: what a subscription would be sent, for receivers that cannot be
reached and ask for it instead.

Every subscription has one: its deliveries, by their numbers, which rise as
they are made. One whose target is `feed:` is sent nowhere else: the worker
answers for it, as the inbox does, and what it wanted is in the feed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Max
from django.db.models.functions import Length, Now
from django.utils.translation import gettext as _

from subscriptions.addresses import FEED
from subscriptions.edits import Refused
from subscriptions.models import Subscription, home
from webhooks import horizon, signing
from webhooks.models import Bookmark, Delivery
from webhooks.recording import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from webhooks.deliveries import Claim

ACCEPTED = 200
THERE = b"It is in the feed."
ANSWER_HEADERS = b"content-type: text/plain; charset=utf-8\r\n"
# Of the bodies of one answer; the first is given whatever its size.
MOST_BYTES = 4 * 1024 * 1024


def takes(claim: Claim) -> bool:
    return claim.url == FEED


def answer(claims: Sequence[Claim]) -> list[tuple[Claim, Outcome]]:
    """For the receiver, which has nothing to do but to ask."""
    return [
        (
            claim,
            Outcome(
                url=claim.url,
                duration_ms=0,
                sent=False,
                status=ACCEPTED,
                response_headers=ANSWER_HEADERS,
                response_body=THERE,
            ),
        )
        for claim in claims
    ]


@dataclass(frozen=True, slots=True)
class Item:
    """A delivery with its event, and the headers that a request with it would have now."""

    delivery: Delivery
    headers: Mapping[str, str]

    @property
    def position(self) -> int:
        return self.delivery.pk

    @property
    def body(self) -> bytes:
        return bytes(self.delivery.event.body)


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a feed; `position` is where the next one begins, `more` says
    that there is one already."""

    items: list[Item]
    position: int
    more: bool


def read(subscription: Subscription, *, after: int | None, limit: int) -> Stretch:
    """What comes after the delivery of that number, or after what was said to
    be done. What is cancelled is left out.

    Raises Refused where it cannot be signed.
    """
    alias = home()
    begin = bookmark(subscription) if after is None else after
    # Before the rows: see there.
    end = horizon.reached(alias)
    rows = Delivery.objects.using(alias).filter(subscription=subscription, pk__gt=begin)
    if end is not None:
        rows = rows.filter(pk__lte=end)
    sized = rows.exclude(status=Delivery.Status.CANCELLED).order_by("pk").annotate(octets=Length("event__body"))
    found = list(sized.values_list("pk", "octets")[: limit + 1])
    chosen = list(_as_many_as_fit(found[:limit]))
    items = _items(subscription, chosen)
    if items:
        horizon.keep(alias)
    return Stretch(items, position=chosen[-1] if chosen else begin, more=len(found) > len(chosen))


def bookmark(subscription: Subscription) -> int:
    """What was said to be done; nothing yet is 0."""
    rows = Bookmark.objects.using(home()).filter(subscription=subscription)
    return rows.values_list("position", flat=True).first() or 0


def move(subscription: Subscription, position: int) -> None:
    """What is up to there is done; back to an earlier one, it is given again.

    Raises ValidationError for a position that the feed has not reached, and
    Refused where the subscription is gone.
    """
    alias = home()
    with transaction.atomic(using=alias):
        # So that it is not deleted meanwhile.
        held = Subscription.objects.using(alias).select_for_update(no_key=True).filter(pk=subscription.pk)
        if not held.values_list("pk", flat=True).first():
            raise Refused(_("The subscription was deleted meanwhile."))
        rows = Delivery.objects.using(alias).filter(subscription=subscription)
        reached = max(rows.aggregate(last=Max("pk"))["last"] or 0, bookmark(subscription))
        if not 0 <= position <= reached:
            told = _("The feed has reached %(reached)s. Give the position of something that was read.")
            raise ValidationError({"position": told % {"reached": reached}})
        Bookmark.objects.using(alias).update_or_create(
            subscription=subscription, defaults={"position": position, "moved_at": Now()}
        )


def _as_many_as_fit(found: Sequence[tuple[int, int]]) -> Iterator[int]:
    total = 0
    for number, (pk, octets) in enumerate(found):
        total += octets
        if number and total > MOST_BYTES:
            return
        yield pk


def _items(subscription: Subscription, chosen: Sequence[int]) -> list[Item]:
    if not chosen:
        return []
    rows = Delivery.objects.using(home()).filter(pk__in=chosen).select_related("event").order_by("pk")
    secrets = _secrets(subscription)
    now = int(time.time())
    return [Item(row, _headers(row, now, secrets)) for row in rows]


def _headers(row: Delivery, timestamp: int, secrets: Sequence[str]) -> dict[str, str]:
    signed: dict[str, Any] = signing.headers(
        webhook_id=row.event.webhook_id, timestamp=timestamp, body=bytes(row.event.body), secrets=secrets
    )
    return {"content-type": "application/json", **signed}


def _secrets(subscription: Subscription) -> list[str]:
    rows = subscription.secrets.using(home()).live().order_by("-pk")
    try:
        found = [secret.value for secret in rows]
    except ValueError:
        found = []
    if not found:
        raise Refused(_("The secret cannot be read any more. Rotate it, and give the new one to the receiver."))
    return found

"""The feed of a subscription, for receivers that ask instead of being sent to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from rest_framework import serializers
from rest_framework.response import Response

from subscriptions.api import paging
from subscriptions.api.describing import described
from subscriptions.api.fields import Moment, Strict, Whole, rfc3339
from subscriptions.api.paging import LIMIT, Parameter
from subscriptions.api.views import READ, ApiView
from webhooks import feeds
from webhooks.api import rows
from webhooks.filters import DIGITS, HIGHEST_KEY

if TYPE_CHECKING:
    from rest_framework.request import Request

    from webhooks.feeds import Item

AFTER = Parameter(
    "after",
    gettext_lazy("The position of the last one that was read; without it, the one that was said to be done."),
    {"type": "integer", "minimum": 0, "maximum": HIGHEST_KEY},
)
ITEM = {
    "position": 81,
    "id": "evt_019abc3de8f07d2f9f6a8c0b4c5d6e7f",
    "type": "shop.order.updated",
    "timestamp": "2026-11-21T09:30:00.123Z",
    "headers": {
        "content-type": "application/json",
        "webhook-id": "evt_019abc3de8f07d2f9f6a8c0b4c5d6e7f",
        "webhook-timestamp": "1795253400",
        "webhook-signature": "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
    },
    "body": '{"type":"shop.order.updated","timestamp":"2026-11-21T09:30:00.123Z","tenant":"acme","data":{}}',
}


class ItemShape(serializers.Serializer[Any]):
    position = serializers.IntegerField(help_text=gettext_lazy("Its place in this feed; the delivery's id."))
    id = serializers.CharField(help_text=gettext_lazy("The event's id: the same twice is the same event."))
    type = serializers.CharField()
    timestamp = Moment()
    headers = serializers.DictField(
        child=serializers.CharField(), help_text=gettext_lazy("Those of a request with it, signed now.")
    )
    body = serializers.CharField(help_text=gettext_lazy("The exact body of a request: JSON, as text."))


class FeedShape(serializers.Serializer[Any]):
    data = ItemShape(many=True)  # type: ignore[assignment]
    position = serializers.IntegerField(help_text=gettext_lazy("What to give as `after` next."))
    more = serializers.BooleanField(help_text=gettext_lazy("Whether there is more already."))


class PositionShape(Strict):
    position = Whole(
        min_value=0, max_value=HIGHEST_KEY, help_text=gettext_lazy("All up to there is done; an earlier one rewinds.")
    )


class SubscriptionFeed(ApiView):
    # The bookmark is the reader's own.
    scopes = {**ApiView.scopes, "POST": READ}
    parameters = {"GET": (AFTER, LIMIT)}

    @described(
        "read_feed",
        gettext_lazy("Read what a subscription is sent"),
        about=gettext_lazy(
            "In order, the oldest first, at least once: nothing is skipped, and the same `after` gives the same again."
        ),
        gives=FeedShape,
        answer={"data": [ITEM], "position": 81, "more": False},
        problems=("refused",),
    )
    def get(self, request: Request, pk: int) -> Response:
        row = rows.subscription(self.tenant, pk)
        found = feeds.read(row, after=_after(request), limit=paging.limit_of(request))
        return Response(
            {"data": [_written(item) for item in found.items], "position": found.position, "more": found.more}
        )

    @described(
        "move_feed",
        gettext_lazy("Say what of a feed is done"),
        about=gettext_lazy("A read without `after` goes on behind it."),
        takes=PositionShape,
        gives=PositionShape,
        example={"position": 81},
        answer={"position": 81},
    )
    def post(self, request: Request, pk: int) -> Response:
        position = self.read(PositionShape)["position"]
        feeds.move(rows.subscription(self.tenant, pk), position)
        return Response({"position": position})


def _after(request: Request) -> int | None:
    text = request.query_params.get(AFTER.name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= DIGITS and int(text) <= HIGHEST_KEY):
        raise paging.bad_filter(AFTER.name, _("Write the position of an earlier answer."))
    return int(text)


def _written(item: Item) -> dict[str, Any]:
    event = item.delivery.event
    return {
        "position": item.position,
        "id": event.webhook_id,
        "type": event.topic,
        "timestamp": rfc3339(event.created_at),
        "headers": dict(item.headers),
        "body": item.body.decode(errors="replace"),
    }

"""What traffic adds to the routes of subscriptions/api: a subscription goes
with its deliveries, and a topic is shown with a body."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers
from rest_framework.response import Response

from subscriptions.api import etags, subscriptions, topics
from subscriptions.api.describing import IF_MATCH, described
from subscriptions.edits import StaleError
from webhooks import removal
from webhooks.samples import sample_of

if TYPE_CHECKING:
    from rest_framework.request import Request

    from subscriptions.offers import Offer

AGAIN = "1"  # seconds


EXAMPLE = {
    **topics.TOPIC,
    "schema": {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "properties": {}},
    "sample": {"type": "shop.order.updated", "timestamp": "2026-11-21T09:30:00.123Z", "tenant": "acme", "data": {}},
}


class SubscriptionDetail(subscriptions.SubscriptionDetail):
    @described(
        "delete_subscription",
        _("Delete a subscription, with all that was ever sent to it"),
        about=_(
            "Where more was sent than one request can delete, the answer is 202 and `Retry-After`: it is off, and "
            "what is left goes when you ask again."
        ),
        status=204,
        also={202: _("There is more to delete: ask again")},
        problems=("refused", "stale"),
        headers=(IF_MATCH,),
    )
    def delete(self, request: Request, pk: int) -> Response:
        row, seen = self.found(pk), etags.seen(request)
        if seen not in {None, row.version}:
            raise StaleError(row)
        if removal.remove(row, self.actor):
            return Response(status=204)
        return Response(status=202, headers={"Retry-After": AGAIN})


class TopicDetailShape(topics.TopicDetailShape):
    sample = serializers.DictField(help_text=_("A body as it would be sent."))


class TopicDetail(topics.TopicDetail):
    @described("get_topic", _("Get a topic with its schema and a sample"), gives=TopicDetailShape, answer=EXAMPLE)
    def get(self, request: Request, name: str) -> Response:
        return super().get(request, name)

    def detail(self, offer: Offer) -> dict[str, Any]:
        return {**super().detail(offer), "sample": json.loads(sample_of(offer, self.tenant).body)}

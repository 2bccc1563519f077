"""What a tenant may hear: the catalog, with JSON Schemas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.http import Http404
from django.utils.translation import gettext_lazy as _
from rest_framework import serializers
from rest_framework.response import Response

from subscriptions import offers
from subscriptions.api.describing import described, listed, only
from subscriptions.api.views import ApiView

if TYPE_CHECKING:
    from rest_framework.request import Request

    from subscriptions.models import Tenant
    from subscriptions.offers import Offer


class TopicShape(serializers.Serializer[Any]):
    name = serializers.CharField()
    description = serializers.CharField()
    changing = serializers.ListField(
        child=serializers.CharField(), help_text=_("Fields whose change a subscription may wait for.")
    )


class TopicDetailShape(TopicShape):
    schema = serializers.DictField(help_text=_("JSON Schema 2020-12 of the body."))


TOPIC = {
    "name": "shop.order.updated",
    "description": "A row was saved; the body says what changed, from what to what.",
    "changing": ["status", "total"],
}


class TopicList(ApiView):
    @described("list_topics", _("List what can be heard"), gives=listed(TopicShape), answer=only(TOPIC))
    def get(self, request: Request) -> Response:
        """All there are, by name: they fit on one page."""
        return Response({"data": [written(offer) for offer in offered(self.tenant)], "next": None, "previous": None})


class TopicDetail(ApiView):
    def get(self, request: Request, name: str) -> Response:
        offer = offers.find(name, self.tenant)
        if offer is None:
            raise Http404
        return Response(self.detail(offer))

    def detail(self, offer: Offer) -> dict[str, Any]:
        return {**written(offer), "schema": offer.schema()}


def offered(tenant: Tenant) -> list[Offer]:
    of_models = [offer for group in offers.groups() for model in group.models for offer in model.offers]
    return sorted([*of_models, *offers.singles(tenant)], key=lambda offer: offer.topic)


def written(offer: Offer) -> dict[str, Any]:
    """`changing` are the fields that a subscription may wait for."""
    model = offers.model_of(offer.entry) if offer.entry else None
    changing = model.changing() if model and offer.action == "updated" else ()
    return {"name": offer.topic, "description": str(offer.means), "changing": list(changing)}

"""A test event to one subscription."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.utils.translation import gettext_lazy as _
from rest_framework.response import Response

from subscriptions.api.describing import described
from subscriptions.api.fields import Nothing
from subscriptions.api.views import ApiView
from webhooks import trials
from webhooks.api import rows
from webhooks.api.deliveries import DELIVERY, DeliveryShape, written

if TYPE_CHECKING:
    from rest_framework.request import Request


class SubscriptionTest(ApiView):
    @described(
        "test_subscription",
        _("Send a test event"),
        about=_("A real one of the topic `signalpost.test`, signed and retried as any other."),
        takes=Nothing,
        gives=DeliveryShape,
        status=202,
        problems=("refused",),
        answer={**DELIVERY, "topic": "signalpost.test", "status": "pending", "attempt_count": 0, "trigger": "manual"},
    )
    def post(self, request: Request, pk: int) -> Response:
        self.read(Nothing)
        sent = trials.send(rows.subscription(self.tenant, pk), self.actor)
        return Response(written(rows.delivery(self.tenant, sent.pk)), status=202)

"""How a tenant's subscriptions are, and which of them need somebody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers
from rest_framework.response import Response

from subscriptions.api.describing import described
from subscriptions.api.fields import Moment, rfc3339
from subscriptions.api.views import ApiView
from webhooks import overviews

if TYPE_CHECKING:
    from rest_framework.request import Request

    from subscriptions.models import Subscription

MOST = 100
NEEDING = {"id": 12, "name": "Billing", "state": "failing", "since": "2026-11-21T09:12:00.000Z", "reason": None}


class NeedingShape(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    name = serializers.CharField(allow_blank=True)
    state = serializers.ChoiceField(["failing", "off"])
    since = Moment()
    reason = serializers.CharField(allow_null=True, help_text=_("Why it was turned off."))


class HealthShape(serializers.Serializer[Any]):
    total = serializers.IntegerField()
    on = serializers.IntegerField()
    off = serializers.IntegerField()
    needing = NeedingShape(
        many=True,
        help_text=_("Those that fail, or were turned off by somebody else than a member; 100 at most."),
    )


class Health(ApiView):
    @described(
        "get_health",
        _("Get how many subscriptions are on, and which need somebody"),
        gives=HealthShape,
        answer={"total": 3, "on": 3, "off": 0, "needing": [NEEDING]},
    )
    def get(self, request: Request) -> Response:
        health = overviews.health(self.tenant)
        rows = overviews.needing(self.tenant)[:MOST] if health.needy else []
        needing = [_written(row) for row in rows]
        return Response({"total": health.total, "on": health.on, "off": health.off, "needing": needing})


def _written(row: Subscription) -> dict[str, Any]:
    state = overviews.state(row)
    since = row.throttle.failing_since if state == "failing" else row.disabled_at
    return {
        "id": row.pk,
        "name": row.name,
        "state": state,
        "since": rfc3339(since),
        "reason": row.disabled_reason or None,
    }

"""What was delivered and what failed, hour by hour or day by day."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers
from rest_framework.response import Response

from subscriptions.api.describing import described
from subscriptions.api.fields import Moment, rfc3339
from subscriptions.api.paging import Parameter
from subscriptions.api.views import ApiView
from subscriptions.models import home
from webhooks.api import rows
from webhooks.models import Rollup
from webhooks.rollups import PERIODS

if TYPE_CHECKING:
    from rest_framework.request import Request

    from webhooks.models import RollupQuerySet
    from webhooks.rollups import Interval

KEYS = [period.key for period in PERIODS]
PERIOD = Parameter("period", _("How far back."), {"type": "string", "enum": KEYS, "default": KEYS[0]})

COUNTS = {"attempts": 41, "delivered": 40, "at_first": 39, "failed": 0, "retried": 1, "p50_ms": 37.5, "p95_ms": 88.0}


class CountsShape(serializers.Serializer[Any]):
    attempts = serializers.IntegerField()
    delivered = serializers.IntegerField(help_text=_("Deliveries."))
    at_first = serializers.IntegerField(help_text=_("Of those, by their first attempt."))
    failed = serializers.IntegerField(help_text=_("Deliveries given up on."))
    retried = serializers.IntegerField(help_text=_("Attempts that failed and were not the last."))
    p50_ms = serializers.FloatField(allow_null=True)
    p95_ms = serializers.FloatField(allow_null=True)


class IntervalShape(CountsShape):
    starts_at = Moment()


class SeriesShape(serializers.Serializer[Any]):
    span = serializers.ChoiceField(Rollup.Span.choices, help_text=_("Of each interval, in UTC."))
    total = CountsShape()
    intervals = IntervalShape(many=True)


ANSWER = {"span": "hour", "total": COUNTS, "intervals": [{"starts_at": "2026-11-21T09:00:00.000Z", **COUNTS}]}


class Stats(ApiView):
    parameters = {"GET": (PERIOD,)}

    @described("get_stats", _("Get a tenant's numbers"), gives=SeriesShape, answer=ANSWER)
    def get(self, request: Request) -> Response:
        return _answer(request, Rollup.objects.using(home()).for_tenant(self.tenant))


class SubscriptionStats(ApiView):
    parameters = {"GET": (PERIOD,)}

    @described("get_subscription_stats", _("Get a subscription's numbers"), gives=SeriesShape, answer=ANSWER)
    def get(self, request: Request, pk: int) -> Response:
        row = rows.subscription(self.tenant, pk)
        return _answer(request, Rollup.objects.using(home()).filter(subscription=row))


def _answer(request: Request, found: RollupQuerySet) -> Response:
    key = request.query_params.get(PERIOD.name, KEYS[0])
    period = next(each for each in PERIODS if each.key == key)
    series = period.read(found)
    intervals = [{"starts_at": rfc3339(each.starts_at), **_counts(each)} for each in series.intervals]
    return Response({"span": series.span.value, "total": _counts(series.total), "intervals": intervals})


def _counts(interval: Interval) -> dict[str, Any]:
    return {name: getattr(interval, name) for name in COUNTS}

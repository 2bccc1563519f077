"""Deliveries: listed by the filters of their page, replayed, cancelled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers
from rest_framework.response import Response

from subscriptions.api import paging
from subscriptions.api.describing import described, listed, only
from subscriptions.api.fields import Moment, Nothing, rfc3339
from subscriptions.api.paging import CREATED_AFTER, CREATED_BEFORE, PAGING, TIMES, Cursor, Parameter
from subscriptions.api.problems import Fault, Problem
from subscriptions.api.views import ApiView
from webhooks import cursors, deeds
from webhooks.api import rows
from webhooks.filters import READ, DeliveryFilters
from webhooks.models import Delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rest_framework.request import Request

    from subscriptions.trail import Actor

STATUS = Parameter("status", _("Only those in this state."), {"type": "string", "enum": Delivery.Status.values})
TOPIC = Parameter("topic", _("Only those of this topic, or of this pattern, as shop.order.*"))
SUBSCRIPTION = Parameter("subscription", _("Only those of this subscription."), {"type": "integer", "minimum": 1})
EVENT = Parameter("event", _("Only those of this event."))
FILTERS = (STATUS, TOPIC, SUBSCRIPTION, EVENT, *TIMES)
# What the pages call them → what the API does.
NAMES = {name: name for name in READ} | {"since": CREATED_AFTER.name, "until": CREATED_BEFORE.name}

DELIVERY = {
    "id": 81,
    "event": "evt_019abc3de8f07d2f9f6a8c0b4c5d6e7f",
    "topic": "shop.order.updated",
    "subscription": 3,
    "status": "retrying",
    "created_at": "2026-11-21T09:30:00.130Z",
    "next_attempt_at": "2026-11-21T09:35:04.000Z",
    "ended_at": None,
    "attempt_count": 2,
    "in_flight": False,
    "trigger": "schedule",
    "triggered_by": "",
    "replay": None,
}


class DeliveryShape(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    event = serializers.CharField()
    topic = serializers.CharField()
    subscription = serializers.IntegerField()
    status = serializers.ChoiceField(Delivery.Status.choices)
    created_at = Moment()
    next_attempt_at = Moment(allow_null=True)
    ended_at = Moment(allow_null=True)
    attempt_count = serializers.IntegerField()
    in_flight = serializers.BooleanField(help_text=_("Whether it is being sent right now."))
    trigger = serializers.ChoiceField(
        Delivery.Trigger.choices, help_text=_("Whose wish the next attempt is: the schedule's, or somebody's.")
    )
    triggered_by = serializers.CharField(allow_blank=True)
    replay = serializers.IntegerField(allow_null=True, help_text=_("The last bulk replay that it was part of."))


class DeliveryList(ApiView):
    parameters = {"GET": (*PAGING, *FILTERS)}

    @described(
        "list_deliveries",
        _("List deliveries"),
        about=_(
            "With a topic or a time, at most 10,000 deliveries are looked through for one page: it may be short, or empty, and have a `next`."
        ),
        gives=listed(DeliveryShape),
        answer=only(DELIVERY),
        problems=("bad_cursor",),
    )
    def get(self, request: Request) -> Response:
        cursor, limit = paging.cursor_of(request), paging.limit_of(request)
        found = cursors.page(self.tenant, filters_of(request), size=limit, exact=True, **_bounds(cursor))
        older = None if found.older is None else Cursor("<", (found.older,))
        newer = None if found.newer is None else Cursor(">", (found.newer,))
        return paging.answer(request, [written(row) for row in found.rows], older=older, newer=newer)


class DeliveryDetail(ApiView):
    @described("get_delivery", _("Get a delivery"), gives=DeliveryShape, answer=DELIVERY)
    def get(self, request: Request, pk: int) -> Response:
        return Response(written(rows.delivery(self.tenant, pk)))


class Deed(ApiView):
    """What is done to one delivery; it answers with what it is then."""

    deed: Callable[[Delivery, Actor], None]

    def do(self, deed: Callable[[Delivery, Actor], None], pk: int) -> Response:
        self.read(Nothing)
        deed(rows.delivery(self.tenant, pk), self.actor)
        return Response(written(rows.delivery(self.tenant, pk)), status=202)


class DeliveryReplay(Deed):
    @described(
        "replay_delivery",
        _("Send a delivery again, now"),
        about=_("Whatever its state; with the same `webhook-id`."),
        takes=Nothing,
        gives=DeliveryShape,
        status=202,
        problems=("refused",),
    )
    def post(self, request: Request, pk: int) -> Response:
        return self.do(deeds.replay, pk)


class DeliveryCancel(Deed):
    @described(
        "cancel_delivery",
        _("Never send a delivery"),
        about=_("One that is at its end, or is being sent right now, is refused."),
        takes=Nothing,
        gives=DeliveryShape,
        status=202,
        problems=("refused",),
    )
    def post(self, request: Request, pk: int) -> Response:
        return self.do(deeds.cancel, pk)


def filters_of(request: Request) -> DeliveryFilters:
    """Raises Problem where one of them cannot be read."""
    query = request.query_params
    return filters(
        {name: query.get(name) for name in NAMES},
        since=paging.time_of(request, CREATED_AFTER.name),
        until=paging.time_of(request, CREATED_BEFORE.name),
    )


def filters(query: Mapping[str, Any], *, since: Any, until: Any, where: str = "") -> DeliveryFilters:
    """As the pages read them; what is wrong is told by the names here, behind `where`."""
    texts = {name: when.isoformat() if when else "" for name, when in (("since", since), ("until", until))}
    found = DeliveryFilters.from_query({**query, **texts})
    empty = [name for name in READ if query.get(name) == ""]
    faults = [Fault(where + NAMES[name], text) for name, text in found.errors.items()]
    faults += [Fault(where + NAMES[name], _("Write something, or leave it out.")) for name in empty]
    if faults:
        raise Problem("invalid" if where else "bad_filter", errors=faults)
    return found


def written(row: Delivery) -> dict[str, Any]:
    return {
        "id": row.pk,
        "event": row.event.webhook_id,
        "topic": row.event.topic,
        "subscription": row.subscription_id,
        "status": row.status,
        "created_at": rfc3339(row.created_at),
        "next_attempt_at": rfc3339(row.next_attempt_at),
        "ended_at": rfc3339(row.ended_at),
        "attempt_count": row.attempt_count,
        "in_flight": row.in_flight,
        "trigger": row.trigger,
        "triggered_by": row.triggered_by,
        "replay": row.replay_id,
    }


def _bounds(cursor: Cursor | None) -> dict[str, int]:
    if cursor is None:
        return {}
    [key] = cursor.key
    if isinstance(key, bool) or not isinstance(key, int) or len(cursor.way) > 1:
        raise Problem("bad_cursor")
    return {"after" if cursor.is_forward else "before": key}

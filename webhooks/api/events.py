"""Events: published by programs, and read."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import orjson
from django.utils.translation import gettext_lazy as _
from rest_framework import serializers
from rest_framework.response import Response

from subscriptions.api import paging
from subscriptions.api.describing import described, listed, only
from subscriptions.api.fields import Moment, Strict, rfc3339
from subscriptions.api.paging import PAGING, TIMES, Cursor, Parameter
from subscriptions.api.problems import Fault, Problem
from subscriptions.api.views import PUBLISH, ApiView
from subscriptions.models import home
from webhooks import publishing
from webhooks.api import drafts, rows
from webhooks.models import Event
from webhooks.publishing import MismatchError, UnpublishableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rest_framework.request import Request

    from webhooks.publishing import Draft, Published, Taken

BATCH_LIMIT = 10 * 1024 * 1024  # bytes
REPLAYED = "Idempotency-Replayed"
IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    _("A name of the request's own: sent again within 7 days, it gets the first answer, and publishes nothing."),
    {"type": "string", "minLength": 1, "maxLength": 255},
)
# The list's order.
BY = ("created_at", "pk")

ID = "evt_019abc3de8f07d2f9f6a8c0b4c5d6e7f"
DRAFT = {"type": "billing.invoice.paid", "data": {"number": 7, "total": "42.00"}, "id": "invoice-7-paid"}
TAKEN = {"id": ID, "type": "billing.invoice.paid", "timestamp": "2026-11-21T09:30:00.123Z", "duplicate": False}
EVENT = {
    "id": ID,
    "type": "billing.invoice.paid",
    "timestamp": "2026-11-21T09:30:00.123Z",
    "tenant": "acme",
    "changed": None,
    "error": "",
    "fanned_out_at": "2026-11-21T09:30:00.130Z",
}


class DraftShape(Strict):
    type = serializers.CharField(help_text=_("A topic that was declared for publishing."))
    data = serializers.DictField(  # type: ignore[assignment]
        help_text=_("What happened, as the schema of the topic says.")
    )
    id = serializers.CharField(
        required=False,
        allow_null=True,
        max_length=255,
        help_text=_("Your own name of the event: it is published once, however often it is sent."),
    )
    timestamp = Moment(required=False, allow_null=True, help_text=_("When it happened, if that is not now."))
    tenant = serializers.CharField(
        required=False,
        allow_null=True,
        help_text=_("With a key of the operator's: the tenant's slug, or null for every tenant."),
    )


class BatchShape(Strict):
    events = serializers.ListField(child=DraftShape(), min_length=1, max_length=publishing.MOST)


class TakenShape(serializers.Serializer[Any]):
    id = serializers.CharField(help_text=_("The `webhook-id` of each request that tells of it."))
    type = serializers.CharField()
    timestamp = Moment()
    duplicate = serializers.BooleanField(help_text=_("Whether it had been published before."))


class BatchTakenShape(serializers.Serializer[Any]):
    data = TakenShape(many=True)  # type: ignore[assignment]


class EventShape(serializers.Serializer[Any]):
    id = serializers.CharField()
    type = serializers.CharField(help_text=_("Its topic."))
    timestamp = Moment(help_text=_("When it happened."))
    tenant = serializers.CharField(allow_null=True, help_text=_("Null: it concerns every tenant."))
    changed = serializers.ListField(
        child=serializers.CharField(), allow_null=True, help_text=_("The fields that a save changed.")
    )
    error = serializers.CharField(allow_blank=True, help_text=_("Why it is not sent at all; usually empty."))
    fanned_out_at = Moment(allow_null=True, help_text=_("Since when its deliveries are there."))


class EventDetailShape(EventShape):
    body = serializers.DictField(allow_null=True, help_text=_("What is sent."))


CHECKED = ("unknown_topic", "topic_reserved", "schema_mismatch", "idempotency_mismatch")


class EventList(ApiView):
    scopes = {**ApiView.scopes, "POST": PUBLISH}
    parameters = {"GET": (*PAGING, *TIMES)}

    @described("list_events", _("List events"), gives=listed(EventShape), answer=only(EVENT))
    def get(self, request: Request) -> Response:
        found = _cut(self, request)
        data = [written(row, slug=self.tenant.slug) for row in found.rows]
        return paging.answer(request, data, older=found.older, newer=found.newer)

    @described(
        "publish_event",
        _("Publish an event"),
        about=_("It is written when this is answered, and sent to whoever listens to its topic."),
        takes=DraftShape,
        gives=TakenShape,
        status=202,
        headers=(IDEMPOTENCY_KEY,),
        problems=CHECKED,
        example=DRAFT,
        answer=TAKEN,
    )
    def post(self, request: Request) -> Response:
        published = publish(self, request, drafts.one)
        return _accepted(_taken(published.events[0]), published)


class EventBatch(ApiView):
    scopes = {"POST": PUBLISH}
    body_limit = BATCH_LIMIT

    @described(
        "publish_events",
        _("Publish up to 1,000 events"),
        about=_("All of them, or none: what is wrong is named by its place, as /events/17/data/total."),
        takes=BatchShape,
        gives=BatchTakenShape,
        status=202,
        headers=(IDEMPOTENCY_KEY,),
        problems=CHECKED,
        example={"events": [DRAFT]},
        answer={"data": [TAKEN]},
    )
    def post(self, request: Request) -> Response:
        published = publish(self, request, drafts.many)
        return _accepted({"data": [_taken(each) for each in published.events]}, published)


class EventDetail(ApiView):
    @described(
        "get_event",
        _("Get an event with its body"),
        gives=EventDetailShape,
        answer={**EVENT, "body": {"type": "billing.invoice.paid", "tenant": "acme", "data": {"number": 7}}},
    )
    def get(self, request: Request, name: str) -> Response:
        row = rows.event(self.tenant, name)
        body = bytes(row.body)
        return Response({**written(row, slug=self.tenant.slug), "body": orjson.Fragment(body) if body else None})


def written(row: Event, *, slug: str) -> dict[str, Any]:
    return {
        "id": row.webhook_id,
        "type": row.topic,
        "timestamp": rfc3339(row.created_at),
        "tenant": None if row.tenant_id is None else slug,
        "changed": row.changed,
        "error": row.error,
        "fanned_out_at": rfc3339(row.fanned_out_at),
    }


def publish(view: ApiView, request: Request, read: Callable[[ApiView, Any], Sequence[Draft]]) -> Published:
    key, chosen = drafts.key(view), read(view, request.data)
    fingerprint = _fingerprint(request) if key else b""
    try:
        return publishing.publish(chosen, by=view.caller.tenant, key=key, fingerprint=fingerprint)
    except MismatchError:
        raise Problem("idempotency_mismatch") from None
    except UnpublishableError as error:
        start = "/events/{}" if read is drafts.many else ""
        faults = [Fault(start.format(each.place) + each.pointer, each.text, each.code) for each in error.wrong]
        raise Problem(error.wrong[0].code, errors=faults) from None


def _fingerprint(request: Request) -> bytes:
    """Of what is asked; the order of an object's fields says nothing."""
    asked = orjson.dumps(request.data, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(request._request.get_full_path().encode() + b"\n" + asked).digest()


def _accepted(data: dict[str, Any], published: Published) -> Response:
    headers = {REPLAYED: "true"} if published.replayed else None
    return Response(data, status=202, headers=headers)


def _taken(each: Taken) -> dict[str, Any]:
    return {"id": each.id, "type": each.type, "timestamp": each.timestamp, "duplicate": each.duplicate}


def _cut(view: ApiView, request: Request) -> paging.Cut:
    """The tenant's own, and those of every tenant: an index each, as by OR the
    database would sort all there are."""
    cursor, limit = paging.cursor_of(request, len(BY)), paging.limit_of(request)
    cuts = [
        paging.cut(
            paging.created(request, Event.objects.using(home()).filter(tenant=tenant).defer("body")),
            cursor=cursor,
            limit=limit,
            by=BY,
        )
        for tenant in (view.tenant, None)
    ]
    found = sorted((row for cut in cuts for row in cut.rows), key=_key, reverse=True)
    forward = cursor is not None and cursor.is_forward
    shown = found[-limit:] if forward else found[:limit]
    more = len(found) > limit or any(cut.newer if forward else cut.older for cut in cuts)
    if not shown:
        return cuts[0]
    newer, older = Cursor(">", _key(shown[0])), Cursor("<", _key(shown[-1]))
    if forward:
        return paging.Cut(shown, older=older, newer=newer if more else None)
    return paging.Cut(shown, older=older if more else None, newer=newer if cursor else None)


def _key(row: Event) -> tuple[Any, ...]:
    return row.created_at, row.pk

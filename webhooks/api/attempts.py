"""Attempts: what was sent, and what came back."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers
from rest_framework.response import Response

from subscriptions import addresses, keys
from subscriptions.api import paging
from subscriptions.api.describing import described, listed, only
from subscriptions.api.fields import Moment, rfc3339
from subscriptions.api.paging import PAGING
from subscriptions.api.views import WRITE, ApiView
from subscriptions.models import home
from webhooks import readable, reasons
from webhooks.api import rows
from webhooks.models import Attempt, Delivery

if TYPE_CHECKING:
    from rest_framework.request import Request

UNDER_WAY, DELIVERED, FAILED = "under_way", "delivered", "failed"
BYTES = ("request_headers", "response_headers", "response_body")

ATTEMPT = {
    "id": 112,
    "delivery": 81,
    "number": 2,
    "status": "failed",
    "reason": "status",
    "detail": "",
    "said": "503 Service Unavailable",
    "url": "https://example.com/webhooks",
    "started_at": "2026-11-21T09:30:05.012Z",
    "ended_at": "2026-11-21T09:30:05.140Z",
    "duration_ms": 128,
    "response_status": 503,
    "trigger": "schedule",
    "triggered_by": "",
}
HEADERS = "content-type: application/json\nwebhook-id: evt_019abc3de8f07d2f9f6a8c0b4c5d6e7f"


class MessageShape(serializers.Serializer[Any]):
    """The bytes as base64 are exact; the text is for reading."""

    headers = serializers.CharField(allow_blank=True)
    headers_base64 = serializers.CharField(allow_blank=True)
    body = serializers.CharField(allow_blank=True)
    body_base64 = serializers.CharField(allow_blank=True)


class ResponseShape(MessageShape):
    cut = serializers.BooleanField(help_text=_("Whether only the beginning of the body was kept."))


class AttemptShape(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    delivery = serializers.IntegerField()
    number = serializers.IntegerField()
    status = serializers.ChoiceField([UNDER_WAY, DELIVERED, FAILED])
    reason = serializers.ChoiceField(Attempt.Reason.choices, allow_blank=True, help_text=_("Why it failed."))
    detail = serializers.CharField(allow_blank=True)
    said = serializers.CharField(help_text=_("What became of it, in words."))
    url = serializers.CharField(
        allow_blank=True, help_text=_("To keys without `write`, without the values of its query.")
    )
    started_at = Moment()
    ended_at = Moment(allow_null=True)
    duration_ms = serializers.IntegerField(allow_null=True)
    response_status = serializers.IntegerField(allow_null=True)
    trigger = serializers.ChoiceField(Delivery.Trigger.choices)
    triggered_by = serializers.CharField(allow_blank=True)


class AttemptDetailShape(AttemptShape):
    advice = serializers.CharField(allow_blank=True, help_text=_("What to do about it; empty where nothing is wrong."))
    request = MessageShape()
    response = ResponseShape(allow_null=True)


class AttemptList(ApiView):
    parameters = {"GET": PAGING}

    @described(
        "list_attempts",
        _("List the attempts of a delivery"),
        gives=listed(AttemptShape),
        answer=only(ATTEMPT),
        problems=("bad_cursor",),
    )
    def get(self, request: Request, pk: int) -> Response:
        delivery = rows.delivery(self.tenant, pk)
        found = Attempt.objects.using(home()).filter(delivery=delivery).defer(*BYTES)
        return paging.page(request, found, lambda row: written(row, whole=sees_urls(self)), by=["number"])


class AttemptDetail(ApiView):
    @described(
        "get_attempt",
        _("Get an attempt with its request and response"),
        gives=AttemptDetailShape,
        answer={
            **ATTEMPT,
            "advice": "A proxy answered, and what is behind it did not. Check that the receiver itself runs.",
            "request": {"headers": HEADERS, "headers_base64": "Y29udGVudC10eXBl", "body": "{}", "body_base64": "e30="},
            "response": {
                "headers": "server: proxy",
                "headers_base64": "c2VydmVyOiBwcm94eQ==",
                "body": "",
                "body_base64": "",
                "cut": False,
            },
        },
    )
    def get(self, request: Request, pk: int) -> Response:
        row = rows.attempt(self.tenant, pk)
        sent = _message(row.request_headers, row.delivery.event.body if row.request_headers else b"")
        back = {**_message(row.response_headers, row.response_body), "cut": row.response_cut}
        answered = row.response_status is not None
        about = {"advice": reasons.advice(row), "request": sent, "response": back if answered else None}
        return Response({**written(row, whole=sees_urls(self)), **about})


def sees_urls(view: ApiView) -> bool:
    """In full: their queries, too, where receivers like to have a token."""
    return keys.may(view.caller.key, WRITE)


def written(row: Attempt, *, whole: bool) -> dict[str, Any]:
    return {
        "id": row.pk,
        "delivery": row.delivery_id,
        "number": row.number,
        "status": DELIVERED if row.delivered else FAILED if row.reason else UNDER_WAY,
        "reason": row.reason,
        "detail": row.detail,
        "said": reasons.sentence(row),
        "url": row.url if whole else addresses.without_values(row.url),
        "started_at": rfc3339(row.started_at),
        "ended_at": rfc3339(row.ended_at),
        "duration_ms": row.duration_ms,
        "response_status": row.response_status,
        "trigger": row.trigger,
        "triggered_by": row.triggered_by,
    }


def _message(headers: bytes | memoryview, body: bytes | memoryview) -> dict[str, str]:
    return {
        "headers": readable.header_text(bytes(headers)),
        "headers_base64": _base64(headers),
        "body": bytes(body).decode(errors="replace"),
        "body_base64": _base64(body),
    }


def _base64(value: bytes | memoryview) -> str:
    return base64.b64encode(bytes(value)).decode()

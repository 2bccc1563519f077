"""The built-in inbox: the last requests that a tenant sent to itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.models import BinaryField
from django.db.models.functions import Length, Substr
from django.utils.translation import gettext_lazy as _
from rest_framework import serializers
from rest_framework.response import Response

from subscriptions.api.describing import described, listed, only
from subscriptions.api.fields import Moment, rfc3339
from subscriptions.api.views import ApiView
from subscriptions.models import home
from webhooks import readable
from webhooks.models import KEPT, InboxRequest

if TYPE_CHECKING:
    from rest_framework.request import Request

# Bytes of a body that are given here; the event has all of it.
SHOWN = 16 * 1024


class InboxRequestShape(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    event = serializers.CharField()
    subscription = serializers.IntegerField()
    received_at = Moment()
    verified = serializers.BooleanField()
    refusal = serializers.CharField(allow_blank=True, help_text=_("Why it did not verify."))
    headers = serializers.CharField()
    body = serializers.CharField(help_text=_("Its first 16 KiB."))
    body_bytes = serializers.IntegerField(help_text=_("The length of all of it."))


class InboxList(ApiView):
    @described(
        "list_inbox",
        _("List what arrived in the inbox"),
        about=_("The last 50 requests of the tenant, the newest first: there is no other page."),
        gives=listed(InboxRequestShape),
        answer=only(
            {
                "id": 9,
                "event": "evt_019abc3de8f07d2f9f6a8c0b4c5d6e7f",
                "subscription": 3,
                "received_at": "2026-11-21T09:30:00.140Z",
                "verified": True,
                "refusal": "",
                "headers": "content-type: application/json",
                "body": '{"type":"shop.order.updated"}',
                "body_bytes": 29,
            }
        ),
    )
    def get(self, request: Request) -> Response:
        beginning = Substr("body", 1, SHOWN, output_field=BinaryField())
        rows = InboxRequest.objects.using(home()).for_tenant(self.tenant).order_by("-pk").defer("body")
        found: list[Any] = list(rows.annotate(beginning=beginning, octets=Length("body"))[:KEPT])
        return Response({"data": [_written(row) for row in found], "next": None, "previous": None})


def _written(row: Any) -> dict[str, Any]:
    return {
        "id": row.pk,
        "event": row.webhook_id,
        "subscription": row.subscription_id,
        "received_at": rfc3339(row.received_at),
        "verified": not row.refusal,
        "refusal": row.refusal,
        "headers": readable.header_text(row.headers),
        "body": bytes(row.beginning or b"").decode(errors="replace"),
        "body_bytes": row.octets,
    }

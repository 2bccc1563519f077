"""The least that takes an event over HTTP: a DRF view that validates it with a
serializer and inserts one row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework import serializers
from rest_framework.response import Response
from rest_framework.views import APIView

from bench.warehouse.models import Posted

if TYPE_CHECKING:
    from rest_framework.request import Request


class LineSerializer(serializers.Serializer[Any]):
    sku = serializers.CharField(max_length=20)
    quantity = serializers.IntegerField(min_value=1)
    price = serializers.RegexField(r"^\d+\.\d\d$")


class InvoiceSerializer(serializers.Serializer[Any]):
    number = serializers.IntegerField(min_value=1)
    total = serializers.RegexField(r"^\d+\.\d\d$")
    currency = serializers.ChoiceField(["EUR", "USD"])
    customer = serializers.CharField(max_length=100)
    lines = LineSerializer(many=True)
    note = serializers.CharField(max_length=1000)


class EventSerializer(serializers.Serializer[Any]):
    type = serializers.CharField(max_length=200)
    data = InvoiceSerializer()  # type: ignore[assignment]


class BareView(APIView):
    authentication_classes = []
    permission_classes = []

    def post(self, request: Request) -> Response:
        event = EventSerializer(data=request.data)
        event.is_valid(raise_exception=True)
        row = Posted._base_manager.create(topic=event.validated_data["type"], data=event.validated_data["data"])
        return Response({"id": row.pk}, status=202)

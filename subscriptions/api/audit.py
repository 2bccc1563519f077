"""The audit log: who did what, the newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers
from rest_framework.response import Response

from subscriptions.api import fields
from subscriptions.api.describing import described, listed, only
from subscriptions.api.fields import rfc3339
from subscriptions.api.paging import PAGING, TIMES, Parameter, created, page
from subscriptions.api.views import ApiView
from subscriptions.models import AuditEntry, home

if TYPE_CHECKING:
    from rest_framework.request import Request

ACTIONS = AuditEntry.Action.values
ACTION = Parameter("action", _("Only what was done like this."), {"type": "string", "enum": ACTIONS})
ACTOR = Parameter("actor", _("Only what this person or program did."))


class AboutShape(serializers.Serializer[Any]):
    kind = serializers.CharField(allow_blank=True, help_text=_("Such as `subscription`."))
    id = serializers.CharField(allow_blank=True)
    name = serializers.CharField(allow_blank=True, help_text=_("What it was called then."))


class EntryShape(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    at = fields.Moment()
    action = serializers.CharField()
    actor = serializers.CharField()
    as_operator = serializers.BooleanField()
    address = serializers.CharField(allow_null=True, help_text=_("Told to the operator's keys only."))
    about = AboutShape()
    detail = serializers.DictField()


ANSWER = {
    "id": 41,
    "at": "2026-11-21T09:30:00.123Z",
    "action": "subscription.disabled",
    "actor": "alice@acme.example",
    "as_operator": False,
    "address": None,
    "about": {"kind": "subscription", "id": "12", "name": "Billing"},
    "detail": {"reason": "The receiver moves."},
}


class Entries(ApiView):
    parameters = {"GET": (*PAGING, *TIMES, ACTION, ACTOR)}

    @described(
        "list_audit_entries",
        _("List the audit log, the newest first"),
        gives=listed(EntryShape),
        problems=("bad_cursor",),
        answer=only(ANSWER),
    )
    def get(self, request: Request) -> Response:
        rows = created(request, AuditEntry.objects.using(home()).for_tenant(self.tenant), column="at")
        if action := request.query_params.get(ACTION.name):
            rows = rows.filter(action=action)
        if ACTOR.name in request.query_params:
            rows = rows.filter(actor=request.query_params[ACTOR.name])
        return page(request, rows, self.written)

    def written(self, entry: AuditEntry) -> dict[str, Any]:
        """Where colleagues were is told to no program of theirs."""
        return {
            "id": entry.pk,
            "at": rfc3339(entry.at),
            "action": entry.action,
            "actor": entry.actor,
            "as_operator": entry.as_operator,
            "address": entry.address if self.caller.tenant is None else None,
            "about": {"kind": entry.kind, "id": entry.number, "name": entry.name},
            "detail": entry.detail,
        }

"""API keys: a value is shown once, when it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.http import Http404
from django.utils.translation import gettext_lazy as _
from rest_framework import serializers
from rest_framework.response import Response

from subscriptions import delegating
from subscriptions import keys as rules
from subscriptions.api import fields
from subscriptions.api.describing import described, listed, only
from subscriptions.api.fields import rfc3339
from subscriptions.api.paging import PAGING, TIMES, created, page
from subscriptions.api.views import ApiView
from subscriptions.models import ApiKey, home

if TYPE_CHECKING:
    from rest_framework.request import Request

    from subscriptions.models.keys import ApiKeyQuerySet


# Some may stand twice.
MOST_SCOPES = 10


class WantedKey(fields.Strict):
    name = fields.Text(max_length=rules.NAME_LENGTH, help_text=_("What it is for, such as Billing server."))
    scopes = fields.Many(
        child=fields.Choice([scope.value for scope in rules.MAY]), min_length=1, max_length=MOST_SCOPES
    )
    mode = fields.Choice(ApiKey.Mode.values, required=False, help_text=_("`live`, if it is not given."))
    networks = fields.Many(
        child=fields.Text(max_length=50),
        max_length=rules.MOST_NETWORKS,
        required=False,
        help_text=_("Such as 203.0.113.0/24; none: from anywhere."),
    )
    expires_at = fields.Moment(allow_null=True, required=False)


class KeyShape(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    name = serializers.CharField()
    beginning = serializers.CharField(help_text=_("Its first characters, to tell it from others."))
    mode = serializers.ChoiceField(ApiKey.Mode.values)
    scopes = serializers.ListField(child=serializers.ChoiceField(ApiKey.Scope.values))
    networks = serializers.ListField(child=serializers.CharField())
    created_at = fields.Moment()
    created_by = serializers.CharField(allow_blank=True)
    expires_at = fields.Moment(allow_null=True)
    last_used_at = fields.Moment(allow_null=True, help_text=_("To the minute."))
    revoked_at = fields.Moment(allow_null=True)


class MadeKeyShape(KeyShape):
    key = serializers.CharField(help_text=_("The value. It is nowhere else, and cannot be had again."))


ANSWER: dict[str, Any] = {
    "id": 3,
    "name": "Billing server",
    "beginning": "sp_live_4vTx",
    "mode": "live",
    "scopes": ["read", "publish"],
    "networks": ["203.0.113.0/24"],
    "created_at": "2026-11-21T09:30:00.123Z",
    "created_by": "alice@acme.example",
    "expires_at": None,
    "last_used_at": None,
    "revoked_at": None,
}


class KeyView(ApiView):
    def rows(self) -> ApiKeyQuerySet:
        return ApiKey.objects.using(home()).for_tenant(self.tenant)


class KeyList(KeyView):
    parameters = {"GET": (*PAGING, *TIMES)}

    @described(
        "list_keys",
        _("List API keys, the newest first"),
        gives=listed(KeyShape),
        problems=("bad_cursor",),
        answer=only(ANSWER),
    )
    def get(self, request: Request) -> Response:
        return page(request, created(request, self.rows()), written)

    @described(
        "create_key",
        _("Make an API key"),
        about=_(
            "A key makes none that may do more than itself, from more networks, or for longer. "
            "The value is in this answer and nowhere else."
        ),
        takes=WantedKey,
        gives=MadeKeyShape,
        status=201,
        problems=("refused",),
        example={"name": "Billing server", "scopes": ["read", "publish"], "networks": ["203.0.113.0/24"]},
        answer={**ANSWER, "key": "sp_live_4vTx…"},
    )
    def post(self, request: Request) -> Response:
        wanted = self.read(WantedKey)
        wanted["networks"] = _networks(wanted.get("networks", ()))
        key, value = delegating.create(self.caller.key, self.tenant, self.actor, **wanted)
        return Response({**written(key), "key": value}, status=201, headers={"Cache-Control": "no-store"})


class KeyDetail(KeyView):
    @described("get_key", _("Get an API key, without its value"), gives=KeyShape, answer=ANSWER)
    def get(self, request: Request, pk: int) -> Response:
        return Response(written(found(self.rows(), pk)))


class KeyRevoke(KeyView):
    @described(
        "revoke_key",
        _("Revoke an API key"),
        about=_("It opens nothing any more. A key may revoke itself, and those that may do no more."),
        takes=fields.Nothing,
        gives=KeyShape,
        problems=("refused",),
        answer={**ANSWER, "revoked_at": "2026-11-22T09:30:00.123Z"},
    )
    def post(self, request: Request, pk: int) -> Response:
        self.read(fields.Nothing)
        key = found(self.rows().select_related("tenant"), pk)
        delegating.revoke(self.caller.key, key, self.actor)
        return Response(written(found(self.rows(), pk)))


def found(rows: ApiKeyQuerySet, pk: int) -> ApiKey:
    key = rows.filter(pk=pk).first()
    if key is None:
        raise Http404
    return key


def written(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.pk,
        "name": key.name,
        "beginning": key.beginning,
        "mode": key.mode,
        "scopes": key.scopes,
        "networks": key.networks,
        "created_at": rfc3339(key.created_at),
        "created_by": key.created_by,
        "expires_at": rfc3339(key.expires_at),
        "last_used_at": rfc3339(key.last_used_at),
        "revoked_at": rfc3339(key.revoked_at),
    }


def _networks(wanted: list[str]) -> list[str]:
    try:
        return rules.networks_in("\n".join(wanted))
    except ValidationError as error:
        raise ValidationError({"networks": error.messages}) from None

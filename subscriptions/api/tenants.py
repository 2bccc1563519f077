"""Tenants: a tenant's key sees its own, an operator's all, and runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.models import Q
from django.http import Http404
from django.utils.translation import gettext_lazy as _
from rest_framework import serializers
from rest_framework.response import Response

from subscriptions import disabling, operating
from subscriptions.api import fields
from subscriptions.api.describing import described, listed, only
from subscriptions.api.fields import longest, rfc3339
from subscriptions.api.paging import PAGING, TIMES, Parameter, created, page
from subscriptions.api.views import OPERATE, READ, ApiView
from subscriptions.models import Tenant, home

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from rest_framework.request import Request

SEARCH = Parameter("q", _("Only those with this in their slug or name."), {"type": "string", "maxLength": 200})
KEY = Parameter("key", _("Only the one that the host project calls so."))


class ChangedTenant(fields.Strict):
    name = fields.Text(max_length=longest(Tenant, "name"))
    key = fields.Text(
        max_length=longest(Tenant, "key"),
        allow_null=True,
        required=False,
        help_text=_("How the host project knows it, such as its own primary key."),
    )


class WantedTenant(ChangedTenant):
    slug = fields.Text(max_length=longest(Tenant, "slug"), help_text=_("Stands in the addresses of its pages."))


class OffReason(fields.Strict):
    reason = fields.Text(max_length=longest(Tenant, "disabled_reason"), help_text=_("The tenant's members read it."))


class TenantShape(serializers.Serializer[Any]):
    slug = serializers.CharField()
    name = serializers.CharField()
    key = serializers.CharField(allow_null=True)
    enabled = serializers.BooleanField()
    disabled_at = fields.Moment(allow_null=True)
    disabled_reason = serializers.CharField(allow_null=True)
    created_at = fields.Moment()


ANSWER: dict[str, Any] = {
    "slug": "acme",
    "name": "Acme",
    "key": "1207",
    "enabled": True,
    "disabled_at": None,
    "disabled_reason": None,
    "created_at": "2026-11-21T09:30:00.123Z",
}


class TenantView(ApiView):
    scopes = {"GET": READ, "HEAD": READ, "POST": OPERATE, "PATCH": OPERATE}
    of_tenant = False

    def rows(self) -> QuerySet[Tenant, Any]:
        own = self.caller.tenant
        rows = Tenant.objects.using(home())
        return rows.all() if own is None else rows.filter(pk=own.pk)

    def found(self, slug: str) -> Tenant:
        tenant: Tenant | None = self.rows().filter(slug=slug).first()
        if tenant is None:
            raise Http404
        return tenant


class TenantList(TenantView):
    parameters = {"GET": (*PAGING, *TIMES, SEARCH, KEY)}

    @described(
        "list_tenants",
        _("List tenants, the newest first"),
        about=_("With a tenant's key, its own."),
        gives=listed(TenantShape),
        problems=("bad_cursor",),
        answer=only(ANSWER),
    )
    def get(self, request: Request) -> Response:
        rows, query = created(request, self.rows()), request.query_params
        if search := query.get(SEARCH.name, ""):
            rows = rows.filter(Q(slug__icontains=search) | Q(name__icontains=search))
        if KEY.name in query:
            rows = rows.filter(key=query[KEY.name])
        return page(request, rows, written)

    @described(
        "create_tenant",
        _("Make a tenant"),
        takes=WantedTenant,
        gives=TenantShape,
        status=201,
        example={"slug": "acme", "name": "Acme", "key": "1207"},
        answer=ANSWER,
    )
    def post(self, request: Request) -> Response:
        return Response(written(operating.create(self.actor, **self.read(WantedTenant))), status=201)


class TenantDetail(TenantView):
    @described("get_tenant", _("Get a tenant"), gives=TenantShape, problems=("not_found",), answer=ANSWER)
    def get(self, request: Request, slug: str) -> Response:
        return Response(written(self.found(slug)))

    @described(
        "change_tenant",
        _("Change a tenant's name or key"),
        takes=ChangedTenant,
        gives=TenantShape,
        problems=("not_found", "refused"),
        example={"name": "Acme Ltd"},
        answer={**ANSWER, "name": "Acme Ltd"},
    )
    def patch(self, request: Request, slug: str) -> Response:
        wanted = self.read(ChangedTenant, partial=True)
        return Response(written(operating.change(self.found(slug), self.actor, **wanted)))


class TenantDisable(TenantView):
    @described(
        "disable_tenant",
        _("Turn a tenant off, with its subscriptions"),
        about=_("What happens meanwhile is not sent, not later either. Deliveries that are under way wait."),
        takes=OffReason,
        gives=TenantShape,
        problems=("not_found",),
        example={"reason": "The contract has ended."},
        answer={
            **ANSWER,
            "enabled": False,
            "disabled_at": "2026-11-22T09:30:00.123Z",
            "disabled_reason": "The contract has ended.",
        },
    )
    def post(self, request: Request, slug: str) -> Response:
        wanted = self.read(OffReason)
        disabling.disable(self.found(slug), self.actor, reason=wanted["reason"])
        return Response(written(self.found(slug)))


class TenantEnable(TenantView):
    @described(
        "enable_tenant",
        _("Turn a tenant on again, with the subscriptions that were turned off with it"),
        takes=fields.Nothing,
        gives=TenantShape,
        problems=("not_found",),
        answer=ANSWER,
    )
    def post(self, request: Request, slug: str) -> Response:
        self.read(fields.Nothing)
        disabling.enable(self.found(slug), self.actor)
        return Response(written(self.found(slug)))


def written(tenant: Tenant) -> dict[str, Any]:
    return {
        "slug": tenant.slug,
        "name": tenant.name,
        "key": tenant.key,
        "enabled": tenant.disabled_at is None,
        "disabled_at": rfc3339(tenant.disabled_at),
        "disabled_reason": tenant.disabled_reason or None,
        "created_at": rfc3339(tenant.created_at),
    }

"""Members and invitations. Their lists are open to every key that reads; to
change who belongs to a tenant takes an owner on the pages, or the operator: a
tenant's key that leaks must not make an owner of whoever holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.http import Http404
from django.urls import NoReverseMatch, reverse
from django.utils.translation import gettext as _now
from django.utils.translation import gettext_lazy as _
from rest_framework import serializers
from rest_framework.response import Response

from subscriptions import people as rules
from subscriptions.api import fields
from subscriptions.api.describing import described, listed, only
from subscriptions.api.fields import longest, rfc3339
from subscriptions.api.paging import PAGING, TIMES, created, page
from subscriptions.api.views import OPERATE, READ, ApiView
from subscriptions.edits import Refused
from subscriptions.models import Invitation, Membership, Role, home

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from rest_framework.request import Request

    from subscriptions.models.tenants import InvitationQuerySet, MembershipQuerySet

SCOPES = {"GET": READ, "HEAD": READ, "POST": OPERATE, "PATCH": OPERATE, "DELETE": OPERATE}


class WantedRole(fields.Strict):
    role = fields.Choice(Role.values)
    was = fields.Choice(Role.values, required=False, help_text=_("The role that was seen: 412 where it is another."))


class WantedInvitation(fields.Strict):
    email = fields.Text(max_length=longest(Invitation, "email"))
    role = fields.Choice(Role.values)


class MemberShape(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    name = serializers.CharField(help_text=_("The email address, or the name to sign in with."))
    role = serializers.ChoiceField(Role.values)
    created_at = fields.Moment()


class InvitationShape(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    email = serializers.CharField()
    role = serializers.ChoiceField(Role.values)
    created_at = fields.Moment()
    expires_at = fields.Moment()
    mailed_at = fields.Moment(allow_null=True, help_text=_("Null as long as no mail server took the mail."))


MEMBER = {"id": 7, "name": "alice@acme.example", "role": "owner", "created_at": "2026-11-21T09:30:00.123Z"}
INVITATION = {
    "id": 9,
    "email": "bob@acme.example",
    "role": "developer",
    "created_at": "2026-11-21T09:30:00.123Z",
    "expires_at": "2026-11-28T09:30:00.123Z",
    "mailed_at": "2026-11-21T09:30:01.456Z",
}


class MemberView(ApiView):
    scopes = SCOPES

    def rows(self) -> MembershipQuerySet:
        return Membership.objects.using(home()).for_tenant(self.tenant).select_related("user", "tenant")

    def found(self, pk: int) -> Membership:
        row: Membership = _found(self.rows(), pk)
        return row


class MemberList(MemberView):
    parameters = {"GET": (*PAGING, *TIMES)}

    @described(
        "list_members",
        _("List members, the newest first"),
        gives=listed(MemberShape),
        problems=("bad_cursor",),
        answer=only(MEMBER),
    )
    def get(self, request: Request) -> Response:
        return page(request, created(request, self.rows()), member)


class MemberDetail(MemberView):
    @described("get_member", _("Get a member"), gives=MemberShape, answer=MEMBER)
    def get(self, request: Request, pk: int) -> Response:
        return Response(member(self.found(pk)))

    @described(
        "change_member",
        _("Give a member another role"),
        takes=WantedRole,
        gives=MemberShape,
        problems=("refused", "stale"),
        example={"role": "developer", "was": "owner"},
        answer={**MEMBER, "role": "developer"},
    )
    def patch(self, request: Request, pk: int) -> Response:
        wanted, row = self.read(WantedRole), self.found(pk)
        row = rules.change_role(row, self.actor, role=wanted["role"], was=wanted.get("was", row.role))
        return Response(member(row))

    @described("remove_member", _("Remove a member"), status=204, problems=("refused",))
    def delete(self, request: Request, pk: int) -> Response:
        rules.remove(self.found(pk), self.actor)
        return Response(status=204)


class InvitationView(ApiView):
    scopes = SCOPES

    def rows(self) -> InvitationQuerySet:
        return Invitation.objects.using(home()).for_tenant(self.tenant).select_related("tenant")

    def link(self, token: str) -> str:
        try:
            path = reverse("subscriptions:invitation", args=[token])
        except NoReverseMatch:
            raise Refused(_now("This project has no page on which an invitation could be accepted.")) from None
        return self.request._request.build_absolute_uri(path)

    def told(self, row: Invitation, *, status: int) -> Response:
        """As it is after the mail."""
        return Response(invitation(self.rows().filter(pk=row.pk).first() or row), status=status)


class InvitationList(InvitationView):
    parameters = {"GET": (*PAGING, *TIMES)}

    @described(
        "list_invitations",
        _("List open invitations, the newest first"),
        gives=listed(InvitationShape),
        problems=("bad_cursor",),
        answer=only(INVITATION),
    )
    def get(self, request: Request) -> Response:
        return page(request, created(request, self.rows()), invitation)

    @described(
        "invite",
        _("Invite somebody by mail"),
        takes=WantedInvitation,
        gives=InvitationShape,
        status=201,
        problems=("refused",),
        example={"email": "bob@acme.example", "role": "developer"},
        answer=INVITATION,
    )
    def post(self, request: Request) -> Response:
        row = rules.invite(self.tenant, self.actor, **self.read(WantedInvitation), link=self.link)
        return self.told(row, status=201)


class InvitationDetail(InvitationView):
    @described("get_invitation", _("Get an invitation"), gives=InvitationShape, answer=INVITATION)
    def get(self, request: Request, pk: int) -> Response:
        return Response(invitation(_found(self.rows(), pk)))

    @described("withdraw_invitation", _("Withdraw an invitation"), status=204, problems=("refused",))
    def delete(self, request: Request, pk: int) -> Response:
        if not rules.withdraw(_found(self.rows(), pk), self.actor):
            raise Http404
        return Response(status=204)


class InvitationAgain(InvitationView):
    @described(
        "invite_again",
        _("Send an invitation again"),
        about=_("With a new link and a new week; the old link opens nothing any more."),
        takes=fields.Nothing,
        gives=InvitationShape,
        problems=("refused",),
        answer=INVITATION,
    )
    def post(self, request: Request, pk: int) -> Response:
        self.read(fields.Nothing)
        row = rules.invite_again(_found(self.rows(), pk), self.actor, link=self.link)
        return self.told(row, status=200)


def member(row: Membership) -> dict[str, Any]:
    return {
        "id": row.pk,
        "name": rules.name_of(row.user),
        "role": row.role,
        "created_at": rfc3339(row.created_at),
    }


def invitation(row: Invitation) -> dict[str, Any]:
    return {
        "id": row.pk,
        "email": row.email,
        "role": row.role,
        "created_at": rfc3339(row.created_at),
        "expires_at": rfc3339(row.expires_at),
        "mailed_at": rfc3339(row.mailed_at),
    }


def _found(rows: QuerySet[Any, Any], pk: int) -> Any:
    row = rows.filter(pk=pk).first()
    if row is None:
        raise Http404
    return row

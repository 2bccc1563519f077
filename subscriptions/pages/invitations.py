"""Where the link of an invitation leads: anybody may open it, who holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import messages
from django.contrib.auth.views import redirect_to_login
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache

from subscriptions import people
from subscriptions.edits import Refused
from subscriptions.models import Role
from subscriptions.trail import actor_of

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

# Of the session: the token, for whoever signs up first.
INVITATION = "signalpost_invitation"
STATUS = {people.NotOpenError: 410, people.WrongPersonError: 403, people.MemberAlreadyError: 200}


@never_cache
def invitation(request: HttpRequest, token: str) -> HttpResponse:
    user = request.user if request.user.is_authenticated else None
    try:
        opened = people.opened(token, user=user)
        if request.method == "POST" and user is not None:
            membership = people.accept(token, user=user, actor=actor_of(request))
            request.session.pop(INVITATION, None)
            messages.success(request, _("Welcome to %(tenant)s.") % {"tenant": membership.tenant.name})
            return redirect("webhooks:overview", membership.tenant.slug)
    except Refused as refused:
        return _closed(request, token, refused)
    if user is None:
        request.session[INVITATION] = token
        if request.method == "POST":
            return redirect_to_login(request.path)
    context = {
        "invitation": opened,
        "inviter": people.name_of(opened.invited_by),
        "role": Role(opened.role),
        "may": people.MAY[Role(opened.role)],
        "sign_in": redirect_to_login(request.path).url,
    }
    return render(request, "subscriptions/invitation.html", context)


def _closed(request: HttpRequest, token: str, refused: Refused) -> HttpResponse:
    if request.session.get(INVITATION) == token and not isinstance(refused, people.WrongPersonError):
        del request.session[INVITATION]
    member_of = refused.tenant if isinstance(refused, people.MemberAlreadyError) else None
    context = {"why": str(refused), "wrong": isinstance(refused, people.WrongPersonError), "member_of": member_of}
    return render(request, "subscriptions/invitation_closed.html", context, status=STATUS[type(refused)])

"""Who belongs to a tenant, and who is invited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.shortcuts import get_object_or_404, redirect, render, resolve_url
from django.urls import reverse
from django.utils.formats import number_format
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_POST

from subscriptions import people
from subscriptions.edits import Refused
from subscriptions.models import Invitation, Membership, Role
from subscriptions.pages.access import TenantRequest, page
from subscriptions.trail import actor_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponse

SECTION = {"section": "members"}


def _roles() -> list[tuple[str, str]]:
    """Each with what it may do."""
    shown = '<span class="choice"><b>{}</b> <span class="soft">{}</span></span>'
    return [(role.value, format_html(shown, str(role.label).capitalize(), people.MAY[role])) for role in Role]


class InviteForm(forms.Form):
    email = forms.CharField(
        label=gettext_lazy("Email"),
        max_length=254,
        widget=forms.EmailInput(attrs={"autocomplete": "off"}),
        error_messages={"required": gettext_lazy("Write whom to invite, such as bob@example.com.")},
    )
    role = forms.ChoiceField(
        label=gettext_lazy("Role"),
        choices=_roles,
        initial=Role.DEVELOPER,
        widget=forms.RadioSelect,
        error_messages={"required": gettext_lazy("Choose a role.")},
    )


class RoleForm(forms.Form):
    role = forms.ChoiceField(label=gettext_lazy("Role"), choices=_roles, widget=forms.RadioSelect)
    was = forms.ChoiceField(choices=Role, widget=forms.HiddenInput)


@page(write=Role.OWNER)
def members(request: TenantRequest) -> HttpResponse:
    form = InviteForm(request.POST or None)
    if request.method == "POST" and form.is_valid() and _invited(request, form):
        return redirect("subscriptions:members", request.tenant.slug)
    return render(
        request,
        "subscriptions/members.html",
        {
            **SECTION,
            "form": form,
            "memberships": Membership.objects.for_tenant(request.tenant).with_people(),
            "invitations": Invitation.objects.for_tenant(request.tenant).select_related("invited_by"),
            "may": people.MAY,
            "manages": request.may(Role.OWNER),
        },
    )


def _invited(request: TenantRequest, form: InviteForm) -> bool:
    def invite() -> Invitation:
        return people.invite(request.tenant, actor_of(request), **form.cleaned_data, link=_link(request))

    return _mailed(request, form, invite)


@page(Role.OWNER)
@require_POST
def invitation_again(request: TenantRequest, pk: int) -> HttpResponse:
    invitation = get_object_or_404(Invitation.objects.for_tenant(request.tenant), pk=pk)
    _mailed(request, None, lambda: people.invite_again(invitation, actor_of(request), link=_link(request)))
    return redirect("subscriptions:members", request.tenant.slug)


@page(Role.OWNER)
@require_POST
def invitation_withdraw(request: TenantRequest, pk: int) -> HttpResponse:
    # Not 404 for one that is gone: somebody accepted it while the page was open.
    invitation = Invitation.objects.for_tenant(request.tenant).filter(pk=pk).first()
    try:
        if invitation is not None and people.withdraw(invitation, actor_of(request)):
            messages.success(request, _("The invitation of %(email)s is withdrawn.") % {"email": invitation.email})
        else:
            messages.warning(request, _("This invitation was accepted or withdrawn already."))
    except Refused as refused:
        messages.error(request, str(refused))
    return redirect("subscriptions:members", request.tenant.slug)


def _mailed(request: TenantRequest, form: InviteForm | None, send: Callable[[], Invitation]) -> bool:
    """False where it is refused, which stands at `form`, or else in a note."""
    try:
        invitation = send()
    except (Refused, ValidationError) as wrong:
        if form is None:
            messages.error(request, "; ".join(wrong.messages) if isinstance(wrong, ValidationError) else str(wrong))
        else:
            _add(form, wrong)
        return False
    # Where no mail went, the page says so itself, for as long as it is so.
    if Invitation.objects.filter(pk=invitation.pk, mailed_at__isnull=False).exists():
        messages.success(request, _("%(email)s is invited.") % {"email": invitation.email})
    return True


def _add(form: forms.Form, wrong: Refused | ValidationError) -> None:
    form.add_error(None, wrong if isinstance(wrong, ValidationError) else str(wrong))


def _link(request: HttpRequest) -> Callable[[str], str]:
    return lambda token: request.build_absolute_uri(reverse("subscriptions:invitation", args=[token]))


def _membership(request: TenantRequest, pk: int) -> Membership:
    rows = Membership.objects.for_tenant(request.tenant).select_related("user", "tenant")
    return get_object_or_404(rows, pk=pk)


@page(Role.OWNER)
def member(request: TenantRequest, pk: int) -> HttpResponse:
    membership = _membership(request, pk)
    form = RoleForm(request.POST or None, initial={"role": membership.role, "was": membership.role})
    if request.method == "POST" and form.is_valid() and _changed(request, membership, form):
        return redirect("subscriptions:members", request.tenant.slug)
    return render(
        request, "subscriptions/member.html", {**SECTION, **_about(request, membership), "form": form, "manages": True}
    )


def _changed(request: TenantRequest, membership: Membership, form: RoleForm) -> bool:
    try:
        row = people.change_role(membership, actor_of(request), **form.cleaned_data)
    except people.StaleError as stale:
        # What was typed stays, and the next try is against how it is now.
        form.data = {**form.data.dict(), "was": stale.now}  # type: ignore[attr-defined]
        form.add_error(None, str(stale))
        return False
    except Refused as refused:
        form.add_error("role", str(refused))
        return False
    about = {"name": people.name_of(row.user), "role": Role(row.role).label}
    messages.success(request, _("%(name)s is %(role)s now.") % about)
    return True


def _about(request: TenantRequest, membership: Membership) -> dict[str, Any]:
    return {
        "membership": membership,
        "name": people.name_of(membership.user),
        "own": membership.user_id == request.user.pk,
        "last_owner": people.is_last_owner(membership),
        "keys": people.keys_of(membership),
    }


@page(Role.OWNER)
def member_remove(request: TenantRequest, pk: int) -> HttpResponse:
    membership = _membership(request, pk)
    if membership.user_id == request.user.pk:
        return redirect("subscriptions:leave", request.tenant.slug)
    error = ""
    if request.method == "POST":
        error, revoked = _removed(request, membership)
        if not error:
            told = _("%(name)s is removed.") % {"name": people.name_of(membership.user)}
            messages.success(request, f"{told} {_keys_revoked(revoked)}".rstrip())
            return redirect("subscriptions:members", request.tenant.slug)
    context = {**SECTION, **_about(request, membership), "error": error, "manages": True}
    return render(request, "subscriptions/member_remove.html", context)


@page()
def leave(request: TenantRequest) -> HttpResponse:
    membership = get_object_or_404(Membership.objects.for_tenant(request.tenant), user=request.user.pk)
    error = ""
    if request.method == "POST":
        error, revoked = _removed(request, membership)
        if not error:
            told = _("You left %(tenant)s.") % {"tenant": request.tenant.name}
            messages.success(request, f"{told} {_keys_revoked(revoked)}".rstrip())
            return redirect(resolve_url(settings.LOGIN_REDIRECT_URL))
    manages = request.may(Role.OWNER)
    context = {"section": "settings", **_about(request, membership), "error": error, "manages": manages}
    return render(request, "subscriptions/leave.html", context)


def _removed(request: TenantRequest, membership: Membership) -> tuple[str, int]:
    """Why not, and how many keys went with the member."""
    wanted = "revoke" in request.POST and request.may(Role.OWNER)
    try:
        return "", people.remove(membership, actor_of(request), revoke_keys=wanted)
    except Refused as refused:
        return str(refused), 0


def _keys_revoked(number: int) -> str:
    if not number:
        return ""
    told = ngettext("%(number)s API key is revoked.", "%(number)s API keys are revoked.", number)
    return told % {"number": number_format(number)}

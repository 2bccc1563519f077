"""Who belongs to a tenant: invited, joined, changed, gone.

Each is one transaction with its entry in the audit log. A deed that is not
allowed raises Refused; a value that is wrong, ValidationError by its field.
"""

from __future__ import annotations

import logging
import threading
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from django.core import mail
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import connections, transaction
from django.db.models.functions import Now
from django.utils import formats, timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from subscriptions import keys, names
from subscriptions.edits import Refused
from subscriptions.models import ApiKey, AuditEntry, Invitation, Membership, Role, Tenant, home
from subscriptions.models.tenants import INVITED_FOR
from subscriptions.owners import alone
from subscriptions.trail import note

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.base_user import AbstractBaseUser
    from django.db.models import QuerySet

    from subscriptions.trail import Actor

    Link = Callable[[str], str]  # a token → the address at which it is accepted

logger = logging.getLogger(__name__)
Action = AuditEntry.Action

# Of one tenant, so that its pages are no way to send mail to the world.
MOST_OPEN = 50
MOST_A_DAY = 200
PAUSE = timedelta(minutes=1)  # between two mails to one address
# Seconds that whoever invites waits for the mail server.
MAIL_TIMEOUT = 10.0
NAME_SHOWN = 80  # characters of a tenant's name, in a mail to strangers

MAY = {
    Role.OWNER: gettext_lazy("Everything, people and API keys included."),
    Role.DEVELOPER: gettext_lazy("Edits subscriptions, sends test events, replays."),
    Role.VIEWER: gettext_lazy("Sees everything but secrets, and changes nothing."),
}


class StaleError(Refused):
    """Somebody was quicker; `now` is what the role or the name is."""

    def __init__(self, text: str, *, now: str) -> None:
        super().__init__(text)
        self.now = now


class NotOpenError(Refused):
    """The invitation was used, withdrawn or sent again; or it has run out."""


class WrongPersonError(Refused):
    """Somebody else was invited."""


class MemberAlreadyError(Refused):
    """There is nothing to accept."""

    def __init__(self, tenant: Tenant) -> None:
        super().__init__(_("You are a member of %(tenant)s already.") % {"tenant": tenant.name})
        self.tenant = tenant


def invite(tenant: Tenant, actor: Actor, *, email: str, role: str, link: Link) -> Invitation:
    """Invite by mail, which goes after the commit: `mailed_at` says whether it went."""
    email = _address(email)
    with alone(tenant, actor):
        _check_stranger(tenant, email)
        Invitation.objects.using(home()).for_tenant(tenant).filter(email=email).delete()  # it has run out
        _check_room(tenant)
        invitation = Invitation(tenant=tenant, email=email, role=role, invited_by_id=actor.user_id)
        _post(invitation, actor, link)
    return invitation


def invite_again(invitation: Invitation, actor: Actor, *, link: Link) -> Invitation:
    """With a new link and a new week; the old link opens nothing any more."""
    with alone(invitation.tenant, actor):
        row = Invitation.objects.using(home()).filter(pk=invitation.pk).select_related("tenant").first()
        if row is None:
            raise Refused(_("This invitation was accepted or withdrawn meanwhile."))
        if row.mailed_at and row.mailed_at > timezone.now() - PAUSE:
            raise Refused(_("The mail went less than a minute ago. Wait a moment, then send it again."))
        _check_room(row.tenant, but=row)
        _post(row, actor, link, again=True)
    return row


def withdraw(invitation: Invitation, actor: Actor) -> bool:
    """False where it was accepted or withdrawn already."""
    with alone(invitation.tenant, actor):
        gone, _each = Invitation.objects.using(home()).filter(pk=invitation.pk).delete()
        if gone:
            note(actor, Action.INVITATION_WITHDRAWN, tenant=invitation.tenant, about=invitation, name=invitation.email)
    return bool(gone)


def opened(token: str, *, user: AbstractBaseUser | None = None) -> Invitation:
    """What `token` opens: for anybody, or for `user` who is to accept it.

    Raises NotOpenError, WrongPersonError or MemberAlreadyError.
    """
    rows = Invitation.objects.using(home()).holding(token)
    invitation = rows.select_related("tenant", "invited_by").first()
    if invitation is None:
        raise NotOpenError(
            _("This invitation is not open any more: it was accepted, withdrawn, or sent again with a new link.")
        )
    if invitation.expired:
        when = formats.date_format(timezone.localtime(invitation.expires_at), "DATE_FORMAT")
        raise NotOpenError(_("This invitation was open until %(when)s. Ask for a new one.") % {"when": when})
    if user is not None:
        _check_invited(invitation, user)
    return invitation


def accept(token: str, *, user: AbstractBaseUser, actor: Actor) -> Membership:
    """Make `user` a member, once; raises what `opened` raises."""
    with transaction.atomic(using=home()):
        invitation = opened(token, user=user)
        # Of two at once, one deletes it.
        if not Invitation.objects.using(home()).open().holding(token).delete()[0]:
            raise NotOpenError(_("This invitation was just accepted."))
        tenant = invitation.tenant
        membership = Membership(tenant=tenant, user_id=user.pk, role=invitation.role)
        membership.save(using=home())
        detail = {"role": invitation.role, "invited by": name_of(invitation.invited_by)}
        note(actor, Action.MEMBER_JOINED, tenant=tenant, about=membership, name=invitation.email, **detail)
    return membership


def change_role(membership: Membership, actor: Actor, *, role: str, was: str) -> Membership:
    """Give a member another role, if it still is the one that the asker saw."""
    with alone(membership.tenant, actor):
        row = _still(membership)
        if row.role == role:
            return row
        if row.role != was:
            text = _("The role was changed meanwhile: it is %(role)s now.") % {"role": Role(row.role).label}
            raise StaleError(text, now=row.role)
        _check_not_last_owner(row)
        row.role = role
        row.save(using=home(), update_fields=["role"])
        note(actor, Action.MEMBER_CHANGED, tenant=row.tenant, about=row, name=name_of(row.user), role=role, was=was)
        _withdraw_those_of(row, actor)
    return row


def remove(membership: Membership, actor: Actor, *, revoke_keys: bool = False) -> int:
    """Its access ends with the next request. Whoever removes themselves has left.

    Returns how many of `keys_of` it were revoked with it; an owner may ask for that.
    """
    leaving = membership.user_id == actor.user_id
    with alone(membership.tenant, None if leaving else actor):
        row = _still(membership)
        _check_not_last_owner(row)
        action = Action.MEMBER_LEFT if leaving else Action.MEMBER_REMOVED
        note(actor, action, tenant=row.tenant, about=row, name=name_of(row.user), role=row.role)
        _withdraw_those_of(row, actor)
        # While it still is an owner, who may.
        revoked = sum(keys.revoke(key, actor) for key in keys_of(row)) if revoke_keys else 0
        row.delete(using=home())
    return revoked


def keys_of(membership: Membership) -> QuerySet[ApiKey]:
    """The live keys that the person has made, and so may know."""
    return keys.made_by(membership.tenant, user_id=membership.user_id, name=name_of(membership.user))


def _withdraw_those_of(membership: Membership, actor: Actor) -> None:
    """Who may invite nobody any more must not come back by an invitation of their own."""
    for invitation in Invitation.objects.using(home()).filter(tenant=membership.tenant, invited_by=membership.user_id):
        note(actor, Action.INVITATION_WITHDRAWN, tenant=membership.tenant, about=invitation, name=invitation.email)
        invitation.delete(using=home())


def rename(tenant: Tenant, actor: Actor, *, name: str, was: str) -> Tenant:
    """Call it another name, if it still is called as the asker saw."""
    if told := names.trouble(name):
        raise ValidationError({"name": told})
    with alone(tenant, actor):
        row: Tenant = Tenant.objects.using(home()).get(pk=tenant.pk)
        if row.name == name:
            return row
        if row.name != was:
            text = _("The name was changed meanwhile: it is %(name)s now.") % {"name": row.name}
            raise StaleError(text, now=row.name)
        row.name = name
        row.save(update_fields=["name"])
        note(actor, Action.TENANT_CHANGED, tenant=row, about=row, called={"from": was, "to": name})
    return row


def name_of(user: Any) -> str:
    """What a person is called on the pages and in the log."""
    return "" if user is None else getattr(user, "email", "") or user.get_username()


def _still(membership: Membership) -> Membership:
    rows = Membership.objects.using(home()).select_related("tenant", "user")
    row = rows.filter(pk=membership.pk).first()
    if row is None:
        raise Refused(_("This member left or was removed meanwhile."))
    return row


def is_last_owner(membership: Membership) -> bool:
    """Owners who cannot sign in do not count."""
    if membership.role != Role.OWNER:
        return False
    owners = Membership.objects.using(home()).filter(tenant=membership.tenant_id).owners()
    return not owners.filter(user__is_active=True).exclude(pk=membership.pk).exists()


def _check_not_last_owner(membership: Membership) -> None:
    if is_last_owner(membership):
        raise Refused(_("A tenant needs an owner. Make somebody else one first."))


def _address(email: str) -> str:
    email = email.strip().lower()
    try:
        validate_email(email)
        names.check(email)
    except ValidationError as error:
        raise ValidationError({"email": _("Write an address such as bob@example.com.")}) from error
    return email


def _check_stranger(tenant: Tenant, email: str) -> None:
    if Membership.objects.using(home()).for_tenant(tenant).filter(user__email__iexact=email).exists():
        text = _("%(email)s is a member already. Change the role in the list of members.")
        raise ValidationError({"email": text % {"email": email}})
    if Invitation.objects.using(home()).for_tenant(tenant).open().filter(email=email).exists():
        text = _("%(email)s is invited already. Send the invitation again, or withdraw it to change the role.")
        raise ValidationError({"email": text % {"email": email}})


def _check_room(tenant: Tenant, *, but: Invitation | None = None) -> None:
    rows = Invitation.objects.using(home()).for_tenant(tenant).open()
    if (rows.exclude(pk=but.pk) if but else rows).count() >= MOST_OPEN:
        text = _("%(most)s invitations are open, and no more may be. Withdraw one first.")
        raise Refused(text % {"most": MOST_OPEN})
    sent = AuditEntry.objects.using(home()).for_tenant(tenant).filter(action=Action.MEMBER_INVITED)
    last = sent.values_list("at", flat=True)[MOST_A_DAY - 1 : MOST_A_DAY]
    if any(at > timezone.now() - timedelta(days=1) for at in last):
        text = _("%(most)s invitations were sent within a day, and no more may be. Try again tomorrow.")
        raise Refused(text % {"most": MOST_A_DAY})


def _check_invited(invitation: Invitation, user: AbstractBaseUser) -> None:
    if getattr(user, "email", "").lower() != invitation.email:
        text = _("This invitation is for %(email)s, and you are signed in as %(name)s.")
        raise WrongPersonError(text % {"email": invitation.email, "name": name_of(user)})
    if Membership.objects.using(home()).filter(tenant=invitation.tenant_id, user_id=user.pk).exists():
        raise MemberAlreadyError(invitation.tenant)


def _post(invitation: Invitation, actor: Actor, link: Link, **detail: Any) -> None:
    token = invitation.fill()
    invitation.save(using=home())
    detail |= {"role": invitation.role}
    note(actor, Action.MEMBER_INVITED, tenant=invitation.tenant, about=invitation, name=invitation.email, **detail)
    transaction.on_commit(partial(_mail, invitation, actor.name, link(token)), using=home(), robust=True)


def _mail(invitation: Invitation, inviter: str, link: str) -> None:
    # Nothing unseen, such as what turns the direction of the text after it.
    called = "".join(each for each in " ".join(invitation.tenant.name.split()) if each.isprintable())
    tenant = called[:NAME_SHOWN]
    role = Role(invitation.role)
    subject = _("%(inviter)s invites you to %(tenant)s") % {"inviter": inviter, "tenant": tenant}
    text = _("""\
%(inviter)s invites you to the webhooks of %(tenant)s, as %(role)s.
%(may)s

To accept, open this address within %(days)s days:

%(link)s

If you expected no invitation, do nothing: without you it comes to nothing.
""") % {
        "inviter": inviter,
        "tenant": tenant,
        "role": role.label,
        "may": MAY[role],
        "days": INVITED_FOR.days,
        "link": link,
    }
    if _is_sent(mail.EmailMessage(subject, text, to=[invitation.email])):
        same = Invitation.objects.using(home()).filter(pk=invitation.pk, digest=invitation.digest)
        same.update(mailed_at=Now())


def _is_sent(message: mail.EmailMessage) -> bool:
    """In a thread, as not every mail backend has a timeout; a daemon, as one
    that hangs must not keep the process from ending."""
    sent = threading.Event()
    thread = threading.Thread(target=_send, args=(message, sent), name="signalpost-invitation", daemon=True)
    thread.start()
    thread.join(MAIL_TIMEOUT)
    return sent.is_set()


def _send(message: mail.EmailMessage, sent: threading.Event) -> None:
    try:
        message.send()
    except Exception as error:  # noqa: BLE001 - whatever a mail backend raises, the inviter is told
        logger.error("No mail about an invitation: %s", type(error).__name__)
    else:
        sent.set()
    finally:
        connections.close_all()  # of this thread, where the backend has opened some

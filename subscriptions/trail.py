"""Writing the audit log, in the transaction of what it tells of, and reading it in sentences."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db.models import Model
from django.utils.html import format_html
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from subscriptions.conf import conf
from subscriptions.models import AuditEntry, Role, Subscription, Tenant, home

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.utils.safestring import SafeString

Action = AuditEntry.Action
NAME_LENGTH = AuditEntry._meta.get_field("name").max_length
ACTOR_LENGTH = AuditEntry._meta.get_field("actor").max_length
# What proxies write: 192.0.2.1, 192.0.2.1:4711, 2001:db8::1, [2001:db8::1]:4711, fe80::1%eth0.
HOST = re.compile(r"\[(?P<six>[^\]%]+)[^\]]*\](:\d+)?|(?P<four>[\d.]+)(:\d+)?|(?P<bare>[^%]+)(%.*)?")


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something: a person, a program with an API key, or the operator."""

    name: str
    user_id: int | None = None
    address: str | None = None
    as_operator: bool = False


SIGNALPOST = Actor("Signalpost")


def actor_of(request: HttpRequest, *, as_operator: bool = False) -> Actor:
    """The signed-in person, with the address they came from."""
    user = request.user
    name = getattr(user, "email", "") or user.get_username()
    return Actor(name, user.pk, address_of(request), as_operator)


def address_of(request: HttpRequest) -> str | None:
    """Where a request came from; None where the server does not know (a Unix socket).

    Anybody may write X-Forwarded-For, and each proxy adds to its right whom it
    saw. So of SIGNALPOST_TRUSTED_PROXIES of ours the outermost one's word
    counts, and what stands left of that is hearsay.
    """
    forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "")
    seen = [part.strip() for part in forwarded.split(",")] if forwarded else []
    if 0 < conf.trusted_proxies <= len(seen):
        return address(seen[-conf.trusted_proxies])
    return address(request.META.get("REMOTE_ADDR", ""))


def address(text: str) -> str | None:
    """An address as the database takes it: without port, brackets or zone; an IPv4 one in its own form."""
    found = HOST.fullmatch(text)
    if found is None:
        return None
    try:
        parsed = ipaddress.ip_address(found["six"] or found["four"] or found["bare"])
    except ValueError:
        return None
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


def note(
    actor: Actor,
    action: AuditEntry.Action,
    *,
    tenant: Tenant | None,
    about: Model | None = None,
    name: str = "",
    **detail: Any,
) -> AuditEntry:
    """Add an entry. `about` is what it was done to; `detail` goes to JSON and holds no secret."""
    return AuditEntry.objects.using(home()).create(
        tenant_id=tenant.pk if tenant else None,
        action=action,
        actor=actor.name[:ACTOR_LENGTH],
        user_id=actor.user_id,
        as_operator=actor.as_operator,
        address=actor.address,
        kind=(about._meta.model_name or "") if about is not None else "",
        number="" if about is None or about.pk is None else str(about.pk),
        name=(name or _name(about))[:NAME_LENGTH],
        detail=detail,
    )


def _name(about: Model | None) -> str:
    """Never a URL: its path and its query may be secrets of the receiver's."""
    if isinstance(about, Subscription):
        return about.name or about.host
    # A replay is called by its subscription; one of all of them has no name.
    return "" if about is None or about._meta.model_name == "replay" else str(about)


DEEDS = {
    Action.TENANT_CREATED: _("{actor} made the tenant {name}"),
    Action.TENANT_CHANGED: _("{actor} changed the tenant {name}"),
    Action.TENANT_DISABLED: _("{actor} turned the tenant {name} off"),
    Action.TENANT_ENABLED: _("{actor} turned the tenant {name} on"),
    Action.SUBSCRIPTION_CREATED: _("{actor} created the subscription {name}"),
    Action.SUBSCRIPTION_CHANGED: _("{actor} changed the subscription {name}"),
    Action.SUBSCRIPTION_DELETED: _("{actor} deleted the subscription {name}"),
    Action.SUBSCRIPTION_ENABLED: _("{actor} turned the subscription {name} on"),
    Action.SUBSCRIPTION_DISABLED: _("{actor} turned the subscription {name} off"),
    Action.SECRET_REVEALED: _("{actor} revealed the secret of {name}"),
    Action.SECRET_ROTATED: _("{actor} rotated the secret of {name}"),
    Action.TEST_SENT: _("{actor} sent a test event to {name}"),
    Action.DELIVERY_REPLAYED: _("{actor} replayed a delivery of {name}"),
    Action.DELIVERY_CANCELLED: _("{actor} cancelled a delivery of {name}"),
    Action.REPLAY_STARTED: _("{actor} started a replay: {name}"),
    Action.REPLAY_CANCELLED: _("{actor} cancelled a replay: {name}"),
    Action.KEY_CREATED: _("{actor} made the API key {name}"),
    Action.KEY_REVOKED: _("{actor} revoked the API key {name}"),
    Action.MEMBER_INVITED: _("{actor} invited {name} as {role}"),
    Action.INVITATION_WITHDRAWN: _("{actor} withdrew the invitation of {name}"),
    Action.MEMBER_JOINED: _("{actor} joined as {role}"),
    Action.MEMBER_CHANGED: _("{actor} made {name} {role}"),
    Action.MEMBER_REMOVED: _("{actor} removed {name}"),
    Action.MEMBER_LEFT: _("{actor} left"),
    Action.SUPPORT_LOOKED: _("{actor} looked at {name} as support"),
}


def sentence(entry: AuditEntry) -> SafeString:
    """Who did what, without a full stop, so that where and when may follow."""
    text = str(DEEDS.get(Action(entry.action), "{actor}: {name}")) if entry.action in Action else "{actor}: {name}"
    return format_html(
        text,
        actor=format_html("<b>{}</b>", entry.actor),
        name=format_html("<b>{}</b>", entry.name or _unnamed(entry)),
        role=_role(entry.detail),
    )


def _unnamed(entry: AuditEntry) -> str:
    if entry.kind == "replay":  # of no one subscription
        return gettext("all subscriptions")
    return f"{entry.kind} {entry.number}".strip()


def _role(detail: Any) -> str:
    value = detail.get("role") if isinstance(detail, dict) else None
    return str(Role(value).label) if value in Role.values else gettext("member")

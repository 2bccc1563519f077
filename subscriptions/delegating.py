"""Keys that make and revoke keys: what one may give to another, and which it
may take away. None that is stronger than itself, so that a key that leaks
opens no more than it did."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

from subscriptions import keys
from subscriptions.edits import Refused

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from subscriptions.models import ApiKey, Tenant
    from subscriptions.trail import Actor


def create(
    by: ApiKey,
    tenant: Tenant,
    actor: Actor,
    *,
    scopes: Collection[str],
    networks: Collection[str] = (),
    expires_at: datetime | None = None,
    **values: Any,
) -> tuple[ApiKey, str]:
    """As keys.create does. An operator's key makes keys of any tenant's, and
    gives no more than it has either."""
    if wrong := _beyond(by, scopes=scopes, networks=networks, expires_at=expires_at):
        raise ValidationError(wrong)
    return keys.create(tenant, actor, scopes=scopes, networks=networks, expires_at=expires_at, **values)


def revoke(by: ApiKey, key: ApiKey, actor: Actor) -> bool:
    """False where it was revoked already."""
    if by.tenant_id is not None and not set(key.scopes) <= set(by.scopes):
        raise Refused(_("That key may do more than yours. An owner revokes it on the page of the keys."))
    return keys.revoke(key, actor)


def _beyond(
    by: ApiKey, *, scopes: Collection[str], networks: Collection[str], expires_at: datetime | None
) -> dict[str, str]:
    wrong = {}
    if not set(scopes) <= set(by.scopes):
        wrong["scopes"] = _("Your key may give what it has: %(scopes)s.") % {"scopes": ", ".join(by.scopes)}
    if by.networks and not (networks and all(_is_inside(network, by.networks) for network in networks)):
        wrong["networks"] = _("Your key may give networks inside its own: %(networks)s.") % {
            "networks": ", ".join(by.networks)
        }
    if by.expires_at is not None and (expires_at is None or expires_at > by.expires_at):
        wrong["expires_at"] = _("Your key expires at %(when)s; one that it makes may not outlive it.") % {
            "when": by.expires_at.isoformat()
        }
    return wrong


def _is_inside(network: str, outer: Collection[str]) -> bool:
    inner: Any = ipaddress.ip_network(network)
    wider = [ipaddress.ip_network(each) for each in outer]
    return any(inner.version == each.version and inner.subnet_of(each) for each in wider)

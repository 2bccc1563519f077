"""API keys: made, shown once, checked, revoked.

As elsewhere, a deed that is not allowed raises Refused; a value that is wrong,
ValidationError by its field.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.db import OperationalError, connections, transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from subscriptions import names
from subscriptions.edits import Refused
from subscriptions.models import ApiKey, AuditEntry, Tenant, home, wishes_changed
from subscriptions.models.keys import digest, keys_changed
from subscriptions.owners import alone
from subscriptions.trail import Actor, note

if TYPE_CHECKING:
    from collections.abc import Collection
    from contextlib import AbstractContextManager

Action = AuditEntry.Action
Scope = ApiKey.Scope

MOST = 100  # live ones of a tenant
MOST_NETWORKS = 50
NAME_LENGTH = 200
# How exact `last_used_at` is: a busy key writes no row at each request.
USED_EVERY = timedelta(minutes=1)
OVERTAKEN = "40001"  # PostgreSQL's serialization_failure
# For how long a process goes by what it read of a key and its tenant; whether
# the key was revoked it asks each time.
GOES_BY = 1.0  # seconds
LIVE = "SELECT 1 FROM subscriptions_apikey WHERE digest = %s AND revoked_at IS NULL"
MOST_KNOWN = 1_000
SHAPE = re.compile(r"sp_(live|test)_[A-Za-z0-9_-]{43}")

# What a tenant's key may do. To operate is the operator's alone.
MAY = {
    Scope.READ: gettext_lazy("Sees subscriptions, topics, events and deliveries."),
    Scope.WRITE: gettext_lazy("Creates, changes and deletes subscriptions; sends test events, replays and cancels."),
    Scope.PUBLISH: gettext_lazy("Sends events of its own to your subscriptions."),
}
# What a key of the operator's may do: the same to every tenant, and to tenants.
OPERATOR_MAY = (*MAY, Scope.OPERATE)


def create(
    tenant: Tenant | None,
    actor: Actor,
    *,
    name: str,
    scopes: Collection[str],
    mode: str = ApiKey.Mode.LIVE,
    networks: Collection[str] = (),
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """A new key and its value, which cannot be had again. Without a tenant it
    is the operator's."""
    key = ApiKey(tenant=tenant, name=name.strip(), mode=mode, networks=[*networks], expires_at=expires_at)
    key.scopes = [scope.value for scope in OPERATOR_MAY if scope in scopes]
    key.created_by = actor.name
    with _alone(tenant, actor):
        _check(key, scopes)
        value = key.fill()
        key.save(using=home())
        detail = {"scopes": key.scopes, "mode": key.mode, "networks": key.networks}
        if expires_at:
            detail["expires_at"] = expires_at.isoformat()
        note(actor, Action.KEY_CREATED, tenant=tenant, about=key, **detail)
    return key, value


def revoke(key: ApiKey, actor: Actor) -> bool:
    """It opens nothing from the next request on. False where it was revoked already."""
    with _alone(key.tenant, actor):
        revoked = key.revoke()
        if revoked:
            note(actor, Action.KEY_REVOKED, tenant=key.tenant, about=key)
    return revoked


def _alone(tenant: Tenant | None, actor: Actor) -> AbstractContextManager[None]:
    return transaction.atomic(using=home()) if tenant is None else alone(tenant, actor)


def made_by(tenant: Tenant, *, user_id: int, name: str) -> QuerySet[ApiKey]:
    """Live ones that a person has made, by the audit log, as names and addresses
    change; or was called by `name` when it was made."""
    made = AuditEntry.objects.using(home()).for_tenant(tenant).filter(action=Action.KEY_CREATED, user_id=user_id)
    numbers = [int(number) for number in made.values_list("number", flat=True)]
    return ApiKey.objects.using(home()).for_tenant(tenant).live().filter(Q(pk__in=numbers) | Q(created_by=name))


def authenticate(value: str, address: str | None) -> ApiKey | None:
    """The live key whose value this is, used from where it may be.

    Found by its hash, so that how long it takes says nothing of the value.
    What a process has read of a key it goes by for up to `GOES_BY` seconds, but
    for what the process itself has changed, and for whether it was revoked.
    """
    if SHAPE.fullmatch(value) is None:
        return None
    held = digest(value)
    key = _remembered(held) or _read(held)
    if key is None or not is_allowed(key.networks, address):
        return None
    _use(key)
    return key


_known: dict[str, tuple[float, ApiKey]] = {}  # by hash: until when (time.monotonic())


def forget(**_kwargs: Any) -> None:
    """Read every key again, such as after one was revoked."""
    _known.clear()


def _remembered(held: str) -> ApiKey | None:
    until, key = _known.get(held, (0.0, None))
    if key is None or time.monotonic() >= until or not key.usable:
        return None
    # By hand: this takes a third of what the ORM takes to read the row.
    with connections[home()].cursor() as cursor:
        cursor.execute(LIVE, [held])
        return key if cursor.fetchone() else None


def _read(held: str) -> ApiKey | None:
    until = time.monotonic() + GOES_BY
    key = ApiKey.objects.using(home()).live().select_related("tenant").filter(digest=held).first()
    if key is None or not hmac.compare_digest(key.digest, held):
        return None
    if len(_known) >= MOST_KNOWN:
        _known.clear()
    _known[held] = (until, key)
    return key


keys_changed.connect(forget, dispatch_uid="signalpost.keys")
wishes_changed.connect(forget, dispatch_uid="signalpost.keys")


def is_allowed(networks: Collection[str], address: str | None) -> bool:
    """Whether `address` is in one of `networks`; none are no limit."""
    if not networks:
        return True
    if address is None:
        return False
    parsed = ipaddress.ip_address(address)
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    return any(parsed in ipaddress.ip_network(network) for network in networks)


def may(key: ApiKey, scope: Scope) -> bool:
    return scope in key.scopes


def actor_of(key: ApiKey, address: str | None) -> Actor:
    """A program with a key, for the audit log."""
    return Actor(str(key), address=address, as_operator=key.tenant_id is None)


def networks_in(text: str) -> list[str]:
    """One a line, or separated by commas; raises ValidationError with what would be right."""
    found = [_network(each) for each in re.split(r"[\s,;]+", text) if each]
    if len(found) > MOST_NETWORKS:
        raise ValidationError(_("Write at most %(most)s networks.") % {"most": MOST_NETWORKS})
    return [*dict.fromkeys(found)]


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        pass
    try:
        near = str(ipaddress.ip_network(text, strict=False))
    except ValueError as error:
        shown = _("%(text)s is no network. Write one such as 203.0.113.0/24 or 2001:db8::/32.")
        raise ValidationError(shown % {"text": text[:50]}) from error
    raise ValidationError(_("%(text)s is an address inside a network. Write %(near)s.") % {"text": text, "near": near})


def _check(key: ApiKey, scopes: Collection[str]) -> None:
    live = ApiKey.objects.using(home()).filter(tenant=key.tenant).live()
    wrong = {
        "name": _trouble_with_name(key.name, live),
        "scopes": _trouble_with_scopes(key, scopes),
        "mode": "" if key.mode in ApiKey.Mode.values else _("Choose live or test."),
        "expires_at": _("Choose a time that is still to come.") if key.expired else "",
    }
    if any(wrong.values()):
        raise ValidationError({field: text for field, text in wrong.items() if text})
    if live.count() >= MOST:
        raise Refused(_("There are %(most)s keys, and no more may be. Revoke one first.") % {"most": MOST})


def _trouble_with_scopes(key: ApiKey, scopes: Collection[str]) -> str:
    may = OPERATOR_MAY if key.tenant_id is None else tuple(MAY)
    return "" if scopes and set(scopes) <= set(may) else _("Choose from: %s.") % ", ".join(may)


def _trouble_with_name(name: str, live: QuerySet[ApiKey]) -> str:
    if not name:
        return _("Write what the key is for, such as Billing server.")
    if len(name) > NAME_LENGTH:
        return _("Write at most %(most)s characters.") % {"most": NAME_LENGTH}
    if told := names.trouble(name):
        return told
    # So that two clicks, or a page that is loaded again, make one key.
    if live.filter(name=name).exists():
        return _("There is a key of this name. Choose another, or revoke that one first.")
    return ""


def _use(key: ApiKey) -> None:
    now = timezone.now()
    if key.last_used_at is not None and key.last_used_at > now - USED_EVERY:
        return
    # Only where nobody was quicker; by UPDATE, as it is no event.
    before = Q(last_used_at=None) | Q(last_used_at__lte=now - USED_EVERY)
    try:
        # Of the plain queryset: nothing that anybody remembers is another for it.
        QuerySet(ApiKey, using=home()).filter(before, pk=key.pk).update(last_used_at=Now())
    except OperationalError as error:
        # Where a host isolates its transactions more, somebody who was quicker is an error.
        overtaken = getattr(error.__cause__, "sqlstate", "") == OVERTAKEN
        if not overtaken or transaction.get_connection(home()).in_atomic_block:
            raise
    key.last_used_at = now

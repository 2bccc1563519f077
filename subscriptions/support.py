"""The operator looks at a tenant's pages: for an hour, changing nothing, and on record.

It is of the session, so that it ends with it; what a tenant's pages allow is
said in `pages.access`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.utils import timezone

from subscriptions.models import AuditEntry, Tenant, home
from subscriptions.trail import actor_of, note

if TYPE_CHECKING:
    from django.http import HttpRequest

PERMISSION = "subscriptions.support_tenant"
LASTS = timedelta(hours=1)
SESSION_KEY = "signalpost_support"
# Of the tenant's newest entries, among which it is looked whether a page was
# already recorded: one that asks for itself every second is one entry.
NEWEST = 100


def may_look(user: Any) -> bool:
    return bool(user.is_active and user.is_staff and user.has_perm(PERMISSION))


def begin(request: HttpRequest, tenant: Tenant, *, reason: str) -> None:
    """The tenant sees the reason, too."""
    _note(request, tenant, name=str(tenant), reason=reason)
    request.session[SESSION_KEY] = {"tenant": tenant.pk, "since": timezone.now().timestamp()}


def end(request: HttpRequest) -> Tenant | None:
    """The tenant whose pages were looked at."""
    kept = request.session.pop(SESSION_KEY, None)
    found: Tenant | None = Tenant.objects.filter(pk=kept["tenant"]).first() if kept else None
    return found


def looks_at(request: HttpRequest, tenant: Tenant) -> bool:
    """Asked on every request: who has lost the permission looks no more."""
    kept = request.session.get(SESSION_KEY)
    return bool(kept and kept["tenant"] == tenant.pk and timezone.now() < _since(kept) + LASTS) and may_look(
        request.user
    )


def record(request: HttpRequest, tenant: Tenant) -> None:
    """That a page was looked at, once until the hour is over."""
    since = _since(request.session[SESSION_KEY])
    entries = AuditEntry.objects.using(home()).for_tenant(tenant).order_by("-id")
    newest = entries.values_list("at", "action", "user_id", "name")[:NEWEST]
    seen = {name for at, action, user, name in newest if at >= since and (action, user) == (LOOKED, request.user.pk)}
    if request.path not in seen:
        _note(request, tenant, name=request.path)


LOOKED = AuditEntry.Action.SUPPORT_LOOKED


def _note(request: HttpRequest, tenant: Tenant, *, name: str, **detail: str) -> None:
    note(actor_of(request, as_operator=True), LOOKED, tenant=tenant, about=tenant, name=name, **detail)


def _since(kept: dict[str, Any]) -> datetime:
    return datetime.fromtimestamp(kept["since"], tz=UTC)

"""Writing the audit log, in the transaction of what it tells of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db.models import Model

from subscriptions.models import AuditEntry, Subscription, Tenant, home

if TYPE_CHECKING:
    from django.http import HttpRequest

NAME_LENGTH = AuditEntry._meta.get_field("name").max_length


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something: a person, a program with an API key, or the operator."""

    name: str
    user_id: int | None = None
    address: str | None = None
    as_operator: bool = False


SIGNALPOST = Actor("Signalpost")


def actor_of(request: HttpRequest, *, as_operator: bool = False) -> Actor:
    """The signed-in person, with the address that the server saw."""
    user = request.user
    name = getattr(user, "email", "") or user.get_username()
    return Actor(name, user.pk, request.META.get("REMOTE_ADDR") or None, as_operator)


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
        actor=actor.name,
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
    return "" if about is None else str(about)

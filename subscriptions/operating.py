"""What the operator's programs do to tenants: make one, and call it otherwise.
Turning one off is disabling's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from subscriptions.edits import Refused
from subscriptions.models import AuditEntry, Tenant, home
from subscriptions.trail import note

if TYPE_CHECKING:
    from subscriptions.trail import Actor

# As the audit log calls them.
WORDS = {"name": "called"}


def create(actor: Actor, *, slug: str, name: str, key: str | None = None) -> Tenant:
    """`key` is what the host project calls it. Nobody owns it yet: invite somebody."""
    tenant = Tenant(slug=slug, name=name.strip(), key=key or None)
    with transaction.atomic(using=home()):
        _save(tenant)
        note(actor, AuditEntry.Action.TENANT_CREATED, tenant=tenant, about=tenant)
    return tenant


def change(tenant: Tenant, actor: Actor, **values: str | None) -> Tenant:
    """Its `name` and its `key`; what is not given stays."""
    with transaction.atomic(using=home()):
        rows = Tenant.objects.using(home()).select_for_update(no_key=True)
        row: Tenant | None = rows.filter(pk=tenant.pk).first()
        if row is None:
            raise Refused(_("The tenant was deleted meanwhile."))
        detail = _set(row, values)
        if detail:
            _save(row, update_fields=[*values])
            note(actor, AuditEntry.Action.TENANT_CHANGED, tenant=row, about=row, **detail)
    return row


def _set(row: Tenant, values: dict[str, str | None]) -> dict[str, Any]:
    """From → to, of what is another one."""
    detail = {}
    for field, value in values.items():
        before, after = getattr(row, field), (value or "").strip() or None
        if field == "name":
            after = after or ""
        if before != after:
            setattr(row, field, after)
            detail[WORDS.get(field, field)] = {"from": before, "to": after}
    return detail


def _save(tenant: Tenant, **options: Any) -> None:
    tenant.full_clean()
    try:
        with transaction.atomic(using=home()):
            tenant.save(using=home(), **options)
    except IntegrityError:  # somebody else was quicker
        raise ValidationError({"slug": _("Another tenant has this slug or this key.")}) from None

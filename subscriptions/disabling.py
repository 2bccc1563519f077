"""Turning a whole tenant off, and on again: the operator's switch.

Its subscriptions are turned off with it, one by one, as each is an event.
What is captured meanwhile finds none that listens, and what is under way waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import transaction
from django.db.models.functions import Now

from subscriptions.models import AuditEntry, Subscription, Tenant, at_once, home
from subscriptions.trail import note

if TYPE_CHECKING:
    from subscriptions.models import SubscriptionQuerySet
    from subscriptions.trail import Actor

BY = Subscription.DisabledBy.TENANT


def listening(tenant: Tenant) -> SubscriptionQuerySet:
    """What `disable` would turn off."""
    return Subscription.objects.for_tenant(tenant).enabled()


def waiting(tenant: Tenant) -> SubscriptionQuerySet:
    """What `enable` would turn on."""
    return Subscription.objects.for_tenant(tenant).filter(disabled_by=BY)


def disable(tenant: Tenant, actor: Actor, *, reason: str) -> bool:
    """False where it already was off."""
    with transaction.atomic(using=home()):
        row = _locked(tenant)
        if row is None or row.disabled_at is not None:
            return False
        subscriptions = list(listening(row).using(home()))
        with at_once():
            _switch(row, disabled_at=Now(), disabled_reason=reason)
            done = sum(subscription.disable(reason=reason, by=BY) for subscription in subscriptions)
        note(actor, AuditEntry.Action.TENANT_DISABLED, tenant=row, about=row, reason=reason, subscriptions=done)
    return True


def enable(tenant: Tenant, actor: Actor) -> bool:
    """False where it already was on. What a member, the engine or the operator
    had turned off before stays off. What is turned on at once hears nothing of
    the others, as none of them listened before."""
    with transaction.atomic(using=home()):
        row = _locked(tenant)
        if row is None or row.disabled_at is None:
            return False
        subscriptions = list(waiting(row).using(home()))
        with at_once():
            _switch(row, disabled_at=None, disabled_reason="")
            done = sum(subscription.enable() for subscription in subscriptions)
        note(actor, AuditEntry.Action.TENANT_ENABLED, tenant=row, about=row, subscriptions=done)
    return True


def _locked(tenant: Tenant) -> Tenant | None:
    """With all its subscriptions, in the order of their numbers, and the
    revision after them: as everybody who changes one."""
    row: Tenant | None = Tenant.objects.using(home()).select_for_update(no_key=True).filter(pk=tenant.pk).first()
    rows = Subscription.objects.using(home()).for_tenant(tenant).order_by("pk")
    list(rows.select_for_update(no_key=True).values_list("pk", flat=True))
    return row


def _switch(tenant: Tenant, **values: object) -> None:
    for name, value in values.items():
        setattr(tenant, name, value)
    tenant.save(update_fields=list(values))

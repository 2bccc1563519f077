"""Who did what to a tenant's wishes, from where. Rows are added, and never changed."""

from __future__ import annotations

from typing import Any, NoReturn, Self

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from subscriptions.models.tenants import Tenant

# The database says so, too: see the migration.
ONLY_ADDED = "An audit log is only added to."


class AuditEntryQuerySet(models.QuerySet["AuditEntry"]):
    def for_tenant(self, tenant: Tenant) -> Self:
        return self.filter(tenant_id=tenant.pk)

    def update(self, **kwargs: Any) -> NoReturn:
        raise TypeError(ONLY_ADDED)

    def delete(self) -> NoReturn:
        raise TypeError(ONLY_ADDED)

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]

    def bulk_create(self, *args: Any, update_conflicts: bool = False, **kwargs: Any) -> list[AuditEntry]:
        if update_conflicts:
            raise TypeError(ONLY_ADDED)
        return super().bulk_create(*args, **kwargs)

    def bulk_update(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(ONLY_ADDED)

    def _raw_delete(self, using: str | None) -> NoReturn:
        raise TypeError(ONLY_ADDED)


class AuditEntry(models.Model):
    """Names and numbers as they were, without foreign keys: an entry outlives
    what it tells of."""

    class Action(models.TextChoices):
        TENANT_CREATED = "tenant.created", _("Made the tenant")
        TENANT_CHANGED = "tenant.changed", _("Changed the tenant")
        TENANT_DISABLED = "tenant.disabled", _("Turned the tenant off")
        TENANT_ENABLED = "tenant.enabled", _("Turned the tenant on")
        SUBSCRIPTION_CREATED = "subscription.created", _("Created the subscription")
        SUBSCRIPTION_CHANGED = "subscription.changed", _("Changed the subscription")
        SUBSCRIPTION_DELETED = "subscription.deleted", _("Deleted the subscription")
        SUBSCRIPTION_ENABLED = "subscription.enabled", _("Turned the subscription on")
        SUBSCRIPTION_DISABLED = "subscription.disabled", _("Turned the subscription off")
        SECRET_REVEALED = "secret.revealed", _("Revealed the secret")
        SECRET_ROTATED = "secret.rotated", _("Rotated the secret")
        TEST_SENT = "test.sent", _("Sent a test event")
        DELIVERY_REPLAYED = "delivery.replayed", _("Replayed the delivery")
        DELIVERY_CANCELLED = "delivery.cancelled", _("Cancelled the delivery")
        REPLAY_STARTED = "replay.started", _("Started a replay")
        REPLAY_CANCELLED = "replay.cancelled", _("Cancelled a replay")
        KEY_CREATED = "key.created", _("Made an API key")
        KEY_REVOKED = "key.revoked", _("Revoked an API key")
        MEMBER_INVITED = "member.invited", _("Invited")
        INVITATION_WITHDRAWN = "invitation.withdrawn", _("Withdrew an invitation")
        MEMBER_JOINED = "member.joined", _("Joined")
        MEMBER_CHANGED = "member.changed", _("Changed the role")
        MEMBER_REMOVED = "member.removed", _("Removed")
        MEMBER_LEFT = "member.left", _("Left")
        SUPPORT_LOOKED = "support.looked", _("Looked as support")

    tenant_id = models.BigIntegerField(null=True, blank=True)
    at = models.DateTimeField(default=timezone.now)
    action = models.CharField(max_length=32, choices=Action)
    # Who: a person's name, an API key's beginning, or "Signalpost" itself.
    actor = models.CharField(max_length=254)
    user_id = models.BigIntegerField(null=True, blank=True)
    as_operator = models.BooleanField(default=False)
    address = models.GenericIPAddressField(null=True, blank=True)
    # To what: "subscription" and its number, and what it was called.
    kind = models.CharField(max_length=32, blank=True)
    number = models.CharField(max_length=40, blank=True)
    name = models.CharField(max_length=254, blank=True)
    # More about it; never a secret.
    detail = models.JSONField(default=dict, blank=True)

    objects = AuditEntryQuerySet.as_manager()

    class Meta:
        verbose_name_plural = _("audit entries")
        ordering = ["-id"]
        indexes = [
            # The page of the log, and the same by action and by person.
            models.Index(fields=["tenant_id", "-id"], name="audit_by_tenant"),
            models.Index(fields=["tenant_id", "action", "-id"], name="audit_by_action"),
            models.Index(fields=["tenant_id", "actor", "-id"], name="audit_by_actor"),
        ]
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.actor}: {self.get_action_display()} {self.name}".strip()

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise TypeError(ONLY_ADDED)
        # Without it, a number that is taken would be written over.
        super().save(*args, **{**kwargs, "force_insert": True})

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(ONLY_ADDED)

"""What programs of a tenant sign in with."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any, Self

from django.db import models, transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.dispatch import Signal
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from subscriptions.models.tenants import Tenant
from subscriptions.models.wish import home

# 256 random bits need no salt and no slow hash.
RANDOM_BYTES = 32
SHOWN = 12  # characters of a key by which people tell it from others


# Sent after any change to a key, committed or not.
keys_changed = Signal()


class ApiKeyQuerySet(models.QuerySet["ApiKey"]):
    def for_tenant(self, tenant: Tenant) -> Self:
        return self.filter(tenant=tenant)

    def live(self) -> Self:
        return self.filter(Q(expires_at=None) | Q(expires_at__gt=Now()), revoked_at=None)

    def update(self, **kwargs: Any) -> int:
        rows = super().update(**kwargs)
        keys_changed.send(self.model)
        return rows

    def delete(self) -> tuple[int, dict[str, int]]:
        deleted = super().delete()
        keys_changed.send(self.model)
        return deleted


class ApiKey(models.Model):
    """Shown once; only its hash is kept."""

    class Mode(models.TextChoices):
        LIVE = "live", _("live")
        TEST = "test", _("test")

    class Scope(models.TextChoices):
        READ = "read", _("read")
        WRITE = "write", _("write")
        PUBLISH = "publish", _("publish")
        OPERATE = "operate", _("operate")

    # An operator's key has none.
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="api_keys", null=True, blank=True)
    name = models.CharField(max_length=200)
    mode = models.CharField(max_length=8, choices=Mode, default=Mode.LIVE)
    scopes = models.JSONField(default=list)
    networks = models.JSONField(default=list, blank=True)  # CIDR; empty: from anywhere
    beginning = models.CharField(max_length=32, editable=False)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.CharField(max_length=254, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    objects = ApiKeyQuerySet.as_manager()

    class Meta:
        verbose_name = _("API key")
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.name} ({self.beginning}…)"

    def save(self, *args: Any, **kwargs: Any) -> None:
        super().save(*args, **kwargs)
        keys_changed.send(type(self))

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        deleted = super().delete(*args, **kwargs)
        keys_changed.send(type(self))
        return deleted

    def fill(self) -> str:
        """Give it a value, and return that: it cannot be had again."""
        value = f"sp_{self.mode}_{secrets.token_urlsafe(RANDOM_BYTES)}"
        self.beginning = value[:SHOWN]
        self.digest = digest(value)
        return value

    def revoke(self) -> bool:
        """False where it already was. By `save()`, as an UPDATE would be no event."""
        with transaction.atomic(using=home()):
            rows = type(self).objects.using(home()).select_for_update(no_key=True)
            row = rows.filter(pk=self.pk, revoked_at=None).first()
            if row is None:
                return False
            row.revoked_at = timezone.now()
            row.save(update_fields=["revoked_at"])
        self.revoked_at = row.revoked_at
        return True

    @property
    def expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= timezone.now()

    @property
    def usable(self) -> bool:
        return self.revoked_at is None and not self.expired


def digest(value: str) -> str:
    return hashlib.sha256(value.encode(errors="replace")).hexdigest()

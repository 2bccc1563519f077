"""The built-in receiver: what it got for each tenant."""

from __future__ import annotations

from typing import Self

from django.db import models

from subscriptions.models import Subscription, Tenant


class InboxRequestQuerySet(models.QuerySet["InboxRequest"]):
    def for_tenant(self, tenant: Tenant) -> Self:
        return self.filter(tenant=tenant)


class InboxRequest(models.Model):
    """One request that arrived in a tenant's inbox."""

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="inbox_requests", db_index=False)
    subscription = models.ForeignKey(Subscription, models.CASCADE, related_name="inbox_requests")
    received_at = models.DateTimeField()
    webhook_id = models.CharField(max_length=64)
    # As on the wire, like those of an attempt.
    headers = models.BinaryField()
    body = models.BinaryField()
    # What the signature was found to be: empty where it verified.
    refusal = models.CharField(max_length=200, blank=True)

    objects = InboxRequestQuerySet.as_manager()

    class Meta:
        # The page, and what is older than the last fifty.
        indexes = [models.Index(fields=["tenant", "-id"], name="inbox_by_tenant")]
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.webhook_id} in the inbox of {self.tenant}"

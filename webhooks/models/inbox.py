"""The built-in receiver: what it got for each tenant."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Self

from django.db import connections, models

from subscriptions.models import Subscription, Tenant

if TYPE_CHECKING:
    from collections.abc import Iterable

KEPT = 50  # requests of one tenant


class InboxRequestQuerySet(models.QuerySet["InboxRequest"]):
    def for_tenant(self, tenant: Tenant) -> Self:
        return self.filter(tenant=tenant)

    def keep(self, arrived: Iterable[InboxRequest]) -> None:
        """Write down what arrived, and forget all but the newest of its tenants; in the open transaction."""
        by_tenant: defaultdict[int, list[InboxRequest]] = defaultdict(list)
        for request in arrived:
            request.pk = None  # of a transaction that was rolled back
            by_tenant[request.tenant_id].append(request)
        self.bulk_create([request for requests in by_tenant.values() for request in requests[-KEPT:]])
        for tenant in sorted(by_tenant):
            rows = self.filter(tenant=tenant).order_by("-pk")
            if connections[self.db].features.has_select_for_update_skip_locked:
                rows = rows.select_for_update(skip_locked=True)
            old = list(rows.values_list("pk", flat=True)[KEPT:])
            if old:
                # `delete()` would load every body where the host listens to all deletes.
                self.filter(pk__in=old)._raw_delete(self.db)


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

"""What was published under which name, so that it is published once."""

from __future__ import annotations

from datetime import timedelta
from typing import Self

from django.db import models
from django.db.models import Q

from subscriptions.models import Tenant

# For how long the same name means the same event; `prune` deletes them after it.
REMEMBERED = timedelta(days=7)
LONGEST_NAME = 255  # characters that a program may choose


class ReceiptQuerySet(models.QuerySet["Receipt"]):
    def for_tenant(self, tenant: Tenant | None) -> Self:
        """Of keys of its own; of none: of the operator's."""
        return self.filter(tenant=tenant)


class Receipt(models.Model):
    """An Idempotency-Key, or the id that a program gave its event, and what was
    answered to it first. Written in the transaction of the event."""

    # Whose key published it; none is the operator's. The database does not
    # check it: a tenant that is deleted meanwhile fails nobody's request.
    tenant = models.ForeignKey(
        Tenant, models.CASCADE, related_name="receipts", null=True, blank=True, db_constraint=False, db_index=False
    )
    # Which of the two it is, and for an id whose event it is; see `publishing`.
    name = models.CharField(max_length=LONGEST_NAME + 45)
    # Of the request, as another one under the same key is a mistake.
    fingerprint = models.BinaryField()
    answer = models.BinaryField()  # JSON
    created_at = models.DateTimeField()

    objects = ReceiptQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "name"], name="receipt_once"),
            models.UniqueConstraint(fields=["name"], name="receipt_of_operator_once", condition=Q(tenant=None)),
        ]
        indexes = [
            # prune: the oldest.
            models.Index(fields=["created_at"], name="receipt_by_age"),
        ]
        default_permissions = ()

    def __str__(self) -> str:
        return self.name

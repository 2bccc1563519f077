"""What happened."""

from __future__ import annotations

import os
import time
import uuid
from typing import Self

from django.db import models
from django.db.models import Q

from subscriptions.models import Tenant


def new_event_id() -> uuid.UUID:
    """A UUID that sorts by time (RFC 9562, version 7, method 3): milliseconds,
    4,096ths of one, so that one process's ids are in the order in which it
    made them, and 62 random bits."""
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    part = (rest << 12) // 1_000_000
    random = int.from_bytes(os.urandom(8), "big") & (1 << 62) - 1
    return uuid.UUID(int=milliseconds << 80 | 0x7 << 76 | part << 64 | 0x2 << 62 | random)


class EventQuerySet(models.QuerySet["Event"]):
    def for_tenant(self, tenant: Tenant) -> Self:
        """The tenant's own, and those that concern every tenant."""
        return self.filter(Q(tenant=tenant) | Q(tenant=None))

    def waiting(self) -> Self:
        """Not fanned out yet, oldest first."""
        return self.filter(fanned_out_at=None).order_by("id")


class Event(models.Model):
    """What happened, with the exact bytes that every attempt sends.

    Written in the transaction, and on the alias, of the change itself. With
    several databases an event may therefore begin its life away from home
    and be carried there (`deliveries.relay`); hence a key made here and a
    tenant that the database does not check.
    """

    id = models.UUIDField(primary_key=True, default=new_event_id, editable=False)
    tenant = models.ForeignKey(
        Tenant,
        models.CASCADE,
        related_name="events",
        null=True,
        blank=True,
        db_constraint=False,
        db_index=False,  # `event_by_tenant` begins with it
        help_text="Empty: it concerns every tenant.",
    )
    topic = models.CharField(max_length=200)
    # Names of the exposed fields that changed; null where no save was involved.
    changed = models.JSONField(null=True, blank=True)
    body = models.BinaryField()
    # Why it is not sent at all, such as a body over the limit.
    error = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField()
    fanned_out_at = models.DateTimeField(null=True, blank=True)
    # The newest subscription that its writer knew of: that it was there when
    # this happened, no clock can deny.
    newest_subscription = models.BigIntegerField(null=True, blank=True, editable=False)

    objects = EventQuerySet.as_manager()

    class Meta:
        indexes = [
            # The drain: what is still to be fanned out.
            models.Index(fields=["id"], name="event_waiting", condition=Q(fanned_out_at=None)),
            # The fan-out: whose turn it is, and what of theirs is oldest.
            models.Index(fields=["tenant", "id"], name="event_turn", condition=Q(fanned_out_at=None)),
            # Pages and the admin: a tenant's events, newest first.
            models.Index(fields=["tenant", "-created_at"], name="event_by_tenant"),
            # prune: the oldest events of all tenants.
            models.Index(fields=["created_at"], name="event_by_age"),
        ]

    def __str__(self) -> str:
        return f"{self.topic} {self.webhook_id}"

    @property
    def webhook_id(self) -> str:
        """The `webhook-id` of every attempt; no dot, as the signature joins by dots."""
        return f"evt_{self.id.hex}"

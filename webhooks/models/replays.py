"""Sending many deliveries again, or for the first time, in the background."""

from __future__ import annotations

from typing import Self

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from subscriptions.models import Subscription, Tenant


class ReplayQuerySet(models.QuerySet["Replay"]):
    def for_tenant(self, tenant: Tenant) -> Self:
        return self.filter(tenant=tenant)

    def running(self) -> Self:
        """Not all of it is queued yet, oldest first."""
        return self.filter(queued_at=None, cancelled_at=None).order_by("id")


class Replay(models.Model):
    """One wish to send many: carried out by the workers in small steps, each
    from `position` on, so that it survives them."""

    class Kind(models.TextChoices):
        FAILED = "failed", _("what failed")
        FILTERED = "filtered", _("what the filters matched")
        MISSED = "missed", _("what was never attempted")

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="replays")
    subscription = models.ForeignKey(
        Subscription, models.CASCADE, related_name="replays", null=True, blank=True, help_text="Empty: all of them."
    )
    kind = models.CharField(max_length=16, choices=Kind)
    # As in the URL of the list of deliveries.
    filters = models.JSONField(default=dict, blank=True)
    since = models.DateTimeField(null=True, blank=True)
    until = models.DateTimeField()
    # How many there were when it was asked for, and how many are queued by now.
    expected = models.PositiveIntegerField(default=0)
    queued = models.PositiveIntegerField(default=0)
    # The last delivery's, or event's, key that was looked at.
    position = models.CharField(max_length=40, blank=True)
    by = models.CharField(max_length=150)
    created_at = models.DateTimeField()
    queued_at = models.DateTimeField(null=True, blank=True)
    cancelled_at = models.DateTimeField(null=True, blank=True)

    objects = ReplayQuerySet.as_manager()

    class Meta:
        indexes = [
            # Pages: a tenant's, newest first.
            models.Index(fields=["tenant", "-id"], name="replay_by_tenant"),
            # The drain: what is still to be queued.
            models.Index(fields=["id"], name="replay_running", condition=Q(queued_at=None, cancelled_at=None)),
        ]

    def __str__(self) -> str:
        return f"replay {self.pk}"

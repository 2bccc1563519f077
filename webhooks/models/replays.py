"""Sending many deliveries again, or for the first time, in the background."""

from __future__ import annotations

import uuid
from typing import Self

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from subscriptions.models import Subscription, Tenant


class ReplayQuerySet(models.QuerySet["Replay"]):
    def for_tenant(self, tenant: Tenant) -> Self:
        return self.filter(tenant=tenant)

    def running(self) -> Self:
        """Those that the workers have something to do for: to queue what is
        meant or, once it is cancelled, to take it back."""
        return self.filter(settled_at=None)


class Replay(models.Model):
    """One wish to send many: carried out by the workers in small steps, each
    from `position` on, so that it survives them."""

    class Kind(models.TextChoices):
        FAILED = "failed", _("what failed")
        FILTERED = "filtered", _("what the filters matched")
        MISSED = "missed", _("what was never attempted")

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="replays")
    subscription = models.ForeignKey(
        Subscription, models.CASCADE, related_name="replays", null=True, blank=True, help_text=_("Empty: all of them.")
    )
    kind = models.CharField(max_length=16, choices=Kind)
    # As in the URL of the list of deliveries.
    filters = models.JSONField(default=dict, blank=True)
    since = models.DateTimeField(null=True, blank=True)
    until = models.DateTimeField()
    # How many there were when it was asked for, null where counting them would
    # have taken too long; how many were queued, and taken back.
    expected = models.PositiveIntegerField(null=True, blank=True)
    queued = models.PositiveIntegerField(default=0)
    taken_back = models.PositiveIntegerField(default=0)
    # The last delivery's, or event's, key that was looked at.
    position = models.CharField(max_length=80, blank=True)
    by = models.CharField(max_length=150)
    # The form that asked for it: sent twice, it is one replay.
    token = models.UUIDField(default=uuid.uuid4, editable=False)
    created_at = models.DateTimeField()
    cancelled_at = models.DateTimeField(null=True, blank=True)
    # Since when all of it is queued or, once it is cancelled, taken back.
    settled_at = models.DateTimeField(null=True, blank=True)

    objects = ReplayQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "token"], name="replay_once")]
        indexes = [
            # Pages: a tenant's, newest first.
            models.Index(fields=["tenant", "-id"], name="replay_by_tenant"),
            # The drain: what there is still to do.
            models.Index(fields=["id"], name="replay_running", condition=Q(settled_at=None)),
        ]

    def __str__(self) -> str:
        return f"replay {self.pk}"

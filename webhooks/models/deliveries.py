"""What is sent, to whom, and what must wait."""

from __future__ import annotations

from typing import Self

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from subscriptions.models import Subscription, Tenant
from webhooks.models.events import Event
from webhooks.models.replays import Replay


class DeliveryQuerySet(models.QuerySet["Delivery"]):
    def for_tenant(self, tenant: Tenant) -> Self:
        return self.filter(tenant=tenant)

    def open(self) -> Self:
        """Not at an end: there is, or will be, something to send."""
        return self.filter(status__in=Delivery.OPEN)

    def failed(self) -> Self:
        return self.filter(status=Delivery.Status.FAILED)

    def free(self) -> Self:
        """Held by no worker."""
        return self.filter(Q(leased_until=None) | Q(leased_until__lte=Now()))

    def due(self) -> Self:
        """May be claimed now, by the database's clock."""
        return self.open().free().filter(next_attempt_at__lte=Now(), subscription__disabled_at=None)


class Delivery(models.Model):
    """One event for one subscription.

    `lease` counts the claims; it is the token of the claim that holds the
    delivery until `leased_until`. A worker that wakes up late holds an older
    number, and can no longer record a failure.
    """

    class Status(models.TextChoices):
        PENDING = "pending", _("Pending")
        RETRYING = "retrying", _("Retrying")
        DELIVERED = "delivered", _("Delivered")
        FAILED = "failed", _("Failed")
        CANCELLED = "cancelled", _("Cancelled")

    OPEN = (Status.PENDING, Status.RETRYING)

    class Trigger(models.TextChoices):
        SCHEDULE = "schedule", _("Schedule")
        MANUAL = "manual", _("Manual")

    # Without an index of its own: `delivery_once` begins with it.
    event = models.ForeignKey(Event, models.CASCADE, related_name="deliveries", db_index=False)
    subscription = models.ForeignKey(Subscription, models.CASCADE, related_name="deliveries", db_index=False)
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="deliveries", db_index=False)
    status = models.CharField(max_length=16, choices=Status, default=Status.PENDING)
    created_at = models.DateTimeField()
    next_attempt_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    # Attempts in all, and how many of them the present run of the schedule
    # has behind it: a replay starts the schedule afresh.
    attempt_count = models.PositiveIntegerField(default=0)
    schedule_step = models.PositiveIntegerField(default=0)
    lease = models.PositiveIntegerField(default=0)
    leased_until = models.DateTimeField(null=True, blank=True)
    # Whose wish the next attempt is.
    trigger = models.CharField(max_length=16, choices=Trigger, default=Trigger.SCHEDULE)
    triggered_by = models.CharField(max_length=150, blank=True)
    # The last bulk replay that it was part of.
    replay = models.ForeignKey(
        Replay, models.SET_NULL, related_name="deliveries", null=True, blank=True, editable=False, db_index=False
    )
    # What that replay found it as, to which its cancellation takes it back.
    replayed_from = models.CharField(max_length=16, choices=Status, blank=True, editable=False, db_default="")

    objects = DeliveryQuerySet.as_manager()

    class Meta:
        verbose_name_plural = _("deliveries")
        constraints = [models.UniqueConstraint(fields=["event", "subscription"], name="delivery_once")]
        indexes = [
            # The drain: per subscription, what is due. The metrics: how much of which status.
            models.Index(
                fields=["subscription", "next_attempt_at", "status"],
                name="delivery_due",
                condition=Q(status__in=["pending", "retrying"]),
            ),
            # Pages and the admin: newest first, of a tenant and of a subscription.
            models.Index(fields=["tenant", "-id"], name="delivery_by_tenant"),
            models.Index(fields=["subscription", "-id"], name="delivery_by_subscription"),
            # Pages: the few of a tenant that are in a state, and what failed of a subscription.
            models.Index(fields=["tenant", "status", "-id"], name="delivery_by_status"),
            models.Index(fields=["subscription", "-id"], name="delivery_failed_to", condition=Q(status="failed")),
            # The progress of a bulk replay.
            models.Index(fields=["replay", "status"], name="delivery_by_replay", condition=Q(replay__isnull=False)),
            # The admin and `replay`: the few that failed, out of the many that did not.
            models.Index(fields=["-id"], name="delivery_failed", condition=Q(status="failed")),
            # Pages: how many have failed since a time, of a tenant and of a subscription.
            models.Index(
                fields=["tenant", "subscription", "ended_at"],
                name="delivery_failed_since",
                condition=Q(status="failed"),
            ),
        ]
        permissions = [
            ("replay_delivery", "Can replay deliveries"),
            ("cancel_delivery", "Can cancel deliveries"),
        ]

    def __str__(self) -> str:
        return f"delivery {self.pk}"

    @property
    def is_open(self) -> bool:
        return self.status in self.OPEN

    @property
    def is_due(self) -> bool:
        return self.next_attempt_at is not None and self.next_attempt_at <= timezone.now()

    @property
    def in_flight(self) -> bool:
        """A worker holds it, by this machine's clock."""
        return self.is_open and self.leased_until is not None and self.leased_until > timezone.now()


class Throttle(models.Model):
    """Why a subscription must wait, although something is due. Without a row it need not."""

    subscription = models.OneToOneField(Subscription, models.CASCADE, primary_key=True, related_name="throttle")
    # The rate limit: from when on requests are earned again.
    next_at = models.DateTimeField(null=True, blank=True)
    # The breaker: failures in a row, since when, and the earliest moment of
    # the next probe; without one, requests flow.
    failures = models.PositiveIntegerField(default=0)
    failing_since = models.DateTimeField(null=True, blank=True)
    probe_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"throttle of {self.subscription}"


class Overview(Throttle):
    """The operator's page in the admin, and the permission to see it."""

    class Meta:
        proxy = True
        default_permissions = ("view",)
        verbose_name = verbose_name_plural = _("overview")

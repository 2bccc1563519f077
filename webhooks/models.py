"""Traffic: what happened, for whom, and what became of it."""

from __future__ import annotations

import os
import time
import uuid
from typing import Self

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from subscriptions.models import Subscription, Tenant


def new_event_id() -> uuid.UUID:
    """A UUID that sorts by time (RFC 9562, version 7): milliseconds, then 74 random bits."""
    value = int.from_bytes((time.time_ns() // 1_000_000).to_bytes(6, "big") + os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return uuid.UUID(int=value)


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
        PENDING = "pending"
        RETRYING = "retrying"
        DELIVERED = "delivered"
        FAILED = "failed"
        CANCELLED = "cancelled"

    OPEN = (Status.PENDING, Status.RETRYING)

    class Trigger(models.TextChoices):
        SCHEDULE = "schedule"
        MANUAL = "manual"

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

    objects = DeliveryQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "deliveries"
        constraints = [models.UniqueConstraint(fields=["event", "subscription"], name="delivery_once")]
        indexes = [
            # The drain: per subscription, what is due.
            models.Index(
                fields=["subscription", "next_attempt_at"],
                name="delivery_due",
                condition=Q(status__in=["pending", "retrying"]),
            ),
            # Pages and the admin: newest first, of a tenant and of a subscription.
            models.Index(fields=["tenant", "-id"], name="delivery_by_tenant"),
            models.Index(fields=["subscription", "-id"], name="delivery_by_subscription"),
            # The admin and `replay`: the few that failed, out of the many that did not.
            models.Index(fields=["-id"], name="delivery_failed", condition=Q(status="failed")),
        ]
        permissions = [
            ("replay_delivery", "Can replay deliveries"),
            ("cancel_delivery", "Can cancel deliveries"),
        ]

    def __str__(self) -> str:
        return f"delivery {self.pk}"


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


class AttemptQuerySet(models.QuerySet["Attempt"]):
    def for_tenant(self, tenant: Tenant) -> Self:
        return self.filter(delivery__tenant=tenant)


class Attempt(models.Model):
    """One HTTP request and what came back.

    The row is written with the claim, before the request, so that a crash
    leaves evidence: an attempt without `ended_at` is in flight or lost.
    """

    class Reason(models.TextChoices):
        DNS = "dns", "The name of the host could not be resolved"
        REFUSED_ADDRESS = "refused_address", "The address is not one we may send to"
        CONNECT = "connect", "No connection could be made"
        TLS = "tls", "The certificate or the TLS handshake was refused"
        TIMEOUT = "timeout", "The receiver did not answer in time"
        PROTOCOL = "protocol", "What came back is not HTTP"
        STATUS = "status", "The receiver answered with a status other than 2xx"
        TOO_LARGE = "too_large", "The answer's headers are too large"
        UNSENDABLE = "unsendable", "The request could not be built"
        LOST = "lost", "The worker stopped before the answer was recorded"

    delivery = models.ForeignKey(Delivery, models.CASCADE, related_name="attempts", db_index=False)
    number = models.PositiveIntegerField()
    lease = models.PositiveIntegerField()
    trigger = models.CharField(max_length=16, choices=Delivery.Trigger)
    triggered_by = models.CharField(max_length=150, blank=True)
    url = models.CharField("URL", max_length=2000, blank=True)
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)
    duration_ms = models.PositiveIntegerField(null=True, blank=True)
    # Header blocks as on the wire, `name: value` lines in latin-1; bodies raw.
    # Bytes, since receivers send what neither text nor jsonb can hold.
    request_headers = models.BinaryField(default=b"")
    response_status = models.PositiveSmallIntegerField(null=True, blank=True)
    response_headers = models.BinaryField(default=b"")
    response_body = models.BinaryField(default=b"")
    response_cut = models.BooleanField(default=False)
    reason = models.CharField(max_length=16, choices=Reason, blank=True)
    detail = models.CharField(max_length=500, blank=True)

    objects = AttemptQuerySet.as_manager()

    class Meta:
        # Serves a delivery's attempts, too.
        constraints = [models.UniqueConstraint(fields=["delivery", "number"], name="attempt_once")]

    def __str__(self) -> str:
        return f"attempt {self.number} of {self.delivery}"

    @property
    def delivered(self) -> bool:
        return self.ended_at is not None and not self.reason


class Tally(models.Model):
    """How often something was done, for `/metrics`. One count is the sum of
    several rows, so that those who add to it need not wait for each other."""

    name = models.CharField(max_length=32)
    label = models.CharField(max_length=32)
    slot = models.PositiveSmallIntegerField()
    value = models.FloatField()
    written_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "tallies"
        constraints = [models.UniqueConstraint(fields=["name", "label", "slot"], name="tally_once")]
        default_permissions = ()
        permissions = [("view_metrics", "Can read the metrics")]

    def __str__(self) -> str:
        return f"{self.name} {self.label}"

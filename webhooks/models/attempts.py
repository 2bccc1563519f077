"""Requests, and what came back."""

from __future__ import annotations

from typing import Self

from django.db import models
from django.utils.translation import gettext_lazy as _

from subscriptions.models import Tenant
from webhooks.models.deliveries import Delivery


class AttemptQuerySet(models.QuerySet["Attempt"]):
    def for_tenant(self, tenant: Tenant) -> Self:
        return self.filter(delivery__tenant=tenant)


class Attempt(models.Model):
    """One HTTP request and what came back.

    The row is written with the claim, before the request, so that a crash
    leaves evidence: an attempt without `ended_at` is in flight or lost.
    """

    class Reason(models.TextChoices):
        DNS = "dns", _("The name of the host could not be resolved")
        REFUSED_ADDRESS = "refused_address", _("The address is not one we may send to")
        CONNECT = "connect", _("No connection could be made")
        TLS = "tls", _("The certificate or the TLS handshake was refused")
        TIMEOUT = "timeout", _("The receiver did not answer in time")
        PROTOCOL = "protocol", _("What came back is not HTTP")
        STATUS = "status", _("The receiver answered with a status other than 2xx")
        TOO_LARGE = "too_large", _("The answer's headers are too large")
        UNSENDABLE = "unsendable", _("The request could not be built")
        LOST = "lost", _("The worker stopped before the answer was recorded")

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

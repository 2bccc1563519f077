"""Counts, kept as things happen, so that nobody scans for them."""

from __future__ import annotations

from typing import Self

from django.db import models
from django.utils.translation import gettext_lazy as _

from subscriptions.models import Subscription, Tenant


class Tally(models.Model):
    """How often something was done, for `/metrics`. One count is the sum of
    several rows, so that those who add to it need not wait for each other."""

    name = models.CharField(max_length=32)
    label = models.CharField(max_length=32)
    slot = models.PositiveSmallIntegerField()
    value = models.FloatField()
    written_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = _("tallies")
        constraints = [models.UniqueConstraint(fields=["name", "label", "slot"], name="tally_once")]
        default_permissions = ()
        permissions = [("view_metrics", "Can read the metrics")]

    def __str__(self) -> str:
        return f"{self.name} {self.label}"


# Upper bounds of the latency buckets, in milliseconds; the last has none.
BUCKETS_MS = (10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000)


class RollupQuerySet(models.QuerySet["Rollup"]):
    def for_tenant(self, tenant: Tenant) -> Self:
        # As a list of keys: by a join, SQLite walks the rows of every tenant.
        return self.filter(subscription__in=Subscription.objects.for_tenant(tenant).values("pk"))


class Rollup(models.Model):
    """The attempts of one subscription that ended in one hour or one day (UTC)."""

    class Span(models.TextChoices):
        HOUR = "hour"
        DAY = "day"

    subscription = models.ForeignKey(Subscription, models.CASCADE, related_name="rollups", db_index=False)
    span = models.CharField(max_length=8, choices=Span)
    starts_at = models.DateTimeField()
    attempts = models.PositiveIntegerField(default=0)
    delivered = models.PositiveIntegerField(default=0)
    # Of those delivered: by their first attempt.
    at_first = models.PositiveIntegerField(default=0)
    # Deliveries given up on; failed attempts are `attempts - delivered`, but
    # for a second success of one delivery.
    failed = models.PositiveIntegerField(default=0)
    # How many attempts took up to each of BUCKETS_MS, and how many longer. Not
    # those of which the receiver saw nothing, or that were lost.
    took_0 = models.PositiveIntegerField(default=0)
    took_1 = models.PositiveIntegerField(default=0)
    took_2 = models.PositiveIntegerField(default=0)
    took_3 = models.PositiveIntegerField(default=0)
    took_4 = models.PositiveIntegerField(default=0)
    took_5 = models.PositiveIntegerField(default=0)
    took_6 = models.PositiveIntegerField(default=0)
    took_7 = models.PositiveIntegerField(default=0)
    took_8 = models.PositiveIntegerField(default=0)
    took_9 = models.PositiveIntegerField(default=0)
    took_10 = models.PositiveIntegerField(default=0)
    took_11 = models.PositiveIntegerField(default=0)

    objects = RollupQuerySet.as_manager()

    class Meta:
        # Serves a subscription's chart, too.
        constraints = [models.UniqueConstraint(fields=["subscription", "span", "starts_at"], name="rollup_once")]
        indexes = [
            # The clock: which hours have become days, and which days are too old.
            models.Index(fields=["span", "starts_at"], name="rollup_by_age"),
        ]
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.span} of {self.subscription}"

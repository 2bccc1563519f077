"""How far a subscription's feed has been read."""

from __future__ import annotations

from django.db import models

from subscriptions.models import Subscription


class Bookmark(models.Model):
    """What was said to be done: the delivery of that number, and all before it in the feed."""

    subscription = models.OneToOneField(Subscription, models.CASCADE, primary_key=True, related_name="bookmark")
    position = models.BigIntegerField()
    moved_at = models.DateTimeField()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.position} in {self.subscription}"

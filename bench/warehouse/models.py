"""Three models of one shape: not registered, registered and unheard, heard.

They need nothing of Signalpost, so that the same saves run without it.
"""

from __future__ import annotations

from django.db import models


class Parcel(models.Model):
    account = models.CharField(max_length=20)
    number = models.CharField(max_length=20)
    status = models.CharField(max_length=10, default="new")
    weight = models.DecimalField(max_digits=10, decimal_places=2)
    fragile = models.BooleanField(default=False)
    note = models.CharField(max_length=600)
    packed_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return self.number


class Plain(Parcel):
    """Not registered."""


class Quiet(Parcel):
    """Registered; nobody subscribes to it."""


class Heard(Parcel):
    """Registered and subscribed to."""


class Posted(models.Model):
    """What the bare view was sent."""

    topic = models.CharField(max_length=200)
    data = models.JSONField()
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.topic

from __future__ import annotations

from django.db import models

from subscriptions.models import Tenant


class Parcel(models.Model):
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+")
    number = models.IntegerField()

    def __str__(self) -> str:
        return f"parcel {self.number}"

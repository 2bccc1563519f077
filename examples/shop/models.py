"""A small shop: the demo's, the README's and the tests' source of real changes."""

from __future__ import annotations

from django.db import models

from subscriptions.models import Tenant


class Tag(models.Model):
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+")
    name = models.CharField(max_length=50)

    def __str__(self) -> str:
        return self.name


class Customer(models.Model):
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+")
    name = models.CharField(max_length=100)
    email = models.EmailField()
    password = models.CharField(max_length=128, blank=True)

    def __str__(self) -> str:
        return self.name


class Order(models.Model):
    class Status(models.TextChoices):
        NEW = "new"
        PAID = "paid"
        SHIPPED = "shipped"

    customer = models.ForeignKey(Customer, models.CASCADE, related_name="orders")
    number = models.CharField(max_length=20)
    status = models.CharField(max_length=10, choices=Status, default=Status.NEW)
    total = models.DecimalField(max_digits=10, decimal_places=2)
    placed_at = models.DateTimeField(auto_now_add=True)
    tags = models.ManyToManyField(Tag, blank=True, related_name="orders")

    def __str__(self) -> str:
        return self.number

"""What the shop's tenants may hear about."""

from __future__ import annotations

from examples.shop.models import Customer, Order, Tag
from subscriptions import catalog

catalog.register(Customer, tenant="tenant", fields=["id", "name", "email"])
catalog.register(
    Order,
    tenant="customer__tenant",
    fields=["id", "number", "status", "total", "customer", "placed_at", "tags"],
)
catalog.register(Tag, tenant="tenant", fields=["id", "name"])

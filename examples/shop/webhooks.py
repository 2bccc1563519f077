"""What the shop's tenants may hear about."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _

from examples.shop.models import Customer, Order, Tag
from subscriptions import catalog

catalog.register(Customer, tenant="tenant", fields=["id", "name", "email"])
catalog.register(
    Order,
    tenant="customer__tenant",
    fields=["id", "number", "status", "total", "customer", "placed_at", "tags"],
)
catalog.register(Tag, tenant="tenant", fields=["id", "name"])

# What no model tells: the stores' own programs publish it by the API.
catalog.register_topic(
    "shop.stock.counted",
    description=_("Somebody counted what is in store."),
    schema={
        "type": "object",
        "required": ["sku", "counted"],
        "properties": {
            "sku": {"type": "string", "minLength": 1, "maxLength": 40},
            "counted": {"type": "integer", "minimum": 0},
        },
        "additionalProperties": False,
    },
    example={"sku": "MUG-1", "counted": 12},
)

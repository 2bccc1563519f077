"""What the warehouse's tenants may hear about; loaded only with Signalpost installed."""

from __future__ import annotations

from bench.warehouse.models import Heard, Quiet
from subscriptions import catalog

FIELDS = ["id", "number", "status", "weight", "fragile", "note", "packed_at"]

catalog.register(Quiet, tenant="account", fields=FIELDS)
catalog.register(Heard, tenant="account", fields=FIELDS)

LINE = {
    "type": "object",
    "required": ["sku", "quantity", "price"],
    "properties": {
        "sku": {"type": "string", "maxLength": 20},
        "quantity": {"type": "integer", "minimum": 1},
        "price": {"type": "string", "pattern": r"^\d+\.\d\d$"},
    },
}
catalog.register_topic(
    "billing.invoice.paid",
    schema={
        "type": "object",
        "required": ["number", "total", "currency", "customer", "lines", "note"],
        "properties": {
            "number": {"type": "integer", "minimum": 1},
            "total": {"type": "string", "pattern": r"^\d+\.\d\d$"},
            "currency": {"enum": ["EUR", "USD"]},
            "customer": {"type": "string", "maxLength": 100},
            "lines": {"type": "array", "items": LINE},
            "note": {"type": "string", "maxLength": 1000},
        },
    },
)

"""What the warehouse's tenants may hear about; loaded only with Signalpost installed."""

from __future__ import annotations

from bench.warehouse.models import Heard, Quiet
from subscriptions import catalog

FIELDS = ["id", "number", "status", "weight", "fragile", "note", "packed_at"]

catalog.register(Quiet, tenant="account", fields=FIELDS)
catalog.register(Heard, tenant="account", fields=FIELDS)

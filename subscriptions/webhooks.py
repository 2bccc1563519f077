"""What a tenant may hear about its own wishes."""

from __future__ import annotations

from subscriptions import catalog
from subscriptions.models import ApiKey, Membership, Subscription

catalog.register(
    Subscription,
    tenant="tenant",
    fields=["id", "name", "url", "created_at", "disabled_at", "disabled_reason"],
)
catalog.register(Membership, tenant="tenant", fields=["id", "user", "role", "created_at"])
catalog.register(
    ApiKey,
    tenant="tenant",
    fields=["id", "name", "mode", "scopes", "networks", "beginning", "created_at", "expires_at", "revoked_at"],
)

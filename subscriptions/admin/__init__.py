"""The admin's pages of the wishes, for staff; a secret is shown once, when it is made."""

from __future__ import annotations

from subscriptions.admin.people import ApiKeyAdmin, AuditEntryAdmin, InvitationAdmin
from subscriptions.admin.subscriptions import SubscriptionAdmin
from subscriptions.admin.tenants import TenantAdmin

__all__ = ["ApiKeyAdmin", "AuditEntryAdmin", "InvitationAdmin", "SubscriptionAdmin", "TenantAdmin"]

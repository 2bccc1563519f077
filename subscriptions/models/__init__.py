"""Wishes: who the tenants are and what they want to hear about."""

from __future__ import annotations

from subscriptions.models.keys import ApiKey
from subscriptions.models.subscriptions import (
    HIGHEST_RATE,
    OVERLAP,
    TOPIC,
    TOPIC_PATTERN,
    UPDATED,
    Secret,
    Subscription,
    SubscriptionQuerySet,
    Topic,
)
from subscriptions.models.tenants import Invitation, Membership, Role, Tenant
from subscriptions.models.trail import AuditEntry
from subscriptions.models.wish import Revision, Wish, WishQuerySet, at_once, home, wishes_changed, wishes_leaving

__all__ = [
    "HIGHEST_RATE",
    "OVERLAP",
    "TOPIC",
    "TOPIC_PATTERN",
    "UPDATED",
    "ApiKey",
    "AuditEntry",
    "Invitation",
    "Membership",
    "Revision",
    "Role",
    "Secret",
    "Subscription",
    "SubscriptionQuerySet",
    "Tenant",
    "Topic",
    "Wish",
    "WishQuerySet",
    "at_once",
    "home",
    "wishes_changed",
    "wishes_leaving",
]

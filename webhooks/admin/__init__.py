"""The admin's view of the traffic: to look at, to replay and to cancel, never to edit."""

from __future__ import annotations

from webhooks.admin.attempts import AttemptAdmin
from webhooks.admin.deliveries import DeliveryAdmin
from webhooks.admin.events import EventAdmin
from webhooks.admin.overview import OverviewAdmin
from webhooks.admin.replays import ReplayAdmin

__all__ = ["AttemptAdmin", "DeliveryAdmin", "EventAdmin", "OverviewAdmin", "ReplayAdmin"]

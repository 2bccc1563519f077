"""Traffic: what happened, for whom, and what became of it."""

from __future__ import annotations

from webhooks.models.attempts import Attempt, AttemptQuerySet
from webhooks.models.counts import BUCKETS_MS, Rollup, RollupQuerySet, Tally
from webhooks.models.deliveries import Delivery, DeliveryQuerySet, Overview, Throttle
from webhooks.models.events import Event, EventQuerySet, new_event_id
from webhooks.models.feeds import Bookmark
from webhooks.models.inbox import KEPT, InboxRequest, InboxRequestQuerySet
from webhooks.models.receipts import Receipt, ReceiptQuerySet
from webhooks.models.replays import Replay

__all__ = [
    "BUCKETS_MS",
    "KEPT",
    "Attempt",
    "AttemptQuerySet",
    "Bookmark",
    "Delivery",
    "DeliveryQuerySet",
    "Event",
    "EventQuerySet",
    "InboxRequest",
    "InboxRequestQuerySet",
    "Overview",
    "Receipt",
    "ReceiptQuerySet",
    "Replay",
    "Rollup",
    "RollupQuerySet",
    "Tally",
    "Throttle",
    "new_event_id",
]

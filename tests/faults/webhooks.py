"""What programs may publish, in the processes that a fault is put into."""

from __future__ import annotations

from subscriptions import catalog

PUBLISHED = "faults.sale"

catalog.register_topic(PUBLISHED)

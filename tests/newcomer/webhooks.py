from __future__ import annotations

from subscriptions import catalog
from tests.newcomer.models import Parcel

catalog.register(Parcel, tenant="tenant", fields=["id", "number"])

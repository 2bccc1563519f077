"""Deleting a subscription with all that was ever sent to it, which may be more
than one transaction, or one request, should delete."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.utils.translation import gettext as _

from subscriptions import edits
from subscriptions.models import Subscription, home
from webhooks.models import Attempt, Delivery

if TYPE_CHECKING:
    from django.db.models import QuerySet

    from subscriptions.trail import Actor

BATCH = 2_000  # deliveries of one transaction
SECONDS = 5.0  # of one request
# As far as deliveries are counted before they are deleted.
COUNTED = 10_000


def count(subscription: Subscription) -> int:
    """Of its deliveries; COUNTED + 1 where there are more."""
    return Delivery.objects.using(home()).filter(subscription=subscription)[: COUNTED + 1].count()


def remove(subscription: Subscription, actor: Actor, *, seconds: float = SECONDS) -> bool:
    """Delete as much as `seconds` allow; False where there is more to do.

    It is turned off first, so that nothing new comes, and stays off if nobody
    comes back to end it. What a worker holds right now goes last, with it.
    """
    end = time.monotonic() + seconds
    if not _is_small(subscription):
        subscription.disable(reason=_("It is being deleted."), by=Subscription.DisabledBy.MEMBER)
        while _remove_some(subscription):
            if time.monotonic() >= end:
                return False
    edits.delete(subscription, actor)
    return True


def _is_small(subscription: Subscription) -> bool:
    return Delivery.objects.using(home()).filter(subscription=subscription)[: BATCH + 1].count() <= BATCH


def _remove_some(subscription: Subscription) -> int:
    alias = home()
    with transaction.atomic(using=alias):
        rows = Delivery.objects.using(alias).filter(subscription=subscription).free()
        ids = list(rows.order_by("pk").select_for_update(of=("self",)).values_list("pk", flat=True)[:BATCH])
        for gone in (
            Attempt.objects.using(alias).filter(delivery__in=ids),
            Delivery.objects.using(alias).filter(pk__in=ids),
        ):
            _raw_delete(gone, alias)
    return len(ids)


def _raw_delete(rows: QuerySet[Any], using: str) -> None:
    """`QuerySet.delete()` would load every row, where the host listens to all deletes."""
    rows._raw_delete(using)

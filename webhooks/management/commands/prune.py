from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections, transaction
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Now
from django.utils import timezone

from subscriptions.conf import conf
from subscriptions.models import home
from webhooks.management.arguments import counted, duration
from webhooks.models import Attempt, Delivery, Event, Receipt, Replay
from webhooks.models.receipts import REMEMBERED

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Iterator
    from datetime import datetime
    from uuid import UUID

    from django.db.models import QuerySet

LARGEST_BATCH = 10_000
# Seconds between two lines of progress.
PACE = 1.0


class Command(BaseCommand):
    help = "Delete old events with their deliveries and attempts, and old replays; never what is still to be sent."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--older-than", required=True, metavar="SPAN", help="such as 30d, 12h or 90m")
        parser.add_argument("--batch", type=int, default=1_000, help="rows of one transaction (default: 1000)")
        parser.add_argument("--dry-run", action="store_true", help="only say how many there are")

    def handle(self, *args: Any, **options: Any) -> None:
        before = timezone.now() - duration(options["older_than"])
        batch = int(options["batch"])
        if not 1 <= batch <= LARGEST_BATCH:
            raise CommandError(f"--batch is a number from 1 to {LARGEST_BATCH:,}.")
        aliases = dict.fromkeys([home(), *conf.databases])
        if options["dry_run"]:
            counts = sum((would_go(before, using=alias) for alias in aliases), Counter())
            counts.update(replay=over(before).count(), receipt=outlived().count())
            self.stdout.write(f"Would delete {_counts(counts)}.")
            return
        counts = Counter()
        told = time.monotonic()
        for alias in aliases:
            for gone in prune(before, batch=batch, using=alias):
                counts += gone
                if time.monotonic() - told >= PACE:
                    told = time.monotonic()
                    self.stdout.write(f"Deleted {_counts(counts)} so far.")
        # Last, as their deliveries are gone by now.
        counts["replay"] = prune_rows(over(before), batch=batch)
        counts["receipt"] = prune_rows(outlived(), batch=batch)
        self.stdout.write(f"Deleted {_counts(counts)}.")


def _counts(counts: Counter[str]) -> str:
    told = [counted(counts[noun], noun) for noun in ("event", "delivery", "attempt")]
    told += [counted(counts[noun], noun) for noun in ("replay", "receipt") if counts[noun]]
    return ", ".join(told)


def settled(before: datetime, *, using: str) -> QuerySet[Event]:
    """Older, fanned out, and with no delivery that is still open or held by a worker."""
    busy = Delivery.objects.using(using).filter(
        Q(status__in=Delivery.OPEN) | Q(leased_until__gt=Now()), event=OuterRef("pk")
    )
    return Event.objects.using(using).filter(created_at__lt=before, fanned_out_at__isnull=False).exclude(Exists(busy))


def over(before: datetime) -> QuerySet[Replay]:
    """Replays from before then that are settled, and have no delivery left."""
    rows = Replay.objects.using(home()).filter(created_at__lt=before, settled_at__isnull=False)
    return rows.exclude(Exists(Delivery.objects.using(home()).filter(replay=OuterRef("pk"))))


def outlived() -> QuerySet[Receipt]:
    """Receipts of names that may be used again, whatever else is kept."""
    return Receipt.objects.using(home()).filter(created_at__lt=Now() - REMEMBERED)


def prune_rows(rows: QuerySet[Any], *, batch: int) -> int:
    """Delete them, some in each transaction, and say how many."""
    skip_locked = connections[home()].features.has_select_for_update_skip_locked
    gone = 0
    while True:
        with transaction.atomic(using=home()):
            free = rows.order_by("pk").select_for_update(skip_locked=skip_locked)
            some = list(free.values_list("pk", flat=True)[:batch])
            gone += _raw_delete(rows.model._base_manager.using(home()).filter(pk__in=some), home())
        if len(some) < batch:
            return gone


def would_go(before: datetime, *, using: str) -> Counter[str]:
    events = settled(before, using=using)
    deliveries = Delivery.objects.using(using).filter(event__in=events.values("pk"))
    attempts = Attempt.objects.using(using).filter(delivery__in=deliveries.values("pk"))
    return Counter(event=events.count(), delivery=deliveries.count(), attempt=attempts.count())


def prune(before: datetime, *, batch: int, using: str) -> Iterator[Counter[str]]:
    """Delete in transactions of at most `batch` deliveries or events, oldest
    first, and say after each one what went.

    A page of events at a time, each looked at once: those that must stay are
    not walked over again for every batch.
    """
    after = Q()
    while page := list(
        Event.objects.using(using)
        .filter(after, created_at__lt=before)
        .order_by("created_at", "pk")
        .values_list("pk", "created_at")[:batch]
    ):
        last, created_at = page[-1]
        after = Q(created_at__gt=created_at) | Q(created_at=created_at, pk__gt=last)
        ids = list(settled(before, using=using).filter(pk__in=[pk for pk, _ in page]).values_list("pk", flat=True))
        while (gone := _delete_deliveries(ids, batch=batch, using=using))["delivery"]:
            yield gone
        yield Counter(event=_delete_events(ids, using=using))


def _delete_deliveries(events: list[UUID], *, batch: int, using: str) -> Counter[str]:
    skip_locked = connections[using].features.has_select_for_update_skip_locked
    ended = Delivery.objects.using(using).filter(event__in=events).exclude(status__in=Delivery.OPEN).free()
    with transaction.atomic(using=using):
        # Locked, so that one that is replayed in this moment is either gone
        # or stays, and with it its attempts.
        ids = list(ended.select_for_update(skip_locked=skip_locked).values_list("pk", flat=True)[:batch])
        attempts = _raw_delete(Attempt.objects.using(using).filter(delivery__in=ids), using)
        deliveries = _raw_delete(Delivery.objects.using(using).filter(pk__in=ids), using)
    return Counter(delivery=deliveries, attempt=attempts)


def _delete_events(events: list[UUID], *, using: str) -> int:
    """Those that have no delivery left."""
    left = Delivery.objects.using(using).filter(event=OuterRef("pk"))
    bare = Event.objects.using(using).filter(pk__in=events, fanned_out_at__isnull=False).exclude(Exists(left))
    skip_locked = connections[using].features.has_select_for_update_skip_locked
    with transaction.atomic(using=using):
        free = list(bare.select_for_update(skip_locked=skip_locked).values_list("pk", flat=True))
        return _raw_delete(bare.filter(pk__in=free), using)


def _raw_delete(rows: QuerySet[Any], using: str) -> int:
    """`QuerySet.delete()` would load every row, bodies and all, where the host
    listens to all deletes."""
    return rows._raw_delete(using) or 0  # None where no row can match

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand
from django.db.models.functions import Now

from subscriptions.models import home
from webhooks import deliveries
from webhooks.management.arguments import counted
from webhooks.models import Delivery

if TYPE_CHECKING:
    from argparse import ArgumentParser


class Command(BaseCommand):
    help = "Ring for whatever is due, such as after Redis was wiped. Harmless at any time."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--waiting", action="store_true", help="make what waits for a retry due now")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["waiting"]:
            waiting = Delivery.objects.using(home()).open().free().filter(next_attempt_at__gt=Now())
            self.stdout.write(f"{counted(waiting.update(next_attempt_at=Now()), 'delivery')} no longer waiting.")
        due = deliveries.requeue()
        events, sent = counted(due["events"], "event"), counted(due["deliveries"], "delivery")
        self.stdout.write(f"Due: {events} to fan out, {sent} to send.")

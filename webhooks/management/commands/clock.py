from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from webhooks.cron import clock


class Command(BaseCommand):
    help = "Ring for the workers every SIGNALPOST_SWEEP_SECONDS, for whatever a lost ring left behind."

    def handle(self, *args: Any, **options: Any) -> None:
        clock().start()

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand

from webhooks import drain


class Command(BaseCommand):
    """A drain that somebody starts by hand."""

    requires_system_checks = ()  # which take longer than what it does

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(json.dumps(drain.run()))

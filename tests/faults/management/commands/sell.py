from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand
from django.db import transaction

from examples.shop.models import Customer
from subscriptions.models import Tenant

if TYPE_CHECKING:
    from argparse import ArgumentParser

TRANSACTION = 5
UNDONE = "rolled back"


class Command(BaseCommand):
    """A plain script that saves: alone, in transactions, and in some that are undone."""

    requires_system_checks = ()  # which take longer than what it does

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("number", type=int)

    def handle(self, *args: Any, **options: Any) -> None:
        tenant = Tenant.objects.get(slug="acme")
        made = 0
        while made < options["number"]:
            self._save(tenant, "alone")
            made += 1
            size = min(TRANSACTION, options["number"] - made)
            with transaction.atomic():
                for _ in range(size):
                    self._save(tenant, "together")
                savepoint = transaction.savepoint()
                self._save(tenant, UNDONE)
                transaction.savepoint_rollback(savepoint)
            made += size
            with transaction.atomic():
                self._save(tenant, UNDONE)
                transaction.set_rollback(True)
        self.stdout.write(f"Sold {made}")

    def _save(self, tenant: Tenant, name: str) -> None:
        Customer.objects.create(tenant=tenant, name=name, email="c@example.com")

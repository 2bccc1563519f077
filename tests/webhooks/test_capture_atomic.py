"""A thousand saves of a model never seen before: an event for each that was
committed, and for no other."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings
from django.db import connection, transaction
from django.test import override_settings

from subscriptions import catalog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from subscriptions.models import Tenant
    from tests.newcomer.models import Parcel
    from tests.webhooks.conftest import Captured

    Told = list[tuple[str, int]]

SAVES = 1_000


@pytest.fixture
def parcels() -> Iterator[type[Parcel]]:
    """An app that is installed after the start, found by its webhooks.py."""
    with override_settings(INSTALLED_APPS=[*settings.INSTALLED_APPS, "tests.newcomer"]):
        from tests.newcomer.models import Parcel

        with connection.schema_editor() as editor:
            editor.create_model(Parcel)
        yield Parcel
        with connection.schema_editor() as editor:
            editor.delete_model(Parcel)
        catalog.unregister(Parcel)


class UndoneError(Exception):
    pass


class Shipping:
    """Saves parcels in every kind of transaction, and remembers what was committed."""

    def __init__(self, model: Any, tenant: Tenant) -> None:
        self.model, self.tenant = model, tenant
        self.chance = random.Random(7)  # noqa: S311  # Chance that can be repeated.
        self.saves = 0

    def change(self) -> Told:
        """One save: of a new parcel, or of one that is there; now and then a delete."""
        self.saves += 1
        number = self.saves
        parcel = self.model.objects.order_by("?").first() if self.chance.random() < 0.4 else None
        if parcel is None:
            self.model.objects.create(tenant=self.tenant, number=number)
            return [("created", number)]
        parcel.number = number
        parcel.save(update_fields=["number"] if self.chance.random() < 0.5 else None)
        told = [("updated", number)]
        if self.chance.random() < 0.1:
            parcel.delete()
            told.append(("deleted", number))
        return told

    def work(self, depth: int = 0) -> Told:
        """Some changes, some of them in blocks of their own; what of it is kept."""
        told: Told = []
        for _ in range(self.chance.randint(1, 4)):
            if depth < 3 and self.chance.random() < 0.35:
                told += self.block(depth)
            else:
                told += self.change()
        return told

    def block(self, depth: int = 0) -> Told:
        told: Told = []
        end = self.chance.choice(["commit", "commit", "raise", "set_rollback", "by hand"])
        try:
            with transaction.atomic():
                if end == "by hand":
                    kept, savepoint = self.change(), connection.savepoint()
                    assert savepoint is not None
                    self.work(depth + 1)
                    connection.savepoint_rollback(savepoint)
                    return kept
                told = self.work(depth + 1)
                if end == "raise":
                    raise UndoneError
                if end == "set_rollback":
                    transaction.set_rollback(True)
        except UndoneError:
            return []
        return told if end == "commit" else []


@pytest.mark.django_db(transaction=True)
def test_exactly_the_committed_changes_have_events(
    parcels: type[Parcel], listening: Tenant, captured: Callable[..., Captured]
) -> None:
    assert catalog.entry_for(parcels) is not None
    shipping, expected = Shipping(parcels, listening), Counter[tuple[str, int]]()
    while shipping.saves < SAVES:
        expected.update(shipping.block() if shipping.chance.random() < 0.5 else shipping.change())
    told = Counter((topic.rpartition(".")[2], data["object"]["number"]) for topic, data in captured())
    assert told == expected
    assert 0 < expected.total() < shipping.saves
    assert {action for action, _ in expected} == {"created", "updated", "deleted"}

"""Fixtures for the API's tests: topics that may be published, and no bell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from subscriptions import catalog
from webhooks import tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAID = "billing.invoice.paid"
SCHEMA = {
    "type": "object",
    "required": ["number", "total"],
    "additionalProperties": False,
    "properties": {
        "number": {"type": "integer", "minimum": 1},
        "total": {"type": "string", "pattern": r"^\d+\.\d\d$"},
        "lines": {"type": "array", "items": {"type": "object", "required": ["sku"]}},
        "note": {"type": "string"},
    },
}


@pytest.fixture
def declare() -> Iterator[Callable[..., None]]:
    """`catalog.register_topic` until the test ends."""
    names: list[str] = []

    def make(name: str = PAID, **options: Any) -> None:
        names.append(name)
        catalog.register_topic(name, **{"schema": SCHEMA, **options})

    yield make
    for name in names:
        catalog.unregister_topic(name)


@pytest.fixture
def paid(declare: Callable[..., None]) -> str:
    declare(description="An invoice was paid.", example={"number": 7, "total": "42.00"})
    return PAID


@pytest.fixture(autouse=True)
def rings(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Each ring of the bell, which nobody hears."""
    rung: list[bool] = []
    monkeypatch.setattr(tasks, "ring", lambda: rung.append(True))
    return rung

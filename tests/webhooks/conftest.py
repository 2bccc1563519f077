"""Fixtures for the tests of capture: register a model, read what was captured."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from subscriptions import catalog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.db.models import Model

    from subscriptions.models import Subscription, Tenant

Captured = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def register() -> Iterator[Callable[..., None]]:
    """`catalog.register` until the test ends; by default for the tenant at `tenant`."""
    registered: list[type[Model]] = []

    def make(model: type[Model], **options: Any) -> None:
        catalog.register(model, **{"tenant": "tenant", **options})
        registered.append(model._meta.concrete_model or model)

    yield make
    for model in registered:
        catalog.unregister(model)


@pytest.fixture
def captured(db: None) -> Callable[..., Captured]:
    """What was captured since the last call: (topic, data), oldest first."""
    from webhooks.models import Event

    seen: set[Any] = set()

    def read(*, using: str = "default") -> Captured:
        events = [event for event in Event.objects.using(using).order_by("created_at") if event.pk not in seen]
        seen.update(event.pk for event in events)
        return [(event.topic, json.loads(bytes(event.body))["data"]) for event in events]

    return read


@pytest.fixture
def listening(tenant: Tenant, subscribe: Callable[..., Subscription]) -> Tenant:
    """A tenant that listens to everything."""
    subscribe(tenant, "*")
    return tenant

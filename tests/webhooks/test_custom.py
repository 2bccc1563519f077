from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections, transaction
from django.dispatch import Signal

from subscriptions import catalog
from webhooks.events import CaptureError
from webhooks.models import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_django import Settings

    from subscriptions.models import Tenant
    from tests.webhooks.conftest import Captured

    Read = Callable[..., Captured]

TOPIC = "billing.invoice.paid"


@pytest.fixture
def paid() -> Iterator[Signal]:
    signal = Signal()
    catalog.register_signal(
        signal,
        topic=TOPIC,
        tenant=lambda sender, **kwargs: kwargs["tenant"],
        payload=lambda sender, **kwargs: kwargs.get("data", {"sender": sender}),
    )
    yield signal
    catalog._signals.clear()


def test_a_signal_becomes_its_topic(paid: Signal, listening: Tenant, captured: Read) -> None:
    paid.send("shop", tenant=listening)
    assert captured() == [(TOPIC, {"sender": "shop"})]
    assert Event.objects.get().tenant == listening


def test_it_is_part_of_the_open_transaction(paid: Signal, listening: Tenant, captured: Read) -> None:
    with transaction.atomic():
        paid.send("shop", tenant=listening)
        transaction.set_rollback(True)
    assert captured() == []


@pytest.mark.usefixtures("listening")
def test_an_answer_of_nobodys_is_skipped(paid: Signal, captured: Read) -> None:
    paid.send("shop", tenant=None)
    paid.send("shop", tenant="unknown key")
    assert captured() == []


def test_every_tenant_or_a_key(paid: Signal, listening: Tenant, captured: Read) -> None:
    listening.key = "7"
    listening.save()
    paid.send("shop", tenant=catalog.EVERY_TENANT)
    paid.send("shop", tenant="7")
    assert len(captured()) == 2
    assert [event.tenant for event in Event.objects.order_by("created_at")] == [None, listening]


def test_nobody_listening_asks_nothing(tenant: Tenant) -> None:
    def never(sender: Any, **kwargs: Any) -> Any:
        raise AssertionError

    signal = Signal()
    catalog.register_signal(signal, topic=TOPIC, tenant=never, payload=never)
    signal.send("shop")
    catalog._signals.clear()


def test_a_payload_that_is_no_dict_is_refused(paid: Signal, listening: Tenant) -> None:
    with pytest.raises(CaptureError, match="must be a dict"), transaction.atomic():
        paid.send("shop", tenant=listening, data=[1])


def test_what_a_callable_raises_is_the_operators_choice(
    paid: Signal, listening: Tenant, settings: Settings, captured: Read
) -> None:
    with pytest.raises(CaptureError, match="KeyError"), transaction.atomic():
        paid.send("shop")
    settings.SIGNALPOST_CAPTURE_ERRORS = "log"
    paid.send("shop")
    paid.send("shop", tenant=listening)
    assert len(captured()) == 1


@pytest.mark.django_db(transaction=True)
def test_a_signal_sent_asynchronously(paid: Signal, listening: Tenant, captured: Read) -> None:
    async def work() -> None:
        await paid.asend("shop", tenant=listening)
        await sync_to_async(connections.close_all)()

    asyncio.run(work())
    assert len(captured()) == 1


@pytest.mark.django_db(databases=["default", "other"])
def test_a_signal_that_names_a_database_is_captured_there(paid: Signal, listening: Tenant, captured: Read) -> None:
    paid.send("shop", tenant=listening, using="other")
    assert captured() == []
    assert captured(using="other") == [(TOPIC, {"sender": "shop"})]

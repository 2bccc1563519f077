"""The test kit, in this process: what `capture` shows, delivers and checks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import respx
import standardwebhooks
from django.db import connection, models, transaction
from django.dispatch import Signal

from examples.shop.models import Customer, Order, Tag
from subscriptions import catalog
from tests.webhooks.test_custom import TOPIC as PAID
from tests.zoo.odd import Book
from webhooks import events, matching, tasks
from webhooks.models import Attempt, Delivery, Event
from webhooks.testing.sent import Sent, capture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from subscriptions.models import Tenant

pytestmark = pytest.mark.django_db


@pytest.fixture
def customer(tenant: Tenant) -> Customer:
    return Customer.objects.create(tenant=tenant, name="Ada", email="ada@example.com")


@pytest.fixture
def make_order(customer: Customer) -> Callable[..., Order]:
    def make(**fields: Any) -> Order:
        return Order.objects.create(**{"customer": customer, "number": "A-1", "total": "42.00", **fields})

    return make


@pytest.fixture
def sent(customer: Customer) -> Iterator[Sent]:
    with capture() as sent:
        yield sent


def test_what_nobody_subscribed_to_is_shown_in_order(sent: Sent, make_order: Callable[..., Order]) -> None:
    order = make_order()
    order.status = "paid"
    order.save()
    order.delete()
    assert sent.topics == ["shop.order.created", "shop.order.updated", "shop.order.deleted"]


def test_what_was_there_before_is_not_shown(tenant: Tenant) -> None:
    events.publish("billing.before", tenant, {})
    with capture() as sent:
        events.publish("billing.after", tenant, {})
        assert sent.topics == ["billing.after"]


def test_outside_nobody_listens(make_order: Callable[..., Order]) -> None:
    with capture():
        pass
    make_order()
    assert not Event.objects.exists()


def test_an_event_shows_what_a_receiver_would_get(sent: Sent, tenant: Tenant, make_order: Callable[..., Order]) -> None:
    order = make_order()
    order.status = "paid"
    order.save()
    event = sent.one("shop.order.updated")
    assert (event.topic, event.tenant) == ("shop.order.updated", "acme")
    assert event.object["number"] == "A-1"
    assert event.changes == {"status": {"from": "new", "to": "paid"}}
    row = Event.objects.get(topic="shop.order.updated")
    assert (event.id, event.body) == (row.webhook_id, bytes(row.body))
    assert json.loads(event.body)["data"] == event.data
    assert event.timestamp.tzinfo is not None


def test_a_savepoint_that_was_rolled_back_shows_nothing(sent: Sent, make_order: Callable[..., Order]) -> None:
    make_order(number="A-1")
    with transaction.atomic():
        make_order(number="A-2")
        transaction.set_rollback(True)
    make_order(number="A-3")
    assert [event.object["number"] for event in sent.events] == ["A-1", "A-3"]


def test_signals_and_published_events_are_shown_too(sent: Sent, tenant: Tenant) -> None:
    paid = Signal()
    catalog.register_signal(paid, topic=PAID, tenant=lambda sender, **kwargs: tenant, payload=lambda sender, **_: {})
    try:
        paid.send("shop")
    finally:
        catalog._signals.clear()
    events.publish("billing.refund", None, {"number": 7})
    assert sent.topics == [PAID, "billing.refund"]
    assert sent.one("billing.*", tenant="acme").topic == PAID


def test_rows_that_were_published_are_shown(sent: Sent, make_order: Callable[..., Order]) -> None:
    make_order()
    events.publish_rows(Order.objects.all(), "updated", changed=["status"])
    assert sent.topics == ["shop.order.created", "shop.order.updated"]


def test_they_are_told_apart_by_topic_and_by_tenant(
    sent: Sent, make_tenant: Callable[..., Tenant], make_order: Callable[..., Order]
) -> None:
    other = make_tenant("globex")
    Tag.objects.create(tenant=other, name="urgent")
    make_order().delete()
    assert sent.of("shop.order.*").topics == ["shop.order.created", "shop.order.deleted"]
    assert sent.of("shop.tag.created", "shop.order.deleted").topics == ["shop.tag.created", "shop.order.deleted"]
    assert sent.of(tenant=other).topics == ["shop.tag.created"]
    assert sent.of("shop.order.*", tenant="globex") == []


def test_what_the_set_up_sent_is_forgotten(sent: Sent, make_order: Callable[..., Order]) -> None:
    order = make_order()
    sent.clear()
    order.delete()
    assert sent.topics == ["shop.order.deleted"]


def test_one_says_what_was_sent_instead(sent: Sent, make_order: Callable[..., Order]) -> None:
    make_order()
    with pytest.raises(
        AssertionError, match=r"0 events of shop.tag.\* were sent, not 1:\n  shop.order.created of acme"
    ):
        sent.one("shop.tag.*")


def test_a_row_without_a_tenant_is_named(sent: Sent, tenant: Tenant, register: Callable[..., None]) -> None:
    register(Book, tenant=lambda book: None, fields=["id"])
    Book.objects.create(tenant=tenant, title="Nobody's")
    assert sent.topics == []
    assert sent.topics.unlike(["zoo.book.created"])[-1].startswith("1 of zoo.book had no tenant")


def test_a_difference_is_told_in_sentences(sent: Sent, make_order: Callable[..., Order]) -> None:
    make_order().delete()
    lines = sent.topics.unlike(["shop.order.created", "shop.order.updated", "shop.order.updated"])
    assert lines[:3] == [
        "2 sent, 3 expected",
        "not sent: shop.order.updated, 2 times",
        "not expected: shop.order.deleted",
    ]
    assert lines[3].startswith("1. shop.order.created of acme: {")
    assert "another order" in " ".join(sent.topics.unlike(["shop.order.deleted", "shop.order.created"]))


def test_a_body_over_the_limit_is_refused_and_not_sent(sent: Sent, tenant: Tenant, settings: Any) -> None:
    settings.SIGNALPOST_BODY_LIMIT = 100
    events.publish("billing.large", tenant, {"text": "x" * 200})
    assert sent.topics == []
    (why,) = sent.refused.values()
    assert "the limit is 100" in why


@pytest.mark.django_db(transaction=True)
def test_in_a_transactional_test_nobody_rings_at_redis(
    sent: Sent, make_order: Callable[..., Order], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "_at_the_door", lambda act: pytest.fail("rang"))
    with transaction.atomic():
        make_order()
        transaction.set_rollback(True)
    make_order()
    assert not connection.in_atomic_block
    assert sent.topics == ["shop.order.created"]


@pytest.mark.django_db(databases=["default", "other"])
def test_events_of_another_database_are_shown_and_delivered(sent: Sent, tenant: Tenant) -> None:
    sent.subscribe(tenant)
    events.publish("billing.there", tenant, {}, using="other")
    events.publish("billing.here", tenant, {})
    assert sent.topics == ["billing.there", "billing.here"]
    assert len(sent.deliver()) == 2
    assert sent.topics == ["billing.there", "billing.here"]


def test_what_it_read_in_one_test_is_not_remembered_in_the_next(sent: Sent, make_tenant: Callable[..., Tenant]) -> None:
    with transaction.atomic():
        with capture():
            make_tenant("phantom")
            assert matching.id_of_slug("phantom")
        transaction.set_rollback(True)
    assert matching.id_of_slug("phantom") is None


class TestDeliver:
    def test_what_is_delivered_verifies(self, sent: Sent, tenant: Tenant, make_order: Callable[..., Order]) -> None:
        subscription = sent.subscribe(tenant, "shop.order.*", url="https://billing.example/hook")
        make_order()
        with respx.MockRouter() as router:
            route = router.post("https://billing.example/hook").respond(204)
            (attempt,) = sent.deliver(router)
        (call,) = route.calls
        secret = subscription.secrets.get().value
        content = standardwebhooks.Webhook(secret).verify(call.request.content, dict(call.request.headers))
        assert content["type"] == "shop.order.created"
        assert call.request.headers["webhook-id"] == sent.one().id
        assert (attempt.response_status, attempt.delivery.status) == (204, Delivery.Status.DELIVERED)
        assert sent.deliver() == []

    def test_that_a_subscription_was_made_is_told_to_nobody(self, sent: Sent, tenant: Tenant) -> None:
        sent.subscribe(tenant)
        assert sent.topics == []
        assert sent.deliver() == []

    def test_it_goes_to_who_listens_and_to_no_other(
        self, sent: Sent, tenant: Tenant, make_tenant: Callable[..., Tenant], make_order: Callable[..., Order]
    ) -> None:
        wanting = sent.subscribe(tenant, "shop.order.updated", changed=["status"])
        sent.subscribe(tenant, "shop.order.updated", changed=["total"])
        sent.subscribe(make_tenant("globex"))
        order = make_order()
        order.status = "paid"
        order.save()
        assert [attempt.delivery.subscription for attempt in sent.deliver()] == [wanting]

    def test_a_failure_is_recorded_and_retried(
        self, sent: Sent, tenant: Tenant, make_order: Callable[..., Order]
    ) -> None:
        sent.subscribe(tenant)
        make_order()
        (attempt,) = sent.deliver(lambda request: httpx.Response(503))
        assert (attempt.reason, attempt.response_status) == (Attempt.Reason.STATUS, 503)
        assert attempt.delivery.status == Delivery.Status.RETRYING

    def test_a_receiver_that_cannot_be_reached_is_a_failure_of_the_attempt(
        self, sent: Sent, tenant: Tenant, make_order: Callable[..., Order]
    ) -> None:
        sent.subscribe(tenant)
        make_order()
        with respx.MockRouter() as router:
            router.post("https://receiver.example/").mock(side_effect=httpx.ConnectError)
            (attempt,) = sent.deliver(router)
        assert attempt.reason == Attempt.Reason.CONNECT

    def test_a_request_that_nobody_expected_fails_the_test(
        self, sent: Sent, tenant: Tenant, make_order: Callable[..., Order]
    ) -> None:
        sent.subscribe(tenant)
        make_order()
        with respx.MockRouter() as router, pytest.raises(AssertionError, match="not mocked"):
            sent.deliver(router)

    def test_more_than_a_batch_with_the_inbox_and_a_feed_is_delivered(self, sent: Sent, tenant: Tenant) -> None:
        sent.subscribe(tenant, url="inbox:")
        sent.subscribe(tenant, url="feed:")
        sent.subscribe(tenant)
        for number in range(120):
            events.publish("billing.many", tenant, {"number": number})
        attempts = sent.deliver()
        assert len(attempts) == 360
        assert all(attempt.delivered for attempt in attempts)

    @pytest.mark.django_db(transaction=True)
    def test_it_works_in_a_transactional_test(
        self, sent: Sent, tenant: Tenant, make_order: Callable[..., Order]
    ) -> None:
        sent.subscribe(tenant)
        make_order()
        assert [attempt.delivered for attempt in sent.deliver()] == [True]


class TestCheck:
    def test_a_registered_model_passes_and_leaves_nothing_behind(
        self, sent: Sent, tenant: Tenant, make_order: Callable[..., Order]
    ) -> None:
        tag = Tag.objects.create(tenant=tenant, name="urgent")
        sent.clear()
        told = sent.check(make_order, change={"status": "paid"}, links={"tags": [tag]})
        actions = ("created", "updated", "added", "removed", "added", "cleared", "deleted")
        assert told.topics == [f"shop.order.{action}" for action in actions]
        assert sent.topics == []
        assert not Order.objects.exists()

    def test_an_instance_is_not_touched(self, sent: Sent, make_order: Callable[..., Order]) -> None:
        order = make_order()
        told = sent.check(order, change={"status": "paid"})
        assert told.topics == ["shop.order.updated", "shop.order.deleted"]
        order.refresh_from_db()
        assert order.status == "new"

    @pytest.mark.django_db(transaction=True)
    def test_nor_in_a_transactional_test(self, sent: Sent, make_order: Callable[..., Order]) -> None:
        sent.check(make_order)
        assert not Order.objects.exists()

    def test_opt_in_actions_are_expected(self, sent: Sent, register: Callable[..., None], tenant: Tenant) -> None:
        register(Book, tenant=lambda book: tenant, fields=["id"], actions=catalog.ACTIONS)
        told = sent.check(lambda: Book.objects.create(tenant=tenant, title="One"))
        actions = ("saving", "created", "saving", "updated", "deleting", "deleted")
        assert told.topics == [f"zoo.book.{action}" for action in actions]

    def test_a_model_that_is_not_registered_fails(self, sent: Sent, tenant: Tenant) -> None:
        with pytest.raises(AssertionError, match="not registered"):
            sent.check(lambda: Book.objects.create(tenant=tenant, title="One"))

    def test_a_row_that_was_not_saved_fails(self, sent: Sent, customer: Customer) -> None:
        with pytest.raises(AssertionError, match="did not save"):
            sent.check(lambda: Order(customer=customer))

    def test_a_row_without_a_tenant_fails_and_says_so(
        self, sent: Sent, register: Callable[..., None], tenant: Tenant
    ) -> None:
        register(Book, tenant=lambda book: None, fields=["id"])
        with pytest.raises(AssertionError, match=r"not sent: zoo.book.created\n  1 of zoo.book had no tenant"):
            sent.check(lambda: Book.objects.create(tenant=tenant, title="One"))

    def test_a_save_that_saves_twice_fails(
        self, sent: Sent, make_order: Callable[..., Order], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def save(order: Order, **kwargs: Any) -> None:
            models.Model.save(order, **kwargs)
            models.Model.save(order)

        order = make_order()
        monkeypatch.setattr(Order, "save", save)
        with pytest.raises(AssertionError, match="was updated:\n  2 sent, 1 expected"):
            sent.check(order)

    def test_a_save_that_forgets_the_change_fails(
        self, sent: Sent, make_order: Callable[..., Order], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        order = make_order()
        monkeypatch.setattr(Order, "save", lambda self: models.Model.save(self, update_fields=["total"]))
        with pytest.raises(AssertionError, match="names no change of status"):
            sent.check(order, change={"status": "paid"})

    def test_a_body_that_does_not_fit_its_schema_fails(
        self, sent: Sent, make_order: Callable[..., Order], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from subscriptions import schemas

        real = schemas.schema_of

        def strict(topic: str, entry: Any, action: str) -> Any:
            schema = real(topic, entry, action)
            schema["properties"]["data"]["properties"]["object"]["properties"]["number"] = {"type": "integer"}
            return schema

        monkeypatch.setattr(schemas, "schema_of", strict)
        with pytest.raises(AssertionError, match=r"(?s)created does not fit its schema.*\$.data.object.number: 'A-1'"):
            sent.check(make_order)

    def test_what_skips_unchanged_rows_needs_a_change(
        self, sent: Sent, register: Callable[..., None], tenant: Tenant
    ) -> None:
        register(Book, tenant=lambda book: tenant, fields=["id", "title"], skip_unchanged=True)
        with pytest.raises(AssertionError, match="change="):
            sent.check(lambda: Book.objects.create(tenant=tenant, title="One"))
        sent.check(lambda: Book.objects.create(tenant=tenant, title="One"), change={"title": "Two"})

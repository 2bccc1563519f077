from __future__ import annotations

import json
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import InMemoryStorage
from django.db import models
from jsonschema import Draft202012Validator
from rest_framework import serializers

from examples.shop.models import Customer, Order, Tag
from subscriptions import catalog, offers, schemas
from subscriptions.entries import Entry
from tests.zoo.kinds import Animal, Colour, Crate, Keeper, Passport
from webhooks import disabling, events
from webhooks.bodies import dumps, shape_of
from webhooks.models import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from subscriptions.models import Subscription, Tenant

pytestmark = pytest.mark.django_db(databases="__all__")

EVERYTHING = [*catalog.DEFAULT_ACTIONS, *catalog.OPT_IN]


def schema_for(topic: str, tenant: Tenant) -> dict[str, Any]:
    offer = offers.find(topic, tenant)
    assert offer is not None, topic
    schema = offer.schema()
    Draft202012Validator.check_schema(schema)
    return schema


def complaints(body: Any, schema: dict[str, Any]) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in Draft202012Validator(schema).iter_errors(body)]


def unknown(body: Any, schema: dict[str, Any]) -> set[str]:
    """What the body says that the schema does not speak of, in `data` and its object."""
    data, described = body["data"], schema["properties"]["data"]["properties"]
    inner = set(data["object"]) - set(described["object"]["properties"])
    return (set(data) - set(described)) | inner


@pytest.fixture
def every_action() -> Iterator[None]:
    """The order, with all that can happen to it."""
    entry = catalog.entries()[Order]
    catalog.unregister(Order)
    catalog.register(Order, tenant=entry.tenant, fields=entry.fields, actions=EVERYTHING)
    yield
    catalog.unregister(Order)
    catalog.register(Order, tenant=entry.tenant, fields=entry.fields)


def test_what_is_sent_keeps_to_the_schema(
    tenant: Tenant, subscribe: Callable[..., Subscription], every_action: None
) -> None:
    subscribe(tenant, "shop.*")
    customer = Customer.objects.create(tenant=tenant, name="Initech", email="bill@initech.example")
    order = Order.objects.create(customer=customer, number="A-1", total="42.00")
    order.status = Order.Status.PAID
    order.save()
    tag = Tag.objects.create(tenant=tenant, name="rush")
    order.tags.add(tag)
    order.tags.remove(tag)
    order.tags.add(tag)
    order.tags.clear()
    Order.objects.get(pk=order.pk).delete()
    bodies = [json.loads(bytes(event.body)) for event in Event.objects.order_by("created_at")]
    assert {body["type"] for body in bodies if "order" in body["type"]} == {f"shop.order.{each}" for each in EVERYTHING}
    for body in bodies:
        schema = schema_for(body["type"], tenant)
        assert (complaints(body, schema), unknown(body, schema)) == ([], set()), body["type"]
    # And a body that breaks it is told: the check can fail.
    wrong = {**bodies[-1], "data": {**bodies[-1]["data"], "object": {"id": "seven"}}}
    assert complaints(wrong, schema_for(wrong["type"], tenant))


def test_an_example_keeps_to_its_own_schema(tenant: Tenant, every_action: None) -> None:
    topics = catalog.topics()
    assert len(topics) > 20
    for topic in topics:
        schema = schema_for(topic, tenant)
        assert complaints(schemas.example(schema), schema) == [], topic


def full_and_bare(tenant: Tenant) -> list[models.Model]:
    """Rows with a value, and without one, in fields of every kind."""
    keeper = Keeper.objects.create(badge="K1")
    full = Animal.objects.create(
        tenant=tenant,
        name="Zoë",
        size=Animal.Size.LARGE,
        steps=2**62,
        age=7,
        vaccinated=False,
        weight=0.1,
        price=Decimal("1234.50"),
        discount=Decimal("0.1250"),
        born=date(2020, 2, 29),
        seen_at=datetime(2026, 11, 21, 9, 30, tzinfo=UTC),
        fed_at=time(7, 5),
        nap=timedelta(days=1, hours=2),
        chip=uuid.UUID(int=7),
        address="2001:db8::1",
        photo=ContentFile(b"stripes", name="zoe.png"),
        chart="kinds.py",
        dna=b"\x00\xff",
        traits={"stripes": [1, 2.5]},
        log=[1],
        colour=Colour(1, 2, 255),
        keeper=keeper,
        deputy=keeper,
    )
    full.keepers.add(keeper)
    full.friends.add(bare := Animal.objects.create(tenant=tenant, name="Bare", photo=None))
    return [full, bare, Crate.objects.create(tenant=tenant), Passport.objects.create(animal=full, number="P-1")]


def test_fields_of_every_kind_are_written_as_the_schema_says(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Animal._meta.get_field("photo"), "storage", InMemoryStorage(base_url="/media/"))
    for row in full_and_bare(tenant):
        entry = Entry(model=type(row), tenant=catalog.EVERY_TENANT, fields="__all__")
        schema = schemas.schema_of("zoo.row.created", entry, "created")
        Draft202012Validator.check_schema(schema)
        shown = shape_of(entry).object(type(row)._default_manager.get(pk=row.pk))
        body = {"type": "zoo.row.created", "timestamp": "2026-11-21T09:30:00Z", "tenant": None}
        sent = json.loads(dumps({**body, "data": {"object": shown}}))
        assert complaints(sent, schema) == []
        assert unknown(sent, schema) == set()
        assert schemas.names(entry) == list(shown)


class OrderSerializer(serializers.ModelSerializer):  # type: ignore[type-arg]
    customer_name = serializers.CharField(source="customer.name", read_only=True)
    lines = serializers.ListField(child=serializers.IntegerField(), source="line_numbers")
    kind = serializers.SerializerMethodField()
    note = serializers.CharField(write_only=True)

    class Meta:
        model = Order
        fields = ("id", "status", "total", "customer", "customer_name", "tags", "lines", "kind", "note")

    def get_kind(self, order: Order) -> dict[str, str]:
        return {"of": "order"}


def test_a_serializer_says_its_own_schema(tenant: Tenant) -> None:
    entry = Entry(model=Order, tenant="customer__tenant", serializer=OrderSerializer)
    properties = schemas.schema_of("shop.order.created", entry, "created")["properties"]["data"]["properties"]
    fields = properties["object"]["properties"]
    assert fields["status"] == {"type": "string", "examples": ["new", "paid", "shipped"]}
    assert fields["total"] == {"type": "string", "format": "decimal"}
    assert fields["customer_name"] == {"type": ["string", "null"]}
    assert fields["lines"] == {"type": "array", "items": {"type": "integer"}}
    assert fields["tags"] == {"type": "array", "items": {}}
    assert fields["kind"] == {}
    assert "note" not in fields
    assert "required" not in properties["object"]
    assert schemas.changing(entry) == ("status", "total", "customer")
    assert schemas.names(entry) == [name for name in OrderSerializer.Meta.fields if name != "note"]


def test_a_serializer_that_cannot_be_made_has_no_fields(tenant: Tenant) -> None:
    class Needy(serializers.Serializer):  # type: ignore[type-arg]
        def __init__(self, needed: int) -> None:
            raise AssertionError

    entry = Entry(model=Order, tenant="customer__tenant", serializer=Needy)
    assert schemas.described(entry) == []
    assert schemas.changing(entry) == ()


def test_only_columns_that_can_change_are_offered_as_changing(tenant: Tenant) -> None:
    # Neither the key nor the links, of which `changes` says nothing.
    assert schemas.changing(catalog.entries()[Order]) == ("number", "status", "total", "customer", "placed_at")


def test_a_null_column_may_be_null_and_another_may_not(tenant: Tenant) -> None:
    entry = catalog.entries()[Order]
    schema = schema_for("shop.order.created", tenant)
    body = schemas.example(schema)
    body["data"]["object"]["status"] = None
    assert complaints(body, schema) == ["$.data.object.status: None is not of type 'string'"]
    assert [field.nullable for field in schemas.described(entry)] == [False] * 7


def test_what_a_key_refers_to_is_said(tenant: Tenant) -> None:
    found = {field.name: (field.kind, field.refers_to) for field in schemas.described(catalog.entries()[Order])}
    assert found["customer"] == ("integer", "shop.customer")
    assert found["tags"] == ("array of integer", "shop.tag")
    assert found["placed_at"] == ("string (date-time)", "")


def test_a_topic_without_a_model_may_hold_anything(tenant: Tenant) -> None:
    schema = schemas.schema_of("billing.invoice.paid")
    event = events.publish("billing.invoice.paid", tenant, {"number": 7})
    assert complaints(json.loads(bytes(event.body)), schema) == []


def test_a_subscription_that_was_turned_off_is_told_of_as_its_schema_says(
    tenant: Tenant, subscribe: Callable[..., Subscription]
) -> None:
    subscription = subscribe(tenant, "*")
    disabling.disable(subscription.pk, reason="410 Gone", using="default")
    [event] = Event.objects.filter(topic="signalpost.subscription.disabled")
    assert complaints(json.loads(bytes(event.body)), schema_for(event.topic, tenant)) == []


def test_only_the_operators_tenant_is_offered_the_projects_topics(tenant: Tenant, settings: Any) -> None:
    settings.SIGNALPOST_PROJECT_ACTIONS = ["migrated", "request.failed"]
    assert offers.find("project.migrated", tenant) is None
    settings.SIGNALPOST_OPERATOR_TENANT = tenant.slug
    for topic in ("project.migrated", "project.request.failed"):
        schema = schema_for(topic, tenant)
        assert complaints(schemas.example(schema), schema) == []
    assert offers.find("project.request.started", tenant) is None

"""Everything that a tenant may hear, and one topic of it."""

from __future__ import annotations

import json
import re
from html import unescape
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from jsonschema import Draft202012Validator

from examples.shop.models import Customer, Order, Tag
from subscriptions import catalog, offers
from subscriptions.entries import DISABLED
from subscriptions.models import Membership, Role, Subscription, Tenant
from tests.zoo.kinds import Animal, Crate
from webhooks import events, samples
from webhooks.models import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Browser = Callable[[User], Client]

pytestmark = [pytest.mark.django_db, pytest.mark.on("sqlite")]

TOPICS = "/t/acme/topics/"
AT_MOST = 12  # queries of a page, however many topics there are


def address(topic: str) -> str:
    return reverse("webhooks:topic", args=["acme", topic])


def text(response: Any) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", response.content.decode())).split())


def body_of(response: Any) -> dict[str, Any]:
    match = re.search(r'<pre class="code" id="body"[^>]*>(.*?)</pre>', response.content.decode(), re.DOTALL)
    assert match is not None
    body: dict[str, Any] = json.loads(unescape(match[1]))
    return body


@pytest.fixture
def viewer(bob: User, browser: Browser) -> Client:
    Membership.objects.filter(user=bob).update(role=Role.VIEWER)
    return browser(bob)


@pytest.fixture
def register() -> Iterator[Callable[..., None]]:
    registered: list[Any] = []

    def make(model: Any, **options: Any) -> None:
        registered.append(model)
        catalog.register(model, **options)

    yield make
    for model in registered:
        catalog.unregister(model)


def order(tenant: Tenant, number: str) -> Order:
    customer = Customer.objects.create(tenant=tenant, name="Initech", email="bill@initech.example")
    return Order.objects.create(customer=customer, number=number, total="42.00", status="paid")


def seen_by(tenant: Tenant, topic: str) -> dict[str, Any]:
    offer = offers.find(topic, tenant)
    assert offer is not None
    body: dict[str, Any] = json.loads(samples.sample_of(offer, tenant).body)
    return body


# Who may


def test_an_outsider_gets_404_and_who_is_not_signed_in_is_sent_to_sign_in(
    alice: User, charlie: User, browser: Browser, client: Client
) -> None:
    for url in (TOPICS, address("shop.order.updated")):
        assert browser(charlie).get(url).status_code == 404
        assert client.get(url).url.endswith(f"?next={url}")  # type: ignore[attr-defined]


def test_a_viewer_sees_topics_and_is_not_offered_to_subscribe(viewer: Client, alice: User, browser: Browser) -> None:
    for url in (TOPICS, address("shop.order.updated")):
        assert "/subscriptions/new/" not in viewer.get(url).content.decode()
        assert "/subscriptions/new/" in browser(alice).get(url).content.decode()


# The list


def test_every_topic_has_a_link(viewer: Client) -> None:
    page = viewer.get(TOPICS)
    linked = re.findall(rf'href="{TOPICS}([^"]+)/"', page.content.decode())
    assert sorted(linked) == catalog.topics()
    assert f"{len(linked)} topics" in text(page)


def test_a_search_finds_models_actions_and_topics_without_a_model(viewer: Client) -> None:
    page = viewer.get(TOPICS, {"q": "Order UPDATED"})
    assert 'id="shop.order"' in page.content.decode()
    assert 'id="shop.tag"' not in page.content.decode()
    assert "6 topics" in text(page)
    assert "signalpost.subscription.disabled" in text(viewer.get(TOPICS, {"q": "turned off"}))
    nothing = viewer.get(TOPICS, {"q": "<b>nothing"})
    assert "No topic is called <b>nothing" in text(nothing)
    assert "<b>nothing" not in nothing.content.decode()


def test_the_list_takes_the_same_few_queries_with_300_topics(
    viewer: Client, django_assert_max_num_queries: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = catalog.entries()[Order]
    many = [
        offers.Group(
            "shop",
            "Shop",
            tuple(offers.Model(entry, f"Orders {n}", offers.model_of(entry).offers) for n in range(50)),
        )
    ]
    monkeypatch.setattr(offers, "groups", lambda: many)
    with django_assert_max_num_queries(AT_MOST):
        page = viewer.get(TOPICS)
    assert "302 topics" in text(page)


# One topic


@pytest.mark.parametrize(
    "topic", ["shop.order.nothing", "shop.nothing.created", "billing.invoice.paid", "shop.order.*", "*"]
)
def test_a_topic_that_is_not_offered_is_not_there(viewer: Client, topic: str) -> None:
    assert viewer.get(address(topic)).status_code == 404


def test_a_topic_shows_its_fields_its_schema_and_a_body(viewer: Client, tenant: Tenant) -> None:
    order(tenant, "A-1001")
    page = viewer.get(address("shop.order.updated"))
    said = text(page)
    assert "placed_at string (date-time)" in said
    assert "customer integer key of shop.customer" in said
    assert "status string new , paid , shipped" in said
    assert '"$schema": "https://json-schema.org/draft/2020-12/schema"' in said
    body = body_of(page)
    assert (body["type"], body["tenant"], body["data"]["object"]["number"]) == ("shop.order.updated", "acme", "A-1001")
    assert body["data"]["changes"] == {"status": {"from": "new", "to": "paid"}}
    assert "Made from the newest row you may hear of." in said


def test_beside_the_grid_only_the_body_is_asked_for(viewer: Client, tenant: Tenant) -> None:
    order(tenant, "A-1001")
    asked = {"HX-Request": "true", "HX-Target": "sample"}
    part = viewer.get(address("shop.order.created"), headers=asked)
    assert "A-1001" in text(part)
    assert "<html" not in part.content.decode()


def test_a_body_is_shown_as_text(viewer: Client, tenant: Tenant) -> None:
    order(tenant, "</pre><script>")
    page = viewer.get(address("shop.order.created"))
    assert "<script>" not in page.content.decode().partition("<main")[2]
    assert body_of(page)["data"]["object"]["number"] == "</pre><script>"


# Whose row it is


def test_another_tenants_rows_are_never_in_a_body(tenant: Tenant, make_tenant: Callable[..., Tenant]) -> None:
    globex = make_tenant("globex")
    order(tenant, "mine")
    order(globex, "theirs")
    assert seen_by(tenant, "shop.order.created")["data"]["object"]["number"] == "mine"
    assert seen_by(globex, "shop.order.created")["data"]["object"]["number"] == "theirs"
    made_up = seen_by(make_tenant("initech"), "shop.order.created")
    assert made_up["data"]["object"]["number"] == "text"


def test_the_newest_of_many_is_found_though_others_are_newer(
    tenant: Tenant, make_tenant: Callable[..., Tenant]
) -> None:
    globex = make_tenant("globex")
    order(tenant, "old")
    order(tenant, "mine")
    for _ in range(samples.LOOKED_AT + 1):
        Tag.objects.create(tenant=globex, name="theirs")
        order(globex, "theirs")
    assert seen_by(tenant, "shop.order.created")["data"]["object"]["number"] == "mine"


@pytest.mark.parametrize(
    "rule",
    [
        "tenant",
        "tenant_id",
        "tenant__pk",
        "tenant__id",
        "tenant__key",
        "mother__tenant",
        lambda animal: animal.tenant,
        lambda animal: animal.tenant.key,
    ],
    ids=["fk", "column", "pk", "id", "key", "far", "function", "function of the key"],
)
def test_by_any_rule_only_ones_own_rows_are_seen(
    tenant: Tenant, make_tenant: Callable[..., Tenant], register: Callable[..., None], rule: Any
) -> None:
    tenant.key = "A"
    tenant.save()
    globex = make_tenant("globex", key="G")
    register(Animal, tenant=rule, fields=["id", "name"])
    for owner in (tenant, globex):
        mother = Animal.objects.create(tenant=owner, name=owner.slug)
        Animal.objects.create(tenant=owner, name=owner.slug, mother=mother)
    for owner in (tenant, globex):
        assert seen_by(owner, "zoo.animal.created")["data"]["object"]["name"] == owner.slug
    assert seen_by(make_tenant("initech"), "zoo.animal.created")["data"]["object"]["name"] == "text"


def test_a_number_of_the_hosts_is_no_number_of_ours(
    tenant: Tenant, make_tenant: Callable[..., Tenant], register: Callable[..., None]
) -> None:
    """A path that ends at the host's own customer: its key is a Tenant.key."""
    owner = make_tenant("globex")
    register(Crate, tenant="width", fields=["id", "width"])
    Crate.objects.create(tenant=owner, width=tenant.pk)
    assert seen_by(tenant, "zoo.crate.created")["data"]["object"]["width"] == 2  # made up
    tenant.key = str(tenant.pk)
    tenant.save()
    assert seen_by(tenant, "zoo.crate.created")["data"]["object"]["width"] == tenant.pk


def test_a_key_of_another_kind_than_the_column_finds_nothing(tenant: Tenant, register: Callable[..., None]) -> None:
    tenant.key = "no number"
    tenant.save()
    register(Crate, tenant="width", fields=["id", "width"])
    Crate.objects.create(tenant=tenant, width=9)
    assert seen_by(tenant, "zoo.crate.created")["data"]["object"]["width"] == 2


def test_what_a_host_raises_is_no_reason_not_to_show_a_page(viewer: Client, register: Callable[..., None]) -> None:
    def whose(animal: Animal) -> Tenant:
        raise RuntimeError("not today")

    register(Animal, tenant=whose, fields=["id", "name"])
    Animal.objects.create(tenant=Tenant.objects.get(slug="acme"), name="Zoë")
    page = viewer.get(address("zoo.animal.created"))
    assert "Made up from the schema" in text(page)
    assert "not today" not in text(page)


def test_looking_at_a_body_is_no_read_that_an_audit_hears_of(
    tenant: Tenant, subscribe: Callable[..., Subscription], register: Callable[..., None], viewer: Client
) -> None:
    register(Animal, tenant="tenant", fields=["id"], actions=["initialized", "initializing"])
    Animal.objects.create(tenant=tenant, name="Zoë")
    subscribe(tenant, "*")
    Event.objects.all().delete()
    assert viewer.get(address("zoo.animal.initialized")).status_code == 200
    assert not Event.objects.exists()


def test_every_kind_of_topic_has_a_body_that_keeps_to_its_schema(tenant: Tenant, register: Callable[..., None]) -> None:
    every = [*catalog.DEFAULT_ACTIONS, *catalog.OPT_IN]
    register(Animal, tenant="tenant", fields="__all__", actions=every)
    animal = Animal.objects.create(tenant=tenant, name="Zoë", photo=None)
    for topic in (f"zoo.animal.{action}" for action in every):
        offer = offers.find(topic, tenant)
        assert offer is not None
        sample = samples.sample_of(offer, tenant)
        assert sample.source == samples.FROM_ROW
        body = json.loads(sample.body)
        assert [error.message for error in Draft202012Validator(offer.schema()).iter_errors(body)] == []
        assert body["data"]["object"]["id"] == animal.pk


def test_a_topic_without_a_model_shows_its_newest_event(
    tenant: Tenant, make_tenant: Callable[..., Tenant], monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = "billing.invoice.paid"
    monkeypatch.setattr(offers, "singles", lambda tenant: [offers.Offer(topic, "")])
    assert seen_by(tenant, topic)["data"] == {}
    events.publish(topic, tenant, {"number": 1})
    events.publish(topic, tenant, {"number": 2})
    events.publish(topic, make_tenant("globex"), {"number": 3})
    assert seen_by(tenant, topic)["data"] == {"number": 2}


@pytest.mark.parametrize("value", ["\ud800", "\u202egnp.exe", "\0"])
def test_what_nobody_can_see_or_send_is_shown_as_an_escape(viewer: Client, tenant: Tenant, value: str) -> None:
    events.write(topic=DISABLED, tenant_id=tenant.pk, tenant_slug=tenant.slug, data={"name": value}, using="default")
    for asked in ({}, {"HX-Request": "true", "HX-Target": "sample"}):
        page = viewer.get(address(DISABLED), headers=asked)
        assert page.status_code == 200
        assert json.dumps(value)[1:7] in page.content.decode()

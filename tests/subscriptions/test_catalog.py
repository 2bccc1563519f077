from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.dispatch import Signal
from rest_framework.serializers import ModelSerializer

from examples.shop.models import Customer, Order, Tag
from subscriptions import catalog
from subscriptions.catalog import EVERY_TENANT
from subscriptions.models import Membership, Revision, Secret, Subscription
from tests.zoo.odd import Abstract, Belonging, Book, Club, Memo, Person, Place, ProxyBook, Restaurant, Swapped
from webhooks.models import Delivery, Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_django import Settings

    Make = Callable[..., None]


class BookSerializer(ModelSerializer[Book]):
    class Meta:
        model = Book
        fields = ["title"]


@pytest.fixture
def register() -> Iterator[Make]:
    before = list(catalog._registrations)

    def make(model: Any, **options: Any) -> None:
        catalog.register(model, **{"tenant": "tenant", **options})

    yield make
    for registration in catalog._registrations[len(before) :]:
        model = registration.concrete()
        if model is not None and not any(each.concrete() is model for each in before):
            catalog._leave(model)
    catalog._registrations[:] = before


def found() -> list[tuple[str, str]]:
    return [(problem.code, problem.label) for problem in catalog.problems()]


def test_what_is_shipped_is_found_and_right() -> None:
    assert {Subscription, Membership, Customer, Order, Tag} <= set(catalog.entries())
    assert catalog.problems() == []
    assert "subscriptions.subscription.updated" in catalog.topics()
    assert catalog.topics() == sorted(set(catalog.topics()))


def test_only_a_model_with_relations_has_their_topics() -> None:
    topics = catalog.topics()
    assert "shop.order.added" in topics
    assert "shop.customer.added" not in topics


def test_loading_again_changes_nothing() -> None:
    before = dict(catalog.entries())
    catalog.load()
    assert dict(catalog.entries()) == before


def test_an_entry_speaks_for_proxies_and_children(register: Make) -> None:
    register(Place)
    register(Book)
    assert catalog.entry_for(ProxyBook) is catalog.entries()[Book]
    assert catalog.entry_for(Restaurant) is catalog.entries()[Place]
    register(Restaurant)
    assert catalog.entry_for(Restaurant) is catalog.entries()[Restaurant]
    assert catalog.entry_for(Memo) is None


def test_a_model_can_be_named_by_its_label(register: Make) -> None:
    register("zoo.Book", fields=["title"])
    register("auth.User", tenant=EVERY_TENANT)
    assert catalog.entries()[Book].label_lower == "zoo.book"
    assert User in catalog.entries()
    assert found() == []


def test_sensitive_fields_are_exposed_only_by_name(register: Make) -> None:
    register(Place, fields="__all__")
    register(User, tenant=EVERY_TENANT, fields=["id", "password"])
    place, user = catalog.entries()[Place], catalog.entries()[User]
    assert catalog.exposed(place) == ("id", "tenant", "name")
    assert catalog.left_out(place) == ["password"]
    assert catalog.exposed(user) == ("id", "password")
    assert catalog.left_out(user) == []


def test_every_field_of_a_child_is_its_parents_too_without_the_link(register: Make) -> None:
    register(Restaurant, fields="__all__")
    assert catalog.exposed(catalog.entries()[Restaurant]) == ("id", "tenant", "name", "stars")


def test_every_field_includes_relations_to_many(register: Make) -> None:
    register(Club, fields="__all__")
    assert catalog.exposed(catalog.entries()[Club]) == ("id", "tenant", "name", "members")


def test_nothing_is_exposed_that_was_not_named(register: Make) -> None:
    register(Book)
    register(Restaurant)
    assert catalog.exposed(catalog.entries()[Book]) == ("id",)
    assert catalog.exposed(catalog.entries()[Restaurant]) == ("id",)


@pytest.mark.parametrize(
    ("model", "options", "problem"),
    [
        (Book, {"fields": ["title", "titel"]}, ("unknown-field", "zoo.Book")),
        (Book, {"fields": ["tenant_id"]}, ("unknown-field", "zoo.Book")),
        (Person, {"fields": ["belonging"]}, ("unknown-field", "zoo.Person")),
        (Book, {"fields": "title"}, ("bad-fields", "zoo.Book")),
        (Book, {"fields": ["title"], "serializer": BookSerializer}, ("bad-fields", "zoo.Book")),
        (Book, {"serializer": "no.such.Serializer"}, ("unknown-serializer", "zoo.Book")),
        (Book, {"tenant": "owner"}, ("unknown-tenant", "zoo.Book")),
        (Book, {"tenant": "tenant__owner"}, ("unknown-tenant", "zoo.Book")),
        (Book, {"tenant": None}, ("unknown-tenant", "zoo.Book")),
        (Book, {"tenant": ""}, ("unknown-tenant", "zoo.Book")),
        (Book, {"actions": ["created", "creatd"]}, ("unknown-action", "zoo.Book")),
        (Order, {"tenant": "customer__tenant"}, ("duplicate", "shop.Order")),
        ("zoo.Buch", {}, ("unknown-model", "zoo.Buch")),
        ("nowhere.Book", {}, ("unknown-model", "nowhere.Book")),
        ("Book", {}, ("unknown-model", "Book")),
        (Abstract, {}, ("unknown-model", "zoo.Abstract")),
        (7, {}, ("unknown-model", "7")),
        (Book, {"fields": 7}, ("unknown-field", "zoo.Book")),
        (Book, {"fields": [["title"]]}, ("unknown-field", "zoo.Book")),
        (Book, {"actions": "creatd"}, ("unknown-action", "zoo.Book")),
        (Book, {"actions": [None]}, ("unknown-action", "zoo.Book")),
        (Event, {}, ("own-traffic", "webhooks.Event")),
        (Delivery, {}, ("own-traffic", "webhooks.Delivery")),
        (Secret, {"tenant": "subscription__tenant"}, ("own-traffic", "subscriptions.Secret")),
        (Revision, {"tenant": EVERY_TENANT}, ("own-traffic", "subscriptions.Revision")),
    ],
)
def test_a_wrong_registration_is_a_problem_and_no_exception(
    register: Make, model: Any, options: dict[str, Any], problem: tuple[str, str]
) -> None:
    register(model, **options)
    assert found() == [problem]
    [said] = catalog.problems()
    assert said.label in said.text
    assert said.hint


def test_what_is_right_of_a_wrong_registration_counts(register: Make) -> None:
    register(Book, fields=["titel", "title"], actions=["creatd", "created"])
    entry = catalog.entries()[Book]
    assert catalog.exposed(entry) == ("title",)
    assert entry.actions == {"created"}


def test_the_first_of_two_registrations_counts(register: Make) -> None:
    register(Book, fields=["title"])
    register(ProxyBook, fields=["pages"])
    assert catalog.exposed(catalog.entries()[Book]) == ("title",)
    assert found() == [("duplicate", "zoo.Book")]


def test_our_own_traffic_never_joins(register: Make) -> None:
    register(Event)
    assert Event not in catalog.entries()


def test_a_swapped_model_is_a_problem_that_names_the_other(register: Make, settings: Settings) -> None:
    settings.ZOO_SWAPPED_MODEL = "zoo.Book"
    register(Swapped)
    assert Swapped not in catalog.entries()
    [problem] = catalog.problems()
    assert (problem.code, problem.label) == ("unknown-model", "zoo.Swapped")
    assert "zoo.Book" in problem.hint


class TestSignals:
    @pytest.fixture(autouse=True)
    def nothing_registered(self) -> Iterator[None]:
        yield
        catalog._signals.clear()

    def test_a_signal_has_a_topic(self) -> None:
        catalog.register_signal(Signal(), topic="billing.invoice.paid", tenant=lambda sender: None, payload=dict)
        assert [each.topic for each in catalog.signals()] == ["billing.invoice.paid"]
        assert "billing.invoice.paid" in catalog.topics()

    @pytest.mark.parametrize("topic", ["Billing.paid", "paid", "", "billing.*", "a." + "b" * 200, None])
    def test_a_topic_that_is_none_is_a_problem(self, topic: Any) -> None:
        catalog.register_signal(Signal(), topic=topic, tenant=lambda sender: None, payload=dict)
        assert catalog.signals() == []
        assert found() == [("bad-topic", str(topic))]

    def test_a_topic_of_two_signals_is_a_problem(self) -> None:
        for _ in range(2):
            catalog.register_signal(Signal(), topic="billing.paid", tenant=lambda sender: None, payload=dict)
        assert found() == [("duplicate", "billing.paid")]


def tenant_of_memo(memo: Any) -> str:
    return str(memo.owner_key)


class TestPatterns:
    def test_an_app(self, settings: Settings) -> None:
        settings.SIGNALPOST_REGISTER = {"zoo.*": {"tenant": "*", "fields": ["name", "title"], "actions": ["created"]}}
        entry = catalog.entries()[Book]
        assert entry.tenant is EVERY_TENANT
        assert catalog.exposed(entry) == ("title",)
        assert entry.actions == {"created"}
        assert {Place, Restaurant, Club, Belonging} <= set(catalog.entries())
        assert ProxyBook not in catalog.entries()
        assert User not in catalog.entries()
        assert found() == []

    def test_one_model(self, settings: Settings) -> None:
        settings.SIGNALPOST_REGISTER = {"zoo.Book": {"tenant": "tenant", "serializer": f"{__name__}.BookSerializer"}}
        assert catalog.entries()[Book].serializer is BookSerializer
        assert Place not in catalog.entries()
        assert found() == []

    def test_everything_but_our_own_traffic_and_the_frameworks(self, settings: Settings) -> None:
        before = set(catalog.entries())
        settings.SIGNALPOST_REGISTER = {"*": {"tenant": "*", "fields": "__all__"}}
        new = set(catalog.entries()) - before
        assert {Book, Place, User} <= new
        apps = {model._meta.app_label for model in new}
        assert not apps & {"webhooks", "subscriptions", "sessions", "contenttypes", "admin", "django_rq"}
        assert not any(model._meta.auto_created for model in new)
        assert found() == []

    def test_an_app_that_is_named_is_reached(self, settings: Settings) -> None:
        settings.SIGNALPOST_REGISTER = {"sessions.*": {"tenant": "*"}}
        assert Session in catalog.entries()

    def test_the_most_precise_counts(self, settings: Settings) -> None:
        settings.SIGNALPOST_REGISTER = {
            "*": {"tenant": "*", "fields": ["id"]},
            "zoo.*": {"tenant": "*", "fields": ["pages"]},
            "zoo.book": {"tenant": "*", "fields": ["title"]},
        }
        shown = [catalog.exposed(catalog.entries()[model]) for model in (User, Book)]
        assert shown == [("id",), ("title",)]

    def test_code_counts_more(self, settings: Settings, register: Make) -> None:
        before = catalog.entries()[Order]
        settings.SIGNALPOST_REGISTER = {"*": {"tenant": "*"}}
        assert catalog.entries()[Order] is before
        register(Book, fields=["title"])
        assert catalog.entries()[Book].tenant == "tenant"
        assert found() == []

    def test_a_dotted_path_is_a_callable(self, settings: Settings) -> None:
        settings.SIGNALPOST_REGISTER = {"zoo.Memo": {"tenant": f"{__name__}.tenant_of_memo"}}
        assert catalog.entries()[Memo].tenant is tenant_of_memo

    def test_what_a_pattern_registered_goes_with_it(self, settings: Settings) -> None:
        settings.SIGNALPOST_REGISTER = {"zoo.*": {"tenant": "*"}}
        settings.SIGNALPOST_REGISTER = {}
        assert Book not in catalog.entries()

    @pytest.mark.parametrize(
        ("setting", "problems"),
        [
            ({"zo.*": {"tenant": "*"}}, [("pattern-matches-nothing", "SIGNALPOST_REGISTER['zo.*']")]),
            ({"zoo.Buch": {"tenant": "*"}}, [("pattern-matches-nothing", "SIGNALPOST_REGISTER['zoo.Buch']")]),
            ({"zoo": {"tenant": "*"}}, [("pattern-matches-nothing", "SIGNALPOST_REGISTER['zoo']")]),
            ({"webhooks.*": {"tenant": "*"}}, [("own-traffic", "SIGNALPOST_REGISTER['webhooks.*']")]),
            ({"webhooks.Event": {"tenant": "*"}}, [("own-traffic", "SIGNALPOST_REGISTER['webhooks.Event']")]),
            ({"zoo.Book": {"tenant": "owner"}}, [("unknown-tenant", "zoo.Book")]),
            ({"zoo.Book": {}}, [("unknown-tenant", "zoo.Book")]),
            ({"zoo.Book": {"tenant": "no.such.function"}}, [("unknown-tenant", "zoo.Book")]),
            ({"zoo.Book": {"tenant": "*", "fields": ["titel"]}}, [("unknown-field", "zoo.Book")]),
            ({"zoo.*": {"tenant": "*", "fields": ["nobodys"]}}, [("unknown-field", "SIGNALPOST_REGISTER['zoo.*']")]),
            ({"zoo.Book": {"tenant": "*", "actions": ["creatd"]}}, [("unknown-action", "zoo.Book")]),
            ({"zoo.Book": {"tenant": "*", "serializer": "no.such"}}, [("unknown-serializer", "zoo.Book")]),
            ({"zoo.Book": {"tenant": "*", "feilds": []}}, [("bad-setting", "SIGNALPOST_REGISTER['zoo.Book']")]),
            ({"zoo.Book": {"tenant": "*", "fields": 7}}, [("unknown-field", "zoo.Book")]),
            ({"zoo.Book": {"tenant": "*", "actions": None}}, [("unknown-action", "zoo.Book")]),
            ({"zoo.Book": "tenant"}, [("bad-setting", "SIGNALPOST_REGISTER['zoo.Book']")]),
            ({"shop.Order": {"tenant": "*"}}, [("duplicate", "shop.Order")]),
            ({7: {}}, [("bad-setting", "SIGNALPOST_REGISTER")]),
            (["zoo.*"], [("bad-setting", "SIGNALPOST_REGISTER")]),
        ],
    )
    def test_a_wrong_pattern_is_a_problem_and_no_exception(
        self, settings: Settings, setting: Any, problems: list[tuple[str, str]]
    ) -> None:
        settings.SIGNALPOST_REGISTER = setting
        assert found() == problems

    def test_an_unknown_action_of_the_project_is_a_problem(self, settings: Settings) -> None:
        settings.SIGNALPOST_PROJECT_ACTIONS = ["migrated", "request.done"]
        assert found() == [("unknown-action", "SIGNALPOST_PROJECT_ACTIONS")]
        assert "project.migrated" in catalog.topics()
        assert "project.request.done" not in catalog.topics()

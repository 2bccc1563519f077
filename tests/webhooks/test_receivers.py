from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from django.apps import apps
from django.core import signals as requests
from django.db import connection, models
from django.db.models import signals
from django.test.utils import isolate_apps

from examples.shop.models import Customer, Order
from subscriptions import catalog
from subscriptions.models import Membership, Subscription, Tenant
from tests.zoo.odd import Author, Book, Memo, Org, Place, ProxyBook, Restaurant
from webhooks import matching, receivers
from webhooks.models import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_django import Settings

    from tests.webhooks.conftest import Captured

    Read = Callable[..., Captured]
    Make = Callable[..., Any]


class Stranger:
    """A sender that nobody has heard of."""


MODEL_SIGNALS = [
    signals.pre_save,
    signals.post_save,
    signals.pre_delete,
    signals.post_delete,
    signals.m2m_changed,
    signals.pre_init,
    signals.post_init,
]
SIGNALS = [
    *MODEL_SIGNALS,
    signals.class_prepared,
    signals.pre_migrate,
    signals.post_migrate,
    requests.request_started,
    requests.request_finished,
    requests.got_request_exception,
]


def ours() -> Counter[tuple[int, Any]]:
    """How many times each signal has us for each sender that there is. What a
    signal remembers of classes that are gone depends on the garbage collection."""
    senders = [Stranger, *apps.get_models(include_auto_created=True), apps.get_app_config("webhooks")]
    return Counter(
        {
            (number, sender): signal._live_receivers(sender)[0].count(receivers.receive)
            for number, signal in enumerate(SIGNALS)
            for sender in senders
        }
    )


def hears(signal: Any, sender: Any) -> bool:
    return receivers.receive in signal._live_receivers(sender)[0]


def test_connecting_again_changes_nothing() -> None:
    before, wrapper = ours(), Subscription.save_base
    apps.get_app_config("subscriptions").ready()
    apps.get_app_config("webhooks").ready()
    assert ours() == before
    assert set(before.values()) == {0, 1}
    assert Subscription.save_base is wrapper


def test_a_model_that_is_not_registered_has_no_receiver() -> None:
    assert not any(hears(signal, Author) for signal in MODEL_SIGNALS)
    assert "save_base" not in Author.__dict__


def test_no_receiver_of_a_model_is_without_a_sender() -> None:
    assert not any(hears(signal, Stranger) for signal in MODEL_SIGNALS)


def test_a_model_is_heard_while_it_is_registered_and_no_longer(register: Make) -> None:
    before = ours()
    register(Book)
    assert [hears(signal, Book) for signal in MODEL_SIGNALS] == [True] * 4 + [False] * 3
    assert [hears(signal, ProxyBook) for signal in MODEL_SIGNALS] == [True] * 4 + [False] * 3
    catalog.unregister(Book)
    assert ours() == before
    assert "save_base" not in Book.__dict__


def test_a_child_stays_heard_when_its_parent_goes(register: Make) -> None:
    register(Place)
    register(Restaurant)
    catalog.unregister(Place)
    assert hears(signals.post_save, Restaurant)
    assert not hears(signals.post_save, Place)


@pytest.fixture
def made() -> Iterator[Callable[[type[models.Model]], None]]:
    """Makes the table of a class that a test defines, and forgets both."""
    classes: list[type[models.Model]] = []

    def make(model: type[models.Model]) -> None:
        with connection.schema_editor() as editor:
            editor.create_model(model)
        classes.append(model)

    yield make
    for model in classes:
        with connection.schema_editor() as editor:
            editor.delete_model(model)


@pytest.fixture
def forgotten() -> Iterator[None]:
    """Classes that a test puts into Django's registry leave it again."""
    before = dict(apps.all_models["zoo"])
    yield
    for name in set(apps.all_models["zoo"]) - set(before):
        catalog.unregister(apps.all_models["zoo"][name])
        del apps.all_models["zoo"][name]
    apps.clear_cache()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("forgotten")
class TestClassPrepared:
    def test_a_class_made_after_the_start_joins_by_its_label(
        self, listening: Tenant, register: Make, captured: Read, made: Make
    ) -> None:
        catalog.register("zoo.Latecomer", tenant="tenant", fields=["name"])
        assert [problem.code for problem in catalog.problems()] == ["unknown-model"]

        class Latecomer(models.Model):  # noqa: DJ008
            tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+")
            name = models.CharField(max_length=20)

            class Meta:
                app_label = "zoo"

        made(Latecomer)
        assert catalog.problems() == []
        Latecomer._default_manager.create(tenant=listening, name="A")
        assert captured() == [("zoo.latecomer.created", {"object": {"name": "A"}})]

    def test_or_by_a_pattern(self, listening: Tenant, captured: Read, made: Make, settings: Settings) -> None:
        settings.SIGNALPOST_REGISTER = {"zoo.*": {"tenant": "*", "fields": ["name"]}}

        class Straggler(models.Model):  # noqa: DJ008
            name = models.CharField(max_length=20)
            books = models.ManyToManyField(Book, related_name="+")

            class Meta:
                app_label = "zoo"

        made(Straggler)
        Straggler._default_manager.create(name="A").books.add(Book.objects.create(tenant=listening, title="B"))
        assert [topic for topic, _ in captured()] == [
            "zoo.straggler.created",
            "zoo.book.created",
            "zoo.straggler.added",
        ]
        assert not any(model._meta.auto_created for model in catalog.entries())

    def test_a_proxy_or_child_of_a_registered_model_is_heard(
        self, listening: Tenant, register: Make, captured: Read
    ) -> None:
        register(Book, fields=["title"])

        class LateBook(Book):
            class Meta:
                app_label = "zoo"
                proxy = True

        LateBook.objects.create(tenant=listening, title="A")
        assert captured() == [("zoo.book.created", {"object": {"title": "A"}})]

    def test_a_class_that_no_registration_names_does_not_join(self) -> None:
        class Loner(models.Model):  # noqa: DJ008
            class Meta:
                app_label = "zoo"

        assert Loner not in catalog.entries()
        assert not hears(signals.post_save, Loner)

    def test_the_models_of_migrations_do_not_join(self, settings: Settings) -> None:
        settings.SIGNALPOST_REGISTER = {"zoo.*": {"tenant": "*"}}
        with isolate_apps("tests.zoo"):

            class Historic(models.Model):  # noqa: DJ008
                class Meta:
                    app_label = "zoo"

        assert Historic not in catalog.entries()


class TestTenants:
    def test_a_row_of_nobodys_is_skipped_counted_and_logged_once(
        self, listening: Tenant, register: Make, captured: Read, caplog: pytest.LogCaptureFixture
    ) -> None:
        register(Place, fields=["name"])
        receivers.skipped.clear()
        Place.objects.create(name="a")
        place = Place.objects.create(name="b")
        place.save()
        place.delete()
        assert captured() == []
        assert receivers.skipped == {"zoo.place": 4}
        assert [record.getMessage() for record in caplog.records].count(
            "A row of zoo.place has no tenant: there is no event for it, nor for others like it."
        ) == 1

    def test_a_key_that_nobody_has_is_nobodys(self, listening: Tenant, register: Make, captured: Read) -> None:
        register(Memo, tenant="owner_key")
        receivers.skipped.clear()
        Memo.objects.create(owner_key="unheard of", text="A")
        assert captured() == []
        assert receivers.skipped == {"zoo.memo": 1}

    def test_nor_is_a_row_anybodys_whose_way_to_a_tenant_is_not_there_yet(
        self, listening: Tenant, captured: Read
    ) -> None:
        """Foreign keys are checked at the commit, and some by nobody."""
        receivers.skipped.clear()
        order = Order.objects.create(customer_id=77, number="1", total=3)
        assert captured() == []
        assert receivers.skipped == {"shop.order": 1}
        Customer.objects.create(pk=77, tenant=listening, name="Ann", email="ann@acme.example")
        order.refresh_from_db()
        order.save()
        assert [topic for topic, _ in captured()] == ["shop.customer.created", "shop.order.updated"]

    @pytest.mark.parametrize("rule", ["owner_key", "org", lambda memo: memo.owner_key, lambda memo: memo.org])
    def test_a_key_finds_its_tenant(
        self, rule: Any, make_tenant: Make, subscribe: Make, register: Make, captured: Read
    ) -> None:
        tenant = make_tenant("keyed", key="org-7")
        subscribe(tenant, "*")
        register(Memo, tenant=rule, fields=["text"])
        Memo.objects.create(owner_key="org-7", org=Org.objects.create(code="org-7"), text="A")
        assert captured() == [("zoo.memo.created", {"object": {"text": "A"}})]
        assert Event.objects.get().tenant == tenant

    def test_a_slug_is_no_key(self, make_tenant: Make, subscribe: Make, register: Make, captured: Read) -> None:
        """One customer's code may be another's slug."""
        subscribe(make_tenant("acme"), "*")
        register(Memo, tenant="owner_key")
        Memo.objects.create(owner_key="acme", text="A")
        assert captured() == []

    def test_every_tenant_is_one_event(
        self, listening: Tenant, make_tenant: Make, subscribe: Make, register: Make, captured: Read
    ) -> None:
        subscribe(make_tenant("other"), "zoo.*")
        register(Memo, tenant=catalog.EVERY_TENANT, fields=["text"])
        Memo.objects.create(text="A").delete()
        assert [topic for topic, _ in captured()] == ["zoo.memo.created", "zoo.memo.deleted"]
        assert all(event.tenant is None for event in Event.objects.all())


class TestOurOwnWishes:
    def test_a_tenant_hears_of_its_subscriptions_and_members(
        self, listening: Tenant, captured: Read, django_user_model: Any
    ) -> None:
        subscription = Subscription.objects.create(tenant=listening, url="https://receiver.example/2")
        subscription.name = "Second"
        subscription.save()
        subscription.delete()
        user = django_user_model.objects.create_user("bob")
        Membership.objects.create(tenant=listening, user=user)
        told = captured()
        assert [topic for topic, _ in told] == [
            "subscriptions.subscription.created",
            "subscriptions.subscription.updated",
            "subscriptions.subscription.deleted",
            "subscriptions.membership.created",
        ]
        assert told[1][1]["changes"] == {"name": {"from": "", "to": "Second"}}

    def test_it_hears_that_one_was_turned_off_and_on(self, listening: Tenant, captured: Read) -> None:
        subscription = Subscription.objects.create(tenant=listening, url="https://receiver.example/2")
        captured()
        assert subscription.disable(reason="410 Gone")
        assert not subscription.disable(reason="again")
        assert subscription.enable()
        off, on = captured()
        assert off[0] == on[0] == "subscriptions.subscription.updated"
        assert off[1]["changes"]["disabled_reason"] == {"from": "", "to": "410 Gone"}
        assert on[1]["changes"]["disabled_at"]["to"] is None

    def test_nothing_of_a_secret_is_told(self, listening: Tenant, captured: Read) -> None:
        subscription = Subscription.objects.get()
        subscription.rotate_secret()
        subscription.secrets.all().delete()
        assert captured() == []


def test_a_subscription_takes_effect_in_the_very_transaction(tenant: Tenant, subscribe: Make, captured: Read) -> None:
    matching.wanted("any.topic")
    subscribe(tenant, "subscriptions.subscription.created")
    Subscription.objects.create(tenant=tenant, url="https://receiver.example/2")
    assert len(captured()) == 1

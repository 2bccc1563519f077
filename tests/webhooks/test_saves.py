from __future__ import annotations

import asyncio
import threading
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import sync_to_async
from django.core import serializers
from django.db import connection, connections, transaction
from django.db.models import F
from django.db.models.functions import Lower
from django.db.models.signals import post_save, pre_save

from examples.shop.models import Customer, Order
from subscriptions import catalog
from subscriptions.models import Tenant
from tests.zoo.kinds import Animal, Crate
from tests.zoo.odd import Annex, Book, Place, ProxyBook, Restaurant, Seat, Ticket
from webhooks import matching, saves
from webhooks.events import CaptureError
from webhooks.models import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.dispatch import Signal
    from pytest_django import DjangoAssertNumQueries, Settings

    from tests.webhooks.conftest import Captured

    Read = Callable[..., Captured]
    Make = Callable[..., Any]


@pytest.fixture
def order(tenant: Tenant) -> Order:
    customer = Customer.objects.create(tenant=tenant, name="Ann", email="ann@acme.example")
    return Order.objects.create(customer=customer, number="1", total=Decimal(3))


def test_a_new_row_is_created(listening: Tenant, captured: Read) -> None:
    customer = Customer.objects.create(tenant=listening, name="Ann", email="ann@acme.example", password="hunter2")
    (topic, data), *rest = captured()
    assert topic == "shop.customer.created"
    assert data == {
        "object": {"id": customer.pk, "name": "Ann", "email": "ann@acme.example"},
    }
    assert rest == []


def test_a_save_says_what_it_changed(order: Order, listening: Tenant, captured: Read) -> None:
    order.status, order.number = "paid", "2"
    order.save()
    [(topic, data)] = captured()
    assert topic == "shop.order.updated"
    assert data["object"]["status"] == "paid"
    assert data["changes"] == {"status": {"from": "new", "to": "paid"}, "number": {"from": "1", "to": "2"}}
    assert sorted(Event.objects.get().changed or []) == ["number", "status"]


def test_a_save_that_changes_nothing_says_so(order: Order, listening: Tenant, captured: Read) -> None:
    order.save()
    [(_, data)] = captured()
    assert data["changes"] == {}


def test_a_save_that_changes_nothing_can_be_left_out(
    tenant: Tenant, listening: Tenant, register: Make, captured: Read
) -> None:
    register(Book, fields=["title"], skip_unchanged=True)
    book = Book.objects.create(tenant=tenant, title="A")
    book.save()
    book.pages = 7  # Not exposed.
    book.save()
    book.title = "B"
    book.save()
    assert [topic for topic, _ in captured()] == ["zoo.book.created", "zoo.book.updated"]


def test_changes_are_right_after_a_refresh(order: Order, listening: Tenant, captured: Read) -> None:
    Order.objects.filter(pk=order.pk).update(status="paid")
    order.refresh_from_db()
    order.status = "shipped"
    order.save()
    [(_, data)] = captured()
    assert data["changes"] == {"status": {"from": "paid", "to": "shipped"}}


def test_changes_are_against_the_database_not_against_a_stale_instance(
    order: Order, listening: Tenant, captured: Read
) -> None:
    Order.objects.filter(pk=order.pk).update(status="paid")
    order.save()  # Writes "new" over it.
    [(_, data)] = captured()
    assert data["changes"] == {"status": {"from": "paid", "to": "new"}}


def test_a_partial_save_tells_of_what_it_wrote(order: Order, listening: Tenant, captured: Read) -> None:
    order.status, order.number = "paid", "not written"
    order.save(update_fields=["status"])
    [(_, data)] = captured()
    assert data["changes"] == {"status": {"from": "new", "to": "paid"}}
    assert data["object"]["number"] == "1"


def test_a_partial_save_goes_to_the_tenant_in_the_database(
    order: Order, listening: Tenant, make_tenant: Make, subscribe: Make, captured: Read
) -> None:
    other = make_tenant("other")
    subscribe(other, "*")
    order.customer = Customer.objects.create(tenant=other, name="Bob", email="bob@other.example")
    captured()
    order.status = "paid"
    order.save(update_fields=["status"])
    assert Event.objects.get(topic="shop.order.updated").tenant == listening


def test_saving_no_fields_is_no_event(order: Order, listening: Tenant, captured: Read) -> None:
    order.save(update_fields=[])
    assert captured() == []


def test_a_deferred_instance_tells_of_what_it_loaded(order: Order, listening: Tenant, captured: Read) -> None:
    partial = Order.objects.defer("number", "total").get(pk=order.pk)
    partial.status = "paid"
    partial.save()
    [(_, data)] = captured()
    assert data["changes"] == {"status": {"from": "new", "to": "paid"}}
    assert data["object"]["number"] == "1"
    assert {"number", "total"} <= partial.get_deferred_fields()


def test_an_expression_is_resolved(order: Order, listening: Tenant, captured: Read) -> None:
    order.total = F("total") + 2
    order.save()
    [(_, data)] = captured()
    assert data["object"]["total"] == "5.00"
    assert data["changes"] == {"total": {"from": "3.00", "to": "5.00"}}


def test_text_given_for_numbers_and_dates_is_what_the_database_made_of_it(
    tenant: Tenant, listening: Tenant, register: Make, captured: Read
) -> None:
    register(Animal, fields=["legs", "born", "price"])
    animal = Animal(tenant=tenant, name="Rex", legs="3", born="2026-01-02", price="1.5")
    animal.save()
    [(_, data)] = captured()
    assert data["object"] == {"legs": 3, "born": "2026-01-02", "price": "1.50"}


def test_generated_columns_and_database_defaults_are_read_afresh(
    tenant: Tenant, listening: Tenant, register: Make, captured: Read
) -> None:
    register(Crate, fields=["width", "area", "state"])
    crate = Crate.objects.create(tenant=tenant, width=2, height=3)
    crate.width = 5
    crate.save()
    crate.height = 4
    crate.save(update_fields=["height"])
    created, updated, partial = (data for _, data in captured())
    assert created["object"] == {"width": 2, "area": 6, "state": "new"}
    assert updated["changes"] == {"width": {"from": 2, "to": 5}, "area": {"from": 6, "to": 15}}
    assert partial["changes"] == {"area": {"from": 15, "to": 20}}


def test_a_key_made_by_the_client_is_a_creation(
    tenant: Tenant, listening: Tenant, register: Make, captured: Read
) -> None:
    register(Ticket, fields=["id", "name"])
    ticket = Ticket(tenant=tenant, name="A")
    ticket.save()
    [(topic, data)] = captured()
    assert topic == "zoo.ticket.created"
    assert data["object"] == {"id": str(ticket.pk), "name": "A"}


def test_a_new_object_over_an_existing_row_is_an_update(order: Order, listening: Tenant, captured: Read) -> None:
    Order(pk=order.pk, customer=order.customer, number="9", total=3, placed_at=order.placed_at).save()
    [(topic, data)] = captured()
    assert topic == "shop.order.updated"
    assert data["changes"]["number"] == {"from": "1", "to": "9"}


def test_a_proxy_speaks_for_its_table(tenant: Tenant, listening: Tenant, register: Make, captured: Read) -> None:
    register(Book, fields=["title"])
    book = ProxyBook.objects.create(tenant=tenant, title="A")
    book.title = "B"
    book.save()
    book.delete()
    assert [topic for topic, _ in captured()] == ["zoo.book.created", "zoo.book.updated", "zoo.book.deleted"]


def test_a_registered_proxy_is_its_table(tenant: Tenant, listening: Tenant, register: Make, captured: Read) -> None:
    register(ProxyBook, fields=["title"])
    Book.objects.create(tenant=tenant, title="A")
    assert [topic for topic, _ in captured()] == ["zoo.book.created"]


def test_a_child_and_its_parent_are_one_event(
    tenant: Tenant, listening: Tenant, register: Make, captured: Read
) -> None:
    register(Place, fields=["name"])
    register(Restaurant, fields=["name", "stars"])
    restaurant = Restaurant.objects.create(tenant=tenant, name="A", stars=1)
    restaurant.name = "B"
    restaurant.save()
    (created, _), (updated, data) = captured()
    assert (created, updated) == ("zoo.restaurant.created", "zoo.restaurant.updated")
    assert data["changes"] == {"name": {"from": "A", "to": "B"}}


def test_a_child_that_is_not_registered_is_heard_as_its_parent(
    tenant: Tenant, listening: Tenant, register: Make, captured: Read
) -> None:
    register(Place, fields=["id", "name"])
    restaurant = Restaurant.objects.create(tenant=tenant, name="A")
    restaurant.name = "B"
    restaurant.save()
    place = Place.objects.create(tenant=tenant, name="C")
    Restaurant(place_ptr=place, tenant=tenant, name="D").save()
    topics = captured()
    assert [topic for topic, _ in topics] == [
        "zoo.place.created",
        "zoo.place.updated",
        "zoo.place.created",
        "zoo.place.updated",
    ]
    assert topics[1][1] == {"object": {"id": restaurant.pk, "name": "B"}, "changes": {"name": {"from": "A", "to": "B"}}}
    assert topics[3][1]["changes"] == {"name": {"from": "C", "to": "D"}}


def test_a_child_that_is_given_its_parents_key_is_known_by_it(
    tenant: Tenant, listening: Tenant, register: Make, captured: Read
) -> None:
    register(Restaurant, fields=["name", "stars"])
    restaurant = Restaurant.objects.create(tenant=tenant, name="A", stars=1)
    captured()
    Restaurant(id=restaurant.id, tenant=tenant, name="B", stars=2).save()
    changes = {"name": {"from": "A", "to": "B"}, "stars": {"from": 1, "to": 2}}
    assert captured() == [("zoo.restaurant.updated", {"object": {"name": "B", "stars": 2}, "changes": changes})]
    catalog.unregister(Restaurant)
    register(Place, fields=["name"])
    place = Place.objects.create(tenant=tenant, name="C")
    captured()
    Restaurant(id=place.pk, tenant=tenant, name="D").save()
    changes = {"name": {"from": "C", "to": "D"}}
    assert captured() == [("zoo.place.updated", {"object": {"name": "D"}, "changes": changes})]


def test_a_childs_own_key_is_not_its_parents(tenant: Tenant, listening: Tenant, register: Make, captured: Read) -> None:
    register(Place, fields=["id", "name"])
    stranger = Place.objects.create(tenant=tenant, name="another's")
    annex = Annex.objects.create(code=stranger.pk, tenant=tenant, name="A")
    captured()
    annex.name = Lower("name")
    annex.save()
    changes = {"name": {"from": "A", "to": "a"}}
    assert captured() == [("zoo.place.updated", {"object": {"id": annex.id, "name": "a"}, "changes": changes})]


def test_a_key_of_two_columns(tenant: Tenant, listening: Tenant, register: Make, captured: Read) -> None:
    register(Seat, fields=["number", "name"])
    seat = Seat.objects.create(tenant=tenant, number=1, name="A")
    seat.name = Lower("name")
    seat.save(update_fields=["name"])
    Seat(tenant=tenant, number=1, name="C").save()
    Seat.objects.get().delete()
    assert [(topic, data.get("changes")) for topic, data in captured()] == [
        ("zoo.seat.created", None),
        ("zoo.seat.updated", {"name": {"from": "A", "to": "a"}}),
        ("zoo.seat.updated", {"name": {"from": "a", "to": "C"}}),
        ("zoo.seat.deleted", None),
    ]


def test_an_update_that_is_forced_finds_the_row_of_a_new_instance(
    tenant: Tenant, listening: Tenant, register: Make, captured: Read
) -> None:
    register(Ticket, fields=["name"])
    ticket = Ticket.objects.create(tenant=tenant, name="A")
    captured()
    Ticket(id=ticket.pk, tenant=tenant, name="B").save(force_update=True)
    Ticket(id=ticket.pk, tenant=tenant, name="C").save_base(False, False, True)
    assert [data["changes"]["name"] for _, data in captured()] == [
        {"from": "A", "to": "B"},
        {"from": "B", "to": "C"},
    ]
    assert saves.FORCED not in ticket._state.__dict__


def test_an_entry_that_exposes_no_column(tenant: Tenant, listening: Tenant, register: Make, captured: Read) -> None:
    register(Animal, fields=["keepers"], tenant=catalog.EVERY_TENANT)
    animal = Animal.objects.create(tenant=tenant, name="A")
    animal.save()
    assert captured() == [
        ("zoo.animal.created", {"object": {"keepers": []}}),
        ("zoo.animal.updated", {"object": {"keepers": []}, "changes": {}}),
    ]


def test_fixtures_are_skipped(order: Order, listening: Tenant, captured: Read) -> None:
    for loaded in serializers.deserialize("json", serializers.serialize("json", [order])):
        loaded.save()
    assert captured() == []


def test_saving_comes_before_the_row(tenant: Tenant, listening: Tenant, register: Make, captured: Read) -> None:
    register(Book, fields=["id", "title", "pages"], actions=[*catalog.DEFAULT_ACTIONS, "saving"])
    book = Book.objects.create(tenant=tenant, title="A")
    book.title, book.pages = "B", F("pages") + 1
    book.save()
    book.refresh_from_db()
    book.save(update_fields=["title"])
    told = captured()
    assert [topic.rpartition(".")[2] for topic, _ in told] == ["saving", "created", *(["saving", "updated"] * 2)]
    assert told[0][1] == {"object": {"id": None, "title": "A", "pages": 0}, "unresolved": [], "adding": True}
    assert told[2][1]["object"] == {"id": book.pk, "title": "B"}
    assert told[2][1]["unresolved"] == ["pages"]
    assert told[4][1]["object"] == {"title": "B"}


def test_saving_of_a_row_of_nobodys_is_skipped(listening: Tenant, register: Make, captured: Read) -> None:
    register(Place, actions=["saving"])
    Place.objects.create(name="A")
    assert captured() == []


def test_an_action_that_was_not_registered_is_not_told(
    tenant: Tenant, listening: Tenant, register: Make, captured: Read
) -> None:
    register(Book, fields=["title"], actions=["deleted"])
    book = Book.objects.create(tenant=tenant, title="A")
    book.save()
    book.delete()
    assert [topic for topic, _ in captured()] == ["zoo.book.deleted"]


def test_only_the_tenant_that_listens_gets_an_event(
    order: Order, make_tenant: Make, subscribe: Make, captured: Read
) -> None:
    subscribe(make_tenant("other"), "*")
    order.save()
    order.delete()
    assert captured() == []


def test_a_save_nobody_listens_to_costs_no_query(
    order: Order, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    matching.wanted("any.topic")
    with django_assert_num_queries(1):
        order.save()


@pytest.mark.django_db(transaction=True)
def test_nor_a_transaction_of_its_own(tenant: Tenant, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    customer = Customer.objects.create(tenant=tenant, name="Ann", email="ann@acme.example")
    matching.wanted("any.topic")
    with django_assert_num_queries(1):
        customer.save()


def test_old_values_are_read_only_for_a_tenant_that_listens_to_updates(
    order: Order, subscribe: Make, tenant: Tenant, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    subscribe(tenant, "shop.order.created", "shop.customer.*")
    matching.wanted("any.topic")
    with django_assert_num_queries(1):
        order.save()


def test_a_save_that_is_heard_keeps_to_its_budget(
    order: Order, listening: Tenant, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    matching.wanted("any.topic")
    with django_assert_max_num_queries(4):  # The old row, the UPDATE, the tags, the event.
        order.save()


@pytest.mark.django_db(transaction=True)
class TestAtomic:
    def test_outside_of_a_transaction_row_and_event_share_one(self, listening: Tenant, captured: Read) -> None:
        seen = []

        def look(**kwargs: Any) -> None:
            seen.append(connection.in_atomic_block)

        post_save.connect(look, sender=Customer)
        try:
            Customer.objects.create(tenant=listening, name="Ann", email="a@acme.example")
        finally:
            post_save.disconnect(look, sender=Customer)
        assert seen == [True]
        assert len(captured()) == 1

    @pytest.mark.parametrize("moment", [pre_save, post_save])
    def test_a_receiver_of_the_host_that_raises_takes_row_and_event_along(
        self, moment: Any, listening: Tenant, captured: Read
    ) -> None:
        def refuse(**kwargs: Any) -> None:
            raise ValueError("no")

        moment.connect(refuse, sender=Customer)
        try:
            with pytest.raises(ValueError, match="no"):
                Customer.objects.create(tenant=listening, name="Ann", email="a@acme.example")
        finally:
            moment.disconnect(refuse, sender=Customer)
        assert not Customer.objects.exists()
        assert captured() == []

    def test_a_failure_of_capture_undoes_the_save(self, listening: Tenant, register: Make, captured: Read) -> None:
        register(Book, fields=["title"], tenant="nowhere__at_all")
        with pytest.raises(CaptureError, match=r"zoo\.book\.created.*nowhere"):
            Book.objects.create(tenant=listening, title="A")
        assert not Book.objects.exists()
        assert captured() == []

    def test_a_failure_that_is_swallowed_cannot_be_committed(self, listening: Tenant, register: Make) -> None:
        register(Book, fields=["title"], tenant="nowhere")
        with transaction.atomic():
            with pytest.raises(CaptureError):
                Book.objects.create(tenant=listening, title="A")
            with pytest.raises(transaction.TransactionManagementError):
                Book.objects.count()
        assert not Book.objects.exists()

    def test_a_failure_inside_a_savepoint_is_undone_with_it(self, listening: Tenant, register: Make) -> None:
        register(Book, fields=["title"], tenant="nowhere")
        with transaction.atomic():
            with pytest.raises(CaptureError), transaction.atomic():
                Book.objects.create(tenant=listening, title="A")
            Customer.objects.create(tenant=listening, name="Ann", email="a@acme.example")
        assert not Book.objects.exists()
        assert Customer.objects.count() == Event.objects.count() == 1

    @pytest.mark.parametrize("outer", [True, False], ids=["atomic", "autocommit"])
    def test_a_failure_can_be_logged_instead(
        self,
        *,
        outer: bool,
        listening: Tenant,
        register: Make,
        captured: Read,
        settings: Settings,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        settings.SIGNALPOST_CAPTURE_ERRORS = "log"

        def broken(instance: Any) -> Any:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 'top-secret' FROM a_table_that_is_not_there")

        register(Book, fields=["title"], tenant=broken)
        if outer:
            with transaction.atomic():
                Book.objects.create(tenant=listening, title="A")
                Customer.objects.create(tenant=listening, name="Ann", email="a@acme.example")
        else:
            Book.objects.create(tenant=listening, title="A")
            Customer.objects.create(tenant=listening, name="Ann", email="a@acme.example")
        assert Book.objects.count() == 1
        assert [topic for topic, _ in captured()] == ["shop.customer.created"]
        [record] = [record for record in caplog.records if record.name == "webhooks.capture"]
        assert "zoo.book.created" in record.getMessage()
        assert "top-secret" not in record.getMessage()
        assert record.exc_info is None

    def test_a_database_error_of_capture_stays_a_database_error(self, listening: Tenant, register: Make) -> None:
        def broken(instance: Any) -> Any:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM a_table_that_is_not_there")

        register(Book, fields=["title"], tenant=broken)
        with pytest.raises(Exception, match="a_table_that_is_not_there") as caught:
            Book.objects.create(tenant=listening, title="A")
        assert not isinstance(caught.value, CaptureError)
        assert not Book.objects.exists()

    def test_with_autocommit_off_the_commit_of_the_host_decides(self, listening: Tenant, captured: Read) -> None:
        transaction.set_autocommit(False)
        try:
            Customer.objects.create(tenant=listening, name="Ann", email="a@acme.example")
            transaction.rollback()
            Customer.objects.create(tenant=listening, name="Bob", email="b@acme.example")
            transaction.commit()
        finally:
            transaction.set_autocommit(True)
        [(_, data)] = captured()
        assert data["object"]["name"] == "Bob"

    def test_a_savepoint_rolled_back_by_hand_takes_its_events_along(self, listening: Tenant, captured: Read) -> None:
        with transaction.atomic():
            Customer.objects.create(tenant=listening, name="Ann", email="a@acme.example")
            savepoint = connection.savepoint()
            Customer.objects.create(tenant=listening, name="Bob", email="b@acme.example")
            assert savepoint is not None
            connection.savepoint_rollback(savepoint)
        [(_, data)] = captured()
        assert data["object"]["name"] == "Ann"

    def test_set_rollback_takes_the_events_along(self, listening: Tenant, captured: Read) -> None:
        with transaction.atomic():
            Customer.objects.create(tenant=listening, name="Ann", email="a@acme.example")
            transaction.set_rollback(True)
        assert captured() == []

    def test_asynchronous_saves_are_captured(self, listening: Tenant, captured: Read) -> None:
        async def work() -> None:
            customer = await Customer.objects.acreate(tenant=listening, name="Ann", email="a@acme.example")
            customer.name = "Bob"
            await customer.asave()
            await customer.adelete()
            await sync_to_async(connections.close_all)()

        asyncio.run(work())
        assert [topic for topic, _ in captured()] == [f"shop.customer.{a}" for a in ("created", "updated", "deleted")]

    def test_threads_capture_what_they_save(self, listening: Tenant, captured: Read) -> None:
        def work(name: str) -> None:
            Customer.objects.create(tenant=listening, name=name, email="a@acme.example")
            connections.close_all()

        threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert sorted(data["object"]["name"] for _, data in captured()) == ["a", "b", "c", "d"]


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
class TestOtherDatabase:
    def test_the_event_is_written_where_the_row_is(self, listening: Tenant, register: Make, captured: Read) -> None:
        register(Place, fields=["name"], tenant=lambda place: listening)
        place = Place(name="A")
        place.save(using="other")
        place.name = "B"
        place.save()
        assert [topic for topic, _ in captured(using="other")] == ["zoo.place.created", "zoo.place.updated"]
        assert captured() == []

    def test_it_is_rolled_back_there(self, listening: Tenant, register: Make, captured: Read) -> None:
        register(Place, fields=["name"], tenant=lambda place: listening)
        with transaction.atomic(using="other"):
            Place(name="A").save(using="other")
            transaction.set_rollback(True, using="other")
        with transaction.atomic():
            Place(name="B").save(using="other")
            transaction.set_rollback(True)
        assert [data["object"]["name"] for _, data in captured(using="other")] == ["B"]

    def test_a_database_that_is_not_listed_is_refused(
        self, listening: Tenant, register: Make, settings: Settings
    ) -> None:
        settings.SIGNALPOST_DATABASES = ["default"]
        register(Place, fields=["name"], tenant=lambda place: listening)
        with pytest.raises(CaptureError, match="SIGNALPOST_DATABASES"):
            Place(name="A").save(using="other")
        assert not Place.objects.using("other").exists()


class TestNested:
    """A receiver of the host saves the instance that is being saved."""

    @pytest.fixture(params=["before ours", "after ours"])
    def nest(self, request: Any, register: Make) -> Iterator[Make]:
        """Connects a receiver that counts a page and saves, once, before or after ours."""
        connected: list[tuple[Any, Any]] = []

        def connect(signal: Signal, *, only: list[str] | None = None) -> None:
            def count(instance: Book, **kwargs: Any) -> None:
                if instance.pages == 0:
                    instance.pages = 7
                    instance.save(update_fields=only)

            if request.param == "after ours":
                register(Book, fields=["title", "pages"])
            signal.connect(count, sender=Book, weak=False)
            connected.append((signal, count))
            if request.param == "before ours":
                register(Book, fields=["title", "pages"])

        yield connect
        for signal, count in connected:
            signal.disconnect(count, sender=Book)

    @pytest.fixture
    def book(self, listening: Tenant) -> Book:
        [book] = Book.objects.bulk_create([Book(tenant=listening, title="A")])
        book.title = "B"
        return book

    @pytest.mark.parametrize("only", [None, ["pages"]], ids=["whole", "partial"])
    def test_each_save_tells_of_its_own_changes(
        self, book: Book, nest: Make, only: list[str] | None, captured: Read
    ) -> None:
        nest(post_save, only=only)
        book.save()
        changes = [data["changes"] for _, data in captured()]
        assert sorted(changes, key=list) == [{"pages": {"from": 0, "to": 7}}, {"title": {"from": "A", "to": "B"}}]

    def test_also_where_the_inner_one_comes_first(self, book: Book, nest: Make, captured: Read) -> None:
        """What it leaves to the outer one is nothing, or what it did not name."""
        nest(pre_save)
        book.save()
        told = {"title": {"from": "A", "to": "B"}, "pages": {"from": 0, "to": 7}}
        assert [data["changes"] for _, data in captured()] == [told, {}]

    def test_and_leaves_something(self, book: Book, nest: Make, captured: Read) -> None:
        nest(pre_save, only=["pages"])
        book.save()
        changes = [data["changes"] for _, data in captured()]
        assert changes == [{"pages": {"from": 0, "to": 7}}, {"title": {"from": "A", "to": "B"}}]

    def test_a_creation_has_no_changes_to_share(self, listening: Tenant, nest: Make, captured: Read) -> None:
        nest(post_save)
        Book.objects.create(tenant=listening, title="A")
        told = {topic: data.get("changes") for topic, data in captured()}
        assert told == {"zoo.book.created": None, "zoo.book.updated": {"pages": {"from": 0, "to": 7}}}

    def test_nothing_is_left_on_the_instance_of_a_save_that_failed(
        self, tenant: Tenant, listening: Tenant, register: Make
    ) -> None:
        register(Book, fields=["title"])
        book = Book.objects.create(tenant=tenant, title="A")
        book.tenant_id = None  # type: ignore[assignment]
        with pytest.raises(Exception, match=r"(?i)null"), transaction.atomic():
            book.save()
        assert saves.FOUND not in book._state.__dict__


class TestWrapper:
    def test_it_is_put_on_once_and_taken_off_again(self) -> None:
        before = Book.save_base
        saves.wrap(Book)
        wrapped = Book.save_base
        saves.wrap(Book)
        assert Book.save_base is wrapped is not before
        saves.unwrap(Book)
        saves.unwrap(Book)
        assert "save_base" not in Book.__dict__
        assert Book.save_base is before

    def test_a_save_base_of_the_model_itself_is_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def save_base(self: Any, *args: Any, **kwargs: Any) -> None:
            raise NotImplementedError

        monkeypatch.setattr(Book, "save_base", save_base, raising=False)
        saves.wrap(Book)
        with pytest.raises(NotImplementedError):
            Book().save()
        saves.unwrap(Book)
        assert Book.__dict__["save_base"] is save_base

    def test_positional_arguments_reach_django(self, listening: Tenant, register: Make, captured: Read) -> None:
        register(Book, fields=["title"])
        Book(tenant=listening, title="A").save_base(False, True, False, "default", None)
        Book(tenant=listening, title="B").save_base(False, True)
        assert [data["object"]["title"] for _, data in captured()] == ["A", "B"]

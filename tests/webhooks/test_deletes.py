from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection, transaction
from django.db.models.signals import pre_delete

from examples.shop.models import Customer, Order
from subscriptions import catalog
from tests.zoo.odd import Annex, Author, Book, Novel, Person, Place, ProxyBook, Restaurant, Review
from webhooks import matching
from webhooks.events import CaptureError
from webhooks.models import Event

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_django import DjangoAssertNumQueries, Settings

    from subscriptions.models import Tenant
    from tests.webhooks.conftest import Captured

    Read = Callable[..., Captured]
    Make = Callable[..., Any]


@pytest.fixture
def customer(tenant: Tenant) -> Customer:
    customer = Customer.objects.create(tenant=tenant, name="Ann", email="ann@acme.example")
    for number in "12":
        Order.objects.create(customer=customer, number=number, total=Decimal(3))
    return customer


def test_a_delete_tells_what_was_there(customer: Customer, listening: Tenant, captured: Read) -> None:
    order = Order.objects.first()
    assert order is not None
    pk = order.pk
    order.delete()
    [(topic, data)] = captured()
    assert topic == "shop.order.deleted"
    assert data["object"]["id"] == pk
    assert data["object"]["number"] == "1"
    assert (data["cascade"], data["origin"]) == (False, None)


def test_it_is_what_the_database_held_not_the_instance(customer: Customer, listening: Tenant, captured: Read) -> None:
    order = Order.objects.defer("total").first()
    assert order is not None
    order.number = "edited and never saved"
    order.delete()
    [(_, data)] = captured()
    assert (data["object"]["number"], data["object"]["total"]) == ("1", "3.00")


def test_a_row_that_is_not_there_is_no_event(customer: Customer, listening: Tenant, captured: Read) -> None:
    Order(pk=10_000, customer=customer).delete()
    assert captured() == []


def test_a_cascade_tells_of_each_row_though_its_parent_is_gone(
    customer: Customer, listening: Tenant, captured: Read
) -> None:
    customer.delete()
    told = captured()
    assert [topic for topic, _ in told] == ["shop.order.deleted"] * 2 + ["shop.customer.deleted"]
    assert [(data["cascade"], data["origin"]) for _, data in told] == [(True, "shop.customer")] * 2 + [(False, None)]
    assert all(event.tenant == listening for event in Event.objects.all())


def test_deleting_a_queryset_is_direct_and_what_it_takes_along_is_not(
    customer: Customer, listening: Tenant, captured: Read
) -> None:
    Customer.objects.filter(pk=customer.pk).delete()
    assert sorted((topic, data["cascade"]) for topic, data in captured()) == [
        ("shop.customer.deleted", False),
        ("shop.order.deleted", True),
        ("shop.order.deleted", True),
    ]


def test_what_a_queryset_left_out_is_read(listening: Tenant, register: Make, captured: Read) -> None:
    register(Book, fields=["title", "pages"])
    Book.objects.bulk_create([Book(tenant=listening, title="A", pages=3)])
    Book.objects.only("id").delete()
    assert [data["object"] for _, data in captured()] == [{"title": "A", "pages": 3}]


def test_deleting_comes_before(listening: Tenant, register: Make, captured: Read) -> None:
    register(Book, fields=["title"], actions=["deleting", "deleted"])
    Book.objects.create(tenant=listening, title="A").delete()
    told = captured()
    assert [topic for topic, _ in told] == ["zoo.book.deleting", "zoo.book.deleted"]
    assert told[0][1] == told[1][1]


def test_a_child_and_its_parent_are_one_event(listening: Tenant, register: Make, captured: Read) -> None:
    register(Place, fields=["name"])
    register(Restaurant, fields=["name", "stars"])
    Restaurant.objects.create(tenant=listening, name="A").delete()
    Place.objects.get(pk=Restaurant.objects.create(tenant=listening, name="B").pk).delete()
    Restaurant.objects.create(tenant=listening, name="C")
    Place.objects.filter(name="C").delete()
    Place.objects.create(tenant=listening, name="D").delete()
    told = [(topic, data["object"]["name"], data["cascade"]) for topic, data in captured() if "deleted" in topic]
    assert told == [
        ("zoo.restaurant.deleted", "A", False),
        ("zoo.restaurant.deleted", "B", False),
        ("zoo.restaurant.deleted", "C", False),
        ("zoo.place.deleted", "D", False),
    ]


def test_a_child_whose_key_is_not_its_parents_is_one_event(listening: Tenant, register: Make, captured: Read) -> None:
    register(Place, fields=["name"])
    Place.objects.create(tenant=listening, name="another's")
    annex = Annex.objects.create(code=77, tenant=listening, name="A")
    captured()
    annex.name = "edited"
    annex.delete()
    told = {"object": {"name": "A"}, "cascade": False, "origin": None}
    assert captured() == [("zoo.place.deleted", told)]
    register(Annex, fields=["name"])
    annex = Annex.objects.create(code=Place.objects.get().pk, tenant=listening, name="A")
    captured()
    Place.objects.get(pk=annex.id).delete()
    assert [topic for topic, _ in captured()] == ["zoo.annex.deleted"]


def test_a_proxy_is_its_table(listening: Tenant, register: Make, captured: Read) -> None:
    register(Book, fields=["title"])
    ProxyBook.objects.bulk_create([ProxyBook(tenant=listening, title=title) for title in "AB"])
    ProxyBook.objects.get(title="A").delete()
    ProxyBook.objects.all().delete()
    assert [(topic, data["object"], data["cascade"]) for topic, data in captured()] == [
        ("zoo.book.deleted", {"title": "A"}, False),
        ("zoo.book.deleted", {"title": "B"}, False),
    ]


def test_a_parent_that_is_kept_is_not_deleted(listening: Tenant, register: Make, captured: Read) -> None:
    register(Place, fields=["name"])
    restaurant = Restaurant.objects.create(tenant=listening, name="A")
    captured()
    restaurant.delete(keep_parents=True)
    assert captured() == []
    assert Place.objects.count() == 1


def test_a_parent_whose_child_is_not_registered_is_deleted_once(
    listening: Tenant, register: Make, captured: Read
) -> None:
    register(Place, fields=["name"])
    restaurant = Restaurant.objects.create(tenant=listening, name="A")
    restaurant.name = "edited and never saved"
    captured()
    restaurant.delete()
    [(topic, data)] = captured()
    assert (topic, data["object"], data["cascade"]) == ("zoo.place.deleted", {"name": "A"}, False)


def test_nothing_is_told_of_set_null_nor_of_many_to_many_rows(
    listening: Tenant, register: Make, captured: Read
) -> None:
    """Django sends no signal there; a system check names the foreign keys."""
    register(Novel, fields=["editor"], tenant="author__tenant")
    author, editor = (Author.objects.create(tenant=listening, name=name) for name in "ab")
    novel = Novel.objects.create(author=author, editor=editor, title="A")
    captured()
    editor.delete()
    novel.refresh_from_db()
    assert novel.editor is None
    assert captured() == []


def test_a_delete_that_is_rolled_back_tells_nothing(customer: Customer, listening: Tenant, captured: Read) -> None:
    with transaction.atomic():
        customer.delete()
        transaction.set_rollback(True)
    assert captured() == []
    assert Order.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_a_receiver_that_refuses_the_delete_takes_the_events_along(
    customer: Customer, listening: Tenant, captured: Read
) -> None:
    def refuse(**kwargs: Any) -> None:
        raise ValueError("no")

    pre_delete.connect(refuse, sender=Customer)
    try:
        with pytest.raises(ValueError, match="no"):
            customer.delete()
    finally:
        pre_delete.disconnect(refuse, sender=Customer)
    assert captured() == []
    assert Order.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_a_failure_of_capture_keeps_the_row(listening: Tenant, register: Make) -> None:
    register(Book, fields=["title"], tenant="nowhere", actions=["deleted"])
    book = Book.objects.create(tenant=listening, title="A")
    with pytest.raises(CaptureError, match=r"zoo\.book\.deleted"):
        book.delete()
    assert Book.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("action", ["deleted", "added"])
def test_a_failure_that_is_logged_breaks_no_transaction(
    action: str, listening: Tenant, register: Make, captured: Read, settings: Settings
) -> None:
    settings.SIGNALPOST_CAPTURE_ERRORS = "log"

    def broken(instance: Any) -> Any:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM a_table_that_is_not_there")

    register(Person, tenant=broken, actions=[action])
    ann, bob = (Person.objects.create(tenant=listening, name=name) for name in ("Ann", "Bob"))
    with transaction.atomic():
        ann.follows.add(bob)
        bob.delete()
    assert not ann.follows.exists()
    assert captured() == []


@pytest.fixture
def library(tenant: Tenant) -> Author:
    author = Author.objects.create(tenant=tenant, name="A")
    novels = Novel.objects.bulk_create(Novel(author=author, title="N") for _ in range(30))
    Review.objects.bulk_create(Review(novel=novel, text="R") for novel in novels)
    return author


def test_what_is_not_registered_is_deleted_as_fast_as_ever(
    library: Author, listening: Tenant, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(1):
        Review.objects.all().delete()
    matching.wanted("any.topic")
    with django_assert_num_queries(5):  # Novels found; reviews, editors, novels, author.
        library.delete()


def test_a_registration_slows_down_no_other_model(
    library: Author, register: Make, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    register(Book, fields=["title"])
    with django_assert_num_queries(1):
        Review.objects.all().delete()


def test_a_model_registered_without_its_deletes_keeps_them_fast(
    library: Author, register: Make, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    register(Review, fields=["text"], tenant="novel__author__tenant", actions=["created", "updated"])
    with django_assert_num_queries(1):
        Review.objects.all().delete()


def test_a_delete_nobody_listens_to_costs_no_query_more(
    tenant: Tenant, register: Make, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    register(Book, fields=["title"], actions=catalog.ACTIONS[:3])
    book = Book.objects.create(tenant=tenant, title="A")
    matching.wanted("any.topic")
    # Django's own for a model with receivers: BEGIN or SAVEPOINT are its doing.
    with django_assert_num_queries(1):
        book.delete()

"""What Django's signals do not say, or say oddly, and our answer to it. The
traps of one kind of change are tested beside that kind."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import django
import pytest
from django.apps import apps
from django.db import connection, models, transaction
from django.db.migrations.state import ProjectState
from django.db.models import F

from examples.shop.models import Customer, Order
from subscriptions import catalog
from tests.zoo.kinds import Animal
from tests.zoo.odd import Author, Book, Novel, Ticket
from webhooks.events import publish_rows
from webhooks.models import Event

if TYPE_CHECKING:
    from collections.abc import Callable

    from subscriptions.models import Tenant
    from tests.webhooks.conftest import Captured

    Read = Callable[..., Captured]
    Make = Callable[..., Any]


@pytest.fixture
def author(tenant: Tenant, register: Make) -> Author:
    register(Novel, fields=["title", "author"], tenant="author__tenant")
    return Author.objects.create(tenant=tenant, name="A")


def test_bulk_writes_send_nothing_and_can_be_published(listening: Tenant, register: Make, captured: Read) -> None:
    register(Book, fields=["title", "pages"])
    books = Book.objects.bulk_create(Book(tenant=listening, title=title) for title in "AB")
    Book.objects.update(pages=F("pages") + 1)
    Book.objects.bulk_update(books, ["title"])
    assert captured() == []
    assert publish_rows(Book.objects.all(), "created") == 2
    assert [(topic, data["object"]["pages"]) for topic, data in captured()] == [("zoo.book.created", 1)] * 2


def test_a_raw_delete_sends_nothing(listening: Tenant, register: Make, captured: Read) -> None:
    register(Book, fields=["title"])
    Book.objects.bulk_create([Book(tenant=listening, title="A")])
    Book.objects.all()._raw_delete(using="default")
    assert captured() == []


def test_a_reverse_manager_sends_nothing_unless_it_saves(author: Author, listening: Tenant, captured: Read) -> None:
    other = Author.objects.create(tenant=listening, name="B")
    novel = Novel.objects.create(author=author, title="N")
    captured()
    other.novels.add(novel)
    assert captured() == []
    author.novels.add(Novel.objects.get(), bulk=False)
    [(_, data)] = captured()
    assert data["changes"] == {"author": {"from": other.pk, "to": author.pk}}


def test_update_or_create_is_told_with_the_columns_it_adds_by_itself(
    listening: Tenant, register: Make, captured: Read
) -> None:
    register(Animal, fields=["name", "legs", "touched_at"])
    Animal.objects.update_or_create(tenant=listening, name="Rex", defaults={"legs": 3})
    Animal.objects.update_or_create(tenant=listening, name="Rex", defaults={"legs": 4})
    (created, _), (updated, data) = captured()
    assert (created, updated) == ("zoo.animal.created", "zoo.animal.updated")
    assert set(data["changes"]) == {"legs", "touched_at"}


def test_get_or_create_tells_only_of_what_it_creates(listening: Tenant, register: Make, captured: Read) -> None:
    register(Book, fields=["title"])
    for _ in range(2):
        Book.objects.get_or_create(tenant=listening, title="A")
    assert [topic for topic, _ in captured()] == ["zoo.book.created"]


def test_a_key_of_the_clients_that_is_taken_is_an_update(listening: Tenant, register: Make, captured: Read) -> None:
    register(Ticket, fields=["name"])
    ticket = Ticket.objects.create(tenant=listening, name="A")
    copy = Ticket(id=ticket.pk, tenant=listening, name="B")
    copy._state.adding = False
    copy.save()
    assert captured()[1] == (
        "zoo.ticket.updated",
        {"object": {"name": "B"}, "changes": {"name": {"from": "A", "to": "B"}}},
    )


def test_a_creation_that_is_refused_is_no_event(listening: Tenant, register: Make, captured: Read) -> None:
    register(Ticket, fields=["name"])
    ticket = Ticket.objects.create(tenant=listening, name="A")
    captured()
    with pytest.raises(Exception, match=r"(?i)unique"), transaction.atomic():
        Ticket(id=ticket.pk, tenant=listening, name="B").save(force_insert=True)
    assert captured() == []


def test_the_models_of_migrations_are_not_heard(tenant: Tenant, listening: Tenant, captured: Read) -> None:
    historic = ProjectState.from_apps(apps).apps.get_model("shop", "Customer")
    historic.objects.create(tenant_id=tenant.pk, name="Ann", email="ann@acme.example")
    assert Customer.objects.count() == 1
    assert captured() == []


def test_receivers_outlive_the_garbage_collection(listening: Tenant, register: Make, captured: Read) -> None:
    register(Book, fields=["title"])
    gc.collect()
    Book.objects.create(tenant=listening, title="A")
    assert len(captured()) == 1


def test_an_event_is_there_before_the_commit(listening: Tenant) -> None:
    """The row is the truth: a TestCase, which never commits, sees it."""
    assert connection.in_atomic_block
    Customer.objects.create(tenant=listening, name="Ann", email="ann@acme.example")
    assert Event.objects.count() == 1


def test_a_row_that_moves_is_told_to_its_new_tenant(
    listening: Tenant, make_tenant: Make, subscribe: Make, captured: Read
) -> None:
    other = make_tenant("other")
    subscribe(other, "shop.order.*")
    ours, theirs = (Customer.objects.create(tenant=each, name="A", email="a@b.example") for each in (listening, other))
    order = Order.objects.create(customer=ours, number="1", total=3)
    order.customer = theirs
    order.save()
    assert [event.tenant for event in Event.objects.filter(topic="shop.order.updated")] == [other]


@pytest.mark.skipif(django.VERSION < (6, 1), reason="on_delete by the database came with Django 6.1")
@pytest.mark.django_db(transaction=True)
def test_a_cascade_of_the_databases_own_sends_nothing(listening: Tenant, captured: Read) -> None:
    """A system check names such foreign keys."""

    class Leaf(models.Model):  # noqa: DJ008
        book = models.ForeignKey(Book, models.DB_CASCADE, related_name="+")

        class Meta:
            app_label = "zoo"

    try:
        catalog.register(Leaf, tenant="book__tenant")
        catalog.register(Book, tenant="tenant", fields=["title"])
        with connection.schema_editor() as editor:
            editor.create_model(Leaf)
        book = Book.objects.create(tenant=listening, title="A")
        Leaf._default_manager.create(book=book)
        captured()
        book.delete()
        assert not Leaf._default_manager.exists()
        assert [topic for topic, _ in captured()] == ["zoo.book.deleted"]
        with connection.schema_editor() as editor:
            editor.delete_model(Leaf)
    finally:
        catalog.unregister(Leaf)
        catalog.unregister(Book)
        del apps.all_models["zoo"]["leaf"]
        apps.clear_cache()

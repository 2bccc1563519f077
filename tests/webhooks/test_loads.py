from __future__ import annotations

from typing import TYPE_CHECKING, Any

from subscriptions import catalog
from tests.zoo.odd import Author, Book, Novel
from webhooks import matching

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_django import DjangoAssertNumQueries

    from subscriptions.models import Tenant
    from tests.webhooks.conftest import Captured

    Read = Callable[..., Captured]
    Make = Callable[..., Any]

READS = ["initializing", "initialized"]


def test_they_are_opt_in(listening: Tenant, register: Make, captured: Read) -> None:
    register(Book, fields=["title"], actions=["created"])
    Book.objects.create(tenant=listening, title="A")
    list(Book.objects.all())
    assert [topic for topic, _ in captured()] == ["zoo.book.created"]


def test_every_row_that_is_loaded_is_told(listening: Tenant, register: Make, captured: Read) -> None:
    Book.objects.bulk_create(Book(tenant=listening, title=title) for title in "AB")
    register(Book, fields=["title", "pages"], actions=READS)
    list(Book.objects.order_by("title"))
    told = captured()
    assert [topic for topic, _ in told] == ["zoo.book.initializing", "zoo.book.initialized"] * 2
    assert told[0][1] == told[1][1] == {"object": {"title": "A", "pages": 0}, "unresolved": []}


def test_it_tells_only_what_was_loaded_and_loads_nothing(
    listening: Tenant, register: Make, captured: Read, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    Book.objects.create(tenant=listening, title="A")
    register(Book, fields=["title", "pages"], actions=["initialized"])
    matching.wanted("any.topic")
    with django_assert_num_queries(2):  # The row, and the event.
        list(Book.objects.only("pages", "tenant"))
    assert captured() == [("zoo.book.initialized", {"object": {"pages": 0}, "unresolved": []})]


def test_what_finds_the_tenant_is_no_read(listening: Tenant, register: Make, captured: Read) -> None:
    author = Author.objects.create(tenant=listening, name="A")
    Novel.objects.create(author=author, title="N")
    register(Author, fields=["name"], actions=READS)
    register(Novel, fields=["title"], actions=READS, tenant="author__tenant")
    Novel.objects.get()
    assert [topic for topic, _ in captured()] == ["zoo.novel.initializing", "zoo.novel.initialized"]


def test_nor_is_what_a_capture_reads(listening: Tenant, register: Make, captured: Read) -> None:
    register(Book, fields=["title"], actions=[*catalog.DEFAULT_ACTIONS, "initialized"])
    book = Book.objects.create(tenant=listening, title="A")
    captured()
    book.pages = "7"  # So that it must be read afresh.
    book.save(update_fields=["title"])
    book.delete()
    assert [topic for topic, _ in captured()] == ["zoo.book.updated", "zoo.book.deleted"]


def test_an_instance_of_nobodys_is_skipped(listening: Tenant, register: Make, captured: Read) -> None:
    register(Book, fields=["title"], actions=READS)
    Book(title="A")
    Book()
    assert captured() == []


def test_nobody_listening_costs_no_query(
    tenant: Tenant, register: Make, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    Book.objects.create(tenant=tenant, title="A")
    register(Book, fields=["title"], actions=READS)
    matching.wanted("any.topic")
    with django_assert_num_queries(1):
        list(Book.objects.all())

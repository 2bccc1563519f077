from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import django
import pytest
from django.core import serializers
from django.core.management import call_command
from django.db import transaction
from django.db.models.signals import m2m_changed

from examples.shop.models import Customer, Order, Tag
from subscriptions import catalog
from tests.zoo.odd import Belonging, Club, Person
from webhooks import matching

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_django import DjangoAssertNumQueries

    from subscriptions.models import Tenant
    from tests.webhooks.conftest import Captured

    Read = Callable[..., Captured]
    Make = Callable[..., Any]

PHASES = ["adding", "removing", "clearing"]


@pytest.fixture
def order(tenant: Tenant) -> Order:
    customer = Customer.objects.create(tenant=tenant, name="Ann", email="ann@acme.example")
    return Order.objects.create(customer=customer, number="1", total=3)


@pytest.fixture
def tags(tenant: Tenant) -> list[Tag]:
    return [Tag.objects.create(tenant=tenant, name=name) for name in "abc"]


@pytest.fixture
def people(tenant: Tenant, register: Make) -> list[Person]:
    register(Person, fields=["name"])
    return [Person.objects.create(tenant=tenant, name=name) for name in "abc"]


def short(told: Captured) -> list[tuple[str, str, bool, list[Any]]]:
    return [(topic, data["field"], data["reverse"], data["keys"]) for topic, data in told]


def test_what_is_added_removed_and_cleared(order: Order, tags: list[Tag], listening: Tenant, captured: Read) -> None:
    a, b, c = tags
    order.tags.add(a, b, c)
    order.tags.remove(b)
    order.tags.clear()
    told = captured()
    assert short(told) == [
        ("shop.order.added", "tags", False, [a.pk, b.pk, c.pk]),
        ("shop.order.removed", "tags", False, [b.pk]),
        ("shop.order.cleared", "tags", False, [a.pk, c.pk]),
    ]
    assert told[0][1]["object"]["tags"] == [a.pk, b.pk, c.pk]
    assert told[0][1]["model"] == "shop.tag"
    assert told[2][1]["object"]["tags"] == []


def test_the_other_side_says_that_it_is(order: Order, tags: list[Tag], listening: Tenant, captured: Read) -> None:
    tag = tags[0]
    tag.orders.add(order)
    tag.orders.remove(order)
    tag.orders.add(order)
    tag.orders.clear()
    assert short(captured()) == [
        (f"shop.tag.{action}", "orders", True, [order.pk]) for action in ("added", "removed", "added", "cleared")
    ]


def test_what_changes_nothing_is_no_event(order: Order, tags: list[Tag], listening: Tenant, captured: Read) -> None:
    order.tags.add(tags[0])
    captured()
    order.tags.add(tags[0])
    order.tags.add()
    order.tags.remove(tags[1])
    order.tags.set([tags[0]])
    tags[1].orders.clear()
    assert captured() == []


def test_set_removes_and_adds(order: Order, tags: list[Tag], listening: Tenant, captured: Read) -> None:
    a, b, c = tags
    order.tags.set([a, b])
    captured()
    order.tags.set([b, c])
    assert short(captured()) == [
        ("shop.order.removed", "tags", False, [a.pk]),
        ("shop.order.added", "tags", False, [c.pk]),
    ]


def test_a_remove_names_only_what_was_there(order: Order, tags: list[Tag], listening: Tenant, captured: Read) -> None:
    order.tags.add(tags[0])
    captured()
    order.tags.remove(*tags)
    assert short(captured()) == [("shop.order.removed", "tags", False, [tags[0].pk])]


def test_the_phases_before_are_opt_in(people: list[Person], listening: Tenant, captured: Read, register: Make) -> None:
    a, b, _ = people
    catalog.unregister(Person)
    register(Person, fields=["name"], actions=PHASES)
    a.follows.add(b)
    a.follows.add(b)
    a.follows.remove(b)
    a.follows.remove(b)
    a.follows.add(b)
    a.follows.clear()
    a.follows.clear()
    actions = ["adding", "removing", "adding", "clearing"]
    assert short(captured()) == [(f"zoo.person.{action}", "follows", False, [b.pk]) for action in actions]


def test_a_symmetrical_relation_to_itself_is_told_once(people: list[Person], listening: Tenant, captured: Read) -> None:
    a, b, c = people
    a.friends.add(b, c)
    b.friends.clear()
    assert short(captured()) == [
        ("zoo.person.added", "friends", False, [b.pk, c.pk]),
        ("zoo.person.cleared", "friends", False, [a.pk]),
    ]


def test_a_relation_to_itself_has_two_sides(people: list[Person], listening: Tenant, captured: Read) -> None:
    a, b, _ = people
    a.follows.add(b)
    b.followers.remove(a)
    assert short(captured()) == [
        ("zoo.person.added", "follows", False, [b.pk]),
        ("zoo.person.removed", "followers", True, [a.pk]),
    ]


def test_a_through_model_of_the_hosts_own(
    people: list[Person], listening: Tenant, register: Make, captured: Read
) -> None:
    """Registered both ways, a removal is two events: of the club, whose member
    is gone, and of the row that said so."""
    register(Club, fields=["name"])
    register(Belonging, fields=["role"], tenant="club__tenant")
    club = Club.objects.create(tenant=listening, name="C")
    captured()
    club.members.add(people[0], through_defaults={"role": "chair"})
    assert [topic for topic, _ in captured()] == ["zoo.club.added"]
    Belonging.objects.create(club=club, person=people[1])
    assert [topic for topic, _ in captured()] == ["zoo.belonging.created"]
    club.members.remove(people[0])
    assert sorted(topic for topic, _ in captured()) == ["zoo.belonging.deleted", "zoo.club.removed"]


def test_deleting_an_end_is_a_delete_and_nothing_else(
    order: Order, tags: list[Tag], listening: Tenant, captured: Read
) -> None:
    order.tags.add(*tags)
    captured()
    tags[0].delete()
    order.delete()
    assert [topic for topic, _ in captured()] == ["shop.tag.deleted", "shop.order.deleted"]


def test_a_removal_inside_of_another_is_told_beside_it(
    order: Order, tags: list[Tag], listening: Tenant, captured: Read
) -> None:
    order.tags.add(*tags)
    captured()

    def take_along(action: str, instance: Order, pk_set: set[int], **kwargs: Any) -> None:
        if action == "pre_remove" and tags[0].pk in pk_set:
            instance.tags.remove(tags[1])

    m2m_changed.connect(take_along, sender=Order.tags.through)
    try:
        order.tags.remove(tags[0])
    finally:
        m2m_changed.disconnect(take_along, sender=Order.tags.through)
    assert [data["keys"] for _, data in captured()] == [[tags[1].pk], [tags[0].pk]]


def test_an_instance_can_still_be_pickled(order: Order, tags: list[Tag], listening: Tenant, captured: Read) -> None:
    """As a host's cache does."""

    def fail(action: str, **kwargs: Any) -> None:
        if action == "pre_clear":
            raise ValueError("no")

    order.tags.add(*tags)
    m2m_changed.connect(fail, sender=Order.tags.through)
    try:
        with pytest.raises(ValueError, match="no"), transaction.atomic():
            order.tags.clear()
    finally:
        m2m_changed.disconnect(fail, sender=Order.tags.through)
    copy = pickle.loads(pickle.dumps(order))  # noqa: S301  # Our own.
    captured()
    copy.tags.remove(tags[0])
    assert [data["keys"] for _, data in captured()] == [[tags[0].pk]]


def test_only_the_tenant_that_listens_gets_an_event(
    make_tenant: Make, tags: list[Tag], listening: Tenant, captured: Read
) -> None:
    customer = Customer.objects.create(tenant=make_tenant("other"), name="Bob", email="bob@other.example")
    Order.objects.create(customer=customer, number="2", total=3).tags.add(*tags)
    assert captured() == []


def test_a_row_that_is_not_there_is_no_event(order: Order, tags: list[Tag], listening: Tenant, captured: Read) -> None:
    Order.objects.get().delete()
    captured()
    with transaction.atomic():
        order.tags.add(*tags)
        told = captured()
        transaction.set_rollback(True)
    assert told == []


def test_a_signal_that_names_no_side_of_the_model_is_no_event(
    order: Order, tags: list[Tag], listening: Tenant, captured: Read
) -> None:
    """A host may send one by hand."""
    through, keys = Order.tags.through, {tags[0].pk}
    for reverse in (True, False):
        m2m_changed.send(
            through, instance=order, action="post_add", reverse=reverse, model=Tag, pk_set=keys, using="default"
        )
    assert short(captured()) == [("shop.order.added", "tags", False, list(keys))]


def test_a_change_that_is_rolled_back_tells_nothing(
    order: Order, tags: list[Tag], listening: Tenant, captured: Read
) -> None:
    with transaction.atomic():
        order.tags.add(*tags)
        transaction.set_rollback(True)
    assert captured() == []


def test_fixtures_are_skipped(order: Order, tags: list[Tag], listening: Tenant, captured: Read, tmp_path: Path) -> None:
    order.tags.add(*tags)
    rows = [order.customer, *tags, order]
    fixture = tmp_path / "shop.json"
    fixture.write_text(serializers.serialize("json", rows))
    order.tags.clear()
    captured()
    call_command("loaddata", str(fixture), verbosity=0)
    assert order.tags.count() == 3
    assert captured() == []
    # What was loaded once is captured like any other from then on.
    [loaded] = [
        each.object for each in serializers.deserialize("json", fixture.read_text()) if isinstance(each.object, Order)
    ]
    loaded.save()
    loaded.tags.clear()
    assert [topic for topic, _ in captured()] == ["shop.order.updated", "shop.order.cleared"]


def test_a_change_nobody_listens_to_costs_no_query_of_ours(
    order: Order, tags: list[Tag], django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    matching.wanted("any.topic")
    # Django's own: where anybody receives m2m_changed it looks before it inserts.
    with django_assert_num_queries(2):
        order.tags.add(tags[0])
    with django_assert_num_queries(1):
        order.tags.remove(tags[0])
    with django_assert_num_queries(1):
        order.tags.clear()


@pytest.mark.skipif(django.VERSION < (6, 1), reason="before Django 6.1 m2m_changed does not say whether it is raw")
def test_a_row_of_a_fixture_is_heard_once_it_is_loaded(
    order: Order, tags: list[Tag], listening: Tenant, captured: Read
) -> None:
    [loaded] = serializers.deserialize("json", serializers.serialize("json", [order]))
    loaded.save()
    assert captured() == []
    loaded.object.tags.add(tags[0])  # type: ignore[attr-defined]
    assert [topic for topic, _ in captured()] == ["shop.order.added"]

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import User

from examples.shop.models import Customer, Order
from subscriptions.models import Membership, Subscription, Tenant
from subscriptions.tenancy import EVERY_TENANT, answer, trouble, whose
from tests.zoo.kinds import Animal, Passport
from tests.zoo.odd import Letter, Memo, Org, Place, Restaurant

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_django import DjangoAssertNumQueries


@pytest.fixture
def order(tenant: Tenant) -> Order:
    customer = Customer.objects.create(tenant=tenant, name="Ann", email="ann@acme.example")
    return Order.objects.create(customer=customer, number="1", total=3)


def test_a_path_ends_in_the_tenant(order: Order, tenant: Tenant) -> None:
    assert whose(order, "customer__tenant") == tenant.pk
    assert whose(order.customer, "tenant") == tenant.pk
    assert whose(order, "customer__tenant__slug") == tenant.pk


def test_it_loads_no_tenant(order: Order, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    fresh = Order.objects.get(pk=order.pk)
    with django_assert_num_queries(1):  # The customer.
        whose(fresh, "customer__tenant")
    with django_assert_num_queries(0):
        whose(fresh, "customer__tenant")


def test_a_path_ends_in_a_key() -> None:
    memo = Memo(org_id="acme-7", owner_key="acme-8")
    assert whose(memo, "owner_key") == "acme-8"
    assert whose(memo, "org") == "acme-7"
    assert whose(memo, "org_id") == "acme-7"
    assert whose(Org(code="acme-9"), "pk") == "acme-9"


def test_a_key_is_text_even_where_the_host_has_numbers(order: Order) -> None:
    assert whose(order, "customer") == str(order.customer_id)
    assert whose(order, "customer__pk") == str(order.customer_id)


def test_a_foreign_key_that_is_a_primary_key_is_followed(tenant: Tenant) -> None:
    animal = Animal.objects.create(tenant=tenant, name="Rex")
    passport = Passport.objects.create(animal=animal, number="1")
    assert whose(passport, "animal__tenant") == tenant.pk
    assert whose(passport, "animal") == str(animal.pk)


def test_a_foreign_key_that_refers_to_another_column_is_followed(make_tenant: Callable[..., Tenant]) -> None:
    tenant = make_tenant(key="k-1")
    letter = Letter(to_slug=tenant, to_key=tenant)
    assert whose(letter, "to_slug") == tenant.pk
    assert whose(letter, "to_key") == "k-1"
    assert whose(Letter(to_slug_id="nobody", to_key_id="k-2"), "to_slug") is None
    assert whose(Letter(to_slug_id="nobody", to_key_id="k-2"), "to_key") == "k-2"


def test_a_child_is_its_parents_tenants(tenant: Tenant) -> None:
    assert whose(Restaurant(tenant=tenant), "tenant") == tenant.pk


@pytest.mark.parametrize(
    ("instance", "path"),
    [
        (Memo(), "org"),
        (Memo(), "owner_key"),
        (Memo(), "org__code"),
        (Place(), "tenant"),
        (Place(), "tenant__slug"),
        (Order(), "customer__tenant"),
    ],
)
def test_a_path_that_is_empty_on_the_way_is_nobodys(instance: Any, path: str) -> None:
    assert whose(instance, path) is None


def test_another_side_that_nobody_made_is_nobodys(tenant: Tenant) -> None:
    animal = Animal.objects.create(tenant=tenant, name="Rex")
    assert whose(animal, "passport__number") is None
    assert whose(animal, "passport") is None


def test_a_path_that_leads_nowhere_raises(order: Order) -> None:
    with pytest.raises(AttributeError):
        whose(order, "customer__owner")


@pytest.mark.django_db
def test_a_row_on_the_way_that_is_not_there_is_nobodys() -> None:
    assert whose(Order(customer_id=10_000), "customer__tenant") is None


def test_what_a_property_on_the_way_raises_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def last_order(customer: Customer) -> Order:
        raise Order.DoesNotExist

    monkeypatch.setattr(Customer, "last_order", property(last_order), raising=False)
    with pytest.raises(Order.DoesNotExist):
        whose(Customer(), "last_order__number")


def test_a_callable_answers(tenant: Tenant) -> None:
    place = Place(tenant=tenant, name="acme-1")
    answers: list[tuple[Callable[[Any], Any], Any]] = [
        (lambda place: place.tenant, tenant.pk),
        (lambda place: place.name, "acme-1"),
        (lambda place: 7, "7"),
        (lambda place: None, None),
        (lambda place: "", None),
        (lambda place: EVERY_TENANT, EVERY_TENANT),
        (lambda place: Org(code="acme-2"), "acme-2"),
    ]
    assert [whose(place, rule) for rule, _ in answers] == [expected for _, expected in answers]


def test_every_tenant() -> None:
    assert whose(Place(), EVERY_TENANT) is EVERY_TENANT
    assert answer(EVERY_TENANT) is EVERY_TENANT


def test_a_tenant_that_was_never_saved_is_nobody() -> None:
    assert answer(Tenant(slug="new")) is None


@pytest.mark.parametrize(
    ("model", "rule"),
    [
        (Order, "customer__tenant"),
        (Order, "customer"),
        (Memo, "owner_key"),
        (Memo, "org"),
        (Org, "pk"),
        (Animal, "passport__number"),
        (User, "is_authenticated"),
        (Subscription, lambda row: None),
        (Order, EVERY_TENANT),
    ],
)
def test_a_way_that_can_be_gone_is_no_trouble(model: Any, rule: Any) -> None:
    assert trouble(model, rule) is None


@pytest.mark.parametrize(
    ("model", "rule", "text"),
    [
        (Order, "", "no tenant is named"),
        (Order, "tenant", "shop.Order has no field 'tenant'"),
        (Order, "customer__owner", "shop.Customer has no field 'owner'"),
        (Order, "number__tenant", "shop.Order.number leads to no other model"),
        (Order, "tags", "shop.Order.tags leads to many rows"),
        (Tenant, "memberships__user", "subscriptions.Tenant.memberships leads to many rows"),
        (Membership, 7, "it is neither a path nor a function"),
        (Membership, None, "it is neither a path nor a function"),
    ],
)
def test_a_way_that_cannot_is(model: Any, rule: Any, text: str) -> None:
    assert trouble(model, rule) == text

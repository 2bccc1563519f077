"""One tenant never sees another: not in a queryset, not in a delivery."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.apps import apps

from subscriptions.models import Secret, Subscription, Tenant, Topic
from webhooks import deliveries, events
from webhooks.models import Attempt, Delivery, Event

if TYPE_CHECKING:
    from collections.abc import Callable

Subscribe = Any

# Rows that hang on a subscription, and are only ever reached through it.
THROUGH_A_SUBSCRIPTION = {Topic, Secret}
SEEN_BY_TENANTS = [Subscription, Event, Delivery, Attempt]

pytestmark = pytest.mark.django_db(databases="__all__")


@pytest.fixture
def alice(make_tenant: Callable[..., Tenant]) -> Tenant:
    return make_tenant("acme")


@pytest.fixture
def charlie(make_tenant: Callable[..., Tenant]) -> Tenant:
    return make_tenant("globex")


def sent_to(tenant: Tenant, subscribe: Subscribe) -> None:
    """A subscription to everything, an event, its delivery and an attempt."""
    subscribe(tenant, "*", url=f"https://{tenant.slug}.example/")
    events.publish("billing.invoice.paid", tenant, {"of": tenant.slug})
    deliveries.fan_out()
    deliveries.claim(10)


@pytest.mark.parametrize("model", SEEN_BY_TENANTS)
def test_for_tenant_holds_all_of_one_tenants_rows_and_none_of_anothers(
    model: Any, alice: Tenant, charlie: Tenant, subscribe: Subscribe
) -> None:
    sent_to(alice, subscribe)
    sent_to(charlie, subscribe)
    hers, his = model.objects.for_tenant(alice), model.objects.for_tenant(charlie)
    assert hers.count() == his.count() == 1
    assert model.objects.count() == 2
    assert not hers.filter(pk__in=his.values("pk")).exists()


def test_every_model_that_belongs_to_a_tenant_can_be_asked_for_one() -> None:
    of_tenants = {
        model
        for app in ("subscriptions", "webhooks")
        for model in apps.get_app_config(app).get_models()
        if {field.related_model for field in model._meta.get_fields() if field.many_to_one}
        & {Tenant, Subscription, Delivery}
    }
    unasked = {model.__name__ for model in of_tenants if not hasattr(model._default_manager.all(), "for_tenant")}
    assert unasked == {model.__name__ for model in THROUGH_A_SUBSCRIPTION}


def test_an_event_is_delivered_to_its_own_tenant_only(alice: Tenant, charlie: Tenant, subscribe: Subscribe) -> None:
    for tenant in (alice, charlie):
        subscribe(tenant, "*")
    events.publish("billing.invoice.paid", alice, {})
    deliveries.fan_out()
    delivery = Delivery.objects.get()
    assert (delivery.tenant, delivery.subscription.tenant) == (alice, alice)


def test_an_event_of_every_tenant_names_none_of_them(alice: Tenant, charlie: Tenant, subscribe: Subscribe) -> None:
    for tenant in (alice, charlie):
        subscribe(tenant, "*")
    event = events.publish("project.notice", None, {})
    deliveries.fan_out()
    assert {delivery.tenant for delivery in Delivery.objects.all()} == {alice, charlie}
    assert b'"tenant":null' in event.body
    assert all(Event.objects.for_tenant(tenant).get() == event for tenant in (alice, charlie))

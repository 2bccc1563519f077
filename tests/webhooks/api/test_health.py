"""Which subscriptions need somebody, for programs that watch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.utils import timezone

from subscriptions.models import Subscription
from webhooks.models import Throttle

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_django import DjangoAssertNumQueries

    from subscriptions.models import Tenant
    from tests.programs import Api

    Subscribe = Callable[..., Subscription]


def test_those_that_need_somebody_are_named_and_since_when(api: Api, tenant: Tenant, subscribe: Subscribe) -> None:
    subscribe(tenant, "*", name="Well")
    failing, off, gone = (subscribe(tenant, "*", name=name) for name in ("Failing", "Off", "Gone"))
    now = timezone.now()
    Throttle.objects.update_or_create(subscription=failing, defaults={"failing_since": now})
    off.disable(reason="A member turned it off.", by=Subscription.DisabledBy.MEMBER)
    gone.disable(reason="410 Gone")
    found = api.get("health/").json()
    assert (found["total"], found["on"], found["off"]) == (4, 2, 2)
    assert [(each["id"], each["state"], each["reason"]) for each in found["needing"]] == [
        (failing.pk, "failing", None),
        (gone.pk, "off", "410 Gone"),
    ]
    assert all(each["since"].endswith("Z") for each in found["needing"])


def test_a_tenant_with_nothing_needs_nobody(api: Api) -> None:
    assert api.get("health/").json() == {"total": 0, "on": 0, "off": 0, "needing": []}


def test_many_take_as_many_queries_as_one(
    api: Api, tenant: Tenant, subscribe: Subscribe, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    subscribe(tenant, "shop.*").disable(reason="410 Gone")
    api.get("health/")  # the key's first use is written
    with django_assert_max_num_queries(6) as one:
        api.get("health/")
    for _ in range(20):
        subscribe(tenant, "shop.*").disable(reason="410 Gone")
    with django_assert_max_num_queries(6) as many:
        assert len(api.get("health/").json()["needing"]) == 21
    assert len(many) == len(one)

"""What a tenant sees first: a sentence of health, and its subscriptions."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.utils import timezone

from subscriptions.models import Membership, Subscription, Topic
from tests.traffic import make_deliveries
from tests.webhooks.personas import HTMX, sign_in, text
from tests.webhooks.traffic import make_delivery
from webhooks import overviews
from webhooks.models import Rollup, Throttle

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.test import Client
    from pytest_django import DjangoAssertNumQueries

    from subscriptions.models import Tenant

    Subscribe = Callable[..., Subscription]

pytestmark = pytest.mark.django_db
PATH = "/t/acme/"


@pytest.fixture
def page(tenant: Tenant) -> Client:
    return sign_in(tenant)


def failing(subscription: Subscription, times: int = 14) -> Subscription:
    Throttle.objects.create(subscription=subscription, failures=times, failing_since=timezone.now())
    return subscription


def many(tenant: Tenant, number: int) -> list[Subscription]:
    made = Subscription.objects.bulk_create(
        Subscription(tenant=tenant, url=f"https://r{n}.example/", name=f"Nr {n:03}") for n in range(number)
    )
    Topic.objects.bulk_create(
        Topic(subscription=each, name=f"shop.thing{n}.created") for each in made for n in range(8)
    )
    return list(made)


def hosts(response: Any) -> list[str]:
    """Of the list, from its top."""
    part = response.content.decode().partition('<div id="subscriptions"')[2]
    return re.findall(r'class="row-link clip"[^>]*>\s*([^<\s]+)', part)


def test_without_a_subscription_it_offers_the_first(page: Client) -> None:
    said = text(page.get(PATH))
    assert "A subscription sends what you choose to a URL of yours" in said
    for place in ("/t/acme/subscriptions/new/", "/t/acme/topics/", "/t/acme/inbox/"):
        assert f'href="{place}"' in said


def test_a_viewer_of_nothing_is_told_who_can(tenant: Tenant) -> None:
    said = text(sign_in(tenant, "viewer").get(PATH))
    assert "A developer or an owner can make one." in said
    assert "/subscriptions/new/" not in said


def test_an_outsider_sees_nothing(tenant: Tenant) -> None:
    assert sign_in(None, name="charlie").get(PATH).status_code == 404


def test_another_tenants_subscriptions_are_not_in_it(
    page: Client, tenant: Tenant, make_tenant: Callable[..., Tenant], subscribe: Subscribe
) -> None:
    subscribe(tenant, "*", url="https://ours.example/")
    failing(subscribe(make_tenant("other"), "*", url="https://theirs.example/"))
    said = text(page.get(PATH))
    assert "1 subscription is on, and nothing fails." in said
    assert "theirs.example" not in said


def test_the_sentence_names_who_needs_attention_and_since_when(
    page: Client, tenant: Tenant, subscribe: Subscribe
) -> None:
    subscribe(tenant, "*")
    subscribe(tenant, "*")
    failing(subscribe(tenant, "*", url="https://billing.example/in"))
    said = text(page.get(PATH))
    assert "1 of 3 subscriptions needs attention" in said
    assert re.search(r'billing\.example</a> has failed 14 times since <time datetime="[^"]+" title="[^"]+ UTC">', said)


def test_many_that_need_attention_are_a_number_with_a_link(page: Client, tenant: Tenant, subscribe: Subscribe) -> None:
    for number in range(5):
        failing(subscribe(tenant, "*", url=f"https://r{number}.example/"), times=number + 1)
    subscribe(tenant, "*", url="https://well.example/")
    said = text(page.get(PATH))
    assert "5 of 6 subscriptions need attention" in said
    assert '<a href="?needy">and 3 more</a>' in said
    assert sorted(hosts(page.get(f"{PATH}?needy"))) == [f"r{number}.example" for number in range(5)]


def test_what_the_machine_turned_off_needs_attention_and_what_a_member_did_does_not(
    page: Client, tenant: Tenant, subscribe: Subscribe
) -> None:
    subscribe(tenant, "*")
    subscribe(tenant, "*").disable(reason="x", by="member")
    said = text(page.get(PATH))
    assert "1 subscription is on, and nothing fails. 1 is turned off." in said
    subscribe(tenant, "*", url="https://old.example/").disable(reason="Nothing but failures.")
    said = text(page.get(PATH))
    assert "1 of 3 subscriptions needs attention" in said
    assert "old.example</a> was turned off" in said


def test_a_row_shows_target_topics_state_and_last_delivery(page: Client, tenant: Tenant, subscribe: Subscribe) -> None:
    subscription = subscribe(tenant, *(f"shop.thing{number}.created" for number in range(8)), name="Billing")
    make_delivery(subscription, "failed", ended_at=timezone.now() - timedelta(days=1))
    make_delivery(subscription, "delivered", ended_at=timezone.now() - timedelta(minutes=3))
    Rollup.objects.create(subscription=subscription, span="hour", starts_at=timezone.now(), attempts=3, delivered=2)
    said = text(page.get(PATH))
    for part in (
        "receiver.example",
        "Billing",
        "shop.thing0.created",
        "and 5 more",
        "On",
        "Delivered",
        "3 minutes ago",
    ):
        assert part in said, part
    assert "shop.thing3.created" not in said
    assert "<svg" in said


def test_where_nothing_was_sent_it_says_never(page: Client, tenant: Tenant, subscribe: Subscribe) -> None:
    subscribe(tenant, "*")
    assert "Never" in text(page.get(PATH))


def test_the_inbox_has_a_name(page: Client, tenant: Tenant, subscribe: Subscribe) -> None:
    subscribe(tenant, "*", url="inbox:")
    assert "Built-in inbox" in text(page.get(PATH))


def test_a_search_finds_by_name_and_by_address(page: Client, tenant: Tenant) -> None:
    many(tenant, 30)
    assert hosts(page.get(f"{PATH}?q=Nr 017")) == ["r17.example"]
    assert hosts(page.get(f"{PATH}?q=R17.EXAMPLE")) == ["r17.example"]
    response = page.get(f"{PATH}?q=<nothing>")
    assert "No subscription matches" in text(response)
    assert 'value="&lt;nothing&gt;"' in text(response)


def test_a_search_as_one_types_brings_only_the_list(page: Client, tenant: Tenant) -> None:
    many(tenant, 30)
    response = page.get(f"{PATH}?q=r17", headers={**HTMX, "HX-Target": "subscriptions"})
    assert hosts(response) == ["r17.example"]
    assert "<html" not in text(response)
    assert "1 subscription found" in text(response)


def test_few_subscriptions_need_no_search(page: Client, tenant: Tenant) -> None:
    many(tenant, 3)
    assert 'type="search"' not in text(page.get(PATH))


def test_every_subscription_is_on_one_page_and_those_that_fail_on_the_first(page: Client, tenant: Tenant) -> None:
    made = many(tenant, 60)
    failing(made[7])
    seen: list[str] = []
    address = PATH
    for _ in range(3):
        response = page.get(address)
        seen += hosts(response)
        found = re.search(r'href="(\?after=[^"]*)">More', response.content.decode())
        address = f"{PATH}{found[1]}" if found else ""
    assert not address
    assert seen[0] == "r7.example"
    assert sorted(seen) == sorted(f"r{number}.example" for number in range(60))


@pytest.mark.parametrize("after", ["x", "1-", "-1", "1-99999999999999999999999", "%00", "²-1"])
def test_a_cursor_that_is_none_is_the_first_page(page: Client, tenant: Tenant, after: str) -> None:
    many(tenant, 2)
    assert hosts(page.get(f"{PATH}?after={after}")) == ["r1.example", "r0.example"]


def test_the_page_costs_the_same_for_one_subscription_and_for_five_hundred(
    page: Client, tenant: Tenant, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    made = many(tenant, 500)
    for each in made[:20]:
        failing(each)
        make_deliveries(each, 2)
    with django_assert_max_num_queries(12):
        assert len(hosts(page.get(PATH))) == overviews.PAGE


def test_somebody_in_two_tenants_sees_one_at_a_time(
    page: Client, tenant: Tenant, make_tenant: Callable[..., Tenant], subscribe: Subscribe
) -> None:
    other = make_tenant("other")
    subscribe(tenant, "*", url="https://ours.example/")
    subscribe(other, "*", url="https://theirs.example/")
    Membership.objects.create(tenant=other, user=Membership.objects.get().user)
    assert hosts(page.get(PATH)) == ["ours.example"]
    assert hosts(page.get("/t/other/")) == ["theirs.example"]

"""The list of deliveries: filters, pages by cursor, and what is new."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.traffic import make_deliveries
from tests.webhooks.personas import HTMX, sign_in, text
from tests.webhooks.traffic import make_delivery, make_event
from webhooks import cursors
from webhooks.filters import DeliveryFilters
from webhooks.models import Delivery

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.test import Client
    from pytest_django import DjangoAssertNumQueries

    from subscriptions.models import Subscription, Tenant

    Subscribe = Callable[..., Subscription]

pytestmark = pytest.mark.django_db
PATH = "/t/acme/deliveries/"
HOUR = timedelta(hours=1)


@pytest.fixture
def page(tenant: Tenant) -> Client:
    return sign_in(tenant)


@pytest.fixture
def subscription(tenant: Tenant, subscribe: Subscribe) -> Subscription:
    return subscribe(tenant, "shop.*", name="Billing")


def shown(response: Any) -> list[int]:
    return [int(pk) for pk in re.findall(r'id="delivery-(\d+)"', response.content.decode())]


def poll_of(response: Any) -> str:
    (found,) = re.findall(r'hx-get="([^"]*part=[^"]*)"', response.content.decode())
    return str(found).replace("&amp;", "&")


def link(response: Any, word: str) -> str:
    found = re.search(rf'href="(\?[^"]*)">(?:<svg.*?</svg>)?{word}', response.content.decode(), re.DOTALL)
    assert found, word
    return PATH + found[1].replace("&amp;", "&")


def test_the_list_shows_the_newest_first(page: Client, subscription: Subscription) -> None:
    rows = make_deliveries(subscription, 3)
    response = page.get(PATH)
    assert shown(response) == sorted((row.pk for row in rows), reverse=True)
    assert "Billing" in text(response)


def test_an_outsider_sees_no_list(subscription: Subscription) -> None:
    assert sign_in(None, name="charlie").get(PATH).status_code == 404


def test_another_tenants_deliveries_are_not_in_it(
    page: Client, make_tenant: Callable[..., Tenant], subscribe: Subscribe, subscription: Subscription
) -> None:
    theirs = subscribe(make_tenant("other"), "*")
    (delivery,) = make_deliveries(theirs)
    assert shown(page.get(PATH)) == []
    assert shown(page.get(f"{PATH}?subscription={theirs.pk}")) == []
    assert shown(page.get(f"{PATH}?event={delivery.event.webhook_id}")) == []


@pytest.mark.parametrize(
    ("query", "matches"),
    [
        ("status=failed", {"failed"}),
        ("topic=shop.tag.deleted", {"tag"}),
        ("topic=shop.tag.*", {"tag"}),
        ("status=failed&topic=shop.tag.deleted", set()),
        ("since=2026-01-02T00:00:00Z", {"failed", "tag"}),
        ("until=2026-01-02T00:00:00Z", {"old"}),
        ("since=2026-01-01T00:00:00Z&until=2026-01-02T00:00:00Z", {"old"}),
    ],
)
def test_filters_narrow_the_list(page: Client, subscription: Subscription, query: str, matches: set[str]) -> None:
    old = timezone.now().replace(year=2026, month=1, day=1, hour=12)
    rows = {
        "failed": make_delivery(subscription, "failed"),
        "tag": make_delivery(subscription, "delivered", topic="shop.tag.deleted"),
        "old": make_delivery(subscription, "delivered", created_at=old),
    }
    assert set(shown(page.get(f"{PATH}?{query}"))) == {rows[name].pk for name in matches}


def test_a_filter_by_event_and_by_subscription(
    page: Client, tenant: Tenant, subscription: Subscription, subscribe: Subscribe
) -> None:
    event = make_event(tenant)
    first = make_delivery(subscription, event=event)
    second = make_delivery(subscribe(tenant, "*"), event=event)
    make_delivery(subscription)
    assert shown(page.get(f"{PATH}?event={event.webhook_id}")) == [second.pk, first.pk]
    assert shown(page.get(f"{PATH}?event={event.webhook_id}&subscription={subscription.pk}")) == [first.pk]


def test_the_form_leads_to_an_address_worth_sharing(page: Client, subscription: Subscription) -> None:
    query = "status=failed&topic=&subscription=&since=2026-11-21T10%3A30&until=&event="
    response = page.get(f"{PATH}?{query}")
    assert response.status_code == 302
    assert parse_qs(urlsplit(response["location"]).query) == {"status": ["failed"], "since": ["2026-11-21T10:30:00Z"]}
    assert page.get(response["location"]).status_code == 200


def test_a_time_is_the_readers(page: Client) -> None:
    page.cookies["signalpost_zone"] = "Europe/Berlin"
    response = page.get(f"{PATH}?since=2026-11-21T10%3A30")
    assert parse_qs(urlsplit(response["location"]).query) == {"since": ["2026-11-21T09:30:00Z"]}
    assert 'value="2026-11-21T10:30"' in page.get(response["location"]).content.decode()


def test_what_cannot_be_read_stands_at_its_field_and_matches_nothing(page: Client, subscription: Subscription) -> None:
    make_deliveries(subscription)
    response = page.get(f"{PATH}?status=bad&since=never&topic=a%20b&event=x&subscription=y&until=later")
    said = response.content.decode()
    assert shown(response) == []
    for name in ("status", "since", "topic", "event", "subscription", "until"):
        assert f'id="error-{name}"' in said
        assert f'href="#filter-{name}"' in said
    assert 'value="never"' in said
    assert 'value="a b"' in said


@pytest.mark.parametrize("query", ["before=x", "after=%00", "before=-1", "before=99999999999999999999999", "after=1e3"])
def test_a_cursor_that_is_none_is_the_first_page(page: Client, subscription: Subscription, query: str) -> None:
    (delivery,) = make_deliveries(subscription)
    assert shown(page.get(f"{PATH}?{query}")) == [delivery.pk]


def test_pages_lead_back_and_forth(page: Client, subscription: Subscription, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cursors.page, "__kwdefaults__", {**(cursors.page.__kwdefaults__ or {}), "size": 2})
    keys = sorted((row.pk for row in make_deliveries(subscription, 5)), reverse=True)
    first = page.get(PATH)
    second = page.get(link(first, "Older"))
    third = page.get(link(second, "Older"))
    assert [shown(each) for each in (first, second, third)] == [keys[:2], keys[2:4], keys[4:]]
    assert "Older" not in text(third)
    back = page.get(link(third, "Newer"))
    assert shown(back) == keys[2:4]
    assert shown(page.get(link(back, "Newer"))) == keys[:2]


def test_the_filters_stay_while_paging(
    page: Client, subscription: Subscription, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cursors.page, "__kwdefaults__", {**(cursors.page.__kwdefaults__ or {}), "size": 1})
    first, second = (make_delivery(subscription, "failed") for _ in range(2))
    make_delivery(subscription, "delivered")
    response = page.get(f"{PATH}?status=failed")
    assert shown(response) == [second.pk]
    assert shown(page.get(link(response, "Older"))) == [first.pk]


def test_a_poll_hears_of_what_is_new_and_of_nothing_else(page: Client, subscription: Subscription) -> None:
    make_deliveries(subscription)
    poll = poll_of(page.get(PATH))
    assert page.get(poll, headers=HTMX).status_code == 204
    make_deliveries(subscription, 2)
    response = page.get(poll, headers=HTMX)
    assert len(shown(response)) == 3
    assert "2 newer deliveries" in text(response)
    assert page.get(poll_of(response), headers=HTMX).status_code == 204


def test_a_poll_hears_of_a_state_that_changed(page: Client, subscription: Subscription) -> None:
    (delivery,) = make_deliveries(subscription)
    poll = poll_of(page.get(PATH))
    Delivery.objects.filter(pk=delivery.pk).update(status="delivered", next_attempt_at=None)
    response = page.get(poll, headers=HTMX)
    assert "Delivered" in text(response)
    assert "newer" not in text(response)


def test_a_later_page_does_not_poll(page: Client, subscription: Subscription) -> None:
    rows = make_deliveries(subscription, 3)
    assert "hx-trigger" not in page.get(f"{PATH}?before={rows[-1].pk}").content.decode()
    assert "hx-trigger" not in page.get(f"{PATH}?until=2026-01-01T00:00:00Z").content.decode()


def test_all_that_match_can_be_replayed_with_their_number(page: Client, subscription: Subscription) -> None:
    make_deliveries(subscription, 3, status="failed", next_attempt_at=None)
    assert "Replay all that match" not in text(page.get(PATH))
    said = text(page.get(f"{PATH}?status=failed"))
    assert "Replay all that match (3)" in said
    assert "/t/acme/replays/new/?kind=filtered&amp;status=failed" in said


def test_a_viewer_sees_the_list_and_no_replay(tenant: Tenant, subscription: Subscription) -> None:
    make_deliveries(subscription, 3, status="failed", next_attempt_at=None)
    response = sign_in(tenant, "viewer").get(f"{PATH}?status=failed")
    assert len(shown(response)) == 3
    assert "Replay all" not in text(response)


def test_nothing_yet_and_nothing_that_matches_say_what_to_do(page: Client, subscription: Subscription) -> None:
    assert "Nothing was sent yet" in text(page.get(PATH))
    assert "No delivery matches" in text(page.get(f"{PATH}?status=failed"))


def test_the_list_costs_the_same_for_one_row_and_for_many(
    page: Client, tenant: Tenant, subscribe: Subscribe, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(10):
        make_deliveries(subscribe(tenant, "*", name=f"S{number}"), 6)
    with django_assert_max_num_queries(8):
        assert len(shown(page.get(PATH))) == 50


def test_nobody_looks_through_more_than_so_many(
    tenant: Tenant, subscription: Subscription, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cursors, "MOST_LOOKED_AT", 10)
    oldest = make_delivery(subscription, topic="shop.tag.deleted")
    make_deliveries(subscription, 25)
    newest = make_delivery(subscription, topic="shop.tag.deleted")
    filters = DeliveryFilters(topic="shop.tag.deleted")
    first = cursors.page(tenant, filters)
    assert [row.pk for row in first.rows] == [newest.pk]
    assert first.cut
    pages = [first]
    while pages[-1].older is not None:
        pages.append(cursors.page(tenant, filters, before=pages[-1].older))
    assert [row.pk for page in pages for row in page.rows] == [newest.pk, oldest.pk]
    assert not pages[-1].cut
    back = cursors.page(tenant, filters, after=oldest.pk)
    assert back.rows == []
    assert back.cut
    assert back.newer is not None


def test_a_page_that_was_looked_through_says_so(
    page: Client, subscription: Subscription, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cursors, "MOST_LOOKED_AT", 10)
    rare = make_delivery(subscription, topic="shop.tag.deleted")
    make_deliveries(subscription, 15)
    response = page.get(f"{PATH}?topic=shop.tag.deleted")
    assert "10 deliveries were looked through" in text(response)
    assert shown(page.get(link(response, "Look further back"))) == [rare.pk]


def test_a_time_long_ago_is_found_at_once(
    tenant: Tenant, subscription: Subscription, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cursors, "MOST_LOOKED_AT", 5)
    start = timezone.now() - timedelta(days=30)
    rows = [make_delivery(subscription, created_at=start + n * timedelta(days=1)) for n in range(30)]
    filters = DeliveryFilters(since=start + timedelta(days=3, hours=-2), until=start + timedelta(days=6, hours=2))
    found = cursors.page(tenant, filters)
    assert [row.pk for row in found.rows] == [rows[n].pk for n in (6, 5, 4, 3)]
    assert not found.cut
    assert found.older is None


@pytest.mark.parametrize(
    "filters",
    [
        DeliveryFilters(),
        DeliveryFilters(status="retrying"),
        DeliveryFilters(status="delivered", topic="shop.*"),
        DeliveryFilters(subscription=1, status="failed"),
        DeliveryFilters(topic="shop.order.updated"),
        DeliveryFilters(since=timezone.now() - HOUR),
        DeliveryFilters(until=timezone.now() - HOUR),
    ],
    ids=["none", "status", "status and topics", "subscription and status", "topic", "since", "until"],
)
def test_no_filter_reads_the_whole_table(tenant: Tenant, subscription: Subscription, filters: DeliveryFilters) -> None:
    make_deliveries(subscription, 3)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        cursors.page(tenant, filters, before=1_000_000)
    explain = "EXPLAIN QUERY PLAN" if connection.vendor == "sqlite" else "EXPLAIN"
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")  # of tables as small as these
        for query in queries.captured_queries:
            if not query["sql"].lstrip().startswith(("SELECT", "WITH")):
                continue
            cursor.execute(f"{explain} {query['sql']}")
            plan = " ".join(str(row) for row in cursor.fetchall())
            assert "SCAN webhooks_" not in plan, plan
            assert "Seq Scan on webhooks_" not in plan, plan
            assert "TEMP B-TREE FOR ORDER BY" not in plan, plan

"""The filters of deliveries, as they stand in a URL."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from django.http import QueryDict
from django.utils import timezone

from tests.traffic import make_deliveries
from webhooks.filters import DeliveryFilters
from webhooks.models import Delivery, Event

if TYPE_CHECKING:
    from collections.abc import Callable

    from subscriptions.models import Subscription, Tenant

EVENT = "0192f0c3a1b27c3d8e4f5a6b7c8d9e0f"
WHOLE = {
    "status": "failed",
    "topic": "shop.order.*",
    "subscription": "7",
    "since": "2026-11-20T09:30:00Z",
    "until": "2026-11-21T09:30:00Z",
    "event": f"evt_{EVENT}",
}


def read(query: str) -> DeliveryFilters:
    return DeliveryFilters.from_query(QueryDict(query))


def test_what_was_read_is_written_the_same() -> None:
    filters = DeliveryFilters.from_query(WHOLE)
    assert not filters.errors
    assert filters.as_query() == WHOLE
    assert DeliveryFilters.from_query(filters.as_query()) == filters


@pytest.mark.parametrize("query", ["", "status=&topic=+&event=", "page=3&kind=failed"])
def test_nothing_filters_nothing(query: str) -> None:
    filters = read(query)
    assert not filters
    assert filters.as_query() == {}


@pytest.mark.parametrize(
    "written", [EVENT, EVENT.upper(), f"evt_{EVENT}", f" EVT_{EVENT} ", f"{EVENT[:8]}-{EVENT[8:]}"]
)
def test_an_event_may_be_written_in_several_ways(written: str) -> None:
    assert DeliveryFilters.from_query({"event": written}).as_query() == {"event": f"evt_{EVENT}"}


def test_a_time_is_the_readers_unless_it_says_otherwise() -> None:
    with timezone.override(zoneinfo.ZoneInfo("Asia/Tokyo")):
        assert read("since=2026-11-21T09:30").since == datetime(2026, 11, 21, 0, 30, tzinfo=UTC)
        assert read("since=2026-11-21+09:30").since == datetime(2026, 11, 21, 0, 30, tzinfo=UTC)
        assert read("since=2026-11-21").since == datetime(2026, 11, 20, 15, tzinfo=UTC)
        assert read("since=2026-11-21T09:30%2B01:00").since == datetime(2026, 11, 21, 8, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("status=lost", "There is no such status. Choose one of: pending,"),
        ("status=FAILED", "There is no such status."),
        ("topic=Shop.Order", "Write a topic such as"),
        ("topic=*.order", "Write a topic such as"),
        ("topic=%00", "Write a topic such as"),
        ("topic=" + "a." * 200 + "b", "Write a topic such as"),
        ("subscription=one", "not the number of a subscription"),
        ("subscription=-1", "not the number of a subscription"),
        ("subscription=%C2%B2", "not the number of a subscription"),
        ("subscription=9223372036854775808", "not the number of a subscription"),
        ("subscription=" + "0" * 5_000, "not the number of a subscription"),
        ("event=evt_1", "An event's id begins with evt_"),
        ("since=yesterday", "Write a date and time"),
        ("since=2026-13-01", "Write a date and time"),
        ("since=2026-02-30T10:00", "Write a date and time"),
        ("since=0001-01-01T00:00Z", "Write a date and time"),
        ("until=9999-12-31T23:59Z", "Write a date and time"),
        ("since=2026-11-21&until=2026-11-21", "not after the beginning"),
    ],
)
@pytest.mark.django_db
def test_what_cannot_be_read_is_said_at_its_field_and_matches_nothing(query: str, said: str) -> None:
    filters = read(query)
    ((name, error),) = filters.errors.items()
    assert said in error
    assert query.rpartition("&")[2].startswith(name)
    assert filters.typed[name] == QueryDict(query)[name].strip()
    assert filters, "it is a filter, though a wrong one"
    assert filters.apply(Delivery.objects.all()).query.is_empty()


def test_all_mistakes_are_said_at_once() -> None:
    assert set(read("status=x&topic=%25&since=x&event=x").errors) == {"status", "topic", "since", "event"}


@pytest.mark.django_db
def test_a_mistake_does_not_mean_everything(tenant: Tenant, subscribe: Callable[..., Subscription]) -> None:
    make_deliveries(subscribe(tenant, "shop.*"), 2)
    assert read("").apply(Delivery.objects.all()).count() == 2
    assert read("status=lost").apply(Delivery.objects.all()).count() == 0


@pytest.mark.django_db
def test_each_filter_leaves_what_it_names(tenant: Tenant, subscribe: Callable[..., Subscription]) -> None:
    first, second = subscribe(tenant, "shop.*"), subscribe(tenant, "shop.*")
    (one,) = make_deliveries(first, status="failed", created_at=datetime(2026, 1, 1, tzinfo=UTC))
    (two,) = make_deliveries(second, created_at=datetime(2026, 1, 2, tzinfo=UTC))
    Event.objects.filter(pk=two.event_id).update(topic="shop.orders.created")

    def found(query: str) -> list[int]:
        return sorted(read(query).apply(Delivery.objects.for_tenant(tenant)).values_list("pk", flat=True))

    assert found("status=failed") == [one.pk]
    assert found("topic=shop.order.created") == [one.pk]
    assert found("topic=shop.order.*") == [one.pk], "not shop.orders"
    assert found("topic=shop.*") == found("topic=*") == [one.pk, two.pk]
    assert found(f"subscription={second.pk}") == [two.pk]
    assert found(f"event={two.event.webhook_id}") == [two.pk]
    assert found("since=2026-01-02T00:00Z") == [two.pk], "the beginning belongs to it"
    assert found("until=2026-01-02T00:00Z") == [one.pk], "the end does not"
    assert found(f"status=failed&subscription={second.pk}") == []

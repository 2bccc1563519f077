"""Pages of a list, both ways, while others add to it."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from subscriptions.models import Subscription

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_django import DjangoAssertNumQueries

    from subscriptions.models import Tenant
    from tests.programs import Api

    Subscribe = Callable[..., Subscription]


@pytest.fixture
def seven(tenant: Tenant, subscribe: Subscribe) -> list[int]:
    """Their numbers, the newest first."""
    return [subscribe(tenant, "shop.*", name=f"No. {number}").pk for number in range(7)][::-1]


def ids(answer: Any) -> list[int]:
    assert answer.status_code == 200, answer.content
    return [each["id"] for each in answer.json()["data"]]


def walk(api: Api, path: str | None, way: str = "next") -> Iterator[list[int]]:
    while path:
        answer = api.get(path)
        yield ids(answer)
        path = answer.json()[way]


def test_all_are_given_the_newest_first_and_the_ends_are_null(api: Api, seven: list[int]) -> None:
    answer = api.get("subscriptions/")
    assert ids(answer) == seven
    assert (answer.json()["next"], answer.json()["previous"]) == (None, None)


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 8])
def test_next_leads_through_all_of_them_once(api: Api, seven: list[int], limit: int) -> None:
    pages = list(walk(api, f"subscriptions/?limit={limit}"))
    assert [each for page in pages for each in page] == seven
    assert all(len(page) == limit for page in pages[:-1])
    assert pages[-1]


def test_previous_leads_back_the_same_way(api: Api, seven: list[int]) -> None:
    first = api.get("subscriptions/?limit=3").json()
    second = api.get(first["next"]).json()
    third = api.get(second["next"]).json()
    assert third["next"] is None
    assert list(walk(api, third["previous"], "previous")) == [seven[3:6], seven[:3]]
    assert api.get(second["previous"]).json()["data"] == first["data"]


def test_what_is_added_meanwhile_moves_nothing(
    api: Api, seven: list[int], tenant: Tenant, subscribe: Subscribe
) -> None:
    first = api.get("subscriptions/?limit=3").json()
    added = [subscribe(tenant, "*").pk for _ in range(4)][::-1]
    second = api.get(first["next"])
    assert ids(second) == seven[3:6]
    newer = list(walk(api, second.json()["previous"], "previous"))
    assert newer == [seven[:3], added[1:], added[:1]]


def test_where_all_of_a_page_is_deleted_the_way_back_is_known(api: Api, seven: list[int]) -> None:
    first = api.get("subscriptions/?limit=6").json()
    Subscription.objects.filter(pk=seven[6]).delete()
    empty = api.get(first["next"]).json()
    assert (empty["data"], empty["next"]) == ([], None)
    assert ids(api.get(empty["previous"])) == seven[:6]


def test_filters_stay_on_every_page(api: Api, seven: list[int]) -> None:
    answer = api.get("subscriptions/?limit=2&q=No.&enabled=true&topic=shop.*")
    assert ids(answer) == seven[:2]
    assert "q=No." in answer.json()["next"]
    assert ids(api.get(answer.json()["next"])) == seven[2:4]
    assert ids(api.get("subscriptions/?q=No. 3")) == [seven[3]]
    assert ids(api.get("subscriptions/?q=receiver.example")) == seven
    assert ids(api.get("subscriptions/?enabled=false")) == []
    assert ids(api.get("subscriptions/?topic=shop.order.updated")) == []


def test_times_are_half_open(api: Api, seven: list[int]) -> None:
    start = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
    for number, pk in enumerate(reversed(seven)):
        Subscription.objects.filter(pk=pk).update(created_at=start + timedelta(hours=number))
    assert ids(api.get("subscriptions/?created_after=2026-11-21T11:30:00Z")) == seven[:5]
    assert ids(api.get("subscriptions/?created_before=2026-11-21T11:30:00Z")) == seven[5:]
    assert ids(api.get("subscriptions/?created_before=2026-11-21T13:30:00%2B02:00")) == seven[5:]
    assert ids(api.get("subscriptions/?created_before=2026-11-21T13:30:00+02:00")) == seven[5:]
    both = "created_after=2026-11-21T10:30:00.000Z&created_before=2026-11-21t12:30:00z"
    assert ids(api.get(f"subscriptions/?{both}")) == seven[4:6]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=",
        "limit=ten",
        "limit=1.5",
        "limit=%D9%A1",
        "limit=" + "9" * 5_000,
        "limit=1&limit=2",
        "created_after=yesterday",
        "created_after=2026-11-21",
        "created_after=2026-11-21T09:30:00",
        "created_after=2026-13-21T09:30:00Z",
        "created_after=0001-01-01T00:00:00%2B14:00",
        "created_before=9999-12-31T23:59:59-14:00",
        "created_before=",
        "enabled=maybe",
        "q=a%00b",
        "q=" + "x" * 201,
        "tenant=acme&tenant=acme",
    ],
)
def test_a_wrong_value_gets_400_and_is_named(api: Api, query: str) -> None:
    answer = api.get(f"subscriptions/?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_filter")
    assert answer.json()["errors"][0]["field"] == query.partition("=")[0]


def encoded(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "!!!",
        "%00",
        "é",
        "A" * 5_000,
        encoded([]),
        encoded(["<"]),
        encoded(["<", 1, 2]),
        encoded(["!", 1]),
        encoded([[], 1]),
        encoded(["<", True]),
        encoded(["<", 1.5]),
        encoded(["<", None]),
        encoded(["<", "text"]),
        encoded(["<", "t2026-11-21T09:30:00Z"]),
        encoded(["<", "ttime"]),
        encoded(["<", "u0b8ca2b59f134b3e8f0e0d6f6d8a5c11"]),
        encoded(["<", "uuid"]),
        encoded(["<", 2**63]),
        encoded({"<": 1}),
        encoded(7),
        encoded("text"),
        base64.urlsafe_b64encode(b"[" * 300).decode(),
    ],
)
def test_a_cursor_of_somebody_elses_gets_400(api: Api, seven: list[int], cursor: str) -> None:
    answer = api.get("subscriptions/", {"cursor": cursor})
    assert (answer.status_code, answer.json()["code"]) in {(400, "bad_cursor"), (400, "bad_filter")}


@pytest.mark.parametrize("path", ["subscriptions/", "keys/", "members/", "invitations/", "audit/", "topics/"])
def test_a_list_takes_as_many_queries_with_fifty_rows_as_with_one(
    api: Api,
    grow: Callable[[str, int], None],
    path: str,
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    grow(path, 1)
    api.get(path)  # the key's last use is written
    with django_assert_max_num_queries(10) as one:
        api.get(path)
    grow(path, 50)
    with django_assert_max_num_queries(10) as many:
        answer = api.get(path)
    assert len(answer.json()["data"]) >= 50 or path == "topics/"
    assert len(many) == len(one)


@pytest.fixture
def grow(tenant: Tenant, subscribe: Subscribe) -> Callable[[str, int], None]:
    from django.contrib.auth.models import User
    from django.utils import timezone

    from subscriptions.models import ApiKey, AuditEntry, Invitation, Membership

    def more(path: str, count: int) -> None:
        for number in range(count):
            name = f"{count}-{number}"
            if path == "subscriptions/":
                subscribe(tenant, "shop.order.*", "shop.customer.updated", name=name)
            elif path == "keys/":
                ApiKey.objects.create(tenant=tenant, name=name, digest=name)
            elif path == "members/":
                user = User.objects.create(username=name, email=f"{name}@acme.example")
                Membership.objects.create(tenant=tenant, user=user)
            elif path == "invitations/":
                where = {"email": f"{name}@acme.example", "digest": name, "expires_at": timezone.now()}
                Invitation.objects.create(tenant=tenant, **where)
            elif path == "audit/":
                AuditEntry.objects.create(tenant_id=tenant.pk, action="test.sent", actor=name)

    return more

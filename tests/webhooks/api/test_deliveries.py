"""Deliveries and attempts by the API: listed, read, replayed, cancelled."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from subscriptions.models import AuditEntry
from tests.webhooks.traffic import make_attempt, make_delivery
from webhooks import cursors
from webhooks.models import Delivery

if TYPE_CHECKING:
    from collections.abc import Callable

    from subscriptions.models import Subscription, Tenant
    from tests.programs import Api

    Subscribe = Callable[..., Subscription]

pytestmark = pytest.mark.django_db


@pytest.fixture
def acme(tenant: Tenant, subscribe: Subscribe) -> Subscription:
    return subscribe(tenant, "shop.*")


def ids(answer: Any) -> list[int]:
    return [each["id"] for each in answer.json()["data"]]


def later(delivery: Delivery, **by: float) -> str:
    return (delivery.created_at + timedelta(**by)).isoformat()


def test_a_delivery_is_shown_as_it_is(api: Api, acme: Subscription) -> None:
    row = make_delivery(acme, "retrying", attempt_count=2)
    found = api.get(f"deliveries/{row.pk}/").json()
    assert found == {
        "id": row.pk,
        "event": row.event.webhook_id,
        "topic": "shop.order.updated",
        "subscription": acme.pk,
        "status": "retrying",
        "created_at": found["created_at"],
        "next_attempt_at": found["next_attempt_at"],
        "ended_at": None,
        "attempt_count": 2,
        "in_flight": False,
        "trigger": "schedule",
        "triggered_by": "",
        "replay": None,
    }
    assert found["next_attempt_at"].endswith("Z")
    assert api.get("deliveries/").json()["data"] == [found]


def test_the_list_is_filtered_as_its_page_is(
    api: Api, tenant: Tenant, acme: Subscription, subscribe: Subscribe
) -> None:
    other = subscribe(tenant, "shop.*")
    failed, sent = make_delivery(acme, "failed"), make_delivery(acme, "delivered", topic="shop.customer.created")
    elsewhere = make_delivery(other, "failed")
    for query, expected in {
        "status=failed": [elsewhere, failed],
        "topic=shop.customer.*": [sent],
        "topic=shop.order.updated": [elsewhere, failed],
        f"subscription={acme.pk}": [sent, failed],
        f"subscription={acme.pk}&status=failed": [failed],
        f"event={sent.event.webhook_id}": [sent],
        f"subscription={10**17}": [],
        "created_after=2999-01-01T00:00:00Z": [],
        "created_before=1999-01-01T00:00:00Z": [],
    }.items():
        assert ids(api.get(f"deliveries/?{query}")) == [row.pk for row in expected], query


def test_the_list_is_limited_by_time(api: Api, acme: Subscription) -> None:
    hours = [make_delivery(acme, age=timedelta(hours=number)) for number in (3, 2, 1)]
    query = f"created_after={later(hours[1])}&created_before={later(hours[2])}".replace("+", "%2B")
    assert ids(api.get(f"deliveries/?{query}")) == [hours[1].pk]


@pytest.mark.parametrize(
    "query",
    [
        "status=lost",
        "status=",
        "topic=..",
        "subscription=x",
        "subscription=1.5",
        f"subscription={10**30}",
        "event=evt_7",
        "created_after=yesterday",
        "created_after=2026-11-21",
        "created_after=2026-11-22T00:00:00Z&created_before=2026-11-21T00:00:00Z",
        "limit=0",
        "limit=101",
        "limit=ten",
        "status=failed&status=delivered",
    ],
)
def test_a_filter_that_cannot_be_read_is_refused(api: Api, acme: Subscription, query: str) -> None:
    make_delivery(acme)
    answer = api.get(f"deliveries/?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_filter")
    assert answer.json()["errors"][0]["field"] in query


@pytest.mark.parametrize("cursor", ["", "x", "WyI8Il0", "WyI8IixudWxsXQ", "WyI8IiwidTEiXQ", "WyI8PSIsM10", "WzMsM10"])
def test_a_cursor_that_is_none_is_refused(api: Api, cursor: str) -> None:
    answer = api.get(f"deliveries/?cursor={cursor}")
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_cursor")


@pytest.mark.parametrize("query", ["", "&status=failed", "&topic=shop.order.*"])
def test_the_list_is_walked_both_ways_while_it_grows(api: Api, acme: Subscription, query: str) -> None:
    rows = [make_delivery(acme).pk for _ in range(10)]
    pages = [api.get(f"deliveries/?limit=3{query}").json()]
    make_delivery(acme)
    while pages[-1]["next"]:
        pages.append(api.get(pages[-1]["next"]).json())
    assert [each["id"] for page in pages for each in page["data"]] == rows[::-1]
    back = [pages[-1]]
    while back[-1]["previous"]:
        back.append(api.get(back[-1]["previous"]).json())
    walked = [each["id"] for page in reversed(back) for each in page["data"]]
    # To the one that is new, and none twice.
    assert walked[1:] == rows[::-1]
    assert walked[0] > rows[-1]


def test_what_is_looked_through_has_an_end_and_goes_on_behind_it(
    api: Api, acme: Subscription, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = make_delivery(acme, topic="shop.customer.created").pk
    for _ in range(12):
        make_delivery(acme)
    monkeypatch.setattr(cursors, "MOST_LOOKED_AT", 5)
    found: list[int] = []
    page = api.get("deliveries/?topic=shop.customer.created").json()
    assert page["data"] == []
    while page["next"]:
        page = api.get(page["next"]).json()
        found += [each["id"] for each in page["data"]]
    assert found == [wanted]


# --- deeds ---


def test_a_replay_is_sent_now_and_noted(api: Api, acme: Subscription) -> None:
    row = make_delivery(acme, "failed")
    answer = api.post(f"deliveries/{row.pk}/replay/")
    assert answer.status_code == 202
    assert (answer.json()["status"], answer.json()["trigger"]) == ("pending", "manual")
    assert answer.json()["triggered_by"] == str(api.key)
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.actor, entry.number) == ("delivery.replayed", str(api.key), str(row.pk))


def test_what_is_off_is_not_replayed(api: Api, acme: Subscription) -> None:
    row = make_delivery(acme, "failed")
    acme.disable(reason="Enough.")
    answer = api.post(f"deliveries/{row.pk}/replay/")
    assert (answer.status_code, answer.json()["code"]) == (409, "refused")
    assert not AuditEntry.objects.exists()


def test_what_is_open_is_cancelled_once(api: Api, acme: Subscription) -> None:
    row = make_delivery(acme, "pending")
    assert api.post(f"deliveries/{row.pk}/cancel/", {}).json()["status"] == "cancelled"
    assert AuditEntry.objects.get().action == "delivery.cancelled"
    assert api.post(f"deliveries/{row.pk}/cancel/").status_code == 409
    assert AuditEntry.objects.count() == 1


@pytest.mark.parametrize("deed", ["replay", "cancel"])
def test_a_deed_takes_the_scope_write_and_no_body(
    tenant: Tenant, make_api: Callable[..., Api], acme: Subscription, deed: str
) -> None:
    row = make_delivery(acme, "pending")
    weak = make_api(tenant, scopes=["read", "publish"])
    assert weak.post(f"deliveries/{row.pk}/{deed}/").json()["code"] == "missing_scope"
    strong = make_api(tenant, name="Other")
    assert strong.post(f"deliveries/{row.pk}/{deed}/", {"now": True}).json()["code"] == "unknown_field"
    row.refresh_from_db()
    assert row.triggered_by == ""
    assert row.status == "pending"


def test_a_key_for_tests_replays_nothing(tenant: Tenant, make_api: Callable[..., Api], acme: Subscription) -> None:
    row = make_delivery(acme, "failed")
    answer = make_api(tenant, mode="test").post(f"deliveries/{row.pk}/replay/")
    assert (answer.status_code, answer.json()["status"]) == (202, "pending")
    row.refresh_from_db()
    assert row.status == "failed"
    assert not AuditEntry.objects.exists()


# --- attempts ---


def test_attempts_are_listed_newest_first_without_what_was_sent(api: Api, acme: Subscription) -> None:
    row = make_delivery(acme, "failed")
    for _ in range(3):
        make_attempt(row, "status")
    first = api.get(f"deliveries/{row.pk}/attempts/?limit=2").json()
    assert [each["number"] for each in first["data"]] == [3, 2]
    assert [each["number"] for each in api.get(first["next"]).json()["data"]] == [1]
    assert "request" not in first["data"][0]
    assert first["data"][0]["said"] == "500 Internal Server Error"


def test_an_attempt_is_shown_with_what_was_sent_and_what_came_back(api: Api, acme: Subscription) -> None:
    row = make_delivery(acme, "failed")
    attempt = make_attempt(
        row, "status", response_headers=b"x-odd: \xff\r\n", response_body=b"\xff\x00no", response_cut=True
    )
    found = api.get(f"attempts/{attempt.pk}/").json()
    assert (found["delivery"], found["status"], found["reason"]) == (row.pk, "failed", "status")
    assert base64.b64decode(found["request"]["body_base64"]) == bytes(row.event.body)
    assert found["request"]["body"] == bytes(row.event.body).decode()
    assert found["request"]["headers"] == "content-type: application/json"
    assert base64.b64decode(found["response"]["headers_base64"]) == b"x-odd: \xff\r\n"
    assert base64.b64decode(found["response"]["body_base64"]) == b"\xff\x00no"
    assert found["response"]["cut"] is True
    assert found["advice"]


def test_what_nothing_came_back_of_says_so(api: Api, acme: Subscription) -> None:
    row = make_delivery(acme, "retrying")
    running = make_attempt(row, ended_at=None, request_headers=b"", response_status=None, duration_ms=None)
    found = api.get(f"attempts/{running.pk}/").json()
    assert (found["status"], found["response"], found["request"]["body"]) == ("under_way", None, "")
    assert found["ended_at"] is None


@pytest.mark.parametrize("path", ["deliveries/{}/", "deliveries/{}/attempts/", "attempts/{}/"])
@pytest.mark.parametrize("number", [0, 7, 10**18, 10**40])
def test_a_number_of_nothing_is_not_found(api: Api, path: str, number: int) -> None:
    answer = api.get(path.format(number))
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("of", ["deliveries", "attempts"])
def test_a_longer_list_takes_no_more_queries(api: Api, acme: Subscription, of: str) -> None:
    first = make_delivery(acme)
    path = "deliveries/" if of == "deliveries" else f"deliveries/{first.pk}/attempts/"
    counts = []
    api.get(path)
    for number in (1, 49):
        for _ in range(number):
            make_attempt(first if of == "attempts" else make_delivery(acme))
        with CaptureQueriesContext(connection) as queries:
            assert api.get(path).status_code == 200
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_times_are_told_in_utc_with_milliseconds(api: Api, acme: Subscription) -> None:
    row = make_delivery(acme, "retrying", next_attempt_at=timezone.now().replace(microsecond=5))
    assert api.get(f"deliveries/{row.pk}/").json()["next_attempt_at"].endswith(".000Z")

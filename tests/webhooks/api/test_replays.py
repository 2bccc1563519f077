"""Bulk replays by the API: counted, started, watched, cancelled; stats, test events, the inbox."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from subscriptions.models import AuditEntry
from tests.traffic import make_event
from tests.webhooks.traffic import make_delivery
from webhooks import replays
from webhooks.models import Delivery, InboxRequest, Replay, Rollup

if TYPE_CHECKING:
    from collections.abc import Callable

    from subscriptions.models import Subscription, Tenant
    from tests.programs import Api

    Subscribe = Callable[..., Subscription]

pytestmark = pytest.mark.django_db


@pytest.fixture
def acme(tenant: Tenant, subscribe: Subscribe) -> Subscription:
    return subscribe(tenant, "shop.*")


def yesterday() -> str:
    return (timezone.now() - timedelta(days=1)).isoformat()


def test_a_replay_is_counted_started_and_watched(api: Api, acme: Subscription) -> None:
    for _ in range(3):
        make_delivery(acme, "failed")
    asked = {"kind": "failed", "subscription": acme.pk, "since": yesterday()}
    assert api.post("replays/count/", asked).json() == {"number": 3, "exact": True}
    assert not Replay.objects.exists()
    answer = api.post("replays/", asked)
    assert answer.status_code == 202
    started = answer.json()
    assert (started["state"], started["expected"], started["progress"]["total"]) == ("queueing", 3, 3)
    assert started["by"] == str(api.key)
    assert AuditEntry.objects.get().action == "replay.started"
    assert replays.advance()
    watched = api.get(f"replays/{started['id']}/").json()
    assert (watched["state"], watched["queued"], watched["progress"]["open"]) == ("sending", 3, 3)
    Delivery.objects.update(status="delivered")
    assert api.get(f"replays/{started['id']}/").json()["state"] == "done"
    assert api.get("replays/").json()["data"] == [
        {name: value for name, value in api.get(f"replays/{started['id']}/").json().items() if name != "progress"}
    ]


def test_a_replay_is_cancelled(api: Api, acme: Subscription) -> None:
    make_delivery(acme, "failed")
    started = api.post("replays/", {"kind": "failed"}).json()
    for _ in range(2):
        answer = api.post(f"replays/{started['id']}/cancel/")
        assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
    assert AuditEntry.objects.filter(action="replay.cancelled").count() == 1
    assert Delivery.objects.get().status == "failed"


def test_what_the_filters_match_is_replayed(api: Api, acme: Subscription) -> None:
    old = make_delivery(acme, "delivered", topic="shop.customer.created", age=timedelta(days=2))
    make_delivery(acme, "delivered")
    filters = {
        "topic": "shop.customer.*",
        "subscription": acme.pk,
        "status": "delivered",
        "created_after": (timezone.now() - timedelta(days=3)).isoformat(),
        "created_before": yesterday(),
    }
    asked = {"kind": "filtered", "filters": filters}
    assert api.post("replays/count/", asked).json()["number"] == 1
    started = api.post("replays/", asked).json()
    assert {**filters, **started["filters"]}.keys() == filters.keys()
    assert (started["filters"]["topic"], started["filters"]["subscription"]) == ("shop.customer.*", acme.pk)
    replays.advance()
    assert Delivery.objects.get(replay=started["id"]).pk == old.pk


def test_what_was_missed_is_sent(api: Api, tenant: Tenant, acme: Subscription) -> None:
    event = make_event(tenant, fanned_out_at=timezone.now())
    answer = api.post("replays/", {"kind": "missed", "subscription": acme.pk, "since": yesterday()})
    assert answer.status_code == 202
    replays.advance()
    assert Delivery.objects.get().event == event


def test_asked_for_twice_under_one_key_it_is_one_replay(
    api: Api, make_api: Any, tenant: Tenant, acme: Subscription
) -> None:
    make_delivery(acme, "failed")
    key = {"Idempotency-Key": "again"}
    started = [api.post("replays/", {"kind": "failed"}, headers=key).json()["id"] for _ in range(2)]
    assert started[0] == started[1]
    other = make_api(tenant, name="Other").post("replays/", {"kind": "failed"}, headers=key)
    assert other.json()["id"] != started[0]


@pytest.mark.parametrize(
    "other",
    [
        {"kind": "failed", "since": "2026-11-01T00:00:00Z"},
        {"kind": "filtered", "filters": {"status": "failed"}},
        {"kind": "failed", "subscription": True},
    ],
)
def test_one_key_is_not_for_another_replay(api: Api, acme: Subscription, other: dict[str, Any]) -> None:
    make_delivery(acme, "failed")
    if "subscription" in other:
        other = {**other, "subscription": acme.pk}
    key = {"Idempotency-Key": "again"}
    assert api.post("replays/", {"kind": "failed"}, headers=key).status_code == 202
    answer = api.post("replays/", other, headers=key)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_mismatch")
    again = api.post("replays/", {"kind": "failed"}, headers=key)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert Replay.objects.count() == 1


@pytest.mark.parametrize(
    "asked",
    [
        {"kind": "failed", "since": "2026-11-01T00:00:00.123456Z"},
        {"kind": "filtered", "filters": {"topic": "shop.*", "created_after": "2026-01-01T00:00:00+01:00"}},
    ],
)
def test_the_same_is_the_same_as_it_is_kept(api: Api, acme: Subscription, asked: dict[str, Any]) -> None:
    make_delivery(acme, "failed")
    for _time in range(2):
        answer = api.post("replays/", asked, headers={"Idempotency-Key": "again"})
        assert answer.status_code == 202, answer.content


def test_what_is_off_is_turned_on_only_where_that_is_asked_for(api: Api, acme: Subscription) -> None:
    make_delivery(acme, "failed")
    acme.disable(reason="Enough.", by="member")
    asked = {"kind": "failed", "subscription": acme.pk}
    assert api.post("replays/", asked).json()["code"] == "refused"
    assert api.post("replays/", {**asked, "enable": True}).status_code == 202
    acme.refresh_from_db()
    assert acme.enabled


@pytest.mark.parametrize(
    ("asked", "code", "field"),
    [
        ({}, "invalid", "/kind"),
        ({"kind": "all"}, "invalid", "/kind"),
        ({"kind": ["failed"]}, "invalid", "/kind"),
        ({"kind": "failed", "since": "soon"}, "invalid", "/since"),
        ({"kind": "failed", "subscription": "3"}, "invalid", "/subscription"),
        ({"kind": "failed", "subscription": 10**18 * 100}, "bad_number", None),
        ({"kind": "failed", "enable": "yes"}, "invalid", "/enable"),
        ({"kind": "failed", "filters": {"status": "failed"}}, "invalid", "/filters"),
        ({"kind": "filtered", "since": "2026-11-21T09:30:00Z"}, "invalid", "/since"),
        ({"kind": "filtered", "filters": {"status": "lost"}}, "invalid", "/filters/status"),
        ({"kind": "filtered", "filters": {"topic": ".."}}, "invalid", "/filters/topic"),
        ({"kind": "filtered", "filters": {"event": "evt_7"}}, "invalid", "/filters/event"),
        ({"kind": "filtered", "filters": {"colour": "red"}}, "unknown_field", "/filters/colour"),
        (
            {
                "kind": "filtered",
                "filters": {"created_after": "2026-11-22T00:00:00Z", "created_before": "2026-11-21T00:00:00Z"},
            },
            "invalid",
            "/filters/created_before",
        ),
        ({"kind": "missed"}, "refused", None),
        ({"kind": "failed", "subscription": 999_999}, "not_found", None),
        ({"kind": "filtered", "filters": {"subscription": 999_999}}, "not_found", None),
        ({"kind": "failed"}, "refused", None),
    ],
)
def test_what_makes_no_sense_is_refused(
    api: Api, acme: Subscription, asked: dict[str, Any], code: str, field: str | None
) -> None:
    answer = api.post("replays/", asked)
    assert answer.json()["code"] == code
    assert [each["field"] for each in answer.json()["errors"]] == ([] if field is None else [field])
    assert not Replay.objects.exists()


def test_to_count_takes_the_scope_read_and_to_start_the_scope_write(
    tenant: Tenant, make_api: Callable[..., Api], acme: Subscription
) -> None:
    make_delivery(acme, "failed")
    reader = make_api(tenant, scopes=["read"])
    assert reader.post("replays/count/", {"kind": "failed"}).status_code == 200
    assert reader.post("replays/", {"kind": "failed"}).json()["code"] == "missing_scope"


def test_a_longer_list_takes_no_more_queries(api: Api, acme: Subscription) -> None:
    counts = []
    api.get("replays/")
    for number in (1, 49):
        for _ in range(number):
            make_delivery(acme, "failed")
            api.post("replays/", {"kind": "failed", "subscription": acme.pk})
        with CaptureQueriesContext(connection) as queries:
            assert len(api.get("replays/").json()["data"]) >= number
        counts.append(len(queries))
    assert counts[0] == counts[1]


# --- stats ---


def test_numbers_are_given_hour_by_hour_and_day_by_day(
    api: Api, tenant: Tenant, acme: Subscription, subscribe: Subscribe
) -> None:
    hour = timezone.now().replace(minute=0, second=0, microsecond=0)
    for each in (acme, subscribe(tenant, "*")):
        Rollup.objects.create(
            subscription=each, span="hour", starts_at=hour, attempts=4, delivered=2, at_first=1, failed=1, took_3=4
        )
    one, both = api.get(f"subscriptions/{acme.pk}/stats/").json(), api.get("stats/").json()
    assert one["span"] == "hour"
    assert len(one["intervals"]) >= 24
    assert {name: one["total"][name] for name in ("attempts", "delivered", "at_first", "failed", "retried")} == {
        "attempts": 4,
        "delivered": 2,
        "at_first": 1,
        "failed": 1,
        "retried": 1,
    }
    assert both["total"]["attempts"] == 8
    last = next(each for each in one["intervals"] if each["attempts"])
    assert last["starts_at"] == hour.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert 50 < last["p50_ms"] <= 100
    days = api.get("stats/?period=30d").json()
    assert (days["span"], len(days["intervals"]), days["total"]["attempts"]) == ("day", 30, 8)
    assert api.get("stats/?period=1y").json()["code"] == "bad_filter"


# --- test events ---


def test_a_test_event_is_sent_and_noted(api: Api, acme: Subscription) -> None:
    answer = api.post(f"subscriptions/{acme.pk}/test/")
    assert answer.status_code == 202
    delivery = Delivery.objects.get()
    assert (answer.json()["id"], answer.json()["topic"]) == (delivery.pk, "signalpost.test")
    assert AuditEntry.objects.get().action == "test.sent"
    acme.disable(reason="Enough.")
    assert api.post(f"subscriptions/{acme.pk}/test/").json()["code"] == "refused"


# --- the inbox ---


def test_the_inbox_is_listed_with_what_was_found_of_each_request(api: Api, acme: Subscription) -> None:
    for refusal in ("", "The webhook-timestamp header is missing."):
        InboxRequest.objects.create(
            tenant=acme.tenant,
            subscription=acme,
            received_at=timezone.now(),
            webhook_id="evt_7",
            headers=b"content-type: application/json\r\n",
            body=b"x" * 20_000,
            refusal=refusal,
        )
    refused, verified = api.get("inbox/").json()["data"]
    assert (refused["verified"], refused["refusal"]) == (False, "The webhook-timestamp header is missing.")
    assert (verified["verified"], verified["event"], verified["subscription"]) == (True, "evt_7", acme.pk)
    assert (len(verified["body"]), verified["body_bytes"]) == (16 * 1024, 20_000)
    assert verified["headers"] == "content-type: application/json"


def test_a_fuller_inbox_takes_no_more_queries(api: Api, acme: Subscription) -> None:
    counts = []
    api.get("inbox/")
    for number in (1, 49):
        InboxRequest.objects.bulk_create(
            InboxRequest(
                tenant=acme.tenant, subscription=acme, received_at=timezone.now(), webhook_id="e", headers=b"", body=b""
            )
            for _ in range(number)
        )
        with CaptureQueriesContext(connection) as queries:
            assert api.get("inbox/").status_code == 200
        counts.append(len(queries))
    assert counts[0] == counts[1]

"""Events published and read by the API."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db import DatabaseError, connection
from django.dispatch import Signal
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from subscriptions import catalog
from subscriptions.models import Tenant
from tests.traffic import make_event as make_plain_event
from tests.webhooks.traffic import make_event
from webhooks import coalescing, events, publishing
from webhooks.models import Delivery, Event, Receipt
from webhooks.models.receipts import LONGEST_NAME

if TYPE_CHECKING:
    from pytest_django import DjangoCaptureOnCommitCallbacks

    from subscriptions.models import Subscription
    from tests.programs import Api

pytestmark = pytest.mark.django_db

DATA = {"number": 7, "total": "42.00"}
ID = re.compile(r"evt_[0-9a-f]{32}")


def draft(**fields: Any) -> dict[str, Any]:
    return {"type": "billing.invoice.paid", "data": DATA, **fields}


def faults(answer: Any) -> dict[str, str]:
    return {each["field"]: each["code"] for each in answer.json()["errors"]}


# --- publishing one ---


def test_a_published_event_is_kept_with_the_body_that_is_sent(
    api: Api, paid: str, rings: list[bool], django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        answer = api.post("events/", draft())
    assert answer.status_code == 202
    taken = answer.json()
    event = Event.objects.get()
    assert taken["id"] == event.webhook_id
    assert ID.fullmatch(taken["id"])
    assert taken == {"id": event.webhook_id, "type": paid, "timestamp": taken["timestamp"], "duplicate": False}
    assert json.loads(bytes(event.body)) == {
        "type": paid,
        "timestamp": taken["timestamp"],
        "tenant": "acme",
        "data": DATA,
    }
    assert rings == [True]
    assert not Receipt.objects.exists()


def test_a_time_of_its_own_is_kept(api: Api, paid: str) -> None:
    answer = api.post("events/", draft(timestamp="2026-11-21T10:30:00.1239+01:00"))
    assert answer.json()["timestamp"] == "2026-11-21T09:30:00.123Z"
    assert Event.objects.get().created_at == datetime(2026, 11, 21, 9, 30, 0, 123900, tzinfo=UTC)


def test_null_is_as_good_as_nothing(api: Api, paid: str) -> None:
    assert api.post("events/", draft(id=None, timestamp=None)).status_code == 202


def test_it_takes_a_key_with_the_scope_publish(tenant: Tenant, make_api: Callable[..., Api], paid: str) -> None:
    answer = make_api(tenant, scopes=["read", "write"]).post("events/", draft())
    assert (answer.status_code, answer.json()["code"]) == (403, "missing_scope")
    assert make_api(tenant, scopes=["publish"], name="Other").post("events/", draft()).status_code == 202


def test_a_key_for_tests_is_answered_alike_and_nothing_is_kept(
    tenant: Tenant,
    make_api: Callable[..., Api],
    paid: str,
    rings: list[bool],
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    program = make_api(tenant, mode="test")
    with django_capture_on_commit_callbacks(execute=True):
        for _ in range(2):
            answer = program.post("events/", draft(id="seven"), headers={"Idempotency-Key": "k"})
            assert (answer.status_code, answer.json()["duplicate"]) == (202, False)
    assert not Event.objects.exists()
    assert not Receipt.objects.exists()
    assert rings == []


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({}, {"/type": "required", "/data": "required"}),
        ([], {"": "invalid"}),
        ({"type": 7, "data": []}, {"/type": "invalid", "/data": "invalid"}),
        ({"type": "billing.invoice.paid", "data": None}, {"/data": "invalid"}),
        (draft(timestamp="yesterday"), {"/timestamp": "invalid"}),
        (draft(timestamp="2026-11-21T09:30:00"), {"/timestamp": "invalid"}),
        (draft(timestamp=1_795_253_400), {"/timestamp": "invalid"}),
        (draft(id=""), {"/id": "invalid"}),
        (draft(id="é"), {"/id": "invalid"}),
        (draft(id=7), {"/id": "invalid"}),
        (draft(id="x" * (LONGEST_NAME + 1)), {"/id": "invalid"}),
        (draft(tenant=3), {"/tenant": "invalid"}),
    ],
)
def test_what_is_wrong_is_told_by_its_place(api: Api, paid: str, body: Any, wrong: dict[str, str]) -> None:
    answer = api.post("events/", body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
    assert faults(answer) == wrong
    assert not Event.objects.exists()


def test_a_field_that_is_none_is_refused(api: Api, paid: str) -> None:
    answer = api.post("events/", draft(date="today"))
    assert (answer.status_code, answer.json()["code"]) == (400, "unknown_field")
    assert faults(answer) == {"/date": "unknown_field"}


def test_what_happens_next_week_has_not_happened(api: Api, paid: str) -> None:
    answer = api.post("events/", draft(timestamp=(timezone.now() + timedelta(days=7)).isoformat()))
    assert (answer.status_code, faults(answer)) == (400, {"/timestamp": "invalid"})


@pytest.mark.parametrize(
    ("topic", "code"),
    [
        ("shop.order.created", "topic_reserved"),
        ("billing.signal.sent", "topic_reserved"),
        ("signalpost.subscription.disabled", "topic_reserved"),
        ("signalpost.test", "topic_reserved"),
        ("signalpost.anything", "topic_reserved"),
        ("billing.invoice.payed", "unknown_topic"),
        ("x", "unknown_topic"),
        ("*", "unknown_topic"),
        ("\u2603" * 1000, "unknown_topic"),
    ],
)
def test_only_a_declared_topic_is_published(
    api: Api, paid: str, topic: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal = catalog.CustomSignal(Signal(), "billing.signal.sent", lambda: None, dict)
    monkeypatch.setattr(catalog, "_signals", [signal])
    answer = api.post("events/", draft(type=topic))
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert faults(answer) == {"/type": code}
    assert len(answer.json()["detail"]) < 500
    assert not Event.objects.exists()


def test_a_topic_that_was_meant_is_named(api: Api, paid: str) -> None:
    assert "billing.invoice.paid" in api.post("events/", draft(type="billing.invoice.payed")).json()["detail"]


def test_data_that_does_not_fit_the_schema_is_told_by_its_path(api: Api, paid: str) -> None:
    data = {"number": 0, "total": 42, "lines": [{"sku": "A"}, {}], "extra": 1}
    answer = api.post("events/", draft(data=data))
    assert (answer.status_code, answer.json()["code"]) == (400, "schema_mismatch")
    assert faults(answer) == dict.fromkeys(
        ["/data/number", "/data/total", "/data/lines/1/sku", "/data/extra"], "schema_mismatch"
    )
    assert not Event.objects.exists()


def test_data_without_a_schema_is_any_object(api: Api, declare: Callable[..., None]) -> None:
    declare("billing.note", schema=None)
    assert api.post("events/", draft(type="billing.note", data={"any": ["thing", None]})).status_code == 202


def test_a_body_over_the_limit_is_refused_and_not_kept(api: Api, paid: str, settings: Any) -> None:
    settings.SIGNALPOST_BODY_LIMIT = 500
    answer = api.post("events/", draft(data={**DATA, "note": "x" * 500}))
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert not Event.objects.exists()


def test_an_event_that_could_not_be_written_is_not_accepted(
    api: Api, paid: str, monkeypatch: pytest.MonkeyPatch, rings: list[bool]
) -> None:
    def refuse(*_: Any, **__: Any) -> int:
        raise DatabaseError("disk full")

    monkeypatch.setattr(coalescing, "insert", refuse)
    api.raise_request_exception = False
    assert api.post("events/", draft()).status_code == 500
    assert rings == []


# --- whose it is ---


def test_a_tenants_key_publishes_to_its_own_tenant_only(api: Api, charlies: Api, paid: str) -> None:
    assert api.post("events/", draft(tenant="acme")).status_code == 202
    assert Event.objects.get().tenant == Tenant.objects.get(slug="acme")
    for other in ("globex", "nobody", None):
        assert api.post("events/", draft(tenant=other)).status_code == 404
    assert api.post("events/?tenant=globex", draft()).status_code == 404
    assert Event.objects.count() == 1


def test_an_operators_key_names_the_tenant_or_all_of_them(operator: Api, tenant: Tenant, paid: str) -> None:
    assert operator.post("events/", draft()).json()["code"] == "tenant_required"
    assert operator.post("events/", draft(tenant="nobody")).status_code == 404
    assert not Event.objects.exists()
    for asked, whose in [(draft(tenant="acme"), tenant), (draft(tenant=None), None)]:
        answer = operator.post("events/", asked)
        event = Event.objects.get(pk=answer.json()["id"].removeprefix("evt_"))
        assert event.tenant == whose
        assert json.loads(bytes(event.body))["tenant"] == (whose and whose.slug)
    assert operator.post("events/?tenant=acme", draft()).status_code == 202


# --- published once ---


@pytest.mark.parametrize("again", [{"headers": {"Idempotency-Key": "seven"}}, {"id": "seven"}])
def test_sent_again_it_gets_the_first_answer_and_publishes_nothing(
    api: Api,
    paid: str,
    again: dict[str, Any],
    rings: list[bool],
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    body, headers = draft(**{k: v for k, v in again.items() if k == "id"}), again.get("headers", {})
    with django_capture_on_commit_callbacks(execute=True):
        first = api.post("events/", body, headers=headers)
        second = api.post("events/", body, headers=headers)
    assert second.status_code == first.status_code == 202
    assert second.json() == {**first.json(), "duplicate": True}
    assert second.get("Idempotency-Replayed") == ("true" if headers else None)
    assert Event.objects.count() == 1
    assert rings == [True]


def test_the_order_of_fields_makes_no_other_request(api: Api, paid: str) -> None:
    key = {"Idempotency-Key": "seven"}
    first = api.post("events/", draft(), headers=key)
    turned = {"data": dict(reversed(DATA.items())), "type": paid}
    assert api.post("events/", turned, headers=key).json()["id"] == first.json()["id"]


@pytest.mark.parametrize("other", [draft(data={**DATA, "number": 8}), draft(id="x")])
def test_a_key_of_another_request_is_refused(api: Api, paid: str, other: Any) -> None:
    key = {"Idempotency-Key": "seven"}
    api.post("events/", draft(), headers=key)
    answer = api.post("events/", other, headers=key)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_mismatch")
    assert api.post("events/batch/", {"events": [draft()]}, headers=key).status_code == 422
    assert Event.objects.count() == 1


def test_an_id_stands_for_the_first_event_whatever_comes_with_it(api: Api, paid: str) -> None:
    first = api.post("events/", draft(id="seven"))
    second = api.post("events/", draft(id="seven", data={**DATA, "number": 8}))
    assert second.json() == {**first.json(), "duplicate": True}


def test_an_id_that_is_known_answers_under_a_new_key_too(api: Api, paid: str) -> None:
    first = api.post("events/", draft(id="seven")).json()
    for _ in range(2):
        answer = api.post("events/", draft(id="seven"), headers={"Idempotency-Key": "new"})
        assert answer.json() == {**first, "duplicate": True}


def test_what_was_refused_may_be_sent_again_under_the_same_key(api: Api, paid: str) -> None:
    key = {"Idempotency-Key": "seven"}
    assert api.post("events/", draft(data={}), headers=key).status_code == 400
    assert api.post("events/", draft(), headers=key).json()["duplicate"] is False


@pytest.mark.parametrize("key", ["", "é", "x" * (LONGEST_NAME + 1), "a\tb"])
def test_a_key_that_is_none_is_refused(api: Api, paid: str, key: str) -> None:
    answer = api.post("events/", draft(), HTTP_IDEMPOTENCY_KEY=key)
    assert (answer.status_code, faults(answer)) == (400, {"Idempotency-Key": "invalid"})


def test_the_longest_names_are_kept(api: Api, paid: str) -> None:
    name = "x" * LONGEST_NAME
    answer = api.post("events/", draft(id=name), headers={"Idempotency-Key": name})
    assert answer.status_code == 202
    assert Receipt.objects.count() == 2


def test_two_tenants_and_the_operator_use_the_same_names(
    api: Api, charlies: Api, operator: Api, tenant: Tenant, paid: str
) -> None:
    key = {"Idempotency-Key": "seven"}
    asked = [
        (api, draft(id="7")),
        (charlies, draft(id="7")),
        (operator, draft(id="7", tenant="acme")),
    ]
    answers = [program.post("events/", body, headers=key).json() for program, body in asked]
    # The operator's key is one, its ids are each tenant's.
    answers += [operator.post("events/", draft(id="7", tenant=name)).json() for name in ("globex", None)]
    assert [answer["duplicate"] for answer in answers] == [False] * 5
    assert len({answer["id"] for answer in answers}) == 5
    assert operator.post("events/", draft(id="7", tenant=None)).json() == {**answers[-1], "duplicate": True}


# --- publishing many ---


def test_a_batch_of_a_thousand_is_written_in_few_statements(api: Api, paid: str) -> None:
    numbers = []
    answer = api.get("events/")  # Now the key has been used in this minute.
    for size in (2, publishing.MOST):
        batch = {"events": [draft(data={**DATA, "number": 1 + n}, id=f"{size}-{n}") for n in range(size)]}
        with CaptureQueriesContext(connection) as queries:
            answer = api.post("events/batch/", batch, headers={"Idempotency-Key": f"batch {size}"})
        assert answer.status_code == 202
        # SQLite's driver is asked a row at a time, in one call.
        numbers.append(len({query["sql"][:40] for query in queries}))
    assert numbers[0] == numbers[1]
    data = answer.json()["data"]
    assert len({each["id"] for each in data}) == publishing.MOST
    sent = [json.loads(bytes(Event.objects.get(pk=data[n]["id"][4:]).body))["data"]["number"] for n in (0, 500, 999)]
    assert sent == [1, 501, 1000]


def test_events_of_a_batch_sort_as_they_stood_in_it(api: Api, paid: str) -> None:
    data = api.post("events/batch/", {"events": [draft() for _ in range(300)]}).json()["data"]
    names = [each["id"] for each in data]
    assert names == sorted(names)


def test_a_batch_is_written_as_a_whole_or_not_at_all(api: Api, paid: str, rings: list[bool]) -> None:
    items = [draft(id=str(n)) for n in range(20)]
    items[3] = draft(data={**DATA, "total": "many"})
    items[17] = draft(type="billing.invoice.payed")
    answer = api.post("events/batch/", {"events": items})
    assert answer.status_code == 400
    assert faults(answer) == {"/events/3/data/total": "schema_mismatch", "/events/17/type": "unknown_topic"}
    assert not Event.objects.exists()
    assert not Receipt.objects.exists()
    assert rings == []


@pytest.mark.django_db(transaction=True)
def test_a_batch_that_breaks_halfway_leaves_nothing(api: Api, paid: str, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared, rows = coalescing.prepared, []

    def twice(values: Any, *, using: str) -> Any:
        rows.append(prepared(values, using=using))
        # The last has the first one's key.
        return rows[-1] if len(rows) < 50 else rows[0]

    monkeypatch.setattr(coalescing, "prepared", twice)
    api.raise_request_exception = False
    assert api.post("events/batch/", {"events": [draft()] * 50}).status_code == 500
    assert not Event.objects.exists()


def test_at_most_twenty_mistakes_of_a_batch_are_told(api: Api, paid: str) -> None:
    answer = api.post("events/batch/", {"events": [draft(data={})] * 100})
    assert len(answer.json()["errors"]) == 20
    answer = api.post("events/batch/", {"events": [{}] * 100})
    assert len(answer.json()["errors"]) == 20


@pytest.mark.parametrize("events", [[], None, {}, "x", [draft()] * (publishing.MOST + 1)])
def test_a_batch_has_one_to_a_thousand_events(api: Api, paid: str, events: Any) -> None:
    answer = api.post("events/batch/", {"events": events})
    assert (answer.status_code, faults(answer)) == (400, {"/events": "invalid"})


def test_a_batch_says_of_each_event_whether_it_was_there(api: Api, paid: str) -> None:
    first = api.post("events/", draft(id="1")).json()
    batch = {"events": [draft(id="1"), draft(id="2"), draft(), draft(id="2")]}
    answer = api.post("events/batch/", batch, headers={"Idempotency-Key": "b"})
    data = answer.json()["data"]
    assert [each["duplicate"] for each in data] == [True, False, False, True]
    assert data[0] == {**first, "duplicate": True}
    assert data[3] == {**data[1], "duplicate": True}
    assert Event.objects.count() == 3
    again = api.post("events/batch/", batch, headers={"Idempotency-Key": "b"})
    assert again["Idempotency-Replayed"] == "true"
    assert [each["id"] for each in again.json()["data"]] == [each["id"] for each in data]
    assert all(each["duplicate"] for each in again.json()["data"])
    assert Event.objects.count() == 3


def test_a_batch_may_be_larger_than_another_body(api: Api, paid: str) -> None:
    large = {"events": [draft(data={**DATA, "note": "x" * 200_000})] * 7}
    assert api.post("events/batch/", large).status_code == 202
    assert api.post("events/", large).status_code == 413


def test_an_operators_batch_is_for_several_tenants(operator: Api, api: Api, charlies: Api, paid: str) -> None:
    items = [draft(tenant="acme"), draft(tenant="globex"), draft(tenant=None)]
    assert operator.post("events/batch/", {"events": items}).status_code == 202
    slugs = [event.tenant and event.tenant.slug for event in Event.objects.order_by("pk")]
    assert slugs == ["acme", "globex", None]
    assert operator.post("events/batch/", {"events": [*items, draft(tenant="nobody")]}).status_code == 404
    assert Event.objects.count() == 3


# --- reading ---


def test_an_event_is_read_with_its_exact_body(api: Api, paid: str) -> None:
    name = api.post("events/", draft()).json()["id"]
    found = api.get(f"events/{name}/").json()
    event = Event.objects.get()
    assert found["id"] == name
    assert found["body"] == json.loads(bytes(event.body))
    assert api.get(f"events/{name.removeprefix('evt_')}/").json() == found
    assert api.get("events/").json()["data"] == [{k: v for k, v in found.items() if k != "body"}]


def test_an_event_that_is_not_sent_says_why(api: Api, tenant: Tenant) -> None:
    event = make_event(tenant, body=b"", error="The body has 300,000 bytes; the limit is 262,144.")
    found = api.get(f"events/{event.webhook_id}/").json()
    assert found["body"] is None
    assert found["error"] == event.error


@pytest.mark.parametrize("name", ["evt_7", "7", "evt_" + "g" * 32, "evt_" + "0" * 32])
def test_what_is_no_event_is_not_found(api: Api, name: str) -> None:
    assert api.get(f"events/{name}/").status_code == 404


def test_events_of_every_tenant_are_each_tenants(api: Api, charlies: Api) -> None:
    event = make_event(None)
    for program in (api, charlies):
        assert program.get("events/").json()["data"][0]["id"] == event.webhook_id
        assert program.get(f"events/{event.webhook_id}/").json()["tenant"] is None


def walk(api: Api, path: str, way: str = "next") -> list[list[str]]:
    pages = []
    at: str | None = path
    while at:
        page = api.get(at).json()
        pages.append([each["id"] for each in page["data"]])
        at = page[way]
    return pages


def test_the_list_is_walked_both_ways_and_misses_nothing(api: Api, tenant: Tenant, make_tenant: Any) -> None:
    other = make_tenant("other")
    moment = timezone.now()
    rows = []
    for number in range(25):
        make_event(other, created_at=moment)
        # Two at each time, and one of three is everybody's.
        rows.append(make_event(None if number % 3 == 0 else tenant, created_at=moment - timedelta(seconds=number // 2)))
    expected = [row.webhook_id for row in sorted(rows, key=lambda row: (row.created_at, row.pk), reverse=True)]
    pages = walk(api, "events/?limit=4")
    assert [name for page in pages for name in page] == expected
    assert [len(page) for page in pages] == [4, 4, 4, 4, 4, 4, 1]
    last = api.get("events/?limit=4").json()
    while last["next"]:
        last = api.get(last["next"]).json()
    back = walk(api, last["previous"], "previous")
    assert [name for page in reversed(back) for name in page] == expected[:24]


def test_what_is_new_moves_no_page(api: Api, tenant: Tenant) -> None:
    rows = [make_event(tenant) for _ in range(6)]
    first = api.get("events/?limit=3").json()
    new = make_event(tenant)
    assert [each["id"] for each in api.get(first["next"]).json()["data"]] == [
        row.webhook_id for row in reversed(rows[:3])
    ]
    second = api.get(first["next"]).json()
    back = api.get(second["previous"]).json()
    assert [each["id"] for each in back["data"]] == [row.webhook_id for row in reversed(rows[3:])]
    assert [each["id"] for each in api.get(back["previous"]).json()["data"]] == [new.webhook_id]


def test_the_list_is_limited_by_time(api: Api, tenant: Tenant) -> None:
    now = timezone.now()
    old, middle, _new = (make_event(tenant, created_at=now - timedelta(hours=hours)) for hours in (3, 2, 1))
    query = f"created_after={(now - timedelta(hours=3)).isoformat()}&created_before={(now - timedelta(hours=1)).isoformat()}"
    found = api.get(f"events/?{query}").json()["data"]
    assert [each["id"] for each in found] == [middle.webhook_id, old.webhook_id]


def test_a_longer_list_takes_no_more_queries(api: Api, tenant: Tenant, charlies: Api) -> None:
    counts = []
    api.get("events/")
    for number in (1, 49):
        for _ in range(number):
            make_plain_event(tenant)
            make_plain_event(None)
        with CaptureQueriesContext(connection) as queries:
            assert len(api.get("events/").json()["data"]) == min(50, 2 * number)
        counts.append(len(queries))
    assert counts[0] == counts[1]


# --- from Python ---


def test_python_publishes_only_what_fits_the_schema_too(tenant: Tenant, paid: str) -> None:
    with pytest.raises(ValueError, match="/total"):
        events.publish(paid, tenant, {"number": 7, "total": 42})
    events.publish(paid, tenant, DATA)
    assert Event.objects.count() == 1


def test_a_published_event_reaches_who_listens_to_its_topic(
    api: Api, tenant: Tenant, subscribe: Callable[..., Subscription], paid: str
) -> None:
    from webhooks import deliveries

    heard = subscribe(tenant, "billing.*")
    subscribe(tenant, "shop.*")
    api.post("events/", draft())
    deliveries.fan_out()
    assert Delivery.objects.get().subscription == heard


def test_a_thousand_topics_that_are_none_are_not_each_compared_with_all_there_are(
    api: Api, paid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[str] = []

    def counted(word: str, *_args: Any, **_kwargs: Any) -> list[str]:
        compared.append(word)
        return []

    monkeypatch.setattr(difflib, "get_close_matches", counted)
    batch = {"events": [draft(type=f"billing.{'x' * 5_000}{number}") for number in range(publishing.MOST)]}
    assert len(api.post("events/batch/", batch).json()["errors"]) == 20
    assert len(compared) <= 20
    assert max(map(len, compared)) <= 200


def test_data_that_is_too_large_is_not_looked_at(
    api: Api, paid: str, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SIGNALPOST_BODY_LIMIT = 500
    monkeypatch.setattr(catalog.Declared, "faults", lambda *_: pytest.fail("It was."))
    assert api.post("events/", draft(data={"note": "x" * 500})).json()["code"] == "too_large"

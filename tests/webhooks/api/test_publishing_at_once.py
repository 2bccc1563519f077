"""Requests of one name that come at the same time, on connections of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection, connections, transaction

from tests.programs import Api
from webhooks import publishing
from webhooks.models import Event, Receipt

if TYPE_CHECKING:
    from subscriptions.models import Tenant

# Other threads work on the database.
pytestmark = pytest.mark.django_db(transaction=True)

MANY = 6
PATIENCE = 60.0
WAITING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%INTO webhooks_receipt%'
"""


def draft(number: int = 7, **fields: Any) -> dict[str, Any]:
    return {"type": "billing.invoice.paid", "data": {"number": number, "total": "42.00"}, **fields}


def together(acts: list[Callable[[], Any]]) -> list[Any]:
    """What each gave; all of them begin at once."""
    barrier = threading.Barrier(len(acts))

    def run(act: Callable[[], Any]) -> Any:
        try:
            connection.ensure_connection()
            barrier.wait(PATIENCE)
            return act()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(acts)) as pool:
        return [future.result(PATIENCE) for future in [pool.submit(run, act) for act in acts]]


def ask(api: Api, path: str, body: Any, **headers: str) -> Callable[[], Any]:
    # A client of its own for each thread: they share no cookies.
    return lambda: Api(api.value, api.key).post(path, body, headers=headers)


@pytest.mark.parametrize("kind", ["key", "id"])
def test_one_name_at_once_is_one_event(api: Api, paid: str, kind: str) -> None:
    body = draft(id="seven") if kind == "id" else draft()
    headers = {"Idempotency-Key": "seven"} if kind == "key" else {}
    answers = together([ask(api, "events/", body, **headers) for _ in range(MANY)])
    assert [answer.status_code for answer in answers] == [202] * MANY
    event = Event.objects.get()
    assert {answer.json()["id"] for answer in answers} == {event.webhook_id}
    assert sorted(answer.json()["duplicate"] for answer in answers) == [False] + [True] * (MANY - 1)
    assert Receipt.objects.count() == 1


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has one writer at a time")
@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_a_host_may_isolate_its_transactions_more(api: Api, paid: str, isolation: str) -> None:
    def isolated() -> Any:
        with connection.cursor() as cursor:
            cursor.execute(f"SET default_transaction_isolation TO '{isolation}'")
        return ask(api, "events/batch/", {"events": [draft(id="a"), draft(id="b")]}, **{"Idempotency-Key": "k"})()

    answers = together([isolated] * MANY)
    assert [answer.status_code for answer in answers] == [202] * MANY
    assert Event.objects.count() == 2
    assert len({answer.content.replace(b"true", b"false") for answer in answers}) == 1


def test_of_two_requests_under_one_key_one_is_refused(api: Api, paid: str) -> None:
    answers = together([ask(api, "events/", draft(number), **{"Idempotency-Key": "k"}) for number in range(1, MANY)])
    assert sorted(answer.status_code for answer in answers) == [202] + [422] * (MANY - 2)
    assert Event.objects.count() == 1


def test_the_operators_names_are_one_each_too(operator: Api, tenant: Tenant, paid: str) -> None:
    body = draft(id="seven", tenant=None)
    answers = together([ask(operator, "events/", body, **{"Idempotency-Key": "k"}) for _ in range(MANY)])
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert Event.objects.count() == 1


def test_batches_that_share_ids_wait_in_no_circle_and_share_their_events(api: Api, paid: str) -> None:
    ids = [str(number) for number in range(60)]
    orders = [ids, ids[::-1], ids[30:] + ids[:30], ids[::2] + ids[1::2]]
    acts = [
        ask(api, "events/batch/", {"events": [draft(id=name) for name in order]}, **{"Idempotency-Key": str(place)})
        for place, order in enumerate(orders)
    ]
    answers = together(acts)
    assert [answer.status_code for answer in answers] == [202] * len(orders)
    assert Event.objects.count() == len(ids)
    by_id = [
        {name: each["id"] for name, each in zip(order, answer.json()["data"], strict=True)}
        for order, answer in zip(orders, answers, strict=True)
    ]
    assert all(found == by_id[0] for found in by_id)


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite lets nobody else write meanwhile")
def test_the_second_waits_for_the_first_and_takes_its_place_where_that_fails(
    api: Api, tenant: Tenant, paid: str
) -> None:
    drafts = [publishing.Draft(paid, {"number": 7, "total": "42.00"}, tenant, id="seven")]
    begun = threading.Event()
    answers: list[Any] = []

    def second() -> None:
        begun.wait(PATIENCE)
        answers.append(ask(api, "events/", draft(id="seven"))())
        connections.close_all()

    thread = threading.Thread(target=second)
    thread.start()
    with transaction.atomic():
        first = publishing.publish(drafts, by=tenant)
        begun.set()
        with closing(connections.create_connection("default")) as other, other.cursor() as cursor:
            cursor.execute(WAITING)
            while not cursor.fetchone()[0]:
                cursor.execute(WAITING)
        assert answers == []
        transaction.set_rollback(True)
    thread.join(PATIENCE)
    [answer] = answers
    assert answer.json()["duplicate"] is False
    assert answer.json()["id"] != first.events[0].id
    assert Event.objects.get().webhook_id == answer.json()["id"]

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from django.db import DatabaseError, transaction
from django.db.models import F

from tests.receiver import Reply
from tests.servers import wait_for
from tests.traffic import let_leases_end, make_deliveries, make_event
from tests.webhooks.traffic import make_delivery
from webhooks import claims, deliveries, drain, tallies, tasks
from webhooks.models import Delivery, Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_django import DjangoCaptureOnCommitCallbacks
    from pytest_django.fixtures import Settings

    from subscriptions.models import Subscription, Tenant
    from tests.receiver import Receiver

    Subscribe = Callable[..., Subscription]

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def nothing_noted(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    settings.SIGNALPOST_DATABASES = ["default"]
    tallies._noted.clear()
    monkeypatch.setattr(tallies, "_next_flush", 0.0)
    monkeypatch.setattr(tallies, "_outage", False)
    monkeypatch.setattr(drain, "_stopping", False)
    monkeypatch.setattr(drain, "_watch", None)
    monkeypatch.setattr(tasks, "ring", lambda: False)
    monkeypatch.setattr(tasks, "silence", lambda: False)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(counts: Mapping[tuple[str, str], float], *, using: str) -> None:
        raise DatabaseError("no such table")

    monkeypatch.setattr(tallies, "add", refuse)


def test_what_is_noted_is_written_by_the_next_flush() -> None:
    tallies.note("attempts", {"dns": 2, "delivered": 1})
    tallies.note("attempts", {"dns": 3})
    assert tallies.totals() == {}
    tallies.flush()
    assert tallies.totals() == {("attempts", "dns"): 5, ("attempts", "delivered"): 1}


def test_nothing_is_written_of_nothing() -> None:
    tallies.note("attempts", {"dns": 0})
    tallies.flush()
    assert not Tally.objects.exists()


def test_a_flush_soon_after_another_waits_unless_it_is_told_not_to() -> None:
    tallies.flush()
    tallies.note("attempts", {"dns": 1})
    tallies.flush()
    assert tallies.totals() == {}
    tallies.flush(at_once=True)
    assert tallies.totals() == {("attempts", "dns"): 1}


def test_processes_add_to_rows_of_their_own_and_one_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    for slot in (3, 4, 4):
        monkeypatch.setattr(tallies, "_slot", slot)
        tallies.add({("attempts", "dns"): 2}, using="default")
    assert Tally.objects.count() == 2
    assert tallies.totals() == {("attempts", "dns"): 6}


def test_what_is_added_in_a_transaction_rolls_back_with_it() -> None:
    with transaction.atomic():
        tallies.add({("events", "captured"): 2}, using="default")
        transaction.set_rollback(True)
    assert tallies.totals() == {}


def test_a_database_that_refuses_loses_no_count_and_is_told_of_once(
    refused: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tallies.note("attempts", {"dns": 2})
    with caplog.at_level(logging.WARNING, "webhooks"):
        tallies.flush(at_once=True)
        tallies.flush(at_once=True)
    assert [record.getMessage() for record in caplog.records] == ["Counts for the metrics wait: DatabaseError"]
    monkeypatch.undo()
    tallies.note("attempts", {"dns": 1})
    tallies.flush(at_once=True)
    assert tallies.totals() == {("attempts", "dns"): 3}


def test_deliveries_go_on_where_counts_cannot_be_written(
    tenant: Tenant, subscribe: Subscribe, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_deliveries(subscribe(tenant, "*", url=receiver.url), 3)

    def refuse(counts: Mapping[tuple[str, str], float], *, using: str) -> None:
        raise DatabaseError("no such table")

    monkeypatch.setattr(tallies, "add", refuse)
    assert drain.run()["delivered"] == 3


def test_how_long_ago_a_worker_looked_is_by_the_databases_clock() -> None:
    assert tallies.looked_ago() is None
    tallies.note(tallies.LOOKS, {tallies.COUNT: 1})
    tallies.flush()
    Tally.objects.update(written_at=F("written_at") - timedelta(seconds=90))
    ago = tallies.looked_ago()
    assert ago is not None
    assert 90 <= ago < 120


# What is counted


def test_a_drain_counts_what_it_did(tenant: Tenant, subscribe: Subscribe, receiver: Receiver) -> None:
    subscribe(tenant, "*", url=receiver.url)
    replies = iter([Reply(500), Reply(200), Reply(200)])
    receiver.reply = lambda received: next(replies)
    for _ in range(3):
        make_event(tenant)
    drain.run()
    totals = tallies.totals()
    seconds = totals.pop((tallies.DRAINS, tallies.SECONDS))
    assert 0 < seconds < 60
    assert totals == {
        (tallies.EVENTS, tallies.CAPTURED): 3,
        (tallies.EVENTS, tallies.FANNED_OUT): 3,
        (tallies.ATTEMPTS, tallies.DELIVERED): 2,
        (tallies.ATTEMPTS, "status"): 1,
        (tallies.DELIVERIES, "delivered"): 2,
        (tallies.DRAINS, tallies.COUNT): 1,
        (tallies.LOOKS, tallies.COUNT): 1,
    }


def test_a_410_counts_as_a_failed_delivery_and_a_subscription_that_was_turned_off(
    tenant: Tenant, subscribe: Subscribe, receiver: Receiver
) -> None:
    make_deliveries(subscribe(tenant, "*", url=receiver.url), 1)
    receiver.reply = lambda received: Reply(410)
    drain.run()
    totals = tallies.totals()
    assert totals[tallies.DELIVERIES, "failed"] == 1
    assert totals[tallies.SUBSCRIPTIONS, tallies.TURNED_OFF] == 1


@pytest.mark.django_db(transaction=True)
def test_a_lease_that_ran_out_is_counted_once_it_is_claimed_again(tenant: Tenant, subscribe: Subscribe) -> None:
    make_deliveries(subscribe(tenant, "*"), 1)
    assert claims.claim(10)
    let_leases_end()
    assert claims.claim(10)
    tallies.flush()
    totals = tallies.totals()
    assert totals[tallies.LEASES, tallies.EXPIRED] == 1
    assert totals[tallies.ATTEMPTS, "lost"] == 1


def test_what_is_cancelled_is_counted_after_the_commit(
    tenant: Tenant, subscribe: Subscribe, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    make_delivery(subscribe(tenant, "*"), "pending")
    with django_capture_on_commit_callbacks(execute=True):
        assert deliveries.cancel(Delivery.objects.all()) == 1
    assert tallies.totals() == {(tallies.DELIVERIES, "cancelled"): 1}


def test_events_that_go_with_their_tenant_were_captured_all_the_same(
    tenant: Tenant, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    make_event(tenant)
    with django_capture_on_commit_callbacks(execute=True):
        tenant.delete()
    assert tallies.totals() == {(tallies.EVENTS, tallies.CAPTURED): 1}


@pytest.mark.django_db(transaction=True)
def test_an_event_that_cannot_be_matched_was_captured_but_not_fanned_out(
    tenant: Tenant, subscribe: Subscribe, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_event(tenant)

    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("cannot be matched")

    monkeypatch.setattr(deliveries, "_insert_deliveries", broken)
    assert deliveries.fan_out() == 1
    assert tallies.totals() == {(tallies.EVENTS, tallies.CAPTURED): 1}


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_has_nothing_to_do_says_that_it_looks(tenant: Tenant, settings: Settings) -> None:
    settings.SIGNALPOST_LOOK_SECONDS = 0.05
    watch = drain.watch()
    try:
        wait_for(lambda: tallies.looked_ago() is not None)
    finally:
        drain.stop()
        watch.join(10)
    # And when it stops, all that it had not written yet.
    assert not tallies._noted
    assert tallies.totals()[tallies.LOOKS, tallies.COUNT] >= 1


# The log


@pytest.mark.django_db(transaction=True)
def test_a_delivery_that_stops_every_worker_is_counted_and_named(
    tenant: Tenant, subscribe: Subscribe, caplog: pytest.LogCaptureFixture
) -> None:
    subscription = subscribe(tenant, "*")
    (delivery,) = make_deliveries(subscription, 1)
    for _ in range(claims.LOST_LIMIT):
        assert claims.claim(1)
        let_leases_end()
    with caplog.at_level(logging.ERROR, "webhooks"):
        assert not claims.claim(1)
    tallies.flush(at_once=True)
    totals = tallies.totals()
    assert totals[tallies.LEASES, tallies.EXPIRED] == claims.LOST_LIMIT
    assert totals[tallies.DELIVERIES, "failed"] == 1
    (line,) = caplog.records
    ids = {"event": delivery.event.webhook_id, "delivery": delivery.pk, "subscription": subscription.pk}
    assert line.__dict__ | ids == line.__dict__


def test_a_delivery_that_has_failed_is_one_line_with_every_id(
    tenant: Tenant, subscribe: Subscribe, receiver: Receiver, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.SIGNALPOST_RETRY_SCHEDULE = []
    subscription = subscribe(tenant, "*", url=receiver.url)
    (delivery,) = make_deliveries(subscription, 1)
    receiver.reply = lambda received: Reply(500, body=b"what the receiver wrote")
    with caplog.at_level(logging.DEBUG, "webhooks"):
        drain.run()
    (line,) = [record for record in caplog.records if record.name == "webhooks.recording"]
    assert (
        line.__dict__
        | {
            "event": delivery.event.webhook_id,
            "delivery": delivery.pk,
            "attempt": delivery.attempts.get().pk,
            "subscription": subscription.pk,
        }
        == line.__dict__
    )
    assert "what the receiver wrote" not in caplog.text
    assert receiver.url not in caplog.text


def test_a_delivery_that_arrives_is_no_line(
    tenant: Tenant, subscribe: Subscribe, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    make_deliveries(subscribe(tenant, "*", url=receiver.url), 20)
    with caplog.at_level(logging.INFO, "webhooks"):
        drain.run()
    assert [record.name for record in caplog.records] == ["webhooks.drain"]

"""The feed: in order, and without a gap, whatever commits when."""

from __future__ import annotations

import json
import random
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.core.exceptions import ValidationError
from django.db import connection, connections, transaction
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from standardwebhooks.webhooks import Webhook

from subscriptions.addresses import FEED
from subscriptions.edits import Refused
from subscriptions.models import Subscription
from subscriptions.trail import Actor
from tests.webhooks.personas import sign_in, text
from tests.webhooks.traffic import make_delivery
from webhooks import deliveries, drain, events, feeds, horizon, replays, tallies, trials
from webhooks.models import Attempt, Bookmark, Delivery, Event, Rollup

if TYPE_CHECKING:
    from collections.abc import Callable

    from subscriptions.models import Tenant

    Subscribe = Callable[..., Subscription]

pytestmark = pytest.mark.django_db

PATIENCE = 30.0
ALICE = Actor("alice@acme.example")
ON_POSTGRESQL = pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has one writer at a time")


@pytest.fixture
def fed(tenant: Tenant, subscribe: Subscribe) -> Subscription:
    return subscribe(tenant, "*", url=FEED)


def publish(tenant: Tenant, *numbers: int, topic: str = "billing.note") -> None:
    for number in numbers:
        events.publish(topic, tenant, {"number": number})


def numbers(stretch: feeds.Stretch) -> list[int]:
    return [json.loads(item.body)["data"]["number"] for item in stretch.items]


def test_what_was_fanned_out_is_read_in_order(tenant: Tenant, fed: Subscription) -> None:
    for number in range(10):
        publish(tenant, number, topic=f"billing.note_{number % 3}")
    deliveries.fan_out()
    found = feeds.read(fed, after=None, limit=100)
    assert numbers(found) == [*range(10)]
    assert not found.more
    assert feeds.read(fed, after=found.position, limit=100).items == []


def test_it_is_read_a_part_at_a_time(tenant: Tenant, fed: Subscription) -> None:
    publish(tenant, *range(5))
    deliveries.fan_out()
    first = feeds.read(fed, after=0, limit=3)
    assert (numbers(first), first.more) == ([0, 1, 2], True)
    second = feeds.read(fed, after=first.position, limit=3)
    assert (numbers(second), second.more) == ([3, 4], False)


def test_large_bodies_come_in_smaller_parts(tenant: Tenant, fed: Subscription, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "MOST_BYTES", 10)
    publish(tenant, 0, 1)
    deliveries.fan_out()
    found = feeds.read(fed, after=0, limit=100)
    assert (numbers(found), found.more) == ([0], True)


def test_reading_again_gives_the_same_until_it_is_said_to_be_done(tenant: Tenant, fed: Subscription) -> None:
    publish(tenant, *range(3))
    deliveries.fan_out()
    assert [numbers(feeds.read(fed, after=None, limit=2)) for _ in range(2)] == [[0, 1]] * 2
    feeds.move(fed, feeds.read(fed, after=None, limit=2).position)
    assert numbers(feeds.read(fed, after=None, limit=2)) == [2]
    feeds.move(fed, 0)
    assert numbers(feeds.read(fed, after=None, limit=2)) == [0, 1]
    assert Bookmark.objects.count() == 1


@pytest.mark.parametrize("position", [-1, 10**9])
def test_only_what_was_there_can_be_done(tenant: Tenant, fed: Subscription, position: int) -> None:
    publish(tenant, 1)
    deliveries.fan_out()
    with pytest.raises(ValidationError):
        feeds.move(fed, position)
    assert feeds.bookmark(fed) == 0


def test_the_bookmark_stays_where_what_it_marks_was_pruned(tenant: Tenant, fed: Subscription) -> None:
    publish(tenant, 1)
    deliveries.fan_out()
    position = feeds.read(fed, after=0, limit=1).position
    feeds.move(fed, position)
    Delivery.objects.all().delete()
    feeds.move(fed, position)
    assert feeds.read(fed, after=None, limit=1).position == position


def test_each_item_is_what_a_request_would_have_been(tenant: Tenant, fed: Subscription) -> None:
    publish(tenant, 7)
    deliveries.fan_out()
    [item] = feeds.read(fed, after=0, limit=1).items
    found = Webhook(fed.secrets.get().value).verify(item.body, dict(item.headers))
    assert found["data"] == {"number": 7}
    assert item.headers["webhook-id"] == Event.objects.get().webhook_id


def test_without_a_secret_that_can_be_read_nothing_is_given(tenant: Tenant, fed: Subscription) -> None:
    publish(tenant, 7)
    deliveries.fan_out()
    fed.secrets.update(ciphertext=b"of another key")
    with pytest.raises(Refused, match="Rotate"):
        feeds.read(fed, after=0, limit=1)


def test_another_subscriptions_deliveries_are_not_in_it(
    tenant: Tenant, fed: Subscription, subscribe: Subscribe
) -> None:
    other = subscribe(tenant, "billing.*")
    make_delivery(other)
    assert feeds.read(fed, after=0, limit=10).items == []


def test_a_subscription_that_is_sent_to_has_a_feed_as_well(tenant: Tenant, subscribe: Subscribe) -> None:
    sent_to = subscribe(tenant, "billing.*")
    publish(tenant, 1, 2)
    deliveries.fan_out()
    assert numbers(feeds.read(sent_to, after=0, limit=10)) == [1, 2]


def test_what_is_cancelled_is_left_out(tenant: Tenant, fed: Subscription) -> None:
    publish(tenant, 1, 2, 3)
    deliveries.fan_out()
    deliveries.cancel(Delivery.objects.filter(pk=Delivery.objects.order_by("pk")[1].pk))
    assert numbers(feeds.read(fed, after=0, limit=10)) == [1, 3]


def test_a_test_event_is_in_the_feed(tenant: Tenant, fed: Subscription) -> None:
    trials.send(fed, ALICE)
    [item] = feeds.read(fed, after=0, limit=10).items
    assert json.loads(item.body)["type"] == "signalpost.test"


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_the_worker_answers_for_a_feed_without_a_network(tenant: Tenant, fed: Subscription) -> None:
    publish(tenant, 1)
    counts = drain.run()
    assert (counts["events"], counts["delivered"]) == (1, 1)
    delivery, attempt = Delivery.objects.get(), Attempt.objects.get()
    assert delivery.status == Delivery.Status.DELIVERED
    assert (attempt.url, attempt.delivered, bytes(attempt.response_body)) == (FEED, True, feeds.THERE)
    assert bytes(attempt.request_headers) == b""
    assert Rollup.objects.get().delivered == 1
    assert numbers(feeds.read(fed, after=0, limit=10)) == [1]


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_the_pages_say_that_nothing_is_sent(tenant: Tenant, fed: Subscription) -> None:
    publish(tenant, 1)
    drain.run()
    client = sign_in(tenant)
    start = f"/t/{tenant.slug}/"
    assert "asks the API for its feed" in text(client.get(f"{start}subscriptions/{fed.pk}/"))
    page = text(client.get(f"{start}deliveries/{Delivery.objects.get().pk}/"))
    assert "the feed" in page
    assert "None: the receiver asks for what is in the feed." in page
    assert "POST feed:" not in page
    assert client.get(start).status_code == client.get(f"{start}deliveries/").status_code == 200


def test_a_feed_is_edited_and_stays_one(tenant: Tenant, fed: Subscription) -> None:
    client = sign_in(tenant)
    path = f"/t/{tenant.slug}/subscriptions/{fed.pk}/edit/"
    assert re.search('value="feed"[^>]*checked', client.get(path).content.decode())
    form = {"target": "feed", "url": "", "name": "Polled", "topic": "*", "version": fed.version}
    assert client.post(path, form).status_code == 302
    fed.refresh_from_db()
    assert (fed.url, fed.name) == (FEED, "Polled")


def test_a_subscription_that_is_gone_has_no_bookmark(tenant: Tenant, fed: Subscription) -> None:
    Subscription.objects.filter(pk=fed.pk).delete()
    with pytest.raises(Refused, match="deleted"):
        feeds.move(fed, 0)


# --- what commits later than it was numbered ---


def elsewhere(act: Callable[[Any], Any]) -> Any:
    """`act` with a cursor on a connection of its own."""
    other = connections.create_connection("default")
    try:
        with other.cursor() as cursor:
            return act(cursor)
    finally:
        other.close()


@ON_POSTGRESQL
@pytest.mark.django_db(transaction=True)
def test_a_fan_out_that_commits_late_is_waited_for(
    tenant: Tenant, fed: Subscription, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tenant, 1)
    early, late = threading.Event(), threading.Event()
    count = tallies.add

    def counted(*args: Any, **kwargs: Any) -> None:
        # The last thing that it does, when its deliveries are there.
        if threading.current_thread() is thread:
            early.set()
            late.wait(PATIENCE)
        count(*args, **kwargs)

    def slow() -> None:
        deliveries.fan_out()
        connections.close_all()

    monkeypatch.setattr(tallies, "add", counted)
    thread = threading.Thread(target=slow)
    thread.start()
    assert early.wait(PATIENCE)
    # Its delivery has the lower number, and nobody sees it yet.
    publish(tenant, 2)
    deliveries.fan_out()
    second = Delivery.objects.get()
    found = feeds.read(fed, after=0, limit=10)
    assert found.items == []
    assert found.position < second.pk
    late.set()
    thread.join(PATIENCE)
    assert numbers(feeds.read(fed, after=found.position, limit=10)) == [1, 2]


def test_whatever_inserts_deliveries_says_so_before() -> None:
    inserting = re.compile(r"INTO webhooks_delivery\b|Delivery\.objects[^\n]*\.(bulk_)?create\(")
    package = Path(feeds.__file__).parent
    found = {path.name: path.read_text() for path in package.glob("*.py") if inserting.search(path.read_text())}
    assert found.keys() >= {"deliveries.py", "trials.py", "replays.py", "audit.py"}
    assert [name for name, text in found.items() if "horizon.announce(" not in text] == []


@ON_POSTGRESQL
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("how", ["fan_out", "trial", "missed"])
def test_each_says_so_in_its_transaction_before_it_takes_a_number(tenant: Tenant, fed: Subscription, how: str) -> None:
    publish(tenant, 1)
    if how == "missed":
        since = Event.objects.get().created_at
        Event.objects.update(fanned_out_at=Now())
        replays.start(replays.wish(tenant, "missed", subscription=fed, since=since), by=ALICE)
    acts: dict[str, Callable[[], object]] = {
        "fan_out": deliveries.fan_out,
        "trial": lambda: trials.send(fed, ALICE),
        "missed": replays.advance,
    }
    with CaptureQueriesContext(connection) as queries:
        acts[how]()
    said = [query["sql"] for query in queries.captured_queries]
    [announced] = [place for place, sql in enumerate(said) if "pg_advisory_xact_lock_shared" in sql]
    [inserted] = [place for place, sql in enumerate(said) if re.search('INTO "?webhooks_delivery', sql)]
    [began] = [place for place, sql in enumerate(said[:inserted]) if sql == "BEGIN"][-1:]
    assert began < announced < inserted


@ON_POSTGRESQL
@pytest.mark.django_db(transaction=True)
def test_a_fan_out_that_fails_holds_up_nothing(tenant: Tenant, fed: Subscription) -> None:
    publish(tenant, 1)
    with transaction.atomic():
        deliveries.fan_out()
        transaction.set_rollback(True)
    assert horizon.reached("default") == elsewhere(_last)
    deliveries.fan_out()
    assert numbers(feeds.read(fed, after=0, limit=10)) == [1]


def _last(cursor: Any) -> int:
    cursor.execute("SELECT last_value FROM webhooks_delivery_id_seq")
    return int(cursor.fetchone()[0])


@ON_POSTGRESQL
@pytest.mark.django_db(transaction=True)
def test_the_locks_of_others_hold_up_nothing(tenant: Tenant, fed: Subscription) -> None:
    publish(tenant, 1)
    deliveries.fan_out()

    def with_locks(cursor: Any) -> list[int]:
        cursor.execute(
            "SELECT pg_advisory_lock(1), pg_advisory_lock(1, 0), pg_advisory_lock_shared(%s)", [horizon.LOCKS]
        )
        return numbers(feeds.read(fed, after=0, limit=10))

    assert elsewhere(with_locks) == [1]


@ON_POSTGRESQL
@pytest.mark.django_db(transaction=True)
def test_numbers_beyond_what_a_lock_has_room_for_are_told_apart(tenant: Tenant, fed: Subscription) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT setval('webhooks_delivery_id_seq', %s)", [3 * horizon.ROOM - 2])
    publish(tenant, 1)
    with transaction.atomic():
        deliveries.fan_out()
        publish(tenant, 2, 3, 4)
        deliveries.fan_out()
        # Asked from elsewhere, past where the lock's number begins again.
        assert elsewhere(_reached) == 3 * horizon.ROOM - 2
    assert elsewhere(_reached) == 3 * horizon.ROOM + 2
    assert numbers(feeds.read(fed, after=0, limit=10)) == [1, 2, 3, 4]


def _reached(cursor: Any) -> int:
    cursor.execute(horizon.REACHED)
    number = cursor.fetchone()[0]
    cursor.execute(horizon.BEHIND, [number % horizon.ROOM, horizon.LOCKS])
    return int(number - (cursor.fetchone()[0] or 0))


@ON_POSTGRESQL
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("seed", range(3))
def test_who_reads_while_many_write_misses_nothing(tenant: Tenant, subscribe: Subscribe, seed: int) -> None:
    """Writers take numbers and commit in another order; the reader goes on all the while."""
    subscription = subscribe(tenant, "*", url=FEED)
    writers, each = 6, 25
    chance = random.Random(seed)  # noqa: S311 - of when, and of no secret
    pauses = [[chance.choice([0, 0, 0.001, 0.004]) for _ in range(each)] for _ in range(writers)]
    pause = threading.Event()  # never set: waiting for it is a pause that needs no sleep

    def write(waits: list[float]) -> None:
        try:
            for wait in waits:
                with transaction.atomic():
                    horizon.announce("default")
                    make_delivery(subscription, "pending", created_at=Now())
                    pause.wait(wait)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=write, args=[waits]) for waits in pauses]
    for thread in threads:
        thread.start()
    read: list[int] = []
    position = 0
    while len(read) < writers * each and (any(thread.is_alive() for thread in threads) or position < _newest()):
        found = feeds.read(subscription, after=position, limit=7)
        read += [item.position for item in found.items]
        position = found.position
    for thread in threads:
        thread.join(PATIENCE)
    written = [*Delivery.objects.order_by("pk").values_list("pk", flat=True)]
    assert len(written) == writers * each
    assert read == written


def _newest() -> int:
    return Delivery.objects.order_by("-pk").values_list("pk", flat=True).first() or 0

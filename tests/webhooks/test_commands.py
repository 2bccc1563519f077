from __future__ import annotations

import io
from datetime import timedelta
from threading import Event as Moment
from threading import Thread
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.db.models.functions import Now
from django.db.models.signals import post_delete
from django.utils import timezone

from tests.webhooks.traffic import make_attempt, make_delivery, make_event
from webhooks.management.arguments import counted, duration, moment
from webhooks.models import Attempt, Delivery, Event, Receipt, Replay

if TYPE_CHECKING:
    from collections.abc import Callable

    from subscriptions.models import Subscription, Tenant

OLD = timedelta(days=40)


@pytest.fixture
def acme(tenant: Tenant, subscribe: Callable[..., Subscription]) -> Subscription:
    return subscribe(tenant, "shop.*")


@pytest.fixture
def globex(make_tenant: Callable[..., Tenant], subscribe: Callable[..., Subscription]) -> Subscription:
    return subscribe(make_tenant("globex"), "shop.*")


def run(command: str, *arguments: Any, **options: Any) -> str:
    out = io.StringIO()
    call_command(command, *map(str, arguments), stdout=out, **options)
    return out.getvalue()


def replayed() -> set[int]:
    return set(Delivery.objects.filter(trigger="manual").values_list("pk", flat=True))


# replay


@pytest.mark.django_db
def test_replay_sends_the_failed_ones_again(acme: Subscription) -> None:
    failed = make_delivery(acme, "failed", schedule_step=9)
    for status in ("delivered", "pending", "retrying", "cancelled"):
        make_delivery(acme, status)
    assert run("replay", "--all") == "1 delivery found: 1 failed.\n1 delivery will be sent again.\n"
    failed.refresh_from_db()
    assert replayed() == {failed.pk}
    assert (failed.status, failed.schedule_step, failed.triggered_by) == ("pending", 0, "command")
    assert failed.ended_at is None


@pytest.mark.django_db
def test_replay_narrows_by_every_filter(acme: Subscription, globex: Subscription) -> None:
    wanted = make_delivery(acme, topic="shop.order.created")
    others = {
        "--delivery": make_delivery(acme, topic="shop.order.created"),
        "--event": make_delivery(acme, topic="shop.order.created"),
        "--subscription": make_delivery(globex, topic="shop.order.created"),
        "--tenant": make_delivery(globex, topic="shop.order.created"),
        "--topic": make_delivery(acme, topic="shop.tag.created"),
        "--since": make_delivery(acme, topic="shop.order.created", age=timedelta(hours=3)),
    }
    narrowed = {
        "--delivery": wanted.pk,
        "--event": wanted.event.webhook_id,
        "--subscription": acme.pk,
        "--tenant": "acme",
        "--topic": "shop.order.*",
        "--since": "2h",
    }
    for name, other in others.items():
        run("replay", name, narrowed[name], "--status", "failed", "--yes")
        assert wanted.pk in replayed(), name
        assert other.pk not in replayed(), name
        Delivery.objects.update(trigger="schedule", status="failed")


@pytest.mark.django_db
def test_replay_takes_an_event_by_its_uuid_and_by_its_webhook_id(acme: Subscription) -> None:
    first, second = make_delivery(acme), make_delivery(acme)
    run("replay", "--event", first.event_id, second.event.webhook_id)
    assert replayed() == {first.pk, second.pk}


@pytest.mark.django_db
def test_replay_takes_a_delivery_that_is_named_whatever_its_status(acme: Subscription) -> None:
    delivered, cancelled = make_delivery(acme, "delivered"), make_delivery(acme, "cancelled")
    run("replay", "--delivery", delivered.pk, cancelled.pk)
    assert replayed() == {delivered.pk, cancelled.pk}


@pytest.mark.django_db
def test_replay_takes_another_status_if_told(acme: Subscription) -> None:
    make_delivery(acme, "failed")
    cancelled = make_delivery(acme, "cancelled")
    run("replay", "--status", "cancelled")
    assert replayed() == {cancelled.pk}
    assert "2 deliveries found: 1 failed, 1 pending" in run("replay", "--tenant", "acme", "--status", "any")


@pytest.mark.django_db
def test_replay_can_be_called_from_code(acme: Subscription) -> None:
    delivery = make_delivery(acme)
    run("replay", delivery=delivery.pk)
    assert replayed() == {delivery.pk}


@pytest.mark.django_db
def test_replay_only_says_how_many_under_dry_run(acme: Subscription) -> None:
    make_delivery(acme)
    assert run("replay", "--tenant", "acme", "--dry-run") == "1 delivery found: 1 failed.\n"
    assert run("replay", "--topic", "shop.tag.*", "--dry-run") == "0 deliveries found.\n"
    assert replayed() == set()


@pytest.mark.django_db
def test_replay_leaves_alone_what_is_in_flight(acme: Subscription) -> None:
    make_delivery(acme, "pending", leased_until=timezone.now() + timedelta(minutes=1))
    free = make_delivery(acme, "pending")
    text = run("replay", "--status", "pending")
    assert "1 delivery will be sent again.\n1 delivery left alone: being sent right now.\n" in text
    assert replayed() == {free.pk}


@pytest.mark.parametrize(("answer", "sent"), [("y", True), ("YES", True), ("n", False), ("", False)])
@pytest.mark.django_db
def test_replay_asks_where_somebody_can_answer(
    acme: Subscription, monkeypatch: pytest.MonkeyPatch, answer: str, sent: bool
) -> None:
    make_delivery(acme)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    with patch("builtins.input", return_value=answer) as asked:
        if sent:
            run("replay", "--all")
        else:
            with pytest.raises(CommandError, match="Nothing was replayed"):
                run("replay", "--all")
    asked.assert_called_once_with("Send 1 delivery again? [y/N] ")
    assert bool(replayed()) is sent
    run("replay", "--all", "--yes")
    assert replayed()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "Name what to replay"),
        (["--delivery", "999"], "There is no delivery 999"),
        (["--delivery", "9" * 30], "no number of a row"),
        (["--delivery", "x"], "no number of a row"),
        (["--event", "x"], "'x' is no event's id"),
        (["--event", "evt_" + "0" * 32], "There is no event 00000000-0000"),
        (["--subscription", "999"], "There is no subscription 999"),
        (["--tenant", "nobody"], "There is no tenant 'nobody'"),
        (["--topic", "Shop Order"], "'Shop Order' is no topic"),
        (["--status", "lost"], "invalid choice: 'lost'"),
        (["--since", "soon"], "'soon' is no moment"),
        (["--since", "0h"], "no span of time"),
        (["--since", "2026-13-01"], "is no moment"),
        (["--since", "2099-01-01"], "yet to come"),
    ],
)
@pytest.mark.django_db
def test_replay_refuses_what_it_cannot_find(acme: Subscription, arguments: list[str], says: str) -> None:
    make_delivery(acme)
    with pytest.raises(CommandError, match=says):
        run("replay", *arguments)
    assert replayed() == set()


# requeue


@pytest.mark.django_db
def test_requeue_says_what_is_due_and_makes_nothing_due(acme: Subscription, tenant: Tenant) -> None:
    make_event(tenant, fanned_out_at=None)
    make_delivery(acme, "pending", next_attempt_at=timezone.now() - timedelta(seconds=1))
    waiting = make_delivery(acme, "retrying")
    assert run("requeue") == "Due: 1 event to fan out, 1 delivery to send.\n"
    before = waiting.next_attempt_at
    waiting.refresh_from_db()
    assert waiting.next_attempt_at == before


@pytest.mark.django_db
def test_requeue_makes_what_waits_due_if_told(acme: Subscription) -> None:
    make_delivery(acme, "retrying")
    make_delivery(acme, "failed")
    held = make_delivery(acme, "retrying", leased_until=timezone.now() + timedelta(minutes=1))
    text = run("requeue", "--waiting")
    assert text == "1 delivery no longer waiting.\nDue: 0 events to fan out, 1 delivery to send.\n"
    held.refresh_from_db()
    assert held.next_attempt_at is not None
    assert held.next_attempt_at > timezone.now()
    assert not Delivery.objects.filter(trigger="manual").exists()


@pytest.mark.django_db
def test_requeue_rings(acme: Subscription, django_capture_on_commit_callbacks: Any) -> None:
    with patch("webhooks.tasks.ring") as ring, django_capture_on_commit_callbacks(execute=True):
        run("requeue")
    assert ring.called


# prune


@pytest.mark.django_db(databases=["default", "other"])
def test_prune_deletes_what_is_old_with_all_that_hangs_on_it(acme: Subscription) -> None:
    for _ in range(3):
        delivery = make_delivery(acme, "delivered", age=OLD)
        make_attempt(delivery, "timeout")
        make_attempt(delivery)
    young = make_attempt(make_delivery(acme, "delivered", age=timedelta(days=29)))
    make_event(None, age=OLD)
    assert run("prune", "--older-than", "30d") == "Deleted 4 events, 3 deliveries, 6 attempts.\n"
    assert [*Attempt.objects.all()] == [young]
    assert [*Delivery.objects.all()] == [young.delivery]
    assert [*Event.objects.all()] == [young.delivery.event]


@pytest.mark.django_db(databases=["default", "other"])
def test_prune_forgets_old_replays_of_which_nothing_is_left(acme: Subscription) -> None:
    def replay(age: timedelta, **fields: Any) -> Replay:
        now = timezone.now()
        made = {"created_at": now - age, "until": now - age, "settled_at": now - age, "kind": "failed", "by": "alice"}
        return Replay.objects.create(tenant=acme.tenant, **{**made, **fields})

    replay(OLD)
    old = replay(OLD)
    make_delivery(acme, "delivered", age=OLD, replay=old)
    going_on, young, has_some = replay(OLD, settled_at=None), replay(timedelta(days=1)), replay(OLD)
    make_delivery(acme, "retrying", age=OLD, replay=has_some)
    told = "1 event, 1 delivery, 0 attempts"
    assert run("prune", "--older-than", "30d", "--dry-run") == f"Would delete {told}, 1 replay.\n"
    assert run("prune", "--older-than", "30d", batch=1) == f"Deleted {told}, 2 replays.\n"
    assert set(Replay.objects.all()) == {going_on, young, has_some}


@pytest.mark.django_db(databases=["default", "other"])
def test_prune_forgets_names_that_programs_used_a_week_ago(acme: Subscription) -> None:
    for days in (6, 8, 400):
        Receipt.objects.create(
            tenant=acme.tenant, name=f"id {days}", answer=b"[]", created_at=Now() - timedelta(days=days)
        )
    told = "0 events, 0 deliveries, 0 attempts, 2 receipts"
    assert run("prune", "--older-than", "900d", "--dry-run") == f"Would delete {told}.\n"
    assert run("prune", "--older-than", "900d", batch=1) == f"Deleted {told}.\n"
    assert Receipt.objects.get().name == "id 6"


@pytest.mark.django_db(databases=["default", "other"])
def test_prune_keeps_what_is_still_to_be_sent(acme: Subscription, globex: Subscription, tenant: Tenant) -> None:
    waiting = make_event(tenant, age=OLD, fanned_out_at=None)
    for status in ("pending", "retrying"):
        make_delivery(acme, status, age=OLD)
    half_done = make_delivery(acme, "delivered", event=make_event(None, age=OLD))
    make_delivery(globex, "pending", event=half_done.event)
    held = make_delivery(acme, "cancelled", age=OLD, leased_until=timezone.now() + timedelta(minutes=1))
    kept = set(Event.objects.values_list("pk", flat=True))
    assert {waiting.pk, held.event_id} < kept
    assert run("prune", "--older-than", "30d") == "Deleted 0 events, 0 deliveries, 0 attempts.\n"
    assert set(Event.objects.values_list("pk", flat=True)) == kept
    assert Delivery.objects.count() == 5


@pytest.mark.parametrize("batch", [1, 2, 3, 1_000])
@pytest.mark.django_db(databases=["default", "other"])
def test_prune_goes_in_batches(
    tenant: Tenant, subscribe: Callable[..., Subscription], acme: Subscription, batch: int
) -> None:
    subscriptions = [subscribe(tenant) for _ in range(4)]
    for number in range(5):
        event = make_event(tenant, age=OLD)
        for subscription in subscriptions:
            make_attempt(make_delivery(subscription, "failed", event=event), "dns")
        make_delivery(acme, "pending" if number % 2 else "failed", event=event)
    assert "Deleted 3 events, 15 deliveries, 12 attempts." in run("prune", "--older-than", "1d", batch=batch)
    assert (Event.objects.count(), Delivery.objects.count(), Attempt.objects.count()) == (2, 10, 8)


@pytest.mark.django_db(databases=["default", "other"])
def test_prune_loads_no_body_and_no_row_to_delete(
    acme: Subscription, django_assert_max_num_queries: Callable[..., Any]
) -> None:
    for _ in range(20):
        make_attempt(make_delivery(acme, "delivered", age=OLD))

    def listens_to_every_delete(**kwargs: Any) -> None:
        raise AssertionError

    post_delete.connect(listens_to_every_delete)
    try:
        with django_assert_max_num_queries(25) as queries:
            run("prune", "--older-than", "30d")
    finally:
        post_delete.disconnect(listens_to_every_delete)
    assert not Event.objects.exists()
    assert not [query for query in queries.captured_queries if "body" in query["sql"]]


@pytest.mark.django_db(databases=["default", "other"])
def test_prune_cleans_up_the_other_databases_too(tenant: Tenant) -> None:
    carried = {"tenant_id": tenant.pk, "topic": "shop.order.updated", "body": b"{}"}
    then = timezone.now() - OLD
    Event.objects.using("other").create(**carried, created_at=then, fanned_out_at=then)
    waiting = Event.objects.using("other").create(**carried, created_at=then)
    assert run("prune", "--older-than", "30d", "--dry-run") == "Would delete 1 event, 0 deliveries, 0 attempts.\n"
    assert run("prune", "--older-than", "30d") == "Deleted 1 event, 0 deliveries, 0 attempts.\n"
    assert [*Event.objects.using("other")] == [waiting]


@pytest.mark.django_db(databases=["default", "other"])
def test_prune_only_says_how_many_under_dry_run(acme: Subscription) -> None:
    make_attempt(make_delivery(acme, "failed", age=OLD), "dns")
    assert run("prune", "--older-than", "30d", "--dry-run") == "Would delete 1 event, 1 delivery, 1 attempt.\n"
    assert Event.objects.exists()


@pytest.mark.django_db(databases=["default", "other"])
def test_prune_tells_how_it_gets_on(acme: Subscription, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webhooks.management.commands.prune.PACE", 0)
    for _ in range(2):
        make_delivery(acme, "failed", age=OLD)
    assert "Deleted 0 events, 2 deliveries, 0 attempts so far.\n" in run("prune", "--older-than", "30d")


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has one writer at a time")
@pytest.mark.django_db(databases=["default", "other"], transaction=True)
def test_prune_passes_over_what_somebody_is_just_changing(
    tenant: Tenant, subscribe: Callable[..., Subscription]
) -> None:
    changing, other = (make_delivery(subscribe(tenant), "failed", age=OLD) for _ in range(2))
    locked, pruned = Moment(), Moment()

    def change() -> None:
        with transaction.atomic():
            Delivery.objects.filter(pk=changing.pk).update(status="pending")
            locked.set()
            pruned.wait(20)
        connection.close()

    thread = Thread(target=change)
    thread.start()
    try:
        assert locked.wait(20)
        assert "Deleted 1 event, 1 delivery," in run("prune", "--older-than", "30d")
    finally:
        pruned.set()
        thread.join()
    changing.refresh_from_db()
    assert changing.status == "pending"
    assert not Delivery.objects.filter(pk=other.pk).exists()


@pytest.mark.parametrize("span", ["30", "d", "0d", "-1d", "30 days", "1.5h", "", "999999999w", "٣d", "30D"])
@pytest.mark.django_db
def test_prune_refuses_what_is_no_span_of_time(acme: Subscription, span: str) -> None:
    make_delivery(acme, age=OLD)
    with pytest.raises(CommandError, match="no span of time"):
        run("prune", f"--older-than={span}")
    assert Event.objects.exists()


@pytest.mark.parametrize("batch", [0, -5, 10_001])
@pytest.mark.django_db
def test_prune_refuses_a_batch_out_of_bounds(batch: int) -> None:
    with pytest.raises(CommandError, match="from 1 to 10,000"):
        run("prune", "--older-than", "30d", batch=batch)


def test_prune_needs_to_be_told_how_old() -> None:
    with pytest.raises(CommandError, match="--older-than"):
        run("prune")


# What they are told


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("45s", timedelta(seconds=45)),
        ("90m", timedelta(minutes=90)),
        ("12h", timedelta(hours=12)),
        ("30d", timedelta(days=30)),
        (" 2w ", timedelta(weeks=2)),
    ],
)
def test_spans_of_time_are_read(text: str, span: timedelta) -> None:
    assert duration(text) == span


def test_moments_are_read_in_every_form() -> None:
    assert moment("2026-01-02").isoformat() == "2026-01-02T00:00:00+00:00"
    assert moment("2026-01-02T03:04").isoformat() == "2026-01-02T03:04:00+00:00"
    assert moment("2026-01-02T03:04:05+02:00").isoformat() == "2026-01-02T03:04:05+02:00"
    assert abs(timezone.now() - moment("2h") - timedelta(hours=2)) < timedelta(seconds=5)


def test_counts_are_written_for_people() -> None:
    assert [counted(count, "delivery") for count in (0, 1, 2_000)] == ["0 deliveries", "1 delivery", "2,000 deliveries"]
    assert counted(3, "event") == "3 events"

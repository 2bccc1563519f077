from __future__ import annotations

import io
import json
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from subscriptions.models import Subscription, Topic
from tests.webhooks.traffic import BODY, make_attempt, make_delivery, make_event
from webhooks import audit, deliveries, events
from webhooks.models import Attempt, Delivery, Event, Rollup, Throttle

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from subscriptions.models import Tenant

pytestmark = pytest.mark.django_db(databases=["default", "other"])

AGE = timedelta(minutes=10)
GRACE = timedelta(minutes=1)
TOPIC = "shop.order.updated"


@pytest.fixture(autouse=True)
def bell(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was rung for the workers."""
    heard: list[str] = []
    for name in ("ring", "silence"):
        monkeypatch.setattr(f"webhooks.tasks.{name}", partial(heard.append, name))
    return heard


@pytest.fixture
def since_long() -> Callable[[Subscription], Subscription]:
    """A subscription that has listened for a day."""

    def age(subscription: Subscription) -> Subscription:
        yesterday = timezone.now() - timedelta(days=1)
        Subscription.objects.filter(pk=subscription.pk).update(created_at=yesterday, enabled_at=yesterday)
        Topic.objects.filter(subscription=subscription).update(changed_at=yesterday)
        subscription.refresh_from_db()
        return subscription

    return age


@pytest.fixture
def acme(
    tenant: Tenant, subscribe: Callable[..., Subscription], since_long: Callable[[Subscription], Subscription]
) -> Subscription:
    return since_long(subscribe(tenant, "shop.*"))


def run(**options: Any) -> audit.Report:
    given = {"since": timezone.now() - timedelta(hours=1), "grace": GRACE, **options}
    return audit.audit(given.pop("since"), **given)


def found(report: audit.Report) -> dict[str, int]:
    return {kind: gap.count for kind, gap in report.gaps.items()}


def ago(span: timedelta) -> datetime:
    return timezone.now() - span


def whole(subscription: Subscription, status: str, *reasons: str, **fields: Any) -> Delivery:
    """With an ended attempt for each of `reasons`."""
    delivery = make_delivery(subscription, status, age=AGE, **fields)
    for reason in reasons:
        make_attempt(delivery, reason)
    return delivery


# What is as it should be


def test_what_is_whole_has_no_gap(acme: Subscription) -> None:
    whole(acme, "delivered", "timeout", "")
    whole(acme, "failed", "status", "status")
    whole(acme, "cancelled")
    whole(acme, "retrying", "dns")
    report = run()
    assert found(report) == {}
    assert report.counts == {
        **dict.fromkeys(("events", "fanned_out", "deliveries"), 4),
        **dict.fromkeys(("delivered", "failed", "cancelled", "retrying"), 1),
        **dict.fromkeys(("attempts", "ended"), 5),
        **dict.fromkeys(("refused", "pending"), 0),
    }


def test_what_is_late_by_less_than_the_grace_is_no_gap(acme: Subscription) -> None:
    moment_ago = ago(timedelta(seconds=10))
    make_event(acme.tenant, fanned_out_at=None)
    due = make_delivery(acme, "pending", next_attempt_at=moment_ago)
    held = make_delivery(acme, "pending", next_attempt_at=moment_ago, leased_until=moment_ago, lease=1)
    make_attempt(held, ended_at=None, lease=1, started_at=ago(timedelta(seconds=55)))
    assert found(run()) == {}
    assert set(found(run(grace=timedelta(seconds=1)))) == {
        "delivery_overdue",
        "delivery_abandoned",
        "attempt_unended",
    }
    due.refresh_from_db()
    assert due.status == "pending"


def test_what_is_in_flight_is_no_gap(acme: Subscription) -> None:
    held = make_delivery(acme, "pending", age=AGE, lease=1, leased_until=timezone.now() + GRACE)
    make_attempt(held, ended_at=None, lease=1, started_at=ago(AGE))
    assert found(run()) == {}


def test_only_what_was_written_since_is_walked(acme: Subscription) -> None:
    old = make_event(acme.tenant, id=audit._first_key(ago(timedelta(hours=2))), fanned_out_at=None, age=AGE)
    assert run().counts["events"] == 0
    report = run(since=ago(timedelta(hours=3)))
    assert report.gaps["event_waiting"].ids == [str(old.pk)]


def test_a_body_that_was_refused_is_counted_and_is_no_gap(acme: Subscription, settings: Any) -> None:
    settings.SIGNALPOST_BODY_LIMIT = 10
    events.publish(TOPIC, acme.tenant, {"much": "x" * 100})
    report = run()
    assert (found(report), report.counts["refused"]) == ({}, 1)


# Events


def test_an_event_that_nobody_fanned_out_is_a_gap_and_is_rung_for(acme: Subscription, bell: list[str]) -> None:
    event = make_event(acme.tenant, age=AGE, fanned_out_at=None)
    assert run().gaps == {"event_waiting": audit.Gap(1, 0, [str(event.pk)])}
    assert bell == []
    assert run(repair=True).gaps["event_waiting"].repaired == 1
    assert bell == ["silence", "ring"]
    deliveries.fan_out()
    assert found(run()) == {}


def test_nothing_is_rung_for_where_nothing_is_missing(acme: Subscription, bell: list[str]) -> None:
    whole(acme, "delivered", "")
    run(repair=True)
    assert bell == []


def test_an_event_that_could_not_be_matched_is_a_gap_and_gets_another_chance(acme: Subscription) -> None:
    event = make_event(acme.tenant, age=AGE, error=f"{deliveries.UNMATCHED}TypeError")
    report = run(repair=True)
    assert found(report) == {"event_unmatched": 1}
    event.refresh_from_db()
    assert (event.error, event.fanned_out_at) == ("", None)


# Deliveries that should be there


def test_a_delivery_that_is_not_there_is_a_gap_and_is_made(acme: Subscription) -> None:
    event = make_event(acme.tenant, age=AGE)
    report = run()
    assert report.gaps == {"delivery_missing": audit.Gap(1, 0, [f"{event.pk} for subscription {acme.pk}"])}
    assert run(repair=True).gaps["delivery_missing"].repaired == 1
    delivery = Delivery.objects.get(event=event, subscription=acme, tenant=acme.tenant, status="pending")
    assert delivery in Delivery.objects.due()
    assert found(run()) == {}


def test_an_event_for_every_tenant_misses_one_of_each(
    make_tenant: Callable[..., Tenant],
    subscribe: Callable[..., Subscription],
    since_long: Callable[[Subscription], Subscription],
) -> None:
    made = [since_long(subscribe(make_tenant(slug), "*")) for slug in ("acme", "globex")]
    event = make_event(None, age=AGE)
    make_delivery(made[0], "pending", event=event)
    run(repair=True)
    assert set(Delivery.objects.values_list("subscription", flat=True)) == {one.pk for one in made}


@pytest.mark.parametrize("status", ["delivered", "cancelled"])
def test_one_that_was_there_is_not_missing(acme: Subscription, status: str) -> None:
    whole(acme, status, "")
    assert found(run()) == {}


@pytest.mark.parametrize(
    ("topic", "changed", "wants"),
    [
        (TOPIC, (), True),
        ("shop.order.*", (), True),
        ("shop.*", (), True),
        ("*", (), True),
        ("shop.order.created", (), False),
        ("shop.orders.*", (), False),
        ("shop_order.*", (), False),
        (TOPIC, ("status", "total"), True),
        (TOPIC, ("total",), False),
    ],
)
def test_it_asks_what_the_fan_out_asks(
    *,
    tenant: Tenant,
    subscribe: Callable[..., Subscription],
    since_long: Callable[[Subscription], Subscription],
    topic: str,
    changed: tuple[str, ...],
    wants: bool,
) -> None:
    since_long(subscribe(tenant, topic, changed=changed))
    event = make_event(tenant, TOPIC, age=AGE, changed=["status", "notes"])
    assert found(run()) == ({"delivery_missing": 1} if wants else {})
    Event.objects.filter(pk=event.pk).update(fanned_out_at=None)
    deliveries.fan_out()
    assert Delivery.objects.exists() is wants


def test_nobody_else_s_event_is_missing(
    acme: Subscription, make_tenant: Callable[..., Tenant], subscribe: Callable[..., Subscription]
) -> None:
    make_event(make_tenant("globex"), age=AGE)
    assert found(run()) == {}


def test_a_subscription_of_after_the_event_misses_nothing(
    tenant: Tenant, subscribe: Callable[..., Subscription]
) -> None:
    make_event(tenant, age=AGE)
    subscribe(tenant, "*")
    report = run()
    assert (found(report), report.unknown) == ({}, 0)


def test_one_that_is_off_misses_nothing(acme: Subscription) -> None:
    make_event(acme.tenant, age=AGE)
    acme.disable(reason="enough")
    report = run()
    assert (found(report), report.unknown) == ({}, 0)


def test_what_one_missed_before_it_was_turned_on_again_is_not_known(acme: Subscription) -> None:
    make_event(acme.tenant, age=AGE)
    acme.disable(reason="enough")
    acme.enable()
    report = run(repair=True)
    assert (found(report), report.unknown) == ({}, 1)
    assert not Delivery.objects.exists()


def test_nor_what_one_missed_before_it_was_given_the_topic(acme: Subscription) -> None:
    make_event(acme.tenant, "billing.invoice.paid", age=AGE)
    assert run().unknown == 0
    acme.listen_to("billing.*")
    report = run()
    assert (found(report), report.unknown) == ({}, 1)


def test_a_second_topic_of_later_makes_nothing_unknown(acme: Subscription) -> None:
    make_event(acme.tenant, age=AGE)
    acme.listen_to(TOPIC)
    assert found(run()) == {"delivery_missing": 1}


def test_nothing_is_known_of_a_subscription_from_before_the_times_were_kept(acme: Subscription) -> None:
    make_event(acme.tenant, age=AGE)
    Subscription.objects.filter(pk=acme.pk).update(enabled_at=None)
    report = run()
    assert (found(report), report.unknown) == ({}, 1)


# Deliveries as they are


def test_a_delivery_that_no_worker_took_is_a_gap(acme: Subscription, bell: list[str]) -> None:
    overdue = make_delivery(acme, "pending", age=AGE, next_attempt_at=ago(AGE))
    make_delivery(acme, "retrying", age=AGE)
    assert run(repair=True).gaps == {"delivery_overdue": audit.Gap(1, 1, [str(overdue.pk)])}
    assert bell == ["silence", "ring"]


def test_one_without_a_time_would_never_be_taken_and_gets_one(acme: Subscription) -> None:
    timeless = make_delivery(acme, "pending", age=AGE, next_attempt_at=None)
    assert timeless not in Delivery.objects.due()
    assert run(repair=True).gaps["delivery_overdue"].repaired == 1
    assert timeless in Delivery.objects.due()


def test_one_of_a_subscription_that_is_off_waits_for_it(acme: Subscription) -> None:
    make_delivery(acme, "pending", age=AGE, next_attempt_at=ago(AGE))
    acme.disable(reason="enough")
    assert found(run()) == {}


@pytest.mark.parametrize(
    ("throttle", "is_gap"),
    [
        ({"probe_at": timedelta(minutes=-1)}, False),
        ({"probe_at": timedelta(seconds=10)}, False),
        ({"probe_at": AGE}, True),
        ({"next_at": timedelta(seconds=10)}, False),
        ({"next_at": AGE}, True),
        ({}, True),
    ],
    ids=["probe to come", "probed just now", "nobody probes", "sending at its rate", "nobody sends", "flowing"],
)
def test_one_that_a_breaker_or_a_rate_limit_keeps_waiting_is_no_gap(
    acme: Subscription, throttle: dict[str, timedelta], is_gap: bool
) -> None:
    make_delivery(acme, "pending", age=AGE, next_attempt_at=ago(AGE))
    Subscription.objects.filter(pk=acme.pk).update(rate_limit=1)
    Throttle.objects.create(subscription=acme, **{name: ago(span) for name, span in throttle.items()})
    assert found(run()) == ({"delivery_overdue": 1} if is_gap else {})


@pytest.mark.parametrize("status", ["pending", "delivered"])
def test_a_lease_that_is_over_is_taken_away(acme: Subscription, status: str) -> None:
    delivery = make_delivery(acme, status, age=AGE, lease=1, leased_until=ago(AGE), next_attempt_at=ago(AGE))
    make_attempt(delivery, lease=1)
    make_attempt(delivery, lease=1, ended_at=None, started_at=ago(AGE))
    report = run(repair=True)
    assert report.gaps == {
        "delivery_abandoned": audit.Gap(1, 1, [str(delivery.pk)]),
        "attempt_unended": audit.Gap(1, 1, [str(delivery.attempts.get(number=2).pk)]),
    }
    delivery.refresh_from_db()
    assert (delivery.status, delivery.leased_until) == (status, None)
    assert (delivery in Delivery.objects.due()) is (status == "pending")
    assert found(run()) == {}


@pytest.mark.parametrize(("status", "reasons"), [("delivered", []), ("delivered", ["status"]), ("failed", [])], ids=str)
def test_an_end_without_the_attempt_that_says_so_is_beyond_repair(
    acme: Subscription, status: str, reasons: list[str]
) -> None:
    delivery = whole(acme, status, *reasons)
    assert run(repair=True).gaps == {"delivery_unproven": audit.Gap(1, 0, [str(delivery.pk)])}


def test_a_failure_whose_only_attempt_has_no_end_is_unproven(acme: Subscription) -> None:
    make_attempt(make_delivery(acme, "failed", age=AGE), ended_at=None, started_at=ago(AGE))
    assert set(found(run())) == {"delivery_unproven", "attempt_unended"}


def test_a_wrong_number_of_attempts_is_put_right(acme: Subscription) -> None:
    delivery = whole(acme, "delivered", "status", "")
    Delivery.objects.update(attempt_count=1)
    assert run(repair=True).gaps == {"delivery_miscounted": audit.Gap(1, 1, [str(delivery.pk)])}
    delivery.refresh_from_db()
    assert delivery.attempt_count == 2


def test_but_not_where_the_next_attempt_would_get_a_number_that_there_is(acme: Subscription) -> None:
    delivery = whole(acme, "delivered", "status", "")
    Attempt.objects.filter(number=1).delete()
    assert run(repair=True).gaps == {"delivery_miscounted": audit.Gap(1, 0, [str(delivery.pk)])}
    delivery.refresh_from_db()
    assert delivery.attempt_count == 2


# Attempts


def test_an_attempt_of_an_older_claim_that_never_ended_is_ended(acme: Subscription) -> None:
    delivery = make_delivery(acme, "pending", age=AGE, lease=2, leased_until=timezone.now() + GRACE)
    lost = make_attempt(delivery, ended_at=None, lease=1, started_at=ago(AGE))
    make_attempt(delivery, ended_at=None, lease=2, started_at=ago(AGE))
    assert run(repair=True).gaps == {"attempt_unended": audit.Gap(1, 1, [str(lost.pk)])}
    lost.refresh_from_db()
    assert (lost.reason, lost.delivered) == ("lost", False)
    assert found(run()) == {}
    assert list(Rollup.objects.values_list("subscription", "attempts", "delivered", "failed")) == [(acme.pk, 1, 0, 0)]


# Several databases


def test_an_event_that_waits_away_from_home_is_a_gap(acme: Subscription, bell: list[str]) -> None:
    waiting = make_event(None, age=AGE)
    Event.objects.filter(pk=waiting.pk).delete()
    Event.objects.using("other").bulk_create([Event(pk=waiting.pk, topic=TOPIC, body=BODY, created_at=ago(AGE))])
    assert run(repair=True).gaps == {"event_away": audit.Gap(1, 1, [str(waiting.pk)])}
    assert bell == ["silence", "ring"]


def test_one_that_never_came_home_is_carried_again(acme: Subscription) -> None:
    then = ago(AGE)
    there, lost, gone = (
        Event.objects.using("other").create(
            tenant_id=tenant, topic=TOPIC, body=BODY, created_at=then, fanned_out_at=then
        )
        for tenant in (acme.tenant_id, acme.tenant_id, 12_345)
    )
    make_delivery(acme, "pending", event=make_event(acme.tenant, id=there.pk, age=AGE))
    report = run(repair=True)
    assert report.gaps == {"event_away": audit.Gap(1, 1, [str(lost.pk)])}
    assert report.counts["away"] == 3
    deliveries.relay()
    assert Event.objects.filter(pk=lost.pk, fanned_out_at=None).exists()
    assert not Event.objects.filter(pk=gone.pk).exists()
    assert found(run(grace=AGE * 2)) == {}


# Many


def test_pages_lose_nothing_between_them(acme: Subscription, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webhooks.audit.PAGE", 3)
    for _ in range(10):
        make_event(acme.tenant, age=AGE, fanned_out_at=None)
        make_event(acme.tenant, age=AGE)
        whole(acme, "delivered")
    report = run()
    assert report.counts["events"] == 30
    assert found(report) == {"event_waiting": 10, "delivery_missing": 10, "delivery_unproven": 10}
    assert run(repair=True).gaps["delivery_missing"].repaired == 10
    assert found(run())["event_waiting"] == 10  # nobody was there to hear the bell


def test_the_number_of_statements_grows_by_pages_only(acme: Subscription, monkeypatch: pytest.MonkeyPatch) -> None:
    def statements() -> int:
        with CaptureQueriesContext(connection) as queries:
            run()
        return len(queries)

    monkeypatch.setattr("webhooks.audit.PAGE", 50)
    whole(acme, "delivered", "")
    one = statements()
    for _ in range(48):
        whole(acme, "delivered", "")
    assert statements() == one <= 8
    for _ in range(100):
        whole(acme, "delivered", "")
    assert statements() <= 3 * one


def test_no_more_ids_are_kept_than_are_shown(acme: Subscription, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webhooks.audit.SHOWN", 4)
    monkeypatch.setattr("webhooks.audit.PAGE", 3)
    for _ in range(12):
        make_event(acme.tenant, age=AGE)
    gap = run().gaps["delivery_missing"]
    assert (gap.count, len(gap.ids)) == (12, 4)


# The command


def command(*arguments: str) -> str:
    out = io.StringIO()
    call_command("audit", *arguments, stdout=out)
    return out.getvalue()


def failing(*arguments: str) -> tuple[str, CommandError]:
    out = io.StringIO()
    with pytest.raises(CommandError) as caught:
        call_command("audit", *arguments, stdout=out)
    return out.getvalue(), caught.value


def test_the_command_prints_counts_and_passes(acme: Subscription) -> None:
    whole(acme, "delivered", "timeout", "")
    make_event(None, error="The body has 999 bytes.")
    assert command().splitlines()[1:] == [
        "  2 events: 1 fanned out, 1 refused",
        "  1 delivery: 1 delivered",
        "  2 attempts: 2 ended",
        "Nothing is missing.",
    ]


def test_it_fails_and_names_what_is_missing(acme: Subscription) -> None:
    event = make_event(acme.tenant, age=AGE, fanned_out_at=None)
    delivery = whole(acme, "delivered")
    out, error = failing()
    assert f"1 event not fanned out: {event.pk}\n" in out
    assert f"1 delivery at its end without the attempt that says so: {delivery.pk}\n  Beyond repair" in out
    assert "repaired" not in out
    assert (str(error), error.returncode) == ("2 gaps found.", 1)


def test_it_says_what_it_repaired_and_fails_all_the_same(acme: Subscription) -> None:
    make_event(acme.tenant, age=AGE)
    out, _ = failing("--repair")
    assert "1 delivery listened, and has no delivery of the event: " in out
    assert "  1 repaired.\n" in out
    command()


def test_it_says_what_cannot_be_known(acme: Subscription) -> None:
    make_event(acme.tenant, age=AGE)
    acme.listen_to(TOPIC)
    Topic.objects.filter(subscription=acme, name="shop.*").delete()
    assert "Not known of 1 pair of event and subscription" in command()


def test_machines_get_one_object_with_every_name(acme: Subscription) -> None:
    make_event(acme.tenant, age=AGE)
    out, _ = failing("--json")
    told = json.loads(out)
    assert set(told) == {"since", "until", "counts", "unknown", "gaps"}
    assert set(told["gaps"]) == set(audit.KINDS)
    assert told["gaps"]["delivery_missing"]["count"] == 1
    assert told["gaps"]["event_waiting"] == {"count": 0, "repaired": 0, "ids": []}
    assert told["counts"]["events"] == told["counts"]["fanned_out"] == 1


def test_it_takes_since_and_grace(acme: Subscription) -> None:
    make_event(acme.tenant, age=AGE, fanned_out_at=None)
    assert "Nothing is missing" in command("--grace", "1h")
    old = make_event(acme.tenant, id=audit._first_key(ago(timedelta(days=2))), fanned_out_at=None, age=AGE)
    assert str(old.pk) not in failing()[0]
    assert str(old.pk) in failing("--since", "3d")[0]


@pytest.mark.parametrize("arguments", [["--since", "soon"], ["--grace", "none"]])
def test_it_refuses_what_it_cannot_read(arguments: list[str]) -> None:
    with pytest.raises(CommandError, match="is no"):
        command(*arguments)


def test_it_tells_how_it_gets_on(acme: Subscription, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webhooks.management.commands.audit.PACE", 0)
    whole(acme, "delivered", "")
    assert "Walked 1 event so far.\n" in command()
    assert "so far" not in command("--json")

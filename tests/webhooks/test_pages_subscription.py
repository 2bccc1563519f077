"""The page of one subscription: how it does, its secret, and what can be done to it."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.utils import timezone

from subscriptions import edits
from subscriptions.models import AuditEntry
from subscriptions.trail import Actor
from tests.traffic import make_deliveries
from tests.webhooks.personas import HTMX, sign_in, text
from tests.webhooks.traffic import make_attempt, make_delivery
from webhooks import audit, deliveries, drain, events, matching, metrics, tasks, trials
from webhooks.models import Delivery, Event, Throttle

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.test import Client
    from pytest_django import DjangoAssertNumQueries

    from subscriptions.models import Subscription, Tenant
    from tests.receiver import Receiver

    Subscribe = Callable[..., Subscription]

pytestmark = [pytest.mark.django_db, pytest.mark.on("sqlite")]
ALICE = Actor("alice@acme.example")
OPERATOR = Actor("ops", as_operator=True)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "ring", lambda: False)


@pytest.fixture
def page(tenant: Tenant) -> Client:
    return sign_in(tenant)


@pytest.fixture
def subscription(tenant: Tenant, subscribe: Subscribe) -> Subscription:
    return subscribe(tenant, "shop.*", url="https://billing.example/in?token=t", name="Billing")


def path(subscription: Subscription, deed: str = "") -> str:
    return f"/t/acme/subscriptions/{subscription.pk}/{deed}"


def entries(action: str) -> int:
    return AuditEntry.objects.filter(action=action).count()


def fail(subscription: Subscription, number: int, **fields: Any) -> list[Delivery]:
    ended = timezone.now() - timedelta(minutes=5)
    return make_deliveries(subscription, number, status="failed", next_attempt_at=None, ended_at=ended, **fields)


def poll_of(response: Any) -> str:
    (found,) = re.findall(r'hx-get="([^"]*/test/\?delivery=\d+)"', response.content.decode())
    return str(found)


# What it shows


def test_it_shows_what_is_sent_and_where(page: Client, subscription: Subscription) -> None:
    subscription.listen_to("blog.post.updated", changed=["title"])
    (delivery,) = make_deliveries(subscription)
    said = text(page.get(path(subscription)))
    for part in ("Billing", "https://billing.example/in?token=t", "shop.*", "blog.post.updated", "(title)"):
        assert part in said
    assert f'id="delivery-{delivery.pk}"' in said


def test_its_deliveries_are_its_own(
    page: Client, tenant: Tenant, subscription: Subscription, subscribe: Subscribe
) -> None:
    (other,) = make_deliveries(subscribe(tenant, "*"))
    assert f'id="delivery-{other.pk}"' not in text(page.get(path(subscription)))


def test_its_deliveries_are_live(page: Client, subscription: Subscription) -> None:
    make_deliveries(subscription, 20)
    response = page.get(path(subscription))
    (poll,) = re.findall(r'hx-get="([^"]*part=brief[^"]*)"', response.content.decode())
    poll = poll.replace("&amp;", "&")
    assert page.get(poll, headers=HTMX).status_code == 204
    make_deliveries(subscription)
    newer = page.get(poll, headers=HTMX)
    assert "1 newer delivery" in text(newer)
    assert newer.content.decode().count('id="delivery-') == 15


def test_the_page_costs_the_same_with_many_deliveries_and_topics(
    page: Client, subscription: Subscription, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    subscription.listen_to(*(f"shop.thing{number}.created" for number in range(50)))
    make_deliveries(subscription, 30)
    fail(subscription, 30)
    with django_assert_max_num_queries(12):
        page.get(path(subscription))


def test_the_secret_is_not_in_the_page(page: Client, subscription: Subscription) -> None:
    said = text(page.get(path(subscription)))
    assert subscription.secrets.get().value not in said


def test_what_has_failed_is_offered_with_its_number(page: Client, subscription: Subscription) -> None:
    fail(subscription, 14)
    said = text(page.get(path(subscription)))
    assert "14 deliveries have failed since" in said
    assert f"/replays/new/?kind=failed&amp;subscription={subscription.pk}&amp;since=" in said


def test_the_offer_leads_to_a_page_that_counts_the_same(page: Client, subscription: Subscription) -> None:
    fail(subscription, 3)
    found = re.search(r'href="(/t/acme/replays/new/[^"]*)"', page.get(path(subscription)).content.decode())
    assert found
    assert "3 deliveries" in text(page.get(found[1].replace("&amp;", "&")))


def test_one_that_fails_says_since_when(page: Client, subscription: Subscription) -> None:
    Throttle.objects.create(subscription=subscription, failures=14, failing_since=timezone.now())
    said = text(page.get(path(subscription)))
    assert "14 attempts in a row have failed." in said
    assert "Failing" in said


def test_old_failures_are_no_longer_offered(page: Client, subscription: Subscription) -> None:
    make_delivery(subscription, "failed", ended_at=timezone.now() - timedelta(days=8))
    assert "failed since" not in text(page.get(path(subscription)))


def test_what_was_never_attempted_is_asked_for_with_a_time(page: Client, subscription: Subscription) -> None:
    said = text(page.get(path(subscription)))
    assert '<input type="hidden" name="kind" value="missed">' in said
    assert 'name="since" type="datetime-local" required' in said


# Off and on


def test_turned_off_it_says_why_since_when_and_by_whom(page: Client, subscription: Subscription) -> None:
    assert page.get(path(subscription, "disable/")).status_code == 200
    response = page.post(path(subscription, "disable/"), {"reason": "We move house."}, follow=True)
    said = text(response)
    assert "This subscription is off." in said
    assert "We move house." in said
    assert "by alice@acme.example" in said
    assert "Send test event" not in said
    assert entries("subscription.disabled") == 1


def test_it_offers_to_be_turned_on_with_what_failed(page: Client, subscription: Subscription) -> None:
    fail(subscription, 214)
    subscription.disable(reason="Nothing but failures for 5 days.")
    said = text(page.get(path(subscription)))
    assert "Turn on and replay the 214 that failed" in said
    assert "&amp;enable=1" in said
    assert "by Signalpost" in said


def test_turned_on_it_is_on(page: Client, subscription: Subscription) -> None:
    subscription.disable(reason="Nothing but failures for 5 days.")
    assert page.get(path(subscription, "enable/")).status_code == 200
    assert "It is on again." in text(page.post(path(subscription, "enable/"), follow=True))
    subscription.refresh_from_db()
    assert subscription.enabled
    assert "It was on already." in text(page.post(path(subscription, "enable/"), follow=True))
    assert entries("subscription.enabled") == 1


def test_what_the_operator_turned_off_the_tenant_does_not_turn_on(page: Client, subscription: Subscription) -> None:
    edits.disable(subscription, OPERATOR, reason="Abuse.")
    said = text(page.get(path(subscription)))
    assert "Abuse." in said
    assert "only the operator turns it on again" in said
    assert "/enable/" not in said
    page.post(path(subscription, "enable/"))
    subscription.refresh_from_db()
    assert not subscription.enabled


def test_the_operators_name_is_not_shown(page: Client, subscription: Subscription) -> None:
    edits.disable(subscription, Actor("root@inside.example", as_operator=True), reason="Abuse.")
    assert "root@inside.example" not in text(page.get(path(subscription)))


def test_turned_off_twice_is_said(page: Client, subscription: Subscription) -> None:
    page.post(path(subscription, "disable/"))
    assert "It was off already." in text(page.post(path(subscription, "disable/"), follow=True))


# The secret


def test_revealed_the_secret_is_in_that_answer_alone(page: Client, subscription: Subscription) -> None:
    value = subscription.secrets.get().value
    response = page.post(path(subscription, "secret/"))
    assert value in text(response)
    assert "no-store" in response["cache-control"]
    assert "<h1>" in text(response)
    part = page.post(path(subscription, "secret/"), headers=HTMX)
    assert value in text(part)
    assert "<html" not in text(part)
    assert "no-store" in part["cache-control"]
    assert entries("secret.revealed") == 2
    assert value not in str(list(AuditEntry.objects.values()))


def test_a_secret_is_revealed_by_post(page: Client, subscription: Subscription) -> None:
    assert page.get(path(subscription, "secret/")).status_code == 405


def test_rotated_both_secrets_are_live_and_neither_is_in_the_message(page: Client, subscription: Subscription) -> None:
    old = subscription.secrets.get().value
    assert "24 hours" in text(page.get(path(subscription, "rotate/")))
    said = text(page.post(path(subscription, "rotate/"), follow=True))
    values = {secret.value for secret in subscription.secrets.live()}
    assert old in values
    assert len(values) == 2
    assert not any(value in said for value in values)
    shown = text(page.post(path(subscription, "secret/")))
    assert all(value in shown for value in values)
    assert "signing until" in shown
    assert entries("secret.rotated") == 1


def test_a_secret_that_cannot_be_read_is_said(page: Client, subscription: Subscription) -> None:
    subscription.secrets.update(ciphertext=b"not a token")
    response = page.post(path(subscription, "secret/"), headers=HTMX)
    assert response["hx-redirect"] == path(subscription)
    assert "Rotate it" in text(page.post(path(subscription, "secret/"), follow=True))


# Who may


DEEDS = ("secret/", "rotate/", "disable/", "enable/", "test/")


def test_an_outsider_finds_nothing(subscription: Subscription, make_tenant: Callable[..., Tenant]) -> None:
    other = make_tenant("other")
    charlie = sign_in(other, "owner", name="charlie")
    for where in ("acme", "other"):
        start = f"/t/{where}/subscriptions/{subscription.pk}/"
        assert charlie.get(start).status_code == 404
        for deed in DEEDS:
            assert charlie.post(start + deed).status_code == 404
    subscription.refresh_from_db()
    assert subscription.enabled
    assert not Event.objects.exists()


def test_a_viewer_looks_and_changes_nothing(tenant: Tenant, subscription: Subscription) -> None:
    fail(subscription, 2)
    viewer = sign_in(tenant, "viewer")
    said = text(viewer.get(path(subscription)))
    assert "2 deliveries have failed since" in said
    for word in ("Send test event", "Reveal", "Rotate", "Turn off", "Replay them", "Edit"):
        assert word not in said
    for deed in DEEDS:
        assert viewer.post(path(subscription, deed)).status_code == 403


# The test event


def test_a_test_event_is_sent_to_this_subscription_alone(
    page: Client, tenant: Tenant, subscription: Subscription, subscribe: Subscribe
) -> None:
    subscribe(tenant, "*", "signalpost.*", "signalpost.test")
    response = page.post(path(subscription, "test/"), headers=HTMX)
    delivery = Delivery.objects.select_related("event").get()
    assert delivery.subscription == subscription
    assert delivery.event.topic == "signalpost.test"
    assert "The test event is on its way." in text(response)
    deliveries.fan_out()
    assert Delivery.objects.count() == 1
    assert entries("test.sent") == 1


def test_without_scripts_the_page_itself_tells_of_the_test_event(page: Client, subscription: Subscription) -> None:
    response = page.post(path(subscription, "test/"))
    assert response.status_code == 302
    assert "The test event is on its way." in text(page.get(response["location"].partition("#")[0]))
    assert page.get(path(subscription, "test/")).status_code == 302


def test_the_poll_ends_when_the_test_event_has_arrived(page: Client, subscription: Subscription) -> None:
    poll = poll_of(page.post(path(subscription, "test/"), headers=HTMX))
    assert page.get(poll, headers=HTMX).status_code == 200
    delivery = Delivery.objects.select_related("subscription").get()
    make_attempt(delivery, response_status=204)
    Delivery.objects.update(status="delivered", next_attempt_at=None)
    last = page.get(poll, headers=HTMX)
    assert last.status_code == 286
    assert "The test event has arrived." in text(last)
    assert "hx-trigger" not in text(last)


def test_a_test_event_that_is_refused_says_why_and_what_to_do(page: Client, subscription: Subscription) -> None:
    poll = poll_of(page.post(path(subscription, "test/"), headers=HTMX))
    make_attempt(Delivery.objects.select_related("subscription").get(), "status", response_status=404)
    said = text(page.get(poll, headers=HTMX))
    assert "was not accepted" in said
    assert "404 Not Found" in said
    assert "Check the subscription&#x27;s URL." in said


def test_nobody_follows_anothers_test_event(
    page: Client, tenant: Tenant, subscription: Subscription, subscribe: Subscribe
) -> None:
    sent = trials.send(subscribe(tenant, "*"), ALICE)
    assert "on its way" not in text(page.get(f"{path(subscription)}?test={sent.pk}"))
    assert page.get(path(subscription, f"test/?delivery={sent.pk}"), headers=HTMX).status_code == 286


def test_a_subscription_that_is_off_gets_no_test_event(page: Client, subscription: Subscription) -> None:
    subscription.disable(reason="Maintenance.")
    assert "turn it on" in text(page.post(path(subscription, "test/"), follow=True))
    assert not Event.objects.exists()


@pytest.mark.django_db(databases="__all__")
def test_a_test_event_counts_as_captured_and_fanned_out_and_is_no_gap(
    tenant: Tenant, subscription: Subscription, subscribe: Subscribe
) -> None:
    subscribe(tenant, "*")
    before = {family.name: family for family in metrics.families()}["signalpost_events_captured_total"].samples
    trials.send(subscription, ALICE)
    after = {family.name: family for family in metrics.families()}["signalpost_events_captured_total"].samples
    assert sum(value for *_, value in after) == sum(value for *_, value in before) + 1
    report = audit.audit(timezone.now() - timedelta(hours=1), grace=timedelta(0))
    assert "delivery_missing" not in report.gaps


def test_nobody_listens_to_test_events(tenant: Tenant, subscribe: Subscribe) -> None:
    subscribe(tenant, "*", "signalpost.*", "signalpost.test")
    assert not matching.wanted("signalpost.test")
    assert matching.wanted("signalpost.tests")
    events.write(topic="signalpost.test", tenant_id=tenant.pk, tenant_slug="acme", data={}, using="default")
    assert deliveries.fan_out()
    assert not Delivery.objects.filter(event__topic="signalpost.test").exists()


@pytest.mark.django_db(transaction=True, databases="__all__")
def test_a_test_event_really_arrives(tenant: Tenant, subscribe: Subscribe, receiver: Receiver, redis_url: str) -> None:
    subscription = subscribe(tenant, "shop.*", url=receiver.url)
    sent = trials.send(subscription, ALICE)
    drain.run()
    (received,) = receiver.wait_for(1)
    assert received.webhook_id == sent.event.webhook_id
    sent.refresh_from_db()
    assert sent.status == "delivered"

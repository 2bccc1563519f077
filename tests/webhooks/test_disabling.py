"""A subscription that the machine turns off, and what its tenant hears of it."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.core import mail
from django.utils import timezone

from subscriptions.entries import DISABLED
from subscriptions.models import Membership, Subscription
from tests.webhooks.traffic import make_delivery
from webhooks import claims, deliveries, disabling
from webhooks.models import Attempt, Delivery, Event, Throttle
from webhooks.recording import Outcome, record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from subscriptions.models import Tenant

pytestmark = pytest.mark.django_db


@pytest.fixture
def subscription(tenant: Tenant, subscribe: Callable[..., Subscription]) -> Subscription:
    subscription = subscribe(tenant, "shop.*", url="https://receiver.example/a?b=c")
    Subscription.objects.filter(pk=subscription.pk).update(enabled_at=timezone.now() - timedelta(days=9))
    return subscription


@pytest.fixture
def posted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Mail goes at once, in this thread."""

    monkeypatch.setattr(disabling, "_post", lambda send, *arguments: send(*arguments))
    return mail.outbox  # type: ignore[return-value]


@pytest.fixture
def make_member(tenant: Tenant, django_user_model: Any) -> Callable[..., None]:
    def make(name: str, **fields: Any) -> None:
        user = django_user_model.objects.create(username=name, **{"email": f"{name}@acme.example", **fields})
        Membership.objects.create(tenant=tenant, user=user)

    return make


def end(subscription: Subscription, *, status: int | None, reason: Attempt.Reason) -> Any:
    make_delivery(subscription, "pending", next_attempt_at=timezone.now() - timedelta(seconds=1))
    (claimed,) = claims.claim(1)
    return record([(claimed, Outcome(claimed.url, 5, True, reason=reason, status=status))])


def test_five_days_of_nothing_but_failures_turn_it_off(subscription: Subscription) -> None:
    Throttle.objects.create(subscription=subscription, failures=3, failing_since=timezone.now() - timedelta(days=5.01))
    counts = end(subscription, status=None, reason=Attempt.Reason.CONNECT)
    subscription.refresh_from_db()
    assert counts["turned_off"] == 1
    assert not subscription.enabled
    assert subscription.disabled_reason == "Nothing but failures for 5 days."


def test_four_days_do_not(subscription: Subscription) -> None:
    Throttle.objects.create(subscription=subscription, failures=3, failing_since=timezone.now() - timedelta(days=4.99))
    assert end(subscription, status=None, reason=Attempt.Reason.CONNECT)["turned_off"] == 0
    subscription.refresh_from_db()
    assert subscription.enabled


def test_410_says_why_and_once(subscription: Subscription) -> None:
    end(subscription, status=410, reason=Attempt.Reason.STATUS)
    assert not disabling.disable(subscription.pk, reason="again", using="default")
    event = Event.objects.get(topic=DISABLED)
    assert json.loads(bytes(event.body))["data"] == {
        "subscription": {"id": subscription.pk, "name": "", "url": "https://receiver.example/a?b=c"},
        "reason": "The receiver answered 410 Gone.",
    }


def test_another_subscription_of_the_tenant_may_hear_of_it(
    subscription: Subscription, tenant: Tenant, make_tenant: Any, subscribe: Callable[..., Subscription]
) -> None:
    listening = subscribe(tenant, "signalpost.*")
    subscribe(make_tenant("globex"), "signalpost.*")
    disabling.disable(subscription.pk, reason="why", using="default")
    deliveries.fan_out()
    assert Delivery.objects.get(event__topic=DISABLED).subscription == listening


def test_each_active_member_gets_a_mail_of_their_own(
    subscription: Subscription, posted: list[Any], make_member: Any, django_capture_on_commit_callbacks: Any
) -> None:
    make_member("alice")
    make_member("bob")
    make_member("gone", is_active=False)
    make_member("mute", email="")
    with django_capture_on_commit_callbacks(execute=True):
        disabling.disable(subscription.pk, reason="The receiver answered 410 Gone.", using="default")
    assert [each.to for each in posted] == [["alice@acme.example"], ["bob@acme.example"]]
    assert posted[0].subject == "Webhooks to receiver.example were turned off"
    assert "The receiver answered 410 Gone." in posted[0].body
    assert "whsec_" not in posted[0].body


def test_what_rolls_back_tells_nobody(
    subscription: Subscription, posted: list[Any], make_member: Any, django_capture_on_commit_callbacks: Any
) -> None:
    make_member("alice")
    with django_capture_on_commit_callbacks(execute=False):
        disabling.disable(subscription.pk, reason="why", using="default")
    assert posted == []


def test_a_mail_server_that_is_away_is_logged_and_stops_nothing(
    subscription: Subscription,
    posted: list[Any],
    make_member: Any,
    *,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    django_capture_on_commit_callbacks: Any,
) -> None:
    make_member("alice")

    def refuse(message: mail.EmailMessage) -> None:
        raise ConnectionRefusedError(message.to)

    monkeypatch.setattr(mail.EmailMessage, "send", refuse)
    with django_capture_on_commit_callbacks(execute=True):
        assert disabling.disable(subscription.pk, reason="why", using="default")
    assert f"No mail about subscription {subscription.pk}" in caplog.text
    assert "alice" not in caplog.text


def test_a_mail_is_posted_by_a_thread_of_its_own(
    subscription: Subscription, make_member: Any, django_capture_on_commit_callbacks: Any
) -> None:
    make_member("alice")
    disabling._mail(subscription, "why", ["alice@acme.example"])
    for thread in threading.enumerate():
        if thread.name == "signalpost-mail":
            assert thread.daemon
            thread.join(10)
    assert [each.to for each in mail.outbox] == [["alice@acme.example"]]

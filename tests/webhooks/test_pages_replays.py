"""The pages of bulk replays."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from subscriptions.models import AuditEntry, Membership, Role, Subscription
from subscriptions.trail import Actor
from tests.traffic import make_deliveries, make_event
from webhooks import replays, tasks
from webhooks.models import Delivery, Replay

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User
    from pytest_django import DjangoAssertNumQueries

    from subscriptions.models import Tenant

    Subscribe = Callable[..., Subscription]

pytestmark = pytest.mark.django_db

ALICE = "alice@acme.example"
HTMX = {"HX-Request": "true"}
HOUR = timedelta(hours=1)
PATH = "/t/acme/replays/"


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "ring", lambda: False)


@pytest.fixture
def alice(tenant: Tenant, django_user_model: type[User]) -> Membership:
    user = django_user_model.objects.create_user("alice", email=ALICE)
    return Membership.objects.create(tenant=tenant, user=user, role=Role.DEVELOPER)


@pytest.fixture
def page(client: Client, alice: Membership) -> Client:
    client.force_login(alice.user)
    return client


@pytest.fixture
def subscription(tenant: Tenant, subscribe: Subscribe) -> Subscription:
    return subscribe(tenant, "shop.*", name="Billing")


@pytest.fixture
def others(make_tenant: Callable[..., Tenant], subscribe: Subscribe) -> Subscription:
    return subscribe(make_tenant("other"), "shop.*")


def failed(subscription: Subscription, number: int = 1, **fields: Any) -> list[Delivery]:
    ended = timezone.now() - HOUR
    return make_deliveries(subscription, number, status="failed", next_attempt_at=None, ended_at=ended, **fields)


def started(subscription: Subscription, number: int = 3) -> Replay:
    failed(subscription, number)
    wish = replays.wish(subscription.tenant, "failed", subscription=subscription)
    replay = replays.start(wish, by=Actor(ALICE))
    while replays.advance():
        pass
    replay.refresh_from_db()
    return replay


def text(response: Any) -> str:
    return " ".join(response.content.decode().split())


def token_of(response: Any) -> str:
    return str(response.context["token"])


# Asking


def test_the_number_is_shown_before_anything_happens_and_a_click_starts_it(
    page: Client, subscription: Subscription
) -> None:
    failed(subscription, 3)
    query = f"?kind=failed&subscription={subscription.pk}&since={timezone.now() - 2 * HOUR:%Y-%m-%dT%H:%MZ}"
    before = page.get(f"{PATH}new/{query}")
    assert "<h1> Replay 3 deliveries that failed </h1>" in text(before)
    assert not Replay.objects.exists()
    after = page.post(f"{PATH}new/{query}", {"token": token_of(before)})
    replay = Replay.objects.get()
    assert after.headers["Location"] == reverse("webhooks:replay", args=["acme", replay.pk])
    assert (replay.expected, replay.by, replay.subscription) == (3, ALICE, subscription)


def test_one_is_said_in_the_singular(page: Client, subscription: Subscription) -> None:
    failed(subscription)
    assert "Replay 1 delivery that failed" in text(page.get(f"{PATH}new/?kind=failed"))
    make_event(subscription.tenant)
    query = f"?kind=missed&subscription={subscription.pk}&since=2020-01-01"
    Delivery.objects.all().delete()
    assert "Send 2 events that were missed" in text(page.get(f"{PATH}new/{query}"))


def test_a_double_click_starts_one(page: Client, subscription: Subscription) -> None:
    failed(subscription, 2)
    token = token_of(page.get(f"{PATH}new/?kind=failed"))
    first = page.post(f"{PATH}new/?kind=failed", {"token": token})
    while replays.advance():
        pass
    second = page.post(f"{PATH}new/?kind=failed", {"token": token})
    assert first.headers["Location"] == second.headers["Location"]
    assert Replay.objects.count() == 1


@pytest.mark.parametrize("token", ["", "x", "{}", "0" * 5_000])
def test_a_token_that_is_none_starts_one_all_the_same(page: Client, subscription: Subscription, token: str) -> None:
    failed(subscription)
    assert page.post(f"{PATH}new/?kind=failed", {"token": token}).status_code == 302
    assert Replay.objects.count() == 1


def test_what_was_meanwhile_replayed_by_another_is_said(page: Client, subscription: Subscription) -> None:
    failed(subscription)
    token = token_of(page.get(f"{PATH}new/?kind=failed"))
    Delivery.objects.update(status="delivered")
    response = page.post(f"{PATH}new/?kind=failed", {"token": token})
    assert response.status_code == 200
    assert "There is nothing to replay any more." in text(response)
    assert 'name="token"' not in text(response)
    assert not Replay.objects.exists()


def test_all_that_the_filters_match_is_replayed(page: Client, subscription: Subscription) -> None:
    mine, other = failed(subscription, 2)
    query = f"?kind=filtered&event={mine.event.webhook_id}&status=failed"
    response = page.get(f"{PATH}new/{query}")
    assert "Replay 1 delivery that matches" in text(response)
    assert mine.event.webhook_id in text(response)
    page.post(f"{PATH}new/{query}", {"token": token_of(response)})
    while replays.advance():
        pass
    mine.refresh_from_db()
    other.refresh_from_db()
    assert (mine.status, other.status) == ("pending", "failed")


def test_filters_with_a_mistake_replay_nothing_and_lead_to_where_it_is_said(
    page: Client, subscription: Subscription
) -> None:
    failed(subscription)
    for method in (page.get, page.post):
        response = method(f"{PATH}new/?kind=filtered&status=lost&since=tomorrow")
        assert response.headers["Location"] == "/t/acme/deliveries/?status=lost&since=tomorrow"
    assert not Replay.objects.exists()


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("kind=everything", "Choose one of the two."),
        ("kind=failed&since=yesterday", "Write a date and time"),
        ("kind=failed&since=0001-01-01T00:00%2B14:00", "Write a date and time"),
        ("kind=failed&subscription=abc", "Choose one of the list."),
        ("kind=failed&subscription=%00", "Null characters are not allowed."),
        ("kind=missed", "Choose the subscription that missed something."),
        ("kind=missed", "Write since when it missed something."),
    ],
)
def test_bad_input_is_said_at_its_field(page: Client, subscription: Subscription, query: str, said: str) -> None:
    for method in (page.get, page.post):
        response = method(f"{PATH}new/?{query}")
        assert response.status_code == 200
        assert said in text(response)
        assert 'class="summary-errors"' in text(response)
        assert "since=yesterday" not in query or 'value="yesterday"' in text(response), "what was typed stays"
    assert not Replay.objects.exists()


def test_without_a_query_it_asks_what_is_meant(page: Client, subscription: Subscription, others: Subscription) -> None:
    response = page.get(f"{PATH}new/")
    assert "Billing · receiver.example" in text(response)
    assert f'value="{others.pk}"' not in text(response)
    assert "summary-errors" not in text(response)


def test_a_time_without_an_offset_is_the_readers(page: Client, subscription: Subscription) -> None:
    page.cookies["signalpost_zone"] = "Asia/Tokyo"
    failed(subscription)
    response = page.get(f"{PATH}new/?kind=failed&since=2026-01-01T09:00")
    assert response.context["wish"].since.isoformat() == "2026-01-01T00:00:00+00:00"


# Turned off


def test_turn_on_and_replay_in_one(page: Client, subscription: Subscription) -> None:
    failed(subscription, 214)
    subscription.disable(reason="Nothing but failures for 5 days.")
    query = f"?kind=failed&subscription={subscription.pk}"
    response = page.get(f"{PATH}new/{query}")
    assert "Billing is off: Nothing but failures for 5 days." in text(response)
    assert "Turn on and replay 214" in text(response)
    refused = page.post(f"{PATH}new/{query}")
    assert "The subscription is off." in text(refused), "only the button that says so turns it on"
    assert response.context["address"] == f"{PATH}new/{query}&enable=1"
    page.post(response.context["address"], {"token": token_of(response)})
    subscription.refresh_from_db()
    assert subscription.enabled
    assert Replay.objects.get().expected == 214


@pytest.mark.parametrize("by", [Subscription.DisabledBy.OPERATOR, Subscription.DisabledBy.TENANT])
def test_what_the_operator_turned_off_no_member_turns_on(page: Client, subscription: Subscription, by: str) -> None:
    failed(subscription)
    subscription.disable(reason="It attacks others.", by=by)
    path = f"{PATH}new/?kind=failed&subscription={subscription.pk}&enable=1"
    assert 'name="token"' not in text(page.get(path))
    response = page.post(path)
    assert "It attacks others." in text(response)
    subscription.refresh_from_db()
    assert not subscription.enabled
    assert not Replay.objects.exists()


# Watching


def test_the_progress_is_shown_and_asked_for_again_until_it_ends(page: Client, subscription: Subscription) -> None:
    replay = started(subscription)
    path = f"{PATH}{replay.pk}/"
    Delivery.objects.filter(pk=Delivery.objects.earliest("pk").pk).update(status="delivered")
    shown = text(page.get(path))
    assert '<progress aria-labelledby="progress-title" value="1" max="3"></progress>' in shown
    assert "1 of 3 done" in shown
    assert 'hx-trigger="every 1s"' in shown
    part = page.get(path, headers=HTMX)
    assert part.status_code == 200
    assert "<html" not in text(part)
    seen = replays.progress(replay).seen
    assert page.get(f"{path}?seen={seen}", headers=HTMX).status_code == 204
    Delivery.objects.update(status="delivered")
    last = page.get(f"{path}?seen={seen}", headers=HTMX)
    assert last.status_code == 286
    assert "3 of 3 done" in text(last)
    assert "hx-get" not in text(last)
    assert "hx-get" not in text(page.get(path))


def test_without_scripts_there_is_a_link_to_reload(page: Client, subscription: Subscription) -> None:
    replay = started(subscription)
    assert f'<noscript><a class="button" href="{PATH}{replay.pk}/">Reload</a></noscript>' in text(
        page.get(f"{PATH}{replay.pk}/")
    )


def test_while_nobody_knows_how_many_the_bar_has_no_value(
    page: Client, subscription: Subscription, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays, "MOST", 1)
    failed(subscription, 2)
    replay = replays.start(replays.wish(subscription.tenant, "failed"), by=Actor(ALICE))
    shown = text(page.get(f"{PATH}{replay.pk}/"))
    assert '<progress aria-labelledby="progress-title"></progress>' in shown
    assert "0 done, 0 queued so far" in shown


def test_large_numbers_are_grouped_for_people_and_not_for_the_bar(page: Client, subscription: Subscription) -> None:
    replay = started(subscription)
    Replay.objects.filter(pk=replay.pk).update(queued=1_234_567)
    shown = text(page.get(f"{PATH}{replay.pk}/"))
    assert 'max="1234567"' in shown
    assert "1,234,567 done" in shown.replace("1,234,564 of ", "")


def test_cancel_takes_back_and_a_second_click_says_so(page: Client, subscription: Subscription) -> None:
    replay = started(subscription)
    path = f"{PATH}{replay.pk}/"
    assert "button-danger" in text(page.get(path))
    first = page.post(f"{path}cancel/", follow=True)
    assert "Cancelled. What was not attempted yet" in text(first)
    assert "Taken back" in text(first)
    assert "button-danger" not in text(first)
    assert set(Delivery.objects.values_list("status", flat=True)) == {"failed"}
    second = page.post(f"{path}cancel/", follow=True)
    assert "There was nothing left to cancel." in text(second)
    assert AuditEntry.objects.filter(action="replay.cancelled").count() == 1


def test_whoever_comes_back_to_cancel_from_signing_in_finds_the_page(page: Client, subscription: Subscription) -> None:
    replay = started(subscription)
    response = page.get(f"{PATH}{replay.pk}/cancel/")
    assert response.headers["Location"] == f"{PATH}{replay.pk}/"
    replay.refresh_from_db()
    assert replay.cancelled_at is None


# The list


def test_the_list_says_what_became_of_each(page: Client, subscription: Subscription, others: Subscription) -> None:
    assert "Nothing was replayed yet" in text(page.get(PATH))
    replay = started(subscription)
    started(others, 7)
    assert "Sending" in text(page.get(PATH))
    Delivery.objects.update(status="delivered")
    shown = page.get(PATH)
    assert "Done" in text(shown)
    assert [line.row for line in shown.context["lines"]] == [replay]


def test_a_long_list_takes_few_statements_and_has_pages(
    page: Client, subscription: Subscription, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    now = timezone.now()
    Replay.objects.bulk_create(
        Replay(
            tenant=subscription.tenant,
            subscription=subscription,
            kind="failed",
            until=now,
            by=ALICE,
            created_at=now,
            settled_at=now,
        )
        for _ in range(60)
    )
    with django_assert_max_num_queries(7):
        first = page.get(PATH)
    assert len(first.context["lines"]) == 25
    older = page.get(f"{PATH}?before={first.context['page'].older}")
    assert not {line.row for line in older.context["lines"]} & {line.row for line in first.context["lines"]}


# Who may


@pytest.mark.parametrize("path", ["", "new/", "new/?kind=failed", "{pk}/", "{pk}/cancel/"])
def test_an_outsider_finds_nothing(
    client: Client, subscription: Subscription, django_user_model: type[User], path: str
) -> None:
    replay = started(subscription)
    client.force_login(django_user_model.objects.create_user("charlie"))
    for method in (client.get, client.post):
        assert method(PATH + path.format(pk=replay.pk)).status_code == 404


@pytest.mark.parametrize("path", ["{pk}/", "{pk}/cancel/"])
def test_another_tenants_replay_is_not_there(page: Client, others: Subscription, path: str) -> None:
    replay = started(others)
    for method in (page.get, page.post):
        assert method(PATH + path.format(pk=replay.pk)).status_code in {404, 405}
    replay.refresh_from_db()
    assert replay.cancelled_at is None


@pytest.mark.parametrize("kind", ["failed", "missed", "filtered"])
def test_another_tenants_subscription_is_not_there(page: Client, others: Subscription, kind: str) -> None:
    failed(others)
    path = f"{PATH}new/?kind={kind}&subscription={others.pk}&since=2020-01-01&enable=1"
    for method in (page.get, page.post):
        assert method(path).status_code == 404
    assert not Replay.objects.exists()


def test_a_viewer_looks_and_neither_starts_nor_cancels(
    page: Client, alice: Membership, subscription: Subscription
) -> None:
    alice.role = Role.VIEWER
    alice.save()
    replay = started(subscription)
    assert page.get(PATH).status_code == 200
    assert "button-danger" not in text(page.get(f"{PATH}{replay.pk}/"))
    for path in (f"{PATH}new/", f"{PATH}new/?kind=failed"):
        assert page.get(path).status_code == 403
        assert page.post(path).status_code == 403
    assert page.post(f"{PATH}{replay.pk}/cancel/").status_code == 403
    assert Replay.objects.count() == 1
    replay.refresh_from_db()
    assert replay.cancelled_at is None


def test_a_form_without_its_token_against_forgery_is_refused(alice: Membership, subscription: Subscription) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(alice.user)
    failed(subscription)
    assert strict.post(f"{PATH}new/?kind=failed").status_code == 403
    assert not Replay.objects.exists()

"""What those who only look do not see: the values in a receiver's address."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.contrib.auth.models import User
from django.test import Client

from subscriptions.models import AuditEntry, Role, Subscription, Tenant
from subscriptions.trail import Actor
from tests.webhooks.personas import sign_in, text
from tests.webhooks.traffic import make_attempt, make_delivery
from webhooks import replays
from webhooks.models import Delivery, Replay, Throttle

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.django_db
URL = "https://receiver.example/hooks?token=hunter2"
SHOWN = "https://receiver.example/hooks?token=…"


@pytest.fixture
def failed(tenant: Tenant, subscribe: Callable[..., Subscription]) -> Delivery:
    subscription = subscribe(tenant, "*", url=URL)
    Throttle.objects.create(subscription=subscription, failures=3, failing_since=subscription.created_at)
    delivery = make_delivery(subscription, "failed")
    make_attempt(delivery, "timeout")
    replays.start(replays.wish(tenant, Replay.Kind.FAILED, subscription=subscription), by=Actor("alice"))
    Delivery.objects.update(status="failed")
    return delivery


@pytest.fixture
def pages(failed: Delivery) -> list[str]:
    replay = Replay.objects.get().pk
    of = f"subscriptions/{failed.subscription_id}/"
    return [
        f"/t/acme/{path}"
        for path in ("", of, "deliveries/", f"deliveries/{failed.pk}/", "replays/", f"replays/{replay}/", "audit/")
    ]


@pytest.fixture
def support(tenant: Tenant) -> Client:
    """The operator, who looks at the tenant's pages."""
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    client.post(f"/admin/subscriptions/tenant/{tenant.pk}/support/", {"reason": "ticket 42"})
    return client


def test_a_viewer_sees_where_it_goes_without_the_values(tenant: Tenant, pages: list[str]) -> None:
    viewer = sign_in(tenant, Role.VIEWER)
    shown = {page: text(viewer.get(page)) for page in pages}
    assert all("hunter2" not in html for html in shown.values())
    assert SHOWN in shown[pages[1]]
    assert f"POST {SHOWN}" in shown[pages[3]]


def test_nor_does_support_on_any_page_not_even_on_the_form(failed: Delivery, pages: list[str], support: Client) -> None:
    form = f"/t/acme/subscriptions/{failed.subscription_id}/edit/"
    for page in [*pages, form]:
        response = support.get(page)
        assert response.status_code == 200
        assert "hunter2" not in text(response), page


def test_a_developer_sees_all_of_it(tenant: Tenant, pages: list[str]) -> None:
    developer = sign_in(tenant)
    assert all(URL in text(developer.get(page)) for page in (pages[1], pages[3]))


def test_a_viewer_finds_by_what_is_seen_and_not_by_what_is_not(tenant: Tenant, failed: Delivery) -> None:
    viewer, developer = sign_in(tenant, Role.VIEWER, name="eve"), sign_in(tenant)
    found = {
        words: [("row-link" in client.get("/t/acme/", {"q": words}).content.decode()) for client in (viewer, developer)]
        for words in ("receiver.exa", "RECEIVER", "hunter", "token=h", ".*", "hooks?token=h", "hooks?token=x")
    }
    assert found == {
        "receiver.exa": [True, True],
        "RECEIVER": [True, True],
        "hunter": [False, True],
        "token=h": [False, True],
        ".*": [False, False],
        # What comes after the mark is not looked at.
        "hooks?token=h": [True, True],
        "hooks?token=x": [True, False],
    }


def test_the_audit_log_names_a_host_and_no_address(failed: Delivery) -> None:
    entry = AuditEntry.objects.get(action=AuditEntry.Action.REPLAY_STARTED)
    assert entry.name == "receiver.example"


def test_the_audit_log_says_of_a_replay_of_all_that_it_is(tenant: Tenant, failed: Delivery) -> None:
    replays.start(replays.wish(tenant, Replay.Kind.FAILED), by=Actor("alice"))
    assert "started a replay: <b>all subscriptions</b>" in text(sign_in(tenant).get("/t/acme/audit/"))

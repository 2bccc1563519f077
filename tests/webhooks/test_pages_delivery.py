"""The page of one delivery: what went wrong, what was sent, what came back, and what to do."""

from __future__ import annotations

import re
import subprocess
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.utils import timezone
from standardwebhooks import Webhook

from subscriptions.models import AuditEntry
from tests.webhooks.personas import HTMX, sign_in, text
from tests.webhooks.traffic import BODY, make_attempt, make_delivery, make_event
from webhooks import tasks
from webhooks.models import Delivery, Throttle

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.test import Client
    from pytest_django import DjangoAssertNumQueries

    from subscriptions.models import Subscription, Tenant
    from tests.receiver import Receiver

    Subscribe = Callable[..., Subscription]

pytestmark = [pytest.mark.django_db, pytest.mark.on("sqlite")]


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "ring", lambda: False)


@pytest.fixture
def page(tenant: Tenant) -> Client:
    return sign_in(tenant)


@pytest.fixture
def subscription(tenant: Tenant, subscribe: Subscribe) -> Subscription:
    return subscribe(tenant, "*", name="Billing")


@pytest.fixture
def failed(subscription: Subscription) -> Delivery:
    delivery = make_delivery(subscription, "failed")
    make_attempt(delivery, "timeout", duration_ms=15_003)
    make_attempt(
        delivery, "status", response_status=403, response_headers=b"server: x\r\n", response_body=b'{"error":{"a":1}}'
    )
    return delivery


def path(delivery: Delivery, deed: str = "") -> str:
    return f"/t/acme/deliveries/{delivery.pk}/{deed}"


def poll_of(response: Any) -> str:
    (found,) = re.findall(r'hx-get="([^"]*seen=[^"]*)"', response.content.decode())
    return str(found)


def entries(action: str) -> int:
    return AuditEntry.objects.filter(action=action).count()


def test_it_says_what_went_wrong_and_what_to_do(page: Client, failed: Delivery) -> None:
    said = text(page.get(path(failed)))
    assert "403 Forbidden." in said
    assert "Let requests in that carry a valid signature" in said
    assert failed.event.topic in said
    assert failed.event.webhook_id in said


def test_the_timeline_has_the_newest_first_and_the_response_before_the_request(page: Client, failed: Delivery) -> None:
    said = text(page.get(path(failed)))
    assert said.index("attempt-2") < said.index("attempt-1")
    assert "Timed out after 15 s" in said
    assert said.index(">Response<") < said.index(">Request<")
    assert "server: x" in said
    assert "content-type: application/json" in said


def test_json_that_came_back_is_indented_and_anything_else_is_only_text(page: Client, failed: Delivery) -> None:
    assert "&quot;error&quot;: {\n    &quot;a&quot;: 1" in page.get(path(failed)).content.decode()
    make_attempt(failed, "status", response_body=b"<script>alert(1)</script>\xff\x00", response_cut=True)
    said = text(page.get(path(failed)))
    assert "<script>alert" not in said
    assert r"&lt;script&gt;alert(1)&lt;/script&gt;\xff\x00" in said
    assert "Only the first 27 bytes were kept." in said


def test_header_blocks_of_any_bytes_are_text(page: Client, failed: Delivery) -> None:
    make_attempt(failed, "status", response_headers=b"x-a: <b>\xe4\x1b[31m\r\n")
    assert r"x-a: &lt;b&gt;ä\x1b[31m" in text(page.get(path(failed)))


@pytest.mark.parametrize(
    ("reason", "headers", "said"),
    [
        ("dns", b"host: a.example\r\n", "It was prepared, and nothing of it was sent."),
        ("unsendable", b"", "Nothing was sent."),
        ("lost", b"", "Whether it was sent is not known."),
        ("timeout", b"host: a.example\r\n", "the same on every attempt."),
    ],
)
def test_it_says_whether_anything_was_sent(
    page: Client, subscription: Subscription, reason: str, headers: bytes, said: str
) -> None:
    delivery = make_delivery(subscription)
    make_attempt(delivery, reason, request_headers=headers)
    timeline = text(page.get(path(delivery))).partition('<ol class="timeline">')[2].partition("</ol>")[0]
    assert said in timeline
    assert ("a.example" in timeline) == bool(headers)
    assert ("Followed by" in timeline) == (reason == "timeout")


def test_the_next_attempt_stands_first(page: Client, subscription: Subscription) -> None:
    delivery = make_delivery(
        subscription, "retrying", next_attempt_at=timezone.now() + timedelta(minutes=11, seconds=30)
    )
    make_attempt(delivery, "timeout")
    said = text(page.get(path(delivery)))
    assert "in 11 minutes, unless you replay now" in said
    assert said.index("Next attempt") < said.index("attempt-1")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"next_attempt_at": timezone.now() - timedelta(seconds=1)}, "as soon as a worker is free"),
        ({"leased_until": timezone.now() + timedelta(hours=1)}, "It is on its way."),
    ],
)
def test_what_comes_next_is_said(page: Client, subscription: Subscription, change: dict[str, Any], said: str) -> None:
    delivery = make_delivery(subscription, "pending", **change)
    if "leased_until" in change:
        make_attempt(delivery, ended_at=None, duration_ms=None, response_status=None, request_headers=b"")
    assert said in text(page.get(path(delivery)))


def test_a_delivery_waits_for_its_subscription(page: Client, subscription: Subscription) -> None:
    delivery = make_delivery(subscription, "pending")
    subscription.disable(reason="Maintenance.")
    said = text(page.get(path(delivery)))
    assert "Waits: the subscription is off." in said
    assert 'id="replay"' not in said


def test_a_delivery_waits_for_the_probe_of_a_receiver_that_fails(page: Client, subscription: Subscription) -> None:
    now = timezone.now()
    delivery = make_delivery(subscription, "retrying", next_attempt_at=now)
    Throttle.objects.create(
        subscription=subscription, failures=12, failing_since=now, probe_at=now + timedelta(minutes=3, seconds=30)
    )
    said = text(page.get(path(delivery)))
    assert "in 3 minutes" in said
    assert "one request at a time tries whether it is back" in said


def test_the_page_costs_the_same_however_often_it_was_tried(
    page: Client, failed: Delivery, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for _ in range(30):
        make_attempt(failed, "timeout")
    with django_assert_max_num_queries(7):
        said = text(page.get(path(failed)))
    assert said.count("<details id=") == 20
    assert "?upto=12" in said
    older = text(page.get(f"{path(failed)}?upto=12"))
    assert older.count("<details id=") == 12
    assert "Newest attempts" in older


def test_nobody_of_another_tenant_sees_it(failed: Delivery, make_tenant: Callable[..., Tenant]) -> None:
    other = make_tenant("other")
    charlie = sign_in(other, "owner", name="charlie")
    for deed in ("", "body/", "curl/"):
        assert charlie.get(path(failed, deed)).status_code == 404
        assert charlie.get(f"/t/other/deliveries/{failed.pk}/{deed}").status_code == 404
    for deed in ("replay/", "cancel/"):
        assert charlie.post(f"/t/other/deliveries/{failed.pk}/{deed}").status_code == 404
    failed.refresh_from_db()
    assert failed.status == "failed"


def test_a_viewer_looks_and_changes_nothing(tenant: Tenant, failed: Delivery) -> None:
    viewer = sign_in(tenant, "viewer")
    said = text(viewer.get(path(failed)))
    assert "403 Forbidden" in said
    assert "Copy body" in said
    assert 'id="replay"' not in said
    assert "Copy as curl" not in said
    assert viewer.post(path(failed, "replay/")).status_code == 403
    assert viewer.post(path(failed, "cancel/")).status_code == 403
    assert viewer.get(path(failed, "curl/")).status_code == 403


def test_replay_sends_it_again_and_is_recorded(page: Client, failed: Delivery) -> None:
    response = page.post(path(failed, "replay/"), {"lease": failed.lease}, follow=True)
    failed.refresh_from_db()
    assert (failed.status, failed.trigger, failed.triggered_by) == ("pending", "manual", "alice@acme.example")
    assert "It is being sent again." in text(response)
    assert entries("delivery.replayed") == 1


def test_a_double_click_replays_once(page: Client, failed: Delivery) -> None:
    form = {"lease": failed.lease}
    page.post(path(failed, "replay/"), form)
    # As if a worker had been quick between the two.
    Delivery.objects.filter(pk=failed.pk).update(status="delivered", next_attempt_at=None)
    response = page.post(path(failed, "replay/"), form, follow=True)
    failed.refresh_from_db()
    assert failed.status == "delivered"
    assert "was replayed a moment ago" in text(response)
    assert entries("delivery.replayed") == 1


def test_what_is_being_sent_is_left_alone(page: Client, subscription: Subscription) -> None:
    delivery = make_delivery(subscription, "pending", leased_until=timezone.now() + timedelta(hours=1))
    for deed in ("replay/", "cancel/"):
        assert "being sent" in text(page.post(path(delivery, deed), follow=True))
    assert entries("delivery.replayed") == entries("delivery.cancelled") == 0


def test_nothing_is_replayed_to_a_subscription_that_is_off(page: Client, failed: Delivery) -> None:
    failed.subscription.disable(reason="Maintenance.")
    response = page.post(path(failed, "replay/"), {"lease": failed.lease}, follow=True)
    assert "Turn it on first" in text(response)
    failed.refresh_from_db()
    assert failed.status == "failed"


def test_cancel_ends_what_is_open_and_is_recorded(page: Client, subscription: Subscription) -> None:
    delivery = make_delivery(subscription, "pending")
    assert 'id="cancel"' in text(page.get(path(delivery)))
    assert "It is cancelled" in text(page.post(path(delivery, "cancel/"), follow=True))
    delivery.refresh_from_db()
    assert delivery.status == "cancelled"
    assert entries("delivery.cancelled") == 1
    assert 'id="cancel"' not in text(page.get(path(delivery)))


@pytest.mark.parametrize("deed", ["replay/", "cancel/"])
def test_a_deed_takes_a_post(page: Client, failed: Delivery, deed: str) -> None:
    assert page.get(path(failed, deed)).status_code == 405


def test_while_it_is_open_the_page_polls_and_then_stops(page: Client, subscription: Subscription) -> None:
    delivery = make_delivery(subscription, "retrying")
    poll = poll_of(page.get(path(delivery)))
    assert page.get(poll, headers=HTMX).status_code == 204
    make_attempt(delivery, "timeout")
    response = page.get(poll, headers=HTMX)
    assert response.status_code == 200
    assert "Timed out" in text(response)
    Delivery.objects.filter(pk=delivery.pk).update(status="delivered", next_attempt_at=None)
    last = page.get(poll_of(response), headers=HTMX)
    assert last.status_code == 286
    assert "hx-trigger" not in text(last)
    assert "<html" not in text(last)


def test_what_has_ended_does_not_poll(page: Client, failed: Delivery) -> None:
    assert "hx-trigger" not in text(page.get(path(failed)))


def test_a_long_body_is_read_once_and_shown_once(page: Client, subscription: Subscription, tenant: Tenant) -> None:
    body = b'{"a":"' + b"x" * 200_000 + b'"}'
    delivery = make_delivery(subscription, event=make_event(tenant, body=body))
    for _ in range(5):
        make_attempt(delivery, "timeout")
    response = page.get(path(delivery))
    assert response.content.count(b"x" * 200_000) == 1
    assert "195 KiB" in text(response)


def test_the_body_alone_is_the_exact_bytes_as_text(page: Client, subscription: Subscription, tenant: Tenant) -> None:
    body = '{"a":"<script>ä"}'.encode()
    response = page.get(path(make_delivery(subscription, event=make_event(tenant, body=body)), "body/"))
    assert response.content == body
    assert response["content-type"] == "text/plain; charset=utf-8"
    assert response["x-content-type-options"] == "nosniff"


def test_copied_as_curl_it_arrives_with_a_signature_that_holds(
    page: Client, tenant: Tenant, subscribe: Subscribe, receiver: Receiver
) -> None:
    subscription = subscribe(tenant, "*", url=receiver.url)
    delivery = make_delivery(subscription)
    response = page.get(path(delivery, "curl/?plain"))
    assert response["content-type"] == "text/plain; charset=utf-8"
    assert "no-store" in response["cache-control"]
    subprocess.run(["sh"], input=response.content, check=True, capture_output=True, timeout=30)
    (received,) = receiver.wait_for(1)
    assert received.body == BODY
    assert received.webhook_id == delivery.event.webhook_id
    for secret in subscription.secrets.all():
        Webhook(secret.value).verify(received.body, dict(received.headers))
        assert secret.value not in response.content.decode()


def test_without_scripts_the_command_has_a_page(page: Client, failed: Delivery) -> None:
    response = page.get(path(failed, "curl/"))
    assert "printf %s" in text(response)
    assert "no-store" in response["cache-control"]


def test_there_is_no_command_to_the_inbox_or_without_a_secret(
    page: Client, tenant: Tenant, subscribe: Subscribe, failed: Delivery
) -> None:
    inbox = make_delivery(subscribe(tenant, "*", url="inbox:"))
    failed.subscription.secrets.all().delete()
    for delivery in (inbox, failed):
        assert "There is no command for this delivery" in text(page.get(path(delivery, "curl/?plain")))
    assert "Copy as curl" not in text(page.get(path(inbox)))


def test_a_receiver_cannot_make_the_page_grow_by_what_it_answers(page: Client, subscription: Subscription) -> None:
    """Deep JSON, indented, would be a thousand times as long."""
    delivery = make_delivery(subscription, "failed")
    hostile = b"[" * 300 + b",".join([b"1"] * 7_000) + b"]" * 300
    make_attempt(delivery, "status", response_body=hostile)
    answer = page.get(path(delivery))
    assert answer.status_code == 200
    assert len(answer.content) < 10 * len(hostile)

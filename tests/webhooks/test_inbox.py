"""The built-in inbox, from the claim to the page."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.core.exceptions import ValidationError
from django.db import DatabaseError
from django.utils import timezone
from standardwebhooks.webhooks import Webhook

from subscriptions.addresses import INBOX
from subscriptions.models import Membership, Role, Secret, Subscription
from subscriptions.trail import Actor
from tests.traffic import BODY, make_deliveries, make_event
from tests.webhooks.traffic import make_delivery
from webhooks import deliveries, drain, inbox, recording, rollups, tasks, transport, trials
from webhooks.models import KEPT, Attempt, Delivery, InboxRequest, Rollup

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User
    from django.test import Client
    from pytest_django import DjangoAssertNumQueries
    from pytest_django.fixtures import Settings

    from subscriptions.models import Tenant
    from tests.receiver import Receiver

    Subscribe = Callable[..., Subscription]

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    settings.SIGNALPOST_DATABASES = ["default"]
    monkeypatch.setattr(tasks, "ring", lambda: False)
    monkeypatch.setattr(tasks, "silence", lambda: False)
    monkeypatch.setattr(drain, "_stopping", False)
    monkeypatch.setattr(drain, "_watch", None)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("A network was wanted")

    monkeypatch.setattr(drain, "Network", refuse)


@pytest.fixture
def subscription(tenant: Tenant, subscribe: Subscribe) -> Subscription:
    return subscribe(tenant, "shop.*", url=INBOX)


def lines(block: bytes | memoryview) -> dict[str, str]:
    pairs = (line.partition(": ") for line in bytes(block).decode().split("\r\n") if line)
    return {name: value for name, _, value in pairs}


@pytest.mark.usefixtures("no_network")
class TestArriving:
    def test_what_was_signed_arrives_as_it_would_have_gone_out(self, subscription: Subscription) -> None:
        (delivery,) = make_deliveries(subscription)
        assert drain.run()["delivered"] == 1
        request = InboxRequest.objects.get()
        assert (request.tenant, request.subscription) == (subscription.tenant, subscription)
        assert (request.webhook_id, request.refusal) == (delivery.event.webhook_id, "")
        assert bytes(request.body) == BODY
        headers = lines(request.headers)
        assert headers["content-type"] == "application/json"
        assert headers["content-length"] == str(len(BODY))
        Webhook(subscription.secrets.get().value).verify(bytes(request.body), headers)

    def test_its_attempt_is_recorded_as_any_other(self, subscription: Subscription) -> None:
        make_deliveries(subscription)
        drain.run()
        attempt = Attempt.objects.get()
        assert (attempt.response_status, attempt.reason, attempt.url) == (200, "", INBOX)
        assert bytes(attempt.response_body) == inbox.VALID.encode()
        assert bytes(attempt.request_headers) == bytes(InboxRequest.objects.get().headers)
        assert Delivery.objects.get().status == "delivered"
        assert Rollup.objects.get(subscription=subscription).delivered == 1

    def test_during_a_rotation_either_secret_verifies_it(self, subscription: Subscription) -> None:
        subscription.rotate_secret()
        make_deliveries(subscription)
        drain.run()
        request = InboxRequest.objects.get()
        for secret in subscription.secrets.all():
            Webhook(secret.value).verify(bytes(request.body), lines(request.headers))

    def test_a_test_event_arrives(self, subscription: Subscription) -> None:
        delivery = trials.send(subscription, Actor("alice@acme.example"))
        drain.run()
        assert InboxRequest.objects.get().webhook_id == delivery.event.webhook_id

    def test_what_would_not_verify_is_refused_and_retried(self, subscription: Subscription) -> None:
        make_deliveries(subscription)
        (claim,) = deliveries.claim(1)
        Secret.objects.all().delete()
        subscription.rotate_secret()
        recording.record(inbox.answer([claim]))
        request, attempt = InboxRequest.objects.get(), Attempt.objects.get()
        assert request.refusal.startswith("No signature matches")
        assert (attempt.response_status, attempt.reason) == (400, "status")
        assert bytes(attempt.response_body).decode() == request.refusal
        assert Delivery.objects.get().status == "retrying"

    def test_without_a_secret_that_can_be_read_nothing_can_be_checked(
        self, subscription: Subscription, caplog: pytest.LogCaptureFixture
    ) -> None:
        make_deliveries(subscription)
        (claim,) = deliveries.claim(1)
        Secret.objects.update(ciphertext=b"not one")
        recording.record(inbox.answer([claim]))
        assert "no secret that can be read" in InboxRequest.objects.get().refusal

    def test_what_cannot_be_signed_never_arrives(self, subscription: Subscription) -> None:
        subscription.secrets.all().delete()
        make_deliveries(subscription)
        drain.run()
        assert not InboxRequest.objects.exists()
        assert Attempt.objects.get().reason == "unsendable"

    def test_to_record_the_same_again_keeps_it_once(self, subscription: Subscription) -> None:
        make_deliveries(subscription)
        answered = inbox.answer(deliveries.claim(1))
        recording.record(answered)
        recording.record(answered)
        assert InboxRequest.objects.count() == 1

    def test_what_is_not_recorded_has_not_arrived(
        self, subscription: Subscription, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*args: Any, **kwargs: Any) -> None:
            raise DatabaseError("no")

        make_deliveries(subscription)
        monkeypatch.setattr(rollups, "add", fail)
        with pytest.raises(DatabaseError):
            recording.record(inbox.answer(deliveries.claim(1)))
        assert not InboxRequest.objects.exists()

    def test_a_subscription_that_is_off_gets_nothing(self, subscription: Subscription) -> None:
        subscription.disable(reason="so")
        make_deliveries(subscription)
        drain.run()
        assert not InboxRequest.objects.exists()

    def test_secrets_that_cannot_be_read_now_give_the_claims_back(
        self, subscription: Subscription, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(subscriptions: object) -> None:
            raise RuntimeError("a mistake")

        make_deliveries(subscription)
        monkeypatch.setattr(inbox, "_secrets", fail)
        with pytest.raises(RuntimeError):
            drain.Drain().step()
        delivery = Delivery.objects.get()
        assert (delivery.leased_until, delivery.attempt_count) == (None, 0)


@pytest.mark.django_db(transaction=True)
def test_what_goes_out_and_what_stays_go_side_by_side(
    subscription: Subscription, subscribe: Subscribe, receiver: Receiver, settings: Settings
) -> None:
    settings.SIGNALPOST_ALLOWED_NETWORKS = ["127.0.0.0/8"]
    outside = subscribe(subscription.tenant, url=receiver.url)
    make_deliveries(subscription, 3)
    make_deliveries(outside, 3)
    assert drain.run()["delivered"] == 6
    assert InboxRequest.objects.count() == len(receiver.received) == 3


def test_the_transport_never_takes_it() -> None:
    async def post() -> None:
        client = transport.Client()
        try:
            await client.post(INBOX, headers={}, body=BODY, pool=1)
        finally:
            await client.aclose()

    with pytest.raises(transport.SendFailure) as failure:
        asyncio.run(post())
    assert failure.value.reason == Attempt.Reason.REFUSED_ADDRESS


class TestKeeping:
    def arrive(self, subscription: Subscription, number: int, *, start: int = 0) -> None:
        InboxRequest.objects.keep(
            [
                InboxRequest(
                    tenant=subscription.tenant,
                    subscription=subscription,
                    received_at=timezone.now(),
                    webhook_id=f"evt_{start + n:032x}",
                    headers=b"",
                    body=b"{}",
                )
                for n in range(number)
            ]
        )

    def numbers(self, tenant: Tenant) -> list[int]:
        rows = InboxRequest.objects.for_tenant(tenant).order_by("pk")
        return [int(row.webhook_id.partition("_")[2], 16) for row in rows]

    def test_the_newest_fifty_of_a_tenant_are_kept(
        self, subscription: Subscription, make_tenant: Callable[..., Tenant], subscribe: Subscribe
    ) -> None:
        other = subscribe(make_tenant("other"), url=INBOX)
        second = subscribe(subscription.tenant, url=INBOX)
        self.arrive(other, 3)
        self.arrive(subscription, 45)
        self.arrive(second, 10, start=45)
        assert self.numbers(subscription.tenant) == list(range(5, 55))
        assert self.numbers(other.tenant) == [0, 1, 2]

    def test_of_more_than_fifty_at_once_the_rest_is_never_written(
        self, subscription: Subscription, django_assert_num_queries: DjangoAssertNumQueries
    ) -> None:
        self.arrive(subscription, KEPT)
        with django_assert_num_queries(3):
            self.arrive(subscription, 3 * KEPT, start=1_000)
        assert self.numbers(subscription.tenant) == list(range(1_100, 1_150))

    def test_a_row_of_a_batch_that_was_rolled_back_can_be_written_again(self, subscription: Subscription) -> None:
        make_deliveries(subscription)
        answered = inbox.answer(deliveries.claim(1))
        (outcome,) = [outcome for _, outcome in answered]
        assert outcome.arrived is not None
        outcome.arrived.pk = 12_345  # as the transaction that failed would have left it
        recording.record(answered)
        assert InboxRequest.objects.get().pk != 12_345


class TestAddress:
    def test_a_subscription_may_have_it(self, tenant: Tenant) -> None:
        Subscription(tenant=tenant, url="inbox:").full_clean()

    @pytest.mark.parametrize(
        "url", ["inbox", "INBOX:", "inbox:1", "inbox://", "inbox://acme", " inbox:", "inbox:\n", "inbox:#", "inbox::"]
    )
    def test_and_nothing_like_it(self, tenant: Tenant, url: str) -> None:
        with pytest.raises(ValidationError):
            Subscription(tenant=tenant, url=url).full_clean()


@pytest.fixture
def page(client: Client, tenant: Tenant, django_user_model: type[User]) -> Client:
    alice = django_user_model.objects.create_user("alice", email="alice@acme.example")
    Membership.objects.create(tenant=tenant, user=alice, role=Role.DEVELOPER)
    client.force_login(alice)
    return client


PATH = "/t/acme/inbox/"


def text(response: Any) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", response.content.decode()).split())


def poll_of(response: Any) -> str:
    (url,) = re.findall(r'id="inbox" hx-get="([^"]+)"', response.content.decode())
    return str(url)


@pytest.mark.usefixtures("no_network")
class TestPage:
    def test_each_request_is_shown_with_its_verification(self, page: Client, subscription: Subscription) -> None:
        (delivery,) = make_deliveries(subscription)
        drain.run()
        response = page.get(PATH)
        shown = text(response)
        assert "Verified shop.order.created" in shown
        assert "The signature was made with a current secret of the subscription" in shown
        assert delivery.event.webhook_id in shown
        assert f"content-length: {len(BODY)}" in shown
        assert "&quot;type&quot;: &quot;shop.order.created&quot;," in shown  # on a line of its own
        assert f"/t/acme/deliveries/{delivery.pk}/" in response.content.decode()

    def test_a_refusal_says_why(self, page: Client, subscription: Subscription) -> None:
        make_deliveries(subscription)
        (claim,) = deliveries.claim(1)
        Secret.objects.all().delete()
        subscription.rotate_secret()
        recording.record(inbox.answer([claim]))
        shown = text(page.get(PATH))
        assert "Refused" in shown
        assert "No signature matches" in shown
        assert "Verified" not in shown

    def test_newest_first_and_no_more_than_fifty(self, page: Client, subscription: Subscription) -> None:
        TestKeeping().arrive(subscription, KEPT)
        InboxRequest.objects.create(
            tenant=subscription.tenant,
            subscription=subscription,
            received_at=timezone.now(),
            webhook_id=f"evt_{99:032x}",
            headers=b"",
            body=b"{}",
        )
        html = page.get(PATH).content.decode()
        shown = [int(found, 16) for found in re.findall(r'<dd class="mono">evt_([0-9a-f]+)</dd>', html)]
        assert shown == [99, *range(KEPT - 1, 0, -1)]

    def test_what_strangers_wrote_is_never_markup(self, page: Client, subscription: Subscription) -> None:
        event = make_event(
            subscription.tenant, body=b'{"type":"<script>alert(1)</script>"}', fanned_out_at=timezone.now()
        )
        make_delivery(subscription, "pending", event=event, next_attempt_at=timezone.now() - timedelta(seconds=1))
        drain.run()
        html = page.get(PATH).content.decode()
        assert "&lt;script&gt;alert(1)" in html
        assert "<script>alert" not in html

    def test_of_a_large_body_the_beginning_is_shown_and_the_rest_is_a_link_away(
        self, page: Client, subscription: Subscription, django_assert_max_num_queries: DjangoAssertNumQueries
    ) -> None:
        body = b'{"type":"shop.order.created","data":"' + b"x" * 200_000 + b'"}'
        events = [make_event(subscription.tenant, body=body, fanned_out_at=timezone.now()) for _ in range(KEPT)]
        due = timezone.now() - timedelta(seconds=1)
        for event in events:
            make_delivery(subscription, "pending", event=event, next_attempt_at=due)
        drain.run()
        with django_assert_max_num_queries(8):
            response = page.get(PATH)
        assert len(response.content) < 2_000_000
        assert "Only the first 16 KiB are shown here. See all of it" in text(response)
        assert "195 KiB" in text(response)

    def test_a_delivery_that_was_pruned_is_no_link(self, page: Client, subscription: Subscription) -> None:
        make_deliveries(subscription)
        drain.run()
        Attempt.objects.all().delete()
        Delivery.objects.all().delete()
        html = page.get(PATH).content.decode()
        assert "Verified" in html
        assert "see the delivery" not in html

    def test_the_page_takes_as_many_queries_for_fifty_as_for_one(
        self, page: Client, subscription: Subscription, django_assert_num_queries: DjangoAssertNumQueries
    ) -> None:
        def queries() -> int:
            with django_assert_num_queries(ANY) as captured:
                page.get(PATH)
            return len(captured)

        TestKeeping().arrive(subscription, 1)
        one = queries()
        TestKeeping().arrive(subscription, KEPT)
        assert queries() == one <= 8


@pytest.mark.usefixtures("no_network")
def test_a_deliverys_page_says_that_it_went_to_the_inbox(page: Client, subscription: Subscription) -> None:
    (delivery,) = make_deliveries(subscription)
    drain.run()
    shown = text(page.get(f"/t/acme/deliveries/{delivery.pk}/"))
    assert "Sent to the built-in inbox" in shown
    assert "To the built-in inbox , without a network." in shown
    assert "inbox:" not in shown


class TestPolling:
    def test_a_poll_that_finds_nothing_new_changes_nothing(
        self, page: Client, subscription: Subscription, django_assert_max_num_queries: DjangoAssertNumQueries
    ) -> None:
        TestKeeping().arrive(subscription, 2)
        url = poll_of(page.get(PATH))
        with django_assert_max_num_queries(4):
            response = page.get(url)
        assert (response.status_code, response.content) == (204, b"")

    def test_a_poll_brings_what_is_new_and_says_how_many(self, page: Client, subscription: Subscription) -> None:
        url = poll_of(page.get(PATH))
        TestKeeping().arrive(subscription, 2)
        response = page.get(url)
        assert response.status_code == 200
        assert "2 requests have arrived" in text(response)
        assert response.content.decode().count("<details") == 2
        assert "<html" not in response.content.decode()
        assert page.get(poll_of(response)).status_code == 204

    @pytest.mark.parametrize("seen", ["", "x", "-1", "9" * 30])
    def test_what_is_no_number_is_the_whole_page(self, page: Client, seen: str) -> None:
        assert "<html" in page.get(PATH, {"seen": seen}).content.decode()

    def test_what_was_forgotten_meanwhile_leaves_the_empty_state(
        self, page: Client, subscription: Subscription
    ) -> None:
        TestKeeping().arrive(subscription, 1)
        url = poll_of(page.get(PATH))
        InboxRequest.objects.all().delete()
        assert "Nothing has arrived yet" in text(page.get(url))


class TestEmpty:
    def test_it_leads_to_a_subscription_that_sends_here(self, page: Client) -> None:
        response = page.get(PATH)
        assert "Nothing has arrived yet" in text(response)
        assert 'href="/t/acme/subscriptions/new/?target=inbox"' in response.content.decode()

    def test_the_form_behind_it_has_the_inbox_chosen(self, page: Client) -> None:
        html = page.get("/t/acme/subscriptions/new/?target=inbox").content.decode()
        chosen = re.findall(r'<input[^>]*name="target"[^>]*>', html)
        assert [("checked" in radio) for radio in chosen if 'value="inbox"' in radio] == [True]

    def test_where_there_is_one_it_leads_to_its_test_event(self, page: Client, subscription: Subscription) -> None:
        html = page.get(PATH).content.decode()
        assert "Send a test event" in html
        assert f'href="/t/acme/subscriptions/{subscription.pk}/"' in html

    def test_a_viewer_is_told_who_can_make_one(self, page: Client) -> None:
        Membership.objects.update(role=Role.VIEWER)
        response = page.get(PATH)
        assert "A developer or an owner can create one." in text(response)
        assert "/subscriptions/new/" not in response.content.decode()


class TestIsolation:
    def test_a_tenant_sees_its_own_only(
        self, page: Client, make_tenant: Callable[..., Tenant], subscribe: Subscribe
    ) -> None:
        other = subscribe(make_tenant("other"), url=INBOX, name="Theirs")
        url = poll_of(page.get(PATH))
        TestKeeping().arrive(other, 1)
        assert "Theirs" not in text(page.get(PATH))
        assert page.get(url).status_code == 204

    def test_an_outsider_gets_404(self, page: Client, make_tenant: Callable[..., Tenant]) -> None:
        make_tenant("other")
        assert page.get("/t/other/inbox/").status_code == 404
        assert page.get("/t/other/inbox/?seen=0").status_code == 404

    def test_it_is_read_and_never_written(self, page: Client) -> None:
        assert page.post(PATH).status_code == 405


class _Any:
    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


ANY: Any = _Any()

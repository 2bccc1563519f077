from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import respx
import standardwebhooks
from django.db import DatabaseError, connection, transaction
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from subscriptions.models import Subscription
from webhooks import __version__, deliveries, recording, sending
from webhooks.claims import clock
from webhooks.deliveries import Claim
from webhooks.management.listening import Orders, Received, Receiver
from webhooks.models import Attempt, Delivery, Event, new_event_id
from webhooks.sending import Outcome
from webhooks.transport import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from subscriptions.models import Tenant

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + "A" * 44
BODY = b'{"type":"shop.order.updated","timestamp":"2026-11-21T09:30:00.123Z","tenant":"acme","data":{"n":"\xc3\xa9"}}'
URL = "https://receiver.example/in?a=1"
Reason = Attempt.Reason
Status = Delivery.Status


def a_claim(**fields: Any) -> Claim:
    event_id = new_event_id()
    given: dict[str, Any] = {
        "delivery_id": 1,
        "lease": 1,
        "attempt_id": 1,
        "number": 1,
        "step": 0,
        "webhook_id": f"evt_{event_id.hex}",
        "body": BODY,
        "subscription_id": 1,
        "tenant_id": 1,
        "url": URL,
        "secrets": (SECRET,),
        "claimed_at": clock(),
    }
    return Claim(**{**given, **fields})


class TestPrepare:
    def test_the_request_has_the_stored_bytes_and_the_headers_of_standard_webhooks(self) -> None:
        claim = a_claim()
        request = sending.prepare(claim, timestamp=1_800_000_000)
        assert (request.url, request.body) == (URL, BODY)
        assert {name: value for name, value in request.headers.items() if name != "webhook-signature"} == {
            "content-type": "application/json",
            "user-agent": f"Signalpost/{__version__}",
            "webhook-id": claim.webhook_id,
            "webhook-timestamp": "1800000000",
        }

    def test_the_official_library_verifies_it_with_either_secret_of_a_rotation(self) -> None:
        request = sending.prepare(a_claim(secrets=(OTHER, SECRET)), timestamp=int(time.time()))
        for secret in (OTHER, SECRET):
            verified = standardwebhooks.Webhook(secret).verify(request.body, dict(request.headers))
            assert verified == json.loads(BODY)

    def test_a_later_attempt_differs_in_timestamp_and_signature_only(self) -> None:
        claim = a_claim()
        first = sending.prepare(claim, timestamp=1_800_000_000)
        later = sending.prepare(replace(claim, number=2, step=1, lease=2), timestamp=1_800_000_300)
        assert later.body is first.body
        differing = {name for name in first.headers if first.headers[name] != later.headers[name]}
        assert differing == {"webhook-timestamp", "webhook-signature"}

    def test_without_a_secret_there_is_no_request(self) -> None:
        with pytest.raises(ValueError, match="no secret"):
            sending.prepare(a_claim(secrets=()), timestamp=1)


def call(claim: Claim | None = None, *, transport: httpx.AsyncBaseTransport | None = None) -> Outcome:
    async def run() -> Outcome:
        client = Client(transport)
        try:
            return await sending.call(claim or a_claim(), client)
        finally:
            await client.aclose()

    return asyncio.run(run())


@pytest.fixture
def router() -> respx.MockRouter:
    return respx.MockRouter(assert_all_called=False)


@pytest.fixture
def answered(router: respx.MockRouter) -> Callable[..., Outcome]:
    """What `call` makes of an answer, or of what is raised instead."""

    def make(
        status: int = 200, *, raised: Exception | None = None, claim: Claim | None = None, **fields: Any
    ) -> Outcome:
        if raised is not None:
            router.post(URL).mock(side_effect=raised)
        else:
            router.post(URL).respond(status, **fields)
        return call(claim, transport=httpx.MockTransport(router.async_handler))

    return make


class TestCall:
    @pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
    def test_a_2xx_is_a_delivery(self, answered: Callable[..., Outcome], status: int) -> None:
        outcome = answered(status)
        assert (outcome.reason, outcome.detail, outcome.status, outcome.sent) == ("", "", status, True)

    @pytest.mark.parametrize("status", [300, 301, 304, 400, 401, 404, 410, 429, 500, 503, 599])
    def test_any_other_status_is_a_failure(self, answered: Callable[..., Outcome], status: int) -> None:
        outcome = answered(status)
        assert (outcome.reason, outcome.status, outcome.sent) == (Reason.STATUS, status, True)

    def test_what_goes_out_is_what_was_prepared(
        self, answered: Callable[..., Outcome], router: respx.MockRouter
    ) -> None:
        claim = a_claim()
        outcome = answered(claim=claim)
        (sent,) = router.calls
        assert sent.request.content == BODY
        standardwebhooks.Webhook(SECRET).verify(sent.request.content, dict(sent.request.headers))
        for line in (f"webhook-id: {claim.webhook_id}", "content-type: application/json", "host: receiver.example"):
            assert f"{line}\r\n".encode() in outcome.request_headers.lower()
        assert outcome.url == URL

    def test_redirects_are_not_followed(self, answered: Callable[..., Outcome], router: respx.MockRouter) -> None:
        elsewhere = router.post("https://elsewhere.example/")
        assert answered(307, headers={"location": "https://elsewhere.example/"}).reason == Reason.STATUS
        assert not elsewhere.called

    def test_what_came_back_is_kept_as_it_came(self, answered: Callable[..., Outcome]) -> None:
        outcome = answered(500, headers={"x-what": b"caf\xe9"}, content=b"\x00\xff\xfe no text")
        assert outcome.response_body == b"\x00\xff\xfe no text"
        assert b"x-what: caf\xe9\r\n" in outcome.response_headers.lower()
        assert not outcome.cut

    def test_a_long_answer_is_cut_and_says_so(self, answered: Callable[..., Outcome]) -> None:
        outcome = answered(200, content=b"x" * 20_000)
        assert (outcome.reason, len(outcome.response_body), outcome.cut) == ("", 16 * 1024, True)

    @pytest.mark.parametrize(
        ("value", "seconds"),
        [("120", 120), (" 7 ", 7), ("soon", None), ("Sun, 06 Nov 1994 08:49:37 GMT", 0), (None, None)],
    )
    def test_retry_after_is_read(
        self, answered: Callable[..., Outcome], value: str | None, seconds: float | None
    ) -> None:
        outcome = answered(503, headers={} if value is None else {"Retry-After": value})
        assert outcome.retry_after == seconds

    def test_of_several_retry_afters_the_first_counts(self, answered: Callable[..., Outcome]) -> None:
        assert answered(503, headers=[("retry-after", "5"), ("Retry-After", "900")]).retry_after == 5

    @pytest.mark.parametrize(
        ("raised", "reason", "sent"),
        [
            (httpx.ConnectError("no"), Reason.CONNECT, False),
            (httpx.ReadTimeout("slow"), Reason.TIMEOUT, True),
            (httpx.RemoteProtocolError("what?"), Reason.PROTOCOL, True),
        ],
    )
    def test_a_failure_on_the_way_is_an_outcome(
        self, answered: Callable[..., Outcome], raised: Exception, reason: Attempt.Reason, sent: bool
    ) -> None:
        outcome = answered(raised=raised)
        assert (outcome.reason, outcome.status, outcome.sent, outcome.response_body) == (reason, None, sent, b"")
        assert b"webhook-signature: v1," in outcome.request_headers

    @pytest.mark.parametrize("broken", [{"secrets": ()}, {"secrets": ("nonsense",)}, {"body": b""}])
    def test_what_cannot_be_built_is_not_sent(
        self, answered: Callable[..., Outcome], router: respx.MockRouter, broken: dict[str, Any]
    ) -> None:
        outcome = answered(claim=a_claim(**broken))
        assert (outcome.reason, outcome.sent, outcome.request_headers) == (Reason.UNSENDABLE, False, b"")
        assert outcome.detail
        assert not router.calls

    def test_a_secret_is_never_part_of_the_detail(self, answered: Callable[..., Outcome]) -> None:
        assert "swordfish" not in answered(claim=a_claim(secrets=("swordfish",))).detail

    def test_a_mistake_of_ours_costs_the_attempt_and_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        class Broken(Client):
            async def post(self, *args: Any, **kwargs: Any) -> Any:
                raise RuntimeError("boom")

        outcome = asyncio.run(sending.call(a_claim(delivery_id=77), Broken()))
        assert (outcome.reason, outcome.detail) == (Reason.LOST, "RuntimeError: boom")
        assert "delivery 77" in caplog.text

    def test_only_a_cancellation_is_raised(self) -> None:
        class Hanging(Client):
            async def post(self, *args: Any, **kwargs: Any) -> Any:
                await asyncio.Event().wait()

        async def run() -> None:
            task = asyncio.create_task(sending.call(a_claim(), Hanging()))
            await asyncio.sleep(0)
            task.cancel()
            await task

        with pytest.raises(asyncio.CancelledError):
            asyncio.run(run())

    def test_it_says_how_long_it_took(self, answered: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
        ticks = iter([10.0, 11.5])
        clock = SimpleNamespace(monotonic=lambda: next(ticks), time=time.time)
        monkeypatch.setattr(sending, "time", clock)
        assert answered().duration_ms == 1500


class TestCallOverTheNetwork:
    """The client as it is, against receivers that are really there."""

    @pytest.fixture
    def receiver(self) -> Iterator[tuple[str, list[Received]]]:
        got: list[Received] = []
        orders = Orders(status=500, times=1)
        receiver = Receiver(
            ("127.0.0.1", 0), secrets=[SECRET], orders=orders, on_webhook=got.append, on_nonsense=lambda _: None
        )
        thread = threading.Thread(target=receiver.serve_forever, args=(0.01,))
        thread.start()
        yield receiver.url, got
        receiver.shutdown()
        receiver.server_close()
        thread.join()

    def test_a_receiver_verifies_each_attempt(self, receiver: tuple[str, list[Received]]) -> None:
        url, got = receiver
        claim = a_claim(url=url)
        assert [call(claim).status for _ in range(2)] == [500, 204]
        assert [(webhook.problem, webhook.again) for webhook in got] == [("", False), ("", True)]
        assert {(webhook.webhook_id, webhook.body) for webhook in got} == {(claim.webhook_id, BODY)}

    def test_a_port_where_nobody_listens(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        outcome = call(a_claim(url=f"http://127.0.0.1:{port}/"))
        assert (outcome.reason, outcome.sent) == (Reason.CONNECT, False)

    def test_an_address_that_is_not_allowed(self, receiver: tuple[str, list[Received]], settings: Any) -> None:
        settings.SIGNALPOST_ALLOWED_NETWORKS = []
        url, got = receiver
        outcome = call(a_claim(url=url))
        assert (outcome.reason, outcome.sent, got) == (Reason.REFUSED_ADDRESS, False, [])

    @pytest.mark.parametrize("answer", [b"220 smtp.example ESMTP\r\n", b""])
    def test_something_that_is_not_http(self, answer: bytes) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:

            def answer_once() -> None:
                peer, _ = server.accept()
                with peer:
                    peer.recv(65_536)
                    peer.sendall(answer)

            thread = threading.Thread(target=answer_once)
            thread.start()
            outcome = call(a_claim(url=f"http://127.0.0.1:{server.getsockname()[1]}/"))
            thread.join()
        assert (outcome.reason, outcome.sent) == (Reason.PROTOCOL, True)

    def test_a_receiver_that_never_answers(self, settings: Any) -> None:
        settings.SIGNALPOST_REQUEST_TIMEOUT = 0.1
        with socket.create_server(("127.0.0.1", 0)) as silent:
            outcome = call(a_claim(url=f"http://127.0.0.1:{silent.getsockname()[1]}/"))
        assert (outcome.reason, outcome.sent) == (Reason.TIMEOUT, True)
        assert 100 <= outcome.duration_ms < 5_000


@pytest.fixture
def claimed(tenant: Tenant, subscribe: Callable[..., Subscription]) -> Callable[..., list[Claim]]:
    """So many deliveries to one subscription, claimed just now."""

    def make(count: int = 1, **fields: Any) -> list[Claim]:
        subscription = Subscription.objects.first() or subscribe(tenant, "shop.*", url=URL)
        for _ in range(count):
            event = Event.objects.create(
                tenant=tenant, topic="shop.order.updated", body=BODY, created_at=timezone.now(), fanned_out_at=Now()
            )
            Delivery.objects.create(
                event=event,
                subscription=subscription,
                tenant=tenant,
                created_at=Now(),
                next_attempt_at=Now(),
                **fields,
            )
        claims = deliveries.claim(count)
        assert len(claims) == count
        return claims

    return make


def ok(**fields: Any) -> Outcome:
    return Outcome(**{"url": URL, "duration_ms": 12, "sent": True, "status": 204, **fields})


def failure(status: int | None = 500, **fields: Any) -> Outcome:
    return ok(**{"status": status, "reason": Reason.STATUS, **fields})


def counted(counts: Any) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


def record(claim: Claim, outcome: Outcome) -> dict[str, int]:
    return counted(sending.record([(claim, outcome)]))


def delivery_of(claim: Claim) -> Delivery:
    return Delivery.objects.get(pk=claim.delivery_id)


def attempt_of(claim: Claim) -> Attempt:
    return Attempt.objects.get(pk=claim.attempt_id)


def wait_of(claim: Claim) -> float:
    """Seconds from the attempt's end to the next, both by the database's clock."""
    next_attempt_at, ended_at = delivery_of(claim).next_attempt_at, attempt_of(claim).ended_at
    assert next_attempt_at is not None
    assert ended_at is not None
    return (next_attempt_at - ended_at).total_seconds()


def lease_runs_out(claim: Claim) -> None:
    past = Now() - timedelta(seconds=1)
    Delivery.objects.filter(pk=claim.delivery_id).update(leased_until=past, next_attempt_at=past)


def claimed_by_another(claim: Claim) -> Claim:
    lease_runs_out(claim)
    (other,) = deliveries.claim(1)
    assert other.delivery_id == claim.delivery_id
    return other


@pytest.fixture
def claim(claimed: Callable[..., list[Claim]]) -> Claim:
    return claimed()[0]


class TestRecordDelivered:
    def test_the_delivery_is_at_its_end(self, claim: Claim) -> None:
        assert record(claim, ok()) == {"delivered": 1}
        delivery = delivery_of(claim)
        assert (delivery.status, delivery.leased_until, delivery.next_attempt_at) == (Status.DELIVERED, None, None)
        assert delivery.ended_at is not None
        assert (delivery.attempt_count, delivery.schedule_step) == (1, 0)

    def test_the_attempt_keeps_all_that_went_and_came(self, claim: Claim) -> None:
        outcome = ok(
            request_headers=b"host: receiver.example\r\n",
            response_headers=b"x: caf\xe9\r\n",
            response_body=bytes(range(256)),
            cut=True,
        )
        record(claim, outcome)
        attempt = attempt_of(claim)
        assert attempt.delivered
        assert bytes(attempt.request_headers) == outcome.request_headers
        assert bytes(attempt.response_headers) == outcome.response_headers
        assert bytes(attempt.response_body) == outcome.response_body
        assert (attempt.response_status, attempt.response_cut, attempt.duration_ms) == (204, True, 12)
        assert (attempt.number, attempt.lease, attempt.url, attempt.reason, attempt.detail) == (1, 1, URL, "", "")
        assert attempt.ended_at is not None
        assert attempt.ended_at >= attempt.started_at

    def test_nothing_is_recorded_of_nothing(self, db: None, django_assert_num_queries: Any) -> None:
        with django_assert_num_queries(0):
            assert sending.record([]) == {}


class TestRecordFailure:
    def test_it_is_tried_again_as_the_schedule_says(self, claim: Claim) -> None:
        assert record(claim, failure()) == {"retrying": 1}
        delivery = delivery_of(claim)
        assert (delivery.status, delivery.schedule_step, delivery.leased_until) == (Status.RETRYING, 1, None)
        assert delivery.ended_at is None
        assert 3 <= wait_of(claim) <= 6.1
        attempt = attempt_of(claim)
        assert (attempt.reason, attempt.response_status, attempt.delivered) == (Reason.STATUS, 500, False)

    @pytest.mark.parametrize(
        ("outcome", "least", "most"),
        [
            (failure(503), 60, 61),
            (failure(429, retry_after=120.0), 120, 121),
            (failure(500, retry_after=0.0), 4, 6.1),
            (failure(503, retry_after=float("inf")), 86_400, 86_401),
        ],
    )
    def test_busy_receivers_and_retry_after_are_respected(
        self, claim: Claim, outcome: Outcome, least: float, most: float
    ) -> None:
        record(claim, outcome)
        # The attempt's end is written a statement later than the wait begins.
        assert least - 1 <= wait_of(claim) <= most

    def test_the_settings_are_the_policy(self, claim: Claim, settings: Any) -> None:
        settings.SIGNALPOST_RETRY_SCHEDULE = [1_000]
        settings.SIGNALPOST_RETRY_JITTER = 0
        record(claim, failure())
        assert wait_of(claim) == pytest.approx(1_000, abs=1)

    def test_a_wait_of_almost_nothing_is_written_in_digits(self, claim: Claim, settings: Any) -> None:
        settings.SIGNALPOST_RETRY_SCHEDULE = [1e-7]
        record(claim, failure())
        assert wait_of(claim) == pytest.approx(0, abs=1)

    def test_after_the_last_step_the_delivery_has_failed(self, claimed: Callable[..., list[Claim]]) -> None:
        (claim,) = claimed(schedule_step=9)
        assert record(claim, failure()) == {"failed": 1}
        delivery = delivery_of(claim)
        assert (delivery.status, delivery.next_attempt_at, delivery.leased_until) == (Status.FAILED, None, None)
        assert delivery.ended_at is not None

    def test_the_whole_schedule_makes_ten_attempts(self, claim: Claim) -> None:
        attempts = 1
        while record(claim, failure()) == {"retrying": 1}:
            Delivery.objects.update(next_attempt_at=Now())
            (claim,) = deliveries.claim(1)
            attempts += 1
        assert attempts == Attempt.objects.count() == delivery_of(claim).attempt_count == 10
        assert delivery_of(claim).status == Status.FAILED

    @pytest.mark.parametrize("reason", Reason)
    def test_every_reason_is_tried_again(self, claim: Claim, reason: Attempt.Reason) -> None:
        assert record(claim, failure(None, reason=reason)) == {"retrying": 1}
        assert (attempt_of(claim).reason, attempt_of(claim).response_status) == (reason, None)

    def test_after_a_replay_that_fails_the_schedule_takes_over(self, claim: Claim) -> None:
        record(claim, ok())
        deliveries.replay(Delivery.objects.all(), by="alice")
        (again,) = deliveries.claim(1)
        assert (attempt_of(again).trigger, attempt_of(again).triggered_by) == ("manual", "alice")
        record(again, failure())
        delivery = delivery_of(claim)
        assert (delivery.trigger, delivery.triggered_by, delivery.status) == ("schedule", "", Status.RETRYING)

    @pytest.mark.parametrize(
        ("detail", "kept"),
        [
            ("a\0b\0", "ab"),
            ("\0" * 600 + "x", "x"),
            ("é" * 600, "é" * 500),
            ("\ud800!", "?!"),
        ],
    )
    def test_a_detail_of_any_kind_can_be_kept(self, claim: Claim, detail: str, kept: str) -> None:
        record(claim, failure(None, reason=Reason.PROTOCOL, detail=detail))
        assert attempt_of(claim).detail == kept


class TestRecordGone:
    def test_410_turns_the_subscription_off_and_says_why(self, claimed: Callable[..., list[Claim]]) -> None:
        first, second, third = claimed(3)
        deliveries.release([second, third])
        assert record(first, failure(410)) == {"failed": 1, "turned_off": 1}
        subscription = Subscription.objects.get()
        assert not subscription.enabled
        assert subscription.disabled_reason == "The receiver answered 410 Gone."
        assert delivery_of(first).status == Status.FAILED
        assert delivery_of(second).status == Status.PENDING
        assert deliveries.claim(3) == []

    def test_several_at_once_turn_it_off_once(self, claimed: Callable[..., list[Claim]]) -> None:
        counts = sending.record([(claim, failure(410)) for claim in claimed(3)])
        assert counted(counts) == {"failed": 3, "turned_off": 1}

    def test_one_that_comes_late_does_not_turn_it_off(self, claim: Claim) -> None:
        claimed_by_another(claim)
        assert record(claim, failure(410)) == {"late": 1}
        assert Subscription.objects.get().enabled

    def test_one_over_a_subscription_that_is_off_keeps_its_reason(self, claim: Claim) -> None:
        Subscription.objects.get().disable(reason="by hand")
        assert record(claim, failure(410)) == {"failed": 1}
        assert Subscription.objects.get().disabled_reason == "by hand"


class TestLateResults:
    """A failure counts only under the current lease; a success is final whoever brings it."""

    def test_a_late_failure_changes_nothing_but_its_own_attempt(self, claim: Claim) -> None:
        other = claimed_by_another(claim)
        before = Delivery.objects.values().get()
        assert attempt_of(claim).reason == Reason.LOST
        assert record(claim, failure(503, detail="late")) == {"late": 1}
        assert Delivery.objects.values().get() == before
        assert (attempt_of(claim).reason, attempt_of(claim).response_status) == (Reason.STATUS, 503)
        assert attempt_of(other).ended_at is None

    def test_a_late_failure_under_a_lease_that_nobody_took_over_counts(self, claim: Claim) -> None:
        lease_runs_out(claim)
        assert record(claim, failure()) == {"retrying": 1}

    def test_a_late_failure_after_another_s_failure_does_not_count_twice(self, claim: Claim) -> None:
        other = claimed_by_another(claim)
        assert record(other, failure()) == {"retrying": 1}
        before = Delivery.objects.values().get()
        assert record(claim, failure()) == {"late": 1}
        assert Delivery.objects.values().get() == before

    @pytest.mark.parametrize("status", [Status.DELIVERED, Status.FAILED, Status.CANCELLED])
    def test_a_failure_never_reopens_what_has_ended(self, claim: Claim, status: str) -> None:
        Delivery.objects.update(status=status)
        assert record(claim, failure()) == {"late": 1}
        assert delivery_of(claim).status == status

    def test_a_failure_does_not_count_against_a_replay_made_meanwhile(self, claim: Claim) -> None:
        lease_runs_out(claim)
        deliveries.replay(Delivery.objects.all(), by="alice")
        assert record(claim, failure()) == {"late": 1}
        delivery = delivery_of(claim)
        assert (delivery.status, delivery.trigger, delivery.schedule_step) == (Status.PENDING, "manual", 0)

    def test_a_success_ends_a_delivery_that_another_holds(self, claim: Claim) -> None:
        other = claimed_by_another(claim)
        assert record(claim, ok()) == {"delivered": 1}
        delivery = delivery_of(claim)
        assert (delivery.status, delivery.leased_until, delivery.next_attempt_at) == (Status.DELIVERED, None, None)
        assert record(other, failure()) == {"late": 1}
        assert delivery_of(claim).status == Status.DELIVERED

    @pytest.mark.parametrize("status", [Status.RETRYING, Status.FAILED, Status.CANCELLED])
    def test_a_success_is_final_over_any_other_status(self, claim: Claim, status: str) -> None:
        Delivery.objects.update(status=status, lease=F("lease") + 3)
        assert record(claim, ok()) == {"delivered": 1}
        delivery = delivery_of(claim)
        assert (delivery.status, delivery.leased_until, delivery.next_attempt_at) == (Status.DELIVERED, None, None)
        assert delivery.ended_at is not None

    def test_a_second_success_does_not_move_the_end(self, claim: Claim) -> None:
        other = claimed_by_another(claim)
        record(other, ok())
        ended_at = delivery_of(claim).ended_at
        assert record(claim, ok()) == {"late": 1}
        assert delivery_of(claim).ended_at == ended_at
        assert attempt_of(claim).delivered

    @pytest.mark.parametrize("outcome", [ok(), failure(), failure(410)])
    def test_the_same_recorded_twice_counts_once(self, claim: Claim, outcome: Outcome) -> None:
        record(claim, outcome)
        before = Delivery.objects.values().get()
        assert record(claim, outcome) == {"late": 1}
        assert Delivery.objects.values().get() == before

    def test_what_was_deleted_meanwhile_is_no_error(self, claimed: Callable[..., list[Claim]]) -> None:
        claims = claimed(3)
        Subscription.objects.all().delete()
        outcomes = [ok(), failure(), failure(410)]
        assert counted(sending.record(list(zip(claims, outcomes, strict=True)))) == {"late": 3}
        assert not Attempt.objects.exists()


class TestBatches:
    OUTCOMES = (
        ok(),
        failure(),
        failure(None, reason=Reason.TIMEOUT),
        failure(503),
        failure(410),
        failure(None, reason=Reason.UNSENDABLE),
    )

    def test_each_gets_its_own(self, claimed: Callable[..., list[Claim]]) -> None:
        claims = claimed(len(self.OUTCOMES))
        bodies = [f"answer {number}".encode() for number in range(len(claims))]
        results = [
            (claim, replace(outcome, response_body=body))
            for claim, outcome, body in zip(claims, self.OUTCOMES, bodies, strict=True)
        ]
        assert counted(sending.record(results)) == {"delivered": 1, "retrying": 4, "failed": 1, "turned_off": 1}
        assert [delivery_of(claim).status for claim in claims] == [
            Status.DELIVERED,
            Status.RETRYING,
            Status.RETRYING,
            Status.RETRYING,
            Status.FAILED,
            Status.RETRYING,
        ]
        assert [attempt_of(claim).response_status for claim in claims] == [204, 500, None, 503, 410, None]
        assert [bytes(attempt_of(claim).response_body) for claim in claims] == bodies
        assert wait_of(claims[3]) > 50 > wait_of(claims[1])

    @pytest.mark.parametrize("count", [1, 25])
    def test_a_batch_takes_a_few_statements_whatever_its_size(
        self, claimed: Callable[..., list[Claim]], settings: Any, django_assert_max_num_queries: Any, count: int
    ) -> None:
        settings.SIGNALPOST_IN_FLIGHT_PER_SUBSCRIPTION = 1_000
        claims = claimed(3 * count)
        first, again, last = claims[::3], claims[1::3], claims[2::3]
        results = [(claim, ok()) for claim in first] + [(claim, failure()) for claim in again]
        results += [(replace(claim, step=9), failure()) for claim in last]
        with django_assert_max_num_queries(9):  # the savepoint's two, a lock, one per kind, the attempts, the counts
            assert sum(sending.record(results).values()) == 3 * count

    def test_a_batch_beyond_what_one_statement_takes_is_split(
        self, claimed: Callable[..., list[Claim]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(recording, "MOST_ROWS", 2)
        claims = claimed(5)
        assert counted(sending.record([(claim, failure()) for claim in claims])) == {"retrying": 5}
        assert not Attempt.objects.filter(ended_at=None).exists()

    def test_all_of_it_is_written_or_nothing(self, claimed: Callable[..., list[Claim]]) -> None:
        claims = claimed(2)
        before = list(Delivery.objects.order_by("pk").values())
        results = [(claims[0], ok()), (claims[1], failure(10**30))]
        with pytest.raises((DatabaseError, OverflowError)), transaction.atomic():
            sending.record(results)
        assert list(Delivery.objects.order_by("pk").values()) == before

    @pytest.mark.django_db(transaction=True)
    def test_two_workers_with_the_same_deliveries_wait_for_each_other(
        self, claimed: Callable[..., list[Claim]], settings: Any
    ) -> None:
        settings.SIGNALPOST_IN_FLIGHT_PER_SUBSCRIPTION = 1_000
        late = claimed(60)
        Delivery.objects.update(leased_until=Now() - timedelta(seconds=1), next_attempt_at=Now() - timedelta(seconds=1))
        current = deliveries.claim(60)
        assert len(current) == 60
        together, counts = threading.Barrier(2), []

        def work(results: list[tuple[Claim, Outcome]]) -> None:
            together.wait(10)
            counts.append(sending.record(results))
            connection.close()

        threads = [
            threading.Thread(target=work, args=([(claim, ok()) for claim in late],)),
            threading.Thread(target=work, args=([(claim, failure()) for claim in reversed(current)],)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(counts) == 2
        assert set(Delivery.objects.values_list("status", flat=True)) == {Status.DELIVERED}
        assert not Delivery.objects.exclude(leased_until=None, next_attempt_at=None).exists()

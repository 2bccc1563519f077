"""Tenants in every state that a page has to show, as rows: no sending, and
the same each time but for the clock."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.utils import timezone

from examples.shop.models import Customer, Order
from subscriptions.models import ApiKey, AuditEntry, Invitation, Membership, Role, Subscription, Tenant
from subscriptions.trail import Actor, note
from webhooks.models import BUCKETS_MS, Attempt, Delivery, Event, InboxRequest, Replay, Rollup, Throttle

if TYPE_CHECKING:
    from collections.abc import Iterator

ALICE, BOB, CHARLIE = "alice@acme.example", "bob@acme.example", "charlie@other.example"
LONG_URL = (
    "https://hooks.integrations.eu-central-1.a-rather-long-name.example/v2/accounts/8f14e45fceea167a/" + "x" * 300
)
LONG_NAME = "The subscription of the warehouse in Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch"
CERTIFICATE = "certificate verify failed: certificate has expired"
TOPICS = ("shop.order.created", "shop.order.updated", "shop.customer.updated", "shop.tag.deleted")


@dataclass(frozen=True)
class Showcase:
    tenant: Tenant
    fresh: Tenant
    healthy: Subscription
    failing: Subscription
    off: Subscription
    inbox: Subscription
    deliveries: dict[str, Delivery]
    running: Replay


def body(topic: str, number: int, *, size: int = 0) -> bytes:
    thing = {"id": number, "number": f"A-{number}", "status": "paid", "total": "129.00", "note": "ä€😀" + "x" * size}
    data = {"object": thing, "changes": {"status": {"from": "new", "to": "paid"}}}
    return json.dumps({"type": topic, "timestamp": "2026-11-21T09:30:00.123Z", "tenant": "acme", "data": data}).encode()


class Stage:
    def __init__(self) -> None:
        self.now = timezone.now()
        self.random = Random(4)  # noqa: S311 - the same each time
        self.number = 1_000

    def person(self, email: str) -> Any:
        user, _ = get_user_model().objects.get_or_create(username=email, email=email)
        return user

    def subscription(self, tenant: Tenant, url: str, *topics: str, **fields: Any) -> Subscription:
        subscription = Subscription.objects.create(tenant=tenant, url=url, **fields)
        subscription.listen_to(*topics)
        subscription.rotate_secret()
        return subscription

    def event(self, tenant: Tenant, topic: str, *, age: timedelta, size: int = 0) -> Event:
        self.number += 1
        at = self.now - age
        return Event.objects.create(
            tenant=tenant, topic=topic, body=body(topic, self.number, size=size), created_at=at, fanned_out_at=at
        )

    def delivery(
        self,
        subscription: Subscription,
        status: str,
        *attempts: dict[str, Any],
        age: timedelta,
        topic: str = TOPICS[1],
        size: int = 0,
        **fields: Any,
    ) -> Delivery:
        event = self.event(subscription.tenant, topic, age=age, size=size)
        is_open = status in Delivery.OPEN
        delivery = Delivery.objects.create(
            event=event,
            subscription=subscription,
            tenant=subscription.tenant,
            status=status,
            created_at=event.created_at,
            next_attempt_at=self.now + timedelta(minutes=11) if is_open else None,
            ended_at=None if is_open else event.created_at + timedelta(seconds=1),
            attempt_count=len(attempts),
            schedule_step=len(attempts),
            **fields,
        )
        for number, attempt in enumerate(attempts, start=1):
            self.attempt(delivery, number, **attempt)
        return delivery

    def attempt(self, delivery: Delivery, number: int, *, reason: str = "", **fields: Any) -> None:
        at = delivery.created_at + timedelta(minutes=5 * (number - 1))
        sent = reason not in {"dns", "refused_address", "connect", "tls", "unsendable"}
        headers = (
            f"host: receiver.example\r\ncontent-type: application/json\r\nwebhook-id: {delivery.event.webhook_id}\r\n"
            f"webhook-timestamp: {int(at.timestamp())}\r\nwebhook-signature: v1,{'c2lnbmF0dXJl' * 3}\r\n"
            f"user-agent: Signalpost\r\ncontent-length: {len(bytes(delivery.event.body))}\r\n"
        )
        values = {
            "lease": number,
            "trigger": "schedule",
            "url": delivery.subscription.url,
            "started_at": at,
            "ended_at": at + timedelta(milliseconds=180),
            "duration_ms": self.random.randint(40, 900),
            "request_headers": headers.encode() if sent else b"",
            "response_status": 204 if not reason else None,
            "response_headers": b"content-type: application/json\r\nserver: nginx\r\n" if sent else b"",
            **fields,
        }
        Attempt.objects.create(delivery=delivery, number=number, reason=reason, **values)

    def rollups(self, subscription: Subscription, *, failing: bool) -> None:
        hour = self.now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        for back in range(24):
            self.rollup(subscription, Rollup.Span.HOUR, hour - timedelta(hours=back), 40, failing=failing and back < 6)
        day = datetime(hour.year, hour.month, hour.day, tzinfo=UTC)
        for back in range(2, 30):
            self.rollup(subscription, Rollup.Span.DAY, day - timedelta(days=back), 900, failing=back == 17)

    def rollup(self, subscription: Subscription, span: str, at: datetime, mean: int, *, failing: bool) -> None:
        delivered = 0 if failing else self.random.randint(mean // 3, mean * 2)
        failed = self.random.randint(mean // 4, mean // 2) if failing else self.random.randint(0, mean // 20)
        buckets = dict.fromkeys((f"took_{number}" for number in range(len(BUCKETS_MS) + 1)), 0)
        for _ in range(delivered + failed):
            buckets[f"took_{min(11, max(0, round(self.random.gauss(4, 1.3))))}"] += 1
        counts = {
            "attempts": delivered + failed,
            "delivered": delivered,
            "at_first": max(0, delivered - failed),
            "failed": failed // 3,
            **buckets,
        }
        Rollup.objects.update_or_create(subscription=subscription, span=span, starts_at=at, defaults=counts)


def build() -> Showcase:
    stage = Stage()
    alice, bob, charlie = map(stage.person, (ALICE, BOB, CHARLIE))
    tenant = Tenant.objects.create(slug="acme", name="Acme Warehousing")
    fresh = Tenant.objects.create(slug="fresh", name="Fresh Ltd")
    other = Tenant.objects.create(slug="other", name="Other Inc")
    for user, where, role in (
        (alice, tenant, Role.OWNER),
        (bob, tenant, Role.VIEWER),
        (alice, fresh, Role.OWNER),
        (charlie, other, Role.OWNER),
    ):
        Membership.objects.create(tenant=where, user=user, role=role)
    healthy = stage.subscription(
        tenant, "https://billing.example/webhooks", "shop.order.created", "shop.order.updated", name="Billing"
    )
    failing = stage.subscription(tenant, LONG_URL, "*", name=LONG_NAME, rate_limit=50)
    off = stage.subscription(tenant, "https://old.example/in", "shop.customer.*", name="")
    inbox = stage.subscription(tenant, "inbox:", "shop.*", name="Try-outs")
    for subscription in (healthy, failing, off):
        stage.rollups(subscription, failing=subscription is not healthy)
    off.disable(reason="Nothing but failures for 5 days.")
    since = stage.now - timedelta(hours=5)
    # The worker may have made one already.
    failing_for_hours = {"failures": 14, "failing_since": since, "probe_at": stage.now}
    Throttle.objects.update_or_create(subscription=failing, defaults=failing_for_hours)
    running = _running(stage, tenant, inbox)  # of older deliveries than the others
    deliveries = dict(_deliveries(stage, healthy, failing, off))
    _rest(stage, tenant, failing, inbox, alice)
    return Showcase(
        tenant=tenant,
        fresh=fresh,
        healthy=healthy,
        failing=failing,
        off=off,
        inbox=inbox,
        deliveries=deliveries,
        running=running,
    )


def _deliveries(
    stage: Stage, healthy: Subscription, failing: Subscription, off: Subscription
) -> Iterator[tuple[str, Delivery]]:
    for number in range(60):
        stage.delivery(healthy, "delivered", {}, age=timedelta(hours=6, minutes=7 * number), topic=TOPICS[number % 2])
    for number in range(14):
        stage.delivery(
            off, "failed", {"reason": "connect", "detail": "Connection refused"}, age=timedelta(days=2 + number / 9)
        )
    refused = {
        "reason": "status",
        "response_status": 500,
        "response_body": b'{"error": {"code": "db", "message": "no"}}',
    }
    hostile = {
        "reason": "status",
        "response_status": 403,
        "response_body": b"<script>alert(1)</script><h1>No</h1>\xff\xfe",
    }
    late = {"reason": "timeout", "duration_ms": 15_004}
    yield "delivered", stage.delivery(healthy, "delivered", refused, {}, age=timedelta(minutes=3))
    yield "failed", stage.delivery(failing, "failed", refused, late, hostile, age=timedelta(minutes=50))
    yield "retrying", stage.delivery(failing, "retrying", late, age=timedelta(minutes=20))
    yield "pending", stage.delivery(failing, "pending", age=timedelta(seconds=5), topic=TOPICS[2])
    yield "cancelled", stage.delivery(failing, "cancelled", late, age=timedelta(minutes=80))
    yield "tls", stage.delivery(failing, "failed", {"reason": "tls", "detail": CERTIFICATE}, age=timedelta(hours=2))
    yield "gone", stage.delivery(off, "failed", {"reason": "status", "response_status": 410}, age=timedelta(days=2))
    yield (
        "large",
        stage.delivery(
            healthy,
            "delivered",
            {"response_body": b"o" * 16_384, "response_cut": True},
            age=timedelta(hours=3),
            size=200_000,
        ),
    )
    for reason in ("dns", "refused_address", "protocol", "too_large", "lost"):
        yield reason, stage.delivery(failing, "failed", {"reason": reason}, age=timedelta(hours=4), topic=TOPICS[3])


def _rest(stage: Stage, tenant: Tenant, failing: Subscription, inbox: Subscription, alice: Any) -> None:
    customer = Customer.objects.create(tenant=tenant, name="Jo", email="jo@acme.example")
    Order.objects.create(customer=customer, number="A-1001", total="129.00")
    for number in range(3):
        InboxRequest.objects.create(
            tenant=tenant,
            subscription=inbox,
            received_at=stage.now - timedelta(minutes=number),
            webhook_id=f"evt_{number:032x}",
            headers=b"content-type: application/json\r\nwebhook-timestamp: 1795253400\r\n",
            body=body(TOPICS[0], number),
            refusal="No signature fits." if number == 1 else "",
        )
    key = ApiKey(tenant=tenant, name="Nightly import", scopes=["read", "publish"], created_by=ALICE)
    key.fill()
    key.save()
    invitation = Invitation(tenant=tenant, email="dora@acme.example", role=Role.DEVELOPER, invited_by=alice)
    invitation.fill()
    invitation.mailed_at = stage.now
    invitation.save()
    person = Actor(ALICE, alice.pk, "203.0.113.7")
    note(person, AuditEntry.Action.SUBSCRIPTION_CREATED, tenant=tenant, about=failing)
    note(person, AuditEntry.Action.SECRET_ROTATED, tenant=tenant, about=failing)
    note(Actor("ops", 1, "2001:db8::1", True), AuditEntry.Action.SUPPORT_LOOKED, tenant=tenant, name="/t/acme/")


def _running(stage: Stage, tenant: Tenant, subscription: Subscription) -> Replay:
    """In the middle of it."""
    replay = Replay.objects.create(
        tenant=tenant,
        subscription=subscription,
        kind=Replay.Kind.FAILED,
        since=stage.now - timedelta(hours=5),
        until=stage.now,
        expected=214,
        queued=90,
        by=ALICE,
        created_at=stage.now - timedelta(seconds=20),
    )
    states = ["delivered"] * 61 + ["failed"] * 3 + ["pending"] * 26
    for number, status in enumerate(states):
        stage.delivery(subscription, status, age=timedelta(days=3, minutes=number), replay=replay)
    return replay

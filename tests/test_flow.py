"""From a save in this process to a verified request at a receiver, sent by a
worker that is a process of its own."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, models, transaction
from standardwebhooks.webhooks import Webhook as StandardWebhook
from svix.webhooks import Webhook as SvixWebhook

from examples.shop.models import Customer, Order
from subscriptions import catalog
from subscriptions.models import Membership, Role, Subscription, Tenant
from tests.receiver import Received, Receiver, Reply
from tests.servers import Process, wait_for
from webhooks import deliveries, tasks
from webhooks.models import Attempt, Delivery, Event, InboxRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.test import Client

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def queue(process_env: dict[str, str], settings: Any) -> Iterator[None]:
    """This process rings where the workers of the test listen."""
    settings.RQ_QUEUES = {
        "default": {"URL": process_env["REDIS_URL"], "SERIALIZER": "rq.serializers.JSONSerializer"},
    }
    tasks.forget()
    tasks.silence()
    yield
    tasks.forget()


@pytest.fixture
def start_worker(process_env: dict[str, str], queue: None, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    workers: list[Process] = []

    def start(**env: str) -> Process:
        worker = Process("rqworker", env={**process_env, **env}, log=tmp_path / f"worker-{len(workers)}.log")
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.__exit__()


def verified(received: Received, secret: str) -> dict[str, Any]:
    """The body, once both official libraries have accepted it."""
    SvixWebhook(secret).verify(received.body, dict(received.headers))
    body: dict[str, Any] = StandardWebhook(secret).verify(received.body, dict(received.headers))
    return body


def delivered(number: int) -> Callable[[], bool]:
    return lambda: Delivery.objects.filter(status=Delivery.Status.DELIVERED).count() >= number


def test_a_save_arrives_signed_and_is_recorded(
    tenant: Tenant, subscribe: Callable[..., Subscription], receiver: Receiver, start_worker: Callable[..., Process]
) -> None:
    subscription = subscribe(tenant, "shop.order.*", url=receiver.url)
    secret = subscription.secrets.get().value
    worker = start_worker()
    customer = Customer.objects.create(tenant=tenant, name="Ada", email="ada@example.com", password="hidden")
    order = Order.objects.create(customer=customer, number="A-1", total=Decimal("12.50"))
    order.status = Order.Status.PAID
    order.save()
    order.delete()

    arrived = {verified(one, secret)["type"]: verified(one, secret) for one in receiver.wait_for(3)}
    assert set(arrived) == {"shop.order.created", "shop.order.updated", "shop.order.deleted"}
    assert arrived["shop.order.created"]["tenant"] == tenant.slug
    assert arrived["shop.order.created"]["data"]["object"]["total"] == "12.50"
    assert arrived["shop.order.updated"]["data"]["changes"] == {"status": {"from": "new", "to": "paid"}}

    wait_for(delivered(3))
    for attempt in Attempt.objects.select_related("delivery__event"):
        assert attempt.delivered
        assert attempt.response_status == 200
        assert bytes(attempt.response_body) == b"ok"
        assert attempt.delivery.event.webhook_id.encode() in bytes(attempt.request_headers)
    assert secret not in worker.text
    assert worker.stop() == 0


def test_a_test_event_arrives_in_the_built_in_inbox(
    tenant: Tenant, subscribe: Callable[..., Subscription], start_worker: Callable[..., Process], client: Client
) -> None:
    subscription = subscribe(tenant, url="inbox:")
    alice = User.objects.create_user("alice", email="alice@acme.example")
    Membership.objects.create(tenant=tenant, user=alice, role=Role.DEVELOPER)
    client.force_login(alice)
    worker = start_worker()
    (poll,) = re.findall(r'id="inbox" hx-get="([^"]+)"', client.get("/t/acme/inbox/").content.decode())
    assert client.get(poll).status_code == 204
    assert client.post(f"/t/acme/subscriptions/{subscription.pk}/test/").status_code == 302
    wait_for(lambda: client.get(poll).status_code == 200)
    request = InboxRequest.objects.get()
    headers = dict(re.findall("(.+): (.+)\r\n", bytes(request.headers).decode()))
    StandardWebhook(subscription.secrets.get().value).verify(bytes(request.body), headers)
    assert "Verified" in client.get(poll).content.decode()
    assert Delivery.objects.get().status == Delivery.Status.DELIVERED
    assert worker.stop() == 0


@pytest.mark.on("sqlite")
def test_every_request_header_stands_in_the_readme(
    tenant: Tenant, subscribe: Callable[..., Subscription], receiver: Receiver, start_worker: Callable[..., Process]
) -> None:
    subscribe(tenant, "*", url=receiver.url)
    start_worker()
    Customer.objects.create(tenant=tenant, name="Ada", email="ada@example.com")
    table = README.split("| request header |", 1)[1].split("\n\n", 1)[0]
    named = {name for row in table.splitlines()[2:] for name in re.findall(r"`([a-z-]+)`", row.split("|")[1])}
    assert set(receiver.wait_for(1)[0].headers) == named


@pytest.mark.on("sqlite")
def test_a_rotated_secret_and_the_one_before_both_verify(
    tenant: Tenant, subscribe: Callable[..., Subscription], receiver: Receiver, start_worker: Callable[..., Process]
) -> None:
    subscription = subscribe(tenant, "*", url=receiver.url)
    old = subscription.secrets.get().value
    new = subscription.rotate_secret()
    start_worker()
    Customer.objects.create(tenant=tenant, name="Ada", email="ada@example.com")
    received = receiver.wait_for(1)[0]
    assert verified(received, old) == verified(received, new)


@pytest.mark.on("sqlite")
def test_a_failure_is_retried_by_the_schedule_and_then_given_up(
    tenant: Tenant, subscribe: Callable[..., Subscription], receiver: Receiver, start_worker: Callable[..., Process]
) -> None:
    subscribe(tenant, "*", url=receiver.url)
    receiver.reply = lambda _: Reply(status=500, body=b"\0 broken \xff")
    start_worker(SIGNALPOST_RETRY_SCHEDULE="0.2,0.4", SIGNALPOST_LOOK_SECONDS="0.1")
    Customer.objects.create(tenant=tenant, name="Ada", email="ada@example.com")
    wait_for(lambda: Delivery.objects.failed().exists())

    delivery = Delivery.objects.get()
    attempts = list(delivery.attempts.order_by("number"))
    assert [attempt.reason for attempt in attempts] == [Attempt.Reason.STATUS] * 3
    assert {bytes(attempt.response_body) for attempt in attempts} == {b"\0 broken \xff"}
    assert len(set(receiver.webhook_ids)) == 1
    assert len({received.body for received in receiver.received}) == 1

    # The receiver is mended, and an admin replays.
    receiver.reply = lambda _: Reply()
    assert deliveries.replay(Delivery.objects.failed(), by="alice") == 1
    wait_for(delivered(1))
    last = delivery.attempts.get(number=4)
    assert (last.trigger, last.triggered_by) == (Delivery.Trigger.MANUAL, "alice")
    assert len(set(receiver.webhook_ids)) == 1


def test_410_turns_the_subscription_off(
    tenant: Tenant, subscribe: Callable[..., Subscription], receiver: Receiver, start_worker: Callable[..., Process]
) -> None:
    subscription = subscribe(tenant, "*", url=receiver.url)
    receiver.reply = lambda _: Reply(status=410)
    start_worker()
    Customer.objects.create(tenant=tenant, name="Ada", email="ada@example.com")
    wait_for(lambda: Delivery.objects.failed().exists())
    subscription.refresh_from_db()
    assert not subscription.enabled
    assert "410" in subscription.disabled_reason


def test_with_redis_away_the_save_succeeds_and_the_worker_finds_it(  # noqa: PLR0917
    tenant: Tenant,
    subscribe: Callable[..., Subscription],
    receiver: Receiver,
    process_env: dict[str, str],
    settings: Any,
    tmp_path: Path,
) -> None:
    nowhere = f"unix://{tmp_path}/nobody.sock"
    settings.RQ_QUEUES = {"default": {"URL": nowhere, "SERIALIZER": "rq.serializers.JSONSerializer"}}
    tasks.forget()
    subscribe(tenant, "*", url=receiver.url)
    with Process("rqworker", env={**process_env, "REDIS_URL": nowhere}, log=tmp_path / "worker.log"):
        Customer.objects.create(tenant=tenant, name="Ada", email="ada@example.com")
        receiver.wait_for(1)
    tasks.forget()


@pytest.fixture
def new_model(transactional_db: None) -> Iterator[type[models.Model]]:
    """A model of an app that nothing here has seen before."""

    class Parcel(models.Model):
        tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+")
        number = models.IntegerField()

        class Meta:
            app_label = "courier"

        def __str__(self) -> str:
            return str(self.number)

    catalog.register(Parcel, tenant="tenant", fields=["id", "number"])
    # The schema editor of SQLite wants no transaction, nor foreign keys while it works.
    with connection.schema_editor() as editor:
        editor.create_model(Parcel)
    yield Parcel
    with connection.schema_editor() as editor:
        editor.delete_model(Parcel)
    catalog.unregister(Parcel)


def rolled_back(change: Callable[[], object]) -> None:
    """`change` inside two blocks, of which the outer one ends with an error."""
    try:
        with transaction.atomic():
            with transaction.atomic():
                change()
            raise InterruptedError
    except InterruptedError:
        pass


def test_exactly_the_committed_changes_of_a_new_model_arrive(
    tenant: Tenant,
    subscribe: Callable[..., Subscription],
    receiver: Receiver,
    start_worker: Callable[..., Process],
    new_model: Any,
) -> None:
    secret = subscribe(tenant, "courier.parcel.*", url=receiver.url).secrets.get().value
    start_worker()
    committed: list[int] = []
    for first in range(0, 1_000, 8):
        new_model.objects.create(tenant=tenant, number=first)  # in autocommit
        committed.append(first)
        with transaction.atomic():
            new_model.objects.create(tenant=tenant, number=first + 1)
            rolled_back(new_model(tenant=tenant, number=first + 2).save)
            savepoint = connection.savepoint()
            assert savepoint is not None
            new_model.objects.create(tenant=tenant, number=first + 3)
            connection.savepoint_rollback(savepoint)
            with transaction.atomic():
                new_model.objects.create(tenant=tenant, number=first + 4)
        committed += [first + 1, first + 4]
        with transaction.atomic():
            new_model.objects.create(tenant=tenant, number=first + 5)
            transaction.set_rollback(True)
        rolled_back(new_model(tenant=tenant, number=first + 6).save)
        with transaction.atomic():
            new_model.objects.create(tenant=tenant, number=first + 7)
        committed.append(first + 7)

    bodies = [verified(received, secret) for received in receiver.wait_for(len(committed), timeout=60)]
    assert sorted(body["data"]["object"]["number"] for body in bodies) == committed
    wait_for(delivered(len(committed)))
    assert Event.objects.count() == len(committed)


def test_after_a_kill_in_the_middle_of_500_all_arrive(
    tenant: Tenant, subscribe: Callable[..., Subscription], receiver: Receiver, start_worker: Callable[..., Process]
) -> None:
    for number in range(20):
        subscribe(tenant, "shop.customer.created", url=f"{receiver.url}{number}")
    slow = threading.Event()

    def reply(received: Received) -> Reply:
        slow.wait(0.05)  # a receiver that takes its time
        return Reply()

    receiver.reply = reply
    times = {"LEASE_SECONDS": "6", "TOTAL_TIMEOUT": "1", "REQUEST_TIMEOUT": "1", "CONNECT_TIMEOUT": "1"}
    times["RETRY_SCHEDULE"] = ",".join("1" * 30)  # a busy machine may need longer than that to answer
    settings = {f"SIGNALPOST_{name}": value for name, value in times.items()}
    worker = start_worker(**settings)
    for number in range(25):
        Customer.objects.create(tenant=tenant, name=f"customer {number}", email="c@example.com")
    receiver.wait_for(100)
    worker.stop(signal.SIGKILL)
    start_worker(**settings)
    wait_for(delivered(500), timeout=60)

    sent = Counter((received.path, received.webhook_id) for received in receiver.received)
    assert len(sent) == 500
    assert {webhook_id for _, webhook_id in sent} == {event.webhook_id for event in Event.objects.all()}
    for delivery in Delivery.objects.prefetch_related("attempts"):
        assert delivery.attempt_count == len(delivery.attempts.all())


def test_two_workers_send_each_attempt_once(
    tenant: Tenant, subscribe: Callable[..., Subscription], receiver: Receiver, start_worker: Callable[..., Process]
) -> None:
    for number in range(10):
        subscribe(tenant, "shop.customer.created", url=f"{receiver.url}{number}")
    workers = [start_worker(), start_worker()]
    for worker in workers:
        worker.wait_to_say("Listening on")
    for number in range(30):
        Customer.objects.create(tenant=tenant, name=f"customer {number}", email="c@example.com")
    wait_for(delivered(300), timeout=60)
    assert set(Counter((one.path, one.webhook_id) for one in receiver.received).values()) == {1}
    assert len(receiver.received) == 300
    assert [worker.stop() for worker in workers] == [0, 0]


@pytest.mark.on("sqlite")
def test_a_staff_user_replays_in_the_admin_and_it_arrives(
    tenant: Tenant,
    subscribe: Callable[..., Subscription],
    receiver: Receiver,
    start_worker: Callable[..., Process],
    client: Any,
) -> None:
    client.force_login(User.objects.create_superuser("root", password="x"))
    subscribe(tenant, "*", url=receiver.url)
    start_worker()
    Customer.objects.create(tenant=tenant, name="Ada", email="ada@example.com")
    wait_for(delivered(1))
    delivery = Delivery.objects.get()
    response = client.post(
        "/admin/webhooks/delivery/", {"action": "replay_selected", "_selected_action": [str(delivery.pk)]}, follow=True
    )
    assert response.status_code == 200
    assert len(receiver.wait_for(2)) == 2
    wait_for(lambda: delivery.attempts.filter(number=2, triggered_by="root", ended_at__isnull=False).exists())
    assert json.loads(receiver.received[0].body) == json.loads(receiver.received[1].body)

"""A client that openapi-python-client makes of docs/openapi.json, as a
customer would, does the work against a live server."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import standardwebhooks

from examples.shop.models import Customer, Order
from tests.receiver import Reply
from webhooks import drain
from webhooks.testing.sent import capture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_django.live_server_helper import LiveServer

    from subscriptions.models import Tenant
    from tests.programs import Api
    from tests.receiver import Receiver

pytestmark = pytest.mark.on("sqlite")

ROOT = Path(__file__).resolve().parents[3]
DOCUMENT = ROOT / "docs" / "openapi.json"
PACKAGE = "made_of_openapi"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Any]]:
    """`made("api.events.publish_event")`: a module of the client."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "config.yaml").write_text("post_hooks: []\n")
    program = str(Path(sys.executable).with_name("openapi-python-client"))
    options = ["--path", str(DOCUMENT), "--output-path", str(folder / PACKAGE), "--meta", "none", "--fail-on-warning"]
    command = [program, "generate", *options, "--config", str(folder / "config.yaml")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield lambda name: importlib.import_module(f"{PACKAGE}.{name}")


class Client:
    """`client("subscriptions", "create_subscription", body=…)`: the answer, by its type."""

    def __init__(self, made: Callable[[str], Any], url: str, key: str) -> None:
        self.made = made
        self.model = made("models")
        self.client = made("client").AuthenticatedClient(
            base_url=f"{url}/api/v1", token=key, raise_on_unexpected_status=True
        )

    def __call__(self, group: str, operation: str, *arguments: Any, **options: Any) -> Any:
        module = self.made(f"api.{group}.{operation}")
        return module.sync_detailed(*arguments, client=self.client, **options)


@pytest.fixture
def client(made: Callable[[str], Any], live_server: LiveServer, api: Api) -> Iterator[Client]:
    found = Client(made, live_server.url, api.value)
    with found.client:
        yield found


@pytest.mark.django_db(transaction=True, databases="__all__")
def test_it_subscribes_publishes_and_replays(client: Client, paid: str, receiver: Receiver, redis_url: str) -> None:
    model = client.model
    wanted = model.WantedSubscription(url=receiver.url, topics=[model.WantedTopic(name="billing.*")])
    subscription = client("subscriptions", "create_subscription", body=wanted).parsed
    assert isinstance(subscription, model.MadeSubscription)

    receiver.reply = lambda received: Reply(410)
    draft = model.Draft(type_=paid, id="invoice-7", data=model.DraftData.from_dict({"number": 7, "total": "42.00"}))
    answers = [client("events", "publish_event", body=draft, idempotency_key="a") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert len({answer.parsed.id for answer in answers}) == 1
    drain.run()

    (received,) = receiver.wait_for(1)
    content = standardwebhooks.Webhook(subscription.secret).verify(received.body, dict(received.headers))
    assert content["data"] == {"number": 7, "total": "42.00"}
    assert received.webhook_id == answers[0].parsed.id

    page = client("deliveries", "list_deliveries", status=model.ListDeliveriesStatus.FAILED).parsed
    (delivery,) = page.data
    attempts = client("deliveries", "list_attempts", delivery.id).parsed.data
    assert [each.response_status for each in attempts] == [410]

    receiver.reply = lambda received: Reply(204)
    wish = model.Start.from_dict({"kind": "failed", "subscription": subscription.id, "enable": True})
    begun = client("replays", "start_replay", body=wish).parsed
    assert isinstance(begun, model.ReplayDetail)
    drain.run()
    receiver.wait_for(2)
    progress = client("replays", "get_replay", begun.id).parsed.progress
    assert (progress.delivered, progress.open_) == (1, 0)

    answer = client("deliveries", "replay_delivery", delivery.id, body=model.Nothing())
    assert (answer.status_code, answer.parsed.status.value) == (202, "pending")
    drain.run()
    assert [each.webhook_id for each in receiver.wait_for(3)] == [received.webhook_id] * 3


def test_what_is_refused_is_a_problem_by_its_type(client: Client, paid: str) -> None:
    draft = client.model.Draft(type_="billing.invoice.payed", data=client.model.DraftData())
    answer = client("events", "publish_event", body=draft)
    assert answer.status_code == 400
    assert isinstance(answer.parsed, client.model.Problem)
    assert answer.parsed.code == "unknown_topic"


@pytest.mark.django_db(transaction=True, databases="__all__")
def test_it_follows_a_feed(client: Client, paid: str, redis_url: str) -> None:
    model = client.model
    wanted = model.WantedSubscription(url="feed:", topics=[model.WantedTopic(name="*")])
    subscription = client("subscriptions", "create_subscription", body=wanted).parsed
    data = model.DraftData.from_dict({"number": 1, "total": "1.00"})
    client("events", "publish_event", body=model.Draft(type_=paid, data=data))
    drain.run()
    feed = client("subscriptions", "read_feed", subscription.id).parsed
    items = [item for item in feed.data if item.type_ == paid]
    assert [json.loads(item.body)["data"]["number"] for item in items] == [1]
    client("subscriptions", "move_feed", subscription.id, body=model.Position(position=feed.position))
    assert client("subscriptions", "read_feed", subscription.id).parsed.data == []


@pytest.mark.django_db
def test_a_receivers_types_are_made_of_the_topics(made: Callable[[str], Any], tenant: Tenant) -> None:
    model = made("models")
    customer = Customer.objects.create(tenant=tenant, name="Ada", email="ada@example.com")
    with capture() as sent:
        order = Order.objects.create(customer=customer, number="A-1", total="42.00")
        order.status = "paid"
        order.save()
        event = sent.one("shop.order.updated")
    body = model.ShopOrderUpdated.from_dict(json.loads(event.body))
    assert body.data.object_.number == "A-1"
    assert (body.data.changes.status.from_, body.data.changes.status.to) == ("new", "paid")

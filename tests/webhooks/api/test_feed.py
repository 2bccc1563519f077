"""The feed by the API, and that what is published is what arrives: checked by the official libraries."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from subscriptions.addresses import FEED
from tests.webhooks.traffic import make_delivery
from webhooks import deliveries, drain
from webhooks.models import Bookmark, Delivery

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from subscriptions.models import Subscription, Tenant
    from tests.programs import Api
    from tests.receiver import Receiver

    Subscribe = Callable[..., Subscription]

pytestmark = pytest.mark.django_db

DATA = {"number": 7, "total": "42.00", "note": "é ☃ \U0001f680 <&> \u2028"}


@pytest.fixture
def fed(tenant: Tenant, subscribe: Subscribe) -> Subscription:
    return subscribe(tenant, "billing.*", url=FEED)


def publish(api: Api, *numbers: int) -> list[str]:
    drafts = [{"type": "billing.invoice.paid", "data": {**DATA, "number": number}} for number in numbers]
    answer = api.post("events/batch/", {"events": drafts})
    assert answer.status_code == 202
    deliveries.fan_out()
    return [each["id"] for each in answer.json()["data"]]


def names(page: Any) -> list[str]:
    return [each["id"] for each in page["data"]]


def test_published_events_are_read_in_order_from_a_position_of_the_clients(
    api: Api, fed: Subscription, paid: str
) -> None:
    sent = publish(api, *range(1, 31))
    path = f"subscriptions/{fed.pk}/feed/"
    read: list[str] = []
    page = api.get(f"{path}?after=0&limit=7").json()
    while page["data"]:
        read += names(page)
        assert page["more"] is (len(read) < len(sent))
        page = api.get(f"{path}?after={page['position']}&limit=7").json()
    assert read == sent
    assert not Bookmark.objects.exists()


def test_the_server_keeps_a_position_where_it_is_told_one(api: Api, fed: Subscription, paid: str) -> None:
    sent = publish(api, 1, 2, 3)
    path = f"subscriptions/{fed.pk}/feed/"
    assert [names(api.get(f"{path}?limit=2").json()) for _ in range(2)] == [sent[:2]] * 2
    position = api.get(f"{path}?limit=2").json()["position"]
    assert api.post(path, {"position": position}).json() == {"position": position}
    assert names(api.get(path).json()) == sent[2:]
    # What the client gives counts for that once.
    assert names(api.get(f"{path}?after=0").json()) == sent
    assert names(api.get(path).json()) == sent[2:]


def test_an_item_is_the_request_that_a_target_would_have_got(api: Api, fed: Subscription, paid: str) -> None:
    [name] = publish(api, 7)
    [item] = api.get(f"subscriptions/{fed.pk}/feed/").json()["data"]
    found = Webhook(fed.secrets.get().value).verify(item["body"], item["headers"])
    assert (found["type"], found["tenant"], found["data"]) == (paid, "acme", DATA)
    assert (item["id"], item["type"], item["timestamp"]) == (name, paid, found["timestamp"])
    assert item["position"] == Delivery.objects.get().pk
    with pytest.raises(WebhookVerificationError):
        Webhook(fed.secrets.get().value).verify(item["body"] + " ", item["headers"])


def test_a_reader_needs_no_more_than_the_scope_read(
    tenant: Tenant, make_api: Callable[..., Api], api: Api, fed: Subscription, paid: str
) -> None:
    publish(api, 1)
    path = f"subscriptions/{fed.pk}/feed/"
    reader = make_api(tenant, scopes=["read"], name="Reader")
    assert reader.post(path, {"position": reader.get(path).json()["position"]}).status_code == 200
    publisher = make_api(tenant, scopes=["publish"], name="Publisher")
    assert publisher.get(path).json()["code"] == "missing_scope"
    assert publisher.post(path, {"position": 0}).json()["code"] == "missing_scope"


@pytest.mark.parametrize(
    "query", ["after=-1", "after=x", "after=", "after=1.5", f"after={2**63}", "limit=0", "limit=101"]
)
def test_a_position_that_is_none_is_refused(api: Api, fed: Subscription, query: str) -> None:
    assert api.get(f"subscriptions/{fed.pk}/feed/?{query}").json()["code"] == "bad_filter"


@pytest.mark.parametrize("position", [-1, 2**62, "1", 1.5, None, True])
def test_only_what_was_read_can_be_done(api: Api, fed: Subscription, position: Any) -> None:
    make_delivery(fed)
    answer = api.post(f"subscriptions/{fed.pk}/feed/", {"position": position})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
    assert [each["field"] for each in answer.json()["errors"]] == ["/position"]
    assert not Bookmark.objects.exists()


def test_a_key_for_tests_moves_nothing(tenant: Tenant, make_api: Callable[..., Api], fed: Subscription) -> None:
    position = make_delivery(fed).pk
    program = make_api(tenant, mode="test")
    assert program.post(f"subscriptions/{fed.pk}/feed/", {"position": position}).status_code == 200
    assert not Bookmark.objects.exists()


def test_a_longer_feed_takes_no_more_queries(api: Api, fed: Subscription) -> None:
    counts = []
    api.get("topics/")
    for number in (1, 49):
        for _ in range(number):
            make_delivery(fed)
        with CaptureQueriesContext(connection) as queries:
            assert len(api.get(f"subscriptions/{fed.pk}/feed/").json()["data"]) >= number
        counts.append(len(queries))
    assert counts[0] == counts[1]


# --- delivered for real ---


@pytest.fixture
def arrived(
    api: Api, tenant: Tenant, subscribe: Subscribe, receiver: Receiver, paid: str
) -> tuple[str, bytes, dict[str, str], str]:
    """An event's id, the bytes and headers that a receiver got of it, and the secret."""
    subscription = subscribe(tenant, "billing.*", url=receiver.url)
    answer = api.post("events/", {"type": paid, "data": DATA, "id": "7"}, headers={"Idempotency-Key": "7"})
    drain.run()
    [request] = receiver.received
    headers = {name.lower(): value for name, value in request.headers.items()}
    return answer.json()["id"], request.body, headers, subscription.secrets.get().value


REAL = pytest.mark.django_db(transaction=True, databases=["default", "other"])


@REAL
def test_the_official_library_for_python_takes_what_arrives(arrived: tuple[str, bytes, dict[str, str], str]) -> None:
    name, body, headers, secret = arrived
    found = Webhook(secret).verify(body, headers)
    assert found["data"] == DATA
    assert headers["webhook-id"] == name


NODE = """
import { readFileSync } from "node:fs";
import { Webhook } from "standardwebhooks";
const { body, headers, secret } = JSON.parse(readFileSync(0, "utf8"));
const bytes = Buffer.from(body, "base64");
const data = new Webhook(secret).verify(bytes.toString("utf8"), headers).data;
let refused = false;
try { new Webhook(secret).verify(bytes.toString("utf8") + " ", headers); } catch { refused = true; }
console.log(JSON.stringify({ data, refused }));
"""


@pytest.fixture(scope="session")
def node_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    place = tmp_path_factory.mktemp("node")
    (place / "package.json").write_text('{"private": true, "type": "module"}')
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "standardwebhooks"]
    try:
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("no registry of npm answers")
    if done.returncode:
        pytest.skip(f"npm cannot install standardwebhooks: {done.stderr.strip()[-200:]}")
    return place


@REAL
def test_the_official_library_for_node_takes_what_arrives(
    node_library: Path, arrived: tuple[str, bytes, dict[str, str], str]
) -> None:
    _name, body, headers, secret = arrived
    (node_library / "verify.mjs").write_text(NODE)
    given = json.dumps({"body": base64.b64encode(body).decode(), "headers": headers, "secret": secret})
    done = subprocess.run(
        ["node", "verify.mjs"], cwd=node_library, input=given, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"data": DATA, "refused": True}

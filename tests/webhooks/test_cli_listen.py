"""`signalpost listen` and `signalpost tail`: a process, a live server, a receiver on a socket."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import standardwebhooks

from subscriptions.models import Subscription
from tests.line import Line
from tests.receiver import Receiver, Reply
from tests.servers import Process, wait_for
from tests.traffic import make_deliveries
from webhooks import deliveries, events
from webhooks.cli import temporary
from webhooks.models import Delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_django.live_server_helper import LiveServer

    from subscriptions.models import Tenant
    from tests.programs import Api

# It knows the site by HTTP alone, whatever is behind that.
pytestmark = pytest.mark.on("sqlite")

ROOT = Path(__file__).resolve().parents[2]
PAST, FUTURE = (datetime.now(UTC) + timedelta(hours=hours) for hours in (-1, 1))


class Script(Process):
    PROGRAM = ("-m", "webhooks.cli.main")

    @property
    def secret(self) -> str:
        return str(re.findall(r"whsec_\S+", self.text)[-1])

    @property
    def lines(self) -> list[str]:
        """Of events, not of what is said about them."""
        return [line for line in self.text.splitlines() if re.match(r"\d\d:\d\d:\d\d ", line)]


@pytest.fixture
def line(live_server: LiveServer) -> Iterator[Line]:
    """The way to the site."""
    with Line(live_server.thread.port) as line:
        yield line


@pytest.fixture
def start(line: Line, api: Api, tmp_path: Path) -> Iterator[Callable[..., Script]]:
    """`start("listen", "--forward", receiver.url)`; ended with the test."""
    started: list[Script] = []
    env = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "SIGNALPOST_"))}

    def make(*arguments: str, key: str = api.value) -> Script:
        given = {"SIGNALPOST_URL": line.url, "SIGNALPOST_API_KEY": key, "PYTHONPATH": str(ROOT)}
        script = Script(*arguments, env={**env, **given}, log=tmp_path / f"{len(started)}.log")
        started.append(script)
        return script

    yield make
    for script in started:
        script.__exit__()


@pytest.fixture
def listening(start: Callable[..., Script], receiver: Receiver) -> Script:
    script = start("listen", "--forward", receiver.url)
    script.wait_to_say("signed with")
    return script


def publish(tenant: Tenant, *numbers: int) -> None:
    for number in numbers:
        events.publish("billing.invoice.paid", tenant, {"number": number})
    deliveries.fan_out()


def numbers(receiver: Receiver) -> list[int]:
    return [json.loads(received.body)["data"]["number"] for received in list(receiver.received)]


class TestListen:
    def test_what_happens_is_forwarded_signed_and_printed(
        self, listening: Script, receiver: Receiver, tenant: Tenant
    ) -> None:
        publish(tenant, 1, 2)
        for received in receiver.wait_for(2):
            standardwebhooks.Webhook(listening.secret).verify(received.body, dict(received.headers))
        wait_for(lambda: len(listening.lines) == 2, what=listening.text)
        assert numbers(receiver) == [1, 2]
        first = Delivery.objects.earliest("pk").event
        pattern = rf"\d\d:\d\d:\d\d billing\.invoice\.paid {first.webhook_id} 200 in \d+ ms"
        assert re.fullmatch(pattern, listening.lines[0])
        assert receiver.received[0].body == bytes(first.body)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_when_it_is_stopped_it_leaves_no_subscription(self, listening: Script, number: int) -> None:
        assert Subscription.objects.get().is_feed
        assert listening.stop(number) == 0
        assert "is deleted" in listening.text
        assert not Subscription.objects.exists()

    def test_only_the_topics_that_are_named_are_heard(
        self, start: Callable[..., Script], receiver: Receiver, tenant: Tenant
    ) -> None:
        script = start("listen", "--forward", receiver.url, "--topics", "shop.*", "billing.invoice.*")
        script.wait_to_say("signed with")
        events.publish("billing.refund", tenant, {"number": 1})
        publish(tenant, 2)
        receiver.wait_for(1)
        script.stop()
        assert numbers(receiver) == [2]

    def test_without_a_receiver_it_prints_bodies(self, start: Callable[..., Script], tenant: Tenant) -> None:
        script = start("listen")
        script.wait_to_say("temporary subscription")
        publish(tenant, 1)
        script.wait_to_say('      "number": 1')
        assert len(script.lines) == 1

    def test_for_programs_it_prints_objects(self, start: Callable[..., Script], tenant: Tenant) -> None:
        script = start("listen", "--json")
        script.wait_to_say("temporary subscription")
        publish(tenant, 1)
        script.wait_to_say('"topic"')
        script.stop()
        (row,) = [json.loads(line) for line in script.text.splitlines() if line.startswith("{")]
        assert row["topic"] == "billing.invoice.paid"
        assert json.loads(row["body"])["data"] == {"number": 1}

    def test_a_receiver_that_fails_is_told_so_and_gets_the_next(
        self, listening: Script, receiver: Receiver, tenant: Tenant
    ) -> None:
        receiver.reply = lambda received: Reply(500)
        publish(tenant, 1, 2)
        receiver.wait_for(2)
        wait_for(lambda: len(listening.lines) == 2, what=listening.text)
        assert " 500 in " in listening.lines[0]
        assert numbers(receiver) == [1, 2]

    def test_a_receiver_that_is_not_there_gets_everything_once_it_is(
        self, start: Callable[..., Script], tenant: Tenant
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        script = start("listen", "--forward", f"http://127.0.0.1:{port}/")
        script.wait_to_say("signed with")
        publish(tenant, 1, 2)
        script.wait_to_say("does not answer")
        with Receiver(port=port) as receiver:
            receiver.wait_for(2)
            wait_for(lambda: len(script.lines) == 2, what=script.text)
            assert numbers(receiver) == [1, 2]

    def test_when_the_site_was_away_it_goes_on_where_it_stopped(
        self, listening: Script, receiver: Receiver, tenant: Tenant, line: Line
    ) -> None:
        publish(tenant, 1)
        receiver.wait_for(1)
        line.cut()
        listening.wait_to_say("Trying again")
        publish(tenant, 2, 3)
        line.mend()
        receiver.wait_for(3)
        listening.wait_to_say("going on where it stopped")
        assert numbers(receiver) == [1, 2, 3]
        assert listening.stop() == 0
        assert not Subscription.objects.exists()

    def test_where_the_site_is_away_when_it_stops_it_says_what_it_leaves(self, listening: Script, line: Line) -> None:
        line.cut()
        assert listening.stop() == 3
        assert "could not be deleted" in listening.text
        assert temporary.NAME.fullmatch(Subscription.objects.get().name)

    def test_what_a_killed_one_left_behind_goes_with_the_next_once_its_time_is_over(
        self, start: Callable[..., Script], tenant: Tenant
    ) -> None:
        killed = start("listen")
        killed.wait_to_say("temporary subscription")
        killed.stop(signal.SIGKILL)
        left = Subscription.objects.get()
        said = ""
        for until in (FUTURE, PAST):
            left.name = re.sub("until .*", f"until {until:%Y-%m-%dT%H:%M}Z", left.name)
            left.save()
            again = start("listen")
            again.wait_to_say("temporary subscription")
            assert Subscription.objects.filter(pk=left.pk).exists() is (until is FUTURE)
            again.stop()
            said = again.text
        assert "Deleted 1 that" in said

    def test_a_persons_subscription_is_never_taken_for_a_stale_one(
        self, start: Callable[..., Script], tenant: Tenant, subscribe: Callable[..., Subscription]
    ) -> None:
        subscribe(tenant, "*", name="signalpost listen by hand")
        subscribe(tenant, "*", name=f"mine, signalpost listen by me, until {PAST:%Y-%m-%dT%H:%M}Z")
        script = start("listen")
        script.wait_to_say("temporary subscription")
        script.stop()
        assert Subscription.objects.count() == 2

    def test_one_that_somebody_deletes_is_made_anew(
        self, listening: Script, receiver: Receiver, tenant: Tenant
    ) -> None:
        before = listening.secret
        Subscription.objects.get().delete()
        wait_for(lambda: listening.secret != before, what=listening.text)
        publish(tenant, 1)
        (received,) = receiver.wait_for(1)
        standardwebhooks.Webhook(listening.secret).verify(received.body, dict(received.headers))

    def test_a_key_that_is_revoked_meanwhile_ends_it_in_words(
        self, listening: Script, api: Api, tenant: Tenant
    ) -> None:
        api.key.revoke()
        assert listening.process.wait(15) == 1
        assert "No valid key" in listening.text
        assert "could not be deleted" in listening.text

    def test_a_key_for_tests_is_refused_at_once(
        self, start: Callable[..., Script], make_api: Callable[..., Api], tenant: Tenant
    ) -> None:
        script = start("listen", key=make_api(tenant, mode="test").value)
        assert script.process.wait(15) == 1
        assert "a key for tests" in script.text
        assert not Subscription.objects.exists()

    def test_a_site_that_is_away_when_it_starts_is_an_error(self, start: Callable[..., Script], line: Line) -> None:
        line.cut()
        assert start("listen").process.wait(15) == 3


class TestTail:
    @pytest.fixture
    def tailing(self, start: Callable[..., Script]) -> Callable[..., Script]:
        def make(*arguments: str) -> Script:
            script = start("tail", *arguments)
            script.wait_to_say("from now on")
            return script

        return make

    def test_each_is_printed_when_it_is_made_and_when_it_ends(
        self, tailing: Callable[..., Script], tenant: Tenant, subscribe: Callable[..., Subscription]
    ) -> None:
        subscription = subscribe(tenant, "*")
        make_deliveries(subscription)
        script = tailing()
        (delivery,) = make_deliveries(subscription, created_at=datetime.now(UTC))
        script.wait_to_say(f"pending   shop.order.created {delivery.event.webhook_id} delivery {delivery.pk}")
        Delivery.objects.filter(pk=delivery.pk).update(status="failed", attempt_count=9, ended_at=datetime.now(UTC))
        script.wait_to_say(f"delivery {delivery.pk} of {subscription.pk}, attempt 9")
        assert script.stop() == 0
        assert [line.split()[1] for line in script.lines] == ["pending", "failed"]

    def test_only_those_that_come_to_a_status_and_as_json(
        self, tailing: Callable[..., Script], tenant: Tenant, subscribe: Callable[..., Subscription]
    ) -> None:
        subscription = subscribe(tenant, "*")
        script = tailing("--status", "failed", "--json", "--subscription", str(subscription.pk))
        now = datetime.now(UTC)
        first, second = make_deliveries(subscription, 2, created_at=now)
        Delivery.objects.filter(pk=second.pk).update(status="failed", ended_at=now)
        script.wait_to_say('"failed"')
        script.stop()
        (row,) = [json.loads(line) for line in script.text.splitlines() if line.startswith("{")]
        assert (row["id"], row["status"], row["subscription"]) == (second.pk, "failed", subscription.pk)
        assert first.pk != row["id"]

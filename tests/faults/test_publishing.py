"""A program that got no answer asks again under the same name: whatever broke
in between, there is one event, and it is delivered."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from django.db import connection, transaction

from subscriptions.models import ApiKey
from tests.faults.world import PATIENT
from tests.servers import Process, wait_for
from webhooks.models import Event, Receipt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.world import World

# Of tests/faults/webhooks.py, whose topic the processes alone know.
PUBLISHED = "faults.sale"


class Answer(NamedTuple):
    status: int
    body: Any


class Web(Process):
    PROGRAM = ("-m", "gunicorn", "config.wsgi", "--threads", "2", "--no-control-socket", "--bind")


class Program:
    """With a key of acme's."""

    def __init__(self, world: World) -> None:
        key = ApiKey(tenant=world.tenant, name="Shop", scopes=["read", "publish"])
        self.value = key.fill()
        key.save()
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port: int = free.getsockname()[1]

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Raises what http.client does where no answer comes."""
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=40)) as http:
            headers = {"Authorization": f"Bearer {self.value}", "Content-Type": "application/json", **headers}
            http.request(method, f"/api/v1/{path}", json.dumps(body), headers)
            response = http.getresponse()
            return Answer(response.status, json.loads(response.read()))

    def publish(self) -> Answer:
        return self.ask("POST", "events/", {"type": PUBLISHED, "data": {"number": 7}}, **{"Idempotency-Key": "sale-7"})

    def publish_many(self) -> Answer:
        events = [{"type": PUBLISHED, "data": {"number": number}, "id": f"sale-{number}"} for number in range(100)]
        return self.ask("POST", "events/batch/", {"events": events})

    def is_answered(self) -> bool:
        with suppress(OSError, HTTPException):
            return self.ask("GET", "keys/").status == 200
        return False


@pytest.fixture
def program(world: World) -> Program:
    return Program(world)


@contextmanager
def web(world: World, program: Program, **env: str) -> Iterator[Web]:
    log = world.folder / f"web-{len(world.processes)}.log"
    served = Web(f"127.0.0.1:{program.port}", env={**world.env, **PATIENT, **env}, log=log)
    world.processes.append(served)
    wait_for(program.is_answered, timeout=40, what="the web process does not answer")
    try:
        yield served
    finally:
        served.stop()


def listen(world: World) -> None:
    [subscription] = world.subscribe("one")
    subscription.listen_to(PUBLISHED)


@pytest.mark.parametrize(
    ("moment", "written", "many"), [("committing", False, True), ("committed", True, True), ("committed", True, False)]
)
def test_a_web_process_killed_before_it_answers_publishes_once(
    world: World, program: Program, moment: str, written: bool, many: bool
) -> None:
    listen(world)
    publish, number = (program.publish_many, 100) if many else (program.publish, 1)
    with web(world, program, FAULT=f"{moment}=SIGKILL"), pytest.raises((OSError, HTTPException)):
        publish()
    wait_for(lambda: Event.objects.count() == (number if written else 0), what=world.logs)
    with web(world, program):
        first, second = publish(), publish()
    assert (first.status, second.status) == (202, 202)
    answers = [each.body["data"] if many else [each.body] for each in (first, second)]
    assert {each["duplicate"] for each in answers[0]} == {written}
    assert {each["duplicate"] for each in answers[1]} == {True}
    ids = [each["id"] for each in answers[0]]
    assert ids == [each["id"] for each in answers[1]]
    assert sorted(ids) == sorted(event.webhook_id for event in Event.objects.all())
    world.worker()
    world.settle()
    assert sorted(received.webhook_id for received in world.receiver.received) == sorted(ids)


@pytest.mark.only("postgresql")
def test_a_database_that_goes_away_between_two_statements_is_503_and_nothing_is_written(
    world: World, program: Program
) -> None:
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(program.publish()))
    with web(world, program):
        with transaction.atomic(), connection.cursor() as cursor:
            # The receipt is inserted, and the event is not.
            cursor.execute("LOCK TABLE webhooks_event IN EXCLUSIVE MODE")
            thread.start()
            wait_for(lambda: _cut(cursor), timeout=40, what="nobody waits to insert an event")
        thread.join(40)
        [answer] = answers
        assert (answer.status, answer.body["code"]) == (503, "unavailable"), world.logs
        assert not Event.objects.exists()
        assert not Receipt.objects.exists()
        again = program.publish()
        assert (again.status, again.body["duplicate"]) == (202, False)
    assert Event.objects.count() == 1


def _cut(cursor: Any) -> bool:
    """The connection of whoever waits for the table."""
    cursor.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted AND relation = 'webhooks_event'::regclass"
    )
    return bool(cursor.fetchall() == [(True,)])

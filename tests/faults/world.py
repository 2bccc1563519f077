"""One fault's world: a database, a Valkey, a receiver, and processes that are
really killed; and what must be true of them in the end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from django.db import DatabaseError, connections
from django.db.models import Q
from django.utils import timezone

from examples.shop.models import Customer
from subscriptions.models import Subscription, Tenant, Topic
from tests.faults.management.commands.sell import UNDONE
from tests.receiver import Receiver
from tests.servers import Process, Valkey, wait_for
from webhooks.audit import audit
from webhooks.models import Attempt, Delivery, Event

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhooks.audit import Gap

TOPIC = "shop.customer.created"
# Short, so that what takes minutes in life takes seconds here.
HURRY = {
    "LEASE_SECONDS": "3",
    "CONNECT_TIMEOUT": "1",
    "REQUEST_TIMEOUT": "1",
    "TOTAL_TIMEOUT": "1.2",
    "LOOK_SECONDS": "0.3",
    "SWEEP_SECONDS": "1",
    "RETRY_SCHEDULE": "0.3,0.5,1,1,1,1",
    "RETRY_JITTER": "0",
    "BREAKER_FAILURES": "1000",  # each failure is to be tried again at once
}
# For a fault that no time-out has a part in: no machine is so slow that one ends.
PATIENT = {
    f"SIGNALPOST_{name}": value
    for name, value in {
        "LEASE_SECONDS": "90",
        "CONNECT_TIMEOUT": "30",
        "REQUEST_TIMEOUT": "30",
        "TOTAL_TIMEOUT": "30",
    }.items()
}
LATE = timedelta(seconds=1)


@dataclass
class World:
    folder: Path
    env: Mapping[str, str]  # for processes: which database
    valkey: Valkey
    receiver: Receiver
    tenant: Tenant
    processes: list[Process] = field(default_factory=list)

    def start(self, *arguments: str, **env: str) -> Process:
        environment = {**self.env, **{f"SIGNALPOST_{name}": value for name, value in HURRY.items()}, **env}
        log = self.folder / f"{arguments[0]}-{len(self.processes)}.log"
        self.processes.append(Process(*arguments, env=environment, log=log))
        return self.processes[-1]

    def worker(self, **env: str) -> Process:
        return self.start("rqworker", **env)

    def working(self, **env: str) -> Process:
        """A worker that has got as far as looking for work."""
        worker = self.worker(**env)
        worker.wait_to_say("Listening on", timeout=40)
        return worker

    def sell(
        self, number: int, *, status: int = 0, fault: str | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        """Let a script save so many customers, and end with `status`."""
        selling = self.start("sell", str(number), **(env or {}), **({"FAULT": fault} if fault else {}))
        assert selling.process.wait(60) == status, selling.text

    def subscribe(self, *paths: str) -> list[Subscription]:
        """At the receiver, and since long, so that an audit can say what they miss."""
        made = []
        yesterday = timezone.now() - timedelta(days=1)
        for path in paths:
            subscription = Subscription.objects.create(tenant=self.tenant, url=f"{self.receiver.url}{path}")
            subscription.listen_to(TOPIC)
            subscription.rotate_secret()
            made.append(subscription)
        Subscription.objects.update(created_at=yesterday, enabled_at=yesterday)
        Topic.objects.update(changed_at=yesterday)
        return made

    def delivered(self) -> int:
        return self.count(status=Delivery.Status.DELIVERED)

    def count(self, **fields: Any) -> int:
        """0 while the database cannot be asked."""
        with suppress(DatabaseError):
            return Delivery.objects.filter(**fields).count()
        connections["default"].close()
        return 0

    def settle(self, *, timeout: float = 40) -> None:
        """Wait until nobody has anything to do."""
        try:
            wait_for(self._settled, timeout=timeout)
        except AssertionError as error:
            raise AssertionError(f"{self.count(status__in=Delivery.OPEN)} are still open\n\n{self.logs}") from error

    @property
    def postgresql(self) -> bool:
        return connections["default"].vendor == "postgresql"

    def _settled(self) -> bool:
        with suppress(DatabaseError):
            busy = Delivery.objects.filter(Q(status__in=Delivery.OPEN) | Q(leased_until__isnull=False))
            return not (Event.objects.waiting().exists() or busy.exists())
        connections["default"].close()
        return False

    @property
    def logs(self) -> str:
        return "\n".join(f"== {each.log.name} ({each.process.poll()})\n{each.text}" for each in self.processes)

    def reconcile(self, *, timeout: float = 40) -> Counter[tuple[str, str]]:
        """Nothing is lost, nothing is a phantom, and what was sent twice has
        the same id and the same bytes. Returns how often what was sent."""
        self.settle(timeout=timeout)
        events = {event.webhook_id: event for event in Event.objects.all()}
        bodies = {webhook_id: json.loads(bytes(event.body)) for webhook_id, event in events.items()}
        told = sorted(body["data"]["object"]["id"] for body in bodies.values())
        assert told == sorted(Customer.objects.values_list("pk", flat=True)), "not one event of each committed change"
        assert not Customer.objects.filter(name=UNDONE).exists()

        sent: dict[str, set[bytes]] = defaultdict(set)
        for received in list(self.receiver.received):
            sent[received.webhook_id].add(received.body)
        assert sent.keys() <= events.keys(), "something was sent that nobody committed"
        for webhook_id, seen in sent.items():
            assert seen == {bytes(events[webhook_id].body)}

        assert self.audited() == {}, self.logs

        arrived = Counter((received.path.strip("/"), received.webhook_id) for received in self.receiver.received)
        here = Delivery.objects.filter(subscription__url__startswith=self.receiver.url)
        for delivery in here.filter(status=Delivery.Status.DELIVERED).select_related("subscription", "event"):
            path = delivery.subscription.url.removeprefix(self.receiver.url)
            assert arrived[path, delivery.event.webhook_id] >= 1, "said to be delivered, and never was"
        for attempt in Attempt.objects.filter(ended_at=None):
            raise AssertionError(f"{attempt} has no end")
        return arrived

    def audited(self) -> dict[str, Gap]:
        report = audit(timezone.now() - timedelta(days=1), grace=LATE)
        assert report.unknown == 0
        return report.gaps

    def all_delivered(self, number: int, *, timeout: float = 40) -> Counter[tuple[str, str]]:
        arrived = self.reconcile(timeout=timeout)
        assert self.delivered() == Delivery.objects.count() == len(arrived) == number
        return arrived

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        for process in self.processes:
            with suppress(ProcessLookupError):
                process.process.send_signal(signal.SIGCONT)
            process.__exit__()


def migrate(env: Mapping[str, str]) -> None:
    command = [sys.executable, "manage.py", "migrate", "-v", "0"]
    subprocess.run(command, env=dict(env), check=True, timeout=120)


def frozen(process: Process) -> bool:
    status = Path(f"/proc/{process.process.pid}/stat").read_text()
    return status.rpartition(")")[2].split()[0] == "T"

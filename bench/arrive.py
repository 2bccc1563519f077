"""How long it takes from a commit until the request arrives, and what
receivers that hang do to the others."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING

from django.db import transaction

from bench import traffic
from bench.deliver import rate, workers
from bench.figures import Result, figure
from bench.measuring import percentile
from bench.processes import wait_for
from subscriptions.conf import conf
from subscriptions.models import Subscription
from webhooks import events, tasks
from webhooks.models import Attempt, Delivery, Event

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bench.measuring import Bench

PER_SECOND = 10
# Of 200 subscriptions.
HANGING = 2
# Of events for ten subscriptions each, where some hang.
EVENTS_PER_SECOND = 20


@figure("arrival_p50_ms", "arrival_p99_ms")
def arrival(bench: Bench) -> Iterable[Result]:
    number = bench.size(32, 12)
    with workers(bench):
        saver = bench.saver("signalpost")
        traffic.subscribe(tenants=1, each=1, prefix=traffic.SOLO)
        halves: list[float] = []
        most: list[float] = []
        for _ in range(bench.repeats):
            traffic.clear()
            run = bench.run()
            traffic.aim(bench.receiver, run, delay=0)
            committed = saver.ask(
                "pace", model="Heard", number=number, per_second=PER_SECOND, account=f"{traffic.SOLO}-0"
            )
            arrivals = bench.receiver.wait_for(run, number)
            # They are so far apart that both are in the order of the saves.
            by_event = sorted(arrivals, key=lambda arrival: arrival.webhook_id)
            waits = [(each.at - at) * 1000 for each, at in zip(by_event, committed, strict=True)]
            halves.append(median(waits))
            most.append(percentile(waits, 0.99))
        yield Result("arrival_p50_ms", median(halves), f"{median(halves):.1f} ms")
        yield Result("arrival_p99_ms", median(most), f"{median(most):.1f} ms")


@figure("backlog_latency")
def backlog(bench: Bench) -> Iterable[Result]:
    """One tenant has more than can be sent for minutes; an event of another goes out beside it."""
    number = bench.size(100_000, 3_000)
    waits: dict[str, list[float]] = {"idle": []}
    for what, fanned_out in (("deliveries", True), ("events", False)):
        traffic.clear(wishes=True)
        with workers(bench) as subscriptions:
            traffic.subscribe(tenants=1, each=1, prefix=traffic.SOLO)
            waits["idle"] += _paces(bench)
            traffic.aim(bench.receiver, bench.run(), delay=100)
            with transaction.atomic():
                traffic.flood(subscriptions[0].tenant, number, fanned_out=fanned_out)
                traffic.analyze()
            traffic.settle()
            tasks.ring()
            wait_for(Attempt.objects.filter(delivery__tenant=subscriptions[0].tenant).exists, what="nothing is sent")
            waits[what] = _paces(bench)
            if not (Event.objects.waiting() if what == "events" else Delivery.objects.open()).exists():
                raise RuntimeError(f"the {what} did not last")
    idle = median(waits["idle"])
    beside = {what: median(waits[what]) for what in ("deliveries", "events")}
    ours = ", ".join(f"{wait:.1f} ms beside {what}" for what, wait in beside.items())
    yield Result("backlog_latency", max(beside.values()) / idle, ours, f"{idle:.1f} ms")


def _paces(bench: Bench) -> list[float]:
    """Milliseconds between commit and arrival at a tenant's only subscription."""
    saver, account = bench.saver("signalpost"), f"{traffic.SOLO}-0"
    waits: list[float] = []
    for _ in range(bench.repeats):
        run, number = bench.run(), bench.size(12, 5)
        Subscription.objects.filter(tenant__key=account).update(url=bench.receiver.target(run, delay=0, number=0))
        committed = saver.ask("pace", model="Heard", number=number, per_second=PER_SECOND, account=account)
        arrivals = sorted(bench.receiver.wait_for(run, number), key=lambda arrival: arrival.webhook_id)
        waits += [(each.at - at) * 1000 for each, at in zip(arrivals, committed, strict=True)]
    return waits


@figure("hung_throughput", "hung_p99")
def hung(bench: Bench) -> Iterable[Result]:
    number = bench.size(5_000, 400)
    with workers(bench) as subscriptions:
        hanging = [each.pk for each in subscriptions[:: len(subscriptions) // HANGING]][:HANGING]
        others = [each.pk for each in subscriptions if each.pk not in hanging]
        run = bench.run()
        traffic.aim(bench.receiver, run, delay=100)
        free_rate = rate(bench, others, number)
        traffic.clear()
        free_wait = bench.medians(lambda: _wait(bench))

        run = bench.run()
        traffic.aim(bench.receiver, run, delay=100, hang=hanging)
        traffic.backlog(hanging, HANGING * 10 * conf.in_flight_per_subscription)
        stuck = HANGING * conf.in_flight_per_subscription
        wait_for(lambda: len(bench.receiver.arrivals(f"{run}-hanging")) >= stuck, what="nothing hangs")
        busy_rate = bench.medians(lambda: traffic.deliver(others, number, hanging=hanging))
        busy_wait = bench.medians(lambda: _wait(bench, hanging))
        for worker in bench.started:
            worker.process.kill()  # It would wait for those that hang.
        yield Result("hung_throughput", busy_rate / free_rate, f"{busy_rate:,.0f}/s", f"{free_rate:,.0f}/s")
        yield Result("hung_p99", busy_wait / free_wait, f"{busy_wait:.0f} ms", f"{free_wait:.0f} ms")


def _wait(bench: Bench, hanging: Sequence[int] = ()) -> float:
    """The 99th percentile of milliseconds between commit and arrival at the
    subscriptions that do not hang, under a steady load."""
    number = EVENTS_PER_SECOND * bench.size(2, 1)
    run = bench.run()
    traffic.aim(bench.receiver, run, delay=100, hang=hanging)
    committed: dict[str, float] = {}
    due = time.monotonic()
    for turn in range(number):
        due += 1 / EVENTS_PER_SECOND
        time.sleep(max(0.0, due - time.monotonic()))
        event = events.publish(traffic.TOPIC, traffic.account(turn % traffic.TENANTS), {"turn": turn})
        committed[event.webhook_id] = time.time()
    # What was sent before to these subscriptions may still arrive under this name.
    missing = number * traffic.SUBSCRIPTIONS_OF_TENANT - len(hanging) * (number // traffic.TENANTS)
    waits: list[float] = []

    def all_there() -> bool:
        arrivals = bench.receiver.arrivals(run)
        waits[:] = [(each.at - committed[each.webhook_id]) * 1000 for each in arrivals if each.webhook_id in committed]
        return len(waits) >= missing

    wait_for(all_there, what="not all events arrived")
    return percentile(waits, 0.99)

"""Deliveries per second: one worker against one job per delivery on RQ, a bare
loop of aiohttp, and a package of the same kind; and two workers against one."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from rq import Queue
from rq.serializers import JSONSerializer

from bench import traffic
from bench.figures import Result, figure
from bench.processes import Process
from subscriptions.conf import conf

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bench.measuring import Bench
    from subscriptions.models import Subscription

WORKER, SIMPLE_WORKER = "rq.worker.Worker", "rq.worker.SimpleWorker"
SEND = "bench.peers.rq_jobs.send"


@figure("deliver_100ms_vs_rq_worker")
def against_rq_worker(bench: Bench) -> Iterable[Result]:
    ours = _ours(bench, delay=100)
    peers = _by_rq(bench, WORKER, delay=100, number=bench.size(14, 3))
    yield Result("deliver_100ms_vs_rq_worker", ours / peers, _per_second(ours), _per_second(peers))


@figure("deliver_0ms_vs_rq_simple")
def against_rq_simple(bench: Bench) -> Iterable[Result]:
    ours = _ours(bench, delay=0)
    peers = _by_rq(bench, SIMPLE_WORKER, delay=0, number=bench.size(250, 30))
    yield Result("deliver_0ms_vs_rq_simple", ours / peers, _per_second(ours), _per_second(peers))


@figure("deliver_0ms_vs_bare_aiohttp")
def against_bare_aiohttp(bench: Bench) -> Iterable[Result]:
    ours = _ours(bench, delay=0)
    peers = _bare(bench, number=bench.size(10_000, 2_000))
    yield Result("deliver_0ms_vs_bare_aiohttp", ours / peers, _per_second(ours), _per_second(peers))


def _per_second(rate: float) -> str:
    return f"{rate:,.0f}/s" if rate >= 100 else f"{rate:.1f}/s"


def _ours(bench: Bench, *, delay: int) -> float:
    number = bench.size(6_000 if not delay else 4_000, 1_000)
    measured: float = bench.once(f"ours at {delay} ms", lambda: _by_workers(bench, delay=delay, number=number))
    return measured


def _by_workers(bench: Bench, *, delay: int, number: int) -> float:
    with workers(bench) as subscriptions:
        traffic.aim(bench.receiver, bench.run(), delay=delay)
        return rate(bench, [each.pk for each in subscriptions], number)


@contextmanager
def workers(bench: Bench, number: int = 1) -> Iterator[list[Subscription]]:
    """`number` of them, warm: connections open, code loaded."""
    subscriptions = traffic.subscribe()
    with ExitStack() as stack:
        for _ in range(number):
            bench.worker(stack)
        traffic.aim(bench.receiver, bench.run(), delay=0)
        traffic.deliver([each.pk for each in subscriptions], bench.size(1_000, 200))
        yield subscriptions


def rate(bench: Bench, subscriptions: Iterable[int], number: int) -> float:
    """Deliveries per second of the workers that run."""
    targets = list(subscriptions)

    def once() -> float:
        traffic.clear()
        return traffic.deliver(targets, number)

    return bench.medians(once)


def _by_rq(bench: Bench, worker_class: str, *, delay: int, number: int) -> float:
    traffic.clear(wishes=True)
    subscriptions = [each.pk for each in traffic.subscribe()]
    queue = Queue(conf.queue, connection=bench.redis, serializer=JSONSerializer)

    def send(deliveries: int) -> float:
        traffic.clear()
        jobs = [Queue.prepare_data(SEND, (pk,)) for pk in traffic.backlog(subscriptions, deliveries, due=False)]
        traffic.analyze()
        began = time.time()
        queue.enqueue_many(jobs)
        return deliveries / (traffic.recorded() - began)

    with ExitStack() as stack:
        bench.worker(stack, worker_class=worker_class)
        traffic.aim(bench.receiver, bench.run(), delay=delay)
        send(2)
        return bench.medians(lambda: send(number))


def _bare(bench: Bench, *, number: int) -> float:
    target = bench.receiver.target(bench.run(), delay=0)
    arguments = ["-m", "bench.peers.bare_aiohttp", target, str(number), traffic.BODY.decode()]
    with Process(*arguments, log=bench.data / "aiohttp.log", piped=True) as process:
        pipes = process.process
        assert pipes.stdin is not None
        assert pipes.stdout is not None

        def send() -> float:
            assert pipes.stdin is not None
            assert pipes.stdout is not None
            pipes.stdin.write("\n")
            pipes.stdin.flush()
            return number / float(pipes.stdout.readline())

        send()
        return bench.medians(send)


@figure("deliver_100ms_vs_peer_package")
def against_peer_package(bench: Bench) -> Iterable[Result]:
    """Each save is heard by ten subscriptions; a save has a transaction of its own."""
    ours = _from_saves(bench, saves=bench.size(400, 30))
    peers = _by_package(bench, saves=bench.size(30, 3))
    yield Result("deliver_100ms_vs_peer_package", ours / peers, _per_second(ours), _per_second(peers))


def _from_saves(bench: Bench, *, saves: int) -> float:
    saver = bench.saver("signalpost")
    with workers(bench):

        def send(rows: int) -> float:
            traffic.clear()
            run = bench.run()
            traffic.aim(bench.receiver, run, delay=100)
            began = time.time()
            saver.ask("create", model="Heard", number=rows)
            per_second = _arrived(bench, run, rows * traffic.SUBSCRIPTIONS_OF_TENANT, began=began)
            traffic.recorded()
            return per_second

        send(20)
        return bench.medians(lambda: send(saves))


def _by_package(bench: Bench, *, saves: int) -> float:
    from bench.peers import package

    saver, run, each = bench.saver("package"), bench.run(), traffic.SUBSCRIPTIONS_OF_TENANT
    saver.ask("listen", urls=[bench.receiver.target(run, delay=100, number=number) for number in range(each)])
    with package.worker(data=bench.data) as worker:
        bench.started.append(worker)
        sent = 0

        def send(rows: int) -> float:
            nonlocal sent
            sent += rows * each
            began = time.time()
            saver.ask("create", model="Heard", number=rows)
            return _arrived(bench, run, sent, began=began, of_these=rows * each)

        send(5)
        return bench.medians(lambda: send(saves))


def _arrived(bench: Bench, run: str, number: int, *, began: float, of_these: int | None = None) -> float:
    arrivals = bench.receiver.wait_for(run, number)
    return (of_these or number) / (arrivals[number - 1].at - began)


@figure("two_workers")
def two_workers(bench: Bench) -> Iterable[Result]:
    # Several times as many as one worker has in flight, so that it is not the last few that count.
    most = min(conf.in_flight, traffic.TENANTS * traffic.SUBSCRIPTIONS_OF_TENANT * conf.in_flight_per_subscription)
    number = most * bench.size(8, 2)
    rates = []
    for count in (1, 2):
        traffic.clear(wishes=True)
        with workers(bench, count) as subscriptions:
            traffic.aim(bench.receiver, bench.run(), delay=500)
            rates.append(rate(bench, [each.pk for each in subscriptions], number))
    one, two = rates
    yield Result("two_workers", two / one, _per_second(two), _per_second(one))

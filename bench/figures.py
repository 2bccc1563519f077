"""The figures: their names, what they are held to, and who measures them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bench.measuring import Bench


@dataclass(frozen=True, slots=True)
class Target:
    """`at_least` and `goal` as the roadmap has them; with `more`, the more the better."""

    figure: str
    peer: str
    at_least: float
    goal: float
    more: bool = False

    def verdict(self, value: float) -> str:
        if self._holds(value, self.goal):
            return "goal"
        return "yes" if self._holds(value, self.at_least) else "no"

    def _holds(self, value: float, bound: float) -> bool:
        return value >= bound if self.more else value <= bound


TARGETS = {
    "deliver_100ms_vs_rq_worker": Target(
        "deliveries/s, one worker, receiver takes 100 ms", "RQ Worker, one job per delivery", 300, 600, more=True
    ),
    "deliver_0ms_vs_rq_simple": Target(
        "deliveries/s, one worker, receiver immediate", "RQ SimpleWorker, one job per delivery", 25, 60, more=True
    ),
    "deliver_0ms_vs_bare_aiohttp": Target(
        "deliveries/s, one worker, receiver immediate", "bare aiohttp, 200 in flight", 0.45, 0.8, more=True
    ),
    "deliver_100ms_vs_peer_package": Target(
        "deliveries/s from saves to arrivals, receiver takes 100 ms", "django-webhook2 on Celery", 12, 25, more=True
    ),
    "save_matched_vs_peer_package": Target("what a matched save adds", "django-webhook2", 0.5, 0.2),
    "two_workers": Target("two workers, receiver takes 500 ms", "one worker", 1.7, 1.95, more=True),
    "arrival_p50_ms": Target("commit to arrival, 10 events/s, median", "-", 25, 10),
    "arrival_p99_ms": Target("commit to arrival, 10 events/s, p99", "-", 150, 50),
    "save_unregistered": Target("save, model not registered", "not installed", 1.02, 1.0),
    "save_unheard": Target("save, registered, nobody listens", "not installed", 1.08, 1.03),
    "save_matched": Target("save with a match, a transaction each", "not installed", 2.0, 1.4),
    "save_matched_batch": Target("1,000 saves with matches, one transaction", "not installed", 1.6, 1.25),
    "delete_unregistered": Target("delete of 10,000 rows, model not registered", "not installed", 1.02, 1.0),
    "fan_out_10k": Target("one event to 10,000 subscriptions", "bulk_create of the same rows", 0.3, 0.1),
    "match_100k": Target("matching an event among 100,000 subscriptions", "among 100", 1.5, 1.1),
    "page_1m": Target("first and 1,000th page at 1,000,000 attempts", "first page at 10,000", 1.5, 1.1),
    "page_first_byte_ms": Target("first byte of a large tenant's slowest page", "-", 200, 100),
    "publish_vs_bare_view": Target(
        "events/s by the API, one web process", "a DRF view that validates and inserts a row", 0.7, 0.9, more=True
    ),
    "publish_batch_vs_bare_view": Target(
        "events/s by the API, 1,000 in a request", "a DRF view that validates and inserts a row", 5, 15, more=True
    ),
    "memory_100k": Target("memory of a worker after 100,000 deliveries", "after 10,000", 1.1, 1.0),
    "backlog_latency": Target("commit to arrival beside another tenant's backlog of 100,000", "idle", 2.0, 1.2),
    "hung_throughput": Target("deliveries/s of the others, 1 % hang", "none hangs", 0.9, 1.0, more=True),
    "hung_p99": Target("p99 of the others, 1 % hang", "none hangs", 2.0, 1.1),
}


@dataclass(frozen=True, slots=True)
class Result:
    """One figure on one database. `ours` and `peers` are what `value` was made of."""

    name: str
    value: float
    ours: str
    peers: str = "-"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


Measure = "Callable[[Bench], Iterable[Result]]"
MEASURES: dict[str, Callable[[Bench], Iterable[Result]]] = {}


def figure(*names: str) -> Callable[[Callable[[Bench], Iterable[Result]]], Callable[[Bench], Iterable[Result]]]:
    """Say that a function measures `names`; it yields their results, and may yield others besides."""

    def decorate(measure: Callable[[Bench], Iterable[Result]]) -> Callable[[Bench], Iterable[Result]]:
        MEASURES.update(dict.fromkeys(names, measure))
        return measure

    return decorate

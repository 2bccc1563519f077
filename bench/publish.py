"""Events accepted per second by one web process, next to a bare view."""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from statistics import median
from typing import TYPE_CHECKING, Any

from bench import traffic
from bench.figures import Result, figure
from bench.processes import Process, wait_for
from bench.warehouse.models import Posted
from subscriptions.models import ApiKey, Tenant
from webhooks.models import Event, Receipt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from bench.measuring import Bench

AT_ONCE = 4  # connections, each kept
BATCH = 1_000
TOPIC = "billing.invoice.paid"
DATA = {
    "number": 7,
    "total": "42.00",
    "currency": "EUR",
    "customer": "Acme",
    "lines": [{"sku": f"A-{n}", "quantity": n, "price": "7.00"} for n in range(1, 4)],
    "note": "x" * 600,
}
EVENT = {"type": TOPIC, "data": DATA}


@figure("publish_vs_bare_view", "publish_batch_vs_bare_view")
def publish(bench: Bench) -> Iterable[Result]:
    """In turns, a block each, so that what else the machine does falls on all of them alike."""
    key = _key()
    with ExitStack() as stack:
        ours = stack.enter_context(Site("signalpost", "/api/v1/events/", key, data=bench.data))
        bare = stack.enter_context(Site("bare", "/events/", key, data=bench.data))
        bare.wait()
        ours.wait()
        requests, batches = bench.size(300, 80), bench.size(4, 2)
        ways: dict[str, Callable[[], float]] = {
            "bare": lambda: bare.per_second(EVENT, number=requests),
            "one": lambda: ours.per_second(EVENT, number=requests),
            "keyed": lambda: ours.per_second(EVENT, number=requests, keyed=True),
            "batch": lambda: ours.per_second({"events": [EVENT] * BATCH}, number=batches, path="batch/", each=BATCH),
        }
        rates = _in_turns(ways, rounds=bench.size(3, 1))
        assert Posted._base_manager.exists()
        assert Event.objects.count() > Receipt.objects.count() > 0
    for name, way in (("publish", "one"), ("publish_keyed", "keyed"), ("publish_batch", "batch")):
        ratios = [mine / theirs for mine, theirs in zip(rates[way], rates["bare"], strict=True)]
        seen = (f"{median(rates[each]):,.0f} events/s" for each in (way, "bare"))
        yield Result(f"{name}_vs_bare_view", median(ratios), *seen)


def _in_turns(ways: dict[str, Callable[[], float]], *, rounds: int) -> dict[str, list[float]]:
    """The rates of each way, one a round; the first round warms up."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    names = [*ways]
    for turn in range(rounds + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            rate = ways[name]()
            if turn:
                rates[name].append(rate)
    return rates


def _key() -> str:
    traffic.subscribe(tenants=1, each=1, prefix="publisher")
    key = ApiKey(tenant=Tenant.objects.get(slug="publisher-0"), name="bench", scopes=["publish"])
    value = key.fill()
    key.save()
    return value


class Site:
    """One gunicorn worker process with the project's own threads and middleware."""

    def __init__(self, variant: str, path: str, key: str, *, data: Path) -> None:
        self.path, self.key = path, key
        self.socket = data / f"{variant}.sock"
        self.sent = 0
        arguments = ["config.wsgi", "--bind", f"unix:{self.socket}", "--workers", "1", "--threads", str(AT_ONCE)]
        log = data / f"web-{variant}.log"
        self.process = Process("-m", "gunicorn", *arguments, "--no-control-socket", log=log, variant=variant)

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stop()

    def wait(self) -> None:
        self.process.wait_until(self.socket.exists, what="gunicorn")
        wait_for(self._answers, what=f"the site does not answer\n{self.process.text[-2000:]}")

    def _answers(self) -> bool:
        try:
            return self._all([self._request(EVENT)]) == [202]
        except OSError:
            return False

    def per_second(self, body: Any, *, number: int, path: str = "", each: int = 1, keyed: bool = False) -> float:
        requests = [self._request(body, path=path, keyed=keyed) for _ in range(number)]
        shares = [requests[start::AT_ONCE] for start in range(AT_ONCE)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            began = time.perf_counter()
            answers = [status for found in pool.map(self._all, shares) for status in found]
            seconds = time.perf_counter() - began
        assert set(answers) == {202}, f"{sorted(set(answers))}\n{self.process.text[-2000:]}"
        return len(answers) * each / seconds

    def _request(self, body: Any, *, path: str = "", keyed: bool = False) -> bytes:
        content = json.dumps(body).encode()
        self.sent += 1
        headers = [
            f"POST {self.path}{path} HTTP/1.1",
            "Host: localhost",
            f"Authorization: Bearer {self.key}",
            "Content-Type: application/json",
            f"Content-Length: {len(content)}",
            *([f"Idempotency-Key: {self.sent}"] if keyed else []),
        ]
        return "\r\n".join(headers).encode() + b"\r\n\r\n" + content

    def _all(self, requests: list[bytes]) -> list[int]:
        """Their statuses; a connection that was closed is made anew."""
        found: list[int] = []
        with ExitStack() as stack:
            at = None
            for request in requests:
                if at is None:
                    at = stack.enter_context(closing(socket.socket(socket.AF_UNIX)))
                    at.settimeout(30)
                    at.connect(str(self.socket))
                at.sendall(request)
                status, stays = _answer(at)
                found.append(status)
                at = at if stays else None
        return found


def _answer(at: socket.socket) -> tuple[int, bool]:
    """The status, and whether the connection stays."""
    read = b""
    while b"\r\n\r\n" not in read:
        read += _more(at)
    head, _blank, body = read.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
    while len(body) < length:
        body += _more(at)
    return int(lines[0].split()[1]), b"connection: close" not in lines


def _more(at: socket.socket) -> bytes:
    found = at.recv(65536)
    if not found:
        raise ConnectionError("The site closed the connection.")
    return found

"""What Signalpost adds to a save and to a delete."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from bench import traffic
from bench.figures import Result, figure
from bench.savers import Saver, in_turns

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.measuring import Bench

ACCOUNT = f"{traffic.SOLO}-0"


@figure("save_unregistered")
def save_unregistered(bench: Bench) -> Iterable[Result]:
    yield _against_bare(bench, "save_unregistered", "create", model="Plain", number=50, rounds=20)


@figure("save_unheard")
def save_unheard(bench: Bench) -> Iterable[Result]:
    yield _against_bare(bench, "save_unheard", "create", model="Quiet", number=50, rounds=20)
    if not bench.quick:
        yield _against_bare(bench, "save_unheard_plainly", "create_plainly", model="Quiet", number=50, rounds=10)


@figure("save_matched")
def save_matched(bench: Bench) -> Iterable[Result]:
    heard: dict[str, Any] = {"model": "Heard", "account": ACCOUNT, "number": 50}
    yield _against_bare(bench, "save_matched", "create", rounds=15, **heard)
    if not bench.quick:
        yield _against_bare(bench, "save_matched_plainly", "create_plainly", rounds=8, **heard)
        yield _against_bare(bench, "save_matched_update", "update", rounds=8, **heard)


@figure("save_matched_batch")
def save_matched_batch(bench: Bench) -> Iterable[Result]:
    heard: dict[str, Any] = {"model": "Heard", "account": ACCOUNT, "number": bench.size(1_000, 300)}
    yield _against_bare(bench, "save_matched_batch", "create_together", rounds=3, **heard)


@figure("delete_unregistered")
def delete_unregistered(bench: Bench) -> Iterable[Result]:
    yield _against_bare(
        bench, "delete_unregistered", "delete", model="Plain", number=bench.size(10_000, 2_000), rounds=7
    )


def _against_bare(bench: Bench, name: str, what: str, *, number: int, rounds: int, **arguments: Any) -> Result:
    ratios, ours, peers = [], 0.0, 0.0
    _wish()
    both = [bench.saver("bare"), bench.saver("signalpost")]
    for _ in range(bench.repeats):
        peers, ours = in_turns(both, what, rounds=_rounds(bench, rounds), number=number, **arguments)
        ratios.append(ours / peers)
    return Result(name, median(ratios), _each(ours, number), _each(peers, number))


@figure("save_matched_vs_peer_package")
def against_peer_package(bench: Bench) -> Iterable[Result]:
    number, ratios = 50, []
    added, peers_added = 0.0, 0.0
    _wish()
    all_three = [bench.saver(variant) for variant in ("bare", "signalpost", "package")]
    _listen(bench, all_three[-1])
    for _ in range(bench.repeats):
        bare, ours, peers = in_turns(
            all_three, "create", rounds=_rounds(bench, 12), model="Heard", account=ACCOUNT, number=number
        )
        added, peers_added = ours - bare, peers - bare
        ratios.append(added / peers_added)
    result = median(ratios)
    yield Result("save_matched_vs_peer_package", result, "+" + _each(added, number), "+" + _each(peers_added, number))


def _listen(bench: Bench, package: Saver) -> None:
    package.ask("listen", urls=[bench.receiver.target(bench.run(), delay=0, number=0)])


def _wish() -> None:
    """One subscription hears of each matched save."""
    traffic.clear(wishes=True)
    traffic.subscribe(tenants=1, each=1, prefix=traffic.SOLO)


def _rounds(bench: Bench, rounds: int) -> int:
    return bench.size(rounds, 3)


def _each(seconds: float, number: int) -> str:
    return f"{seconds / number * 1e6:,.1f} µs"

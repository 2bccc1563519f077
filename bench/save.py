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
    yield _against_bare(bench, "save_unregistered", "create", model="Plain", number=50, rounds=60)


@figure("save_unheard")
def save_unheard(bench: Bench) -> Iterable[Result]:
    yield _against_bare(bench, "save_unheard", "create", model="Quiet", number=50, rounds=40)
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
    """The median of what a block took by what the other's took in the same round:
    what slows both down for a while falls out."""
    _wish()
    both = [bench.saver("bare"), bench.saver("signalpost")]
    peers, ours = in_turns(both, what, rounds=_rounds(bench, bench.repeats * rounds), number=number, **arguments)
    ratio = median(mine / theirs for mine, theirs in zip(ours, peers, strict=True))
    return Result(name, ratio, _each(median(ours), number), _each(median(peers), number))


@figure("save_matched_vs_peer_package")
def against_peer_package(bench: Bench) -> Iterable[Result]:
    number = 50
    _wish()
    all_three = [bench.saver(variant) for variant in ("bare", "signalpost", "package")]
    _listen(bench, all_three[-1])
    rounds = _rounds(bench, bench.repeats * 12)
    blocks = in_turns(all_three, "create", rounds=rounds, model="Heard", account=ACCOUNT, number=number)
    bare, ours, peers = map(median, blocks)
    added, peers_added = _each(ours - bare, number), _each(peers - bare, number)
    yield Result("save_matched_vs_peer_package", (ours - bare) / (peers - bare), f"+{added}", f"+{peers_added}")


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

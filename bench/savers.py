"""Processes that save rows: with Signalpost, with the peer package, with neither.

Each does what a line of JSON on its input says and answers with the seconds
it took. Measured in turns, a block each, so that what else the machine does
falls on all of them alike.
"""

from __future__ import annotations

import json
import sys
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from bench.processes import Process

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from bench.warehouse.models import Parcel


class Saver:
    """The handle of such a process."""

    def __init__(self, variant: str, *, data: Path) -> None:
        self.variant = variant
        self.process = Process("-m", "bench.savers", log=data / f"saver-{variant}.log", variant=variant, piped=True)

    def ask(self, what: str, **arguments: Any) -> Any:
        pipes = self.process.process
        assert pipes.stdin is not None
        assert pipes.stdout is not None
        pipes.stdin.write(json.dumps({"what": what, **arguments}) + "\n")
        pipes.stdin.flush()
        answer = pipes.stdout.readline()
        if not answer:
            raise RuntimeError(f"The saver {self.variant} ended\n{self.process.text[-2000:]}")
        return json.loads(answer)


def in_turns(savers: Sequence[Saver], what: str, *, rounds: int, **arguments: Any) -> list[list[float]]:
    """The seconds of each saver's blocks, one a round; the first round warms up."""
    blocks: list[list[float]] = [[] for _ in savers]
    for turn in range(rounds + 1):
        # Each goes first as often as the others: who comes after whom matters, too.
        order = [*range(len(savers))]
        for place in order[turn % len(savers) :] + order[: turn % len(savers)]:
            seconds = savers[place].ask(what, **arguments)
            if turn:
                blocks[place].append(seconds)
    return blocks


# --- in the process itself -----------------------------------------------------


def _values(turn: int, account: str | None) -> dict[str, Any]:
    return {
        "account": account or f"account-{turn % 20}",
        "number": f"P-{turn}",
        "weight": Decimal("12.50"),
        "note": "x" * 600,
    }


def _model(name: str) -> type[Parcel]:
    from bench.warehouse import models

    found: type[Parcel] = getattr(models, name)
    return found


def create(*, model: str, number: int, account: str | None = None) -> float:
    """Each in a transaction of its own."""
    from django.db import transaction

    kind = _model(model)
    began = time.perf_counter()
    for turn in range(number):
        with transaction.atomic():
            kind(**_values(turn, account)).save()
    return time.perf_counter() - began


def create_plainly(*, model: str, number: int, account: str | None = None) -> float:
    """With no transaction around it."""
    kind = _model(model)
    began = time.perf_counter()
    for turn in range(number):
        kind(**_values(turn, account)).save()
    return time.perf_counter() - began


def create_together(*, model: str, number: int, account: str | None = None) -> float:
    """All in one transaction."""
    from django.db import transaction

    kind = _model(model)
    began = time.perf_counter()
    with transaction.atomic():
        for turn in range(number):
            kind(**_values(turn, account)).save()
    return time.perf_counter() - began


def update(*, model: str, number: int, account: str | None = None) -> float:
    """Each in a transaction of its own, one field changed."""
    from django.db import transaction

    kind = _model(model)
    rows = [kind(**_values(turn, account)) for turn in range(number)]
    kind._base_manager.bulk_create(rows)
    began = time.perf_counter()
    for row in rows:
        row.status = "packed"
        with transaction.atomic():
            row.save()
    return time.perf_counter() - began


def delete(*, model: str, number: int) -> float:
    """As many rows in one call; copies of some that stay."""
    from django.db import connection

    kind = _model(model)
    stay, go = kind._base_manager.filter(account="stay"), kind._base_manager.filter(account="go")
    if missing := number - stay.count():
        kind._base_manager.bulk_create((kind(**_values(turn, "stay")) for turn in range(missing)), batch_size=1000)
    columns = ", ".join(str(field.column) for field in kind._meta.concrete_fields[2:])
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {kind._meta.db_table} (account, {columns}) "  # noqa: S608 - our own names
            f"SELECT 'go', {columns} FROM {kind._meta.db_table} WHERE account = 'stay'"
        )
    began = time.perf_counter()
    deleted, _ = go.delete()
    seconds = time.perf_counter() - began
    assert deleted == number
    return seconds


def pace(*, model: str, number: int, per_second: float, account: str) -> list[float]:
    """One save at a time, at a steady pace; the Unix times of their commits."""
    from django.db import transaction

    kind, committed = _model(model), []
    due = time.monotonic()
    for turn in range(number):
        due += 1 / per_second
        time.sleep(max(0.0, due - time.monotonic()))
        with transaction.atomic():
            transaction.on_commit(lambda: committed.append(time.time()))
            kind(**_values(turn, account)).save()
    return committed


def listen(*, urls: Sequence[str]) -> int:
    """Subscriptions of the peer package; it has no tenants, so all of them hear of every row."""
    from bench.peers.package import subscribe

    return subscribe(urls)


WORK: Mapping[str, Callable[..., Any]] = {
    work.__name__: work for work in (create, create_plainly, create_together, update, delete, pace, listen)
}


def main() -> None:
    import django

    django.setup()
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(WORK[order.pop("what")](**order)), flush=True)


if __name__ == "__main__":
    main()

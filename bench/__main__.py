"""`python -m bench`: every figure, with its peer measured in the same run.

    make bench [ARGS="--quick"] [ARGS="name ..."] [ARGS="--only sqlite"]

SQLite always, PostgreSQL where it answers (DATABASE_URL, or 127.0.0.1:5432).
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from bench import machine
from bench.figures import TARGETS, Result
from bench.receiver import own_speed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HEADINGS = ("figure", "database", "value", "at least", "goal", "holds", "ours", "peer's")


def main() -> int:
    options = _options()
    began = time.monotonic()
    # A closed terminal or a stop ends it like Ctrl-C does; nothing stays behind.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))
    kinds = _kinds(options)
    results: dict[str, list[Result]] = {}
    code = 0
    try:
        with ExitStack() as stack:
            data = stack.enter_context(machine.directory())
            redis_url = stack.enter_context(machine.valkey(data))
            receiver = stack.enter_context(machine.receiver())
            speed = own_speed(receiver, body=b"x" * 1024)
            print(f"The receiver alone takes {speed:,.0f} requests/s", flush=True)
            for kind in kinds:
                print(f"\n== {kind} ==", flush=True)
                with (
                    machine.database(kind, data=data, redis_url=redis_url) as env,
                    machine.measuring(env, receiver=receiver, quick=options.quick, names=options.names) as process,
                ):
                    results[kind] = list(_results(process))
                    code = process.wait() or code
    except KeyboardInterrupt:
        return 130
    _print_table(results)
    _print_lines(results)
    print(f"receiver_per_second: {speed:.0f}\n\n{time.monotonic() - began:.0f} s")
    return code


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description="The figures, each against its peer.")
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(TARGETS))
    parser.add_argument(
        "--quick", action="store_true", help="once instead of three times, less of everything, on one database"
    )
    parser.add_argument("--only", choices=[machine.SQLITE, machine.POSTGRESQL], help="one database instead of both")
    options = parser.parse_args()
    if unknown := set(options.names) - set(TARGETS):
        parser.error(f"no such figure: {', '.join(sorted(unknown))}")
    options.names = options.names or list(TARGETS)
    return options


def _kinds(options: argparse.Namespace) -> list[str]:
    """With --quick one of them: that is what a minute is enough for."""
    only = options.only
    if only == machine.SQLITE:
        return [machine.SQLITE]
    if machine.server() is None:
        if only is not None:
            sys.exit("PostgreSQL does not answer, or lets us make no database (DATABASE_URL names another)")
        print("PostgreSQL does not answer, or lets us make no database; its figures are left out")
        return [machine.SQLITE]
    return [machine.POSTGRESQL] if only or options.quick else [machine.SQLITE, machine.POSTGRESQL]


def _results(process: subprocess.Popen[str]) -> Iterator[Result]:
    assert process.stdout is not None
    for line in process.stdout:
        result = Result(**json.loads(line))
        print(f"{result.name}: {_number(result.value)}  ({result.ours} against {result.peers})", flush=True)
        yield result


def _print_table(results: Mapping[str, Sequence[Result]]) -> None:
    rows = [HEADINGS]
    for kind, found in results.items():
        for result in found:
            target = TARGETS.get(result.name)
            held_to = (
                (f"{target.at_least:g}", f"{target.goal:g}", target.verdict(result.value)) if target else ("-",) * 3
            )
            rows.append((result.name, kind, _number(result.value), *held_to, result.ours, result.peers))
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    print()
    for number, row in enumerate(rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
        if not number:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    print()


def _print_lines(results: Mapping[str, Sequence[Result]]) -> None:
    """`name: value` of the last database, PostgreSQL where it answered, and `name.database: value` of each."""
    for kind, found in results.items():
        for result in found:
            print(f"{result.name}.{kind}: {_number(result.value)}")
    for result in list(results.values())[-1] if results else ():
        print(f"{result.name}: {_number(result.value)}")


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())

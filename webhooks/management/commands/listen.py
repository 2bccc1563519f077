from __future__ import annotations

import argparse
import io
import json
import os
import sys
import threading
from contextlib import suppress
from errno import EADDRINUSE
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError

from subscriptions.secrets import key_of
from webhooks.management.listening import Orders, Received, Receiver
from webhooks.management.printing import as_json, headline, indented, plain
from webhooks.management.stopping import stopped_by_signals

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.core.management.base import CommandParser

LONGEST_NONSENSE = 200  # characters
LONGEST_DELAY = 3_600.0  # seconds


class Command(BaseCommand):
    help = "Receive webhooks, verify them, and print each one: verified or not, and why."
    # It is for anybody's local work: no database, no queue.
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
        parser.add_argument(
            "--port", type=_between(int, 0, 65_535), default=9000, help="default: %(default)s; 0: any that is free"
        )
        parser.add_argument(
            "--secret",
            type=_secret,
            action="append",
            required=True,
            metavar="whsec_...",
            help="the subscription's secret; may be given several times, and any one will do",
        )
        parser.add_argument(
            "--status", type=_between(int, 200, 599), help="answer with this, to webhooks verified or not"
        )
        parser.add_argument(
            "--times", type=_between(int, 1, sys.maxsize), help="of --status: only to the first so many webhooks"
        )
        parser.add_argument(
            "--delay",
            type=_between(float, 0, LONGEST_DELAY),
            default=0.0,
            metavar="SECONDS",
            help="wait before each answer",
        )
        form = parser.add_mutually_exclusive_group()
        form.add_argument("--quiet", action="store_true", help="print one line per webhook, without its body")
        form.add_argument("--json", action="store_true", help="print one JSON object per line")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["times"] is not None and options["status"] is None:
            raise CommandError("--times goes with --status: how many times to answer with it.")
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that lacks a letter gets its number
        log = Log(self, form="json" if options["json"] else "quiet" if options["quiet"] else "text")
        with suppress(KeyboardInterrupt), stopped_by_signals(), self._receiver(log, options) as receiver:
            log.on_lost_reader = receiver.shutdown
            try:
                log.started(receiver.url)
                receiver.serve_forever()
            finally:
                log.stopped()

    def _receiver(self, log: Log, options: dict[str, Any]) -> Receiver:
        host, port = options["host"], options["port"]
        try:
            return Receiver(
                (host, port),
                secrets=options["secret"],
                orders=Orders(options["status"], options["times"], options["delay"]),
                on_webhook=log.webhook,
                on_nonsense=log.nonsense,
            )
        except OSError as error:
            if error.errno == EADDRINUSE:
                raise CommandError(
                    f"Port {port} is taken. Choose another with --port, or --port 0 for any that is free."
                ) from error
            raise CommandError(f"Cannot listen on {host} port {port}: {error.strerror or error}.") from error


class Log:
    """What the command prints, from whatever thread, a line at a time."""

    def __init__(self, command: Command, *, form: str) -> None:
        self._command, self._form = command, form
        self._lock = threading.Lock()
        self._open = True
        self._received = self._refused = 0
        self.on_lost_reader: Callable[[], None] = lambda: None

    def started(self, url: str) -> None:
        if self._form == "json":
            self._write(json.dumps({"listening": url}))
        else:
            self._write(f"Listening on {url} (stop with Ctrl-C)")

    def webhook(self, received: Received) -> None:
        self._received += 1
        self._refused += bool(received.problem)
        if self._form == "json":
            self._write(as_json(received))
            return
        style = self._command.style.ERROR if received.problem else self._command.style.SUCCESS
        head = style(headline(received))
        self._write(head if self._form == "quiet" else f"{head}\n{indented(received.body)}")

    def nonsense(self, text: str) -> None:
        with self._lock:
            if self._open:
                self._command.stderr.write(f"Not a webhook: {plain(text[:LONGEST_NONSENSE])}")

    def stopped(self) -> None:
        """Print no more: a thread that still writes while Python ends would break it."""
        if self._form != "json":
            unverified = f", {self._refused} not verified" if self._refused else ""
            self._write(f"Stopped; {self._received} received{unverified}.")
        with self._lock:
            self._open = False

    def _write(self, text: str) -> None:
        with self._lock:
            if not self._open:
                return
            try:
                self._command.stdout.write(text)
                self._command.stdout.flush()
            except BrokenPipeError:
                # Whoever read has gone (`listen | head`): so do we, and
                # quietly, also when Python flushes once more at its end.
                self._open = False
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                threading.Thread(target=self.on_lost_reader).start()


def _secret(text: str) -> str:
    try:
        key_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _between(kind: Callable[[str], float], low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:  # nor is NaN
            raise argparse.ArgumentTypeError(f"a number from {low:g} to {high:g}, not {text!r}")
        return value

    return read

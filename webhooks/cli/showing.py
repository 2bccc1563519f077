"""What the commands print: a line for people, or a JSON object for programs."""

from __future__ import annotations

import io
import json
import os
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO, Any

from webhooks.management.printing import plain

GOOD, BAD, OPEN = "32", "31", "33"  # green, red, yellow
COLOURS = {"delivered": GOOD, "failed": BAD, "retrying": OPEN, "cancelled": OPEN}


class ReaderGoneError(Exception):
    """Nobody reads any more what is printed (`signalpost tail | head`)."""


@dataclass
class Out:
    """Results go to `results`, a line each; what is said about them to `words`."""

    as_json: bool = False
    results: IO[str] = field(default_factory=lambda: sys.stdout)
    words: IO[str] = field(default_factory=lambda: sys.stderr)

    def __post_init__(self) -> None:
        for stream in (self.results, self.words):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a letter gets its number

    def line(self, text: str, *, colour: str = "", **values: Any) -> None:
        """`text` for people, or else `values` for programs."""
        if self.as_json:
            self._write(json.dumps(values))
        else:
            self._write(coloured(plain(text), colour) if is_coloured(self.results) else plain(text))

    def block(self, text: str) -> None:
        """Of several lines, such as a JSON document."""
        for line in text.split("\n"):
            self._write(plain(line))

    def say(self, text: str) -> None:
        print(plain(text), file=self.words, flush=True)

    def fail(self, text: str, **values: Any) -> None:
        """Why it ends."""
        line = json.dumps({"error": text, **values}) if self.as_json else plain(f"Error: {text}")
        print(coloured(line, BAD) if is_coloured(self.words) else line, file=self.words, flush=True)

    def warn(self, text: str) -> None:
        print(
            coloured(plain(text), OPEN) if is_coloured(self.words) else plain(text),
            file=self.words,
            flush=True,
        )

    def _write(self, text: str) -> None:
        try:
            self.results.write(f"{text}\n")
            self.results.flush()
        except BrokenPipeError:
            # Python flushes once more at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.results.fileno())
            raise ReaderGoneError from None


def is_coloured(stream: IO[str]) -> bool:
    """https://no-color.org: not where it is set and not empty."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def coloured(text: str, colour: str) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if colour else text


def clock(moment: str | None = None) -> str:
    """As a person here reads it; of `moment`, in RFC 3339, or of now."""
    when = datetime.now(UTC) if moment is None else datetime.fromisoformat(moment)
    return f"{when.astimezone():%H:%M:%S}"


def now() -> str:
    return rfc3339(datetime.now(UTC))


def rfc3339(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def laid_out(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)

"""A delivery's request as a command for a POSIX shell. Pure: no clock but the one given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhooks import signing

if TYPE_CHECKING:
    from collections.abc import Sequence

# The next line belongs to the same command.
GOES_ON = " \\\n  "
JSON = {"content-type": "application/json"}


def command(*, url: str, webhook_id: str, timestamp: int, body: bytes, secrets: Sequence[str]) -> str:
    """Sends exactly `body`, signed for `timestamp` (Unix seconds).

    The body is an argument of the shell's own printf and not of curl: Linux
    takes 128 KiB for one argument of a program. Not a here-document, which
    adds a line end, and in which an interactive shell expands `!`. Raises
    ValueError where nothing can be signed, and for a body that a shell loses
    bytes of.
    """
    text = body.decode()
    if "\0" in text:
        raise ValueError("A shell cannot hold a body with NUL.")
    signed = signing.headers(webhook_id=webhook_id, timestamp=timestamp, body=body, secrets=secrets)
    parts = [
        f"printf %s {quoted(text)} |",
        f"curl --include --globoff --url {quoted(url)}",
        *(f"--header {quoted(f'{name}: {value}')}" for name, value in {**JSON, **signed}.items()),
        "--data-binary @-",
    ]
    return f"{parts[0]}\n{GOES_ON.join(parts[1:])}\n"


def quoted(text: str) -> str:
    """One word of a shell, whatever it holds."""
    return "'" + text.replace("'", "'\\''") + "'"

"""A received webhook as lines of plain text. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from webhooks.management.listening import Received

BODY_LIMIT = 100_000  # characters of a body
NAME_LIMIT = 200  # characters of a topic or an id


def headline(received: Received) -> str:
    """One line: when, what, whether it is verified and if not why, and the answer."""
    again = " again" if received.again else ""
    verdict = f"NOT VERIFIED: {received.problem}" if received.problem else "verified."
    return plain(
        f"{received.at.astimezone():%H:%M:%S} {topic(received.body) or '(no topic)'} "
        f"{received.webhook_id[:NAME_LIMIT] or '(no id)'}{again}: {verdict} Answered {received.status}."
    )


def indented(body: bytes) -> str:
    """JSON laid out, anything else as it is, cut at `BODY_LIMIT`."""
    text = _laid_out(body)
    lines = [plain(line) for line in text[:BODY_LIMIT].split("\n")]
    if len(text) > BODY_LIMIT:
        lines.append("(cut here)")
    return "\n".join(f"    {line}" for line in lines)


def as_json(received: Received) -> str:
    """One line of ASCII; a body that is no JSON is a string."""
    line: dict[str, Any] = {
        "time": received.at.isoformat(timespec="milliseconds"),
        "topic": topic(received.body),
        "id": received.webhook_id[:NAME_LIMIT],
        "verified": not received.problem,
        "problem": received.problem,
        "again": received.again,
        "status": received.status,
    }
    try:
        return json.dumps({**line, "body": _parsed(received.body)})
    except (ValueError, RecursionError):
        return json.dumps({**line, "body": received.body.decode(errors="replace")})


def topic(body: bytes) -> str:
    try:
        parsed = _parsed(body)
    except (ValueError, RecursionError):
        return ""
    name = parsed.get("type") if isinstance(parsed, dict) else None
    return name[:NAME_LIMIT] if isinstance(name, str) else ""


def plain(text: str) -> str:
    """One line of `text`, with everything that could steer a terminal, or fool
    the eye by turning the direction of writing, as its escape."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _laid_out(body: bytes) -> str:
    try:
        return _joined(json.JSONEncoder(indent=2, ensure_ascii=False).iterencode(_parsed(body)))
    except (ValueError, RecursionError):
        return body.decode(errors="backslashreplace")


def _joined(parts: Iterable[str]) -> str:
    """Just past the limit at most: a small body, deeply nested, can be huge laid out."""
    text: list[str] = []
    length = 0
    for part in parts:
        text.append(part)
        length += len(part)
        if length > BODY_LIMIT:
            break
    return "".join(text)


def _parsed(body: bytes) -> Any:
    """Raises ValueError for what is no JSON, NaN and Infinity included, and
    RecursionError for what is nested too deeply to tell."""
    return json.loads(body, parse_constant=_refuse)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON.")

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from config.logs import Json, WithoutTokens, logging_config


def line(message: str = "Drained", *args: object, **extra: Any) -> dict[str, Any]:
    """As it is written, and read again."""
    error = sys.exc_info() if sys.exc_info()[0] else None
    record = logging.getLogger("webhooks.drain").makeRecord(
        "webhooks.drain", logging.INFO, "drain.py", 1, message, args, error, extra=extra
    )
    text = Json().format(record)
    assert "\n" not in text
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def test_a_line_is_one_object_with_time_level_logger_and_message() -> None:
    parsed = line("Drained in %.1f s: %s", 0.25, "3 delivered")
    moment = datetime.fromisoformat(parsed.pop("time"))
    assert moment.tzinfo == UTC
    assert abs((datetime.now(UTC) - moment).total_seconds()) < 60
    assert parsed == {"level": "INFO", "logger": "webhooks.drain", "message": "Drained in 0.2 s: 3 delivered"}


def test_the_ids_that_a_line_is_about_are_members() -> None:
    parsed = line(event="evt_01", delivery=7, attempt=8, subscription=9)
    assert {name: parsed[name] for name in ("event", "delivery", "attempt", "subscription")} == {
        "event": "evt_01",
        "delivery": 7,
        "attempt": 8,
        "subscription": 9,
    }


def test_nothing_else_that_a_record_carries_is_shown() -> None:
    assert set(line(body=b"secret", request=object(), event=object())) == {"time", "level", "logger", "message"}


@pytest.mark.parametrize("message", ['quotes " and \\', "two\nlines", "NUL \0", "lone \ud800", "ключ"])
def test_any_text_is_one_line_that_can_be_read_again(message: str) -> None:
    assert line(message)["message"] == message


def test_a_traceback_is_a_member() -> None:
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        parsed = line()
    assert parsed["traceback"].startswith("Traceback")
    assert parsed["traceback"].endswith("RuntimeError: broken")


def test_a_format_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="LOG_FORMAT is 'xml'; write one of line, json"):
        logging_config("INFO", "xml")


def test_who_reads_the_log_cannot_accept_an_invitation() -> None:
    """As Django logs whatever it refuses, by its address."""
    path = "/invitations/uN7r-cQ2_kZ1uN7r-cQ2_kZ1uN7r-cQ2_kZ1uN7r-cQ/"
    record = logging.LogRecord("django.request", logging.WARNING, "", 1, "%s: %s", ("Forbidden", path), None)
    assert WithoutTokens().filter(record)
    assert record.getMessage() == "Forbidden: /invitations/…/"
    for handler in logging_config("INFO", "line")["handlers"].values():
        assert "without_tokens" in handler["filters"]

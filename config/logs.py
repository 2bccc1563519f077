"""The log, for people to read (`line`) or for machines (`json`)."""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime
from typing import Any

FORMATS = ("line", "json")
# What opens an invitation, as it stands in addresses; Django logs those that it refuses.
TOKEN = re.compile(r"(?<=/invitations/)[\w-]{20,}")
# What a line may be about; the code says so by `extra=`.
ABOUT = ("event", "delivery", "attempt", "subscription")


class WithoutTokens(logging.Filter):
    """Who reads the log must not be able to accept an invitation."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(TOKEN.sub("…", each) if isinstance(each, str) else each for each in record.args)
        return True


class Json(logging.Formatter):
    """One object per line. Of what a record carries besides its text only
    ids are shown, so that nobody's `extra` can put a body or a secret there."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: record.__dict__[name] for name in ABOUT if isinstance(record.__dict__.get(name), int | str)}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def logging_config(level: str, style: str) -> dict[str, Any]:
    """For `LOGGING`. Raises ValueError for a format that there is not."""
    if style not in FORMATS:
        raise ValueError(f"LOG_FORMAT is {style!r}; write one of {', '.join(FORMATS)}")
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"},
            "json": {"()": "config.logs.Json"},
        },
        "filters": {"without_tokens": {"()": "config.logs.WithoutTokens"}},
        # The handler's level, too: `rqworker` and the clock set those of RQ's loggers.
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": style,
                "level": level,
                "filters": ["without_tokens"],
            }
        },
        "root": {"handlers": ["stderr"], "level": level},
    }

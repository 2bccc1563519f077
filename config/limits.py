"""Where sign-ins are counted, so that nobody tries a thousand passwords; and
requests to the API, by key.

In Redis, for all web processes together. While Redis is away each process
counts by itself, in memory: people sign in all the same, and are limited.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.redis import RedisCache
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

PATIENCE = 5.0  # seconds until Redis is asked again


class Json:
    """Not pickle: whoever can write to Redis is not to run code in here."""

    def dumps(self, value: Any) -> bytes:
        return json.dumps(value).encode()

    def loads(self, data: bytes) -> Any:
        return json.loads(data)


class Counters(RedisCache):
    away_until = 0.0  # of all threads of this process

    def __init__(self, server: str, params: dict[str, Any]) -> None:
        super().__init__(server, params)
        self.own = LocMemCache("signalpost.limits", params)

    def add(self, *args: Any, **kwargs: Any) -> Any:
        return self._ask("add", *args, **kwargs)

    def get(self, *args: Any, **kwargs: Any) -> Any:
        return self._ask("get", *args, **kwargs)

    def incr(self, *args: Any, **kwargs: Any) -> Any:
        return self._ask("incr", *args, **kwargs)

    def set(self, *args: Any, **kwargs: Any) -> Any:
        return self._ask("set", *args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> Any:
        return self._ask("delete", *args, **kwargs)

    def clear(self) -> Any:
        self.own.clear()
        return self._ask("clear")

    def _ask(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if time.monotonic() >= Counters.away_until:
            try:
                return getattr(super(), name)(*args, **kwargs)
            except RedisError as error:
                Counters.away_until = time.monotonic() + PATIENCE
                logger.warning("Redis is away, this process counts by itself: %s", type(error).__name__)
        return getattr(self.own, name)(*args, **kwargs)

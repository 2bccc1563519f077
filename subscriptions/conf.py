"""Every SIGNALPOST_ setting, with its type and its default.

`conf.body_limit` is `settings.SIGNALPOST_BODY_LIMIT` or the default below.
README.md says what each one does and what is dangerous about it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.signals import setting_changed

PREFIX = "SIGNALPOST_"
# Of API_RATE.
RATE = re.compile(r"([1-9][0-9]{0,8})/(s|sec|second|min|minute|h|hour)")
# Of CAPTURE_ERRORS.
LOG = "log"

DEFAULTS: dict[str, Any] = {
    # Capture
    "REGISTER": {},  # pattern -> {"tenant": ..., "fields": ..., "actions": ...}
    "OPERATOR_TENANT": "operator",  # slug of the tenant that hears project.* topics
    "PROJECT_ACTIONS": (),  # such as "request.failed", "migrated"
    "DATABASES": ("default",),  # aliases whose changes are captured
    "CAPTURE_ERRORS": "raise",  # or "log"
    "BODY_LIMIT": 256 * 1024,  # bytes
    # Deliver
    "QUEUE": "default",
    "RETRY_SCHEDULE": (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400),  # seconds
    "RETRY_JITTER": 0.2,  # share, either way
    "RETRY_AFTER_MAX": 86_400.0,  # seconds
    "LEASE_SECONDS": 45.0,
    "LOOK_SECONDS": 2.0,  # how often a worker looks by itself
    "SWEEP_SECONDS": 10.0,  # how often the clock rings
    "IN_FLIGHT": 500,  # requests at once in one worker
    "IN_FLIGHT_PER_SUBSCRIPTION": 10,
    "BREAKER_FAILURES": 10,  # in a row, before a subscription gets one probe at a time
    "BREAKER_SECONDS": 60.0,  # from a failed probe to the next
    "DISABLE_AFTER": 432_000.0,  # seconds of nothing but failures: five days
    # Send
    "CONNECT_TIMEOUT": 5.0,  # seconds
    "REQUEST_TIMEOUT": 15.0,  # seconds, from the connection on
    "TOTAL_TIMEOUT": 20.0,  # seconds, name lookup included
    "RESPONSE_LIMIT": 16 * 1024,  # bytes of the response body that are read and kept
    "ALLOWED_NETWORKS": (),  # such as "10.0.0.0/8": private targets that are wanted
    "ENCRYPTION_KEYS": (),  # newest first; empty: derived from SECRET_KEY
    # Tenants
    "SUBSCRIPTION_LIMIT": 500,  # subscriptions of one tenant
    # API
    "API_RATE": "600/min",  # requests of one key; None or "": no limit
    # Operate
    "TRUSTED_PROXIES": 0,  # how many of ours add to X-Forwarded-For
    "METRICS_TOKEN": "",  # that /metrics asks for; empty: staff only
}


class Conf:
    """Reads a setting once and keeps it until Django says that it changed."""

    if TYPE_CHECKING:
        register: dict[str, dict[str, Any]]
        operator_tenant: str
        project_actions: tuple[str, ...]
        databases: tuple[str, ...]
        capture_errors: str
        body_limit: int
        queue: str
        retry_schedule: tuple[float, ...]
        retry_jitter: float
        retry_after_max: float
        lease_seconds: float
        look_seconds: float
        sweep_seconds: float
        in_flight: int
        in_flight_per_subscription: int
        breaker_failures: int
        breaker_seconds: float
        disable_after: float
        connect_timeout: float
        request_timeout: float
        total_timeout: float
        response_limit: int
        allowed_networks: tuple[str, ...]
        encryption_keys: tuple[str, ...]
        subscription_limit: int
        api_rate: str | None
        trusted_proxies: int
        metrics_token: str

    def __getattr__(self, name: str) -> Any:
        key = name.upper()
        if key not in DEFAULTS:
            raise AttributeError(name)
        value = getattr(settings, PREFIX + key, DEFAULTS[key])
        self.__dict__[name] = tuple(value) if isinstance(value, list) else value
        return self.__dict__[name]


conf = Conf()


def _forget(*, setting: str, **kwargs: Any) -> None:
    conf.__dict__.pop(setting.removeprefix(PREFIX).lower(), None)


setting_changed.connect(_forget, dispatch_uid="signalpost.conf")

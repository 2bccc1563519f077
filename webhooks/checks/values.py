"""Every SIGNALPOST_ setting: its name, its type and its bounds."""

from __future__ import annotations

import difflib
import ipaddress
import math
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Info, Warning, register  # noqa: A004 -- Django's names

from subscriptions.conf import DEFAULTS, PREFIX, RATE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WRONG_VALUE = "signalpost.E030"
LEASE_TOO_SHORT = "signalpost.E031"
UNKNOWN_SETTING = "signalpost.W032"
TIMEOUTS_CROSS = "signalpost.W033"
WIDE_OPEN = "signalpost.W040"
NO_KEYS = "signalpost.I041"
SHORT_KEY = "signalpost.W042"
SHORT_TOKEN = "signalpost.W043"  # noqa: S105 - the id of a check

# Seconds that a lease must outlast a request by, for the answer to be recorded.
LEASE_MARGIN = 5.0
LONGEST_WAIT = 30 * 86_400  # seconds: a retry after a month helps nobody
# Characters: a passphrase that people think up is seldom so long, and a random one is.
SHORTEST_KEY = 32
# Where clouds answer anybody on the machine with its credentials.
METADATA = (ipaddress.ip_address("169.254.169.254"), ipaddress.ip_address("fd00:ec2::254"))


def _is_number(value: Any, low: float, high: float = math.inf) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value) and low <= value <= high


def _number(low: float, high: float = math.inf) -> Callable[[Any], bool]:
    return lambda value: _is_number(value, low, high)


def _seconds(value: Any) -> bool:
    return _is_number(value, 0) and value > 0


def _whole(low: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and _is_number(value, low)


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _token(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and value.isascii() and " " not in value


def _rate(value: Any) -> bool:
    return value is None or (isinstance(value, str) and (not value or RATE.fullmatch(value) is not None))


def _each(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, (list, tuple)) and all(test(item) for item in value)


def _network(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(ipaddress.ip_network(value))
    except ValueError:
        return False


TEXTS = 'a list of texts, such as ["{}"]'
SECONDS = "a number of seconds above 0"
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "REGISTER": (lambda value: isinstance(value, dict), 'a dict, such as {"shop.*": {"tenant": "tenant"}}'),
    "OPERATOR_TENANT": (_text, "the slug of a tenant"),
    "PROJECT_ACTIONS": (_each(_text), TEXTS.format("request.failed")),
    "DATABASES": (_each(_text), TEXTS.format("default")),
    "CAPTURE_ERRORS": (lambda value: value in ("raise", "log"), '"raise" or "log"'),
    "BODY_LIMIT": (_whole(1), "a whole number of bytes above 0"),
    "QUEUE": (_text, "the name of a queue of RQ_QUEUES"),
    "RETRY_SCHEDULE": (
        _each(lambda item: _seconds(item) and item <= LONGEST_WAIT),
        "a list of numbers of seconds, each above 0 and at most 30 days, such as [5, 300, 1800]",
    ),
    "RETRY_JITTER": (lambda value: _is_number(value, 0, 1) and value < 1, "a share from 0 to below 1, such as 0.2"),
    "RETRY_AFTER_MAX": (_number(60, LONGEST_WAIT), "a number of seconds from 60 to 30 days"),
    "LEASE_SECONDS": (_seconds, SECONDS),
    "LOOK_SECONDS": (_seconds, SECONDS),
    "SWEEP_SECONDS": (_seconds, SECONDS),
    "IN_FLIGHT": (_whole(1), "a whole number above 0"),
    "IN_FLIGHT_PER_SUBSCRIPTION": (_whole(1), "a whole number above 0"),
    "BREAKER_FAILURES": (_whole(1), "a whole number above 0"),
    "BREAKER_SECONDS": (_seconds, SECONDS),
    "DISABLE_AFTER": (_seconds, SECONDS),
    "CONNECT_TIMEOUT": (_seconds, SECONDS),
    "REQUEST_TIMEOUT": (_seconds, SECONDS),
    "TOTAL_TIMEOUT": (_seconds, SECONDS),
    "RESPONSE_LIMIT": (_whole(0), "a whole number of bytes"),
    "ALLOWED_NETWORKS": (_each(_network), 'a list of networks without host bits, such as ["10.0.0.0/8", "::1/128"]'),
    "ENCRYPTION_KEYS": (_each(_text), "a list of passphrases, the newest first"),
    "SUBSCRIPTION_LIMIT": (_whole(1), "a whole number above 0"),
    "API_RATE": (_rate, 'requests of a time, such as "600/min", or None'),
    "TRUSTED_PROXIES": (_whole(0), "how many proxies of yours add to X-Forwarded-For: a whole number"),
    "METRICS_TOKEN": (_token, "a text without spaces, or an empty one"),
}
# A value of these is nobody's to read in a terminal.
UNSHOWN = {"ENCRYPTION_KEYS", "METRICS_TOKEN", "REGISTER"}


def _value(key: str) -> Any:
    return getattr(settings, PREFIX + key, DEFAULTS[key])


def _is_right(*keys: str) -> bool:
    return all(RULES[key][0](_value(key)) for key in keys)


@register("signalpost")
def values(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    return [*_wrong(), *_unknown(), *_lease(), *_timeouts()]


def _wrong() -> Iterator[CheckMessage]:
    for key, (test, description) in RULES.items():
        if not test(_value(key)):
            shown = "has a wrong value" if key in UNSHOWN else f"is {_value(key)!r}"
            yield Error(f"{PREFIX}{key} {shown}.", hint=f"Write {description}.", id=WRONG_VALUE)


def _unknown() -> Iterator[CheckMessage]:
    known = [PREFIX + key for key in DEFAULTS]
    for name in dir(settings):
        if name.startswith(PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Write {near[0]}." if near else f"The settings are {', '.join(known)}."
            yield Warning(f"There is no setting {name}; it has no effect.", hint=hint, id=UNKNOWN_SETTING)


def _lease() -> Iterator[CheckMessage]:
    if not _is_right("LEASE_SECONDS", "TOTAL_TIMEOUT"):
        return
    lease, total = _value("LEASE_SECONDS"), _value("TOTAL_TIMEOUT")
    if lease < total + LEASE_MARGIN:
        yield Error(
            f"SIGNALPOST_LEASE_SECONDS is {lease:g} and SIGNALPOST_TOTAL_TIMEOUT {total:g}: a lease would run out "
            "while its request is under way, and the delivery would be sent twice.",
            hint=f"Make SIGNALPOST_LEASE_SECONDS at least {total + LEASE_MARGIN:g}; twice the timeout is usual.",
            id=LEASE_TOO_SHORT,
        )


def _timeouts() -> Iterator[CheckMessage]:
    if not _is_right("CONNECT_TIMEOUT", "REQUEST_TIMEOUT", "TOTAL_TIMEOUT"):
        return
    for key in ("CONNECT_TIMEOUT", "REQUEST_TIMEOUT"):
        if _value(key) > _value("TOTAL_TIMEOUT"):
            yield Warning(
                f"{PREFIX}{key} is longer than SIGNALPOST_TOTAL_TIMEOUT, and never reached.",
                hint=f"Make it at most {_value('TOTAL_TIMEOUT'):g}, or the total longer.",
                id=TIMEOUTS_CROSS,
            )


@register("signalpost", deploy=True)
def deployment(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    return [*_wide_open(), *_no_keys(), *_short_keys(), *_short_token()]


def _wide_open() -> Iterator[CheckMessage]:
    networks = (
        [ipaddress.ip_network(text) for text in _value("ALLOWED_NETWORKS")] if _is_right("ALLOWED_NETWORKS") else []
    )
    for network in networks:
        if any(address in network for address in METADATA):
            yield Warning(
                f"SIGNALPOST_ALLOWED_NETWORKS holds {network}: whoever may write a subscription can reach the "
                "metadata of a cloud machine, and its credentials.",
                hint="List only the networks of the receivers that are wanted.",
                id=WIDE_OPEN,
            )


def _no_keys() -> Iterator[CheckMessage]:
    if not _value("ENCRYPTION_KEYS"):
        yield Info(
            "SIGNALPOST_ENCRYPTION_KEYS is empty: signing secrets are encrypted with a key made from SECRET_KEY.",
            hint="Set it, or keep every former SECRET_KEY in SECRET_KEY_FALLBACKS; without the key no secret can be read.",
            id=NO_KEYS,
        )


def _short_keys() -> Iterator[CheckMessage]:
    keys = _value("ENCRYPTION_KEYS") if _is_right("ENCRYPTION_KEYS") else ()
    short = [str(number) for number, key in enumerate(keys, 1) if len(key) < SHORTEST_KEY]
    if short:
        yield Warning(
            f"SIGNALPOST_ENCRYPTION_KEYS holds a passphrase shorter than {SHORTEST_KEY} characters (number "
            f"{', '.join(short)}): whoever holds a copy of the database may guess it.",
            hint="Put a longer one first, such as Python's secrets.token_urlsafe(32) makes, and keep it after "
            "that for as long as there are secrets that it encrypts.",
            id=SHORT_KEY,
        )


def _short_token() -> Iterator[CheckMessage]:
    token = _value("METRICS_TOKEN") if _is_right("METRICS_TOKEN") else ""
    if 0 < len(token) < SHORTEST_KEY:
        yield Warning(
            f"SIGNALPOST_METRICS_TOKEN is shorter than {SHORTEST_KEY} characters: whoever can reach /metrics may guess it.",
            hint="Make one by Python's secrets.token_urlsafe(32).",
            id=SHORT_TOKEN,
        )

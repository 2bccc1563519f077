"""Which deliveries somebody means: as in the URL of their list, for the pages,
the API and a replay alike."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db.models import Q
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime
from django.utils.translation import gettext as _

from subscriptions.models import TOPIC_PATTERN, Topic
from webhooks.models import Delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from webhooks.models import DeliveryQuerySet

EVENT = re.compile(r"(?:evt_)?([0-9a-f]{32})")
LONGEST_TOPIC = Topic._meta.get_field("name").max_length or 0
HIGHEST_KEY = 2**63 - 1
DIGITS = len(str(HIGHEST_KEY))
# What lies further away has no time in some readers' zones.
YEARS = range(1970, 3000)


class _BadValueError(ValueError):
    """Its text is for whoever wrote the value."""


@dataclass(frozen=True, slots=True)
class DeliveryFilters:
    """`since` is part of the time, `until` no longer. What cannot be read
    stands in `errors`, by field, and then nothing matches: a mistake in a
    filter must not mean everything. `typed` is the query as it came."""

    status: str = ""
    topic: str = ""  # or a pattern of topics
    subscription: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    event: UUID | None = None
    errors: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), compare=False)
    typed: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), compare=False)

    @classmethod
    def from_query(cls, query: Mapping[str, Any]) -> DeliveryFilters:
        """From `request.GET`, or from what `as_query` gave."""
        typed = {name: str(query.get(name) or "").strip() for name in READ}
        values: dict[str, Any] = {}
        errors: dict[str, str] = {}
        for name, text in typed.items():
            if not text:
                continue
            try:
                values[name] = READ[name](text)
            except _BadValueError as error:
                errors[name] = str(error)
        if not errors and values.get("since") and values.get("until") and values["since"] >= values["until"]:
            errors["until"] = _("This is not after the beginning.")
        return cls(**values, errors=errors, typed=typed)

    def __bool__(self) -> bool:
        """Whether anything is filtered at all."""
        return bool(self.as_query() or self.errors)

    def apply(self, deliveries: DeliveryQuerySet) -> DeliveryQuerySet:
        if self.errors:
            return deliveries.none()
        for name, condition in CONDITIONS.items():
            value = getattr(self, name)
            if value not in {None, ""}:
                deliveries = deliveries.filter(condition(value))
        return deliveries

    def as_query(self) -> dict[str, str]:
        """The fields that are set, for a URL or JSON. Times are in UTC, as who
        gets the link may live elsewhere."""
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name in READ}
        return {name: _text(value) for name, value in values.items() if value not in {None, ""}}


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return f"evt_{value.hex}" if isinstance(value, UUID) else str(value)


def _status(text: str) -> str:
    if text not in Delivery.Status.values:
        raise _BadValueError(
            _("There is no such status. Choose one of: %(names)s.") % {"names": ", ".join(Delivery.Status)}
        )
    return text


def _topic(text: str) -> str:
    if len(text) > LONGEST_TOPIC or not TOPIC_PATTERN.fullmatch(text):
        raise _BadValueError(_("Write a topic such as shop.order.updated, shop.order.* or *."))
    return text


def _subscription(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= DIGITS) or int(text) > HIGHEST_KEY:
        raise _BadValueError(_("This is not the number of a subscription."))
    return int(text)


def _event(text: str) -> UUID:
    found = EVENT.fullmatch(text.lower().replace("-", ""))
    if not found:
        raise _BadValueError(_("An event's id begins with evt_ and has 32 digits and letters after it."))
    return UUID(found[1])


def moment(text: str) -> datetime:
    """With an offset, or in the reader's zone; a day alone is its beginning.
    Raises ValueError with words."""
    try:
        day = parse_date(text)
        found = datetime(day.year, day.month, day.day) if day else parse_datetime(text)  # noqa: DTZ001 - made aware below
        if found is None or found.year not in YEARS:
            raise ValueError(text)
        aware = timezone.make_aware(found) if timezone.is_naive(found) else found
        return aware.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise _BadValueError(_("Write a date and time such as 2026-11-21 09:30.")) from error


def _matching(topic: str) -> Q:
    return Q(event__topic__startswith=topic[:-1]) if topic.endswith("*") else Q(event__topic=topic)


READ: Mapping[str, Callable[[str], Any]] = {
    "status": _status,
    "topic": _topic,
    "subscription": _subscription,
    "since": moment,
    "until": moment,
    "event": _event,
}
CONDITIONS: Mapping[str, Callable[[Any], Q]] = {
    "status": lambda value: Q(status=value),
    "topic": _matching,
    "subscription": lambda value: Q(subscription=value),
    "since": lambda value: Q(created_at__gte=value),
    "until": lambda value: Q(created_at__lt=value),
    "event": lambda value: Q(event=value),
}

"""What bodies are read and written by: each value of its JSON type and no
other, and nothing that is not asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.models import Model
    from django_stubs_ext import StrOrPromise

RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE)
# What lies further away has no time in some databases, or in some readers' zones.
YEARS = range(1970, 3000)
MICROSECONDS = 6  # digits that Python reads

EXACT = 2**53  # up to there a float is the number that was meant

UNKNOWN = _("There is no such field.")
# Told of one object or array. To look at all there is takes longer than sending it.
MOST_WRONG = 100


# Refuses a field that it does not know, by its name. No docstring: the OpenAPI
# document would say so of all that is made of it.
class Strict(serializers.Serializer[Any]):
    def to_internal_value(self, data: Any) -> Any:
        errors: dict[str, Any] = {}
        try:
            value = super().to_internal_value(data)
        except serializers.ValidationError as error:
            if not isinstance(data, Mapping):
                raise
            errors, value = dict(error.detail), {}  # type: ignore[arg-type]
        known = {name for name, field in self.fields.items() if not field.read_only}
        unknown = islice((str(name) for name in data if name not in known), MOST_WRONG)
        errors |= {name: [ErrorDetail(str(UNKNOWN), "unknown_field")] for name in unknown}
        errors |= {name: [told] for name, told in self._left_out(data)}
        if errors:
            raise serializers.ValidationError(errors)
        return value

    def _left_out(self, data: Mapping[str, Any]) -> Iterator[tuple[str, ErrorDetail]]:
        """A change leaves out fields of the whole, not of an object inside it."""
        if self.root is self or not getattr(self.root, "partial", False):
            return
        for name, field in self.fields.items():
            if field.required and name not in data:
                yield name, ErrorDetail(str(field.error_messages["required"]), "required")


class Many(serializers.ListField):
    def to_internal_value(self, data: Any) -> list[Any]:
        # Before anybody looks at each.
        if isinstance(data, list) and self.max_length is not None and len(data) > self.max_length:
            self.fail("max_length", max_length=self.max_length)
        return super().to_internal_value(data)

    def run_child_validation(self, data: Any) -> list[Any]:
        found: list[Any] = []
        errors: dict[Any, Any] = {}
        for place, each in enumerate(data):
            try:
                found.append(self.child.run_validation(each))
            except serializers.ValidationError as error:
                errors[place] = error.detail
                if len(errors) == MOST_WRONG:
                    break
        if errors:
            raise serializers.ValidationError(errors)
        return found


class Nothing(Strict):
    """The body of a deed that needs none: empty, or {}."""


class Text(serializers.CharField):
    default_error_messages = {"invalid": _("Write a text.")}

    def __init__(self, **kwargs: Any) -> None:
        # What is kept is what was sent.
        super().__init__(**{"trim_whitespace": False, **kwargs})

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class Whole(serializers.IntegerField):
    default_error_messages = {"invalid": _("Write a whole number.")}

    def to_internal_value(self, data: Any) -> int:
        # JSON has one kind of number: 5.0 is 5.
        if isinstance(data, float) and data.is_integer() and abs(data) <= EXACT:
            return int(data)
        if isinstance(data, bool) or not isinstance(data, int):
            self.fail("invalid")
        return data


class Truth(serializers.BooleanField):
    default_error_messages = {"invalid": _("Write true or false.")}

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid")
        return data


class Choice(serializers.ChoiceField):
    default_error_messages = {"invalid_choice": _("Choose from: {choices}.")}

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str) or data not in self.choices:
            self.fail("invalid_choice", choices=", ".join(map(str, self.choices)))
        return data


class Moment(serializers.DateTimeField):
    """RFC 3339: with an offset when it comes in, in UTC with milliseconds when it goes out."""

    default_error_messages = {"invalid": _("Write a time such as 2026-11-21T09:30:00Z.")}

    def to_internal_value(self, value: Any) -> datetime:
        found = moment(value) if isinstance(value, str) else None
        if found is None:
            self.fail("invalid", format="RFC 3339")
        return found

    def to_representation(self, value: Any) -> Any:
        return rfc3339(value)


def moment(text: str) -> datetime | None:
    """None where it is no time that can be kept."""
    found = RFC3339.fullmatch(text)
    if found is None:
        return None
    fraction = found[1] or ""
    shorter = text.upper().replace(fraction, fraction[: 1 + MICROSECONDS], 1)
    try:
        when = datetime.fromisoformat(shorter).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return when if when.year in YEARS else None


def rfc3339(when: datetime | None) -> str | None:
    if when is None:
        return None
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def refused(field: str, text: StrOrPromise, code: str = "invalid") -> serializers.ValidationError:
    return serializers.ValidationError({field: [ErrorDetail(str(text), code)]})


def longest(model: type[Model], name: str) -> int | None:
    """Of a column, in characters."""
    length: int | None = getattr(model._meta.get_field(name), "max_length", None)
    return length

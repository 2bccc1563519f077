"""One column of a body: how its value is written, and whether the value that an
instance holds is certainly the one that the database holds."""

from __future__ import annotations

import base64
import ipaddress
import json
import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson
from django.conf import settings
from django.db import models
from django.db.models.fields.files import FieldFile
from django.utils import timezone
from rest_framework import ISO_8601, serializers
from rest_framework.settings import api_settings
from rest_framework.utils.encoders import JSONEncoder

if TYPE_CHECKING:
    from collections.abc import Callable

SCALARS = (str, int, float, bool, type(None))
# So many digits of a decimal SQLite keeps.
DIGITS = 15
# From here on PostgreSQL makes whole numbers of the floats in JSON.
WHOLE = 1e15


class Column:
    """A concrete field under its name in the body."""

    __slots__ = ("_certain", "_write", "attname", "field", "generated", "name")

    def __init__(self, name: str, field: models.Field[Any, Any], writer: serializers.Field[Any, Any, Any, Any]) -> None:
        self.name = name
        self.field = field
        self.attname = field.attname
        self.generated = bool(getattr(field, "generated", False))
        self._certain = _certainty(field)
        self._write = _writer(field, writer)

    def plain(self, value: Any) -> Any:
        """`value` as DRF writes it, JSON-ready."""
        if isinstance(value, Enum):
            value = value.value
        return None if value is None else self._write(value)

    def certain(self, value: Any) -> bool:
        """Whether the database, given `value`, holds exactly that: no text for
        a number, no expression, nothing that it rounds or that a custom field
        may have turned into something else."""
        if isinstance(value, Enum):
            value = value.value
        return value is None or self._certain(value)

    def named_in(self, names: frozenset[str]) -> bool:
        return self.field.name in names or self.attname in names

    def same(self, one: Any, other: Any) -> bool:
        one, other = _comparable(one), _comparable(other)
        if _equal(one, other):
            return True
        # A custom type need not know what equals it.
        return type(self.field) not in CERTAIN and one is not None and bool(self.plain(one) == self.plain(other))


def _comparable(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, FieldFile):
        return value.name or ""
    if isinstance(value, datetime) and value.tzinfo is not None:
        # In the hour that a change of the clocks repeats, no moment equals one of another zone.
        return value.astimezone(UTC)
    return value


def _equal(one: Any, other: Any) -> bool:
    """Equality of what JSON tells apart: True is not 1, but (1,) is [1], and
    not-a-number is itself."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, bool) != isinstance(other, bool):
        return False
    return bool(one == other or (one != one and other != other))  # noqa: PLR0124


def _writer(
    field: models.Field[Any, Any], writer: serializers.Field[Any, Any, Any, Any] | None
) -> Callable[[Any], Any]:
    if isinstance(field, models.ForeignKey) or writer is None:
        return ready  # DRF writes the key as it is: no need to load the row behind it.
    if isinstance(writer, serializers.ModelField):
        return _whole(field, writer)
    if isinstance(field, models.FileField):
        return _file(field, writer)
    if type(writer) is serializers.DateTimeField:
        return _moment(writer)
    represent = writer.to_representation
    exact = AS_THEY_ARE.get(type(writer))
    if exact is None:
        return lambda value: ready(represent(value))
    return lambda value: value if type(value) is exact else ready(represent(value))


def _whole(field: models.Field[Any, Any], writer: serializers.ModelField) -> Callable[[Any], Any]:
    """A field that DRF has no kind for: it asks the model field, which wants the instance."""
    return lambda value: ready(writer.to_representation(SimpleNamespace(**{field.attname: value})))


def _moment(writer: serializers.DateTimeField) -> Callable[[Any], Any]:
    """What DRF makes of an aware moment, in a third of its time."""
    given = hasattr(writer, "format") or hasattr(writer, "timezone")

    def write(value: Any) -> Any:
        plain = type(value) is datetime and not given and settings.USE_TZ and api_settings.DATETIME_FORMAT == ISO_8601
        if not plain or value.utcoffset() is None:
            return ready(writer.to_representation(value))
        try:
            text: str = value.astimezone(timezone.get_current_timezone()).isoformat()
        except OverflowError:
            return ready(writer.to_representation(value))
        return f"{text[:-6]}Z" if text.endswith("+00:00") else text

    return write


def _file(field: models.FileField, writer: serializers.Field[Any, Any, Any, Any]) -> Callable[[Any], Any]:
    def write(value: Any) -> Any:
        file = value if isinstance(value, FieldFile) else field.attr_class(None, field, value)  # type: ignore[arg-type]
        try:
            return writer.to_representation(file)
        except (NotImplementedError, ValueError):
            return file.name  # A storage without addresses.

    return write


# What DRF's fields return unchanged when it has exactly this type.
AS_THEY_ARE: dict[type[Any], type[Any]] = {
    serializers.CharField: str,
    serializers.EmailField: str,
    serializers.SlugField: str,
    serializers.URLField: str,
    serializers.IPAddressField: str,
    serializers.IntegerField: int,
    serializers.BooleanField: bool,
}


def _certainty(field: models.Field[Any, Any]) -> Callable[[Any], bool]:
    target = field
    while isinstance(target, models.ForeignKey):
        target = target.target_field
    make = CERTAIN.get(type(target))
    return _never if make is None else make(target)


def _never(value: Any) -> bool:
    return False


def _exactly(kind: type[Any]) -> Callable[[Any], Callable[[Any], bool]]:
    return lambda field: lambda value: type(value) is kind


def _texts(field: Any) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str)


def _floats(field: Any) -> Callable[[Any], bool]:
    return lambda value: type(value) is float and math.isfinite(value)


def _decimals(field: Any) -> Callable[[Any], bool]:
    places = field.decimal_places

    def certain(value: Any) -> bool:
        if type(value) is not Decimal or places is None:
            return False
        _, digits, exponent = value.as_tuple()
        return isinstance(exponent, int) and -exponent <= places and len(digits) <= DIGITS

    return certain


def _moments(field: Any) -> Callable[[Any], bool]:
    return lambda value: type(value) is datetime and (value.utcoffset() is not None) == settings.USE_TZ


def _times(field: Any) -> Callable[[Any], bool]:
    return lambda value: type(value) is time and value.tzinfo is None


def _addresses(field: Any) -> Callable[[Any], bool]:
    def certain(value: Any) -> bool:
        try:
            found = ipaddress.ip_address(value)
        except ValueError:
            return False
        return str(found) == value and getattr(found, "ipv4_mapped", None) is None

    return certain


def _json(field: Any) -> Callable[[Any], bool]:
    return _plain_json if field.encoder is None and field.decoder is None else _never


def _plain_json(value: Any) -> bool:
    if type(value) is dict:
        return all(type(key) is str and _plain_json(each) for key, each in value.items())
    if type(value) is list:
        return all(map(_plain_json, value))
    if type(value) is float:
        return abs(value) < WHOLE
    return type(value) in SCALARS


def _files(field: Any) -> Callable[[Any], bool]:
    # A name, or a file that has been stored under its own.
    return lambda value: (
        isinstance(value, str) or (isinstance(value, FieldFile) and getattr(value, "_committed", False))
    )


# By exact type: a subclass may change what is stored.
CERTAIN: dict[type[models.Field[Any, Any]], Callable[[Any], Callable[[Any], bool]]] = {
    **dict.fromkeys(
        (
            models.AutoField,
            models.BigAutoField,
            models.SmallAutoField,
            models.IntegerField,
            models.BigIntegerField,
            models.SmallIntegerField,
            models.PositiveIntegerField,
            models.PositiveBigIntegerField,
            models.PositiveSmallIntegerField,
        ),
        _exactly(int),
    ),
    **dict.fromkeys(
        (
            models.CharField,
            models.TextField,
            models.EmailField,
            models.SlugField,
            models.URLField,
            models.FilePathField,
        ),
        _texts,
    ),
    **dict.fromkeys((models.FileField, models.ImageField), _files),
    models.BooleanField: _exactly(bool),
    models.FloatField: _floats,
    models.DecimalField: _decimals,
    models.DateField: _exactly(date),
    models.DateTimeField: _moments,
    models.TimeField: _times,
    models.DurationField: _exactly(timedelta),
    models.UUIDField: _exactly(UUID),
    models.BinaryField: _exactly(bytes),
    models.GenericIPAddressField: _addresses,
    models.JSONField: _json,
}


def dumps(value: Any) -> bytes:
    """`value` as JSON: UTF-8, never empty, no byte order mark.

    What JSON knows no word for is written as DRF's encoder does; not-a-number
    and the infinities become null, as PostgreSQL and strict parsers take no
    other. Raises TypeError or ValueError where a value has no JSON at all.
    """
    try:
        return orjson.dumps(value, default=_default, option=orjson.OPT_PASSTHROUGH_DATETIME)
    except TypeError:
        # Integers beyond 64 bits, lone surrogates, keys that are no text, deep nesting.
        try:
            return json.dumps(_simple(value), allow_nan=False, separators=(",", ":")).encode()
        except RecursionError as error:
            raise ValueError("The value is nested too deeply, or contains itself.") from error


def ready(value: Any) -> Any:
    """`value` as it comes back from its JSON."""
    if type(value) is float:
        return value if math.isfinite(value) else None
    return value if type(value) in SCALARS else json.loads(dumps(value))


def _default(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    if isinstance(value, Decimal) and not value.is_finite():
        return None
    return _ENCODER.default(value)


_ENCODER = JSONEncoder()


def _simple(value: Any) -> Any:
    """The same in what the standard library writes."""
    if isinstance(value, Enum):
        return _simple(value.value)
    if isinstance(value, dict):
        return {_key(key): _simple(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_simple(each) for each in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value if isinstance(value, str | int | None) else _simple(_default(value))


def _key(key: Any) -> str:
    if isinstance(key, Enum):
        key = key.value
    if isinstance(key, str):
        return str.__str__(key)
    return json.dumps(key) if isinstance(key, bool | int | float | None) else str(key)

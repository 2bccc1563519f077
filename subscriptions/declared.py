"""Topics that programs publish, declared with the JSON Schema (2020-12) of their data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from django_stubs_ext import StrOrPromise

MOST_FAULTS = 20
REFERENCES = ("$ref", "$dynamicRef")
# What stands under these is a value, not a schema.
VALUES = frozenset({"const", "enum", "default", "examples", "example"})
# Never a schema of another host's: what is not in the schema itself is nowhere.
NOTHING_ELSE: Registry[Any] = Registry()

SAID: Mapping[str, StrOrPromise] = {
    "type": gettext_lazy("This is not of the type %(wanted)s."),
    "enum": gettext_lazy("This is none of %(wanted)s."),
    "const": gettext_lazy("This is not %(wanted)s."),
    "minimum": gettext_lazy("This is less than %(wanted)s."),
    "maximum": gettext_lazy("This is more than %(wanted)s."),
    "exclusiveMinimum": gettext_lazy("This is not more than %(wanted)s."),
    "exclusiveMaximum": gettext_lazy("This is not less than %(wanted)s."),
    "multipleOf": gettext_lazy("This is no multiple of %(wanted)s."),
    "minLength": gettext_lazy("This has fewer than %(wanted)s characters."),
    "maxLength": gettext_lazy("This has more than %(wanted)s characters."),
    "pattern": gettext_lazy("This does not match %(wanted)s."),
    "minItems": gettext_lazy("This has fewer than %(wanted)s items."),
    "maxItems": gettext_lazy("This has more than %(wanted)s items."),
    "uniqueItems": gettext_lazy("This has an item twice."),
    "minProperties": gettext_lazy("This has fewer than %(wanted)s fields."),
    "maxProperties": gettext_lazy("This has more than %(wanted)s fields."),
}
LONGEST = 100  # characters of what was wanted


@dataclass(frozen=True, slots=True)
class Fault:
    """What does not fit: a JSON pointer (RFC 6901), and a sentence."""

    pointer: str
    text: str


@dataclass(frozen=True, eq=False)
class Declared:
    """A topic, and what its data must be. Without a schema any object will do."""

    name: str
    schema: Any = None
    description: StrOrPromise = ""
    example: Any = None

    @cached_property
    def trouble(self) -> str:
        """What is wrong with the schema itself; empty where nothing is."""
        if self.schema is None:
            return ""
        if not isinstance(self.schema, dict):
            return f"it is a {type(self.schema).__name__}, and no dict"
        try:
            Draft202012Validator.check_schema(self.schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
            _resolve(self.schema)
        except SchemaError as error:
            return f"at {_pointer(error.absolute_path) or 'its root'}: {error.message[:300]}"
        except (Unresolvable, ValueError) as error:
            return str(error)
        except RecursionError:
            return "it goes too deep"
        return ""

    @cached_property
    def _validator(self) -> Any:
        return Draft202012Validator({} if self.schema is None else self.schema, registry=NOTHING_ELSE)

    def faults(self, data: Any) -> list[Fault]:
        """Why `data` is not what the schema says, at most MOST_FAULTS; empty where it is."""
        if self.schema is None:
            return []
        found: dict[Fault, None] = {}
        try:
            for error in self._validator.iter_errors(data):
                found.update(dict.fromkeys(islice(_faults(error), MOST_FAULTS)))
                if len(found) >= MOST_FAULTS:
                    break
        except RecursionError:
            return [Fault("", _("This goes too deep to be checked."))]
        return [*found][:MOST_FAULTS]

    def embedded(self, at: str) -> dict[str, Any]:
        """The schema as a part of another one, in which it stands `at` a JSON pointer such as #/properties/data."""
        found: dict[str, Any] = {"type": "object", **moved(self.schema or {}, at)}
        found.pop("$schema", None)
        if self.example is not None and "examples" not in found:
            found["examples"] = [self.example]
        return found


def moved(schema: Any, at: str) -> Any:
    """`schema` with its references to itself as they must be where it stands
    `at` another place. One with an `$id` is a resource of its own, and stays."""
    if isinstance(schema, list):
        return [moved(each, at) for each in schema]
    if not isinstance(schema, dict) or "$id" in schema:
        return schema
    return {name: _moved(name, value, at) for name, value in schema.items()}


def _moved(name: str, value: Any, at: str) -> Any:
    if name in VALUES:
        return value
    if name in REFERENCES and isinstance(value, str):
        return at + value[1:] if value == "#" or value.startswith("#/") else value
    return moved(value, at)


def _resolve(schema: dict[str, Any]) -> None:
    """Raises Unresolvable for a reference to what is not there, ValueError for one to elsewhere."""
    resource = DRAFT202012.create_resource(schema)
    resolver = NOTHING_ELSE.with_resource(resource.id() or "", resource).resolver_with_root(resource)
    for reference in _references(schema):
        if not reference.startswith("#"):
            raise ValueError(f"{reference[:200]!r} is elsewhere; a schema holds all that it refers to, under $defs")
        resolver.lookup(reference)


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for each in schema:
            yield from _references(each)
    elif isinstance(schema, dict):
        for name, value in schema.items():
            if name in REFERENCES and isinstance(value, str):
                yield value
            elif name not in VALUES:
                yield from _references(value)


def _faults(error: Any) -> Iterator[Fault]:
    """One that names fields is one fault at each of them."""
    pointer = _pointer(error.absolute_path)
    wanted, value, keyword = error.validator_value, error.instance, str(error.validator)
    if keyword == "required":
        yield from (Fault(_below(pointer, name), _("This is missing.")) for name in wanted if name not in value)
    elif keyword == "additionalProperties" and wanted is False:
        yield from (Fault(_below(pointer, name), _("There is no such field.")) for name in _extra(error.schema, value))
    elif keyword in SAID:
        yield Fault(pointer, str(SAID[keyword]) % {"wanted": _written(wanted)})
    else:
        yield Fault(pointer, _("This does not fit the schema (%(keyword)s).") % {"keyword": keyword})


def _extra(schema: Mapping[str, Any], value: Mapping[str, Any]) -> Iterator[str]:
    patterns = [re.compile(pattern) for pattern in schema.get("patternProperties", ())]
    known = schema.get("properties", {})
    for name in value:
        if name not in known and not any(pattern.search(name) for pattern in patterns):
            yield name


def _written(wanted: Any) -> str:
    found = ", ".join(map(str, wanted)) if isinstance(wanted, list) else str(wanted)
    return found if len(found) <= LONGEST else f"{found[: LONGEST - 1]}…"


def _pointer(path: Iterable[Any]) -> str:
    pointer = ""
    for part in path:
        pointer = _below(pointer, part)
    return pointer


def _below(pointer: str, part: object) -> str:
    return f"{pointer}/{str(part).replace('~', '~0').replace('/', '~1')}"

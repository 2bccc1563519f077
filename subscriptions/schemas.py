"""What a body looks like, as JSON Schema 2020-12: generated from the catalog."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.db import models
from rest_framework import serializers
from rest_framework.settings import api_settings

from subscriptions.conf import conf
from subscriptions.entries import DISABLED, M2M_ACTIONS, PROJECT, exposed
from subscriptions.tenancy import EVERY_TENANT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from subscriptions.entries import Entry

Schema = dict[str, Any]

# Where the schema of the data stands in that of the body.
DATA = "#/properties/data"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
# Before the change, or of a row that is just being read: what it holds may be a part.
PARTIAL_ACTIONS = frozenset({"saving", "initializing", "initialized"})

TEXT: Schema = {"type": "string"}
TRUTH: Schema = {"type": "boolean"}
TEXTS: Schema = {"type": "array", "items": TEXT}
MOMENT: Schema = {"type": "string", "format": "date-time"}

# What DRF writes of a field, by the first class that it is one of.
KINDS: list[tuple[type[Any], Schema]] = [
    (serializers.EmailField, {"type": "string", "format": "email"}),
    (serializers.URLField, {"type": "string", "format": "uri"}),
    (serializers.UUIDField, {"type": "string", "format": "uuid"}),
    (serializers.CharField, TEXT),
    (serializers.IPAddressField, TEXT),
    (serializers.FilePathField, TEXT),
    # Not-a-number and the infinities are null in a body.
    (serializers.FloatField, {"type": ["number", "null"]}),
    (serializers.BooleanField, TRUTH),
    (serializers.DateTimeField, MOMENT),
    (serializers.DateField, {"type": "string", "format": "date"}),
    (serializers.TimeField, {"type": "string", "format": "time"}),
    (serializers.DurationField, {"type": "string", "examples": ["1 02:30:00"]}),
    # Null where there is no file.
    (serializers.FileField, {"type": ["string", "null"]}),
    (serializers.DictField, {"type": "object"}),
    (serializers.StringRelatedField, TEXT),
    (serializers.HyperlinkedRelatedField, {"type": "string", "format": "uri"}),
]

EXAMPLES: dict[str, tuple[Any, Any]] = {
    "date-time": ("2026-11-21T09:30:00Z", "2026-11-20T17:05:00Z"),
    "date": ("2026-11-21", "2026-11-20"),
    "time": ("09:30:00", "17:05:00"),
    "email": ("somebody@example.com", "nobody@example.com"),
    "uri": ("https://example.com/", "https://example.com/before"),
    "uuid": ("0b8ca2b5-9f13-4b3e-8f0e-0d6f6d8a5c11", "7d2c6c58-64f7-4a58-9c8a-0c8a3c5e2f60"),
    "decimal": ("12.00", "9.50"),
    "string": ("text", "text before"),
    "integer": (2, 1),
    "number": (1.5, 1.0),
    "boolean": (True, False),
}


@dataclass(frozen=True, slots=True)
class Described:
    """One field of a body's `object`."""

    name: str
    schema: Schema
    # What it refers to, such as shop.customer.
    refers_to: str = ""

    @property
    def kind(self) -> str:
        """Its type in the schema's words."""
        return _kind(self.schema)

    @property
    def nullable(self) -> bool:
        return "null" in self.schema.get("type", ())

    @property
    def help(self) -> str:
        return str(self.schema.get("description", ""))

    @property
    def examples(self) -> list[Any]:
        return list(self.schema.get("examples", ()))


def schema_of(topic: str, entry: Entry | None = None, action: str = "", *, data: Schema | None = None) -> Schema:
    """Of the body of `topic`; without an entry, of what no model stands for.
    `data` is the schema of a topic that was declared with one."""
    tenant: Schema = {"type": ["string", "null"] if entry is not None and entry.tenant is EVERY_TENANT else "string"}
    if entry is None and topic != DISABLED:
        tenant = {"type": ["string", "null"]}
    return {
        "$schema": DIALECT,
        "title": topic,
        "type": "object",
        "required": ["type", "timestamp", "tenant", "data"],
        "properties": {
            "type": {"const": topic},
            "timestamp": MOMENT,
            "tenant": tenant,
            "data": data or (_data_of(topic) if entry is None else _data(entry, action)),
        },
    }


def described(entry: Entry) -> list[Described]:
    """The fields of the body's `object`, in its order."""
    found = []
    for name, schema in _properties(entry).items():
        field = _model_field(entry.model, name)
        related = getattr(field, "related_model", None)
        found.append(Described(name, schema, related._meta.label_lower if related else ""))
    return found


def names(entry: Entry) -> list[str]:
    """Of the fields of the body's `object`."""
    if entry.serializer is None:
        return list(exposed(entry))
    fields = getattr(_made(entry.serializer), "fields", {})
    return [name for name, field in fields.items() if not field.write_only]


def changing(entry: Entry) -> tuple[str, ...]:
    """The fields whose change a subscription may ask for: what `changes` names."""
    keys = {field.name for field in entry.model._meta.pk_fields}
    return tuple(name for name in _columns(entry) if name not in keys)


def example(schema: Any, *, before: bool = False) -> Any:
    """A value of `schema`; `before`: another one, where there are two."""
    if not isinstance(schema, dict):  # True: anything
        return None
    if "const" in schema:
        return schema["const"]
    if examples := schema.get("examples") or schema.get("enum"):
        return examples[1 if before and len(examples) > 1 else 0]
    kind = _type(schema)
    if kind == "object":
        return {name: example(each, before=before) for name, each in schema.get("properties", {}).items()}
    if kind == "array":
        return [example(schema.get("items", {}), before=before)]
    values = EXAMPLES.get(schema.get("format", "")) or EXAMPLES.get(kind, (None, None))
    return values[before]


def _type(schema: Schema) -> str:
    kinds = schema.get("type", "")
    return kinds if isinstance(kinds, str) else next((kind for kind in kinds if kind != "null"), "")


def _kind(schema: Schema) -> str:
    kind = _type(schema) or "any"
    if kind == "array":
        return f"array of {_kind(schema.get('items', {}))}"
    return f"{kind} ({schema['format']})" if "format" in schema else kind


# --- the parts of a body ---


def _data(entry: Entry, action: str) -> Schema:
    properties: dict[str, Schema] = {"object": _object(entry, whole=action not in PARTIAL_ACTIONS)}
    if action == "updated":
        properties["changes"] = _changes(entry)
    elif action in {"deleted", "deleting"}:
        properties |= {"cascade": TRUTH, "origin": {"type": ["string", "null"]}}
    elif action in M2M_ACTIONS:
        properties |= {"field": TEXT, "reverse": TRUTH, "model": TEXT, "keys": {"type": "array", "items": {}}}
    elif action in PARTIAL_ACTIONS:
        properties["unresolved"] = TEXTS
        if action == "saving":
            properties["adding"] = TRUTH
    return _all_of(properties)


def _object(entry: Entry, *, whole: bool) -> Schema:
    properties = _properties(entry)
    if not whole:  # What an instance holds that is not saved yet.
        properties = {name: _or_null(schema, null=True) for name, schema in properties.items()}
        return {"type": "object", "properties": properties}
    # A serializer may leave a field out.
    return {"type": "object", "properties": properties} if entry.serializer else _all_of(properties)


def _changes(entry: Entry) -> Schema:
    properties = _properties(entry)
    return {
        "type": "object",
        "properties": {
            name: _all_of({"from": properties[name], "to": properties[name]})
            for name in _columns(entry)
            if name in properties
        },
    }


def _data_of(topic: str) -> Schema:
    """Of Signalpost's own topics; what a host publishes is any object."""
    if topic == DISABLED:
        about = _all_of({"id": {"type": "integer"}, "name": TEXT, "url": TEXT})
        return _all_of({"subscription": about, "reason": TEXT})
    action = topic.removeprefix(f"{PROJECT}.") if topic.startswith(f"{PROJECT}.") else ""
    if action in {"migrating", "migrated"}:
        step = _all_of({"app": TEXT, "name": TEXT, "backwards": TRUTH})
        return _all_of({"database": TEXT, "plan": {"type": "array", "items": step}})
    if action in conf.project_actions:
        request = {"method": TEXT, "path": TEXT}
        return _all_of({**request, "error": TEXT} if action == "request.failed" else request)
    return {"type": "object"}


def _all_of(properties: Mapping[str, Schema]) -> Schema:
    return {"type": "object", "required": list(properties), "properties": dict(properties)}


# --- the fields of a row ---


def _properties(entry: Entry) -> dict[str, Schema]:
    if entry.serializer is not None:
        return _of_serializer(_made(entry.serializer), model=entry.model)
    found = {}
    for name in exposed(entry):
        field = entry.model._meta.get_field(name)
        schema = _keys(field) if field.many_to_many else _of_model_field(field)
        found[name] = _with_words(schema, field)
    return found


@lru_cache(maxsize=512)
def _columns(entry: Entry) -> tuple[str, ...]:
    """Those that are columns of the row, as `changes` compares no others."""
    columns = {field.name for field in entry.model._meta.concrete_fields}
    if entry.serializer is None:
        return tuple(name for name in exposed(entry) if name in columns)
    fields = getattr(_made(entry.serializer), "fields", {})
    return tuple(name for name, field in fields.items() if field.source in columns and not field.write_only)


def _made(serializer: type[Any]) -> Any:
    """None where it needs arguments, as a system check says."""
    try:
        return serializer()
    except Exception:  # noqa: BLE001 - a class of the host's
        return None


def _of_serializer(serializer: Any, *, model: type[models.Model] | None = None) -> dict[str, Schema]:
    found = {}
    for name, field in getattr(serializer, "fields", {}).items():
        if field.write_only:
            continue
        column = _model_field(model, field.source) if model else None
        null = bool(field.allow_null or getattr(column, "null", field.read_only))
        found[name] = _with_text(_or_null(_written(field), null=null), str(field.help_text or ""))
    return found


def _of_model_field(field: Any) -> Schema:
    null = bool(field.null or getattr(field, "generated", False))
    target = field
    while isinstance(target, models.ForeignKey):
        target = target.target_field
    if isinstance(target, models.BinaryField):
        return _or_null({"type": "string", "contentEncoding": "base64"}, null=null)
    if isinstance(target, models.FilePathField):  # DRF lists the directory.
        return _or_null(TEXT, null=null)
    meta = type("Meta", (), {"model": target.model, "fields": [target.name]})
    maker = type(f"{target.model.__name__}Field", (serializers.ModelSerializer,), {"Meta": meta})
    return _or_null(_written(maker().fields[target.name]), null=null)


def _keys(field: Any) -> Schema:
    return {"type": "array", "items": _of_model_field(field.related_model._meta.pk)}


def _with_words(schema: Schema, field: Any) -> Schema:
    return _with_text(schema, str(getattr(field, "help_text", "") or ""))


def _with_text(schema: Schema, text: str) -> Schema:
    return {**schema, "description": text} if text else schema


def _written(field: Any) -> Schema:
    """What `field`, one of DRF's, writes of a value."""
    if isinstance(field, serializers.ChoiceField):
        return _choice(field)
    if isinstance(field, serializers.DecimalField | serializers.IntegerField):
        return _figure(field)
    if isinstance(field, serializers.BaseSerializer | serializers.ListField | serializers.ManyRelatedField):
        return _nested(field)
    return next((dict(schema) for kind, schema in KINDS if isinstance(field, kind)), {})


def _choice(field: Any) -> Schema:
    """No `enum`: the database may hold others."""
    if isinstance(field, serializers.MultipleChoiceField):
        return {"type": "array", "items": _of_values(field.choices)}
    return _of_values(field.choices)


def _of_values(values: Iterable[Any]) -> Schema:
    known = [value for value in values if value is not None]
    kinds = {_KIND_OF.get(type(value)) for value in known}
    schema: Schema = {"examples": known} if known else {}
    return schema if None in kinds or len(kinds) != 1 else {"type": kinds.pop(), **schema}


_KIND_OF: dict[type[Any], str] = {str: "string", int: "integer", bool: "boolean", float: "number"}


def _figure(field: Any) -> Schema:
    if isinstance(field, serializers.DecimalField):
        as_text = getattr(field, "coerce_to_string", api_settings.COERCE_DECIMAL_TO_STRING)
        return {"type": "string", "format": "decimal"} if as_text else {"type": "number"}
    # A large one may be text, too, for readers that hold no number so large.
    large = isinstance(field, serializers.BigIntegerField)
    as_text = large and getattr(field, "coerce_to_string", api_settings.COERCE_BIGINT_TO_STRING)
    return dict(TEXT) if as_text else {"type": "integer"}


def _nested(field: Any) -> Schema:
    if isinstance(field, serializers.ListSerializer | serializers.ListField):
        return {"type": "array", "items": _written(field.child)}
    if isinstance(field, serializers.ManyRelatedField):
        return {"type": "array", "items": {}}
    if isinstance(field, serializers.Serializer):
        model = getattr(getattr(field, "Meta", None), "model", None)
        return {"type": "object", "properties": _of_serializer(field, model=model)}
    return {}


def _or_null(schema: Schema, *, null: bool) -> Schema:
    if not null or "type" not in schema:
        return dict(schema)
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return {**schema, "type": list(dict.fromkeys([*kinds, "null"]))}


def _model_field(model: type[models.Model], name: str) -> Any:
    return next((field for field in model._meta.get_fields() if field.name == name and hasattr(field, "null")), None)

"""What a body says of a row: the exposed fields, compiled once per entry of the
catalog, and what a save changed in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from django.db import connections, models
from django.db.models.query import Prefetch, QuerySet, prefetch_related_objects
from rest_framework import serializers

from subscriptions.entries import exposed
from subscriptions.tenancy import EVERY_TENANT
from webhooks.columns import Column, dumps, ready

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from subscriptions.entries import Entry

__all__ = ["Shape", "dumps", "shape_of"]

# What the database held: the values of columns by their attribute's name.
Row = dict[str, Any]

_MISSING = object()
# An entry that leaves the catalog takes its shape along.
_shapes: WeakKeyDictionary[Entry, Shape] = WeakKeyDictionary()


def shape_of(entry: Entry) -> Shape:
    shape = _shapes.get(entry)
    if shape is None:
        shape = _shapes[entry] = Shape(entry)
    return shape


class Shape:
    """The exposed fields of one entry.

    `object` writes what an instance holds; `current` makes sure before that
    it is what the database holds. `old`, before a save, and `changes`, after
    it, say what the save changed.
    """

    def __init__(self, entry: Entry) -> None:
        self.model = entry.model
        self.serializer = entry.serializer
        names = exposed(entry)
        options = self.model._meta
        if self.serializer is None:
            fields = [options.get_field(name) for name in names]
            columns = [field for field in fields if field.concrete and not field.many_to_many]
            self.columns = _columns(self.model, {field.name: field for field in columns})
            self.relations = tuple(field.name for field in fields if field.many_to_many)
        else:
            self.columns = _sources(self.model, self.serializer())
            self.relations = ()
        self.order = names
        # What must be as the database holds it: the exposed columns and those
        # that say whose the row is.
        self.watched = self._watched(entry)
        attnames = dict.fromkeys(column.attname for column in (*self.columns, *self.watched))
        self.attnames = tuple(attnames) or ("pk",)

    def object(self, instance: models.Model, *, prefetched: bool = False) -> dict[str, Any]:
        """The exposed fields of `instance`, JSON-ready, as DRF writes them.

        What is deferred is read with one query, and left deferred.
        Many-to-many fields are read now, unless `prefetch` has just done so.
        """
        if self.serializer is not None:
            return dict(ready(dict(self.serializer(instance, context={}).data)))
        at = instance
        if any(column.attname not in instance.__dict__ for column in self.columns):
            at = _fresh(self.model, instance, using=_alias(instance)) or instance
        values = {column.name: column.plain(getattr(at, column.attname)) for column in self.columns}
        if not self.relations:
            return values
        values.update((name, _keys(instance, name, prefetched=prefetched)) for name in self.relations)
        return {name: values[name] for name in self.order}

    def prefetch(self, instances: Sequence[models.Model]) -> None:
        """Read the many-to-many fields of all `instances`, one query for each field."""
        for name in self.relations:
            related: Any = self.model._meta.get_field(name).related_model
            keys = related._default_manager.only("pk").order_by("pk")
            prefetch_related_objects(instances, Prefetch(name, queryset=keys))

    def current(
        self, instance: models.Model, *, using: str, only: frozenset[str] | None = None, old: Row | None = None
    ) -> models.Model:
        """`instance` if it certainly holds what the database holds now, or else
        a fresh one: at most one query, in the transaction of the change.

        `only` is the save's `update_fields`: the values of the other fields
        were not written, and count only where `old` holds the same.
        """
        if self.serializer is None and self._certain(instance, only=only, old=old):
            return instance
        return _fresh(self.model, instance, using=using) or instance

    def old(self, instance: models.Model, *, using: str) -> Row | None:
        """What the database holds before `instance` is saved, for `changes`;
        None where there is no such row. One query, or none.

        The row is locked as the save is about to lock it, so that no other
        transaction changes it between here and there.
        """
        key = key_of(self.model, instance)
        if not _is_key(key):
            return None
        connection = connections[using]
        rows: QuerySet[Any] = QuerySet(model=self.model, using=using).filter(pk=key).order_by()
        if connection.in_atomic_block and connection.features.has_select_for_no_key_update:
            rows = rows.select_for_update(no_key=True)
        values = rows.values_list(*self.attnames).first()
        return None if values is None else dict(zip(self.attnames, values, strict=True))

    def changes(
        self, old: Mapping[str, Any], new: Any, *, only: frozenset[str] | None = None
    ) -> dict[str, dict[str, Any]]:
        """`{field: {"from": …, "to": …}}` of the exposed columns that differ
        between `old` and `new`, which is what `current` returned, JSON-ready.

        With `only`, the save's `update_fields`, no others: what another
        transaction changed meanwhile is not this save's. Generated columns
        follow those that they are made of.
        """
        found = {}
        for column in self.columns:
            if only is not None and not column.generated and not column.named_in(only):
                continue
            before, after = old[column.attname], getattr(new, column.attname)
            if not column.same(before, after):
                found[column.name] = {"from": column.plain(before), "to": column.plain(after)}
        return found

    def _certain(self, instance: models.Model, *, only: frozenset[str] | None, old: Row | None) -> bool:
        held = instance.__dict__
        for column in self.watched:
            value = held.get(column.attname, _MISSING)
            if value is _MISSING or not column.certain(value):
                return False
            written = only is None or column.named_in(only)
            if not written and (old is None or not column.same(old[column.attname], value)):
                return False
        return True

    def _watched(self, entry: Entry) -> tuple[Column, ...]:
        options = self.model._meta
        names = {column.field.name for column in self.columns}
        tenant = [] if entry.tenant is EVERY_TENANT else list(options.concrete_fields)
        if isinstance(entry.tenant, str):
            first = entry.tenant.split("__")[0]
            # A property, or a generic relation, may be made of any column.
            tenant = [each for each in tenant if first in {each.name, each.attname}] or tenant
        extra = [each for each in tenant if each.name not in names]
        return (*self.columns, *_columns(self.model, {field.name: field for field in extra}))


def _columns(model: type[models.Model], fields: Mapping[str, models.Field[Any, Any]]) -> tuple[Column, ...]:
    """Compiled from the fields that DRF's ModelSerializer makes of them."""
    writers = _model_serializer(model, fields).fields
    return tuple(Column(name, field, writers[name]) for name, field in fields.items())


def _model_serializer(
    model: type[models.Model], fields: Mapping[str, models.Field[Any, Any]]
) -> serializers.ModelSerializer[Any]:
    # DRF lists the directory of a FilePathField to know its choices.
    declared = {
        name: serializers.CharField() for name, field in fields.items() if isinstance(field, models.FilePathField)
    }
    meta = type("Meta", (), {"model": model, "fields": list(fields)})
    made: type[serializers.ModelSerializer[Any]]
    made = type(f"{model.__name__}Body", (serializers.ModelSerializer,), {"Meta": meta, **declared})
    return made()


def _sources(model: type[models.Model], serializer: serializers.Serializer[Any]) -> tuple[Column, ...]:
    """The columns that fields of `serializer` show as they are."""
    columns = {field.name: field for field in model._meta.concrete_fields}
    return tuple(
        Column(name, columns[field.source], field)
        for name, field in serializer.fields.items()
        if field.source in columns and not field.write_only
    )


def _fresh(model: type[models.Model], instance: models.Model, *, using: str) -> models.Model | None:
    # A queryset of its own: a default manager may hide rows.
    return QuerySet(model=model, using=using).filter(pk=key_of(model, instance)).first()


def key_of(model: type[models.Model], instance: models.Model) -> Any:
    """The key of `instance`'s row of `model`, which may be its parent's: a
    child's own key need not be the link to it."""
    return getattr(instance, key_field(model, instance).attname)


def key_field(model: type[models.Model], instance: models.Model) -> Any:
    """Where `instance` holds it: a child that is given its parent's key alone
    has no link until it is saved."""
    key: Any = model._meta.pk
    while getattr(key.remote_field, "parent_link", False) and getattr(instance, key.attname) is None:
        key = key.remote_field.model._meta.pk
    return key


def _is_key(key: Any) -> bool:
    parts = key if isinstance(key, tuple) else (key,)
    return not any(part is None or hasattr(part, "resolve_expression") for part in parts)


def _alias(instance: models.Model) -> str:
    return instance._state.db or "default"


def _keys(instance: models.Model, name: str, *, prefetched: bool) -> list[Any]:
    """Keys on the other side of a many-to-many field."""
    if prefetched:
        return [ready(row.pk) for row in getattr(instance, name).all()]
    # From a stand-in: the instance may remember a prefetch.
    key = instance._meta.pk.attname
    stand_in = type(instance).from_db(_alias(instance), [key], [instance.pk])
    return [
        ready(pk) for pk in getattr(stand_in, name).using(_alias(instance)).order_by("pk").values_list("pk", flat=True)
    ]

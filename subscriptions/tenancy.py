"""Whose a row is: the tenant of an instance."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Final

from django.core.exceptions import FieldDoesNotExist, ObjectDoesNotExist
from django.db.models import Field, ForeignKey, Model

from subscriptions.models import Tenant


class EveryTenant(Enum):
    EVERY_TENANT = "*"


EVERY_TENANT: Final = EveryTenant.EVERY_TENANT

# A path such as "customer__tenant", a function of the instance, or every tenant.
Rule = str | Callable[..., Any] | EveryTenant
# The tenant's primary key (int), its `key` (str), every tenant, or nobody.
Whose = int | str | EveryTenant | None


def whose(instance: Model, rule: Rule) -> Whose:
    """The tenant of `instance` by `rule`.

    An int is a Tenant's primary key, a str a `Tenant.key`; None where the way
    there is empty, or leads to a row that is not there. Raises AttributeError
    where the path leads nowhere, and whatever a callable or a property raises.
    """
    if isinstance(rule, EveryTenant):
        return rule
    if callable(rule):
        return answer(rule(instance))
    *path, last = rule.split("__")
    at: Any = instance
    for part in path:
        at = _step(at, part)
        if at is None:
            return None
    return _last(at, last)


def answer(value: Any) -> Whose:
    """What a callable's answer stands for: a Tenant, an object whose primary
    key is a `Tenant.key`, a key, every tenant, or nobody.

    A number is a key, never a Tenant's primary key: the host's numbers and
    ours are different numbers, and a mistake would show one tenant another's rows.
    """
    if value is None or isinstance(value, EveryTenant):
        return value
    if isinstance(value, Tenant):
        return value.pk
    if isinstance(value, Model):
        return _read(value, value._meta.pk)
    return str(value) or None


def _step(at: Any, part: str) -> Any:
    field = _field(at, part)
    if isinstance(field, ForeignKey) and getattr(at, field.attname) is None:
        return None  # Reading a required relation that is not set would raise.
    try:
        return getattr(at, part)
    except ObjectDoesNotExist:
        if field is None:
            raise
        # The other side of a one-to-one that nobody has made, or a foreign key
        # whose row comes later in the transaction, or that nothing checks.
        return None


def _last(at: Any, part: str) -> Whose:
    if isinstance(at, Tenant):
        return answer(at)  # Its pk, its key or its slug: the same tenant.
    field = _field(at, part)
    return _read(at, field) if isinstance(field, Field) else answer(_step(at, part))


def _read(at: Model, field: Field[Any, Any]) -> Whose:
    """The column's own value says it without loading what it refers to."""
    value = getattr(at, field.attname)
    if value is None:
        return None
    target: Field[Any, Any] = field
    while isinstance(target, ForeignKey):
        if not target.target_field.primary_key:
            break
        if issubclass(target.related_model, Tenant):
            return int(value)
        target = target.target_field
    if isinstance(target, ForeignKey) and not _is_tenant_key(target.target_field):
        return answer(_step(at, field.name))
    return str(value) or None


def _is_tenant_key(field: Field[Any, Any]) -> bool:
    return issubclass(field.model, Tenant) and field.name == "key"


def _field(at: Any, part: str) -> Any:
    if not isinstance(at, Model):
        return None
    try:
        return at._meta.get_field(at._meta.pk.name if part == "pk" else part)
    except FieldDoesNotExist:
        return None


def trouble(model: type[Model], rule: Rule) -> str | None:
    """Why `rule` cannot find a tenant from `model`, in words; None where it can."""
    if callable(rule) or isinstance(rule, EveryTenant):
        return None
    written: Any = rule  # A setting may hold anything.
    if not isinstance(written, str):
        return "it is neither a path nor a function"
    return _astray(model, written.split("__")) if written else "no tenant is named"


def _astray(model: type[Model], path: list[str]) -> str | None:
    part, *rest = path
    try:
        field = model._meta.get_field(model._meta.pk.name if part == "pk" else part)
    except FieldDoesNotExist:
        # A property ends the walk: what it returns shows only when it is read.
        return None if hasattr(model, part) else f"{model._meta.label} has no field {part!r}"
    if field.many_to_many or field.one_to_many:
        return f"{model._meta.label}.{part} leads to many rows"
    if not rest or not field.is_relation or field.related_model is None:
        return f"{model._meta.label}.{part} leads to no other model" if rest and not field.is_relation else None
    return _astray(field.related_model, rest)

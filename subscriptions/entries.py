"""What an entry of the catalog is: a model, its actions, its exposed fields."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from django.apps import apps
from django.core.exceptions import FieldDoesNotExist

if TYPE_CHECKING:
    from django.db.models import Field, Model

    from subscriptions.tenancy import Rule

DEFAULT_ACTIONS = ("created", "updated", "deleted", "added", "removed", "cleared")
# `saving` and `deleting` come before the change, `initializing` and
# `initialized` on every row loaded.
OPT_IN = ("saving", "deleting", "adding", "removing", "clearing", "initializing", "initialized")
ACTIONS = DEFAULT_ACTIONS + OPT_IN
M2M_ACTIONS = frozenset({"added", "removed", "cleared", "adding", "removing", "clearing"})
PROJECT_ACTIONS = ("migrating", "migrated", "request.started", "request.finished", "request.failed")
# What Signalpost itself tells a tenant: a subscription was turned off.
DISABLED = "signalpost.subscription.disabled"
# Sent by hand, to one subscription; nobody listens to it, not even who listens to everything.
TEST = "signalpost.test"
PROJECT = "project"

EVERY_FIELD: Literal["__all__"] = "__all__"
SENSITIVE = re.compile(
    r"passw(or)?d|passphrase|secret|token|credential|ciphertext|(api|private|signing|session|access)_?key",
    re.IGNORECASE,
)


@dataclass(frozen=True, eq=False)
class Entry:
    """A model whose rows may leave the system, and how.

    `fields` None and no serializer: the primary key alone, as nothing is
    exposed that was not named.
    """

    model: type[Model]
    tenant: Rule
    fields: tuple[str, ...] | Literal["__all__"] | None = None
    serializer: type[Any] | None = None
    actions: frozenset[str] = frozenset(DEFAULT_ACTIONS)
    skip_unchanged: bool = False
    label_lower: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "label_lower", self.model._meta.label_lower.lower())

    def topic(self, action: str) -> str:
        return f"{self.label_lower}.{action}"

    def topics(self) -> list[str]:
        relations = any(relation.many_to_many for relation in self.model._meta.get_fields())
        return [self.topic(action) for action in self.actions if relations or action not in M2M_ACTIONS]


@dataclass(frozen=True, slots=True)
class Registration:
    """What was written, right or wrong."""

    model: type[Model] | str
    tenant: Rule
    fields: tuple[str, ...] | str | None
    serializer: Any
    actions: tuple[str, ...]
    skip_unchanged: bool

    @property
    def label(self) -> str:
        model = self.written()
        return str(self.model) if model is None else model._meta.label

    def written(self) -> type[Model] | None:
        """The class that is meant; None where there is none (yet)."""
        if not isinstance(self.model, str):
            return self.model if hasattr(self.model, "_meta") else None
        app_label, _, name = self.model.partition(".")
        return apps.all_models.get(app_label, {}).get(name.lower())

    def concrete(self) -> type[Model] | None:
        """The model with the table: of a proxy, what it stands for."""
        model = self.written()
        if model is None or model._meta.swapped or model._meta.abstract:
            return None
        return model._meta.concrete_model

    def entry(self, model: type[Model]) -> Entry:
        """What is right of it; the system check names the rest."""
        fields = (self.fields,) if isinstance(self.fields, str) and self.fields != EVERY_FIELD else self.fields
        return Entry(
            model=model,
            tenant=self.tenant,
            fields=fields,
            serializer=self.serializer if isinstance(self.serializer, type) else None,
            actions=frozenset(action for action in ACTIONS if action in self.actions),
            skip_unchanged=self.skip_unchanged,
        )


def is_own_traffic(model: type[Model]) -> bool:
    """Events about events would never end; and secrets are nobody's to hear."""
    return model._meta.app_label == "webhooks" or model._meta.label in {
        "subscriptions.Secret",
        "subscriptions.Revision",
        "subscriptions.Invitation",
        "subscriptions.AuditEntry",
    }


def exposed(entry: Entry) -> tuple[str, ...]:
    """Names of the fields in the body, in the order they were named; unknown
    ones are left to the system check."""
    if entry.fields is None:
        return key_fields(entry.model)
    if entry.fields == EVERY_FIELD:
        return tuple(name for name in every_field(entry.model) if not SENSITIVE.search(name))
    return tuple(dict.fromkeys(name for name in entry.fields if is_field(entry.model, name)))


def listed(value: Any) -> tuple[Any, ...]:
    """Anything that was written where names belong, for the check to look at."""
    return (value,) if isinstance(value, str) or not isinstance(value, Iterable) else tuple(value)


def left_out(entry: Entry) -> list[str]:
    """The sensitive fields that "__all__" does not expose."""
    if entry.serializer is not None or entry.fields != EVERY_FIELD:
        return []
    return [name for name in every_field(entry.model) if SENSITIVE.search(name)]


def every_field(model: type[Model]) -> list[str]:
    """Columns and many-to-many fields, without the links from a child's table
    to its parents': they repeat the parent's key, as in DRF's "__all__"."""
    options = model._meta
    fields: list[Field[Any, Any]] = [*options.concrete_fields, *options.many_to_many]
    return [each.name for each in fields if not getattr(each.remote_field, "parent_link", False)]


def key_fields(model: type[Model]) -> tuple[str, ...]:
    """The root's key of a model that inherits its table's (`id`, not
    `place_ptr`); every part of a composite one."""
    key: Any = model._meta.pk
    while getattr(key.remote_field, "parent_link", False):
        key = key.remote_field.model._meta.pk
    return tuple(part.name for part in key.model._meta.pk_fields)


def is_field(model: type[Model], name: object) -> bool:
    if not isinstance(name, str):
        return False
    try:
        found = model._meta.get_field(name)
    except FieldDoesNotExist:
        return False
    columns = [*model._meta.concrete_fields, *model._meta.many_to_many]
    # get_field knows a foreign key by its column, too; a body has one name for it.
    return found in columns and found.name == name

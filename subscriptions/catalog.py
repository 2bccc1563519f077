"""What can be subscribed to: models and their actions, custom signals, and
topics that programs publish.

An app registers its models in `<app>/webhooks.py`; the setting
SIGNALPOST_REGISTER registers by pattern, without code. A wrong registration
raises nothing here: `problems()` lists it, and a system check stops the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from django.apps import apps
from django.core.signals import setting_changed
from django.db.models import Model
from django.dispatch import Signal
from django.utils.module_loading import autodiscover_modules

from subscriptions.conf import conf
from subscriptions.declared import Declared
from subscriptions.entries import (
    ACTIONS,
    DEFAULT_ACTIONS,
    DISABLED,
    OPT_IN,
    PROJECT,
    PROJECT_ACTIONS,
    Entry,
    Registration,
    exposed,
    is_own_traffic,
    left_out,
    listed,
)
from subscriptions.patterns import Pattern, named_by
from subscriptions.problems import (
    Problem,
    in_declared,
    in_registrations,
    in_setting,
    in_signals,
    is_publishable,
    is_topic,
)
from subscriptions.tenancy import EVERY_TENANT, Rule

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise

__all__ = [
    "ACTIONS",
    "DEFAULT_ACTIONS",
    "EVERY_TENANT",
    "OPT_IN",
    "CustomSignal",
    "Declared",
    "Entry",
    "Problem",
    "declared",
    "declared_topic",
    "entries",
    "entry_for",
    "exposed",
    "left_out",
    "load",
    "meet",
    "problems",
    "register",
    "register_signal",
    "register_topic",
    "registered",
    "signals",
    "topics",
    "unregister",
    "unregister_topic",
    "unregistered",
]

# Sent with `entry` (or, of a custom signal, `custom`) when one joins or leaves.
registered = Signal()
unregistered = Signal()


@dataclass(frozen=True, eq=False)
class CustomSignal:
    """A signal of the host's own and the topic that it becomes."""

    signal: Signal
    topic: str
    tenant: Callable[..., Any]
    payload: Callable[..., dict[str, Any]]


_registrations: list[Registration] = []
_entries: dict[type[Model], Entry] = {}
# Entries that a pattern made: a registration by code takes their place.
_by_pattern: set[type[Model]] = set()
_signals: list[CustomSignal] = []
_declared: list[Declared] = []
# Those of them that may be published.
_publishable: dict[str, Declared] = {}


def register(
    model: type[Model] | str,
    *,
    tenant: Rule,
    fields: Iterable[str] | Literal["__all__"] | None = None,
    serializer: type[Any] | None = None,
    actions: Iterable[str] = DEFAULT_ACTIONS,
    skip_unchanged: bool = False,
) -> None:
    """Let the rows of `model` (a class, or "app.Model") leave the system.

    `tenant` is a path to the tenant or its key ("customer__tenant"), a
    function of the instance, or EVERY_TENANT. `fields` names what is exposed,
    "__all__" everything but passwords, secrets and tokens; without it, and
    without a DRF `serializer` in its place, only the primary key is.
    `actions` is the whole list: `[*DEFAULT_ACTIONS, "saving"]` adds one.
    """
    registration = Registration(
        model=model,
        tenant=tenant,
        fields=fields if fields is None or isinstance(fields, str) else listed(fields),
        serializer=serializer,
        actions=listed(actions),
        skip_unchanged=skip_unchanged,
    )
    _registrations.append(registration)
    if apps.models_ready:
        _join(registration)


def register_signal(
    signal: Signal, *, topic: str, tenant: Callable[..., Any], payload: Callable[..., dict[str, Any]]
) -> None:
    """Make `topic` of every sending of `signal`. `tenant` and `payload` are
    called with what the receivers get, `(sender, **kwargs)`; `tenant` answers
    with a Tenant, its key, EVERY_TENANT, or None for an event of nobody's."""
    custom = CustomSignal(signal, topic, tenant, payload)
    _signals.append(custom)
    if is_topic(topic):
        registered.send(sender=None, custom=custom)


def register_topic(
    name: str, *, schema: Mapping[str, Any] | None = None, description: StrOrPromise = "", example: Any = None
) -> None:
    """Let programs publish events of the topic `name`. `schema` is a JSON
    Schema (2020-12) of their data, which is always an object; `example` is
    data that fits. The schema holds all that it refers to."""
    declared = Declared(name, schema, description, example)
    _declared.append(declared)
    if is_publishable(name) and not declared.trouble:
        _publishable.setdefault(name, declared)


def unregister_topic(name: str) -> None:
    """Undo `register_topic`; for tests."""
    _declared[:] = [each for each in _declared if each.name != name]
    _publishable.pop(name, None)


def unregister(model: type[Model]) -> None:
    """Undo `register`; for tests."""
    _registrations[:] = [each for each in _registrations if each.concrete() is not model]
    _leave(model)


def load() -> None:
    """Find every `<app>/webhooks.py` and apply the setting. Safe to repeat."""
    autodiscover_modules("webhooks")
    for registration in _registrations:
        _join(registration)
    for model in apps.get_models():
        _join_by_pattern(model)


def meet(model: type[Model]) -> None:
    """Take in a class made after the start, if a registration names it."""
    for registration in _registrations:
        if registration.concrete() is model:
            _join(registration)
    _join_by_pattern(model)


def entries() -> Mapping[type[Model], Entry]:
    return MappingProxyType(_entries)


def entry_for(model: type[Model]) -> Entry | None:
    """The entry that speaks for `model`: a proxy's is its table's, and a
    child's that is not registered itself is its nearest parent's."""
    for each in model.__mro__:
        if each in _entries:
            return _entries[each]
    return None


def signals() -> list[CustomSignal]:
    """The custom signals whose topic is one."""
    return [each for each in _signals if is_topic(each.topic)]


def declared() -> list[Declared]:
    """The topics that programs may publish."""
    return [each for name in [*_publishable] if (each := declared_topic(name))]


def declared_topic(name: str) -> Declared | None:
    """The one of that name, if programs may publish it; a model's or a
    signal's topic nobody can forge."""
    found = _publishable.get(name)
    if found is None or any(custom.topic == name for custom in _signals) or _is_of_model(name):
        return None
    return found


def _is_of_model(topic: str) -> bool:
    label, _dot, action = topic.rpartition(".")
    return action in ACTIONS and any(entry.label_lower == label for entry in _entries.values())


def topics() -> list[str]:
    """Every topic that can be heard, sorted."""
    heard = {topic for entry in _entries.values() for topic in entry.topics()}
    heard.update(custom.topic for custom in signals())
    heard.update(each.name for each in declared())
    heard.add(DISABLED)
    heard.update(f"{PROJECT}.{action}" for action in conf.project_actions if action in PROJECT_ACTIONS)
    return sorted(heard)


def problems() -> list[Problem]:
    """What is wrong with the registrations, as of now."""
    return [
        *in_registrations(_registrations),
        *in_setting(taken={model for model in _entries if model not in _by_pattern}),
        *in_signals([each.topic for each in _signals]),
        *in_declared(
            _declared,
            taken={topic for entry in _entries.values() for topic in entry.topics()}
            | {each.topic for each in _signals},
        ),
    ]


def _join(registration: Registration) -> None:
    model = registration.concrete()
    if model is None or is_own_traffic(model):
        return
    if model in _by_pattern:
        _leave(model)
    if model not in _entries:
        _enter(registration.entry(model))


def _join_by_pattern(model: type[Model]) -> None:
    meta = model._meta
    if model in _entries or meta.proxy or meta.swapped or meta.auto_created or is_own_traffic(model):
        return
    pattern: Pattern | None = named_by(model)
    if pattern is not None:
        _by_pattern.add(model)
        _enter(pattern.registration(model).entry(model))


def _enter(entry: Entry) -> None:
    _entries[entry.model] = entry
    registered.send(sender=entry.model, entry=entry)


def _leave(model: type[Model]) -> None:
    _by_pattern.discard(model)
    entry = _entries.pop(model, None)
    if entry is not None:
        unregistered.send(sender=model, entry=entry)


def _apply_again(*, setting: str, **kwargs: Any) -> None:
    if setting == "SIGNALPOST_REGISTER" and apps.ready:
        for model in list(_by_pattern):
            _leave(model)
        for model in apps.get_models():
            _join_by_pattern(model)


setting_changed.connect(_apply_again, dispatch_uid="signalpost.catalog")

"""What is wrong with the registrations, for the system check to say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.apps import apps

from subscriptions import tenancy
from subscriptions.conf import conf
from subscriptions.entries import (
    ACTIONS,
    EVERY_FIELD,
    PROJECT,
    PROJECT_ACTIONS,
    every_field,
    is_field,
    is_own_traffic,
    listed,
)
from subscriptions.models import TOPIC
from subscriptions.patterns import ANY, OPTIONS, Pattern, is_readable, named_by, patterns

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from django.db.models import Model

    from subscriptions.declared import Declared
    from subscriptions.entries import Registration

# Topics that only Signalpost itself writes.
RESERVED = "signalpost."
PROJECT_TOPICS = frozenset(f"{PROJECT}.{action}" for action in PROJECT_ACTIONS)
LONGEST_TOPIC = 200  # characters, the width of the column


@dataclass(frozen=True, slots=True)
class Problem:
    """`code` names the kind, `label` the model, pattern or topic, `text` says
    what is wrong and `hint` what to write."""

    code: str
    label: str
    text: str
    hint: str


def in_registrations(registrations: Iterable[Registration]) -> Iterator[Problem]:
    seen: set[type[Model]] = set()
    for registration in registrations:
        model = registration.concrete()
        if model is None:
            yield _no_model(registration)
        elif is_own_traffic(model):
            yield Problem(
                "own-traffic",
                model._meta.label,
                f"{model._meta.label} is Signalpost's own.",
                "Take the registration away: events about events would never end.",
            )
        elif model in seen:
            yield Problem(
                "duplicate",
                model._meta.label,
                f"{model._meta.label} is registered twice; the first registration counts.",
                "Keep one registration, with all the fields and actions.",
            )
        else:
            seen.add(model)
            yield from in_registration(registration, model)


def in_registration(registration: Registration, model: type[Model]) -> Iterator[Problem]:
    label = model._meta.label
    yield from _in_tenant(registration, model)
    yield from _in_fields(registration, model)
    for action in registration.actions:
        if action not in ACTIONS:
            yield Problem(
                "unknown-action", label, f"{label} has no action {action!r}.", f"Actions are {', '.join(ACTIONS)}."
            )
    serializer = registration.serializer
    if serializer is not None and not hasattr(serializer, "to_representation"):
        yield Problem(
            "unknown-serializer",
            label,
            f"{serializer!r}, registered for {label}, is no serializer.",
            "Name a class that inherits rest_framework.serializers.Serializer.",
        )


def _in_tenant(registration: Registration, model: type[Model]) -> Iterator[Problem]:
    label, rule = model._meta.label, registration.tenant
    trouble = tenancy.trouble(model, rule)
    if trouble is not None:
        yield Problem(
            "unknown-tenant",
            label,
            f"The tenant of {label} cannot be found by {rule!r}: {trouble}.",
            'Write a path that ends in the tenant or its key, such as tenant="customer__tenant", a function of the '
            "instance, or catalog.EVERY_TENANT.",
        )


def _in_fields(registration: Registration, model: type[Model]) -> Iterator[Problem]:
    label, fields = model._meta.label, registration.fields
    if fields is None or fields == EVERY_FIELD:
        return
    if isinstance(fields, str):
        yield Problem(
            "bad-fields", label, f"The fields of {label} are {fields!r}.", 'Write a list of names, or "__all__".'
        )
        return
    if registration.serializer is not None:
        yield Problem(
            "bad-fields",
            label,
            f"{label} has fields and a serializer; the serializer counts.",
            "Keep one of them.",
        )
    for name in fields:
        if not is_field(model, name):
            yield Problem(
                "unknown-field",
                label,
                f"{label} has no field {name!r}.",
                f"Fields are {', '.join(every_field(model))}.",
            )


def _no_model(registration: Registration) -> Problem:
    label, model = registration.label, registration.written()
    if model is None:
        return Problem(
            "unknown-model", label, f"There is no model {label}.", 'Write "app_label.Model", as in "shop.Order".'
        )
    if model._meta.swapped:
        return Problem(
            "unknown-model", label, f"{label} is swapped out.", f'Register "{model._meta.swapped}" in its place.'
        )
    return Problem(
        "unknown-model", label, f"{label} is abstract.", "Register the models that inherit it, each by itself."
    )


def in_setting(*, taken: Collection[type[Model]]) -> Iterator[Problem]:
    """`taken` are the models that a registration in code speaks for."""
    if not is_readable():
        yield Problem(
            "bad-setting", "SIGNALPOST_REGISTER", "SIGNALPOST_REGISTER is no dict.", 'Write {"shop.*": {"tenant": …}}.'
        )
    for pattern in patterns():
        yield from _in_pattern(pattern, taken)
    for action in listed(conf.project_actions):
        if action not in PROJECT_ACTIONS:
            yield Problem(
                "unknown-action",
                "SIGNALPOST_PROJECT_ACTIONS",
                f"There is no action {action!r}.",
                f"Actions of the project are {', '.join(PROJECT_ACTIONS)}.",
            )


def _in_pattern(pattern: Pattern, taken: Collection[type[Model]]) -> Iterator[Problem]:
    label = f"SIGNALPOST_REGISTER[{pattern.text!r}]"
    unknown = set(pattern.options) - OPTIONS if isinstance(pattern.options, dict) else None
    if unknown is None or unknown:
        text = f"{label} has no option {', '.join(sorted(unknown))}." if unknown else f"{label} is no dict."
        yield Problem("bad-setting", label, text, f"Options are {', '.join(sorted(OPTIONS))}.")
        return
    named = [model for model in apps.get_models() if not model._meta.proxy and pattern.names(model)]
    if not named:
        yield _nothing_named(pattern, label)
        return
    if pattern.is_exact and named[0] in taken:
        yield Problem(
            "duplicate",
            named[0]._meta.label,
            f"{label} and a registration in code name the same model; the one in code counts.",
            "Keep one of them.",
        )
    speaks_for = [model for model in named if model not in taken and named_by(model) == pattern]
    yield from _in_options(pattern, speaks_for)


def _in_options(pattern: Pattern, models: list[type[Model]]) -> Iterator[Problem]:
    """A field that a wide pattern names need not be on every model, but on one."""
    for model in models:
        for problem in in_registration(pattern.registration(model), model):
            if problem.code != "unknown-field" or pattern.is_exact:
                yield problem
    fields = pattern.options.get("fields")
    if pattern.is_exact or fields is None or isinstance(fields, str):
        return
    for name in listed(fields):
        if models and not any(is_field(model, name) for model in models):
            yield Problem(
                "unknown-field",
                f"SIGNALPOST_REGISTER[{pattern.text!r}]",
                f"No model that {pattern.text} names has a field {name!r}.",
                "Take it away, or correct it.",
            )


def _nothing_named(pattern: Pattern, label: str) -> Problem:
    own = any(_matches_own(pattern, model) for model in apps.get_models())
    if own:
        return Problem(
            "own-traffic",
            label,
            f"{label} names Signalpost's own traffic.",
            "Take the pattern away: events about events would never end.",
        )
    return Problem(
        "pattern-matches-nothing",
        label,
        f"{label} names no model.",
        'Write "app_label.Model", "app_label.*" or "*".',
    )


def _matches_own(pattern: Pattern, model: type[Model]) -> bool:
    meta = model._meta
    return is_own_traffic(model) and pattern.text.lower() in {meta.label_lower, f"{meta.app_label}.{ANY}"}


def in_signals(topics: Iterable[Any]) -> Iterator[Problem]:
    seen: set[str] = set()
    for topic in topics:
        if not is_topic(topic):
            yield Problem(
                "bad-topic",
                str(topic),
                f"{topic!r}, registered for a signal, is no topic.",
                "Write lower-case words joined by dots, such as billing.invoice.paid.",
            )
        elif topic in seen:
            yield Problem(
                "duplicate", topic, f"Two signals are registered as {topic}.", "Give each signal a topic of its own."
            )
        seen.add(str(topic))


def is_topic(topic: Any) -> bool:
    return isinstance(topic, str) and len(topic) <= LONGEST_TOPIC and TOPIC.fullmatch(topic) is not None


def in_declared(declared: Iterable[Declared], *, taken: Collection[str]) -> Iterator[Problem]:
    """`taken` are the topics of models and signals, which nobody else may publish."""
    seen: set[str] = set()
    for each in declared:
        if not is_publishable(each.name):
            yield Problem(
                "bad-topic",
                str(each.name),
                f"{each.name!r} cannot be declared as a topic.",
                "Write lower-case words joined by dots, such as billing.invoice.paid; those that begin with "
                f"{RESERVED} are Signalpost's own, and so are {PROJECT}.migrated and its like.",
            )
        elif each.name in seen or each.name in taken:
            yield Problem(
                "duplicate",
                each.name,
                f"{each.name} is declared, and is a topic already.",
                "Give it a name of its own: what a model or a signal tells of, nobody else may publish.",
            )
        elif each.trouble:
            yield Problem(
                "bad-schema",
                each.name,
                f"The schema of {each.name} is wrong: {each.trouble}.",
                "Write a JSON Schema (2020-12) of the data, with all that it refers to under $defs.",
            )
        elif each.example is not None and (faults := each.faults(each.example)):
            yield Problem(
                "bad-example",
                each.name,
                f"The example of {each.name} does not fit its schema: {faults[0].pointer or '/'}: {faults[0].text}",
                "Correct the example, or the schema.",
            )
        seen.add(str(each.name))


def is_publishable(topic: Any) -> bool:
    """Whether it may be the name of a topic that programs publish."""
    return is_topic(topic) and not topic.startswith(RESERVED) and topic not in PROJECT_TOPICS

"""Wrong registrations, each with what to write instead."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error, register

from subscriptions import catalog

IDS = {
    "unknown-model": "signalpost.E001",
    "unknown-field": "signalpost.E002",
    "unknown-tenant": "signalpost.E003",
    "unknown-action": "signalpost.E004",
    "duplicate": "signalpost.E005",
    "own-traffic": "signalpost.E006",
    "unknown-serializer": "signalpost.E007",
    "bad-fields": "signalpost.E008",
    "bad-topic": "signalpost.E009",
    "bad-setting": "signalpost.E010",
    "pattern-matches-nothing": "signalpost.E011",
    "bad-schema": "signalpost.E013",
    "bad-example": "signalpost.E014",
}
SERIALIZER_FAILS = "signalpost.E012"


@register("signalpost")
def registrations(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    return [
        Error(problem.text, hint=problem.hint, obj=problem.label, id=IDS[problem.code])
        for problem in catalog.problems()
    ]


@register("signalpost")
def serializers(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """A serializer says which fields it has only when it is asked."""
    found: list[CheckMessage] = []
    for model, entry in catalog.entries().items():
        if entry.serializer is None or not hasattr(entry.serializer, "to_representation"):
            continue
        try:
            dict(entry.serializer().fields)
        except Exception as error:  # noqa: BLE001 -- whatever it raises here, it would raise at the first change
            found.append(
                Error(
                    f"{entry.serializer.__qualname__}, registered for {model._meta.label}, cannot be used: {error}",
                    hint="Correct the serializer; it is made without arguments.",
                    obj=model._meta.label,
                    id=SERIALIZER_FAILS,
                )
            )
    return found

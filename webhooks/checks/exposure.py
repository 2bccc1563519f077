"""Passwords, secrets and tokens: which are left out, and which are not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.checks import CheckMessage, Info, Warning, register  # noqa: A004 -- Django's names

from subscriptions import catalog
from subscriptions.entries import SENSITIVE

if TYPE_CHECKING:
    from subscriptions.catalog import Entry

LEFT_OUT = "signalpost.I050"
EXPOSED = "signalpost.W051"


@register("signalpost")
def exposure(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    return [message for entry in catalog.entries().values() for message in _exposure(entry)]


def _exposure(entry: Entry) -> list[CheckMessage]:
    label = entry.model._meta.label
    found: list[CheckMessage] = []
    if left_out := catalog.left_out(entry):
        found.append(
            Info(
                f'"__all__" does not expose {_listed(left_out)} of {label}.',
                hint=f"To expose them, or to no longer read this, name the fields of {label} in its registration.",
                obj=label,
                id=LEFT_OUT,
            )
        )
    if named := _named(entry):
        found.append(
            Warning(
                f"{_listed(named)} of {label} leaves the system in every webhook.",
                hint="Take it out of the registration, unless every subscriber may know it.",
                obj=label,
                id=EXPOSED,
            )
        )
    return found


def _named(entry: Entry) -> list[str]:
    if entry.serializer is None:
        return [name for name in catalog.exposed(entry) if SENSITIVE.search(name)]
    try:
        fields = entry.serializer().fields
    except Exception:  # noqa: BLE001 -- registrations.serializers says so
        return []
    return [name for name, field in fields.items() if SENSITIVE.search(name) and not field.write_only]


def _listed(names: list[str]) -> str:
    return ", ".join(names)

"""The setting SIGNALPOST_REGISTER: registrations by pattern, without code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.utils.module_loading import import_string

from subscriptions.conf import conf
from subscriptions.entries import DEFAULT_ACTIONS, Registration, is_own_traffic, listed
from subscriptions.tenancy import EVERY_TENANT

if TYPE_CHECKING:
    from django.db.models import Model

    from subscriptions.tenancy import Rule

OPTIONS = frozenset({"tenant", "fields", "serializer", "actions", "skip_unchanged"})
ANY = "*"
# What "*" does not mean: the framework's own book-keeping, and our wishes.
# A pattern that names one of these apps still reaches it.
HOUSEKEEPING = frozenset(
    {"admin", "contenttypes", "django_rq", "migrations", "sessions", "sites", "subscriptions", "webhooks"}
)


@dataclass(frozen=True, slots=True)
class Pattern:
    """`*`, `shop.*` or `shop.Order`, and the options that stand behind it."""

    text: str
    options: Any

    @property
    def is_exact(self) -> bool:
        return not self.text.endswith(ANY)

    def names(self, model: type[Model]) -> bool:
        options = model._meta
        if is_own_traffic(model):
            return False
        if self.text == ANY:
            return options.app_label not in HOUSEKEEPING
        return self.text.lower() in {options.label_lower.lower(), f"{options.app_label}.{ANY}".lower()}

    def registration(self, model: type[Model]) -> Registration:
        """Never raises: what cannot be read is kept as it was written, and the
        system check, or else the first capture, says so."""
        options = self.options if isinstance(self.options, dict) else {}
        fields = options.get("fields")
        return Registration(
            model=model,
            tenant=_tenant(options.get("tenant", "")),
            fields=fields if fields is None or isinstance(fields, str) else listed(fields),
            serializer=imported(options.get("serializer")),
            actions=listed(options.get("actions", DEFAULT_ACTIONS)),
            skip_unchanged=bool(options.get("skip_unchanged", False)),
        )


def patterns() -> list[Pattern]:
    """Of the setting, the most precise first."""
    found = [Pattern(text, options) for text, options in conf.register.items()] if is_readable() else []
    return sorted(found, key=lambda each: (not each.is_exact, each.text == ANY))


def is_readable() -> bool:
    written: Any = conf.register
    return isinstance(written, dict) and all(isinstance(text, str) for text in written)


def named_by(model: type[Model]) -> Pattern | None:
    """The pattern that speaks for `model`: its own name before its app's."""
    return next((each for each in patterns() if each.names(model)), None)


def imported(value: Any) -> Any:
    """What a dotted path leads to, or the path itself where it leads nowhere."""
    if not isinstance(value, str):
        return value
    try:
        return import_string(value)
    except ImportError:
        return value


def _tenant(value: Any) -> Rule:
    if value == ANY:
        return EVERY_TENANT
    rule: Rule = imported(value) if isinstance(value, str) and "." in value else value
    return rule

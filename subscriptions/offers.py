"""What a tenant may hear: the catalog as its pages show it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from django.apps import apps
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _

from subscriptions import catalog
from subscriptions.conf import conf
from subscriptions.entries import ACTIONS, DISABLED, PROJECT, PROJECT_ACTIONS
from subscriptions.schemas import DATA, changing, described, names, schema_of

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise

    from subscriptions.declared import Declared
    from subscriptions.entries import Entry
    from subscriptions.models import Tenant
    from subscriptions.schemas import Described, Schema

EVERYTHING = "*"
MEANS: dict[str, StrOrPromise] = {
    "created": _("A row was added."),
    "updated": _("A row was saved; the body says what changed, from what to what."),
    "deleted": _("A row was deleted; the body is what it last was."),
    "added": _("Many-to-many links were added."),
    "removed": _("Many-to-many links were removed."),
    "cleared": _("All many-to-many links of a field were removed."),
    "saving": _("A row is about to be saved."),
    "deleting": _("A row is about to be deleted."),
    "adding": _("Many-to-many links are about to be added."),
    "removing": _("Many-to-many links are about to be removed."),
    "clearing": _("All many-to-many links of a field are about to be removed."),
    "initializing": _("A row is about to be read."),
    "initialized": _("A row was read."),
}
OWN: dict[str, StrOrPromise] = {
    DISABLED: _(
        "One of your subscriptions was turned off, because its receiver failed for too long or wanted no more."
    ),
    "migrating": _("The database is about to be migrated."),
    "migrated": _("The database was migrated."),
    "request.started": _("A request came in."),
    "request.finished": _("A request was answered."),
    "request.failed": _("A request ended in an error."),
}


@dataclass(frozen=True, slots=True)
class Offer:
    """One topic."""

    topic: str
    means: StrOrPromise
    entry: Entry | None = None
    action: str = ""
    declared: Declared | None = None

    def schema(self) -> Schema:
        data = self.declared.embedded(DATA) if self.declared else None
        return schema_of(self.topic, self.entry, self.action, data=data)

    def is_found(self, words: str) -> bool:
        return all(word in f"{self.topic} {self.means}".lower() for word in words.lower().split())


@dataclass(frozen=True, slots=True)
class Model:
    """What can be heard of one model: a row of the grid."""

    entry: Entry
    name: str
    offers: tuple[Offer, ...]

    @property
    def label(self) -> str:
        return self.entry.label_lower

    @property
    def every(self) -> str:
        """The pattern for all of it."""
        return f"{self.label}.{EVERYTHING}"

    @property
    def updated(self) -> str:
        return self.entry.topic("updated")

    def actions(self) -> list[str]:
        return [offer.action for offer in self.offers]

    def changing(self) -> tuple[str, ...]:
        return changing(self.entry) if "updated" in self.entry.actions else ()

    def fields(self) -> list[Described]:
        return described(self.entry)

    def names(self) -> list[str]:
        """Of the fields in its bodies."""
        return names(self.entry)

    def is_found(self, words: str) -> bool:
        """Whether each of `words` is in what it is called."""
        text = f"{self.label} {self.name} {' '.join(self.actions())}".lower()
        return all(word in text for word in words.lower().split())


@dataclass(frozen=True, slots=True)
class Group:
    """The models of one app."""

    label: str
    name: str
    models: tuple[Model, ...]


def groups() -> list[Group]:
    """Every model that can be heard, by app."""
    found: dict[str, list[Model]] = {}
    for entry in sorted(catalog.entries().values(), key=lambda entry: entry.label_lower):
        found.setdefault(entry.model._meta.app_label, []).append(_model(entry))
    return [Group(label, _app_name(label), tuple(models)) for label, models in found.items()]


def only(group: Group, words: str) -> Group:
    """Its models that `words` find."""
    return replace(group, models=tuple(model for model in group.models if model.is_found(words)))


def columns(shown: list[Group]) -> list[str]:
    """The actions that any of them has."""
    had = {action for group in shown for model in group.models for action in model.actions()}
    return [action for action in ACTIONS if action in had]


def singles(tenant: Tenant) -> list[Offer]:
    """Topics that no model stands for: the host's own signals, what programs publish, and ours."""
    found = [Offer(custom.topic, "") for custom in catalog.signals()]
    found.extend(Offer(each.name, each.description, declared=each) for each in catalog.declared())
    found.append(Offer(DISABLED, OWN[DISABLED]))
    if tenant.slug == conf.operator_tenant:
        actions = [action for action in PROJECT_ACTIONS if action in conf.project_actions]
        found.extend(Offer(f"{PROJECT}.{action}", OWN[action]) for action in actions)
    return sorted(found, key=lambda offer: offer.topic)


def find(topic: str, tenant: Tenant) -> Offer | None:
    """The one of that name, if `tenant` may hear it."""
    label, _dot, action = topic.rpartition(".")
    for entry in catalog.entries().values():
        if entry.label_lower == label:
            return next((offer for offer in _model(entry).offers if offer.action == action), None)
    return next((offer for offer in singles(tenant) if offer.topic == topic), None)


def model_of(entry: Entry) -> Model:
    return _model(entry)


def _model(entry: Entry) -> Model:
    topics = set(entry.topics())
    offers = [
        Offer(entry.topic(action), MEANS[action], entry, action) for action in ACTIONS if entry.topic(action) in topics
    ]
    return Model(entry, capfirst(str(entry.model._meta.verbose_name_plural)), tuple(offers))


def _app_name(label: str) -> str:
    return str(apps.get_app_config(label).verbose_name)

"""The body that would be sent of a topic: of the newest row that the tenant
may see, or else made up from the schema."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from django.core.exceptions import FieldDoesNotExist
from django.db import models, router
from django.db.models import QuerySet
from django.utils.translation import gettext_lazy as _

from subscriptions import schemas
from subscriptions.entries import M2M_ACTIONS
from subscriptions.models import Tenant, home
from subscriptions.tenancy import EVERY_TENANT, whose
from webhooks import relations
from webhooks.bodies import dumps, shape_of
from webhooks.capture import held, unheard
from webhooks.events import rfc3339
from webhooks.models import Event

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise

    from subscriptions.catalog import Entry
    from subscriptions.offers import Offer

# Rows that are asked whose they are, where only a function can tell.
LOOKED_AT = 50
# Events among which the newest of a topic is looked for.
EVENTS_LOOKED_AT = 200


@dataclass(frozen=True, slots=True)
class Sample:
    body: bytes
    source: StrOrPromise


FROM_ROW = _("Made from the newest row you may hear of.")
FROM_EVENT = _("The newest event of this topic.")
MADE_UP = _("Made up from the schema: there is no row yet that you may hear of.")
MADE_UP_EVENT = _("Made up from the schema: there is no event of this topic among your newest.")


def sample_of(offer: Offer, tenant: Tenant) -> Sample:
    if offer.entry is None:
        event = _newest_event(offer.topic, tenant)
        return Sample(bytes(event.body), FROM_EVENT) if event else Sample(_made_up(offer, tenant), MADE_UP_EVENT)
    # What a host's serializer, property or function raises is no reason not to show a page.
    with suppress(Exception), unheard():
        row = newest_row(offer.entry, tenant)
        if row is not None:
            return Sample(_body(offer, tenant, _data(offer.entry, offer.action, row)), FROM_ROW)
    return Sample(_made_up(offer, tenant), MADE_UP)


def newest_row(entry: Entry, tenant: Tenant) -> models.Model | None:
    """The newest that is the tenant's, as far as it is quickly found."""
    model: Any = entry.model
    newest: QuerySet[Any] = QuerySet(model, using=router.db_for_read(model)).order_by("-pk")
    looked_at = _narrowed(newest, entry, tenant)
    return next((row for row in islice(looked_at, LOOKED_AT) if _is_of(row, entry, tenant)), None)


def _is_of(row: models.Model, entry: Entry, tenant: Tenant) -> bool:
    found = whose(row, entry.tenant)
    if found is EVERY_TENANT:
        return True
    return found is not None and found == (tenant.pk if isinstance(found, int) else tenant.key)


def _narrowed(rows: QuerySet[Any], entry: Entry, tenant: Tenant) -> QuerySet[Any]:
    """By a path of columns the database finds them; whose they are is asked all the same."""
    lookup = _lookup(entry.model, entry.tenant.split("__"), tenant) if isinstance(entry.tenant, str) else None
    return rows[:LOOKED_AT] if lookup is None else rows.filter(**lookup)[:LOOKED_AT]


def _lookup(model: type[models.Model], path: list[str], tenant: Tenant) -> dict[str, Any] | None:
    """None where the path goes over anything but columns."""
    walked: list[str] = []
    at: Any = model
    for part in path:
        if issubclass(at, Tenant):
            return {"__".join([*walked, "pk"]): tenant.pk}
        try:
            field = at._meta.get_field(at._meta.pk.name if part == "pk" else part)
        except FieldDoesNotExist:
            return None
        if not isinstance(field, models.Field):
            return None
        walked.append(field.name)
        at = field.related_model if isinstance(field, models.ForeignKey) else object
    if issubclass(at, Tenant):
        return {"__".join(walked): tenant}
    return {"__".join(walked if at is object else [*walked, "pk"]): tenant.key}


def _data(entry: Entry, action: str, row: models.Model) -> dict[str, Any]:
    if action in schemas.PARTIAL_ACTIONS:
        return {**held(entry, row), **({"adding": False} if action == "saving" else {})}
    data: dict[str, Any] = {"object": shape_of(entry).object(row)}
    if action == "updated":
        data["changes"] = _changes(entry, data["object"])
    elif action in {"deleted", "deleting"}:
        data |= {"cascade": False, "origin": None}
    elif action in M2M_ACTIONS:
        data |= _links(entry, data["object"])
    return data


def _changes(entry: Entry, shown: dict[str, Any]) -> dict[str, Any]:
    """As if one field had just been another; a status says more than a number."""
    fields = {each.name: each.schema for each in schemas.described(entry)}
    names = [name for name in schemas.changing(entry) if name in shown and name in fields]
    if not names:
        return {}
    name = next((name for name in names if fields[name].get("examples")), names[0])
    examples = [schemas.example(fields[name], before=before) for before in (True, False)]
    before = next((value for value in examples if value != shown[name]), None)
    return {name: {"from": before, "to": shown[name]}}


def _links(entry: Entry, shown: dict[str, Any]) -> dict[str, Any]:
    name, model, reverse = next(
        ((name, _other(field, reverse=reverse), reverse) for field, name, reverse in relations.ends(entry.model)),
        ("", entry.model, False),
    )
    keys = shown.get(name) or [1]
    return {"field": name, "reverse": reverse, "model": model._meta.label_lower, "keys": keys[:2]}


def _other(field: models.ManyToManyField[Any, Any], *, reverse: bool) -> type[models.Model]:
    found: Any = field.model if reverse else field.related_model
    return found  # type: ignore[no-any-return]


def _made_up(offer: Offer, tenant: Tenant) -> bytes:
    data = schemas.example(offer.schema())["data"]
    if offer.entry is not None and "changes" in data:
        data["changes"] = _changes(offer.entry, data["object"])
    return _body(offer, tenant, data)


def _body(offer: Offer, tenant: Tenant, data: Any) -> bytes:
    slug = None if offer.entry is not None and offer.entry.tenant is EVERY_TENANT else tenant.slug
    timestamp = rfc3339(datetime.now(tz=UTC))
    return dumps({"type": offer.topic, "timestamp": timestamp, "tenant": slug, "data": data})


def _newest_event(topic: str, tenant: Tenant) -> Event | None:
    newest = Event.objects.using(home()).filter(tenant=tenant, error="").order_by("-created_at")
    found = next((pk for pk, each in newest.values_list("pk", "topic")[:EVENTS_LOOKED_AT] if each == topic), None)
    return None if found is None else newest.filter(pk=found).first()

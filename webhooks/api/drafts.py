"""Reading what a program wants to publish. By hand: a thousand events are one
request, and a serializer takes longer over each than the database."""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Any

from django.http import Http404
from django.utils.translation import gettext as _

from subscriptions.api.fields import UNKNOWN, moment
from subscriptions.api.paging import TENANT
from subscriptions.api.problems import Fault, Problem, pointer
from subscriptions.models import Tenant, home
from webhooks.models.receipts import LONGEST_NAME
from webhooks.publishing import MOST, Draft

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from subscriptions.api.views import ApiView

    Addressed = Mapping[str | None, Tenant | None]

FIELDS = frozenset({"type", "data", "id", "timestamp", "tenant"})
NAME = re.compile(rf"[\x20-\x7e]{{1,{LONGEST_NAME}}}")
MOST_FAULTS = 20


def one(view: ApiView, body: Any) -> list[Draft]:
    return _read(view, [body], [""])


def many(view: ApiView, body: Any) -> list[Draft]:
    if not isinstance(body, dict):
        raise Problem("invalid", errors=[Fault("", _("Write an object."))])
    unknown = islice((name for name in body if name != "events"), MOST_FAULTS)
    faults = [Fault(pointer(name), UNKNOWN, "unknown_field") for name in unknown]
    items = body.get("events")
    if not isinstance(items, list) or not 1 <= len(items) <= MOST:
        faults.append(Fault("/events", _("Write a list of 1 to %(most)s events.") % {"most": MOST}))
    if faults:
        raise _problem(faults)
    return _read(view, items or [], [f"/events/{place}" for place in range(len(items or []))])


def key(view: ApiView) -> str:
    """The Idempotency-Key; empty without one."""
    text = view.request.headers.get("Idempotency-Key")
    if text is None:
        return ""
    if not NAME.fullmatch(text):
        told = _("Send 1 to %(most)s printable ASCII characters.")
        raise Problem("invalid", errors=[Fault("Idempotency-Key", told % {"most": LONGEST_NAME})])
    return text


def _read(view: ApiView, items: Sequence[Any], places: Sequence[str]) -> list[Draft]:
    wrong = (fault for item, place in zip(items, places, strict=True) for fault in _faults(item, place))
    if faults := [*islice(wrong, MOST_FAULTS)]:
        raise _problem(faults)
    addressed = _addressed(view, items)
    named = view.request.query_params.get(TENANT.name)
    return [_draft(item, addressed[item.get("tenant", named)]) for item in items]


def _draft(item: Mapping[str, Any], tenant: Tenant | None) -> Draft:
    text = item.get("timestamp")
    return Draft(
        topic=item["type"],
        data=item["data"],
        tenant=tenant,
        id=item.get("id") or "",
        timestamp=None if text is None else moment(text),
    )


def _faults(item: Any, place: str) -> Iterator[Fault]:
    if not isinstance(item, dict):
        yield Fault(place, _("Write an object."))
        return
    if not isinstance(item.get("type"), str):
        yield Fault(f"{place}/type", _("Write a topic such as billing.invoice.paid."), _how(item, "type"))
    if not isinstance(item.get("data"), dict):
        yield Fault(f"{place}/data", _("Write an object."), _how(item, "data"))
    text = item.get("timestamp")
    if text is not None and (not isinstance(text, str) or moment(text) is None):
        yield Fault(f"{place}/timestamp", _("Write a time such as 2026-11-21T09:30:00Z."))
    name = item.get("id")
    if name is not None and (not isinstance(name, str) or not NAME.fullmatch(name)):
        told = _("Write 1 to %(most)s printable ASCII characters.")
        yield Fault(f"{place}/id", told % {"most": LONGEST_NAME})
    if not isinstance(item.get("tenant"), str | None):
        yield Fault(f"{place}/tenant", _("Write the tenant's slug."))
    # Last, as there may be thousands.
    for name in item.keys() - FIELDS:
        yield Fault(place + pointer(name), UNKNOWN, "unknown_field")


def _how(item: Mapping[str, Any], name: str) -> str:
    return "invalid" if name in item else "required"


def _problem(faults: list[Fault]) -> Problem:
    unknown = all(fault.code == "unknown_field" for fault in faults)
    return Problem("unknown_field" if unknown else "invalid", errors=faults[:MOST_FAULTS])


def _addressed(view: ApiView, items: Sequence[Mapping[str, Any]]) -> Addressed:
    """By what is written, whose event it is. A tenant's key publishes to its own;
    the operator's names one, or none (null) for an event of every tenant's."""
    own = view.caller.tenant
    named = view.request.query_params.get(TENANT.name)
    if own is not None:
        if {item.get("tenant", own.slug) for item in items} | {own.slug if named is None else named} == {own.slug}:
            return {None: own, own.slug: own}
        raise Http404
    if named is None and any("tenant" not in item for item in items):
        raise Problem("tenant_required", errors=[Fault("/tenant", _("Name a tenant, or null for all."), "required")])
    wanted = {item.get("tenant", named) for item in items}
    rows = Tenant.objects.using(home()).filter(slug__in=wanted - {None})
    found: dict[str | None, Tenant | None] = {None: None, **{row.slug: row for row in rows}}
    if not wanted <= found.keys():
        raise Http404
    return found

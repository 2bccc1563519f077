"""Events that programs publish: checked against the schema of their topic,
and written once, however often they are sent.

A receipt holds under which name something was published, and what was
answered. It is inserted in the transaction of the event, before it: of two
requests of one name the second waits for the first, and then has its answer.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson
from django.db import OperationalError, connections, transaction
from django.utils.translation import gettext as _

from subscriptions import catalog
from subscriptions.models import home
from webhooks import coalescing, events, statements
from webhooks.models import Receipt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from subscriptions.catalog import Declared
    from subscriptions.models import Tenant

MOST = 1_000  # events of one request
MOST_WRONG = 20  # told of one request
LONGEST = events.LONGEST_TOPIC
# Where requests collide.
TRIES = 5
COLLIDED = frozenset({"40001", "40P01"})  # PostgreSQL's codes
AHEAD = timedelta(days=1)  # by which a clock may be wrong
ID, ERROR = (coalescing.NAMES.index(name) for name in ("id", "error"))


@dataclass(frozen=True, slots=True)
class Draft:
    """What is to be published. `id` is its program's own name for it; no
    tenant: it concerns every one."""

    topic: str
    data: dict[str, Any]
    tenant: Tenant | None
    id: str = ""
    timestamp: datetime | None = None


@dataclass(frozen=True, slots=True)
class Wrong:
    """`place` is that of the draft, `pointer` is into it."""

    place: int
    pointer: str
    code: str
    text: str


class UnpublishableError(ValueError):
    """Nothing was published, for what `wrong` names."""

    def __init__(self, wrong: Sequence[Wrong]) -> None:
        super().__init__("; ".join(each.text for each in wrong))
        self.wrong = wrong


class MismatchError(ValueError):
    """The key was used for another request."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What is answered; `duplicate` where it was published before."""

    id: str
    type: str
    timestamp: str
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Published:
    """`replayed`: the whole request was answered before."""

    events: list[Taken]
    replayed: bool = False


def publish(drafts: Sequence[Draft], *, by: Tenant | None, key: str = "", fingerprint: bytes = b"") -> Published:
    """Write all of `drafts`, or none. `by` is whose key asks, none being the
    operator's; `key` makes the request one, and `fingerprint` says what it asks.

    An event whose id was published before is not written again. Raises
    UnpublishableError, MismatchError, DatabaseError.
    """
    rows, taken = _prepared(drafts)
    using = home()
    if len(drafts) == 1 and not key and not drafts[0].id:
        # One row needs no transaction around it.
        coalescing.insert(rows, using=using)
        events.ring_after_commit(using=using)
        return Published(taken)
    for _try in range(TRIES - 1):
        try:
            return _once(drafts, rows, taken, by=by, key=key, fingerprint=fingerprint)
        except OperationalError as error:
            if connections[using].in_atomic_block or not _collided(error):
                raise
    return _once(drafts, rows, taken, by=by, key=key, fingerprint=fingerprint)


def _once(
    drafts: Sequence[Draft],
    rows: Sequence[coalescing.Row],
    taken: list[Taken],
    *,
    by: Tenant | None,
    key: str,
    fingerprint: bytes,
) -> Published:
    using = home()
    with transaction.atomic(using=using):
        # Again where it was pruned in this very moment.
        while key and not _is_first(by, f"key {key}", fingerprint, taken, using=using):
            if earlier := _earlier(by, f"key {key}", fingerprint, using=using):
                return Published(earlier, replayed=True)
        names = {place: _name_of(draft) for place, draft in enumerate(drafts) if draft.id}
        firsts = _without_those_before(by, names, taken, using=using)
        new = [row for row, each in zip(rows, taken, strict=True) if firsts.get(each.id, each).id == each.id]
        coalescing.insert(new, using=using)
        if new:
            events.ring_after_commit(using=using)
        answers = [firsts.get(each.id, each) for each in taken]
        if key and len(new) < len(taken):
            Receipt.objects.using(using).for_tenant(by).filter(name=f"key {key}").update(answer=_written(answers))
    return Published(answers)


def _collided(error: OperationalError) -> bool:
    """With a request of the same name, where a host has chosen an isolation in
    which the second does not wait for the first: afterwards it sees it."""
    return getattr(error.__cause__, "sqlstate", None) in COLLIDED


def _prepared(drafts: Sequence[Draft]) -> tuple[list[coalescing.Row], list[Taken]]:
    """The rows of the events, and their answers."""
    now, using = datetime.now(tz=UTC), home()
    declared = {topic: catalog.declared_topic(topic) for topic in {each.topic for each in drafts}}
    wrong: list[Wrong] = []
    rows: list[coalescing.Row] = []
    taken: list[Taken] = []
    for place, draft in enumerate(drafts):
        moment = draft.timestamp or now
        values = _values(draft, moment)
        wrong += _wrong(place, draft, declared[draft.topic], now, too_large=values[ERROR])
        if len(wrong) >= MOST_WRONG:
            break
        rows.append(coalescing.prepared(values, using=using))
        taken.append(Taken(f"evt_{values[ID].hex}", draft.topic, events.rfc3339(moment)))
    if wrong:
        raise UnpublishableError(wrong[:MOST_WRONG])
    return rows, taken


def _values(draft: Draft, moment: datetime) -> tuple[Any, ...]:
    tenant = draft.tenant
    return events.row_of(
        topic=draft.topic,
        tenant_id=None if tenant is None else tenant.pk,
        tenant_slug=None if tenant is None else tenant.slug,
        data=draft.data,
        timestamp=moment,
    )


def _wrong(place: int, draft: Draft, declared: Declared | None, now: datetime, *, too_large: str) -> list[Wrong]:
    if declared is None:
        return [Wrong(place, "/type", *_why_not(draft.topic))]
    if too_large:  # to be looked at, too
        return [Wrong(place, "/data", "too_large", too_large)]
    wrong = [
        Wrong(place, f"/data{fault.pointer}", "schema_mismatch", fault.text) for fault in declared.faults(draft.data)
    ]
    if draft.timestamp is not None and draft.timestamp > now + AHEAD:
        wrong.append(Wrong(place, "/timestamp", "invalid", _("This is more than a day from now.")))
    return wrong


def _why_not(topic: str) -> tuple[str, str]:
    """A code, and a sentence."""
    shown = topic[:LONGEST]
    if topic.startswith(events.RESERVED) or topic in catalog.topics():
        told = _("%(topic)s is told by the project itself; nobody else may publish it.")
        return "topic_reserved", told % {"topic": shown}
    near = difflib.get_close_matches(shown, [each.name for each in catalog.declared()], n=1)
    if near:
        return "unknown_topic", _("There is no topic %(topic)s. Is it %(near)s?") % {"topic": shown, "near": near[0]}
    return "unknown_topic", _("There is no topic %(topic)s that can be published.") % {"topic": shown}


# --- receipts ---


def _name_of(draft: Draft) -> str:
    """The same id may name events of two tenants, where the operator publishes them."""
    return f"id {draft.tenant.pk if draft.tenant else '*'} {draft.id}"


def _is_first(by: Tenant | None, name: str, fingerprint: bytes, taken: list[Taken], *, using: str) -> bool:
    """Waits for whoever inserts the same right now."""
    return bool(_insert(by, {name: (fingerprint, _written(taken))}, using=using))


def _earlier(by: Tenant | None, name: str, fingerprint: bytes, *, using: str) -> list[Taken]:
    row = Receipt.objects.using(using).for_tenant(by).filter(name=name).first()
    if row is None:
        return []
    if bytes(row.fingerprint) != fingerprint:
        raise MismatchError(name)
    return _read(row.answer)


def _without_those_before(
    by: Tenant | None, names: Mapping[int, str], taken: Sequence[Taken], *, using: str
) -> dict[str, Taken]:
    """By the event's id: the one to answer in its place. Of two in one request the first counts."""
    if not names:
        return {}
    firsts: dict[str, int] = {}
    for place, name in names.items():
        firsts.setdefault(name, place)
    inserted = _insert(by, {name: (b"", _written([taken[place]])) for name, place in firsts.items()}, using=using)
    rows = Receipt.objects.using(using).for_tenant(by).filter(name__in=firsts.keys() - inserted)
    before = {row.name: _read(row.answer)[0] for row in rows}
    answers: dict[str, Taken] = {}
    for place, name in names.items():
        if name in before:
            answers[taken[place].id] = before[name]
        elif place != firsts[name]:
            answers[taken[place].id] = _again(taken[firsts[name]])
    return answers


def _insert(by: Tenant | None, receipts: Mapping[str, tuple[bytes, bytes]], *, using: str) -> set[str]:
    """Returns the names that nobody had. In the order of the names, so that
    two requests wait for each other one way only."""
    now = statements.now(using)
    tenant = by.pk if by else None
    values = [
        value
        for name, (fingerprint, answer) in sorted(receipts.items())
        for value in (tenant, name, fingerprint, answer)
    ]
    places = ", ".join([f"(%s, %s, %s, %s, {now})"] * len(receipts))
    query = f"""
        INSERT INTO webhooks_receipt (tenant_id, name, fingerprint, answer, created_at) VALUES {places}
        ON CONFLICT DO NOTHING RETURNING name
    """  # noqa: S608 - made of names of ours
    return {name for (name,) in statements.rows(query, values, using=using)}


def _written(taken: Sequence[Taken]) -> bytes:
    return orjson.dumps([[each.id, each.type, each.timestamp] for each in taken])


def _read(answer: bytes | memoryview) -> list[Taken]:
    return [Taken(pk, topic, moment, duplicate=True) for pk, topic, moment in orjson.loads(bytes(answer))]


def _again(taken: Taken) -> Taken:
    return Taken(taken.id, taken.type, taken.timestamp, duplicate=True)

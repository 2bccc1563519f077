"""What happened becomes an event: its exact body, in the transaction and on the
alias of the change."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import connections, models, router, transaction
from django.utils import timezone

from subscriptions import catalog
from subscriptions.conf import conf
from subscriptions.entries import listed
from subscriptions.models import TOPIC, Tenant, home
from subscriptions.tenancy import EVERY_TENANT, whose
from webhooks import coalescing, matching, tasks
from webhooks.bodies import dumps, shape_of
from webhooks.models import Event, new_event_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

    from subscriptions.tenancy import Whose

LONGEST_TOPIC = 200
# Topics that only Signalpost itself writes.
RESERVED = "signalpost."
# Rows of publish_rows that are in memory at once.
CHUNK = 100
ROW_ACTIONS = ("created", "updated", "deleted")
# How far back in `run_on_commit` a ring is looked for.
NEAR = 8


class CaptureError(RuntimeError):
    """A change could not be captured; the operator chose that it must be."""


def publish(
    topic: str,
    tenant: Tenant | str | None,
    data: dict[str, Any],
    *,
    using: str | None = None,
    timestamp: datetime | None = None,
) -> Event:
    """Write an event that no model's signal tells of; whoever listens hears it.

    `tenant` is a Tenant, its slug or its key; None concerns every tenant. The
    event is part of the open transaction on `using` (by default where events
    live). `timestamp` says when it happened, if that is not now.

    Raises ValueError for a topic that is none, an unknown tenant, a naive
    timestamp, or data that is no JSON object, or none that the declared topic
    takes; CaptureError where events on this alias would never be sent.
    """
    _check_topic(topic)
    if not isinstance(data, dict):
        raise ValueError(f"The data of an event is a dict, not {type(data).__name__}.")
    _check_data(topic, data)
    if timestamp is not None and timezone.is_naive(timestamp):
        raise ValueError("The timestamp needs a time zone.")
    tenant_id, slug = _named(tenant)
    return write(
        topic=topic,
        tenant_id=tenant_id,
        tenant_slug=slug,
        data=data,
        using=using or router.db_for_write(Event),
        timestamp=timestamp,
    )


def publish_rows(queryset: models.QuerySet[Any], action: str = "updated", *, changed: Iterable[str] = ()) -> int:
    """Write one event per row of a registered model, as a save would have, for
    what sends no signal: bulk_create, bulk_update, update() and raw SQL.

    `action` is "created", "updated", or "deleted" (call it before you delete).
    `changed` names the fields that you wrote, for subscriptions that listen
    to some fields only; what they held before is not known, so `changes` is
    empty. Rows that nobody listens to are skipped. All of it is one
    transaction; memory holds `CHUNK` rows at a time.

    Returns the number of events. Raises ValueError for a model that is not
    registered, or another action.
    """
    entry = catalog.entry_for(queryset.model)
    if entry is None:
        raise ValueError(f"{queryset.model._meta.label} is not registered in the catalog.")
    if action not in ROW_ACTIONS:
        raise ValueError(f"The action is one of {', '.join(ROW_ACTIONS)}, not {action!r}.")
    topic, using, written = entry.topic(action), queryset.db, 0
    if not matching.wanted(topic):
        return 0
    _check_alias(using)
    names = list(listed(changed)) if action == "updated" else None
    with transaction.atomic(using=using):
        for chunk in _chunks(_readable(queryset, entry.tenant)):
            rows = _of_rows(chunk, entry=entry, action=action, changed=names)
            written += coalescing.insert([coalescing.prepared(row, using=using) for row in rows], using=using)
        if written:
            ring_after_commit(using=using)
    return written


def write(
    *,
    topic: str,
    tenant_id: int | None,
    tenant_slug: str | None,
    data: dict[str, Any],
    using: str,
    changed: Sequence[str] | None = None,
    timestamp: datetime | None = None,
) -> Event:
    """Write an event, whether or not anybody listens, and ring when it commits.

    A body over `conf.body_limit` becomes an event that says so and is never
    sent. Raises CaptureError where events on this alias would never be sent,
    TypeError or ValueError for data that has no JSON.
    """
    _check_alias(using)
    row = row_of(
        topic=topic, tenant_id=tenant_id, tenant_slug=tenant_slug, data=data, changed=changed, timestamp=timestamp
    )
    coalescing.insert([coalescing.prepared(row, using=using)], using=using)
    ring_after_commit(using=using)
    return Event.from_db(using, coalescing.NAMES, row)


def add(
    *,
    topic: str,
    tenant_id: int | None,
    tenant_slug: str | None,
    data: dict[str, Any],
    using: str,
    changed: Sequence[str] | None = None,
) -> None:
    """`write` for many of one transaction: their rows may be inserted together
    as late as its commit. The first never waits: most have no other."""
    _check_alias(using)
    values = row_of(topic=topic, tenant_id=tenant_id, tenant_slug=tenant_slug, data=data, changed=changed)
    row = coalescing.prepared(values, using=using)
    if _is_rung(connections[using]):
        coalescing.add(row, using=using)
    else:
        coalescing.insert([row], using=using)
        ring_after_commit(using=using)


def ring_after_commit(*, using: str) -> None:
    """Ring once the open transaction on `using` has committed, or now.

    One entry does for all writes of a transaction: Django drops an entry with
    the savepoint it was made in, and a write that comes after it is either
    inside that savepoint, too, or that savepoint has been released and can no
    longer be rolled back alone.
    """
    connection = connections[using]
    if not connection.in_atomic_block and not connection.get_autocommit():
        return  # Nobody tells us of that commit: the workers' own look finds it.
    if not _is_rung(connection):
        transaction.on_commit(tasks.ring, using=using, robust=True)


def _is_rung(connection: BaseDatabaseWrapper) -> bool:
    ring: Callable[[], object] = tasks.ring
    return any(entry[1] is ring for entry in connection.run_on_commit[-NEAR:])


def row_of(
    *,
    topic: str,
    tenant_id: int | None,
    tenant_slug: str | None,
    data: dict[str, Any],
    changed: Sequence[str] | None = None,
    timestamp: datetime | None = None,
) -> tuple[Any, ...]:
    """Of the columns of a new event, in the model's order."""
    moment = datetime.now(tz=UTC) if timestamp is None else timestamp.astimezone(UTC)
    body = dumps({"type": topic, "timestamp": rfc3339(moment), "tenant": tenant_slug, "data": data})
    stored = moment if settings.USE_TZ else timezone.make_naive(moment)
    error, fanned_out_at = "", None
    if len(body) > conf.body_limit:
        error = f"The body has {len(body):,} bytes; the limit is {conf.body_limit:,}."
        body, fanned_out_at = b"", stored
    names = None if changed is None else list(changed)
    return (new_event_id(), tenant_id, topic, names, body, error, stored, fanned_out_at, matching.newest())


def rfc3339(moment: datetime) -> str:
    """`moment`, which is in UTC, as bodies say it: with milliseconds and Z."""
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _check_alias(using: str) -> None:
    if using not in conf.databases:
        raise CaptureError(
            f"Events of the database {using!r} would never be sent. "
            f"Add it to SIGNALPOST_DATABASES, and run: manage.py migrate --database {using}"
        )


def _check_topic(topic: str) -> None:
    if not TOPIC.fullmatch(topic) or len(topic) > LONGEST_TOPIC:
        raise ValueError(
            f"{topic!r} is no topic: write up to {LONGEST_TOPIC} of a-z, 0-9 and _ "
            "in parts joined by dots, such as shop.order.paid."
        )
    if topic.startswith(RESERVED):
        raise ValueError(f"Topics that begin with {RESERVED} are Signalpost's own.")


def _check_data(topic: str, data: dict[str, Any]) -> None:
    """Against the schema, if it was declared with one: as what it is in JSON."""
    declared = catalog.declared_topic(topic)
    if declared is None or declared.schema is None:
        return
    if faults := declared.faults(json.loads(dumps(data))):
        told = "; ".join(f"{fault.pointer or '/'}: {fault.text}" for fault in faults)
        raise ValueError(f"The data does not fit the schema of {topic}. {told}")


def _named(tenant: Tenant | str | None) -> tuple[int | None, str | None]:
    if tenant is None:
        return None, None
    if isinstance(tenant, Tenant):
        if tenant.pk is None:
            raise ValueError("The tenant has not been saved.")
        return tenant.pk, tenant.slug
    found = matching.id_of_slug(tenant) or matching.tenant_by_key(tenant)
    slug = None if found is None else matching.slug_of(found)
    if found is not None and slug is not None:
        return found, slug
    # Not remembered: perhaps another process made it this very moment.
    rows = Tenant.objects.using(home()).filter(models.Q(slug=tenant) | models.Q(key=tenant))
    for row in sorted(rows, key=lambda row: bool(row.slug != tenant)):
        return row.pk, row.slug
    raise ValueError(f"No tenant has the slug or the key {tenant!r}.")


def _of_rows(
    rows: Sequence[models.Model], *, entry: catalog.Entry, action: str, changed: list[str] | None
) -> Iterator[tuple[Any, ...]]:
    shape, topic = shape_of(entry), entry.topic(action)
    heard = [(row, *_whose(whose(row, entry.tenant))) for row in rows]
    heard = [each for each in heard if each[1] and matching.wanted_by(topic, each[2])]
    shape.prefetch([row for row, _, _ in heard])
    for row, _, tenant_id in heard:
        data: dict[str, Any] = {"object": shape.object(row, prefetched=True)}
        if action == "updated":
            data["changes"] = {}
        slug = None if tenant_id is None else matching.slug_of(tenant_id)
        yield row_of(topic=topic, tenant_id=tenant_id, tenant_slug=slug, data=data, changed=changed)


def _whose(tenant: Whose) -> tuple[bool, int | None]:
    """Whether it is anybody's, and the tenant's id; every tenant's has none."""
    if tenant is EVERY_TENANT:
        return True, None
    found = matching.tenant_by_key(tenant) if isinstance(tenant, str) else tenant
    return found is not None, found


def _readable(queryset: models.QuerySet[Any], rule: object) -> models.QuerySet[Any]:
    """Whole rows, with what the path to the tenant goes through."""
    rows = queryset.defer(None).prefetch_related(None)
    path, model = [], queryset.model
    for part in rule.split("__")[:-1] if isinstance(rule, str) else ():
        field = next((field for field in model._meta.concrete_fields if field.name == part), None)
        if not isinstance(field, models.ForeignKey):
            break
        path.append(part)
        model = field.related_model
    return rows.select_related("__".join(path)) if path else rows


def _chunks(queryset: models.QuerySet[Any]) -> Iterator[list[Any]]:
    rows = queryset.iterator(chunk_size=CHUNK)
    while chunk := list(islice(rows, CHUNK)):
        yield chunk

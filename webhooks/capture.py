"""What every kind of capture shares: who listens, whose it is, what a failure does."""

from __future__ import annotations

import logging
import traceback
from collections import Counter
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db import Error as DatabaseError
from django.db import connections, transaction
from django.db.models import QuerySet

from subscriptions import tenancy
from subscriptions.conf import LOG, conf
from subscriptions.tenancy import EVERY_TENANT
from webhooks import events, matching
from webhooks.bodies import key_of, shape_of
from webhooks.events import CaptureError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from django.db.models import Model

    from subscriptions.catalog import Entry
    from subscriptions.tenancy import Whose

logger = logging.getLogger(__name__)

# Set on the state of an instance that loaddata fills: before Django 6.1
# m2m_changed does not say `raw`, but it is sent with that instance.
RAW = "signalpost_raw"

# Events that were wanted and had no tenant, by model, since the process started.
skipped: Counter[str] = Counter()

# Rows that a capture itself loads are not reads to be audited.
_unheard: ContextVar[bool] = ContextVar("signalpost_unheard", default=False)


@dataclass(frozen=True, slots=True)
class Addressee:
    """The tenant that an event is for; neither id nor slug: every tenant."""

    tenant_id: int | None = None
    tenant_slug: str | None = None


def wanted(topic: str) -> bool:
    """Whether anyone listens to `topic`."""
    try:
        return matching.wanted(topic)
    except Exception as error:  # noqa: BLE001  # The operator's choice, whatever it is.
        failed(topic, error)
        return False


def wanted_of(entry: Entry, *actions: str) -> list[str]:
    """Those of `actions` that the entry offers and anyone listens to."""
    return [action for action in actions if action in entry.actions and wanted(entry.topic(action))]


def addressee(entry: Entry, instance: Model, topic: str) -> Addressee | None:
    """The tenant of `instance`, if it listens to `topic`; one that has no
    tenant is counted as skipped."""
    return addressed(tenancy.whose(instance, entry.tenant), topic, label=entry.label_lower)


def addressed(whose: Whose, topic: str, *, label: str) -> Addressee | None:
    tenant_id = known(whose)
    if whose is EVERY_TENANT:
        return Addressee()
    if tenant_id is None:
        _skip(label)
        return None
    if not matching.wanted_by(topic, tenant_id):
        return None
    return Addressee(tenant_id, matching.slug_of(tenant_id))


def may_listen(entry: Entry, instance: Model, topic: str) -> bool:
    """Whether whose `instance` says it is listens to `topic`."""
    found = tenancy.whose(instance, entry.tenant)
    if found is EVERY_TENANT:
        return True
    tenant_id = known(found)
    return tenant_id is not None and matching.wanted_by(topic, tenant_id)


def known(whose: Whose) -> int | None:
    """The id of the tenant, if it is one and we know it."""
    return whose if isinstance(whose, int) else matching.tenant_by_key(whose) if isinstance(whose, str) else None


def _skip(label: str) -> None:
    skipped[label] += 1
    if skipped[label] == 1:
        logger.warning("A row of %s has no tenant: there is no event for it, nor for others like it.", label)


def write(topic: str, to: Addressee, data: dict[str, Any], *, using: str, changed: list[str] | None = None) -> None:
    # An event stands or falls with its change; where there is no transaction
    # (a read, a signal of the host's), it has one of its own.
    own = nullcontext() if connections[using].in_atomic_block else transaction.atomic(using=using)
    with own:
        events.add(
            topic=topic, tenant_id=to.tenant_id, tenant_slug=to.tenant_slug, data=data, using=using, changed=changed
        )


def row(entry: Entry, instance: Model, *, using: str) -> Model | None:
    """The row behind `instance` as the database holds it in this transaction,
    whatever edits or gaps the instance has, and whatever a manager hides."""
    return _rows(entry, instance, using=using).first()


def is_row(entry: Entry, instance: Model, *, using: str) -> bool:
    return _rows(entry, instance, using=using).exists()


def _rows(entry: Entry, instance: Model, *, using: str) -> QuerySet[Model]:
    return QuerySet(entry.model, using=using).filter(pk=key_of(entry.model, instance)).order_by()


def held(entry: Entry, instance: Model, *, only: frozenset[str] | None = None) -> dict[str, Any]:
    """The exposed columns as `instance` holds them, which need not be what the
    database holds: without a query, and so without what is deferred. Columns
    that the database has still to compute are named, not shown."""
    values, unresolved = {}, []
    for column in shape_of(entry).columns:
        if column.attname not in instance.__dict__ or (only is not None and not column.named_in(only)):
            continue
        value = instance.__dict__[column.attname]
        if hasattr(value, "resolve_expression"):
            unresolved.append(column.name)
        else:
            values[column.name] = column.plain(value)
    return {"object": values, "unresolved": unresolved}


def capturing(topic: str, *, using: str) -> AbstractContextManager[Any, bool | None]:
    """Run a capture; what it raises is the operator's choice.

    "raise": the change is undone, too. The transaction is marked, so that a
    caller who swallows the error cannot commit the change without its event.
    "log": the work has a savepoint of its own, since on PostgreSQL a failed
    statement breaks the transaction even where its error is swallowed.
    """
    return _logging(topic, using) if conf.capture_errors == LOG else _Raising(topic, using)


class _Raising:
    """A class, and no generator: every save goes through here."""

    __slots__ = ("token", "topic", "using")

    def __init__(self, topic: str, using: str) -> None:
        self.topic = topic
        self.using = using

    def __enter__(self) -> None:
        self.token = _unheard.set(True)

    def __exit__(self, kind: object, error: BaseException | None, way: object) -> None:
        _unheard.reset(self.token)
        if isinstance(error, Exception):
            connection = connections[self.using]
            if connection.in_atomic_block:
                connection.set_rollback(True)
            failed(self.topic, error)


@contextmanager
def _logging(topic: str, using: str) -> Iterator[None]:
    token = _unheard.set(True)
    try:
        with transaction.atomic(using=using):
            yield
    except Exception as error:  # noqa: BLE001  # The operator's choice, whatever it is.
        failed(topic, error)
    finally:
        _unheard.reset(token)


def failed(topic: str, error: Exception) -> None:
    """Raise `error` or log it, as the operator chose."""
    if conf.capture_errors == LOG:
        logged(topic, error)
    elif isinstance(error, (CaptureError, DatabaseError)):
        # A database error stays itself: the caller may know how to try again.
        raise error
    else:
        raise CaptureError(f"The event {topic} could not be captured: {type(error).__name__}: {error}") from error


def logged(topic: str, error: Exception) -> None:
    """Without the error's text: PostgreSQL's repeats the row that it refused."""
    frames = traceback.extract_tb(error.__traceback__)
    way = "\n".join(f"  {frame.filename}:{frame.lineno} {frame.name}" for frame in frames)
    logger.error("The event %s was not captured: %s\n%s", topic, type(error).__name__, way)


@contextmanager
def unheard() -> Iterator[None]:
    """Rows that are loaded in here are no reads to be audited."""
    token = _unheard.set(True)
    try:
        yield
    finally:
        _unheard.reset(token)


def is_unheard() -> bool:
    return _unheard.get()

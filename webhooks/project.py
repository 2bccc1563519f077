"""The project's own doings, for the operator's tenant: migrations and requests.

Nothing here may stop a migration or a request: there is no change that an
event would have to stand or fall with, so that a failure is always logged.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from asgiref.local import Local
from django.db import connections, transaction

from subscriptions.conf import conf
from subscriptions.entries import PROJECT
from subscriptions.models import home
from webhooks import events, matching
from webhooks.capture import addressed, logged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.http import HttpRequest

# Apps whose tables an event needs.
OURS = frozenset({"subscriptions", "webhooks"})

_request = Local()
# Told once our own tables are as the models are: (action, data, when).
_later: list[tuple[str, dict[str, Any], datetime]] = []


def pre_migrate(*, using: str, plan: Any = (), **kwargs: Any) -> None:
    data = {"database": using, "plan": _steps(plan)}
    if any(migration.app_label in OURS for migration, _ in plan):
        _later.append(("migrating", data, datetime.now(tz=UTC)))
    else:
        _tell("migrating", data)


def post_migrate(*, using: str, plan: Any = None, **kwargs: Any) -> None:
    for action, data, moment in _later:
        _tell(action, data, timestamp=moment)
    _later.clear()
    if plan is not None:  # `flush` sends this signal, too, and plans nothing.
        _tell("migrated", {"database": using, "plan": _steps(plan)})


def request_started(
    *, environ: dict[str, Any] | None = None, scope: dict[str, Any] | None = None, **kwargs: Any
) -> None:
    """The path without its query, where tokens travel."""
    if not {"request.started", "request.finished"}.intersection(conf.project_actions):
        return
    if environ is not None:
        _request.seen = {"method": environ.get("REQUEST_METHOD", ""), "path": environ.get("PATH_INFO", "")}
    else:
        _request.seen = {"method": (scope or {}).get("method", ""), "path": (scope or {}).get("path", "")}
    _tell("request.started", _request.seen)


def request_finished(**kwargs: Any) -> None:
    with _put_away():
        _tell("request.finished", getattr(_request, "seen", {"method": "", "path": ""}))


def got_request_exception(*, request: HttpRequest | None = None, **kwargs: Any) -> None:
    """The kind of the error, not its text: that may hold anything."""
    error = sys.exc_info()[0]
    data = {
        "method": getattr(request, "method", None) or "",
        "path": getattr(request, "path", ""),
        "error": error.__name__ if error is not None else "",
    }
    with _put_away():
        _tell("request.failed", data)


@contextmanager
def _put_away() -> Iterator[None]:
    """A connection opened here would stay: at the end of a request Django has
    put its own away, and under ASGI an error is told in a thread of its own."""
    connection = connections[home()]
    was_open = connection.connection is not None
    try:
        yield
    finally:
        if not was_open:
            connection.close()


def _steps(plan: Any) -> list[dict[str, Any]]:
    return [
        {"app": migration.app_label, "name": migration.name, "backwards": backwards} for migration, backwards in plan
    ]


def _tell(action: str, data: dict[str, Any], *, timestamp: datetime | None = None) -> None:
    if action not in conf.project_actions:
        return
    topic, using = f"{PROJECT}.{action}", home()
    try:
        if not matching.wanted(topic):
            return
        operator = matching.id_of_slug(conf.operator_tenant)
        to = addressed(operator, topic, label=PROJECT)
        if to is not None:
            with transaction.atomic(using=using):
                events.write(
                    topic=topic,
                    tenant_id=to.tenant_id,
                    tenant_slug=to.tenant_slug,
                    data=data,
                    using=using,
                    timestamp=timestamp,
                )
    except Exception as error:  # noqa: BLE001  # See the top of this module.
        logged(topic, error)

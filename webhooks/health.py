"""`/healthz` and `/readyz`, for load balancers and whoever restarts processes.

Anybody may ask, so the answers name states and nothing else.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError, InterfaceError, connections, transaction
from django.db.migrations.executor import MigrationExecutor
from django.http import JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from subscriptions.conf import conf
from subscriptions.models import home
from webhooks import deliveries, tallies, tasks

if TYPE_CHECKING:
    from django.http import HttpRequest

logger = logging.getLogger(__name__)

# Seconds beyond the usual, after which the workers count as silent.
PATIENCE = 30.0

_migrated = False


@never_cache
@require_safe
@transaction.non_atomic_requests
def healthz(request: HttpRequest) -> JsonResponse:
    """This process answers. It depends on nothing: one that is restarted
    because the database is away is no better off."""
    return JsonResponse({"healthy": True})


@never_cache
@require_safe
@transaction.non_atomic_requests
def readyz(request: HttpRequest) -> JsonResponse:
    """This process can do its work. Neither Redis nor a worker is needed for
    that: without them changes are kept, and sent later."""
    answer: dict[str, Any] = {"ready": False, "database": "away", "migrations": "unknown", "workers": "unknown"}
    try:
        with connections[home()].cursor() as cursor:
            cursor.execute("SELECT 1")
        answer |= {"database": "ok", "migrations": "missing"}
        if _is_migrated():
            answer |= {"migrations": "ok", "ready": True, **workers()}
    except (DatabaseError, InterfaceError) as error:
        logger.warning("Not ready: %s", deliveries.in_short(error))
        answer |= {"ready": False, "database": "away"}
        connections[home()].close()
    answer["redis"] = "ok" if tasks.answers() else "away"
    return JsonResponse(answer, status=200 if answer["ready"] else 503)


def _is_migrated() -> bool:
    """Of what this process's own code has. Asked until it is so: a later
    release that has migrated further does not concern it."""
    global _migrated  # noqa: PLW0603
    if not _migrated:
        executor = MigrationExecutor(connections[home()])
        _migrated = not executor.migration_plan(executor.loader.graph.leaf_nodes())
    return _migrated


def workers() -> dict[str, Any]:
    ago = tallies.looked_ago()
    if ago is None:
        return {"workers": "never seen"}
    usual = max(conf.look_seconds, conf.sweep_seconds) + tallies.FLUSH_SECONDS
    return {"workers": "ok" if ago < usual + PATIENCE else "silent", "looked_seconds_ago": round(ago, 1)}

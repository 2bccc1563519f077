"""RQ's queue, and the worker that runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004 -- Django's names
from django.utils.module_loading import import_string

from subscriptions.conf import conf

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_QUEUE = "signalpost.E034"
PICKLE = "signalpost.W035"
OTHER_WORKER = "signalpost.W036"

JSON = {"json", "rq.serializers.JSONSerializer"}
WORKER = "webhooks.worker.Worker"


@register("signalpost")
def queue(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    return [*_queue(), *_worker()]


def _queue() -> Iterator[CheckMessage]:
    name: Any = conf.queue
    queues = getattr(settings, "RQ_QUEUES", None) or {}
    if not isinstance(name, str):
        return
    if name not in queues:
        yield Error(
            f'RQ_QUEUES has no queue "{name}", which SIGNALPOST_QUEUE names.',
            hint=f'Add "{name}" to RQ_QUEUES, with the SERIALIZER "rq.serializers.JSONSerializer".',
            id=NO_QUEUE,
        )
    elif not _is_json(queues[name].get("SERIALIZER")):
        yield Warning(
            f'The queue "{name}" does not use the JSON serializer, which our jobs are written with.',
            hint=f'Write "SERIALIZER": "rq.serializers.JSONSerializer" in RQ_QUEUES["{name}"].',
            id=PICKLE,
        )


def _is_json(serializer: Any) -> bool:
    return (
        serializer in JSON if isinstance(serializer, str) else getattr(serializer, "__name__", "") == "JSONSerializer"
    )


def _is_ours(worker: Any) -> bool:
    """Ours, or a class that inherits it."""
    try:
        found = import_string(worker) if isinstance(worker, str) else worker
    except ImportError:
        return False
    return WORKER in {f"{each.__module__}.{each.__qualname__}" for each in getattr(found, "__mro__", ())}


def _worker() -> Iterator[CheckMessage]:
    options = getattr(settings, "RQ", None) or {}
    if not _is_ours(options.get("WORKER_CLASS")):
        yield Warning(
            f"manage.py rqworker starts a worker that is not {WORKER}: it does not look by itself, and what a lost "
            "bell left behind waits for the clock.",
            hint=f'Write RQ = {{"WORKER_CLASS": "{WORKER}"}}, or start the worker with --worker-class {WORKER}.',
            id=OTHER_WORKER,
        )

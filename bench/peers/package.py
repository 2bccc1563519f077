"""django-webhook2 on Celery, set up as its documentation says."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

from celery import Celery

from bench.processes import Process

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from django.db.models import Model

THREADS = 50
# Kombu's name for a Redis that listens on a socket of the file system.
SOCKET = "redis+socket://"

app = Celery("bench")
app.conf.update(
    broker_url=os.environ.get("REDIS_URL", "").replace("unix://", SOCKET),
    broker_connection_retry_on_startup=True,
)
app.set_default()
app.autodiscover_tasks(["django_webhook"])


def subscribe(urls: Sequence[str]) -> int:
    from django_webhook import dispatch
    from django_webhook.models import Webhook, WebhookEvent, WebhookSecret, WebhookTopic

    for model in (WebhookEvent, WebhookSecret, Webhook):
        remove(model)
    topic, _ = WebhookTopic.objects.get_or_create(name="warehouse.Heard/create")
    for url in urls:
        row = Webhook.objects.create(url=url)
        row.topics.add(topic)
        WebhookSecret.objects.create(webhook=row, token=secrets.token_urlsafe(32))
    dispatch._query_webhooks_cached.cache_clear()  # It would remember those of before for a minute.
    return len(urls)


def remove(model: type[Model]) -> None:
    model._base_manager.all().delete()


def worker(*, data: Path) -> Process:
    """`celery worker` with threads; ready when this returns."""
    arguments = ["worker", "--pool", "threads", "--concurrency", str(THREADS), "--loglevel", "INFO"]
    quick_start = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    log = data / "celery.log"
    process = Process("-m", "celery", "-A", "bench.peers.package", *arguments, *quick_start, log=log, variant="package")
    before = len(process.text)
    try:
        process.wait_until(lambda: " ready." in process.text[before:], what="Celery")
    except BaseException:
        process.stop()
        raise
    return process

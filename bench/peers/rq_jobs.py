"""The usual way on RQ: one job per delivery, with one `httpx.Client` kept."""

from __future__ import annotations

import time

import httpx
from django.db.models.functions import Now

from webhooks import signing
from webhooks.models import Attempt, Delivery

client = httpx.Client(timeout=15)


def send(pk: int) -> None:
    delivery = Delivery.objects.select_related("event", "subscription").get(pk=pk)
    subscription, event = delivery.subscription, delivery.event
    body = bytes(event.body)
    headers = signing.headers(
        webhook_id=event.webhook_id,
        timestamp=int(time.time()),
        body=body,
        secrets=[secret.value for secret in subscription.secrets.live()],
    )
    began, started_at = time.monotonic(), Now()
    answer = client.post(subscription.url, headers={"content-type": "application/json", **headers}, content=body)
    Attempt.objects.create(
        delivery=delivery,
        number=1,
        lease=1,
        trigger=delivery.trigger,
        url=subscription.url,
        started_at=started_at,
        ended_at=Now(),
        duration_ms=round((time.monotonic() - began) * 1000),
        request_headers=_block(answer.request.headers),
        response_status=answer.status_code,
        response_headers=_block(answer.headers),
        response_body=answer.content,
    )
    delivery.status = Delivery.Status.DELIVERED
    delivery.ended_at = Now()
    delivery.save(update_fields=["status", "ended_at"])


def _block(headers: httpx.Headers) -> bytes:
    return b"".join(b"%b: %b\r\n" % header for header in headers.raw)

"""Deliver within a test: what a worker does, but in this thread, in the test's
transaction, and to receivers that the test makes up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx

from subscriptions.models import home
from webhooks import deliveries, feeds, inbox, recording, sending, transport
from webhooks.models import Attempt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from webhooks.claims import Claim

BATCH = 100


def deliver(to: Any, *, using: Sequence[str]) -> list[Attempt]:
    for alias in using:
        if alias != home():
            deliveries.carry(alias, BATCH)
    while deliveries.fan_out():
        pass
    made: list[int] = []
    while claims := deliveries.claim(BATCH):
        kept = inbox.answer([claim for claim in claims if inbox.takes(claim)])
        fed = feeds.answer([claim for claim in claims if feeds.takes(claim)])
        sent = asyncio.run(_send([claim for claim in claims if not (inbox.takes(claim) or feeds.takes(claim))], to))
        recording.record([*kept, *fed, *sent])
        made += [claim.attempt_id for claim in claims]
    attempts = Attempt.objects.using(home()).filter(pk__in=made).order_by("pk")
    return list(attempts.select_related("delivery__event", "delivery__subscription"))


async def _send(claims: Sequence[Claim], to: Any) -> list[tuple[Claim, sending.Outcome]]:
    receivers = Receivers(to)
    client = transport.Client(httpx.MockTransport(receivers))
    sent = [(claim, await sending.call(claim, client)) for claim in claims]
    if receivers.unmocked is not None:
        raise receivers.unmocked
    return sent


class Receivers:
    """Whatever the test answers with. That it expected no such request is a
    failure of the test, and not of the receiver."""

    def __init__(self, to: Any) -> None:
        # respx's routers have an `async_handler`, httpx's transports a `handle_async_request`.
        self.answer = getattr(to, "async_handler", None) or getattr(to, "handle_async_request", to)
        self.unmocked: AssertionError | None = None

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.answer is None:
            return httpx.Response(200)
        try:
            answer = self.answer(request)
            return answer if isinstance(answer, httpx.Response) else await answer
        except AssertionError as error:
            self.unmocked = self.unmocked or error
            raise

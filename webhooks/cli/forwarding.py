"""To the receiver on the developer's machine, signed as a worker signs it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from webhooks import __version__, signing

if TYPE_CHECKING:
    from collections.abc import Sequence

USER_AGENT = f"Signalpost/{__version__}"  # a worker's
TIMEOUT = httpx.Timeout(20.0, connect=5.0)  # seconds


class NobodyThereError(Exception):
    """No answer came. It may be asked again, when somebody is."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    milliseconds: int

    @property
    def good(self) -> bool:
        return httpx.codes.is_success(self.status)


class Receiver:
    def __init__(self, url: str) -> None:
        self.url = url
        # It is no business of a proxy's.
        self.client = httpx.Client(timeout=TIMEOUT, trust_env=False)

    def close(self) -> None:
        self.client.close()

    def forward(self, webhook_id: str, body: bytes, *, secrets: Sequence[str]) -> Answer:
        """Raises NobodyThereError."""
        signed = signing.headers(webhook_id=webhook_id, timestamp=int(time.time()), body=body, secrets=secrets)
        headers = {"content-type": "application/json", "user-agent": USER_AGENT, **signed}
        began = time.monotonic()
        try:
            response = self.client.post(self.url, content=body, headers=headers)
        except httpx.RequestError as error:
            raise NobodyThereError(str(error) or type(error).__name__) from error
        return Answer(response.status_code, round((time.monotonic() - began) * 1000))

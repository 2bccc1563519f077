"""The fastest plain client: a loop of aiohttp, 200 requests in flight, nothing recorded.

Told by its arguments where to send and how many; for each line on its input
it sends them once and says how many seconds that took.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
import sys
import time
import uuid
from contextlib import suppress

import aiohttp
import uvloop

IN_FLIGHT = 200
KEY = secrets.token_bytes(32)


def signed(body: bytes) -> dict[str, str]:
    webhook_id, timestamp = f"evt_{uuid.uuid4().hex}", str(int(time.time()))
    content = b"%b.%b.%b" % (webhook_id.encode(), timestamp.encode(), body)
    return {
        "content-type": "application/json",
        "webhook-id": webhook_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": "v1," + base64.b64encode(hmac.digest(KEY, content, hashlib.sha256)).decode(),
    }


async def send(session: aiohttp.ClientSession, target: str, *, number: int, body: bytes) -> float:
    turns = iter(range(number))

    async def one_after_the_other() -> None:
        for turn in turns:
            async with session.post(f"{target}{turn % IN_FLIGHT}", data=body, headers=signed(body)) as answer:
                await answer.read()
                answer.raise_for_status()

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(one_after_the_other())
    return time.perf_counter() - began


async def main(target: str, number: int, body: bytes) -> None:
    connector = aiohttp.TCPConnector(limit=IN_FLIGHT)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        loop = asyncio.get_running_loop()
        while await loop.run_in_executor(None, sys.stdin.readline):
            print(await send(session, target, number=number, body=body), flush=True)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        uvloop.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()))

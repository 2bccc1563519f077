"""Copy as curl: what it sends when a shell really runs it."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from standardwebhooks import Webhook

from subscriptions import secrets
from webhooks import curl

if TYPE_CHECKING:
    from tests.receiver import Received, Receiver

SHELLS = [shell for shell in ("bash", "dash", "sh") if shutil.which(shell)]
BODIES = {
    "plain": b'{"type":"shop.order.updated","data":{}}',
    "quotes": b"""{"a":"it's \\"quoted\\" `here` $HOME $(id) !! %s %d \\\\ \\n"}""",
    "lines": b'{\n\t"a": 1,\r\n  "b": 2\n}\n\n',
    "unicode": '{"a":"ä€😀 \u202e\u2028"}'.encode(),
    "marks": b'{"a":\n"EOF\'"\n}',
    "options": b'-n {"a":"-e \\c"}',
    "long": json.dumps({"a": "it's " * 40_000}).encode(),
}


def run(shell: str, command: str) -> str:
    done = subprocess.run([shell], input=command.encode(), capture_output=True, timeout=30, check=True)
    return done.stdout.decode()


def signed(receiver: Receiver, body: bytes, secret: str, *, path: str = "") -> str:
    return curl.command(
        url=receiver.url + path, webhook_id="evt_1", timestamp=int(time.time()), body=body, secrets=[secret]
    )


def verified(received: Received, secret: str) -> bytes:
    Webhook(secret).verify(received.body, dict(received.headers))
    return received.body


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("kind", [kind for kind, body in BODIES.items() if kind != "options"])
def test_a_shell_sends_the_same_bytes_with_a_signature_that_the_official_library_takes(
    receiver: Receiver, shell: str, kind: str
) -> None:
    secret = secrets.generate()
    assert "200 OK" in run(shell, signed(receiver, BODIES[kind], secret))
    (received,) = receiver.wait_for(1)
    assert verified(received, secret) == BODIES[kind]
    assert received.headers["content-type"] == "application/json"


@pytest.mark.parametrize("shell", SHELLS)
def test_what_looks_like_an_option_is_a_body_all_the_same(receiver: Receiver, shell: str) -> None:
    run(shell, signed(receiver, BODIES["options"], secrets.generate()))
    assert receiver.wait_for(1)[0].body == BODIES["options"]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_url_is_one_word_and_no_pattern(receiver: Receiver, shell: str) -> None:
    path = "in?a[]={1,2}&b='$(id)'&c=#"[:-1]
    run(shell, signed(receiver, BODIES["plain"], secrets.generate(), path=path))
    assert receiver.wait_for(1)[0].path == f"/{path}"


def test_every_live_secret_signs(receiver: Receiver) -> None:
    old, new = secrets.generate(), secrets.generate()
    command = curl.command(
        url=receiver.url, webhook_id="evt_1", timestamp=int(time.time()), body=b"{}", secrets=[new, old]
    )
    run(SHELLS[0], command)
    (received,) = receiver.wait_for(1)
    assert verified(received, old) == verified(received, new) == b"{}"
    assert new not in command
    assert old not in command


@pytest.mark.parametrize("body", [b"", b'{"a":"\0"}', b"\xff\xfe"])
def test_what_a_shell_would_send_otherwise_has_no_command(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        curl.command(url="https://a.example/", webhook_id="evt_1", timestamp=1, body=body, secrets=[secrets.generate()])


def test_without_a_secret_there_is_no_command() -> None:
    with pytest.raises(ValueError, match="no secret"):
        curl.command(url="https://a.example/", webhook_id="evt_1", timestamp=1, body=b"{}", secrets=[])

"""What is sent, verified by the official library for Node.js, where there is
one: `node` and `npm`, and a registry or npm's cache to install from."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from subscriptions import secrets
from webhooks.testing.sent import capture

if TYPE_CHECKING:
    from collections.abc import Callable

    from subscriptions.models import Tenant
    from tests.programs import Api

    Verify = Callable[..., list[dict[str, Any]]]

HERE = Path(__file__).resolve().parents[2] / "node"
TEXT = "Grüße, 你好 \u2028 🙂 </script>"


@pytest.fixture(scope="module")
def verify(tmp_path_factory: pytest.TempPathFactory) -> Verify:
    """`verify((secret, request), …)`: what the library says of each."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("there is no Node.js here")
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "package-lock.json", "verify.js"):
        shutil.copy(HERE / name, folder)
    install = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
    done = subprocess.run(install, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode and any(sign in done.stderr for sign in ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT")):
        pytest.skip("nothing can be installed here")
    assert done.returncode == 0, done.stderr

    def run(*requests: tuple[str, httpx.Request]) -> list[dict[str, Any]]:
        lines = [
            {"secret": secret, "headers": dict(request.headers), "body": base64.b64encode(request.content).decode()}
            for secret, request in requests
        ]
        asked = "".join(f"{json.dumps(line)}\n" for line in lines)
        told = subprocess.run([node, "verify.js"], cwd=folder, input=asked, capture_output=True, text=True, check=False)
        assert told.returncode == 0, told.stderr
        return [json.loads(line) for line in told.stdout.split("\n") if line]

    return run


@pytest.mark.django_db
def test_the_official_library_for_node_verifies_what_is_published(
    verify: Verify, tenant: Tenant, api: Api, paid: str
) -> None:
    draft = {"type": paid, "data": {"number": 7, "total": "42.00", "note": TEXT}}
    requests: list[httpx.Request] = []

    def receive(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(204)

    with capture() as sent:
        subscription = sent.subscribe(tenant, "billing.*")
        old = subscription.secrets.get().value
        assert api.post("events/", draft).status_code == 202
        sent.deliver(receive)
        new = subscription.rotate_secret()
        assert api.post("events/", draft).status_code == 202
        sent.deliver(receive)
        bodies = [json.loads(event.body) for event in sent.of("billing.*")]
    first, second = requests
    assert len(second.headers["webhook-signature"].split()) == 2
    forged = httpx.Request("POST", first.url, headers=first.headers, content=first.content.replace(b"42.00", b"92.00"))
    told = verify((old, first), (old, second), (new, second), (new, first), (secrets.generate(), first), (old, forged))
    assert told[:3] == [{"content": bodies[0]}, {"content": bodies[1]}, {"content": bodies[1]}]
    assert bodies[0]["data"]["note"] == TEXT
    assert [list(each) for each in told[3:]] == [["refused"]] * 3

"""Everything that the OpenAPI document allows, and a little more: no 5xx, and
no answer that it does not describe."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.transport import Response
from schemathesis.specs.openapi import checks

from tests import test_api_isolation as isolation

if TYPE_CHECKING:
    from tests.programs import Api

    World = isolation.World

pytestmark = pytest.mark.on("postgresql")

ROOT = "http://testserver/api/v1"
FILE = Path(__file__).resolve().parents[3] / "docs" / "openapi.json"
WRITTEN = json.loads(FILE.read_text())
NAMES = [operation["operationId"] for path in WRITTEN["paths"].values() for operation in path.values()]
OPERATORS = {
    "create_tenant", "change_tenant", "disable_tenant", "enable_tenant", "change_member", "remove_member",
    "invite", "withdraw_invitation", "invite_again",
}  # fmt: skip
CHECKS = (
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
)
EXAMPLES = 12  # of each operation and kind

world = isolation.world
quiet = isolation.quiet


@pytest.fixture
def document(world: World) -> dict[str, Any]:
    """With the numbers of rows that are there, which nothing would hit by chance."""
    document: dict[str, Any] = json.loads(FILE.read_text())
    document.pop("webhooks")
    document["servers"] = [{"url": ROOT}]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation.pop("security", None)  # that is another test's
            for parameter in operation.get("parameters", ()):
                _point(parameter, path, world)
                if parameter["name"] == "tenant" and operation["operationId"] in OPERATORS:
                    parameter["required"] = True
    return document


def _point(parameter: dict[str, Any], path: str, world: World) -> None:
    if parameter["in"] == "path":
        there = {**world.numbers, "tenants": "acme", "topics": isolation.TOPIC}[path.split("/")[1]]
        parameter["schema"] = {"anyOf": [{"const": there}, {"const": there}, parameter["schema"]]}
    elif parameter["name"] == "tenant":
        parameter["schema"] = {"const": "acme"}


@pytest.mark.django_db
@pytest.mark.parametrize("name", NAMES)
def test_whatever_is_asked_is_answered_as_described(name: str, world: World, document: dict[str, Any]) -> None:
    api = world.operator if name in OPERATORS else world.api
    operation = schemathesis.openapi.from_dict(document).find_operation_by_id(name)
    _try(operation, GenerationMode.POSITIVE, api)
    # Where anything is right, there is nothing wrong to ask.
    with suppress(Unsatisfiable):
        _try(operation, GenerationMode.NEGATIVE, api)


def _try(operation: Any, mode: GenerationMode, api: Api) -> None:
    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Any) -> None:
        case.validate_response(_answer(case, api), checks=CHECKS)

    ask()


def _answer(case: Any, api: Api) -> Response:
    """Asked by Django's client, in the test's own transaction."""
    sent: Any = requests.Request(**case.as_transport_kwargs(base_url=ROOT)).prepare()
    sent.headers["Authorization"] = f"Bearer {api.value}"
    headers = {name: _text(value) for name, value in sent.headers.items()}
    kind = headers.pop("Content-Type", "application/octet-stream" if sent.body else "")
    url = urlsplit(sent.url)
    answer: Any = api.generic(sent.method, f"{url.path}?{url.query}", sent.body or b"", kind, headers=headers)
    given = {name: [value] for name, value in answer.headers.items()}
    return Response(answer.status_code, given, answer.content, sent, 0.01, verify=False)


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value

"""What is wrong with a body is told in less time than it took to send it,
however much is wrong."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from subscriptions.api.problems import LONGEST, MOST_FAULTS

if TYPE_CHECKING:
    from tests.programs import Api

# Each took from 5 to 120 seconds once; now a tenth of one.
ENOUGH = 2.0  # seconds of this process
MANY = 30_000
URL = "https://receiver.example/"


def numbered(number: int) -> dict[str, Any]:
    return {f"field{each}": 1 for each in range(number)}


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("events/", json.dumps(numbered(MANY))[:-1] + f', "field{MANY - 1}": 1}}', "duplicate_key"),
        ("events/", json.dumps(numbered(MANY)), "invalid"),
        ("events/batch/", json.dumps({"events": [{"type": "a", "data": {}, **numbered(900)}] * 300}), "unknown_field"),
        ("subscriptions/", json.dumps(numbered(50_000)), "invalid"),
        ("subscriptions/", json.dumps({"url": URL, "topics": [1] * 300_000}), "invalid"),
        ("subscriptions/", json.dumps({"url": URL, "topics": [{"name": "*", "changed": [1] * 300_000}]}), "invalid"),
        ("subscriptions/", json.dumps({"url": URL, "topics": [{"name": "*", "changed": [1] * 900}] * 300}), "invalid"),
        ("keys/", json.dumps({"name": "Mine", "scopes": [1] * 300_000}), "invalid"),
        ("keys/", json.dumps({"name": "Mine", "scopes": ["read"], "networks": [1] * 300_000}), "invalid"),
    ],
)
def test_a_body_with_many_mistakes_is_soon_refused(api: Api, path: str, body: str, code: str) -> None:
    began = time.process_time()
    answer = api.post(path, body.encode())
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert time.process_time() - began < ENOUGH
    assert len(answer.json()["errors"]) <= MOST_FAULTS


def test_a_long_name_is_not_told_in_full(api: Api) -> None:
    for path, body in (("subscriptions/", {"x" * 900_000: 1}), ("events/", {"x" * 900_000: 1})):
        answer = api.post(path, body)
        assert answer.status_code == 400
        assert max(len(each["field"]) for each in answer.json()["errors"]) == LONGEST


def test_a_name_stands_in_a_pointer_as_the_rfc_has_it(api: Api) -> None:
    answer = api.post("events/", {"a/b~c": 1, "type": "billing.invoice.paid", "data": {}})
    assert [each["field"] for each in answer.json()["errors"]] == ["/a~1b~0c"]

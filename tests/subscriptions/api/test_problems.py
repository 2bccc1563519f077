"""Every code: its status, its shape, and that docs/api.md names it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.core.exceptions import ValidationError
from django.db import OperationalError, connection, transaction
from rest_framework.exceptions import ErrorDetail
from rest_framework.exceptions import ValidationError as Invalid

from subscriptions.api import keys, problems
from subscriptions.api.problems import CODES

if TYPE_CHECKING:
    from tests.programs import Api

DOCS = (Path(__file__).resolve().parents[3] / "docs" / "api.md").read_text()


def fail(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def raising(*args: Any, **kwargs: Any) -> Any:
        raise error

    monkeypatch.setattr(keys, "page", raising)


def test_every_code_stands_in_the_documentation_with_its_status() -> None:
    table = dict(re.findall(r"^\| `(\w+)` \| (\d{3}) \|", DOCS, re.MULTILINE))
    assert table == {code: str(kind.status) for code, kind in CODES.items()}


def test_a_problem_says_what_it_is_and_where_to_read_on(api: Api) -> None:
    answer = api.post(
        "subscriptions/", {"url": "https://receiver.example/", "topics": [{"name": "*"}], "rate_limit": 0}
    )
    assert answer.status_code == 400
    assert answer.json() == {
        "type": "http://testserver/api/v1/docs/#invalid",
        "title": "A value is wrong",
        "status": 400,
        "code": "invalid",
        "detail": "Ensure this value is greater than or equal to 1.",
        "errors": [
            {
                "field": "/rate_limit",
                "detail": "Ensure this value is greater than or equal to 1.",
                "code": "min_value",
            }
        ],
    }


def test_a_field_far_inside_has_its_pointer(api: Api) -> None:
    body = {"url": "https://receiver.example/", "topics": [{"name": "*"}, {"name": 7, "x/y~z": 1}]}
    answer = api.post("subscriptions/", body)
    assert {(each["field"], each["code"]) for each in answer.json()["errors"]} == {
        ("/topics/1/name", "invalid"),
        ("/topics/1/x~1y~0z", "unknown_field"),
    }


def test_what_a_rule_finds_wrong_has_its_field(api: Api) -> None:
    answer = api.post("subscriptions/", {"url": "https://10.0.0.1/", "topics": [{"name": "Bad Topic"}]})
    assert answer.json()["code"] == "invalid"
    assert {each["field"] for each in answer.json()["errors"]} == {"/url", "/topics"}


def test_a_database_that_is_away_is_503(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch, OperationalError("the server closed the connection"))
    answer = api.get("keys/")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert answer["Retry-After"] == "5"
    assert "closed" not in answer.content.decode()


def test_a_database_that_is_away_from_the_first_query_on_is_503(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*args: Any) -> Any:
        raise OperationalError

    monkeypatch.setattr("subscriptions.keys.authenticate", away)
    assert api.get("keys/").status_code == 503


@pytest.mark.parametrize("path", ["keys/", "openapi.json"])
def test_more_parameters_than_django_reads_are_unknown_ones(api: Api, path: str) -> None:
    answer = api.get(f"{path}?{'&' * 1_100}")
    assert (answer.status_code, answer.json()["code"]) == (400, "unknown_parameter")


def test_a_host_that_is_none_of_ours_is_no_error_of_ours(api: Api, settings: Any) -> None:
    settings.MIDDLEWARE = [each for each in settings.MIDDLEWARE if "Common" not in each]
    for path in ("keys/", "keys/?limit=0", "subscriptions/5/"):
        answer = api.get(path, headers={"Host": "elsewhere.example"})
        assert answer.status_code in {200, 400, 404}
        assert "elsewhere" not in answer.content.decode()


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has no standby")
def test_a_database_that_takes_no_writes_is_503(api: Api) -> None:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION READ ONLY")
        answer = api.post("keys/", {"name": "Mine", "scopes": ["read"]})
        transaction.set_rollback(True)
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")


def test_a_number_beyond_all_bounds_in_a_schema_is_shown(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = {"type": "object", "properties": {"data": {"type": "object", "maxProperties": 10**30}}}
    monkeypatch.setattr("subscriptions.offers.Offer.schema", lambda offer: schema)
    assert api.get("topics/shop.order.updated/").json()["schema"] == schema
    assert api.get("openapi.json").status_code == 200


def test_what_breaks_is_500_and_django_hears_of_it(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch, RuntimeError("a secret of ours"))
    with pytest.raises(RuntimeError, match="a secret of ours"):
        api.get("keys/")
    api.raise_request_exception = False
    answer = api.get("keys/")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "secret" not in answer.content.decode()


def test_errors_are_told_up_to_a_hundred(api: Api) -> None:
    answer = api.post("subscriptions/", {f"field{number}": 1 for number in range(500)})
    assert len(answer.json()["errors"]) == problems.MOST_FAULTS


def test_an_error_of_a_whole_has_no_pointer() -> None:
    wrong = Invalid({"non_field_errors": [ErrorDetail("Wrong.", "invalid")], "a": {"0": [ErrorDetail("No.", "bad")]}})
    told = problems._of_framework(wrong)
    assert told is not None
    assert [(fault.field, fault.code) for fault in told.errors] == [("", "invalid"), ("/a/0", "bad")]
    plain = problems._of(ValidationError("Wrong."))
    assert plain is not None
    assert [(fault.field, fault.detail) for fault in plain.errors] == [("", "Wrong.")]


def test_a_pointer_escapes_what_it_is_made_of() -> None:
    assert problems.pointer("a/b", 0, "c~d") == "/a~1b/0/c~0d"


def test_what_a_client_never_sent_to_its_end_is_malformed(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.http import UnreadablePostError

    def broken(*args: Any) -> Any:
        raise UnreadablePostError("connection reset")

    monkeypatch.setattr("subscriptions.api.reading._body", broken)
    answer = api.post("subscriptions/", {})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_json")


def test_with_debug_django_shows_the_error_itself(api: Api, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.DEBUG = True
    api.raise_request_exception = False
    fail(monkeypatch, RuntimeError("seen by who writes the code"))
    answer = api.get("keys/")
    assert answer.status_code == 500
    assert answer["Content-Type"].startswith("text/")
    assert "seen by who writes the code" in answer.content.decode()

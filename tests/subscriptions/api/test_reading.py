"""What is no body for the API: each has its problem, and nothing comes of it."""

from __future__ import annotations

import json
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subscriptions.api import reading
from subscriptions.api.problems import Problem
from subscriptions.models import Subscription

if TYPE_CHECKING:
    from tests.programs import Api

URL = '"url": "https://receiver.example/", "topics": [{"name": "*"}]'


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "malformed_json"),
        (b"", "invalid"),
        (b"null", "invalid"),
        (b"[]", "invalid"),
        (b'"text"', "invalid"),
        (b"{} {}", "malformed_json"),
        (b"{'a': 1}", "malformed_json"),
        (b'{"rate_limit": NaN}', "malformed_json"),
        (b'{"rate_limit": Infinity}', "malformed_json"),
        (b'{"rate_limit": -Infinity}', "malformed_json"),
        (b'{"rate_limit": 1e999}', "malformed_json"),
        (b'{"rate_limit": 01}', "malformed_json"),
        (b'{"rate_limit": 18446744073709551616}', "bad_number"),
        (b'{"rate_limit": -9223372036854775809}', "bad_number"),
        (b'{"rate_limit": ' + b"9" * 300 + b"}", "bad_number"),
        (b'{"rate_limit": ' + b"9" * 5_000 + b"}", "malformed_json"),
        (b'{"name": "a", "name": "b"}', "duplicate_key"),
        (b'{"topics": [{"name": "*", "name": "*"}]}', "duplicate_key"),
        (b'{"name": "a", "n\\u0061me": "b"}', "duplicate_key"),
        (b'{"name": ' + b"[" * 65 + b"]" * 65 + b"}", "too_deep"),
        (b"[" * 1_000 + b"]" * 1_000, "too_deep"),
        (b'{"a":' * 1_000 + b"1" + b"}" * 1_000, "too_deep"),
        (b"[" * 100_000 + b"]" * 100_000, "too_deep"),
        (b'{"name": "\\ud800"}', "malformed_json"),
        (b'{"name": "\\udc00\\ud800"}', "malformed_json"),
        (b'{"name": "\xed\xa0\x80"}', "malformed_json"),
        (b'{"name": "\xff"}', "malformed_json"),
        (b'\xef\xbb\xbf{"name": "BOM"}', "malformed_json"),
        ("{}".encode("utf-16"), "malformed_json"),
        (b'{"name": "a\\u0000b"}', "bad_text"),
        (b'{"a\\u0000b": 1}', "bad_text"),
        (b'{"name": "a\x00b"}', "malformed_json"),
        (b'{%s, "colour": "red"}' % URL.encode(), "unknown_field"),
        (b'{%s, "\xf0\x9f\x8e\x88": 1}' % URL.encode(), "unknown_field"),
        (b'{"name": 1, %s}' % URL.encode(), "invalid"),
        (b'{"name": true, %s}' % URL.encode(), "invalid"),
        (b'{"name": ["a"], %s}' % URL.encode(), "invalid"),
        (b'{"name": {}, %s}' % URL.encode(), "invalid"),
        (b'{"rate_limit": "5", %s}' % URL.encode(), "invalid"),
        (b'{"rate_limit": 5.5, %s}' % URL.encode(), "invalid"),
        (b'{"rate_limit": 1e300, %s}' % URL.encode(), "invalid"),
        (b'{"rate_limit": true, %s}' % URL.encode(), "invalid"),
        (b'{"rate_limit": -1, %s}' % URL.encode(), "invalid"),
        (b'{"rate_limit": 9223372036854775807, %s}' % URL.encode(), "invalid"),
        (b'{"url": "https://receiver.example/", "topics": {"name": "*"}}', "invalid"),
        (b'{"url": "https://receiver.example/", "topics": ["*"]}', "invalid"),
        (b'{"url": "https://receiver.example/", "topics": []}', "invalid"),
        (b'{"url": "https://receiver.example/", "topics": [{"name": "*", "changed": "id"}]}', "invalid"),
        (b'{"url": "https://receiver.example/", "topics": [{"name": "*", "colour": 1}]}', "unknown_field"),
    ],
)
def test_a_wrong_body_gets_its_problem_and_leaves_nothing(api: Api, body: bytes, code: str) -> None:
    answer = api.post("subscriptions/", body)
    assert (answer.json()["code"], answer.status_code) == (code, 400)
    assert answer["Content-Type"] == "application/problem+json"
    assert not Subscription.objects.exists()


@pytest.mark.parametrize(
    "media_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
        "application/json; charset=latin-1",
        "application/json; charset=utf-16",
        "*/*",
        "",
    ],
)
def test_another_media_type_gets_415(api: Api, media_type: str) -> None:
    answer = api.post("subscriptions/", b"{%s}" % URL.encode(), content_type=media_type)
    assert (answer.json()["code"], answer.status_code) == ("unsupported_media_type", 415)
    assert not Subscription.objects.exists()


@pytest.mark.parametrize(
    "media_type", ["application/json; charset=UTF-8", 'application/json;charset="utf-8"', "APPLICATION/JSON"]
)
def test_json_is_json_however_it_is_written(api: Api, media_type: str) -> None:
    assert api.post("subscriptions/", b"{%s}" % URL.encode(), content_type=media_type).status_code == 201


def test_a_whole_number_is_one_however_it_is_written(api: Api) -> None:
    assert api.post("subscriptions/", b'{"rate_limit": 5.0, %s}' % URL.encode()).json()["rate_limit"] == 5


def test_a_compressed_body_gets_415(api: Api) -> None:
    answer = api.post("subscriptions/", b"{%s}" % URL.encode(), headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 415


@pytest.mark.parametrize("size", [reading.LIMIT + 1, 10 * 1024 * 1024])
def test_a_large_body_gets_413_and_is_not_read_to_its_end(api: Api, size: int) -> None:
    body = b'{"name": "' + b"x" * (size - 12) + b'"}'
    assert len(body) == size
    answer = api.post("subscriptions/", body)
    assert (answer.json()["code"], answer.status_code) == ("too_large", 413)


def test_a_body_of_just_the_limit_is_read(api: Api) -> None:
    body = b'{"name": "' + b"x" * (reading.LIMIT - 12) + b'"}'
    assert api.post("subscriptions/", body).json()["code"] == "invalid"


def test_a_body_in_pieces_of_no_known_length_gets_411(api: Api) -> None:
    answer = api.generic(
        "POST",
        "/api/v1/subscriptions/",
        b"",
        headers={"Transfer-Encoding": "chunked", "Content-Type": "application/json"},
    )
    assert (answer.json()["code"], answer.status_code) == ("length_required", 411)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda each: (
        st.lists(each, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), each, max_size=4)
    ),
    max_leaves=10,
)


@given(value=VALUES)
def test_what_json_can_say_is_read_as_it_is(value: Any) -> None:
    assert reading.parse(json.dumps(value).encode()) == value


@given(body=st.binary(max_size=200) | st.text('{}[]",:0123456789eE+-.\\utrfalsn\x00', max_size=60).map(str.encode))
def test_whatever_comes_is_read_or_is_a_problem(body: bytes) -> None:
    told = "read"
    try:
        reading.parse(body)
    except Problem as problem:
        told = problem.code
    assert told in {"read", "malformed_json", "duplicate_key", "too_deep", "bad_number", "bad_text"}


def test_more_values_than_memory_should_hold_are_not_read() -> None:
    assert len(reading.parse(b"[" + b"0," * 1_000_000 + b"0]")) == 1_000_001
    with pytest.raises(Problem) as problem:
        reading.parse(b"[" + b"0," * 1_000_001 + b"0]")
    assert problem.value.code == "too_large"


def test_64_levels_are_read_and_65_are_not() -> None:
    assert reading.parse(b"[" * 64 + b"]" * 64)
    with pytest.raises(Problem, match="too_deep"):
        reading.parse(b"[" * 65 + b"]" * 65)


def test_a_body_that_was_cut_short_is_none_even_where_it_is_json(api: Api) -> None:
    body = b'{"name": "Mine", "scopes": ["read"]}'
    for more, status in ((5, 400), (0, 201)):
        # As a server gives what a client left off.
        sent: dict[str, Any] = {"CONTENT_LENGTH": str(len(body) + more), "wsgi.input": BytesIO(body)}
        answer = api.generic("POST", "/api/v1/keys/", body, "application/json", **sent)
        assert answer.status_code == status, answer.content

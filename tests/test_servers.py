"""What the tests themselves lean on must not harm who runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from redis import Redis

from tests.servers import Valkey, empty_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def valkey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Valkey]:
    # The locks of this test are not those of the run that it is part of.
    monkeypatch.setattr("tests.servers.tempfile.gettempdir", lambda: str(tmp_path))
    with Valkey(tmp_path) as valkey:
        yield valkey


def number(url: str | None) -> int:
    assert url is not None
    with Redis.from_url(url) as client:
        return int(client.connection_pool.connection_kwargs["db"])


def test_tests_use_an_empty_database_that_no_other_run_uses(valkey: Valkey) -> None:
    for taken in (15, 13):
        with Redis.from_url(valkey.url, db=taken) as client:
            client.set("somebody's", 1)
    with empty_database(valkey.url) as first, empty_database(valkey.url) as second:
        assert (number(first), number(second)) == (14, 12)


def test_they_leave_it_empty_and_others_as_they_were(valkey: Valkey) -> None:
    with Redis.from_url(valkey.url) as default, empty_database(valkey.url) as url:
        default.set("somebody's", 1)
        with Redis.from_url(str(url)) as client:
            client.set("a test's", 1)
    with Redis.from_url(valkey.url) as default:
        assert default.info("keyspace").keys() == {"db0"}
        assert default.get("somebody's") == b"1"


def test_where_none_is_empty_there_is_none_to_use(valkey: Valkey) -> None:
    for taken in range(1, 16):
        with Redis.from_url(valkey.url, db=taken) as client:
            client.set("somebody's", 1)
    with empty_database(f"{valkey.url}?db=3") as url:
        assert url is None


def test_a_number_in_the_url_is_not_the_one_that_is_used(valkey: Valkey) -> None:
    with empty_database(f"{valkey.url}?db=3") as url:
        assert number(url) == 15

"""Times, as every page writes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from django.utils import timezone as django_timezone
from django.utils import translation

from subscriptions.templatetags.signalpost import moment

WHEN = datetime(2026, 11, 21, 22, 5, 9, tzinfo=UTC)


def test_a_time_is_in_the_readers_zone_and_utc_to_whoever_points_at_it() -> None:
    with django_timezone.override(ZoneInfo("Asia/Kathmandu")):
        assert moment(WHEN) == (
            '<time datetime="2026-11-21T22:05:09+00:00" title="21 Nov 2026, 22:05:09 UTC">22 Nov 2026, 03:50</time>'
        )


def test_it_is_to_the_second_where_that_matters() -> None:
    assert ">21 Nov 2026, 22:05:09</time>" in moment(WHEN, seconds=True)


def test_whatever_zone_it_is_stored_in_it_is_the_same_moment() -> None:
    assert moment(WHEN.astimezone(timezone(timedelta(hours=-9)))) == moment(WHEN)


@pytest.mark.parametrize(("language", "shown"), [("de", "21. November 2026 22:05"), ("en", "21 Nov 2026, 22:05")])
def test_it_is_written_as_the_readers_language_writes_it(language: str, shown: str) -> None:
    with translation.override(language):
        assert f">{shown}</time>" in moment(WHEN)


def test_how_long_ago_it_was_keeps_the_moment_to_whoever_points_at_it() -> None:
    then = django_timezone.now() - timedelta(minutes=3, seconds=1)
    shown = moment(then, ago=True)
    assert ">3\xa0minutes ago</time>" in shown
    assert f'datetime="{then.isoformat()}"' in shown


def test_no_moment_is_a_dash() -> None:
    assert moment(None) == "-"

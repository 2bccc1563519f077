from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subscriptions.conf import DEFAULTS
from webhooks import retry
from webhooks.models import Attempt
from webhooks.retry import GiveUp, Policy, RetryAfter

POLICY = Policy(schedule=(5, 300, 1_800), jitter=0.2, retry_after_max=86_400)
NOW = datetime(1994, 11, 6, 8, 40, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Result:
    status: int | None = None
    reason: str = ""
    retry_after: float | None = None


def status(code: int, **fields: Any) -> Result:
    return Result(status=code, reason=Attempt.Reason.STATUS, **fields)


def decide(outcome: Result, step: int = 0, *, policy: Policy = POLICY, random: float = 0.5) -> Any:
    return retry.decide(outcome, step, policy=policy, random=lambda: random)


class TestDecide:
    @pytest.mark.parametrize("code", [200, 201, 202, 204, 206, 226, 299])
    def test_any_2xx_is_delivered(self, code: int) -> None:
        assert decide(Result(status=code)) is None

    @pytest.mark.parametrize("code", [100, 101, 199, 300, 301, 302, 307, 308, 400, 401, 404, 422, 500, 502, 599, 999])
    def test_any_other_status_is_tried_again(self, code: int) -> None:
        assert decide(status(code)) == RetryAfter(5)

    def test_a_status_counts_also_where_no_reason_was_given(self) -> None:
        assert decide(Result(status=500)) == RetryAfter(5)

    @pytest.mark.parametrize("reason", Attempt.Reason)
    def test_every_kind_of_failure_is_tried_again(self, reason: Attempt.Reason) -> None:
        assert decide(Result(reason=reason)) == RetryAfter(5)

    def test_a_failure_while_reading_a_2xx_is_no_delivery(self) -> None:
        assert decide(Result(status=200, reason=Attempt.Reason.TIMEOUT)) == RetryAfter(5)

    @pytest.mark.parametrize("step", [0, 3, 50])
    def test_410_is_given_up_and_turns_the_subscription_off(self, step: int) -> None:
        assert decide(status(410, retry_after=5), step) == GiveUp(turn_off=True, why="The receiver answered 410 Gone.")

    @pytest.mark.parametrize(("step", "seconds"), [(0, 5), (1, 300), (2, 1_800)])
    def test_each_step_waits_as_the_schedule_says(self, step: int, seconds: float) -> None:
        assert decide(status(500), step) == RetryAfter(seconds)

    @pytest.mark.parametrize("step", [3, 4, 1_000])
    @pytest.mark.parametrize("code", [500, 429])
    def test_after_the_last_step_it_is_given_up(self, step: int, code: int) -> None:
        given_up = GiveUp(turn_off=False, why="The schedule has no more attempts.")
        assert decide(status(code, retry_after=10), step) == given_up

    def test_an_empty_schedule_means_one_attempt(self) -> None:
        assert isinstance(decide(status(500), policy=Policy((), 0.2, 86_400)), GiveUp)

    def test_the_default_schedule_makes_ten_attempts_over_three_days(self) -> None:
        policy = Policy(DEFAULTS["RETRY_SCHEDULE"], DEFAULTS["RETRY_JITTER"], DEFAULTS["RETRY_AFTER_MAX"])
        waits = [decide(status(500), step, policy=policy).seconds for step in range(9)]
        assert waits == [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400]
        assert isinstance(decide(status(500), 9, policy=policy), GiveUp)


class TestJitter:
    @pytest.mark.parametrize(("random", "seconds"), [(0, 240), (0.25, 270), (0.5, 300), (0.75, 330), (1, 360)])
    def test_a_wait_varies_by_a_fifth_either_way(self, random: float, seconds: float) -> None:
        assert decide(status(500), 1, random=random).seconds == pytest.approx(seconds)

    def test_the_share_is_the_policy_s(self) -> None:
        assert decide(status(500), 1, policy=Policy((5, 300), 0, 0), random=0).seconds == 300
        assert decide(status(500), 1, policy=Policy((5, 300), 0.5, 0), random=0).seconds == 150

    @given(st.floats(0, 1, exclude_max=True), st.integers(0, 2))
    def test_it_never_leaves_its_bounds(self, random: float, step: int) -> None:
        wait = decide(status(500), step, random=random).seconds
        assert 0.8 * POLICY.schedule[step] - 1e-9 <= wait <= 1.2 * POLICY.schedule[step] + 1e-9


class TestBusy:
    @pytest.mark.parametrize("code", [429, 503])
    @pytest.mark.parametrize("random", [0, 0.5, 1])
    def test_429_and_503_wait_a_minute_at_least(self, code: int, random: float) -> None:
        assert decide(status(code), random=random) == RetryAfter(60)

    @pytest.mark.parametrize("code", [429, 503])
    def test_and_as_long_as_the_schedule_where_that_is_longer(self, code: int) -> None:
        assert decide(status(code), 1) == RetryAfter(300)

    @pytest.mark.parametrize(("asked", "seconds"), [(0, 60), (30, 60), (60, 60), (90, 90)])
    def test_a_shorter_retry_after_does_not_shorten_the_minute(self, asked: float, seconds: float) -> None:
        assert decide(status(429, retry_after=asked)) == RetryAfter(seconds)

    @pytest.mark.parametrize("code", [500, 502, 504, 408, 425])
    def test_others_do_not(self, code: int) -> None:
        assert decide(status(code)) == RetryAfter(5)


class TestRetryAfterBounds:
    @pytest.mark.parametrize("code", [302, 413, 429, 500, 503])
    def test_it_replaces_a_shorter_wait_exactly(self, code: int) -> None:
        assert decide(status(code, retry_after=600), random=0) == RetryAfter(600)
        assert decide(status(code, retry_after=600), random=1) == RetryAfter(600)

    @pytest.mark.parametrize("asked", [0, 1, 299])
    def test_it_never_brings_an_attempt_forward(self, asked: float) -> None:
        assert decide(status(500, retry_after=asked), 1) == RetryAfter(300)

    @pytest.mark.parametrize("asked", [86_400, 86_401, 1e300, float("inf")])
    def test_it_is_held_to_the_longest_that_is_honoured(self, asked: float) -> None:
        assert decide(status(503, retry_after=asked)) == RetryAfter(86_400)

    def test_a_bound_of_zero_ignores_it(self) -> None:
        assert decide(status(500, retry_after=600), policy=Policy((5,), 0, 0)) == RetryAfter(5)
        assert decide(status(503, retry_after=600), policy=Policy((5,), 0, 0)) == RetryAfter(60)


class TestParseRetryAfter:
    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            ("0", 0),
            ("120", 120),
            ("  120 ", 120),
            ("00120", 120),
            ("9" * 5_000, float("inf")),
        ],
    )
    def test_seconds(self, value: str, seconds: float) -> None:
        assert retry.parse_retry_after(value, now=NOW) == seconds

    @pytest.mark.parametrize(
        "value",
        [
            "Sun, 06 Nov 1994 08:49:37 GMT",  # IMF-fixdate
            "Sunday, 06-Nov-94 08:49:37 GMT",  # RFC 850
            "Sun Nov  6 08:49:37 1994",  # asctime()
        ],
    )
    def test_each_of_the_three_date_formats(self, value: str) -> None:
        assert retry.parse_retry_after(value, now=NOW) == 9 * 60 + 37

    def test_a_date_that_has_passed_is_now(self) -> None:
        assert retry.parse_retry_after("Sun, 06 Nov 1994 08:39:59 GMT", now=NOW) == 0

    def test_the_time_zone_of_now_does_not_matter(self) -> None:
        later = NOW.astimezone(datetime.strptime("+0530", "%z").tzinfo)
        assert retry.parse_retry_after("Sun, 06 Nov 1994 08:41:00 GMT", now=later) == 60

    @pytest.mark.parametrize(
        "value",
        [
            "",
            " ",
            "soon",
            "-1",
            "+5",
            "1.5",
            "1e3",
            "5 minutes",
            "0x10",
            "\uff11\uff12\uff10",  # digits, but not ASCII
            "12, 13",
            "Sun, 32 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 99999 08:49:37 GMT",
            "Sun, 06 Nov 1994 25:00:00 GMT",
            "Sun, 06 Nov 1994 08:49:37 +9999999999",
        ],
    )
    def test_anything_else_is_none(self, value: str) -> None:
        assert retry.parse_retry_after(value, now=NOW) is None

    @given(st.text())
    def test_no_text_whatever_raises(self, value: str) -> None:
        seconds = retry.parse_retry_after(value, now=NOW)
        assert seconds is None or seconds >= 0

    @given(st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(9990, 1, 1)))  # noqa: DTZ001 - UTC below
    def test_every_date_that_can_be_written_is_read(self, date: datetime) -> None:
        date = date.replace(microsecond=0, tzinfo=UTC)
        read = retry.parse_retry_after(format_datetime(date, usegmt=True), now=NOW)
        assert read == max((date - NOW) / timedelta(seconds=1), 0)

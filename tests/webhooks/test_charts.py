from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest
from django.template import engines
from django.test import RequestFactory
from django.utils import timezone, translation

from webhooks import rollups
from webhooks.models import BUCKETS_MS, Rollup
from webhooks.rollups import DAY, HOUR, Interval, Series
from webhooks.templatetags import charts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from subscriptions.models import Subscription, Tenant

STARTS = datetime(2026, 11, 21, 9, tzinfo=UTC)


def took(number: int, bucket: int) -> tuple[int, ...]:
    return tuple(number if n == bucket else 0 for n in range(len(BUCKETS_MS) + 1))


def series(*intervals: dict[str, Any], span: Rollup.Span = Rollup.Span.HOUR) -> Series:
    step = HOUR if span == Rollup.Span.HOUR else DAY
    made = tuple(Interval(STARTS + n * step, **counts) for n, counts in enumerate(intervals))
    names = ("attempts", "delivered", "at_first", "failed")
    total = Interval(
        STARTS,
        **{name: sum(getattr(each, name) for each in made) for name in names},
        took=tuple(map(sum, zip(*(each.took or took(0, 0) for each in made), strict=True))),
    )
    return Series(span, made, total)


BUSY = series(
    {"attempts": 40, "delivered": 30, "at_first": 28, "failed": 2, "took": took(40, 3)},
    {},
    {"attempts": 1_200, "delivered": 1_200, "at_first": 1_200, "took": took(1_200, 6)},
)


def rendered(source: str, **context: Any) -> str:
    template: Any = engines["django"].from_string("{% load charts %}" + source)
    return str(template.render(context, RequestFactory().get("/t/acme/?a=1")))


def drawing(html: str) -> ElementTree.Element:
    """The chart itself; it must be well-formed."""
    (svg,) = re.findall(r'<svg class="chart"(?:(?!<svg).)*?</svg>', html, re.DOTALL)
    return ElementTree.fromstring(svg)  # noqa: S314 - ours


def bars(html: str, kind: str) -> list[tuple[float, float]]:
    """Where each begins and how high it is, in pixels."""
    found = drawing(html).iterfind(f".//rect[@class='bar-{kind}']")
    return [(float(rect.attrib["y"]), float(rect.attrib["height"])) for rect in found]


def table(html: str) -> list[list[str]]:
    rows = re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]


class TestBars:
    def test_delivered_retried_and_failed_stand_on_each_other(self) -> None:
        html = rendered("{% chart series %}", series=BUSY)
        (low, small), (high, large) = bars(html, "delivered")
        assert (high, high + large) == (charts.TOP + (charts.BASE - charts.TOP) * 0.4, charts.BASE)  # 1,200 of 2,000
        assert low + small == charts.BASE
        ((retried, retried_height),) = bars(html, "retried")
        ((failed, failed_height),) = bars(html, "failed")
        assert retried + retried_height == pytest.approx(low, abs=0.11)
        assert failed + failed_height == pytest.approx(retried, abs=0.11)

    def test_what_is_not_nothing_can_be_seen(self) -> None:
        html = rendered("{% chart series %}", series=series({"attempts": 100_001, "delivered": 100_000, "failed": 1}))
        assert bars(html, "failed")[0][1] == charts.LEAST

    def test_every_interval_says_its_numbers_to_whoever_points_at_it(self) -> None:
        titles = [title.text for title in drawing(rendered("{% chart series %}", series=BUSY)).iter("title")]
        assert titles == [
            "21 Nov 2026, 09:00: 30 delivered, 8 retried, 2 failed",
            "21 Nov 2026, 10:00: 0 delivered, 0 retried, 0 failed",
            "21 Nov 2026, 11:00: 1,200 delivered, 0 retried, 0 failed",
        ]

    def test_whoever_cannot_see_it_has_a_sentence_and_a_table(self) -> None:
        html = rendered("{% chart series %}", series=BUSY)
        svg = drawing(html)
        assert svg.attrib["role"] == "img"
        assert "1,230 delivered, 8 retried, 2 failed" in svg.attrib["aria-label"]
        assert table(html) == [
            ["Hour", "Delivered", "Retried", "Failed"],
            ["21 Nov 2026, 11:00", "1,200", "0", "0"],
            ["21 Nov 2026, 10:00", "0", "0", "0"],
            ["21 Nov 2026, 09:00", "30", "8", "2"],
        ]

    def test_hours_are_the_readers_and_days_are_utcs(self) -> None:
        with timezone.override("Asia/Kolkata"):
            hours = rendered("{% chart series %}", series=BUSY)
            days = rendered("{% chart series %}", series=series({"delivered": 1}, {}, span=Rollup.Span.DAY))
        assert table(hours)[-1][0] == "21 Nov 2026, 14:30"
        assert table(days)[0][0] == "Day (UTC)"
        assert table(days)[-1][0] == "21 Nov 2026"

    def test_the_axis_has_a_label_now_and_then(self) -> None:
        html = rendered("{% chart series %}", series=series(*[{"delivered": 3}] * 24))
        labels = [(text.attrib["class"], text.text) for text in drawing(html).iter("text")]
        assert labels == [
            ("tick", "0"), ("tick", "2"), ("tick", "4"),
            ("below", "09:00"), ("below", "17:00"), ("below", "01:00"),
        ]  # fmt: skip

    @pytest.mark.parametrize("source", ["{% chart series %}", "{% latency series %}", "{% sparkline values %}"])
    def test_numbers_in_the_drawing_are_the_same_in_every_language(self, source: str) -> None:
        def numbers(language: str) -> list[str]:
            with translation.override(language):
                html = rendered(source, series=BUSY, values=[(3, 1), (0, 0)])
            return re.findall(r' (?:x|y|x1|x2|y1|y2|width|height|d|viewBox)="([^"]*)"', html)

        assert numbers("de") == numbers("en")
        assert not any("," in number for number in numbers("de"))

    @pytest.mark.parametrize("source", ["{% chart series %}", "{% latency series %}", "{% sparkline values %}"])
    def test_there_is_no_inline_style(self, source: str) -> None:
        html = rendered(source, series=BUSY, values=[(3, 1), (0, 0)])
        assert "style" not in html
        assert "fill=" not in html

    @pytest.mark.parametrize(
        ("highest", "top"),
        [(2, 2), (3, 4), (5, 6), (9, 10), (10, 10), (11, 20), (99, 100), (100, 100), (101, 200), (1_300.5, 2_000)],
    )
    def test_a_scale_ends_at_a_round_number(self, highest: float, top: int) -> None:
        assert charts._nice(highest) == top


class TestLatency:
    def lines(self, html: str, kind: str) -> list[tuple[float, float]]:
        """Left and right ends, in percent."""
        found = drawing(html).iterfind(f".//line[@class='{kind}']")
        return [(float(line.attrib["x1"].rstrip("%")), float(line.attrib["x2"].rstrip("%"))) for line in found]

    def test_neighbours_are_joined_and_a_lone_hour_is_a_dash(self) -> None:
        busy = {"attempts": 9, "delivered": 9, "took": took(9, 2)}
        html = rendered("{% latency series %}", series=series(busy, busy, {}, busy, {}))
        for kind in ("line", "line-second"):
            alone, joined = sorted(self.lines(html, kind), reverse=True)
            assert joined == (10.0, 30.0)
            left, right = alone
            assert 60 < left < right < 80

    def test_it_says_how_long_it_took(self) -> None:
        html = rendered("{% latency series %}", series=BUSY)
        titles = [title.text for title in drawing(html).iter("title")]
        assert titles[:2] == [
            "21 Nov 2026, 09:00: half within 75 ms, 95 % within 98 ms",
            "21 Nov 2026, 10:00: nothing was sent",
        ]
        assert table(html) == [
            ["Hour", "p50", "p95"],
            ["21 Nov 2026, 11:00", "750 ms", "975 ms"],
            ["21 Nov 2026, 10:00", "-", "-"],
            ["21 Nov 2026, 09:00", "75 ms", "98 ms"],
        ]

    def test_where_nothing_was_sent_there_is_no_line(self) -> None:
        assert self.lines(rendered("{% latency series %}", series=series({}, {})), "line") == []

    @pytest.mark.parametrize(
        ("milliseconds", "shown"),
        [(None, "-"), (0.4, "0 ms"), (75.4, "75 ms"), (999.4, "999 ms"), (999.6, "1 s"), (1_000.0, "1 s"), (1_560.0, "1.6 s"), (20_000.0, "20 s or more")],
    )  # fmt: skip
    def test_a_duration_is_as_exact_as_it_is_known(self, milliseconds: float | None, shown: str) -> None:
        assert charts.duration(milliseconds) == shown


@pytest.mark.parametrize(
    ("share", "shown"), [(None, "-"), (1.0, "100.0 %"), (0.9999, "99.9 %"), (0.9861, "98.6 %"), (0.0, "0.0 %")]
)
def test_all_but_one_is_not_all(share: float | None, shown: str) -> None:
    assert charts.percent(share) == shown


class TestSparkline:
    def drawn(self, values: Sequence[tuple[int, int]]) -> ElementTree.Element:
        return ElementTree.fromstring(charts.sparkline(values))  # noqa: S314 - ours

    def test_it_says_in_a_sentence_what_it_shows(self) -> None:
        svg = self.drawn([(1_000, 0), (20, 1)])
        assert svg.attrib["role"] == "img"
        assert svg.attrib["aria-label"] == "2 hours: 1,020 delivered, 1 attempt failed."
        assert svg.findtext("title") == svg.attrib["aria-label"]

    def test_what_failed_stands_on_what_was_delivered(self) -> None:
        paths = {
            path.attrib["class"]: path.attrib["d"] for path in self.drawn([(23, 0), (0, 0), (10, 13)]).iter("path")
        }
        assert paths["bar-delivered"] == "M0 24v-23h4v23zM10 24v-10h4v10z"
        assert paths["bar-failed"] == "M10 14v-13h4v13z"

    @pytest.mark.parametrize("values", [[], [(0, 0)] * 24])
    def test_where_nothing_was_sent_it_says_so(self, values: list[tuple[int, int]]) -> None:
        svg = self.drawn(values)
        assert svg.attrib["aria-label"] == f"{len(values)} hours: nothing was sent."
        assert [path.attrib["class"] for path in svg.iter("path")] == ["spark-base"]


@pytest.mark.django_db
class TestPanel:
    def show(self, **chosen: Any) -> str:
        return rendered('{% include "webhooks/charts/panel.html" %}', **rollups.panel(**chosen))

    @pytest.fixture
    def subscription(self, tenant: Tenant, subscribe: Callable[..., Subscription]) -> Subscription:
        subscription = subscribe(tenant)
        hour = timezone.now().astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        Rollup.objects.create(
            subscription=subscription, span="hour", starts_at=hour, attempts=75, delivered=71, at_first=70, failed=1, took_3=75
        )  # fmt: skip
        return subscription

    def test_it_has_the_numbers_of_the_period(self, subscription: Subscription) -> None:
        facts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", self.show(subscription=subscription)))
        assert facts == {
            "Delivered": "71",
            "Failed": "1",
            "Arrived at first try": "97.2 %",
            "Half within": "75 ms",
            "95 % within": "98 ms",
        }

    def test_the_other_period_is_a_link_that_keeps_the_rest_of_the_query(self, subscription: Subscription) -> None:
        html = self.show(subscription=subscription, period="30d")
        links = re.findall(r'<a id="period-\w+" href="([^"]+)"[^>]*?( aria-current="true")?>([^<]+)</a>', html)
        assert links == [
            ("?a=1&amp;period=24h", "", "24 hours"),
            ("?a=1&amp;period=30d", ' aria-current="true"', "30 days"),
        ]
        assert "The last 30 days" in html

    def test_where_nothing_was_sent_it_says_so_and_draws_nothing(
        self, tenant: Tenant, subscribe: Callable[..., Subscription]
    ) -> None:
        html = self.show(subscription=subscribe(tenant))
        assert "Nothing was sent in this time." in html
        assert "<svg" not in html

    def test_days_are_said_to_be_utcs_where_the_readers_are_not(self, subscription: Subscription) -> None:
        with timezone.override("Asia/Kolkata"):
            assert "A day here is one of UTC." in self.show(subscription=subscription, period="30d")
        assert "A day here is one of UTC." not in self.show(subscription=subscription, period="30d")


class TestWhatIsNotOverYet:
    RUNNING = replace(BUSY, running=True)

    @pytest.mark.parametrize("tag", ["chart", "latency"])
    def test_the_last_interval_is_drawn_and_said_to_be_unfinished(self, tag: str) -> None:
        html = rendered(f"{{% {tag} series %}}", series=self.RUNNING)
        slots = [group.attrib["class"] for group in drawing(html).iter("g")]
        assert slots == ["slot", "slot", "slot slot-running"]
        titles = [title.text or "" for title in drawing(html).iter("title")]
        assert [("not over yet" in title and title.endswith("so far")) for title in titles] == [False, False, True]
        assert ["so far" in row[0] for row in table(html)] == [False, True, False, False]

    def test_the_legend_names_it(self) -> None:
        assert "This hour so far" in rendered("{% chart series %}", series=self.RUNNING)
        days = replace(series({"delivered": 1}, span=Rollup.Span.DAY), running=True)
        assert "Today so far" in rendered("{% chart series %}", series=days)
        assert "so far" not in rendered("{% chart series %}", series=BUSY)

    @pytest.mark.django_db
    def test_it_is_so_of_what_the_pages_show(self) -> None:
        assert rollups.hours(Rollup.objects.all()).running
        assert rollups.days(Rollup.objects.all()).running

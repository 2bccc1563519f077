"""Charts as inline SVG: across in shares of the width and down in pixels, so
that they fit a phone and their texts stay as large as they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from django import template
from django.utils import formats, timezone
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from webhooks.models import BUCKETS_MS, Rollup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from django.utils.safestring import SafeString

    from webhooks.rollups import Interval, Series

register = template.Library()

# Pixels, from the top.
TOP, BASE, BELOW = 8, 148, 166
TICKS = 2  # above the base
STEPS = (2, 4, 6, 8, 10)  # where a scale may end, times a power of ten
BAR = 0.76  # of an interval's width
LEAST = 2.0  # pixels of what is not nothing
LABELLED = {Rollup.Span.HOUR: 8, Rollup.Span.DAY: 10}  # one label for so many intervals

STACK = (
    ("delivered", gettext_lazy("Delivered")),
    ("retried", gettext_lazy("Retried")),
    ("failed", gettext_lazy("Failed")),
)

SPARK_HEIGHT, SPARK_SLOT, SPARK_BAR = 24, 5, 4
SECOND = 1_000  # milliseconds


@dataclass(frozen=True, slots=True)
class Part:
    kind: str
    y: str
    height: str


@dataclass(frozen=True, slots=True)
class Slot:
    """One interval's share of the chart. Numbers are text, as SVG wants them in any language."""

    interval: Interval
    title: str
    x: str
    width: str
    bar: str
    bar_width: str
    centre: str
    label: str
    parts: Sequence[Part] = ()
    running: bool = False


@dataclass(frozen=True, slots=True)
class Tick:
    y: str
    text_y: str
    label: str


@dataclass(frozen=True, slots=True)
class Segment:
    kind: str
    x1: str
    y1: str
    x2: str
    y2: str


@register.inclusion_tag("webhooks/charts/bars.html")
def chart(series: Series) -> dict[str, Any]:
    """What was delivered, retried and failed, stacked, per interval."""
    highest = max(sum(_stack(interval)) for interval in series.intervals)
    top = _nice(max(highest, STEPS[0]))

    def title(interval: Interval) -> str:
        return _counts(interval.delivered, interval.retried, interval.failed)

    slots = _slots(series, title, lambda interval: _parts(interval, top))
    total = series.total
    return {
        "series": series,
        "slots": slots,
        "ticks": _ticks(top, number),
        "kinds": STACK,
        "summary": _counts(total.delivered, total.retried, total.failed),
        **_frame(),
    }


@register.inclusion_tag("webhooks/charts/latency.html")
def latency(series: Series) -> dict[str, Any]:
    """Within how long half of the attempts ended, and 95 of 100, per interval."""
    slowest = max((interval.p95_ms or 0 for interval in series.intervals), default=0)
    top = _nice(max(slowest, BUCKETS_MS[0]))
    lines = {
        "p50": [None if interval.p50_ms is None else _height(interval.p50_ms, top) for interval in series.intervals],
        "p95": [None if interval.p95_ms is None else _height(interval.p95_ms, top) for interval in series.intervals],
    }
    return {
        "series": series,
        "slots": _slots(series, _times, lambda interval: ()),
        "ticks": _ticks(top, duration),
        "segments": [each for kind, heights in lines.items() for each in _segments(kind, heights)],
        "summary": _times(series.total),
        **_frame(),
    }


@register.simple_tag
def sparkline(values: Sequence[tuple[int, int]]) -> SafeString:
    """Small, of what was delivered and what failed, hour by hour."""
    delivered, failed = (sum(column) for column in zip(*values, strict=True)) if values else (0, 0)
    if delivered or failed:
        summary = _("%(number)s hours: %(delivered)s delivered, %(failed)s.") % {
            "number": len(values),
            "delivered": number(delivered),
            "failed": ngettext("%(n)s attempt failed", "%(n)s attempts failed", failed) % {"n": number(failed)},
        }
    else:
        summary = _("%(number)s hours: nothing was sent.") % {"number": len(values)}
    highest = max((sum(value) for value in values), default=0) or 1
    good = [_spark_height(ok, highest) for ok, _failed in values]
    bad = [_spark_height(not_ok, highest) for _ok, not_ok in values]
    bases = [SPARK_HEIGHT - below for below in good]
    return format_html(
        '<svg class="chart spark" viewBox="0 0 {} {}" role="img" aria-label="{}"><title>{}</title>'
        '<path class="spark-base" d="M0 {}h{}v1h-{}z"/>{}</svg>',
        max(1, len(values)) * SPARK_SLOT,
        SPARK_HEIGHT + 1,
        summary,
        summary,
        SPARK_HEIGHT,
        max(1, len(values)) * SPARK_SLOT,
        max(1, len(values)) * SPARK_SLOT,
        format_html_join(
            "",
            '<path class="bar-{}" d="{}"/>',
            [
                (kind, path)
                for kind, path in [
                    ("delivered", _spark_path(good, [SPARK_HEIGHT] * len(values))),
                    ("failed", _spark_path(bad, bases)),
                ]
                if path
            ],
        ),
    )


@register.filter
def number(value: float) -> str:
    return formats.number_format(value, force_grouping=True)


@register.filter
def duration(milliseconds: float | None) -> str:
    """As exact as the buckets are."""
    if milliseconds is None:
        return "-"
    if milliseconds >= BUCKETS_MS[-1]:
        return _("%(n)s s or more") % {"n": number(BUCKETS_MS[-1] // SECOND)}
    if round(milliseconds) < SECOND:
        return _("%(n)s ms") % {"n": number(round(milliseconds))}
    seconds = round(milliseconds / SECOND, 1)
    return _("%(n)s s") % {"n": formats.number_format(seconds, decimal_pos=0 if seconds == int(seconds) else 1)}


@register.filter
def percent(share: float | None) -> str:
    """Rounded down: all but one is not all."""
    if share is None:
        return "-"
    return _("%(n)s %%") % {"n": formats.number_format(math.floor(share * 1_000) / 10, decimal_pos=1)}


@register.filter
def interval_name(interval: Interval, span: str) -> str:
    """An hour in the reader's zone; a day is one of UTC, as it was counted."""
    if span == Rollup.Span.HOUR:
        return formats.date_format(timezone.localtime(interval.starts_at), "DATETIME_FORMAT")
    return formats.date_format(interval.starts_at.astimezone(UTC), "DATE_FORMAT")


def _frame() -> dict[str, int]:
    return {"top": TOP, "base": BASE, "below": BELOW, "drop": BASE - TOP}


def _slots(series: Series, title: Callable[[Interval], str], parts: Callable[[Interval], Iterable[Part]]) -> list[Slot]:
    width = 100 / len(series.intervals)
    running = len(series.intervals) - 1 if series.running else None
    return [
        Slot(
            interval=interval,
            title=_title(interval_name(interval, series.span), title(interval), running=place == running),
            x=_share(place * width),
            width=_share(width),
            bar=_share((place + (1 - BAR) / 2) * width),
            bar_width=_share(BAR * width),
            centre=_share((place + 0.5) * width),
            label="" if place % LABELLED[series.span] else _axis_label(interval, series.span),
            parts=tuple(parts(interval)),
            running=place == running,
        )
        for place, interval in enumerate(series.intervals)
    ]


def _title(when: str, what: str, *, running: bool) -> str:
    if running:
        return _("%(when)s, not over yet: %(what)s so far") % {"when": when, "what": what}
    return f"{when}: {what}"


def _axis_label(interval: Interval, span: str) -> str:
    if span == Rollup.Span.HOUR:
        return formats.time_format(timezone.localtime(interval.starts_at), "TIME_FORMAT")
    return formats.date_format(interval.starts_at.astimezone(UTC), "MONTH_DAY_FORMAT")


def _stack(interval: Interval) -> tuple[int, ...]:
    return tuple(getattr(interval, kind) for kind, _name in STACK)


def _parts(interval: Interval, top: float) -> Iterable[Part]:
    y = float(BASE)
    for (kind, _name), count in zip(STACK, _stack(interval), strict=True):
        if count:
            height = max(LEAST, (BASE - TOP) * count / top)
            y -= height
            yield Part(kind, _pixels(y), _pixels(height))


def _segments(kind: str, heights: Sequence[float | None]) -> Iterable[Segment]:
    """Lines between neighbours; where one has none, a dash as wide as a bar."""
    width = 100 / len(heights)
    alone = [None, *heights, None]
    for place, (before, here, after) in enumerate(zip(alone, heights, alone[2:], strict=False)):
        if here is not None and before is None and after is None:
            left, right = (place + (1 - BAR) / 2) * width, (place + (1 + BAR) / 2) * width
            yield Segment(kind, _share(left), _pixels(here), _share(right), _pixels(here))
    for place, (one, other) in enumerate(pairwise(heights)):
        if one is not None and other is not None:
            left, right = (place + 0.5) * width, (place + 1.5) * width
            yield Segment(kind, _share(left), _pixels(one), _share(right), _pixels(other))


def _ticks(top: float, say: Callable[[float], str]) -> list[Tick]:
    values = [top * step / TICKS for step in range(TICKS + 1)]
    heights = [_height(value, top) for value in values]
    return [
        Tick(_pixels(y), _pixels(y + 4), say(int(value)) if value else "0")
        for y, value in zip(heights, values, strict=True)
    ]


def _nice(highest: float) -> int:
    """Where a scale ends that reaches so high; its half is a whole number, too."""
    power: int = 10 ** int(math.log10(highest))
    return next(step * power for step in (1, *STEPS) if step * power >= highest and step * power % TICKS == 0)


def _height(value: float, top: float) -> float:
    return BASE - (BASE - TOP) * min(1.0, value / top)


def _share(value: float) -> str:
    return f"{value:.3f}%"


def _pixels(value: float) -> str:
    return f"{value:.1f}"


def _counts(delivered: int, retried: int, failed: int) -> str:
    return _("%(delivered)s delivered, %(retried)s retried, %(failed)s failed") % {
        "delivered": number(delivered),
        "retried": number(retried),
        "failed": number(failed),
    }


def _times(interval: Interval) -> str:
    if interval.p50_ms is None:
        return _("nothing was sent")
    return _("half within %(p50)s, 95 %% within %(p95)s") % {
        "p50": duration(interval.p50_ms),
        "p95": duration(interval.p95_ms),
    }


def _spark_height(value: int, highest: int) -> int:
    return max(1, round((SPARK_HEIGHT - 1) * value / highest)) if value else 0


def _spark_path(heights: Sequence[int], bases: Sequence[int]) -> str:
    return "".join(
        f"M{place * SPARK_SLOT} {base}v-{height}h{SPARK_BAR}v{height}z"
        for place, (height, base) in enumerate(zip(heights, bases, strict=True))
        if height
    )

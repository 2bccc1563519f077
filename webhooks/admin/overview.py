"""The operator's first page: how everything stands, over all tenants.

Django's own admin, and no theme over it: django-unfold runs on Alpine, which
makes functions of strings, and our Content-Security-Policy allows no `eval`.
So the admin looks as every Django developer knows it, in light and dark, and
whatever extends an admin extends this one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.humanize.templatetags.humanize import intcomma, naturaltime
from django.core.exceptions import PermissionDenied
from django.forms import Media
from django.template.response import TemplateResponse
from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from subscriptions.admin.shown import state
from webhooks import operations
from webhooks.admin.lists import TrafficAdmin
from webhooks.admin.shown import duration
from webhooks.metrics import MOST
from webhooks.models import Overview
from webhooks.operations import span

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.http import HttpRequest, HttpResponse
    from django.urls import URLPattern
    from django.utils.safestring import SafeString

    from webhooks.operations import Standing
    from webhooks.rollups import Series
    from webhooks.tasks import Seen

PERMISSION = "webhooks.view_overview"
# Rows of a table; the lists have them all.
ROWS_SHOWN = 50
OFF_SHOWN = 10


@admin.register(Overview)
class OverviewAdmin(TrafficAdmin):
    """One page, in the place of a list."""

    def get_urls(self) -> list[URLPattern]:
        return [url for url in super().get_urls() if url.name == "webhooks_overview_changelist"]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = {
            **self.admin_site.each_context(request),
            **summary(),
            "title": _("Overview"),
            "opts": self.opts,
            "media": self.media,
            "failing": operations.failing()[:ROWS_SHOWN],
            "turned_off": operations.turned_off()[:OFF_SHOWN],
            "tenants_off": operations.tenants_off()[:OFF_SHOWN],
            "may_replay": request.user.has_perm("webhooks.replay_delivery"),
            "may_turn_off": request.user.has_perm("subscriptions.change_subscription"),
            **(extra_context or {}),
        }
        return TemplateResponse(request, "admin/webhooks/overview.html", context)


@dataclass(frozen=True, slots=True)
class Figure:
    label: str
    value: Any
    note: Any = ""
    bad: bool = False


def summary() -> dict[str, Any]:
    """What `admin/webhooks/standing.html` shows."""
    standing = operations.standing()
    return {
        "standing": standing,
        "headline": headline(standing),
        "figures": [*_of_the_queue(standing), *_of_workers(standing), *_of_the_day(operations.last_day())],
    }


def media() -> Media:
    return Media(css=dict(TrafficAdmin.Media.css))


def headline(standing: Standing) -> SafeString:
    if standing.grave:
        return state("failed", "✕", standing.sentence)
    if standing.troubles:
        return state("retrying", "!", standing.sentence)
    return state("delivered", "✓", standing.sentence)


def _of_the_queue(standing: Standing) -> Iterator[Figure]:
    late = standing.due_for > operations.LATE_SECONDS
    yield Figure(
        _("Oldest due delivery"),
        _("waits %(span)s") % {"span": span(standing.due_for)} if standing.due_for else _("none waits"),
        _("%(count)s in flight") % {"count": intcomma(standing.in_flight)},
        bad=late,
    )
    number = intcomma(standing.events_waiting)
    yield Figure(
        _("Events to fan out"),
        _("%(count)s or more") % {"count": number} if standing.events_waiting >= MOST else number,
        _("the oldest waits %(span)s") % {"span": span(standing.event_waits_for)} if standing.events_waiting else "",
        bad=standing.event_waits_for > operations.LATE_SECONDS,
    )


def _of_workers(standing: Standing) -> Iterator[Figure]:
    looked, redis = standing.looked_ago, standing.redis
    yield Figure(
        _("Last look of a worker"),
        _("never") if looked is None else _("%(span)s ago") % {"span": span(looked)},
        _("Redis is away") if redis is None else _listening(redis),
        bad=looked is None or standing.silent,
    )
    ticked = redis.ticked_at if redis else None
    yield Figure(
        _("Last tick of the clock"),
        _("not known") if redis is None else naturaltime(ticked) if ticked else _("never"),
        _("Redis is away") if redis is None else "",
    )


def _listening(redis: Seen) -> str:
    number = len(redis.workers)
    return ngettext("%(count)s worker listens", "%(count)s workers listen", number) % {"count": number}


def _of_the_day(series: Series) -> Iterator[Figure]:
    day = series.total
    first = _("%(share)s at the first attempt") % {"share": _percent(day.first_share)} if day.first_share else ""
    yield Figure(_("Delivered in 24 hours"), intcomma(day.delivered), first)
    took = _("half of the attempts within %(half)s, 95\u00a0%% within %(most)s")
    times = {"half": duration(round(day.p50_ms or 0)), "most": duration(round(day.p95_ms or 0))}
    yield Figure(_("Given up on in 24 hours"), intcomma(day.failed), took % times if day.p50_ms else "")


def _percent(share: float) -> str:
    return f"{number_format(100 * share, 1)}\u00a0%"

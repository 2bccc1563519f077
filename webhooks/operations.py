"""How everything stands, for the operator: is anything late, does anybody
work, who fails. As `/metrics`, it reads indexes and small tables, so that it
costs the same behind a million deliveries; and it needs no Redis.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from django.db.models import Q
from django.utils import timezone
from django.utils.timesince import timesince
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from subscriptions.conf import conf
from subscriptions.models import Subscription, Tenant, home
from webhooks import deliveries, health, metrics, rollups, tasks
from webhooks.models import Rollup, Throttle

if TYPE_CHECKING:
    from datetime import datetime

    from django.db.models import QuerySet

    from webhooks.tasks import Seen

# As the README's alerts: what waits for longer than this is late.
LATE_SECONDS = 60.0
# So many intervals of the clock without a tick.
MISSED_TICKS = 6


@dataclass(frozen=True, slots=True)
class Trouble:
    text: str
    grave: bool  # deliveries are late, or are about to be


@dataclass(frozen=True)
class Standing:
    """Of one moment. Seconds, where nothing else is said."""

    due_for: float  # the oldest delivery that may be sent
    in_flight: int
    events_waiting: int  # counted up to metrics.MOST
    event_waits_for: float
    away: tuple[str, ...]  # databases that do not answer, other than home
    looked_ago: float | None
    silent: bool
    redis: Seen | None
    failing: int

    @cached_property
    def troubles(self) -> list[Trouble]:
        told = [*self._of_workers(), *self._of_the_queue(), *self._of_redis()]
        return sorted(told, key=lambda trouble: not trouble.grave)

    @property
    def grave(self) -> bool:
        return any(trouble.grave for trouble in self.troubles)

    @property
    def sentence(self) -> str:
        if self.troubles:
            return self.troubles[0].text
        if self.failing:
            told = ngettext(
                "Workers keep up. %(count)s subscription is failing.",
                "Workers keep up. %(count)s subscriptions are failing.",
                self.failing,
            )
            return told % {"count": self.failing}
        return _("Workers keep up, and no subscription is failing.")

    def _of_workers(self) -> list[Trouble]:
        if self.looked_ago is None:
            return [Trouble(_("No worker has ever looked. Start one: manage.py rqworker."), grave=True)]
        if self.silent:
            told = _("No worker has looked for %(span)s. Nothing is sent.")
            return [Trouble(told % {"span": span(self.looked_ago)}, grave=True)]
        return []

    def _of_the_queue(self) -> list[Trouble]:
        told = []
        if self.due_for > LATE_SECONDS:
            late = _("A delivery has waited for a worker for %(span)s.") % {"span": span(self.due_for)}
            told.append(Trouble(late, grave=True))
        if self.event_waits_for > LATE_SECONDS:
            late = _("An event has waited to be fanned out for %(span)s.") % {"span": span(self.event_waits_for)}
            told.append(Trouble(late, grave=True))
        for alias in self.away:
            text = _("The database %(alias)s does not answer. What it holds waits.") % {"alias": alias}
            told.append(Trouble(text, grave=True))
        return told

    def _of_redis(self) -> list[Trouble]:
        if self.redis is None:
            text = _("Redis does not answer. Workers look by themselves every %(span)s, so nothing is lost.")
            return [Trouble(text % {"span": span(conf.look_seconds)}, grave=False)]
        told = []
        if not self.redis.workers:
            text = _("No worker listens to Redis, so that what is new waits until one looks.")
            told.append(Trouble(text, grave=False))
        if self._clock_is_late(self.redis.ticked_at):
            text = _("The clock does not tick: hours are not added up to days. Start it: manage.py clock.")
            told.append(Trouble(text, grave=False))
        return told

    def _clock_is_late(self, ticked_at: datetime | None) -> bool:
        allowed = max(LATE_SECONDS, MISSED_TICKS * conf.sweep_seconds)
        return ticked_at is None or (timezone.now() - ticked_at).total_seconds() > allowed


def standing() -> Standing:
    """Raises DatabaseError."""
    alias = home()
    in_flight, due_for = metrics.held_and_due(alias)
    events_waiting, _settled = metrics.waiting_and_settled(alias)
    ages = {each: metrics.oldest_waiting(each) for each in dict.fromkeys([alias, *deliveries.away_from_home()])}
    workers = health.workers()
    return Standing(
        due_for=due_for,
        in_flight=in_flight,
        events_waiting=events_waiting,
        event_waits_for=max(age for age in ages.values() if age is not None),
        away=tuple(each for each, age in ages.items() if age is None),
        looked_ago=workers.get("looked_seconds_ago"),
        silent=workers["workers"] == "silent",
        redis=tasks.seen(),
        failing=failing().count(),
    )


def failing() -> QuerySet[Throttle]:
    """Of all tenants, what has failed since it last answered; the longest first."""
    rows = Throttle.objects.using(home()).filter(failures__gt=0, subscription__disabled_at=None)
    return rows.select_related("subscription__tenant").order_by("failing_since", "pk")


def turned_off() -> QuerySet[Subscription]:
    """The newest first; those of a tenant that is off count as one with it."""
    rows = Subscription.objects.using(home()).filter(~Q(disabled_by=Subscription.DisabledBy.TENANT))
    off: QuerySet[Subscription] = rows.filter(disabled_at__isnull=False).select_related("tenant")
    return off.order_by("-disabled_at", "-pk")


def tenants_off() -> QuerySet[Tenant]:
    off: QuerySet[Tenant] = Tenant.objects.using(home()).filter(disabled_at__isnull=False).order_by("-disabled_at")
    return off


def last_day() -> rollups.Series:
    """Hour by hour, of all tenants."""
    return rollups.hours(Rollup.objects.using(home()))


def span(seconds: float) -> str:
    """As people say it: "42 s", then by the minute."""
    whole = round(seconds)
    if whole < 2 * 60:
        return _("%(seconds)s s") % {"seconds": whole}
    now = timezone.now()
    return timesince(now - timedelta(seconds=whole), now, depth=1)

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.humanize.templatetags.humanize import intcomma
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Count, Max, Q
from django.db.models.functions import Now
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.timesince import timeuntil
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_POST

from subscriptions.admin.filters import TenantFilter
from subscriptions.admin.shown import below, clipped, moment
from subscriptions.models import AuditEntry, Subscription, home
from subscriptions.trail import actor_of, note
from webhooks import deeds, deliveries, reasons
from webhooks.admin import shown
from webhooks.admin.filters import AgeFilter, DeliveryTopicFilter, LastReasonFilter
from webhooks.admin.lists import TrafficAdmin, filters_in_words
from webhooks.models import Attempt, Delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse
    from django.utils.safestring import SafeString
    from django_stubs_ext import StrPromise

    from subscriptions.trail import Actor

# The newest attempts that a delivery's page shows; the list has them all.
ATTEMPTS_SHOWN = 20
LARGEST_ID = 2**63 - 1
# Why some are left alone.
HELD = gettext_lazy("what a worker is sending right now")
ENDED = gettext_lazy("what is at its end, or being sent right now")


def event_id(text: str) -> uuid.UUID | None:
    """The event that `text` names, as its UUID or as its webhook-id."""
    try:
        return uuid.UUID(text.removeprefix("evt_"))
    except ValueError:
        return None


def number(text: str) -> int | None:
    """A row's number, where a column of numbers can hold it."""
    if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) > LARGEST_ID:
        return None
    return int(text)


@admin.register(Delivery)
class DeliveryAdmin(TrafficAdmin):
    list_display = ("id", "shown_status", "topic", "target", "shown_created")
    list_filter = ("status", LastReasonFilter, AgeFilter, TenantFilter, DeliveryTopicFilter)
    list_select_related = ("event", "tenant", "subscription")
    search_fields = ("id",)
    search_help_text = gettext_lazy(
        "A delivery's number, an event's id or webhook-id, or a part of the subscription's URL."
    )
    ordering = ("-id",)
    actions = ("replay_selected", "cancel_selected")
    change_list_template = "admin/webhooks/delivery/change_list.html"
    change_form_template = "admin/webhooks/delivery/change_form.html"

    @admin.display(description=gettext_lazy("status"))
    def shown_status(self, delivery: Delivery) -> SafeString:
        return below(shown.status(delivery), self._progress(delivery))

    def _progress(self, delivery: Delivery) -> str:
        if delivery.status not in Delivery.OPEN or delivery.next_attempt_at is None:
            told = ngettext("%(number)s attempt", "%(number)s attempts", delivery.attempt_count)
            return told % {"number": intcomma(delivery.attempt_count)}
        if not delivery.subscription.enabled:
            return _("subscription off")
        if delivery.next_attempt_at <= timezone.now():
            return _("now")
        return _("in %(span)s") % {"span": timeuntil(delivery.next_attempt_at, depth=1)}

    @admin.display(description=gettext_lazy("topic"))
    def topic(self, delivery: Delivery) -> SafeString:
        return below(clipped(delivery.event.topic), clipped(delivery.tenant.slug))

    @admin.display(description=gettext_lazy("subscription"))
    def target(self, delivery: Delivery) -> SafeString:
        subscription = delivery.subscription
        url = clipped(subscription.url)
        return below(clipped(subscription.name), url) if subscription.name else url

    @admin.display(description=gettext_lazy("created"))
    def shown_created(self, delivery: Delivery) -> SafeString | str:
        return moment(delivery.created_at)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Delivery]:
        return super().get_queryset(request).defer("event__body", "event__changed")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        if (pk := number(term)) is not None:
            return queryset.filter(pk=pk), False
        if (event := event_id(term)) is not None:
            return queryset.filter(event=event), False
        wished = Subscription.objects.filter(Q(url__icontains=term) | Q(name__icontains=term))
        return queryset.filter(subscription__in=wished.values("pk")), False

    # --- what can be done -------------------------------------------------

    def has_replay_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("webhooks.replay_delivery")

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("webhooks.cancel_delivery")

    @admin.action(description=gettext_lazy("Replay selected"), permissions=["replay"])
    def replay_selected(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> None:
        self._replay(request, queryset)

    @admin.action(description=gettext_lazy("Cancel selected"), permissions=["cancel"])
    def cancel_selected(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> None:
        self._cancel(request, queryset)

    def _replay(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> None:
        chosen = queryset.count()
        with transaction.atomic(using=home()):
            free = _free(queryset)
            done = deliveries.replay(Delivery.objects.filter(pk__in=free), by=request.user.get_username())
            _note(request, AuditEntry.Action.DELIVERY_REPLAYED, free.values())
        self._report(request, _will_be_sent(done), done=done, left=chosen - done, exempt=HELD)

    def _replay_all(self, request: HttpRequest, matching: QuerySet[Delivery], *, filters: list[str]) -> None:
        chosen = matching.count()
        done = deeds.replay_all(matching, _operator(request), name=request.user.get_username(), filters=filters)
        self._report(request, _will_be_sent(done), done=done, left=chosen - done, exempt=HELD)

    def _cancel(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> None:
        chosen = queryset.count()
        with transaction.atomic(using=home()):
            free = {pk: delivery for pk, delivery in _free(queryset).items() if delivery.status in Delivery.OPEN}
            done = deliveries.cancel(Delivery.objects.filter(pk__in=free))
            _note(request, AuditEntry.Action.DELIVERY_CANCELLED, free.values())
            for delivery in free.values():
                self.log_change(request, delivery, _("Cancelled."))
        self._report(request, _are_cancelled(done), done=done, left=chosen - done, exempt=ENDED)

    def _report(self, request: HttpRequest, told: str, *, done: int, left: int, exempt: StrPromise) -> None:
        if left > 0:
            alone = ngettext(
                "%(number)s delivery left alone: %(why)s.", "%(number)s deliveries left alone: %(why)s.", left
            )
            told = f"{told} {alone % {'number': intcomma(left), 'why': exempt}}"
        self.message_user(request, told, messages.SUCCESS if done else messages.WARNING)

    # --- pages --------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view  # logged in as staff, and protected against CSRF
        replay = partial(self._one, act=self._replay, allowed=self.has_replay_permission)
        cancel = partial(self._one, act=self._cancel, allowed=self.has_cancel_permission)
        return [
            path("replay/", view(self.replay_matching), name="webhooks_delivery_replay_matching"),
            path("<int:pk>/replay/", view(require_POST(replay)), name="webhooks_delivery_replay"),
            path("<int:pk>/cancel/", view(require_POST(cancel)), name="webhooks_delivery_cancel"),
            *super().get_urls(),
        ]

    def _one(
        self,
        request: HttpRequest,
        *,
        pk: int,
        act: Callable[[HttpRequest, QuerySet[Delivery]], None],
        allowed: Callable[[HttpRequest], bool],
    ) -> HttpResponse:
        if not allowed(request):
            raise PermissionDenied
        delivery = get_object_or_404(Delivery, pk=pk)
        act(request, Delivery.objects.filter(pk=delivery.pk))
        return redirect("admin:webhooks_delivery_change", delivery.pk)

    def replay_matching(self, request: HttpRequest) -> HttpResponse:
        """Replay all that the list's filters match, once their number was seen."""
        if not self.has_replay_permission(request):
            raise PermissionDenied
        try:
            changelist = self.get_changelist_instance(request)
        except IncorrectLookupParameters:
            self.message_user(request, _("These filters are not known; nothing was replayed."), messages.ERROR)
            return redirect("admin:webhooks_delivery_changelist")
        listed = reverse("admin:webhooks_delivery_changelist") + changelist.get_query_string()
        matching = changelist.queryset.order_by()
        newest = number(request.POST.get("newest", ""))
        if request.method == "POST" and newest is not None:
            # Not what came to match while the number was being read.
            self._replay_all(request, matching.filter(pk__lte=newest), filters=filters_in_words(changelist))
            return redirect(listed)
        found = matching.aggregate(
            all=Count("pk"),
            newest=Max("pk"),
            delivered=Count("pk", filter=Q(status=Delivery.Status.DELIVERED)),
            off=Count("pk", filter=Q(subscription__disabled_at__isnull=False)),
            in_flight=Count("pk", filter=Q(leased_until__gt=Now())),
        )
        counts = {name: found[name] for name in ("delivered", "off", "in_flight")}
        counts["all"] = found["all"] - found["in_flight"]
        context = {
            **self.admin_site.each_context(request),
            "title": _("Replay all that match"),
            "opts": self.opts,
            "filters": filters_in_words(changelist),
            "listed": listed,
            "newest": found["newest"],
            **{name: _deliveries(count) for name, count in counts.items() if count},
            "media": self.media,
        }
        return TemplateResponse(request, "admin/webhooks/delivery/replay.html", context)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        context = {"may_replay": self.has_replay_permission(request), **(extra_context or {})}
        return super().changelist_view(request, context)

    def facts(self, request: HttpRequest, row: Delivery) -> dict[str, Any]:
        in_flight = row.leased_until is not None and row.leased_until > timezone.now()
        attempts = row.attempts.order_by("-number")
        if (upto := number(request.GET.get("upto", ""))) is not None:
            attempts = attempts.filter(number__lte=upto)
        timeline = [Shown(attempt) for attempt in attempts[:ATTEMPTS_SHOWN]]
        last = timeline[-1].attempt.number if timeline else 1
        is_open = row.status in Delivery.OPEN
        return {
            "title": _("Delivery %(number)s") % {"number": row.pk},
            "subtitle": None,
            "delivery": row,
            "status": shown.status(row),
            "created": moment(row.created_at),
            "ended": moment(row.ended_at),
            "next": moment(row.next_attempt_at),
            "attempts": timeline,
            "newest_shown": upto is None,
            "older": last - 1,
            "in_flight": in_flight,
            "waits_for_subscription": is_open and not row.subscription.enabled,
            "waiting": is_open and row.next_attempt_at is not None,
            "due": row.next_attempt_at is not None and row.next_attempt_at <= timezone.now(),
            "body": shown.pretty(row.event.body),
            "body_size": shown.size(len(row.event.body)),
            "may_replay": self.has_replay_permission(request) and not in_flight,
            "may_cancel": self.has_cancel_permission(request) and is_open and not in_flight,
        }


@dataclass(frozen=True, slots=True)
class Shown:
    """An attempt as its delivery's page shows it."""

    attempt: Attempt

    @property
    def outcome(self) -> SafeString:
        return shown.outcome(self.attempt)

    @property
    def sentence(self) -> str:
        return reasons.sentence(self.attempt)

    @property
    def started(self) -> SafeString | str:
        return moment(self.attempt.started_at)

    @property
    def duration(self) -> str:
        return shown.duration(self.attempt.duration_ms)

    @property
    def request_headers(self) -> str:
        return shown.header_text(self.attempt.request_headers)

    @property
    def response_headers(self) -> str:
        return shown.header_text(self.attempt.response_headers)

    @property
    def response_body(self) -> str:
        return shown.body_text(self.attempt.response_body)

    @property
    def url(self) -> str:
        return self.attempt.url or self.attempt.delivery.subscription.url

    @property
    def unsent(self) -> str:
        if self.attempt.reason == Attempt.Reason.LOST:
            return _("Whether it was sent is not known.")
        return _("Nothing was sent.") if self.attempt.ended_at else _("It is on its way.")

    @property
    def cut(self) -> str:
        """By what was kept: the limit may have been another one then."""
        if not self.attempt.response_cut:
            return ""
        return _("The body was cut after %(size)s.") % {"size": shown.size(len(self.attempt.response_body))}


def _free(queryset: QuerySet[Delivery]) -> dict[int, Delivery]:
    """Of a page's rows, those that no worker holds; locked, so that none takes one meanwhile."""
    chosen = list(queryset.order_by("pk").values_list("pk", flat=True))
    rows = Delivery.objects.using(home()).filter(pk__in=chosen).free().order_by("pk")
    rows = rows.select_related("event", "tenant").defer("event__body", "event__changed")
    return {row.pk: row for row in rows.select_for_update(no_key=True, of=("self",))}


def _note(request: HttpRequest, action: AuditEntry.Action, rows: Iterable[Delivery]) -> None:
    for row in rows:
        event = row.event
        note(_operator(request), action, tenant=row.tenant, about=row, name=event.topic, event=event.webhook_id)


def _operator(request: HttpRequest) -> Actor:
    return actor_of(request, as_operator=True)


def _deliveries(count: int) -> str:
    return ngettext("%(number)s delivery", "%(number)s deliveries", count) % {"number": intcomma(count)}


def _will_be_sent(number: int) -> str:
    if not number:
        return _("No delivery will be sent again.")
    told = ngettext("%(number)s delivery will be sent again.", "%(number)s deliveries will be sent again.", number)
    return told % {"number": intcomma(number)}


def _are_cancelled(number: int) -> str:
    if not number:
        return _("No delivery cancelled.")
    told = ngettext("%(number)s delivery cancelled.", "%(number)s deliveries cancelled.", number)
    return told % {"number": intcomma(number)}

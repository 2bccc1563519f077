from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db.models import Q
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from subscriptions.admin.shown import below, clipped, moment
from subscriptions.models import Subscription
from webhooks import reasons
from webhooks.admin import shown
from webhooks.admin.deliveries import ATTEMPTS_SHOWN, event_id, number
from webhooks.admin.filters import (
    AttemptAgeFilter,
    AttemptTenantFilter,
    AttemptTopicFilter,
    OutcomeFilter,
    ReasonFilter,
)
from webhooks.admin.lists import TrafficAdmin
from webhooks.models import Attempt

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse
    from django.utils.safestring import SafeString


@admin.register(Attempt)
class AttemptAdmin(TrafficAdmin):
    list_display = ("id", "shown_outcome", "sentence", "shown_delivery", "shown_started")
    list_filter = (OutcomeFilter, ReasonFilter, AttemptAgeFilter, AttemptTenantFilter, AttemptTopicFilter)
    list_select_related = ("delivery", "delivery__event")
    search_fields = ("id",)
    search_help_text = gettext_lazy(
        "An attempt's or a delivery's number, an event's id or webhook-id, or a part of the subscription's URL."
    )
    ordering = ("-id",)

    @admin.display(description=gettext_lazy("outcome"))
    def shown_outcome(self, attempt: Attempt) -> SafeString:
        return below(shown.outcome(attempt), shown.duration(attempt.duration_ms))

    @admin.display(description=gettext_lazy("what came back"))
    def sentence(self, attempt: Attempt) -> str:
        return reasons.sentence(attempt)

    @admin.display(description=gettext_lazy("delivery"))
    def shown_delivery(self, attempt: Attempt) -> SafeString:
        page = reverse("admin:webhooks_delivery_change", args=[attempt.delivery_id])
        link = format_html('<a href="{}">{}</a>', page, attempt.delivery_id)
        link = format_html(_("{}, attempt {}"), link, attempt.number)
        return below(link, clipped(attempt.delivery.event.topic))

    @admin.display(description=gettext_lazy("started"))
    def shown_started(self, attempt: Attempt) -> SafeString | str:
        started = moment(attempt.started_at)
        return (
            below(started, clipped(_("by %(who)s") % {"who": attempt.triggered_by}))
            if attempt.triggered_by
            else started
        )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Attempt]:
        unread = ("request_headers", "response_headers", "response_body", "delivery__event__body")
        return super().get_queryset(request).defer(*unread, "delivery__event__changed")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        if (pk := number(term)) is not None:
            return queryset.filter(Q(pk=pk) | Q(delivery=pk)), False
        if (event := event_id(term)) is not None:
            return queryset.filter(delivery__event=event), False
        wished = Subscription.objects.filter(Q(url__icontains=term) | Q(name__icontains=term))
        return queryset.filter(delivery__subscription__in=wished.values("pk")), False

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """An attempt is read in its delivery's timeline."""
        attempt = self.get_object(request, object_id) if self.has_view_permission(request) else None
        if attempt is None:
            return super().change_view(request, object_id, form_url, extra_context)
        page = reverse("admin:webhooks_delivery_change", args=[attempt.delivery_id])
        behind = attempt.delivery.attempt_count - attempt.number >= ATTEMPTS_SHOWN
        return redirect(f"{page}{f'?upto={attempt.number}' if behind else ''}#attempt-{attempt.number}")

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db.models import Count
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from subscriptions.admin.filters import TenantFilter
from subscriptions.admin.shown import below, clipped, moment
from subscriptions.models import Tenant
from webhooks.admin import shown
from webhooks.admin.deliveries import event_id
from webhooks.admin.filters import AgeFilter, ProgressFilter, TopicFilter
from webhooks.admin.lists import TrafficAdmin
from webhooks.models import Delivery, Event

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest
    from django.utils.safestring import SafeString

# The newest deliveries that an event's page shows; the list has them all.
DELIVERIES_SHOWN = 50


@admin.register(Event)
class EventAdmin(TrafficAdmin):
    list_display = ("event", "shown_tenant", "shown_progress")
    list_filter = (ProgressFilter, AgeFilter, TenantFilter, TopicFilter)
    list_select_related = ("tenant",)
    search_fields = ("id",)
    search_help_text = gettext_lazy("An event's id or webhook-id, or a topic.")
    # Both indexes that begin a list by tenant or by age have this order.
    ordering = ("-created_at",)
    change_form_template = "admin/webhooks/event/change_form.html"

    @admin.display(description=gettext_lazy("event"))
    def event(self, event: Event) -> SafeString:
        return below(clipped(event.topic), event.webhook_id)

    @admin.display(description=gettext_lazy("tenant"))
    def shown_tenant(self, event: Event) -> SafeString:
        return clipped(_tenant(event))

    @admin.display(description=gettext_lazy("progress, created"))
    def shown_progress(self, event: Event) -> SafeString:
        return below(shown.progress(event), moment(event.created_at))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Event]:
        return super().get_queryset(request).defer("body", "changed")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        event = event_id(term)
        return (queryset.filter(topic=term) if event is None else queryset.filter(pk=event)), False

    def facts(self, request: HttpRequest, row: Event) -> dict[str, Any]:
        counts = row.deliveries.order_by().values_list("status").annotate(count=Count("pk"))
        deliveries = row.deliveries.select_related("subscription", "tenant").order_by("-id")[:DELIVERIES_SHOWN]
        body = bytes(row.body)
        return {
            "title": _("Event %(id)s") % {"id": row.webhook_id},
            "subtitle": None,
            "event": row,
            "tenant": _tenant(row),
            "progress": shown.progress(row),
            "created": moment(row.created_at),
            "fanned_out": moment(row.fanned_out_at),
            "changed": ", ".join(row.changed or ()),
            "body": shown.pretty(body),
            "exact": shown.body_text(body),
            "body_size": shown.size(len(body)),
            "counts": [(shown.status(Delivery(status=status)), count) for status, count in counts],
            "deliveries": [(delivery, shown.status(delivery)) for delivery in deliveries],
            "total": sum(count for _, count in counts),
        }


def _tenant(event: Event) -> str:
    """An event that tells of its tenant's own end outlives it."""
    if event.tenant_id is None:
        return _("every tenant")
    try:
        tenant = event.tenant
    except Tenant.DoesNotExist:
        tenant = None
    return tenant.slug if tenant else _("tenant %(number)s, deleted") % {"number": event.tenant_id}

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.humanize.templatetags.humanize import intcomma
from django.core.exceptions import PermissionDenied
from django.shortcuts import get_object_or_404, redirect
from django.urls import URLPattern, path
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST

from subscriptions.admin.filters import TenantFilter
from subscriptions.admin.shown import below, clipped, moment, state
from subscriptions.trail import actor_of
from webhooks import replays
from webhooks.admin.deliveries import number
from webhooks.admin.lists import TrafficAdmin
from webhooks.models import Replay

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse
    from django.utils.safestring import SafeString


class GoingFilter(admin.SimpleListFilter):
    title = gettext_lazy("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("queuing", _("being queued")), ("queued", _("queued")), ("cancelled", _("cancelled"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        match self.value():
            case "queuing":
                return queryset.filter(settled_at=None)
            case "queued":
                return queryset.filter(settled_at__isnull=False, cancelled_at=None)
            case "cancelled":
                return queryset.filter(cancelled_at__isnull=False)
        return None


@admin.register(Replay)
class ReplayAdmin(TrafficAdmin):
    """What tenants replay in the background, to look at and to cancel."""

    list_display = ("id", "shown_state", "shown_kind", "shown_by", "shown_created")
    list_filter = (GoingFilter, "kind", TenantFilter)
    list_select_related = ("tenant", "subscription")
    search_fields = ("id",)
    search_help_text = gettext_lazy("A replay's number.")
    ordering = ("-id",)
    change_form_template = "admin/webhooks/replay/change_form.html"

    @admin.display(description=gettext_lazy("state"))
    def shown_state(self, replay: Replay) -> SafeString:
        return below(_state(replay), _("%(number)s queued") % {"number": intcomma(replay.queued)})

    @admin.display(description=gettext_lazy("of"))
    def shown_kind(self, replay: Replay) -> SafeString:
        what = clipped(replay.subscription or _("every subscription"))
        return below(format_html("{}: {}", replay.get_kind_display(), what), clipped(replay.tenant.slug))

    @admin.display(description=gettext_lazy("by"))
    def shown_by(self, replay: Replay) -> SafeString:
        return clipped(replay.by)

    @admin.display(description=gettext_lazy("created"))
    def shown_created(self, replay: Replay) -> SafeString | str:
        return moment(replay.created_at)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        pk = number(term)
        return (queryset.none() if pk is None else queryset.filter(pk=pk)), False

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("webhooks.cancel_delivery")

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(require_POST(self.cancel))
        return [path("<int:pk>/cancel/", view, name="webhooks_replay_cancel"), *super().get_urls()]

    def cancel(self, request: HttpRequest, pk: int) -> HttpResponse:
        if not self.has_cancel_permission(request):
            raise PermissionDenied
        replay = get_object_or_404(Replay, pk=pk)
        if replays.cancel(replay, by=actor_of(request, as_operator=True)):
            self.log_change(request, replay, _("Cancelled."))
            self.message_user(request, _("Cancelled: what is not under way is taken back."), messages.SUCCESS)
        else:
            self.message_user(request, _("It is too late for that."), messages.WARNING)
        return redirect("admin:webhooks_replay_change", pk)

    def facts(self, request: HttpRequest, row: Replay) -> dict[str, Any]:
        progress = replays.progress(row)
        return {
            "title": _("Replay %(number)s") % {"number": row.pk},
            "subtitle": None,
            "replay": row,
            "state": _state(row),
            "progress": progress,
            "since": moment(row.since),
            "until": moment(row.until),
            "created": moment(row.created_at),
            "cancelled": moment(row.cancelled_at),
            "filters": [f"{name}: {value}" for name, value in row.filters.items()],
            "may_cancel": self.has_cancel_permission(request) and replays.can_be_cancelled(row),
        }


def _state(replay: Replay) -> SafeString:
    if replay.cancelled_at is not None:
        return state("cancelled", "⊘", _("cancelled"))
    if replay.settled_at is None:
        return state("pending", "○", _("being queued"))
    return state("delivered", "✓", _("queued"))

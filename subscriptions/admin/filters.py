"""The filters at the side of the admin's lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from subscriptions import catalog
from subscriptions.models import Tenant, Topic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.contrib.admin.views.main import ChangeList
    from django.db.models import QuerySet
    from django.http import HttpRequest


class TypedFilter(admin.SimpleListFilter):
    """A filter whose value is typed in, with suggestions: tenants and topics
    are too many to list, and too many to look for in the traffic itself."""

    template = "admin/subscriptions/typed_filter.html"
    # How many values the field suggests.
    MOST = 100
    placeholder: Any = ""

    def lookups(self, request: HttpRequest, model_admin: Any) -> tuple[tuple[str, str], ...]:
        return ()

    def has_output(self) -> bool:
        return True

    def suggestions(self) -> list[str]:
        raise NotImplementedError

    def choices(self, changelist: ChangeList) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        kept = changelist.get_filters_params()
        kept.pop(str(self.parameter_name), None)
        if changelist.query:
            kept["q"] = [changelist.query]
        yield {
            "selected": not self.value(),
            "query_string": changelist.get_query_string(remove=[str(self.parameter_name)]),
            "display": _("All"),
            "kept": [(name, value) for name, values in kept.items() for value in values],
            "suggestions": self.suggestions(),
        }
        if self.value():
            yield {"selected": True, "query_string": changelist.get_query_string(), "display": self.value()}


class TenantFilter(TypedFilter):
    title = gettext_lazy("tenant")
    placeholder = gettext_lazy("slug")
    parameter_name = "tenant"
    path = "tenant"

    def suggestions(self) -> list[str]:
        return list(Tenant.objects.order_by("slug").values_list("slug", flat=True)[: self.MOST])

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        if not self.value():
            return None
        # Its number and not its slug in the query: the index on (tenant, -id)
        # then gives the newest rows without a sort.
        tenant = Tenant.objects.filter(slug=self.value()).values_list("pk", flat=True).first()
        return queryset.none() if tenant is None else queryset.filter(**{self.path: tenant})


class StateFilter(admin.SimpleListFilter):
    title = gettext_lazy("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("on", _("on")), ("off", _("off"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        return queryset.filter(disabled_at__isnull=self.value() == "on") if self.value() in {"on", "off"} else None


class TopicFilter(TypedFilter):
    """By a topic as it is written in the subscriptions."""

    title = gettext_lazy("topic")
    placeholder = "shop.order.*"
    parameter_name = "topic"

    def suggestions(self) -> list[str]:
        return catalog.topics()[: self.MOST]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        wishes = Topic.objects.filter(name=self.value()).values("subscription")
        return queryset.filter(pk__in=wishes) if self.value() else None

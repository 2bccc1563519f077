"""The filters at the side of the admin's lists of traffic."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db.models import Exists, OuterRef
from django.utils import timezone
from django.utils.translation import gettext_lazy

from subscriptions import catalog
from subscriptions.admin.filters import TenantFilter, TypedFilter
from webhooks.admin import shown
from webhooks.models import Attempt, Delivery, Event

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest
    from django_stubs_ext import StrPromise


class AttemptTenantFilter(TenantFilter):
    path = "delivery__tenant"


class TopicFilter(TypedFilter):
    """An exact topic, or all that begin like `shop.order.*`."""

    title = gettext_lazy("topic")
    placeholder = "shop.order.*"
    parameter_name = "topic"
    path = "topic"

    def suggestions(self) -> list[str]:
        return catalog.topics()[: self.MOST]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        topic = self.value()
        if not topic or topic == "*":
            return None
        if topic.endswith(".*"):
            return queryset.filter(**{f"{self.path}__startswith": topic[:-1]})
        return queryset.filter(**{self.path: topic})


class DeliveryTopicFilter(TopicFilter):
    path = "event__topic"


class AttemptTopicFilter(TopicFilter):
    path = "delivery__event__topic"


class AgeFilter(admin.SimpleListFilter):
    title = gettext_lazy("age")
    parameter_name = "age"
    path = "created_at"
    spans = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(weeks=1)}
    names = {
        "hour": gettext_lazy("last hour"),
        "day": gettext_lazy("last day"),
        "week": gettext_lazy("last week"),
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, StrPromise]]:
        return [*self.names.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        span = self.spans.get(self.value() or "")
        return None if span is None else queryset.filter(**{f"{self.path}__gte": timezone.now() - span})


class AttemptAgeFilter(AgeFilter):
    path = "started_at"


class LastReasonFilter(admin.SimpleListFilter):
    """Deliveries by why their last attempt failed."""

    title = gettext_lazy("reason")
    parameter_name = "reason"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [(reason.value, shown.REASONS[reason]) for reason in Attempt.Reason]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> QuerySet[Delivery] | None:
        if not self.value():
            return None
        last = Attempt.objects.filter(delivery=OuterRef("pk"), number=OuterRef("attempt_count"), reason=self.value())
        return queryset.filter(Exists(last))


class ReasonFilter(LastReasonFilter):
    """Attempts by their own reason."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        return queryset.filter(reason=self.value()) if self.value() else None


class OutcomeFilter(admin.SimpleListFilter):
    title = gettext_lazy("outcome")
    parameter_name = "outcome"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, StrPromise]]:
        return [
            ("delivered", gettext_lazy("delivered")),
            ("failed", gettext_lazy("failed")),
            ("open", gettext_lazy("in flight")),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Attempt]) -> QuerySet[Attempt] | None:
        match self.value():
            case "delivered":
                return queryset.filter(reason="", ended_at__isnull=False)
            case "failed":
                return queryset.exclude(reason="")
            case "open":
                return queryset.filter(reason="", ended_at=None)
        return None


class ProgressFilter(admin.SimpleListFilter):
    title = gettext_lazy("progress")
    parameter_name = "progress"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, StrPromise]]:
        return [
            ("waiting", gettext_lazy("waiting")),
            ("fanned-out", gettext_lazy("fanned out")),
            ("refused", gettext_lazy("refused")),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Event]) -> QuerySet[Event] | None:
        match self.value():
            case "waiting":
                return queryset.filter(fanned_out_at=None)
            case "fanned-out":
                return queryset.filter(fanned_out_at__isnull=False, error="")
            case "refused":
                return queryset.exclude(error="")
        return None

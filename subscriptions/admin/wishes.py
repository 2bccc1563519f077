from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse


class PlainList(ChangeList):
    """Offers to show all of a list only where not all of it is shown."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if not (self.query or self.get_filters_params()):
            self.full_result_count = self.result_count


class WishAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    show_facets = admin.ShowFacets.NEVER
    show_full_result_count = False
    list_per_page = 50

    class Media:
        css: ClassVar = {"all": ["subscriptions/admin.css"]}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return PlainList

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        title = {"title": str(self.opts.verbose_name_plural).capitalize()}
        return super().changelist_view(request, {**title, **(extra_context or {})})

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never: all its traffic would go with it, in one request. A
        subscription is turned off instead."""
        return False

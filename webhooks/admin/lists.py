"""What the admin's lists of traffic have in common: nothing is edited, and
no page costs more because there are millions of rows behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin
from django.utils.text import capfirst
from django.utils.translation import gettext as _

from subscriptions.admin.wishes import BoundedPaginator, PlainList

if TYPE_CHECKING:
    from django.contrib.admin.views.main import ChangeList
    from django.db.models import Model
    from django.http import HttpRequest, HttpResponse


class TrafficAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Read-only. The page of one row gets what `facts(request, row)` returns."""

    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = BoundedPaginator
    list_per_page = 50
    # "Show all" would be a page of ten thousand rows.
    list_max_show_all = 0
    # Newest first, by an index; any other order would sort the whole table.
    sortable_by = ()
    fieldsets = ((None, {"fields": ()}),)

    class Media:
        css: ClassVar = {"all": ["subscriptions/admin.css", "webhooks/admin.css"]}

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return PlainList

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        title = {"title": capfirst(str(self.opts.verbose_name_plural))}
        return super().changelist_view(request, {**title, **(extra_context or {})})

    def facts(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        raise NotImplementedError

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("obj") is not None:
            context.update(self.facts(request, kwargs["obj"]))
        return super().render_change_form(request, context, *args, **kwargs)


def filters_in_words(changelist: ChangeList) -> list[str]:
    """What the list is narrowed to, as `status: failed`; empty for all of it."""
    words = []
    chosen: set[str] = set()
    for spec in changelist.filter_specs:
        chosen.update(str(name) for name in spec.expected_parameters())
        words += [
            f"{spec.title}: {choice['display']}"
            for number, choice in enumerate(spec.choices(changelist))
            if number and choice["selected"]  # the first choice is "All"
        ]
    for name, value in changelist.get_filters_params(changelist.params).items():
        if name not in chosen:
            words.append(f"{name.partition('__')[0]}: {value}")
    if changelist.query:
        words.append(_("search: %(words)s") % {"words": changelist.query})
    return words

"""The admin of this repository's own project; one of another project stays as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.admin import AdminSite
from django.contrib.admin.apps import AdminConfig
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.template.response import TemplateResponse

# What an operator looks for comes first.
APPS = ("webhooks", "subscriptions")
NAMES = {"django_rq": _("Queue"), "mfa": _("Second factors")}
MODELS = (
    "Overview",
    "Delivery",
    "Event",
    "Attempt",
    "Replay",
    "Tenant",
    "Subscription",
    "AuditEntry",
    "ApiKey",
    "Invitation",
)


class Admin(AdminConfig):
    default_site = "config.admin.Site"


class Site(AdminSite):
    site_header = site_title = "Signalpost"
    index_template = "admin/webhooks/index.html"

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        """With the head of the overview, for whoever may see that."""
        from webhooks.admin import overview

        may_see = request.user.has_perm(overview.PERMISSION)
        context = {**overview.summary(), "overview_media": overview.media()} if may_see else {}
        return super().index(request, {"title": "Signalpost", **context, **(extra_context or {})})

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        apps = super().get_app_list(request, app_label)
        for app in apps:
            app["name"] = NAMES.get(app["app_label"], app["name"])
            app["models"].sort(key=lambda model: _place(model["object_name"], MODELS))
        return sorted(apps, key=lambda app: _place(app["app_label"], APPS))


def _place(name: str, order: tuple[str, ...]) -> int:
    return order.index(name) if name in order else len(order)

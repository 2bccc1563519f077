"""RQ's own pages in the admin, as far as they need more, or less, than ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from csp.constants import UNSAFE_INLINE
from django.contrib import admin
from django.template.response import TemplateResponse

from webhooks import tasks

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponse

STYLES = {"style-src": [UNSAFE_INLINE]}
SCRIPTS = {"script-src": [UNSAFE_INLINE]}


class QueuePages:
    """Middleware, inside of CSPMiddleware: these pages bring styles inside of
    their HTML, and that of a job scripts, too. They are for staff and show
    nothing that a tenant wrote: a job of ours has no arguments."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if name := _page_of_rq(request):
            looser = {**STYLES, **SCRIPTS} if name.endswith("job_detail") else STYLES
            response._csp_update = looser  # type: ignore[attr-defined]
        return response

    def process_view(self, request: HttpRequest, view: Any, *args: Any) -> HttpResponse | None:
        """They would be an error where Redis is away."""
        if not _page_of_rq(request) or not request.user.is_staff or tasks.answers():
            return None
        context = {**admin.site.each_context(request), "title": "Redis does not answer"}
        return TemplateResponse(request, "admin/redis_away.html", context, status=503)


def _page_of_rq(request: HttpRequest) -> str:
    """Its name; both where django-rq's URLs are included and where it adds itself to the admin."""
    found = request.resolver_match
    if found is None or not found.url_name:
        return ""
    return found.url_name if found.app_name == "django_rq" or found.url_name.startswith("django_rq_") else ""

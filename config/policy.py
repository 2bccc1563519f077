from __future__ import annotations

from typing import TYPE_CHECKING

from csp.constants import UNSAFE_INLINE

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponse

STYLES = {"style-src": [UNSAFE_INLINE]}
SCRIPTS = {"script-src": [UNSAFE_INLINE]}


class QueuePages:
    """Middleware, inside of CSPMiddleware: RQ's own pages in the admin bring
    styles inside of their HTML, and that of a job scripts, too. They are for
    staff and show nothing that a tenant wrote: a job of ours has no arguments."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        found = request.resolver_match
        name = (found.url_name or "") if found is not None else ""
        # Both where django-rq's URLs are included and where it adds itself to the admin.
        if name.startswith("django_rq_") or (found is not None and found.app_name == "django_rq"):
            looser = {**STYLES, **SCRIPTS} if name.endswith("job_detail") else STYLES
            response._csp_update = looser  # type: ignore[attr-defined]
        return response

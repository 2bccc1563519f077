from __future__ import annotations

from typing import TYPE_CHECKING

from csp.constants import UNSAFE_INLINE

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponse

LOOSER = {"script-src": [UNSAFE_INLINE], "style-src": [UNSAFE_INLINE]}


class QueuePages:
    """Middleware, inside of CSPMiddleware: RQ's own pages in the admin bring
    scripts and styles inside of their HTML. They are for staff, and show
    nothing that a tenant wrote: a job of ours has no arguments."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        found = request.resolver_match
        # Both where django-rq's URLs are included and where it adds itself to the admin.
        if found is not None and "django_rq" in {found.app_name, (found.url_name or "")[: len("django_rq")]}:
            response._csp_update = LOOSER  # type: ignore[attr-defined]
        return response

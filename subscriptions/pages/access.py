"""Who may see a tenant's pages, and who may change what they show.

    @page(Role.DEVELOPER)
    def edit(request: TenantRequest, pk: int) -> HttpResponse: ...

The outsider gets 404, as if the tenant were not there; a member whose role
does not reach gets 403.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.cache import patch_cache_control, patch_vary_headers
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _

from subscriptions import support
from subscriptions.models import Membership, Role, Tenant

if TYPE_CHECKING:
    from collections.abc import Callable

    View = Callable[..., HttpResponse]

RANK = {Role.VIEWER: 0, Role.DEVELOPER: 1, Role.OWNER: 2}
SAFE = {"GET", "HEAD", "OPTIONS"}


class TenantRequest(HttpRequest):
    """A request to a page of `tenant`, by somebody whose role is `role`."""

    tenant: Tenant
    role: Role
    support: bool  # the operator looks, and changes nothing

    may: Callable[[Role], bool]  # whether the role reaches that far


def page(role: Role = Role.VIEWER, *, write: Role | None = None) -> Callable[[View], View]:
    """A view under /t/<slug>/; `role` is needed at all, `write` for a POST."""

    def decorate(view: View) -> View:
        @wraps(view)
        def wrapped(request: Any, slug: str, *args: Any, **kwargs: Any) -> HttpResponse:
            if not request.user.is_authenticated:
                return _to_sign_in(request)
            request.tenant, request.role, request.support = _standing(request, slug)
            request.may = lambda needed: not request.support and RANK[request.role] >= RANK[needed]
            needed = write if write and request.method not in SAFE else role
            if request.support:
                _look(request)
            elif RANK[request.role] < RANK[needed]:
                raise PermissionDenied(_("This takes the role %(role)s.") % {"role": needed.label})
            return _for_one(view(request, *args, **kwargs))

        return wrapped

    return decorate


def _for_one(response: HttpResponse) -> HttpResponse:
    """No cache shows it to somebody else, and none shows a part, which htmx
    asked for, as the page."""
    patch_vary_headers(response, ["HX-Request", "HX-Target"])
    patch_cache_control(response, private=True)
    return response


def _to_sign_in(request: HttpRequest) -> HttpResponse:
    """And then back to where the person was."""
    if request.headers.get("HX-Request"):
        # Of a page that is open: it loads afresh, rather than show a sign-in in its middle.
        return HttpResponse(headers={"HX-Refresh": "true"})
    return redirect_to_login(request.get_full_path() if request.method in SAFE else _page_of_form(request))


def _page_of_form(request: HttpRequest) -> str:
    """What was to be sent is gone; the page it stood on is not."""
    page = request.headers.get("Referer", "")
    if not url_has_allowed_host_and_scheme(page, {request.get_host()}, require_https=request.is_secure()):
        return request.get_full_path()
    parts = urlsplit(page)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def _standing(request: HttpRequest, slug: str) -> tuple[Tenant, Role, bool]:
    membership = Membership.objects.filter(tenant__slug=slug, user=request.user.pk).select_related("tenant").first()
    if membership is not None:
        return membership.tenant, Role(membership.role), False
    tenant = Tenant.objects.filter(slug=slug).first()
    # Only after the operator has said so in the admin, where it is recorded.
    if tenant is not None and support.looks_at(request, tenant):
        return tenant, Role.OWNER, True
    raise Http404


def _look(request: Any) -> None:
    if request.method not in SAFE:
        raise PermissionDenied(_("Support looks, and changes nothing."))
    support.record(request, request.tenant)

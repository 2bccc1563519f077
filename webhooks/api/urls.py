"""The REST API. A host project mounts it where it likes:
`path("api/v1/", include("webhooks.api.urls"))`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.urls import Resolver404, path, re_path, resolve
from django.views.decorators.csrf import csrf_exempt

from subscriptions.api import topics
from subscriptions.api.views import NotFound
from subscriptions.models import home

if TYPE_CHECKING:
    from django.http import HttpRequest

app_name = "signalpost-api"


@csrf_exempt
@transaction.non_atomic_requests(using=home())
def elsewhere(request: HttpRequest) -> Any:
    """An address without its last slash is the same; there is nothing at any other."""
    view = NotFound.as_view()
    if not request.path_info.endswith("/"):
        try:
            found = resolve(f"{request.path_info}/", getattr(request, "urlconf", None))
        except Resolver404:
            return view(request)
        if found.func is not elsewhere:
            request.resolver_match = found
            return found.func(request, *found.args, **found.kwargs)
    return view(request)


urlpatterns = [
    path("topics/", topics.TopicList.as_view(), name="topics"),
    path("topics/<str:name>/", topics.TopicDetail.as_view(), name="topic"),
    re_path("", elsewhere),
]

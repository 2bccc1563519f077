"""A host project that mounts the pages, and signs people in by itself."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import include, path


def sign_in(request: HttpRequest) -> HttpResponse:
    return HttpResponse("the host's own")


urlpatterns = [
    path("hosts/sign-in/", sign_in, name="hosts_sign_in"),
    path("webhooks/", include("webhooks.pages.urls")),
]

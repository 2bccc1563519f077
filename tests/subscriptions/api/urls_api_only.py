"""A host project that mounts the API somewhere, in a
namespace of its own or not, and no pages."""

from __future__ import annotations

from django.urls import include, path

nested = [path("hooks/", include("webhooks.api.urls"))]
urlpatterns = [
    path("hooks/", include("webhooks.api.urls")),
    path("inside/", include((nested, "api"))),
]

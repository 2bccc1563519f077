"""A host project that mounts the API somewhere, and no pages."""

from __future__ import annotations

from django.urls import include, path

urlpatterns = [path("hooks/", include("webhooks.api.urls"))]

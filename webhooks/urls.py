"""What runs and how; any project may include it: `path("", include("webhooks.urls"))`."""

from __future__ import annotations

from django.urls import path

from webhooks.health import healthz, readyz
from webhooks.metrics import metrics

urlpatterns = [
    path("healthz", healthz, name="signalpost-healthz"),
    path("readyz", readyz, name="signalpost-readyz"),
    path("metrics", metrics, name="signalpost-metrics"),
]

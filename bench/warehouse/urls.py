"""No pages: those of the project belong to Signalpost."""

from __future__ import annotations

from django.urls import URLPattern

urlpatterns: list[URLPattern] = []

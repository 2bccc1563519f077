"""No pages: those of the project belong to Signalpost. And the view that publishing is compared with."""

from __future__ import annotations

from django.urls import path

from bench.peers.bare_view import BareView

urlpatterns = [path("events/", BareView.as_view())]

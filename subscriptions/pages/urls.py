"""The pages on which wishes are edited."""

from __future__ import annotations

from django.urls import path

from subscriptions.pages import support
from subscriptions.pages.soon import soon

app_name = "subscriptions"

urlpatterns = [
    path("support/end/", support.end, name="support_end"),
    path("t/<slug:slug>/subscriptions/new/", soon, name="create"),
    path("t/<slug:slug>/subscriptions/<int:pk>/edit/", soon, name="edit"),
    path("t/<slug:slug>/topics/", soon, name="topics"),
    path("t/<slug:slug>/keys/", soon, name="keys"),
    path("t/<slug:slug>/members/", soon, name="members"),
    path("t/<slug:slug>/settings/", soon, name="settings"),
    path("t/<slug:slug>/audit/", soon, name="audit"),
]

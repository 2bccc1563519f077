"""A tenant's pages, all of them. A project with a sign-in of its own includes
just these: `path("webhooks/", include("webhooks.pages.urls"))`."""

from __future__ import annotations

from django.urls import include, path

from subscriptions.pages.soon import soon

traffic = [
    path("t/<slug:slug>/", soon, name="overview"),
    path("t/<slug:slug>/subscriptions/<int:pk>/", soon, name="subscription"),
    path("t/<slug:slug>/deliveries/", soon, name="deliveries"),
    path("t/<slug:slug>/deliveries/<int:pk>/", soon, name="delivery"),
    path("t/<slug:slug>/replays/new/", soon, name="replay_new"),
    path("t/<slug:slug>/replays/<int:pk>/", soon, name="replay"),
    path("t/<slug:slug>/inbox/", soon, name="inbox"),
]

urlpatterns = [
    path("", include("subscriptions.pages.urls")),
    path("", include((traffic, "webhooks"))),
]

"""A tenant's pages, all of them. A project with a sign-in of its own includes
just these: `path("webhooks/", include("webhooks.pages.urls"))`."""

from __future__ import annotations

from django.urls import include, path

from webhooks.pages import deliveries, delivery, inbox, overview, removal, replays, samples, subscription

traffic = [
    path("t/<slug:slug>/", overview.overview, name="overview"),
    path("t/<slug:slug>/subscriptions/<int:pk>/", subscription.subscription, name="subscription"),
    path("t/<slug:slug>/subscriptions/<int:pk>/secret/", subscription.secret, name="secret"),
    path("t/<slug:slug>/subscriptions/<int:pk>/rotate/", subscription.rotate, name="rotate"),
    path("t/<slug:slug>/subscriptions/<int:pk>/disable/", subscription.disable, name="disable"),
    path("t/<slug:slug>/subscriptions/<int:pk>/enable/", subscription.enable, name="enable"),
    path("t/<slug:slug>/subscriptions/<int:pk>/test/", subscription.test, name="test"),
    path("t/<slug:slug>/subscriptions/<int:pk>/delete/", removal.delete, name="delete"),
    path("t/<slug:slug>/topics/<str:topic>/", samples.topic, name="topic"),
    path("t/<slug:slug>/deliveries/", deliveries.deliveries, name="deliveries"),
    path("t/<slug:slug>/deliveries/<int:pk>/", delivery.delivery, name="delivery"),
    path("t/<slug:slug>/deliveries/<int:pk>/body/", delivery.body, name="delivery_body"),
    path("t/<slug:slug>/deliveries/<int:pk>/curl/", delivery.curl, name="delivery_curl"),
    path("t/<slug:slug>/deliveries/<int:pk>/replay/", delivery.replay, name="delivery_replay"),
    path("t/<slug:slug>/deliveries/<int:pk>/cancel/", delivery.cancel, name="delivery_cancel"),
    path("t/<slug:slug>/replays/", replays.replays, name="replays"),
    path("t/<slug:slug>/replays/new/", replays.replay_new, name="replay_new"),
    path("t/<slug:slug>/replays/<int:pk>/", replays.replay, name="replay"),
    path("t/<slug:slug>/replays/<int:pk>/cancel/", replays.replay_cancel, name="replay_cancel"),
    path("t/<slug:slug>/inbox/", inbox.inbox, name="inbox"),
]

urlpatterns = [
    path("", include("subscriptions.pages.urls")),
    path("", include((traffic, "webhooks"))),
]

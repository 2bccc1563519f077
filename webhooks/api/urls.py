"""The REST API. A host project mounts it where it likes:
`path("api/v1/", include("webhooks.api.urls"))`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.urls import Resolver404, path, re_path, resolve
from django.views.decorators.csrf import csrf_exempt

from subscriptions.api import audit, keys, people, subscriptions, tenants, topics
from subscriptions.api.problems import NAMESPACE
from subscriptions.api.views import NotFound
from subscriptions.models import home
from webhooks.api import attempts, deliveries, documents, events, feed, health, inbox, replays, stats, trials, wishes

if TYPE_CHECKING:
    from django.http import HttpRequest

app_name = NAMESPACE


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
    path("tenants/", tenants.TenantList.as_view(), name="tenants"),
    path("tenants/<slug:slug>/", tenants.TenantDetail.as_view(), name="tenant"),
    path("tenants/<slug:slug>/disable/", tenants.TenantDisable.as_view(), name="tenant_disable"),
    path("tenants/<slug:slug>/enable/", tenants.TenantEnable.as_view(), name="tenant_enable"),
    path("subscriptions/", subscriptions.SubscriptionList.as_view(), name="subscriptions"),
    path("subscriptions/<int:pk>/", wishes.SubscriptionDetail.as_view(), name="subscription"),
    path("subscriptions/<int:pk>/enable/", subscriptions.SubscriptionEnable.as_view(), name="subscription_enable"),
    path("subscriptions/<int:pk>/disable/", subscriptions.SubscriptionDisable.as_view(), name="subscription_disable"),
    path("subscriptions/<int:pk>/secrets/", subscriptions.SubscriptionSecrets.as_view(), name="secrets"),
    path("subscriptions/<int:pk>/rotate/", subscriptions.SubscriptionRotate.as_view(), name="secret_rotate"),
    path("subscriptions/<int:pk>/test/", trials.SubscriptionTest.as_view(), name="subscription_test"),
    path("subscriptions/<int:pk>/stats/", stats.SubscriptionStats.as_view(), name="subscription_stats"),
    path("subscriptions/<int:pk>/feed/", feed.SubscriptionFeed.as_view(), name="feed"),
    path("health/", health.Health.as_view(), name="health"),
    path("stats/", stats.Stats.as_view(), name="stats"),
    path("events/", events.EventList.as_view(), name="events"),
    path("events/batch/", events.EventBatch.as_view(), name="event_batch"),
    path("events/<str:name>/", events.EventDetail.as_view(), name="event"),
    path("deliveries/", deliveries.DeliveryList.as_view(), name="deliveries"),
    path("deliveries/<int:pk>/", deliveries.DeliveryDetail.as_view(), name="delivery"),
    path("deliveries/<int:pk>/replay/", deliveries.DeliveryReplay.as_view(), name="delivery_replay"),
    path("deliveries/<int:pk>/cancel/", deliveries.DeliveryCancel.as_view(), name="delivery_cancel"),
    path("deliveries/<int:pk>/attempts/", attempts.AttemptList.as_view(), name="attempts"),
    path("attempts/<int:pk>/", attempts.AttemptDetail.as_view(), name="attempt"),
    path("replays/", replays.ReplayList.as_view(), name="replays"),
    path("replays/count/", replays.ReplayCount.as_view(), name="replay_count"),
    path("replays/<int:pk>/", replays.ReplayDetail.as_view(), name="replay"),
    path("replays/<int:pk>/cancel/", replays.ReplayCancel.as_view(), name="replay_cancel"),
    path("inbox/", inbox.InboxList.as_view(), name="inbox"),
    path("topics/", topics.TopicList.as_view(), name="topics"),
    path("topics/<str:name>/", wishes.TopicDetail.as_view(), name="topic"),
    path("keys/", keys.KeyList.as_view(), name="keys"),
    path("keys/<int:pk>/", keys.KeyDetail.as_view(), name="key"),
    path("keys/<int:pk>/revoke/", keys.KeyRevoke.as_view(), name="key_revoke"),
    path("members/", people.MemberList.as_view(), name="members"),
    path("members/<int:pk>/", people.MemberDetail.as_view(), name="member"),
    path("invitations/", people.InvitationList.as_view(), name="invitations"),
    path("invitations/<int:pk>/", people.InvitationDetail.as_view(), name="invitation"),
    path("invitations/<int:pk>/again/", people.InvitationAgain.as_view(), name="invitation_again"),
    path("audit/", audit.Entries.as_view(), name="audit"),
    path("openapi.json", documents.OpenApi.as_view(), name="openapi"),
    path("docs/", documents.docs, name="docs"),
    path("", documents.root, name="root"),
    re_path("", elsewhere),
]

"""The pages on which wishes are edited."""

from __future__ import annotations

from django.urls import path

from subscriptions.pages import audit, invitations, keys, members, subscriptions, support, tenant, topics, zone

app_name = "subscriptions"

urlpatterns = [
    path("account/zone/", zone.zone, name="zone"),
    path("support/end/", support.end, name="support_end"),
    path("t/<slug:slug>/subscriptions/new/", subscriptions.create, name="create"),
    path("t/<slug:slug>/subscriptions/check/", subscriptions.check, name="check"),
    path("t/<slug:slug>/subscriptions/<int:pk>/edit/", subscriptions.edit, name="edit"),
    path("t/<slug:slug>/topics/", topics.topics, name="topics"),
    path("t/<slug:slug>/keys/", keys.keys, name="keys"),
    path("t/<slug:slug>/keys/new/", keys.key_new, name="key_new"),
    path("t/<slug:slug>/keys/<int:pk>/revoke/", keys.key_revoke, name="key_revoke"),
    path("t/<slug:slug>/members/", members.members, name="members"),
    path("t/<slug:slug>/members/<int:pk>/", members.member, name="member"),
    path("t/<slug:slug>/members/<int:pk>/remove/", members.member_remove, name="member_remove"),
    path("t/<slug:slug>/invitations/<int:pk>/again/", members.invitation_again, name="invitation_again"),
    path("t/<slug:slug>/invitations/<int:pk>/withdraw/", members.invitation_withdraw, name="invitation_withdraw"),
    path("invitations/<str:token>/", invitations.invitation, name="invitation"),
    path("t/<slug:slug>/settings/", tenant.tenant, name="settings"),
    path("t/<slug:slug>/leave/", members.leave, name="leave"),
    path("t/<slug:slug>/audit/", audit.audit, name="audit"),
]

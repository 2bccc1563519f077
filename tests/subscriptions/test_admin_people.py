"""Invitations, API keys and the audit log in the admin."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from subscriptions import keys
from subscriptions.models import ApiKey, AuditEntry, Invitation, Tenant
from subscriptions.trail import Actor, note

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.django_db, pytest.mark.on("sqlite")]

Action = AuditEntry.Action
LOG = "/admin/subscriptions/auditentry/"
KEYS = "/admin/subscriptions/apikey/"
INVITATIONS = "/admin/subscriptions/invitation/"
AT_MOST = 14  # queries of a list, however many rows it shows


@pytest.fixture
def staff(client: Client) -> Callable[..., Client]:
    """A member of the staff who may do what is named, logged in."""

    def login(*permissions: str) -> Client:
        user = User.objects.create_user("staff", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        client.force_login(user)
        return client

    return login


@pytest.fixture
def key(tenant: Tenant) -> ApiKey:
    return keys.create(tenant, Actor("alice"), name="Billing", scopes=["read"])[0]


def test_staff_without_the_permission_reads_none_of_it(staff: Callable[..., Client]) -> None:
    client = staff("view_tenant")
    assert {client.get(url).status_code for url in (LOG, KEYS, INVITATIONS)} == {403}


def test_the_log_of_all_tenants_is_read_in_sentences_and_narrowed(
    staff: Callable[..., Client], tenant: Tenant, make_tenant: Callable[..., Tenant]
) -> None:
    other = make_tenant("globex")
    note(Actor("alice", address="203.0.113.7"), Action.SECRET_ROTATED, tenant=tenant, name="Billing")
    note(Actor("charlie"), Action.SECRET_REVEALED, tenant=other, name="<script>")
    other.delete()
    client = staff("view_auditentry")
    page = client.get(LOG).content.decode()
    assert "<b>alice</b> rotated the secret of <b>Billing</b>" in page
    assert "203.0.113.7" in page
    assert f"number {AuditEntry.objects.latest('pk').tenant_id}" in page
    assert "<script>charlie" not in page
    for query, shown in (("tenant=acme", 1), ("actor=charlie", 1), ("action__exact=secret.rotated", 1), ("", 2)):
        assert len(client.get(f"{LOG}?{query}").context["cl"].result_list) == shown, query


@pytest.mark.parametrize("permissions", [("view_auditentry", "change_auditentry", "delete_auditentry")])
def test_nobody_writes_in_the_log(permissions: tuple[str, ...], staff: Callable[..., Client], tenant: Tenant) -> None:
    entry = note(Actor("alice"), Action.SECRET_ROTATED, tenant=tenant, name="Billing")
    client = staff(*permissions)
    page = f"{LOG}{entry.pk}/change/"
    assert client.get(page).status_code == 200
    assert client.post(page, {"actor": "charlie"}).status_code == 403
    assert client.get(f"{LOG}add/").status_code == 403
    assert client.post(f"{LOG}{entry.pk}/delete/", {"post": "yes"}).status_code == 403
    assert AuditEntry.objects.get(pk=entry.pk).actor == "alice"


def test_a_long_log_takes_no_more_queries(
    staff: Callable[..., Client], tenant: Tenant, django_assert_max_num_queries: Any
) -> None:
    AuditEntry.objects.bulk_create(
        AuditEntry(tenant_id=tenant.pk, action=Action.MEMBER_LEFT, actor=f"u{number}") for number in range(120)
    )
    client = staff("view_auditentry")
    with django_assert_max_num_queries(AT_MOST):
        assert client.get(LOG).status_code == 200


def test_the_operator_revokes_a_key_and_that_is_noted(staff: Callable[..., Client], key: ApiKey) -> None:
    client = staff("view_apikey", "change_apikey")
    client.post(KEYS, {"action": "revoke", "_selected_action": [key.pk]})
    assert not ApiKey.objects.live().exists()
    entry = AuditEntry.objects.get(action=Action.KEY_REVOKED)
    assert (entry.actor, entry.as_operator, entry.tenant_id) == ("staff", True, key.tenant_id)


def test_who_only_looks_revokes_nothing(staff: Callable[..., Client], key: ApiKey) -> None:
    client = staff("view_apikey")
    client.post(KEYS, {"action": "revoke", "_selected_action": [key.pk]})
    assert list(ApiKey.objects.live()) == [key]


def test_a_key_is_read_without_its_hash(staff: Callable[..., Client], key: ApiKey) -> None:
    client = staff("view_apikey", "change_apikey")
    for url in (KEYS, f"{KEYS}{key.pk}/change/"):
        page = client.get(url).content.decode()
        assert key.beginning in page
        assert key.digest not in page


def test_invitations_say_whether_they_are_open(staff: Callable[..., Client], tenant: Tenant) -> None:
    for name, mailed, days in (("open", timezone.now(), 7), ("unsent", None, 7), ("old", None, -1)):
        invitation = Invitation(tenant=tenant, email=f"{name}@acme.example")
        invitation.fill()
        invitation.mailed_at, invitation.expires_at = mailed, timezone.now() + timedelta(days=days)
        invitation.save()
    client = staff("view_invitation")
    page = client.get(INVITATIONS).content.decode()
    for word in ("mail not sent", "expired", ">open"):
        assert word in page.replace("</span>open", ">open")
    one = Invitation.objects.get(email="open@acme.example")
    assert one.digest not in client.get(f"{INVITATIONS}{one.pk}/change/").content.decode()


def test_a_list_is_called_what_its_rows_are_called(staff: Callable[..., Client]) -> None:
    client = staff("view_apikey", "view_auditentry")
    assert client.get(KEYS).context["title"] == "API keys"
    assert client.get(LOG).context["title"] == "Audit entries"

"""Members, invitations and the audit log by the API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.core import mail
from django.test import override_settings

from subscriptions import people
from subscriptions.models import AuditEntry, Invitation, Membership, Role

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User

    from subscriptions.models import Tenant
    from tests.programs import Api


def code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def of(user: User) -> Membership:
    return Membership.objects.get(user=user)


def test_members_are_listed(api: Api, alice: User, bob: User) -> None:
    shown = api.get("members/").json()["data"]
    assert [(each["name"], each["role"]) for each in shown] == [
        ("bob@acme.example", "developer"),
        ("alice@acme.example", "owner"),
    ]
    assert api.get(f"members/{shown[0]['id']}/").json() == shown[0]


def test_a_tenants_key_changes_no_people(api: Api, alice: User, bob: User) -> None:
    for answer in (
        api.patch(f"members/{of(bob).pk}/", {"role": "owner"}),
        api.delete(f"members/{of(bob).pk}/"),
        api.post("invitations/", {"email": "mallory@example.com", "role": "owner"}),
        api.delete("invitations/1/"),
        api.post("invitations/1/again/"),
    ):
        assert code(answer) == (403, "missing_scope")
        assert "operate" in answer.json()["detail"]
    assert of(bob).role == Role.DEVELOPER


def test_a_scope_that_a_tenants_key_should_not_have_does_not_help_it(
    tenant: Tenant, make_api: Callable[..., Api], bob: User
) -> None:
    odd = make_api(tenant, scopes=["read", "write", "operate"])
    assert code(odd.patch(f"members/{of(bob).pk}/", {"role": "owner"})) == (403, "missing_scope")
    assert code(odd.post("tenants/", {"slug": "mine", "name": "Mine"})) == (403, "missing_scope")


def test_the_operator_gives_roles_and_removes(operator: Api, alice: User, bob: User) -> None:
    path = f"members/{of(bob).pk}/?tenant=acme"
    assert operator.patch(path, {"role": "owner", "was": "developer"}).json()["role"] == "owner"
    assert code(operator.patch(path, {"role": "viewer", "was": "developer"})) == (412, "stale")
    assert operator.patch(path, {"role": "viewer"}).status_code == 200
    assert operator.delete(path).status_code == 204
    assert code(operator.delete(path)) == (404, "not_found")
    assert AuditEntry.objects.filter(as_operator=True).count() == 3


def test_the_last_owner_stays(operator: Api, alice: User) -> None:
    path = f"members/{of(alice).pk}/?tenant=acme"
    assert code(operator.patch(path, {"role": "viewer"})) == (409, "refused")
    assert code(operator.delete(path)) == (409, "refused")


@pytest.mark.django_db(transaction=True)
def test_the_operator_invites_by_mail(operator: Api, tenant: Tenant) -> None:
    answer = operator.post("invitations/?tenant=acme", {"email": "Dora@Acme.example", "role": "viewer"})
    assert answer.status_code == 201
    made = answer.json()
    assert (made["email"], made["role"]) == ("dora@acme.example", "viewer")
    assert made["mailed_at"] is not None
    assert "http://testserver/invitations/" in mail.outbox[0].body
    assert operator.get("invitations/?tenant=acme").json()["data"] == [made]
    assert operator.get(f"invitations/{made['id']}/?tenant=acme").json() == made
    twice = operator.post("invitations/?tenant=acme", {"email": "dora@acme.example", "role": "viewer"})
    assert code(twice) == (400, "invalid")
    assert twice.json()["errors"][0]["field"] == "/email"
    assert code(operator.post(f"invitations/{made['id']}/again/?tenant=acme")) == (409, "refused")
    assert operator.delete(f"invitations/{made['id']}/?tenant=acme").status_code == 204
    assert code(operator.delete(f"invitations/{made['id']}/?tenant=acme")) == (404, "not_found")


@pytest.mark.django_db(transaction=True)
def test_an_invitation_is_sent_again(operator: Api, tenant: Tenant) -> None:
    made = operator.post("invitations/?tenant=acme", {"email": "dora@acme.example", "role": "viewer"}).json()
    Invitation.objects.update(mailed_at=None)
    again = operator.post(f"invitations/{made['id']}/again/?tenant=acme").json()
    assert again["expires_at"] > made["expires_at"]
    assert len(mail.outbox) == 2


@pytest.mark.django_db(transaction=True)
def test_a_test_key_sends_no_mail(make_api: Callable[..., Api], tenant: Tenant) -> None:
    test = make_api(None, scopes=["operate"], mode="test")
    answer = test.post("invitations/?tenant=acme", {"email": "dora@acme.example", "role": "viewer"})
    assert answer.status_code == 201
    assert not mail.outbox
    assert not Invitation.objects.exists()


def test_without_pages_nobody_is_invited(operator: Api, tenant: Tenant) -> None:
    with override_settings(ROOT_URLCONF="tests.subscriptions.api.urls_api_only"):
        answer = operator.post("/hooks/invitations/?tenant=acme", {"email": "dora@acme.example", "role": "viewer"})
    assert code(answer) == (409, "refused")
    assert not Invitation.objects.exists()


@pytest.mark.parametrize("email", ["", "dora", "dora@", "dora@acme.example\r\nBcc: x@y.example", "ä" * 300, 7, None])
def test_a_wrong_address_is_refused(operator: Api, tenant: Tenant, email: Any) -> None:
    answer = operator.post("invitations/?tenant=acme", {"email": email, "role": "viewer"})
    assert code(answer) == (400, "invalid")
    assert {each["field"] for each in answer.json()["errors"]} == {"/email"}


def test_who_is_invited_again_and_again_is_left_alone(
    operator: Api, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(people, "MOST_OPEN", 0)
    answer = operator.post("invitations/?tenant=acme", {"email": "dora@acme.example", "role": "viewer"})
    assert code(answer) == (409, "refused")


def test_the_audit_log_is_filtered(api: Api, operator: Api, alice: User) -> None:
    made = api.post("keys/", {"name": "One", "scopes": ["read"]}).json()
    api.post(f"keys/{made['id']}/revoke/")
    entries = api.get("audit/").json()["data"]
    assert [each["action"] for each in entries] == ["key.revoked", "key.created"]
    assert entries[0]["about"] == {"kind": "apikey", "id": str(made["id"]), "name": f"One ({made['beginning']}…)"}
    assert entries[1]["detail"] == {"scopes": ["read"], "mode": "live", "networks": []}
    assert [each["action"] for each in api.get("audit/?action=key.created").json()["data"]] == ["key.created"]
    assert api.get("audit/?actor=nobody").json()["data"] == []
    assert len(api.get("audit/", {"actor": str(api.key)}).json()["data"]) == 2
    assert api.get("audit/?created_before=2020-01-01T00:00:00Z").json()["data"] == []
    assert code(api.get("audit/?action=key.eaten")) == (400, "bad_filter")


def test_where_colleagues_were_only_the_operator_is_told(api: Api, operator: Api) -> None:
    api.post("keys/", {"name": "One", "scopes": ["read"]})
    assert [each["address"] for each in api.get("audit/").json()["data"]] == [None]
    assert [each["address"] for each in operator.get("audit/?tenant=acme").json()["data"]] == ["127.0.0.1"]

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.contrib.auth import get_user_model
from django.db.models import QuerySet

from subscriptions import founding
from subscriptions.models import AuditEntry, Membership, Role, Tenant
from subscriptions.trail import Actor

if TYPE_CHECKING:
    from django.contrib.auth.models import User

pytestmark = pytest.mark.django_db


@pytest.fixture
def alice() -> User:
    user: User = get_user_model().objects.create_user("alice", "alice@acme.example")
    return user


def found(name: str, alice: User) -> Tenant:
    return founding.found(name, owner=alice, actor=Actor(alice.email, alice.pk, "203.0.113.7"))


def test_a_tenant_begins_with_its_owner_and_its_first_entry(alice: User) -> None:
    tenant = found("Acme", alice)
    assert Membership.objects.get(tenant=tenant, user=alice).role == Role.OWNER
    entry = AuditEntry.objects.get()
    assert (entry.tenant_id, entry.action, entry.actor) == (tenant.pk, "tenant.created", "alice@acme.example")
    assert (entry.number, entry.name, entry.address) == (str(tenant.pk), "acme", "203.0.113.7")


def test_of_two_with_one_name_at_once_both_get_an_address(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    found("Acme", alice)
    monkeypatch.setattr(QuerySet, "exists", lambda self: False)  # the other one is not there yet
    assert found("Acme", alice).slug.startswith("acme-")
    assert Tenant.objects.count() == 2


def test_where_no_address_is_free_nothing_is_made(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    found("Acme", alice)
    monkeypatch.setattr(founding, "_another", lambda slug: slug)
    with pytest.raises(RuntimeError, match="No free address for a tenant after 8 tries"):
        found("Acme", alice)
    assert Tenant.objects.count() == 1


@pytest.mark.parametrize(
    ("name", "slug"),
    [("Acme", "acme"), ("Åre & Co.", "are-co"), ("---", "tenant"), ("日本", "tenant"), ("x" * 300, "x" * 48)],
)
def test_a_name_makes_an_address(name: str, slug: str) -> None:
    assert founding.slug_of(name) == slug


def test_an_address_always_fits(alice: User) -> None:
    found("x" * 200, alice)
    assert len(found("x" * 200, alice).slug) <= 63

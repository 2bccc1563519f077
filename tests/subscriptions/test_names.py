"""Names hold nothing unseen, wherever they are given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError

from subscriptions import edits, founding, keys, names, people
from subscriptions.models import Membership, Subscription, Tenant
from subscriptions.trail import Actor

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.test import Client

    Browser = Callable[[User], Client]

UNSEEN = [
    *("\x00", "\x07", "\x1b", "\n", "\x7f", "\x85", "\x9f", "\ud800", "\u2028"),
    *("\u061c", "\u200e", "\u200f", "\u202a", "\u202e", "\u2066", "\u2069"),
]
OVERRIDE = "Acme\u202egnp.exe"


@pytest.mark.parametrize("character", UNSEEN, ids=ascii)
def test_a_control_or_a_turn_of_the_writing_is_refused(character: str) -> None:
    assert "invisible character" in names.trouble(f"Ac{character}me")
    with pytest.raises(ValidationError):
        names.check(f"{character}Acme")


@pytest.mark.parametrize("name", ["", "Acme & Söhne", "株式会社", "שלום עולם", "مرحبا", "👩\u200d💻 team", "a\u00a0b"])
def test_any_script_is_a_name(name: str) -> None:
    assert names.trouble(name) == ""
    names.check(name)


@pytest.mark.django_db
def test_nothing_is_called_so(tenant: Tenant, alice: User) -> None:
    actor = Actor(alice.email, alice.pk)
    deeds: dict[str, Callable[[], Any]] = {
        "a new tenant": lambda: founding.found(OVERRIDE, owner=alice, actor=actor),
        "a tenant": lambda: people.rename(tenant, actor, name=OVERRIDE, was=tenant.name),
        "a tenant of the admin": lambda: Tenant(slug="other", name=OVERRIDE).full_clean(),
        "a subscription": lambda: edits.create(tenant, actor, name=OVERRIDE, url="https://a.example", topics={"*": []}),
        "a key": lambda: keys.create(tenant, actor, name=OVERRIDE, scopes=["read"]),
    }
    for what, deed in deeds.items():
        with pytest.raises(ValidationError) as refused:
            deed()
        assert "invisible" in refused.value.message_dict["name"][0], what
    with pytest.raises(ValidationError) as refused:
        people.invite(tenant, actor, email="bob@ex\u202eample.com", role="viewer", link=str)
    assert list(refused.value.message_dict) == ["email"]
    assert list(Tenant.objects.values_list("name", flat=True)) == ["Acme"]
    assert not Subscription.objects.exists()


@pytest.mark.django_db
def test_the_pages_say_so_at_the_field(alice: User, browser: Browser) -> None:
    client = browser(alice)
    for path, field, rest in (
        ("/t/acme/settings/", "name", {"was": "Acme"}),
        ("/t/acme/keys/new/", "name", {"scopes": ["read"], "mode": "live"}),
        ("/t/acme/subscriptions/new/", "name", {"target": "inbox", "topic": ["*"]}),
        ("/tenants/new/", "company", {}),
    ):
        response = client.post(path, {field: OVERRIDE, **rest})
        assert "invisible" in response.context["form"].errors[field][0], path
    assert Membership.objects.count() == 1


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("field", "value"), [("company", OVERRIDE), ("email", "alice@ex\u202eample.com")], ids=["company", "email"]
)
def test_nobody_signs_up_so(client: Client, field: str, value: str) -> None:
    words = "correct horse battery staple"
    typed = {"company": "Acme", "email": "alice@example.com", "password1": words, "password2": words, field: value}
    response = client.post("/account/signup/", typed)
    assert response.context["form"].errors[field]
    assert not User.objects.exists()

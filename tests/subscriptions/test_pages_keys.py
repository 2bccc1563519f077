"""The pages of a tenant's API keys."""

from __future__ import annotations

import logging
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from subscriptions import keys
from subscriptions.models import ApiKey, AuditEntry, Membership, Role, Tenant
from subscriptions.trail import Actor

if TYPE_CHECKING:
    from collections.abc import Callable

    Browser = Callable[[User], Client]

pytestmark = [pytest.mark.django_db, pytest.mark.on("sqlite")]

KEYS, NEW = "/t/acme/keys/", "/t/acme/keys/new/"
VALUE = re.compile(r"sp_(?:live|test)_[A-Za-z0-9_-]{43}")
GOOD = {"name": "Billing server", "scopes": ["read"], "mode": "live", "expires": "", "networks": ""}
AT_MOST = 12  # queries of a page, however many rows it shows


@pytest.fixture
def key(tenant: Tenant) -> ApiKey:
    return keys.create(tenant, Actor("alice@acme.example"), name="Billing", scopes=["read", "publish"])[0]


def revoking(key: ApiKey) -> str:
    return reverse("subscriptions:key_revoke", args=["acme", key.pk])


def text(response: Any) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", response.content.decode()).split())


def test_an_outsider_gets_404_and_who_is_not_signed_in_is_sent_to_sign_in(
    key: ApiKey, charlie: User, browser: Browser, client: Client
) -> None:
    for url in (KEYS, NEW, revoking(key)):
        assert browser(charlie).get(url).status_code == 404
        assert browser(charlie).post(url, GOOD).status_code == 404
        assert client.get(url)["Location"].endswith(f"?next={url}")
    assert list(ApiKey.objects.live()) == [key]


@pytest.mark.parametrize("role", [Role.VIEWER, Role.DEVELOPER])
def test_who_is_no_owner_sees_the_list_and_no_more(role: Role, key: ApiKey, bob: User, browser: Browser) -> None:
    Membership.objects.filter(user=bob).update(role=role)
    client = browser(bob)
    page = client.get(KEYS)
    assert "Owners make and revoke them." in text(page)
    assert b"Revoke" not in page.content
    assert b"New API key" not in page.content
    for url in (NEW, revoking(key)):
        assert client.get(url).status_code == 403
        assert client.post(url, GOOD).status_code == 403
    assert list(ApiKey.objects.live()) == [key]


def test_a_key_of_another_tenant_is_not_there(key: ApiKey, alice: User, charlie: User, browser: Browser) -> None:
    his = keys.create(Tenant.objects.get(slug="globex"), Actor("charlie"), name="Secret plan", scopes=["read"])[0]
    client = browser(alice)
    assert "Secret plan" not in text(client.get(KEYS))
    assert client.post(revoking(his)).status_code == 404
    assert his in ApiKey.objects.live()


def test_an_operators_key_is_on_no_tenants_page(alice: User, browser: Browser) -> None:
    key = ApiKey(name="Deploy", scopes=["operate"])
    key.fill()
    key.save()
    assert "Deploy" not in text(browser(alice).get(KEYS))
    assert browser(alice).get(revoking(key)).status_code == 404


def test_the_list_says_what_each_may_and_whether_it_works(key: ApiKey, alice: User, browser: Browser) -> None:
    ApiKey.objects.create(tenant=key.tenant, name="Old", digest="a", revoked_at=timezone.now())
    ApiKey.objects.create(tenant=key.tenant, name="Older", digest="b", expires_at=timezone.now() - timedelta(days=1))
    shown = text(browser(alice).get(KEYS))
    assert f"Billing {key.beginning}…" in shown
    for words in ("read publish", "Never", "Works", "Revoked", "Expired"):
        assert words in shown
    assert key.digest not in shown


def test_an_empty_list_says_what_a_key_is_for(alice: User, browser: Browser) -> None:
    page = browser(alice).get(KEYS)
    assert "No API keys yet" in text(page)
    assert NEW in page.content.decode()


def test_many_keys_take_no_more_queries_and_come_in_pages(
    tenant: Tenant, alice: User, browser: Browser, django_assert_max_num_queries: Any
) -> None:
    ApiKey.objects.bulk_create(
        ApiKey(tenant=tenant, name=f"key {number:03} {'long' * 40}", digest=str(number), networks=["10.0.0.0/8"] * 50)
        for number in range(120)
    )
    client, seen, url = browser(alice), list[str](), KEYS
    while url:
        with django_assert_max_num_queries(AT_MOST):
            page = client.get(url)
        seen += re.findall(r"key (\d{3}) ", page.content.decode().split("<dialog")[0])
        older = re.search(r'href="(\?[^"]*before=\d+)"', page.content.decode())
        url = KEYS + older[1] if older else ""
    assert list(dict.fromkeys(seen)) == [f"{number:03}" for number in reversed(range(120))]


def test_the_value_is_shown_once_and_kept_nowhere(
    alice: User, browser: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    client = browser(alice)
    with caplog.at_level(logging.DEBUG):
        page = client.post(NEW, {**GOOD, "scopes": ["read", "write"], "networks": "203.0.113.7\n2001:db8::/32"})
    assert page.status_code == 200
    assert "no-store" in page["Cache-Control"]
    (value,) = set(VALUE.findall(page.content.decode()))
    key = keys.authenticate(value, "203.0.113.7")
    assert key is not None
    assert (key.name, key.scopes, key.created_by) == ("Billing server", ["read", "write"], alice.email)
    assert key.networks == ["203.0.113.7/32", "2001:db8::/32"]
    assert value not in client.get(KEYS).content.decode()
    assert value not in caplog.text
    assert value not in str([session.get_decoded() for session in Session.objects.all()])
    assert value not in str(client.cookies)
    assert value not in str(list(AuditEntry.objects.values()))


def test_the_form_is_kept_by_no_cache(alice: User, browser: Browser) -> None:
    assert "no-store" in browser(alice).get(NEW)["Cache-Control"]


def test_sent_twice_it_makes_one_key(alice: User, browser: Browser) -> None:
    client = browser(alice)
    client.post(NEW, GOOD)
    again = client.post(NEW, GOOD)
    assert "There is a key of this name" in again.context["form"].errors["name"][0]
    assert ApiKey.objects.count() == 1


@pytest.mark.parametrize("days", [7, 30, 90, 365])
def test_it_expires_when_it_was_said_to(days: int, alice: User, browser: Browser) -> None:
    browser(alice).post(NEW, {**GOOD, "expires": str(days)})
    expires = ApiKey.objects.get().expires_at
    assert expires is not None
    assert abs(expires - timezone.now() - timedelta(days=days)) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("name", "", "Write what the key is for"),
        ("name", "x" * 201, "at most 200"),
        ("name", "a\x00b", "Null characters"),
        ("scopes", [], "Choose at least one."),
        ("scopes", ["operate"], "operate is not one of the available choices"),
        ("mode", "", "required"),
        ("mode", "loud", "loud is not one of the available choices"),
        ("expires", "-1", "-1 is not one of the available choices"),
        ("networks", "203.0.113.7/24", "Write 203.0.113.0/24."),
        ("networks", "the office", "the is no network."),
    ],
)
def test_what_is_wrong_is_said_at_its_field_and_all_that_was_typed_stays(
    field: str, value: Any, said: str, *, alice: User, browser: Browser
) -> None:
    posted = {**GOOD, "networks": "198.51.100.0/24", "expires": "30", field: value}
    response = browser(alice).post(NEW, posted)
    form = response.context["form"]
    assert list(form.errors) == [field]
    assert said in form.errors[field][0]
    assert text(response).count(said) == 2  # in the summary, and at the field
    assert {name: form[name].value() for name in posted} == posted
    assert not ApiKey.objects.exists()


def test_too_many_keys_is_said_above_the_form(
    key: ApiKey, alice: User, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "MOST", 1)
    response = browser(alice).post(NEW, GOOD)
    assert "no more may be. Revoke one first." in text(response)
    assert ApiKey.objects.count() == 1


def test_revoked_after_a_question(key: ApiKey, alice: User, browser: Browser) -> None:
    client = browser(alice)
    assert "Revoke Billing?" in text(client.get(revoking(key)))
    assert list(ApiKey.objects.live()) == [key]
    assert "Billing is revoked." in text(client.post(revoking(key), follow=True))
    assert not ApiKey.objects.live().exists()
    entry = AuditEntry.objects.get(action=AuditEntry.Action.KEY_REVOKED)
    assert (entry.actor, entry.number) == (alice.email, str(key.pk))


def test_revoked_twice_is_said(key: ApiKey, alice: User, browser: Browser) -> None:
    client = browser(alice)
    client.post(revoking(key))
    assert "Billing is revoked" in text(client.get(revoking(key)))
    assert "was revoked already" in text(client.post(revoking(key), follow=True))
    assert AuditEntry.objects.filter(action=AuditEntry.Action.KEY_REVOKED).count() == 1


def test_names_are_escaped(key: ApiKey, alice: User, browser: Browser) -> None:
    ApiKey.objects.update(name="<script>alert(1)</script>", created_by="<img src=x>")
    for url in (KEYS, revoking(key)):
        page = browser(alice).get(url).content.decode()
        assert "<script>alert" not in page
        assert "<img src=x>" not in page

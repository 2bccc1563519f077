"""The page of the audit log."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from subscriptions.models import AuditEntry, Membership, Role, Subscription, Tenant
from subscriptions.trail import Actor, note

if TYPE_CHECKING:
    from collections.abc import Callable

    Browser = Callable[[User], Client]

pytestmark = [pytest.mark.django_db, pytest.mark.on("sqlite")]

Action = AuditEntry.Action
AUDIT = "/t/acme/audit/"
AT_MOST = 12  # queries of a page, however many rows there are


def text(response: Any) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", response.content.decode()).split()).replace(" ,", ",")


def sentences(response: Any) -> list[str]:
    """Of each line, the name of what it was done to."""
    return [re.sub(r"<[^>]+>", "", str(line.sentence)) for line in response.context["lines"]]


@pytest.fixture
def write(tenant: Tenant) -> Callable[..., AuditEntry]:
    def make(name: str = "Billing", action: Action = Action.SECRET_ROTATED, **fields: Any) -> AuditEntry:
        who = Actor(fields.pop("actor", "alice@acme.example"), fields.pop("user_id", None), "203.0.113.7")
        return note(who, action, tenant=fields.pop("tenant", tenant), name=name, **fields)

    return make


def test_an_outsider_gets_404_and_who_is_not_signed_in_is_sent_to_sign_in(
    tenant: Tenant, charlie: User, browser: Browser, client: Client
) -> None:
    assert browser(charlie).get(AUDIT).status_code == 404
    assert client.get(AUDIT)["Location"].endswith(f"?next={AUDIT}")


def test_each_line_is_a_sentence_with_where_and_when(
    write: Callable[..., AuditEntry], alice: User, browser: Browser
) -> None:
    write()
    shown = text(browser(alice).get(AUDIT))
    assert "alice@acme.example rotated the secret of Billing, from 203.0.113.7 now" in shown


def test_the_newest_stand_first_and_nobody_elses_among_them(
    write: Callable[..., AuditEntry], alice: User, charlie: User, browser: Browser
) -> None:
    write("one")
    write("his", tenant=Tenant.objects.get(slug="globex"))
    write("of nobody", tenant=None)
    write("two")
    assert sentences(browser(alice).get(AUDIT)) == [
        "alice@acme.example rotated the secret of two",
        "alice@acme.example rotated the secret of one",
    ]


@pytest.mark.parametrize("role", [Role.VIEWER, Role.DEVELOPER])
def test_every_member_reads_it_and_where_colleagues_were_only_owners(
    role: Role, write: Callable[..., AuditEntry], bob: User, browser: Browser
) -> None:
    Membership.objects.filter(user=bob).update(role=role)
    write()
    write("Own", actor=bob.email, user_id=bob.pk)
    hers, his = reversed(browser(bob).get(AUDIT).context["lines"])
    assert (hers.address, his.address) == (None, "203.0.113.7")
    assert "203.0.113.7" in text(browser(bob).get(f"{AUDIT}?actor={bob.email}"))
    assert "203.0.113.7" not in text(browser(bob).get(f"{AUDIT}?actor=alice@acme.example"))


def test_filters_by_what_and_by_who_can_be_shared_as_a_link(
    write: Callable[..., AuditEntry], alice: User, browser: Browser
) -> None:
    write("one", actor="bob@acme.example")
    write("two")
    write("three", Action.SECRET_REVEALED)
    client = browser(alice)
    assert sentences(client.get(f"{AUDIT}?action=secret.revealed")) == [
        "alice@acme.example revealed the secret of three"
    ]
    assert len(sentences(client.get(f"{AUDIT}?actor=alice@acme.example"))) == 2
    assert sentences(client.get(f"{AUDIT}?actor=bob@acme.example&action=secret.rotated")) == [
        "bob@acme.example rotated the secret of one"
    ]
    page = client.get(f"{AUDIT}?actor=nobody")
    assert "Nothing matches" in text(page)
    assert 'value="nobody"' in page.content.decode()


@pytest.mark.parametrize("query", ["action=moon.landed", "actor=" + "x" * 255, "actor=%00"])
def test_a_filter_that_cannot_be_is_refused_at_its_field(
    query: str, write: Callable[..., AuditEntry], alice: User, browser: Browser
) -> None:
    write()
    page = browser(alice).get(f"{AUDIT}?{query}")
    assert page.status_code == 200
    assert list(page.context["form"].errors) == [query.partition("=")[0]]
    assert sentences(page) == []


@pytest.mark.parametrize("query", ["before=x", "before=-1", "before=" + "9" * 40, "after=x", "before=%00", "after=1.5"])
def test_a_page_that_cannot_be_is_the_first(
    query: str, write: Callable[..., AuditEntry], alice: User, browser: Browser
) -> None:
    write()
    assert len(sentences(browser(alice).get(f"{AUDIT}?{query}"))) == 1


def test_pages_go_through_all_of_a_long_log_and_back(
    tenant: Tenant, alice: User, browser: Browser, django_assert_max_num_queries: Any
) -> None:
    subscription = Subscription.objects.create(tenant=tenant, url="https://a.example/")
    entries = AuditEntry.objects.bulk_create(
        AuditEntry(
            tenant_id=tenant.pk,
            action=Action.SUBSCRIPTION_CHANGED,
            actor=f"u{number}@acme.example",
            kind="subscription",
            number=str(subscription.pk if number % 2 else number + 10**6),
            name=str(number),
        )
        for number in range(120)
    )
    AuditEntry.objects.bulk_create(AuditEntry(tenant_id=tenant.pk + 1, action="x", actor="y") for _ in range(60))
    client = browser(alice)
    page = client.get(AUDIT)
    pages = [[line.entry.name for line in page.context["lines"]]]
    while page.context["page"].older:
        with django_assert_max_num_queries(AT_MOST):
            page = client.get(f"{AUDIT}?before={page.context['page'].older}")
        pages.append([line.entry.name for line in page.context["lines"]])
    assert [name for names in pages for name in names] == [entry.name for entry in reversed(entries)]
    assert [len(each) for each in pages] == [50, 50, 20]
    newer = client.get(f"{AUDIT}?after={page.context['page'].newer}")
    assert [line.entry.name for line in newer.context["lines"]] == pages[1]
    first = client.get(f"{AUDIT}?after={newer.context['page'].newer}")
    assert [line.entry.name for line in first.context["lines"]] == pages[0]
    assert first.context["page"].newer is None


def test_details_are_written_for_people(write: Callable[..., AuditEntry], alice: User, browser: Browser) -> None:
    write(
        action=Action.SUBSCRIPTION_CHANGED,
        called={"from": "", "to": "Billing"},
        topics={"added": ["shop.order.*", "*"], "removed": []},
        rate_limit={"from": 5, "to": None},
        since=None,
    )
    (line,) = browser(alice).get(AUDIT).context["lines"]
    assert line.details == [
        ("called", "none → Billing"),
        ("topics", "added: shop.order.*, *; removed: none"),
        ("rate limit", "5 → none"),
    ]


def test_a_subscription_that_is_still_there_is_linked(
    tenant: Tenant, alice: User, charlie: User, browser: Browser
) -> None:
    here = Subscription.objects.create(tenant=tenant, url="https://a.example/")
    gone = Subscription.objects.create(tenant=tenant, url="https://b.example/")
    foreign = Subscription.objects.create(tenant=Tenant.objects.get(slug="globex"), url="https://c.example/")
    for subscription in (here, gone, foreign):
        note(Actor("alice"), Action.SECRET_REVEALED, tenant=tenant, about=subscription)
    gone.delete()
    lines = browser(alice).get(AUDIT).context["lines"]
    assert [line.subscription for line in lines] == [None, None, here.pk]


def test_the_operators_deeds_are_marked(tenant: Tenant, alice: User, browser: Browser) -> None:
    note(Actor("root", as_operator=True), Action.TENANT_DISABLED, tenant=tenant, about=tenant)
    assert "root turned the tenant acme off operator" in text(browser(alice).get(AUDIT))


def test_an_empty_log_says_what_will_be_in_it(alice: User, browser: Browser) -> None:
    assert "Nothing has happened yet" in text(browser(alice).get(AUDIT))


def test_what_people_wrote_is_escaped(write: Callable[..., AuditEntry], alice: User, browser: Browser) -> None:
    write("<script>alert(1)</script>", actor="<img src=x>", reason="<svg onload=x>")
    page = browser(alice).get(AUDIT).content.decode()
    for written in ("<script>alert", "<img src=x>", "<svg onload"):
        assert written not in page


def test_there_is_nothing_to_post(write: Callable[..., AuditEntry], alice: User, browser: Browser) -> None:
    page = browser(alice).get(AUDIT).content.decode()
    assert 'method="post"' not in page.split("<main")[1]

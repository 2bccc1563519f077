"""Members, invitations, the tenant's settings."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from subscriptions import keys, people
from subscriptions.models import ApiKey, AuditEntry, Invitation, Membership, Role, Tenant
from subscriptions.trail import Actor

if TYPE_CHECKING:
    from collections.abc import Callable

    Browser = Callable[[User], Client]

pytestmark = [pytest.mark.django_db, pytest.mark.on("sqlite")]

MEMBERS = "/t/acme/members/"
SETTINGS = "/t/acme/settings/"
LEAVE = "/t/acme/leave/"
# No MD5 of a password anywhere, and no name of a column.
AT_MOST = 14  # queries of a page, however many rows it shows


@pytest.fixture
def dora(db: None) -> User:
    """Invited, and of no tenant yet."""
    return User.objects.create_user("dora", "dora@acme.example")


@pytest.fixture
def invited(tenant: Tenant, alice: User) -> tuple[Invitation, str]:
    """An invitation of dora's, and its link."""
    invitation = Invitation(tenant=tenant, email="dora@acme.example", role=Role.VIEWER, invited_by=alice)
    token = invitation.fill()
    invitation.mailed_at = timezone.now() - people.PAUSE
    invitation.save()
    return invitation, f"/invitations/{token}/"


def text(response: Any) -> str:
    """What is read, without tags."""
    return " ".join(re.sub(r"<[^>]+>", " ", response.content.decode()).split())


def of(user: User) -> Membership:
    return Membership.objects.get(user=user)


def at(name: str, *numbers: int) -> str:
    return reverse(f"subscriptions:{name}", args=["acme", *numbers])


# Each page of these, and the role that it takes to open and to post.
PAGES: dict[str, tuple[Role, Role]] = {
    "members": (Role.VIEWER, Role.OWNER),
    "member": (Role.OWNER, Role.OWNER),
    "member_remove": (Role.OWNER, Role.OWNER),
    "invitation_again": (Role.OWNER, Role.OWNER),
    "invitation_withdraw": (Role.OWNER, Role.OWNER),
    "settings": (Role.VIEWER, Role.OWNER),
    "leave": (Role.VIEWER, Role.VIEWER),
}
POSTED_ONLY = {"invitation_again", "invitation_withdraw"}


@pytest.fixture
def urls(invited: tuple[Invitation, str], bob: User) -> dict[str, str]:
    numbers = {"member": [of(bob).pk], "member_remove": [of(bob).pk]}
    numbers |= {name: [invited[0].pk] for name in POSTED_ONLY}
    return {name: at(name, *numbers.get(name, [])) for name in PAGES}


@pytest.mark.parametrize("name", PAGES)
def test_an_outsider_gets_404_and_changes_nothing(
    name: str, urls: dict[str, str], charlie: User, browser: Browser
) -> None:
    client = browser(charlie)
    before = AuditEntry.objects.count()
    assert client.get(urls[name]).status_code == 404
    assert client.post(urls[name], {"role": "owner", "was": "developer", "name": "x"}).status_code == 404
    assert Membership.objects.filter(tenant__slug="acme").count() == 2
    assert Invitation.objects.count() == 1
    assert AuditEntry.objects.count() == before


@pytest.mark.parametrize("name", PAGES)
def test_who_is_not_signed_in_is_sent_to_sign_in(name: str, urls: dict[str, str], client: Client) -> None:
    response = client.get(urls[name])
    assert response.status_code == 302
    assert response["Location"].endswith(f"?next={urls[name]}")


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("role", [Role.VIEWER, Role.DEVELOPER])
def test_a_role_that_does_not_reach_gets_403(
    name: str, role: Role, urls: dict[str, str], bob: User, browser: Browser
) -> None:
    Membership.objects.filter(user=bob).update(role=role)
    look, write = PAGES[name]
    client = browser(bob)
    if look == Role.OWNER:
        assert client.get(urls[name]).status_code == 403
    if write == Role.OWNER:
        assert client.post(urls[name], {"role": "owner", "was": role, "name": "x"}).status_code == 403
        assert of(bob).role == role


@pytest.mark.parametrize("name", ["member", "member_remove", "invitation_again", "invitation_withdraw"])
def test_a_row_of_another_tenant_is_not_there(
    name: str, alice: User, charlie: User, browser: Browser, make_tenant: Any
) -> None:
    foreign = Invitation(tenant=Tenant.objects.get(slug="globex"), email="x@globex.example")
    foreign.fill()
    foreign.save()
    number = of(charlie).pk if name.startswith("member") else foreign.pk
    response = browser(alice).post(at(name, number), {"role": "viewer", "was": "owner"})
    assert response.status_code == (302 if name == "invitation_withdraw" else 404)
    assert of(charlie).role == Role.OWNER
    assert Invitation.objects.filter(pk=foreign.pk).exists()


@pytest.mark.parametrize("name", sorted(POSTED_ONLY))
def test_a_link_alone_changes_nothing(name: str, urls: dict[str, str], alice: User, browser: Browser) -> None:
    assert browser(alice).get(urls[name]).status_code == 405


def test_the_list_shows_who_with_role_and_since_when(
    urls: dict[str, str], alice: User, bob: User, browser: Browser
) -> None:
    shown = text(browser(alice).get(MEMBERS))
    assert f"{alice.email} you Owner" in shown
    assert f"{bob.email} Developer" in shown
    assert "dora@acme.example Viewer" in shown


def test_who_may_not_invite_sees_no_form(alice: User, bob: User, browser: Browser) -> None:
    page = browser(bob).get(MEMBERS)
    assert b"Send invitation" not in page.content
    assert b"Change" not in page.content
    assert "Owners invite people" in text(page)


def test_many_members_take_no_more_queries(
    tenant: Tenant, alice: User, browser: Browser, django_assert_max_num_queries: Any
) -> None:
    for number in range(100):
        user = User.objects.create(username=f"u{number}", email=f"u{number}@{'long' * 40}.example")
        Membership.objects.create(tenant=tenant, user=user)
    for number in range(50):
        invitation = Invitation(tenant=tenant, email=f"i{number}@acme.example", invited_by=alice)
        invitation.fill()
        invitation.save()
    client = browser(alice)
    with django_assert_max_num_queries(AT_MOST):
        assert client.get(MEMBERS).status_code == 200


def test_alice_invites_dora(
    alice: User, browser: Browser, mailoutbox: list[Any], django_capture_on_commit_callbacks: Any
) -> None:
    client = browser(alice)
    with django_capture_on_commit_callbacks(execute=True):
        response = client.post(MEMBERS, {"email": "dora@acme.example", "role": "developer"}, follow=True)
    assert response.redirect_chain == [(MEMBERS, 302)]
    assert "dora@acme.example Developer" in text(response)
    (message,) = mailoutbox
    link = re.search(r"http://testserver(/invitations/\S+)", message.body)
    assert link is not None
    assert client.get(link[1]).status_code == 403  # she is not dora


@pytest.mark.parametrize(
    ("email", "said"),
    [
        ("", "Write whom to invite, such as bob@example.com."),
        ("dora", "Write an address such as bob@example.com."),
        ("BOB@acme.example", "bob@acme.example is a member already."),
        ("dora@acme.example", "dora@acme.example is invited already."),
        ("x" * 255 + "@acme.example", "at most 254 characters"),
        ("dora\x00@acme.example", "Null characters are not allowed."),
    ],
)
def test_a_wrong_address_is_refused_at_its_field_and_stays(
    email: str, said: str, *, urls: dict[str, str], alice: User, browser: Browser
) -> None:
    response = browser(alice).post(MEMBERS, {"email": email, "role": "owner"})
    form = response.context["form"]
    assert said in " ".join(form.errors["email"])
    assert text(response).count(said) == 2  # in the summary, and at the field
    assert form["email"].value() == email
    assert form["role"].value() == "owner"
    assert Invitation.objects.count() == 1


@pytest.mark.parametrize("role", ["", "king", "OWNER"])
def test_a_role_that_there_is_not_is_refused(role: str, alice: User, browser: Browser) -> None:
    response = browser(alice).post(MEMBERS, {"email": "dora@acme.example", "role": role})
    assert "role" in response.context["form"].errors
    assert not Invitation.objects.exists()


def test_a_limit_is_said_above_the_form(
    urls: dict[str, str], alice: User, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(people, "MOST_OPEN", 1)
    response = browser(alice).post(MEMBERS, {"email": "eve@acme.example", "role": "viewer"})
    assert "1 invitations are open" in text(response)
    assert Invitation.objects.count() == 1


def test_a_mail_server_that_is_away_is_no_500_and_is_said(
    alice: User,
    browser: Browser,
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: Any,
    mailoutbox: list[Any],
) -> None:
    def refuse(message: mail.EmailMessage) -> None:
        raise ConnectionRefusedError(message.to)

    client = browser(alice)
    with monkeypatch.context() as away, django_capture_on_commit_callbacks(execute=True):
        away.setattr(mail.EmailMessage, "send", refuse)
        response = client.post(MEMBERS, {"email": "dora@acme.example", "role": "viewer"})
    assert response.status_code == 302
    assert "The mail to dora@acme.example did not go out" in text(client.get(MEMBERS))
    with django_capture_on_commit_callbacks(execute=True):
        client.post(at("invitation_again", Invitation.objects.get().pk))
    assert len(mailoutbox) == 1
    assert "did not go out" not in text(client.get(MEMBERS))


def test_sent_again_and_withdrawn_by_a_button(
    invited: tuple[Invitation, str],
    alice: User,
    browser: Browser,
    mailoutbox: list[Any],
    django_capture_on_commit_callbacks: Any,
) -> None:
    client, (invitation, link) = browser(alice), invited
    again, withdraw = at("invitation_again", invitation.pk), at("invitation_withdraw", invitation.pk)
    with django_capture_on_commit_callbacks(execute=True):
        client.post(again)
    assert len(mailoutbox) == 1
    assert client.get(link).status_code == 410
    assert "less than a minute ago" in text(client.post(again, follow=True))
    assert "is withdrawn" in text(client.post(withdraw, follow=True))
    assert "accepted or withdrawn already" in text(client.post(withdraw, follow=True))
    assert client.post(again).status_code == 404


def test_whoever_opens_the_link_sees_into_what_as_what_and_by_whom_before_accepting(
    invited: tuple[Invitation, str], dora: User, browser: Browser
) -> None:
    page = browser(dora).get(invited[1])
    shown = text(page)
    for words in ("Join Acme", "alice@acme.example invites you", "dora@acme.example", "Viewer"):
        assert words in shown
    assert not Membership.objects.filter(user=dora).exists()
    assert "no-store" in page["Cache-Control"]


def test_dora_accepts_and_is_in(invited: tuple[Invitation, str], dora: User, browser: Browser) -> None:
    client = browser(dora)
    response = client.post(invited[1])
    assert (response.status_code, response["Location"]) == (302, "/t/acme/")
    assert of(dora).role == Role.VIEWER
    assert client.get(MEMBERS).status_code == 200
    entry = AuditEntry.objects.get(action=AuditEntry.Action.MEMBER_JOINED)
    assert (entry.actor, entry.address) == ("dora@acme.example", "127.0.0.1")


def test_the_same_link_a_second_time_says_so(invited: tuple[Invitation, str], dora: User, browser: Browser) -> None:
    client = browser(dora)
    client.post(invited[1])
    for response in (client.get(invited[1]), client.post(invited[1])):
        assert response.status_code == 410
        assert "accepted, withdrawn, or sent again" in text(response)
    assert Membership.objects.filter(user=dora).count() == 1


def test_a_link_that_has_run_out_says_so(invited: tuple[Invitation, str], dora: User, browser: Browser) -> None:
    Invitation.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    response = browser(dora).post(invited[1])
    assert response.status_code == 410
    assert "was open until" in text(response)
    assert not Membership.objects.filter(user=dora).exists()


def test_the_wrong_person_is_told_for_whom_it_is(
    invited: tuple[Invitation, str], charlie: User, browser: Browser
) -> None:
    client = browser(charlie)
    for response in (client.get(invited[1]), client.post(invited[1])):
        assert response.status_code == 403
        assert "for dora@acme.example, and you are signed in as charlie@globex.example" in text(response)
    assert not Membership.objects.filter(user=charlie, tenant__slug="acme").exists()


def test_who_is_a_member_already_is_led_in(
    invited: tuple[Invitation, str], tenant: Tenant, dora: User, browser: Browser
) -> None:
    Membership.objects.create(tenant=tenant, user=dora, role=Role.DEVELOPER)
    response = browser(dora).post(invited[1])
    assert response.status_code == 200
    assert 'href="/t/acme/"' in response.content.decode()
    assert of(dora).role == Role.DEVELOPER


def test_who_is_not_signed_in_is_led_to_sign_in_or_up_and_the_session_knows_the_token(
    invited: tuple[Invitation, str], client: Client
) -> None:
    page = client.get(invited[1])
    assert page.status_code == 200
    assert f"?next={invited[1]}" in page.content.decode()
    assert client.session["signalpost_invitation"] in invited[1]
    response = client.post(invited[1])
    assert response.status_code == 302
    assert response["Location"].endswith(f"?next={invited[1]}")
    assert Invitation.objects.exists()


def test_a_link_that_opens_nothing_leaves_nothing_in_the_session(
    invited: tuple[Invitation, str], client: Client
) -> None:
    client.get(invited[1])
    Invitation.objects.all().delete()
    assert client.get(invited[1]).status_code == 410
    assert "signalpost_invitation" not in client.session


@pytest.mark.parametrize("token", ["x", "%00", "%F0%9F%A6%8A", "x" * 2000])
def test_a_link_that_nobody_made_is_a_clear_page(token: str, client: Client) -> None:
    client.raise_request_exception = True
    response = client.get(f"/invitations/{token}/")
    assert response.status_code == 410
    assert "not open any more" in text(response)


def test_alice_makes_bob_a_viewer(alice: User, bob: User, browser: Browser) -> None:
    url = at("member", of(bob).pk)
    response = browser(alice).post(url, {"role": "viewer", "was": "developer"}, follow=True)
    assert f"{bob.email} is viewer now." in text(response)
    assert of(bob).role == Role.VIEWER


def test_a_stale_form_says_so_keeps_what_was_chosen_and_works_the_second_time(
    alice: User, bob: User, browser: Browser
) -> None:
    client, url = browser(alice), at("member", of(bob).pk)
    Membership.objects.filter(user=bob).update(role=Role.OWNER)
    response = client.post(url, {"role": "viewer", "was": "developer"})
    assert "it is owner now" in text(response)
    form = response.context["form"]
    assert (form["role"].value(), form["was"].value()) == ("viewer", "owner")
    assert of(bob).role == Role.OWNER
    client.post(url, {"role": "viewer", "was": "owner"})
    assert of(bob).role == Role.VIEWER


@pytest.mark.parametrize("posted", [{}, {"role": "king", "was": "developer"}, {"role": "viewer", "was": "king"}])
def test_a_forged_form_changes_nothing(posted: dict[str, str], alice: User, bob: User, browser: Browser) -> None:
    assert browser(alice).post(at("member", of(bob).pk), posted).status_code == 200
    assert of(bob).role == Role.DEVELOPER


def test_the_last_owner_is_told_why_they_stay_one(alice: User, bob: User, browser: Browser) -> None:
    client, url = browser(alice), at("member", of(alice).pk)
    assert "This is the only owner" in text(client.get(url))
    response = client.post(url, {"role": "viewer", "was": "owner"})
    assert "A tenant needs an owner" in response.context["form"].errors["role"][0]
    assert of(alice).role == Role.OWNER
    assert "You are the only owner" in text(client.get(LEAVE))
    assert "A tenant needs an owner" in text(client.post(LEAVE))
    assert of(alice).role == Role.OWNER


def test_who_is_removed_has_no_access_from_the_next_request_on(alice: User, bob: User, browser: Browser) -> None:
    his, hers = browser(bob), browser(alice)
    assert his.get(MEMBERS).status_code == 200
    url = at("member_remove", of(bob).pk)
    assert f"Remove {bob.email}?" in text(hers.get(url))
    assert Membership.objects.filter(user=bob).exists()
    assert f"{bob.email} is removed." in text(hers.post(url, follow=True))
    assert his.get(MEMBERS).status_code == 404
    assert hers.post(url).status_code == 404


def test_whoever_removes_somebody_sees_the_keys_that_go_on_working(alice: User, bob: User, browser: Browser) -> None:
    tenant, client = Tenant.objects.get(), browser(alice)
    pages = [at("member_remove", of(bob).pk), at("member", of(bob).pk)]
    assert all("goes on working" not in text(client.get(page)) for page in pages)
    key, _ = keys.create(tenant, Actor(bob.email), name="Night import", scopes=["read"])
    keys.create(tenant, Actor(alice.email, alice.pk), name="Alice's", scopes=["read"])
    for page in pages:
        shown = text(client.get(page))
        assert "They made an API key that goes on working" in shown
        assert f"Night import {key.beginning}… never used" in shown
        assert "Alice's" not in shown
    assert "1 API key is revoked." in text(client.post(pages[0], {"revoke": "on"}, follow=True))
    assert [each.name for each in ApiKey.objects.live()] == ["Alice's"]


def test_who_leaves_sees_the_keys_and_revokes_them_as_an_owner_only(alice: User, bob: User, browser: Browser) -> None:
    keys.create(Tenant.objects.get(), Actor(bob.email), name="Night import", scopes=["read"])
    client = browser(bob)
    shown = text(client.get(LEAVE))
    assert "You made an API key that goes on working: Night import" in shown
    assert "Revoke it, too" not in shown
    Membership.objects.filter(user=bob).update(role=Role.OWNER)
    assert "Revoke it, too" in text(client.get(LEAVE))
    Membership.objects.filter(user=bob).update(role=Role.DEVELOPER)
    client.post(LEAVE, {"revoke": "on"})
    assert not Membership.objects.filter(user=bob).exists()
    assert ApiKey.objects.live().count() == 1


def test_whoever_removes_themselves_is_led_to_leaving(alice: User, browser: Browser) -> None:
    response = browser(alice).post(at("member_remove", of(alice).pk))
    assert (response.status_code, response["Location"]) == (302, LEAVE)
    assert Membership.objects.filter(user=alice).exists()


@pytest.mark.parametrize("role", [Role.VIEWER, Role.DEVELOPER])
def test_any_member_may_leave(role: Role, alice: User, bob: User, browser: Browser) -> None:
    Membership.objects.filter(user=bob).update(role=role)
    client = browser(bob)
    assert "Leave Acme?" in text(client.get(LEAVE))
    assert client.post(LEAVE).status_code == 302
    assert not Membership.objects.filter(user=bob).exists()
    assert client.get(MEMBERS).status_code == 404


def test_an_owner_changes_the_name_and_not_the_slug(alice: User, browser: Browser) -> None:
    client = browser(alice)
    response = client.post(SETTINGS, {"name": "  Acme Ltd ", "was": "Acme", "slug": "evil"}, follow=True)
    assert "Acme Ltd" in text(response)
    assert Tenant.objects.values_list("slug", "name").get() == ("acme", "Acme Ltd")
    entry = AuditEntry.objects.get(action=AuditEntry.Action.TENANT_CHANGED)
    assert entry.detail == {"called": {"from": "Acme", "to": "Acme Ltd"}}


@pytest.mark.parametrize(("name", "said"), [("", "Write a name"), (" ", "Write a name"), ("x" * 201, "at most 200")])
def test_a_wrong_name_is_refused_at_its_field(name: str, said: str, alice: User, browser: Browser) -> None:
    response = browser(alice).post(SETTINGS, {"name": name, "was": "Acme"})
    assert said in response.context["form"].errors["name"][0]
    assert Tenant.objects.get().name == "Acme"


def test_a_name_that_a_colleague_changed_meanwhile_is_not_overwritten(alice: User, browser: Browser) -> None:
    client = browser(alice)
    Tenant.objects.update(name="Acme Ltd")
    response = client.post(SETTINGS, {"name": "Acme Inc", "was": "Acme"})
    assert "it is Acme Ltd now" in text(response)
    assert response.context["form"]["name"].value() == "Acme Inc"
    assert Tenant.objects.get().name == "Acme Ltd"
    client.post(SETTINGS, {"name": "Acme Inc", "was": response.context["form"]["was"].value()})
    assert Tenant.objects.get().name == "Acme Inc"


def test_who_may_not_change_the_name_sees_it(alice: User, bob: User, browser: Browser) -> None:
    page = browser(bob).get(SETTINGS)
    assert b"<input" not in page.content.split(b"<main")[1]
    assert "Your role is developer. Owners change the name." in text(page)


def test_what_people_wrote_is_escaped(tenant: Tenant, alice: User, browser: Browser) -> None:
    Tenant.objects.update(name="<script>alert(1)</script>")
    User.objects.filter(pk=alice.pk).update(email='"<img src=x>"@acme.example')
    for url in (MEMBERS, SETTINGS, LEAVE, at("member", of(alice).pk)):
        page = browser(alice).get(url).content.decode()
        assert "<script>alert" not in page
        assert "<img src=x>" not in page

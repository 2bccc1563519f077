from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value
from django.contrib.auth import get_user_model
from django.core import mail
from django.core.cache import cache
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from config import accounts
from config.limits import Counters
from subscriptions import people, secrets
from subscriptions.models import AuditEntry, Invitation, Membership, Role, Tenant
from subscriptions.trail import SIGNALPOST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.contrib.auth.models import User
    from pytest_django import Settings

PASSWORD = "correct-horse-9"
SIGN_UP = {"company": "Acme", "email": "alice@acme.example", "password1": PASSWORD}
WRONG = "Email or password is not right."

pytestmark = [pytest.mark.django_db, pytest.mark.on("sqlite")]


@pytest.fixture(autouse=True)
def nothing_counted() -> Iterator[None]:
    """What one test tried is not held against the next."""
    cache.clear()
    yield
    cache.clear()


@pytest.fixture
def mandatory(settings: Settings) -> None:
    """As where a mail server is named."""
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    settings.MFA_ALLOW_UNVERIFIED_EMAIL = False


@pytest.fixture
def alice(db: None) -> User:
    user: User = get_user_model().objects.create_user("alice", "alice@acme.example", PASSWORD)
    EmailAddress.objects.create(user=user, email=user.email, verified=True, primary=True)
    return user


@pytest.fixture
def acme(alice: User, make_tenant: Callable[..., Tenant]) -> Tenant:
    tenant = make_tenant("acme")
    Membership.objects.create(tenant=tenant, user=alice, role=Role.OWNER)
    return tenant


@pytest.fixture
def invite(make_tenant: Callable[..., Tenant]) -> Callable[..., str]:
    """Invites to the tenant "inviting", and gives the token that the mail has."""

    def make(email: str, role: Role = Role.VIEWER) -> str:
        tokens: list[str] = []

        def link(token: str) -> str:
            tokens.append(token)
            return f"http://testserver/invitations/{token}/"

        people.invite(make_tenant("inviting"), SIGNALPOST, email=email, role=role, link=link)
        return tokens[0]

    return make


def sign_in(client: Client, login: str = "alice@acme.example", password: str = PASSWORD, **more: str) -> Any:
    return client.post("/account/login/", {"login": login, "password": password, **more})


def signed_in(client: Client) -> str:
    """Who, as the menu says."""
    page = client.get("/account/zone/").content.decode()
    found = re.search(r'<li class="who clip">(.*?)</li>', page)
    return found[1] if found else ""


def confirm(client: Client, answer: Any) -> None:
    """Write the password once more, as `answer` has asked."""
    assert answer.url.startswith("/account/reauthenticate/")
    client.post(answer.url, {"password": PASSWORD})


def links(text: str) -> list[str]:
    return re.findall(r"http://testserver(/\S+)", text)


# Signing up.


def test_signing_up_makes_a_tenant_with_the_person_as_its_owner(client: Client) -> None:
    answer = client.post("/account/signup/", {**SIGN_UP, "company": "Müller & Söhne"}, follow=True)
    assert answer.redirect_chain[-1][0] == "/t/muller-sohne/"
    membership = Membership.objects.get()
    assert (membership.tenant.name, membership.role) == ("Müller & Söhne", Role.OWNER)
    assert membership.user.email == "alice@acme.example"
    entry = AuditEntry.objects.get(tenant_id=membership.tenant_id)
    assert (entry.action, entry.actor, entry.address) == ("tenant.created", "alice@acme.example", "127.0.0.1")


@pytest.mark.parametrize(
    ("company", "slug"),
    [("株式会社", r"tenant"), ("Acme", r"acme-\w{5}"), ("  Ünï çødé! ", "uni-cde"), ("Operator", r"operator-\w{5}")],
)
def test_every_name_gets_an_address_of_its_own(
    client: Client, make_tenant: Callable[..., Tenant], company: str, slug: str
) -> None:
    make_tenant("acme")
    client.post("/account/signup/", {**SIGN_UP, "company": company})
    made = Membership.objects.get().tenant
    assert re.fullmatch(slug, made.slug)
    assert made.name == company.strip()


def test_nobody_gets_the_operators_tenant_by_choosing_a_name(client: Client, settings: Settings) -> None:
    settings.SIGNALPOST_OPERATOR_TENANT = "head-office"
    client.post("/account/signup/", {**SIGN_UP, "company": "Head Office"})
    assert not Tenant.objects.filter(slug="head-office").exists()
    assert Membership.objects.get().tenant.name == "Head Office"


def test_a_very_long_name_fits(client: Client) -> None:
    client.post("/account/signup/", {**SIGN_UP, "company": "a" * 200})
    assert len(Membership.objects.get().tenant.slug) <= 63


def test_what_is_wrong_stands_at_its_field_and_keeps_what_was_typed(client: Client) -> None:
    answer = client.post("/account/signup/", {"company": "Acme", "email": "alice@", "password1": "12345"})
    page = answer.content.decode()
    assert 'value="alice@"' in page
    assert 'value="Acme"' in page
    assert re.search(r'id="id_email_error">\s*<li>Enter a valid email address', page)
    assert '<a href="#id_password1">' in page
    assert "12345" not in page
    assert not Tenant.objects.exists()


def test_a_failure_in_the_middle_leaves_nobody_behind(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*args: object, **kwargs: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(accounts, "found", break_down)
    with pytest.raises(RuntimeError, match="broken"):
        client.post("/account/signup/", SIGN_UP)
    assert not get_user_model().objects.exists()


def test_a_double_click_makes_one_account(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_request_was_quicker(self: accounts.Accounts, request: object) -> User:
        get_user_model().objects.create_user(SIGN_UP["email"], SIGN_UP["email"], PASSWORD)
        user: User = get_user_model()()
        return user

    monkeypatch.setattr(accounts.Accounts, "new_user", other_request_was_quicker)
    answer = client.post("/account/signup/", SIGN_UP, follow=True)
    assert b"There is an account with this address already." in answer.content
    assert not Tenant.objects.exists()


def test_a_username_that_was_anothers_address_does_not_keep_its_new_owner_out(client: Client) -> None:
    get_user_model().objects.create_user(SIGN_UP["email"], "moved@acme.example", "another-password-9")
    client.post("/account/signup/", SIGN_UP)
    assert Membership.objects.get().user.email == SIGN_UP["email"]


def test_sign_up_can_be_turned_off(client: Client, settings: Settings) -> None:
    settings.SIGNUP = False
    assert b"Accounts are made by invitation here." in client.get("/account/signup/").content
    client.post("/account/signup/", SIGN_UP)
    assert not get_user_model().objects.exists()
    assert b"/account/signup/" not in client.get("/account/login/").content


# By invitation.


@pytest.mark.django_db(transaction=True)
def test_who_comes_by_invitation_becomes_a_member_and_gets_no_tenant(
    client: Client, settings: Settings, invite: Callable[..., str], mandatory: None
) -> None:
    settings.SIGNUP = False  # an invitation opens the door
    client.get(f"/invitations/{invite('dora@acme.example', Role.DEVELOPER)}/")
    page = client.get("/account/signup/").content.decode()
    assert "You are invited to Inviting, as developer." in page
    assert 'value="dora@acme.example"' in page
    answer = client.post("/account/signup/", {"email": "mallory@evil.example", "password1": PASSWORD}, follow=True)
    assert answer.redirect_chain[-1][0] == "/t/inviting/"
    assert b"Welcome to Inviting." in answer.content
    membership = Membership.objects.get()
    assert (membership.tenant.slug, membership.role) == ("inviting", Role.DEVELOPER)
    assert membership.user.email == "dora@acme.example"
    # Whoever read that mail need not read another.
    assert EmailAddress.objects.get(user=membership.user).verified
    assert not Invitation.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_an_invited_person_with_an_account_is_sent_to_sign_in(
    client: Client, invite: Callable[..., str], alice: User, mandatory: None
) -> None:
    client.get(f"/invitations/{invite(alice.email)}/")
    answer = client.post("/account/signup/", {"password1": PASSWORD})
    assert b"There is an account with this address already." in answer.content
    assert Invitation.objects.exists()


def test_an_invitation_that_ended_meanwhile_makes_no_member(client: Client, invite: Callable[..., str]) -> None:
    client.get(f"/invitations/{invite('dora@acme.example')}/")
    Invitation.objects.all().delete()
    answer = client.post("/account/signup/", {"email": "dora@acme.example", "password1": PASSWORD})
    assert b"id_company_error" in answer.content  # an ordinary sign-up now
    assert not Membership.objects.exists()


# Signing in.


@pytest.mark.parametrize("login", ["alice@acme.example", "ALICE@acme.example ", "alice"])
def test_people_sign_in_by_address_or_by_the_username_they_were_made_with(
    client: Client, acme: Tenant, login: str
) -> None:
    answer = sign_in(client, login)
    assert answer.status_code == 302
    assert signed_in(client) == "alice@acme.example"


@pytest.mark.parametrize("login", ["alice@acme.example", "nobody@acme.example", "alice", "nobody"])
def test_no_answer_tells_whether_there_is_such_an_account(client: Client, alice: User, login: str) -> None:
    answer = sign_in(client, login, "wrong-password")
    assert answer.content.decode().count(WRONG) == 1


def test_a_lost_session_comes_back_to_where_it_was(client: Client, acme: Tenant) -> None:
    answer: Any = client.get("/t/acme/deliveries/?status=failed")
    assert answer.url == "/account/login/?next=/t/acme/deliveries/%3Fstatus%3Dfailed"
    page = client.get(answer.url).content.decode()
    assert '<input type="hidden" name="next" value="/t/acme/deliveries/?status=failed">' in page
    back: Any = sign_in(client, next="/t/acme/deliveries/?status=failed")
    assert back.url == "/t/acme/deliveries/?status=failed"


def test_a_form_whose_session_was_lost_comes_back_to_its_page(client: Client, acme: Tenant) -> None:
    page = "http://testserver/t/acme/settings/?from=menu"
    answer: Any = client.post("/t/acme/settings/", {"name": "Acme"}, headers={"referer": page})
    assert answer.url == "/account/login/?next=/t/acme/settings/%3Ffrom%3Dmenu"
    elsewhere: Any = client.post("/t/acme/settings/", headers={"referer": "http://evil.example/t/acme/keys/"})
    assert elsewhere.url == "/account/login/?next=/t/acme/settings/"


def test_an_open_page_whose_session_was_lost_loads_afresh(client: Client, acme: Tenant) -> None:
    answer = client.get("/t/acme/deliveries/", headers={"hx-request": "true"})
    assert (answer.status_code, answer["hx-refresh"], answer.content) == (200, "true", b"")


def test_nobody_is_sent_to_another_site(client: Client, acme: Tenant) -> None:
    answer: Any = sign_in(client, next="https://evil.example/")
    assert answer.url == "/"


def test_after_five_wrong_passwords_the_right_one_has_to_wait(client: Client, alice: User) -> None:
    for _ in range(5):
        assert WRONG in sign_in(client, password="wrong").content.decode()
    assert "Too many tries that failed." in sign_in(client).content.decode()
    assert signed_in(Client()) == ""


def test_too_many_sign_ups_from_one_address_are_refused_in_our_look(client: Client) -> None:
    for number in range(20):
        client.post("/account/signup/", {"email": f"{number}"})
    answer = client.post("/account/signup/", SIGN_UP)
    assert answer.status_code == 429
    assert b"Too many tries" in answer.content
    assert b"signalpost.css" in answer.content


def test_tries_are_counted_by_the_address_that_the_proxy_saw(client: Client, settings: Settings) -> None:
    settings.SIGNALPOST_TRUSTED_PROXIES = 1
    for number in range(20):
        client.post("/account/signup/", {"email": f"{number}"}, headers={"x-forwarded-for": "203.0.113.7"})
    other = client.post("/account/signup/", {"email": "a"}, headers={"x-forwarded-for": "203.0.113.8"})
    same = client.post("/account/signup/", {"email": "a"}, headers={"x-forwarded-for": "203.0.113.7"})
    assert (other.status_code, same.status_code) == (200, 429)


def test_the_admin_has_no_door_of_its_own(client: Client) -> None:
    answer: Any = client.get("/admin/login/?next=/admin/")
    assert answer.url == "/account/login/?next=%2Fadmin%2F"


def test_signing_out_takes_a_post(client: Client, acme: Tenant) -> None:
    client.force_login(Membership.objects.get().user)
    assert b"Sign out?" in client.get("/account/logout/").content
    assert signed_in(client)
    client.post("/account/logout/")
    assert not signed_in(client)


# Addresses and passwords.


def test_with_a_mail_server_an_address_is_confirmed_first(client: Client, mandatory: None) -> None:
    answer = client.post("/account/signup/", SIGN_UP, follow=True)
    assert b"Look into your mail" in answer.content
    assert not signed_in(client)
    (path,) = links(str(mail.outbox[0].body))
    assert b"alice@acme.example</strong> your address?" in client.get(path).content
    assert not signed_in(client)  # what scans mail follows links
    back = client.post(path, follow=True)
    assert back.redirect_chain[-1][0] == "/t/acme/"
    assert signed_in(client) == "alice@acme.example"


def test_without_one_a_new_person_gets_in_at_once(client: Client) -> None:
    client.post("/account/signup/", SIGN_UP)
    assert signed_in(client) == "alice@acme.example"
    assert len(mail.outbox) == 1


def test_an_unconfirmed_address_lets_nobody_in(client: Client, mandatory: None) -> None:
    client.post("/account/signup/", SIGN_UP)
    answer: Any = sign_in(client)
    assert answer.url == "/account/confirm-email/"
    assert not signed_in(client)


def test_staff_made_on_the_command_line_need_confirm_nothing(client: Client, mandatory: None) -> None:
    get_user_model().objects.create_superuser("root", "", PASSWORD)
    answer: Any = sign_in(client, "root", next="/admin/")
    assert answer.url == "/admin/"
    assert signed_in(client) == "root"


def test_signing_up_again_looks_the_same_and_tells_only_the_mailbox(
    client: Client, alice: User, mandatory: None
) -> None:
    known = client.post("/account/signup/", SIGN_UP, follow=True)
    unknown = Client().post("/account/signup/", {**SIGN_UP, "email": "new@acme.example"}, follow=True)
    assert known.redirect_chain == unknown.redirect_chain
    assert [message.subject for message in mail.outbox] == ["You have an account already", "Confirm your address"]
    assert Tenant.objects.count() == 1


def test_a_forgotten_password_is_reset_by_mail(client: Client, alice: User) -> None:
    client.post("/account/password/reset/", {"email": alice.email})
    (path,) = links(str(mail.outbox[0].body))
    form: Any = client.get(path)
    client.post(form.url, {"password1": "another-horse-9", "password2": "another-horse-9"})
    assert sign_in(Client(), password=PASSWORD).status_code == 200
    assert sign_in(Client(), password="another-horse-9").status_code == 302
    assert b"This link opens nothing any more" in Client().get(path, follow=True).content


def test_a_reset_looks_the_same_for_an_address_without_an_account(client: Client, alice: User) -> None:
    answers = [client.post("/account/password/reset/", {"email": email}) for email in (alice.email, "no@acme.example")]
    assert {(answer.status_code, answer["location"]) for answer in answers} == {(302, "/account/password/reset/done/")}


def test_another_password_ends_the_other_sessions_and_is_told_by_mail(client: Client, acme: Tenant) -> None:
    other = Client()
    sign_in(client)
    sign_in(other)
    new = "another-horse-9"
    client.post("/account/password/change/", {"oldpassword": PASSWORD, "password1": new, "password2": new})
    assert signed_in(client)
    assert not signed_in(other)
    assert mail.outbox[-1].subject == "Your password was changed"
    assert "from 127.0.0.1" in mail.outbox[-1].body


def test_another_address_is_ones_own_once_it_is_confirmed(client: Client, acme: Tenant) -> None:
    sign_in(client)
    confirm(client, client.post("/account/email/", {"email": "alice@new.example", "action_add": ""}))
    assert signed_in(client) == "alice@acme.example"
    assert b"A link was sent to alice@new.example." in client.get("/account/email/").content
    client.post(links(str(mail.outbox[-1].body))[0])
    assert signed_in(client) == "alice@new.example"


def test_changing_the_address_asks_for_the_password_once_more(client: Client, acme: Tenant) -> None:
    client.force_login(Membership.objects.get().user)  # a session that was left open
    answer: Any = client.post("/account/email/", {"email": "mallory@evil.example", "action_add": ""})
    assert answer.url.startswith("/account/reauthenticate/")
    assert b"Is it you?" in client.get(answer.url).content
    assert not EmailAddress.objects.filter(email="mallory@evil.example").exists()


def test_a_mail_server_that_is_away_is_said_and_breaks_nothing(
    client: Client, mandatory: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr("django.core.mail.EmailMultiAlternatives.send", refuse)
    answer = client.post("/account/signup/", SIGN_UP, follow=True)
    assert b"The mail could not be sent." in answer.content
    assert Membership.objects.count() == 1


# Two factors.


def code_for(secret: str) -> str:
    return str(format_hotp_value(hotp_value(secret, int(time.time()) // 30)))


@pytest.fixture
def secret(client: Client, acme: Tenant) -> str:
    """Alice's second factor is on, and she is signed in."""
    sign_in(client)
    confirm(client, client.get("/account/two-factor/totp/activate/"))
    page = client.get("/account/two-factor/totp/activate/").content.decode()
    found = re.search(r'id="totp-secret">(\w+)<', page)
    assert found
    client.post("/account/two-factor/totp/activate/", {"code": code_for(found[1])})
    cache.clear()  # the same code is taken once; the next one comes in half a minute
    return found[1]


def test_a_second_factor_is_asked_for_after_the_password(client: Client, secret: str) -> None:
    other = Client()
    answer: Any = sign_in(other)
    assert answer.url == "/account/two-factor/authenticate/"
    assert not signed_in(other)
    wrong = other.post(answer.url, {"code": "000000"})
    assert b"Incorrect code." in wrong.content
    other.post(answer.url, {"code": code_for(secret)})
    assert signed_in(other) == "alice@acme.example"


def test_a_recovery_code_lets_in_once(client: Client, secret: str) -> None:
    page = client.get("/account/two-factor/recovery-codes/").content.decode()
    listed = re.search(r'<pre class="code" id="recovery-codes">(.*?)</pre>', page, re.DOTALL)
    assert listed
    code = listed[1].split()[0]
    for lets_in in (True, False):
        other = Client()
        sign_in(other)
        other.post("/account/two-factor/authenticate/", {"code": code})
        assert bool(signed_in(other)) is lets_in


def test_second_factors_are_encrypted_at_rest(secret: str) -> None:
    rows = {row.type: row.data for row in Authenticator.objects.all()}
    assert secrets.decrypt(rows["totp"]["secret"].encode()) == secret
    assert re.fullmatch(r"[0-9a-f]{80}", secrets.decrypt(rows["recovery_codes"]["seed"].encode()))


def test_a_second_factor_that_no_key_opens_lets_nobody_in(client: Client, secret: str, settings: Settings) -> None:
    settings.SIGNALPOST_ENCRYPTION_KEYS = ["another passphrase, long enough"]
    other = Client()
    sign_in(other)
    for code in (code_for(secret), code_for("")):
        answer = other.post("/account/two-factor/authenticate/", {"code": code})
        assert b"Incorrect code." in answer.content


def test_the_second_factor_can_be_turned_off(client: Client, secret: str) -> None:
    client.post("/account/two-factor/totp/deactivate/")
    assert not Authenticator.objects.exists()
    assert mail.outbox[-1].subject == "Two-factor sign-in was turned off"


# Home.


def test_home_is_the_sign_in_for_strangers(client: Client) -> None:
    answer = client.get("/", follow=True)
    assert answer.redirect_chain == [("/account/login/", 302)]
    assert b"Signalpost sends your changes" in answer.content


def test_home_is_the_only_tenants_overview(client: Client, acme: Tenant) -> None:
    client.force_login(Membership.objects.get().user)
    assert client.get("/")["location"] == "/t/acme/"


def test_home_lists_ones_own_tenants(client: Client, acme: Tenant, make_tenant: Callable[..., Tenant]) -> None:
    user = Membership.objects.get().user
    Membership.objects.create(tenant=make_tenant("second"), user=user, role=Role.VIEWER)
    make_tenant("stranger")
    client.force_login(user)
    page = client.get("/").content.decode()
    assert re.findall(r'href="/t/(\w+)/"', page) == ["acme", "second"]


def test_who_belongs_to_no_tenant_may_make_one(client: Client, alice: User) -> None:
    client.force_login(alice)
    assert client.get("/")["location"] == "/tenants/new/"
    answer: Any = client.post("/tenants/new/", {"company": "Acme"})
    assert answer.url == "/t/acme/"
    assert AuditEntry.objects.get().actor == "alice@acme.example"


def test_the_same_form_sent_twice_makes_one_tenant(client: Client, alice: User) -> None:
    client.force_login(alice)
    answers: list[Any] = [client.post("/tenants/new/", {"company": "Acme"}) for _ in range(2)]
    assert [answer.url for answer in answers] == ["/t/acme/", "/t/acme/"]
    assert Tenant.objects.count() == 1


def test_where_sign_up_is_closed_nobody_makes_a_tenant(client: Client, alice: User, settings: Settings) -> None:
    settings.SIGNUP = False
    client.force_login(alice)
    assert b"You belong to no tenant" in client.get("/").content
    answer = client.post("/tenants/new/", {"company": "Acme"})
    assert answer.status_code == 403
    assert b"Nobody makes tenants here but the operator." in answer.content
    assert not Tenant.objects.exists()


def test_an_invitation_opens_sign_up_and_no_tenant_of_ones_own(
    client: Client, alice: User, settings: Settings, invite: Callable[..., str]
) -> None:
    settings.SIGNUP = False
    client.get(f"/invitations/{invite('dora@acme.example', Role.VIEWER)}/")
    client.force_login(alice)
    assert client.post("/tenants/new/", {"company": "Alice's own"}).status_code == 403
    assert not Tenant.objects.filter(memberships__user=alice).exists()


@pytest.mark.parametrize("address", ["home", "nowhere", "subscriptions:edit", "//evil.example/", "javascript:alert(1)"])
def test_after_the_zone_nobody_is_led_astray(client: Client, address: str) -> None:
    answer: Any = client.post("/account/zone/", {"zone": "UTC", "next": address})
    assert answer.status_code == 302
    assert "evil" not in answer.url
    assert "javascript" not in answer.url


# The time zone.


def test_the_chosen_zone_is_that_of_every_time(client: Client, acme: Tenant) -> None:
    answer: Any = client.post("/account/zone/", {"zone": "Asia/Kathmandu", "next": "/account/login/"})
    assert answer.url == "/account/login/"
    assert b"Times are in Asia/Kathmandu" in client.get(answer.url).content
    assert b'<option value="Asia/Kathmandu" selected>' in client.get("/account/zone/").content
    client.post("/account/zone/", {"zone": "browser"})
    assert b"Times are in UTC" in client.get("/account/zone/").content


@pytest.mark.parametrize("wrong", ["Mars/Olympus", "../../etc/passwd"])
def test_a_zone_that_there_is_not_is_refused(client: Client, wrong: str) -> None:
    answer = client.post("/account/zone/", {"zone": wrong})
    assert b'id="id_zone_error"' in answer.content
    assert "signalpost_zone" not in answer.cookies


def test_the_zones_page_leads_to_no_other_site(client: Client) -> None:
    answer: Any = client.post("/account/zone/", {"zone": "UTC", "next": "//evil.example/"})
    assert answer.url == "/account/zone/"


# A host project with a sign-in of its own.


@pytest.mark.urls("tests.config.urls_pages_only")
def test_the_pages_work_without_our_sign_in(client: Client, acme: Tenant, settings: Settings) -> None:
    settings.LOGIN_URL = "hosts_sign_in"
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]
    middleware = [name for name in settings.MIDDLEWARE if not name.startswith("allauth.")]
    settings.MIDDLEWARE = middleware
    settings.INSTALLED_APPS = [name for name in settings.INSTALLED_APPS if not name.startswith("allauth")]
    assert client.get("/webhooks/t/acme/")["location"] == "/hosts/sign-in/?next=/webhooks/t/acme/"
    client.force_login(Membership.objects.get().user)
    page = client.get("/webhooks/t/acme/").content.decode()
    assert "/webhooks/account/zone/" in page
    assert '<a class="brand" href="/webhooks/t/acme/">' in page
    assert '<span class="brand">' in client.get("/webhooks/account/zone/").content.decode()
    for ours in ("/account/email", "/account/logout", "/account/two-factor", "Sign out"):
        assert ours not in page
    assert client.get("/webhooks/account/zone/").status_code == 200


def pages_of_a_tenant() -> list[str]:
    """The names of those that need no more than the tenant."""
    patterns = [
        (f"{resolver.namespace}:{pattern.name}", str(pattern.pattern))
        for resolver in get_resolver("webhooks.pages.urls").url_patterns
        if isinstance(resolver, URLResolver)
        for pattern in resolver.url_patterns
        if isinstance(pattern, URLPattern)
    ]
    return [name for name, route in patterns if route.startswith("t/<slug:slug>/") and route.count("<") == 1]


@pytest.mark.urls("tests.config.urls_pages_only")
def test_every_page_works_without_our_project(client: Client, acme: Tenant, settings: Settings) -> None:
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": []}]
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if not name.startswith("allauth.")]
    client.force_login(Membership.objects.get().user)
    names = pages_of_a_tenant()
    assert {"webhooks:overview", "webhooks:deliveries", "subscriptions:create", "subscriptions:members"} <= set(names)
    for name in names:
        answer = client.get(reverse(name, args=["acme"]))
        assert answer.status_code in {200, 302, 404, 405}, name  # 404: of something that Acme does not have


# Error pages, and what every page has.


def test_a_page_that_there_is_not_says_so_in_our_look(client: Client) -> None:
    answer = client.get("/nowhere/")
    assert answer.status_code == 404
    assert b"Nothing here" in answer.content
    assert b"signalpost.css" in answer.content


def test_a_stale_form_says_what_to_do() -> None:
    answer = Client(enforce_csrf_checks=True).post("/account/login/", {"login": "a", "password": "b"})
    assert answer.status_code == 403
    assert b"Open the page afresh and send the form again." in answer.content


def test_what_breaks_is_said_without_anything_that_may_break(
    client: Client, monkeypatch: pytest.MonkeyPatch, alice: User
) -> None:
    def break_down(*args: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr("config.views.redirect", break_down)
    client.force_login(alice)
    client.raise_request_exception = False
    answer = client.get("/")
    assert answer.status_code == 500
    assert b"Something broke" in answer.content
    assert b"a secret" not in answer.content
    assert "default-src 'none'" in answer["content-security-policy"]


@pytest.mark.parametrize(
    "name",
    [
        "account_login", "account_signup", "account_reset_password", "account_reset_password_done",
        "account_reset_password_from_key_done", "account_email_verification_sent", "account_inactive",
        "account_email", "account_change_password", "account_logout", "mfa_index", "tenant_new", "subscriptions:zone",
    ],
)  # fmt: skip
def test_every_page_of_an_account_is_one_of_ours(client: Client, alice: User, name: str) -> None:
    if name not in {"account_login", "account_signup"}:
        client.force_login(alice)
    answer = client.get(reverse(name))
    page = answer.content.decode()
    assert answer.status_code == 200
    assert page.count("<h1>") == 1
    assert "signalpost.css" in page
    assert not re.search(r"<script(?![^>]*\bsrc=)|\bstyle=|\bon\w+=", page)
    assert "script-src 'self'" in answer["content-security-policy"]


def test_cookies_go_by_tls_only_where_there_is_tls(client: Client) -> None:
    answer = client.post("/account/zone/", {"zone": "UTC"}, secure=True)
    assert answer.cookies["signalpost_zone"]["secure"] is True


# Counting.


@pytest.fixture
def counters(redis_url: str) -> Iterator[Callable[[str], Counters]]:
    Counters.away_until = 0.0
    yield lambda url: Counters(url, {"OPTIONS": {"serializer": "config.limits.Json", "socket_connect_timeout": 0.5}})
    Counters.away_until = 0.0


def test_all_web_processes_count_together(counters: Callable[[str], Counters], redis_url: str) -> None:
    one, other = counters(redis_url), counters(redis_url)
    other.own = one.own.__class__("another process", {})
    one.set("tries", [1.5, 2.5], 60)
    assert other.get("tries") == [1.5, 2.5]
    assert one.add("lock", True, 60) is True
    assert other.add("lock", True, 60) is False
    other.delete("lock")
    assert one.get("lock") is None
    one.clear()
    assert other.get("tries") is None


def test_while_redis_is_away_a_process_counts_by_itself(
    counters: Callable[[str], Counters], caplog: pytest.LogCaptureFixture
) -> None:
    away = counters("redis://127.0.0.1:1/0")
    away.clear()
    away.set("tries", [1.5], 60)
    assert away.get("tries") == [1.5]
    assert away.add("tries", [], 60) is False
    assert len(caplog.records) == 1  # it was asked once
    away.clear()


def test_nobody_can_plant_code_among_the_counts(counters: Callable[[str], Counters], redis_url: str) -> None:
    import pickle

    import redis

    one = counters(redis_url)
    redis.Redis.from_url(redis_url).set(one.make_key("tries"), pickle.dumps([1.0]))
    with pytest.raises(UnicodeDecodeError):
        one.get("tries")
    one.clear()

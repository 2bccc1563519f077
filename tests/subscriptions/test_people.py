"""Who belongs to a tenant: invited, joined, changed, gone."""

from __future__ import annotations

import threading
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.core.exceptions import ValidationError
from django.db import connections
from django.utils import timezone

from subscriptions import keys, people
from subscriptions.edits import Refused
from subscriptions.models import ApiKey, AuditEntry, Invitation, Membership, Role, Tenant
from subscriptions.trail import Actor
from webhooks.models import Event

if TYPE_CHECKING:
    from collections.abc import Callable

Action = AuditEntry.Action
OPERATOR = Actor("root", 99, as_operator=True)

pytestmark = pytest.mark.django_db


def actor(user: User) -> Actor:
    return Actor(user.email, user.pk, "203.0.113.7")


def link(token: str) -> str:
    return f"https://hooks.example/invitations/{token}/"


def token_of(message: Any) -> str:
    return str(message.body.split("/invitations/")[1].split("/")[0])


def noted(action: Action) -> list[tuple[str, str, Any]]:
    rows = AuditEntry.objects.filter(action=action).order_by("pk")
    return [(row.actor, row.name, row.detail) for row in rows]


@pytest.fixture
def invite(tenant: Tenant, alice: User, django_capture_on_commit_callbacks: Any) -> Callable[..., Invitation]:
    """Alice invites, and the mail goes."""

    def make(email: str = "dora@acme.example", role: Role = Role.VIEWER, by: User = alice) -> Invitation:
        with django_capture_on_commit_callbacks(execute=True):
            invitation = people.invite(tenant, actor(by), email=email, role=role, link=link)
        invitation.refresh_from_db()
        return invitation

    return make


@pytest.fixture
def dora(db: None) -> User:
    """Invited, and of no tenant."""
    return User.objects.create_user("dora", "Dora@acme.example")


def test_an_invitation_is_a_mail_with_a_link_of_which_only_the_hash_is_kept(
    invite: Callable[..., Invitation], mailoutbox: list[Any]
) -> None:
    invitation = invite(" Dora@Acme.example ")
    (message,) = mailoutbox
    assert message.to == ["dora@acme.example"]
    assert message.subject == "alice@acme.example invites you to Acme"
    assert "viewer" in message.body
    token = token_of(message)
    assert len(token) >= 43
    assert token not in str(vars(invitation))
    assert Invitation.objects.holding(token).get() == invitation
    assert timedelta(days=6, hours=23) < invitation.expires_at - timezone.now() <= timedelta(days=7)
    assert invitation.mailed_at is not None
    assert noted(Action.MEMBER_INVITED) == [("alice@acme.example", "dora@acme.example", {"role": "viewer"})]
    assert token not in str(list(AuditEntry.objects.values()))


def test_what_rolls_back_sends_no_mail(tenant: Tenant, alice: User, mailoutbox: list[Any]) -> None:
    people.invite(tenant, actor(alice), email="dora@acme.example", role=Role.VIEWER, link=link)
    assert mailoutbox == []  # the test's own transaction never commits


def test_a_mail_server_that_is_away_is_remembered_and_is_no_error(
    invite: Callable[..., Invitation], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(message: mail.EmailMessage) -> None:
        raise ConnectionRefusedError(message.to)

    monkeypatch.setattr(mail.EmailMessage, "send", refuse)
    assert invite().mailed_at is None
    assert "ConnectionRefusedError" in caplog.text
    assert "dora" not in caplog.text


def test_a_mail_server_that_hangs_is_not_waited_for_for_ever(
    invite: Callable[..., Invitation], monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()
    monkeypatch.setattr(people, "MAIL_TIMEOUT", 0.01)
    monkeypatch.setattr(mail.EmailMessage, "send", lambda message: answered.wait(30))
    assert invite().mailed_at is None
    answered.set()
    for thread in threading.enumerate():
        if thread.name == "signalpost-invitation":
            thread.join(10)


def test_a_name_with_a_line_break_breaks_no_header(
    invite: Callable[..., Invitation], tenant: Tenant, mailoutbox: list[Any]
) -> None:
    tenant.name = "Acme\nBcc: everybody@example.com"
    assert invite().mailed_at is not None
    assert mailoutbox[0].subject == "alice@acme.example invites you to Acme Bcc: everybody@example.com"
    assert mailoutbox[0].recipients() == ["dora@acme.example"]


def test_a_name_turns_no_text_of_the_mail_round(
    invite: Callable[..., Invitation], tenant: Tenant, mailoutbox: list[Any]
) -> None:
    tenant.name = "Ac\u202eme\x1b[7m"
    assert invite().mailed_at is not None
    assert mailoutbox[0].subject == "alice@acme.example invites you to Acme[7m"
    assert "the webhooks of Acme[7m, as" in mailoutbox[0].body


@pytest.mark.parametrize("email", ["", "bob", "bob@", "a@b@c", "bob@acme.example\nBcc: x@y.example"])
def test_what_is_no_address_is_refused_with_one_that_is(email: str, tenant: Tenant, alice: User) -> None:
    with pytest.raises(ValidationError) as refused:
        people.invite(tenant, actor(alice), email=email, role=Role.VIEWER, link=link)
    assert refused.value.message_dict == {"email": ["Write an address such as bob@example.com."]}


def test_whoever_is_a_member_is_not_invited(tenant: Tenant, alice: User, bob: User) -> None:
    with pytest.raises(ValidationError, match="a member already"):
        people.invite(tenant, actor(alice), email=bob.email.upper(), role=Role.VIEWER, link=link)


def test_whoever_is_invited_is_not_invited_twice(
    invite: Callable[..., Invitation], tenant: Tenant, alice: User
) -> None:
    invite()
    with pytest.raises(ValidationError, match="invited already"):
        people.invite(tenant, actor(alice), email="DORA@acme.example", role=Role.VIEWER, link=link)


def test_whose_invitation_has_run_out_is_invited_anew(invite: Callable[..., Invitation]) -> None:
    old = invite()
    Invitation.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    new = invite(role=Role.OWNER)
    assert Invitation.objects.get() == new != old


def test_another_tenant_may_invite_the_same_person(invite: Callable[..., Invitation], charlie: User, bob: User) -> None:
    invite()
    globex = Tenant.objects.get(slug="globex")
    people.invite(globex, actor(charlie), email="dora@acme.example", role=Role.VIEWER, link=link)
    people.invite(globex, actor(charlie), email=bob.email, role=Role.VIEWER, link=link)
    assert Invitation.objects.for_tenant(globex).count() == 2


def test_no_more_than_so_many_invitations_are_open(
    invite: Callable[..., Invitation], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(people, "MOST_OPEN", 2)
    invite("a@acme.example")
    invite("b@acme.example")
    with pytest.raises(Refused, match="2 invitations are open"):
        invite("c@acme.example")
    Invitation.objects.filter(email="a@acme.example").update(expires_at=timezone.now() - timedelta(seconds=1))
    invite("c@acme.example")


def test_withdrawing_and_inviting_in_turns_sends_no_more_than_so_many_mails_a_day(
    invite: Callable[..., Invitation], alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(people, "MOST_A_DAY", 2)
    for _ in range(2):
        people.withdraw(invite(), actor(alice))
    with pytest.raises(Refused, match="within a day"):
        invite()


def test_sent_again_the_new_link_opens_and_the_old_one_does_not(
    invite: Callable[..., Invitation], alice: User, mailoutbox: list[Any], django_capture_on_commit_callbacks: Any
) -> None:
    invitation = invite()
    Invitation.objects.update(mailed_at=timezone.now() - people.PAUSE)
    with django_capture_on_commit_callbacks(execute=True):
        people.invite_again(invitation, actor(alice), link=link)
    old, new = (token_of(message) for message in mailoutbox)
    with pytest.raises(people.NotOpenError):
        people.opened(old)
    assert people.opened(new) == invitation
    assert noted(Action.MEMBER_INVITED)[1][2] == {"role": "viewer", "again": True}


def test_sending_again_opens_one_that_had_run_out(
    invite: Callable[..., Invitation], alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(people, "PAUSE", timedelta(0))
    invitation = invite()
    Invitation.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert not people.invite_again(invitation, actor(alice), link=link).expired


def test_a_minute_passes_between_two_mails(invite: Callable[..., Invitation], alice: User) -> None:
    with pytest.raises(Refused, match="less than a minute ago"):
        people.invite_again(invite(), actor(alice), link=link)


def test_what_no_mail_server_took_may_be_sent_again_at_once(invite: Callable[..., Invitation], alice: User) -> None:
    invitation = invite()
    Invitation.objects.update(mailed_at=None)
    assert people.invite_again(invitation, actor(alice), link=link) == invitation


def test_what_was_withdrawn_is_not_sent_again(invite: Callable[..., Invitation], alice: User) -> None:
    invitation = invite()
    people.withdraw(invitation, actor(alice))
    with pytest.raises(Refused, match="meanwhile"):
        people.invite_again(invitation, actor(alice), link=link)


def test_withdrawn_its_link_opens_nothing_and_it_is_noted_once(
    invite: Callable[..., Invitation], alice: User, dora: User, mailoutbox: list[Any]
) -> None:
    invitation = invite()
    assert people.withdraw(invitation, actor(alice))
    assert not people.withdraw(invitation, actor(alice))
    assert [name for _, name, _ in noted(Action.INVITATION_WITHDRAWN)] == ["dora@acme.example"]
    with pytest.raises(people.NotOpenError):
        people.accept(token_of(mailoutbox[0]), user=dora, actor=actor(dora))


def test_accepted_it_makes_a_member_with_the_role_once(
    invite: Callable[..., Invitation], tenant: Tenant, dora: User, mailoutbox: list[Any]
) -> None:
    invite()
    token = token_of(mailoutbox[0])
    membership = people.accept(token, user=dora, actor=actor(dora))
    assert (membership.tenant, membership.user, membership.role) == (tenant, dora, Role.VIEWER)
    assert noted(Action.MEMBER_JOINED) == [
        ("Dora@acme.example", "dora@acme.example", {"role": "viewer", "invited by": "alice@acme.example"})
    ]
    assert not Invitation.objects.exists()
    with pytest.raises(people.NotOpenError):
        people.accept(token, user=dora, actor=actor(dora))


@pytest.mark.parametrize("token", ["", "nonsense", "\ud800", "x" * 10_000])
def test_a_token_that_was_never_made_opens_nothing(token: str) -> None:
    with pytest.raises(people.NotOpenError, match="not open any more"):
        people.opened(token)


def test_after_a_week_it_says_until_when_it_was_open(
    invite: Callable[..., Invitation], dora: User, mailoutbox: list[Any]
) -> None:
    invite()
    Invitation.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    with pytest.raises(people.NotOpenError, match="was open until"):
        people.accept(token_of(mailoutbox[0]), user=dora, actor=actor(dora))
    assert not Membership.objects.filter(user=dora).exists()


def test_somebody_else_does_not_accept_it(
    invite: Callable[..., Invitation], charlie: User, mailoutbox: list[Any]
) -> None:
    invite()
    with pytest.raises(people.WrongPersonError, match=r"for dora@acme.example, and you are signed in as charlie@"):
        people.accept(token_of(mailoutbox[0]), user=charlie, actor=actor(charlie))
    assert Invitation.objects.exists()


def test_whoever_is_a_member_keeps_the_role_they_have(
    invite: Callable[..., Invitation], tenant: Tenant, dora: User, mailoutbox: list[Any]
) -> None:
    invite(role=Role.OWNER)
    Membership.objects.create(tenant=tenant, user=dora, role=Role.VIEWER)
    with pytest.raises(people.MemberAlreadyError) as refused:
        people.accept(token_of(mailoutbox[0]), user=dora, actor=actor(dora))
    assert refused.value.tenant == tenant
    assert Membership.objects.get(user=dora).role == Role.VIEWER


def test_an_owner_changes_a_role(tenant: Tenant, alice: User, bob: User) -> None:
    membership = Membership.objects.get(user=bob)
    people.change_role(membership, actor(alice), role=Role.VIEWER, was=Role.DEVELOPER)
    membership.refresh_from_db()
    assert membership.role == Role.VIEWER
    assert noted(Action.MEMBER_CHANGED) == [(alice.email, bob.email, {"role": "viewer", "was": "developer"})]


def test_a_role_that_a_colleague_changed_meanwhile_is_not_changed_again(alice: User, bob: User) -> None:
    membership = Membership.objects.get(user=bob)
    people.change_role(membership, actor(alice), role=Role.OWNER, was=Role.DEVELOPER)
    with pytest.raises(people.StaleError, match="it is owner now") as stale:
        people.change_role(membership, actor(alice), role=Role.VIEWER, was=Role.DEVELOPER)
    assert stale.value.now == Role.OWNER


def test_a_role_that_is_as_wanted_is_no_change(alice: User, bob: User) -> None:
    people.change_role(Membership.objects.get(user=bob), actor(alice), role=Role.DEVELOPER, was=Role.VIEWER)
    assert noted(Action.MEMBER_CHANGED) == []


def test_the_last_owner_is_neither_demoted_nor_removed_nor_leaves(alice: User) -> None:
    membership = Membership.objects.get(user=alice)
    with pytest.raises(Refused, match="needs an owner"):
        people.change_role(membership, actor(alice), role=Role.VIEWER, was=Role.OWNER)
    for who in (actor(alice), OPERATOR):
        with pytest.raises(Refused, match="needs an owner"):
            people.remove(membership, who)
    membership.refresh_from_db()
    assert membership.role == Role.OWNER


def test_an_owner_who_cannot_sign_in_is_none(alice: User, bob: User) -> None:
    Membership.objects.filter(user=bob).update(role=Role.OWNER)
    User.objects.filter(pk=bob.pk).update(is_active=False)
    with pytest.raises(Refused, match="needs an owner"):
        people.remove(Membership.objects.get(user=alice), actor(alice))


def test_an_owner_of_another_tenant_is_none(alice: User, charlie: User) -> None:
    with pytest.raises(Refused, match="needs an owner"):
        people.remove(Membership.objects.get(user=alice), actor(alice))


def test_an_owner_may_go_where_there_is_another(alice: User, bob: User) -> None:
    Membership.objects.filter(user=bob).update(role=Role.OWNER)
    people.remove(Membership.objects.get(user=alice), actor(alice))
    assert Membership.objects.get().user == bob
    assert noted(Action.MEMBER_LEFT) == [(alice.email, alice.email, {"role": "owner"})]


@pytest.mark.parametrize("leaving", [True, False], ids=["removed", "demoted"])
def test_invitations_end_with_the_right_to_invite(
    tenant: Tenant, alice: User, bob: User, invite: Callable[..., Invitation], leaving: bool
) -> None:
    membership = Membership.objects.get(tenant=tenant, user=bob)
    people.change_role(membership, actor(alice), role=Role.OWNER, was=Role(membership.role))
    invite("evil@bob.example", role=Role.OWNER, by=bob)
    invite("dora@acme.example", by=alice)
    membership.refresh_from_db()
    if leaving:
        people.remove(membership, actor(alice))
    else:
        people.change_role(membership, actor(alice), role=Role.VIEWER, was=Role.OWNER)
    assert [row.email for row in Invitation.objects.all()] == ["dora@acme.example"]
    assert ("alice@acme.example", "evil@bob.example") in [each[:2] for each in noted(Action.INVITATION_WITHDRAWN)]


@pytest.mark.parametrize("revoke_keys", [True, False])
def test_the_keys_of_who_is_removed_go_where_it_is_wished(
    tenant: Tenant, alice: User, bob: User, revoke_keys: bool
) -> None:
    membership = Membership.objects.get(user=bob)
    people.change_role(membership, actor(alice), role=Role.OWNER, was=Role.DEVELOPER)
    his, _ = keys.create(tenant, actor(bob), name="Bob's", scopes=["read"])
    hers, _ = keys.create(tenant, actor(alice), name="Alice's", scopes=["read"])
    assert list(people.keys_of(membership)) == [his]
    assert people.remove(membership, actor(alice), revoke_keys=revoke_keys) == int(revoke_keys)
    assert set(ApiKey.objects.live()) == ({hers} if revoke_keys else {his, hers})
    assert [each[0] for each in noted(Action.KEY_REVOKED)] == [alice.email] * revoke_keys


def test_an_owner_who_leaves_takes_keys_along(tenant: Tenant, alice: User, bob: User) -> None:
    Membership.objects.filter(user=bob).update(role=Role.OWNER)
    keys.create(tenant, actor(alice), name="Alice's", scopes=["read"])
    assert people.remove(Membership.objects.get(user=alice), actor(alice), revoke_keys=True) == 1
    assert not ApiKey.objects.live().exists()


def test_a_member_who_is_removed_is_noted_as_such(alice: User, bob: User) -> None:
    membership = Membership.objects.get(user=bob)
    people.remove(membership, actor(alice))
    assert noted(Action.MEMBER_REMOVED) == [(alice.email, bob.email, {"role": "developer"})]
    with pytest.raises(Refused, match="left or was removed"):
        people.remove(membership, actor(alice))


def test_who_is_no_owner_any_more_does_nothing_to_others(tenant: Tenant, alice: User, bob: User) -> None:
    for attempt in (
        lambda: people.invite(tenant, actor(bob), email="dora@acme.example", role=Role.OWNER, link=link),
        lambda: people.remove(Membership.objects.get(user=alice), actor(bob)),
        lambda: people.change_role(Membership.objects.get(user=bob), actor(bob), role=Role.OWNER, was=Role.DEVELOPER),
        lambda: people.rename(tenant, actor(bob), name="Bob's", was=tenant.name),
    ):
        with pytest.raises(Refused, match="not an owner"):
            attempt()


def test_whoever_listens_hears_of_members(
    tenant: Tenant, alice: User, bob: User, subscribe: Callable[..., Any]
) -> None:
    subscribe(tenant, "subscriptions.membership.*")
    membership = Membership.objects.get(user=bob)
    people.change_role(membership, actor(alice), role=Role.VIEWER, was=Role.DEVELOPER)
    people.remove(membership, actor(alice))
    topics = Event.objects.order_by("pk").values_list("topic", flat=True)
    assert list(topics) == ["subscriptions.membership.updated", "subscriptions.membership.deleted"]


def test_a_tenant_is_renamed_by_who_saw_its_name(tenant: Tenant, alice: User) -> None:
    people.rename(tenant, actor(alice), name="Acme Ltd", was="Acme")
    with pytest.raises(people.StaleError, match="it is Acme Ltd now"):
        people.rename(tenant, actor(alice), name="Acme Inc", was="Acme")
    assert people.rename(tenant, actor(alice), name="Acme Ltd", was="Acme").name == "Acme Ltd"
    assert noted(Action.TENANT_CHANGED) == [(alice.email, "acme", {"called": {"from": "Acme", "to": "Acme Ltd"}})]


def at_once(*deeds: Callable[[], Any]) -> list[Any]:
    """Each in a thread of its own; what came of it, or what it raised."""
    start = threading.Barrier(len(deeds))
    results: list[Any] = []

    def run(deed: Callable[[], Any]) -> None:
        try:
            start.wait(10)
            results.append(deed())
        except Exception as error:  # noqa: BLE001 - what it raised is the result
            results.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(deed,)) for deed in deeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


@pytest.fixture
def side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that look whether they may wait for each other before they act on
    it, if nothing keeps the second from looking."""
    looked, look = threading.Barrier(2), people.is_last_owner

    def look_and_wait(membership: Membership) -> bool:
        last = look(membership)
        with suppress(threading.BrokenBarrierError):
            looked.wait(0.5)
        return last

    monkeypatch.setattr(people, "is_last_owner", look_and_wait)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("side_by_side")
@pytest.mark.parametrize("deed", ["demote", "remove", "leave"])
def test_of_two_owners_who_do_away_with_each_other_at_once_one_remains(
    deed: str, tenant: Tenant, alice: User, bob: User
) -> None:
    Membership.objects.update(role=Role.OWNER)
    hers, his = Membership.objects.get(user=alice), Membership.objects.get(user=bob)
    deeds = {
        "demote": (
            lambda: people.change_role(his, actor(alice), role=Role.VIEWER, was=Role.OWNER),
            lambda: people.change_role(hers, actor(bob), role=Role.VIEWER, was=Role.OWNER),
        ),
        "remove": (lambda: people.remove(his, actor(alice)), lambda: people.remove(hers, actor(bob))),
        "leave": (lambda: people.remove(hers, actor(alice)), lambda: people.remove(his, actor(bob))),
    }
    results = at_once(*deeds[deed])
    assert sum(isinstance(result, Refused) for result in results) == 1, results
    assert Membership.objects.for_tenant(tenant).owners().count() == 1


@pytest.mark.django_db(transaction=True)
def test_an_invitation_that_is_accepted_twice_at_once_makes_one_member(
    tenant: Tenant, alice: User, dora: User, mailoutbox: list[Any]
) -> None:
    people.invite(tenant, actor(alice), email="dora@acme.example", role=Role.VIEWER, link=link)
    token = token_of(mailoutbox[0])
    results = at_once(*[lambda: people.accept(token, user=dora, actor=actor(dora))] * 2)
    assert sum(isinstance(result, Refused) for result in results) == 1, results
    assert Membership.objects.filter(user=dora).count() == 1
    assert len(noted(Action.MEMBER_JOINED)) == 1


@pytest.mark.django_db(transaction=True)
def test_two_who_invite_the_same_person_at_once_send_one_mail(
    tenant: Tenant, alice: User, mailoutbox: list[Any]
) -> None:
    invite = lambda: people.invite(  # noqa: E731
        tenant, actor(alice), email="dora@acme.example", role=Role.VIEWER, link=link
    )
    results = at_once(invite, invite)
    assert sum(isinstance(result, ValidationError) for result in results) == 1, results
    assert len(mailoutbox) == 1

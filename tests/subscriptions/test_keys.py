"""API keys: made, shown once, checked, revoked."""

from __future__ import annotations

import logging
import threading
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import connection, models, transaction
from django.utils import timezone

from subscriptions import keys
from subscriptions.edits import Refused
from subscriptions.models import ApiKey, AuditEntry, Tenant
from subscriptions.models.keys import digest
from subscriptions.trail import Actor
from webhooks.models import Event

if TYPE_CHECKING:
    from collections.abc import Callable

Action = AuditEntry.Action
Scope = ApiKey.Scope
ALICE = Actor("alice@acme.example", address="203.0.113.7")

pytestmark = pytest.mark.django_db


@pytest.fixture
def make(tenant: Tenant) -> Callable[..., tuple[ApiKey, str]]:
    def create(name: str = "Billing", **fields: Any) -> tuple[ApiKey, str]:
        return keys.create(tenant, ALICE, **{"name": name, "scopes": ["read"], **fields})

    return create


def used(key: ApiKey) -> datetime | None:
    return ApiKey.objects.values_list("last_used_at", flat=True).get(pk=key.pk)


def test_a_key_is_kept_as_a_hash_and_a_beginning(make: Callable[..., tuple[ApiKey, str]]) -> None:
    key, value = make(scopes=["write", "read"], networks=["203.0.113.0/24"])
    key.refresh_from_db()
    assert value.startswith(key.beginning)
    assert len(value) - len(key.beginning) >= 39
    assert value not in str(vars(key))
    assert (key.scopes, key.networks, key.created_by) == (["read", "write"], ["203.0.113.0/24"], ALICE.name)
    entry = AuditEntry.objects.get(action=Action.KEY_CREATED)
    assert entry.detail == {"scopes": ["read", "write"], "mode": "live", "networks": ["203.0.113.0/24"]}
    assert value not in str(vars(entry))


@pytest.mark.parametrize("mode", ApiKey.Mode.values)
def test_the_mode_can_be_seen_in_the_value(mode: str, make: Callable[..., tuple[ApiKey, str]]) -> None:
    _, value = make(mode=mode)
    assert value.startswith(f"sp_{mode}_")
    assert keys.SHAPE.fullmatch(value)


def test_its_value_opens_and_nothing_else_does(make: Callable[..., tuple[ApiKey, str]], tenant: Tenant) -> None:
    key, value = make()
    found = keys.authenticate(value, "203.0.113.7")
    assert found == key
    assert found.tenant == tenant
    for wrong in ("", value[:-1], value + "x", value.swapcase(), f" {value}", f"{value}\n", key.digest, "\ud800", "é"):
        assert keys.authenticate(wrong, "203.0.113.7") is None, wrong


def test_authenticating_takes_one_query_and_a_second_when_it_writes_down_the_use(
    make: Callable[..., tuple[ApiKey, str]], django_assert_num_queries: Any
) -> None:
    _, value = make()
    with django_assert_num_queries(2):
        keys.authenticate(value, "203.0.113.7")
    with django_assert_num_queries(1):
        found = keys.authenticate(value, "203.0.113.7")
        assert found is not None
        assert found.tenant is not None
        assert found.tenant.slug == "acme"


def test_its_use_is_written_down_once_a_minute(make: Callable[..., tuple[ApiKey, str]]) -> None:
    key, value = make()
    assert used(key) is None
    keys.authenticate(value, None)
    first = used(key)
    assert first is not None
    keys.authenticate(value, None)
    assert used(key) == first
    ApiKey.objects.update(last_used_at=first - timedelta(seconds=61))
    keys.authenticate(value, None)
    later = used(key)
    assert later is not None
    assert later >= first


def test_a_refused_use_is_not_written_down(make: Callable[..., tuple[ApiKey, str]]) -> None:
    key, value = make(networks=["203.0.113.0/24"])
    assert keys.authenticate(value, "198.51.100.1") is None
    assert used(key) is None


def test_revoked_it_opens_nothing_and_is_noted_once(make: Callable[..., tuple[ApiKey, str]]) -> None:
    key, value = make()
    assert keys.revoke(key, ALICE)
    assert not keys.revoke(key, ALICE)
    assert keys.authenticate(value, None) is None
    assert AuditEntry.objects.filter(action=Action.KEY_REVOKED).count() == 1


def test_expired_it_opens_nothing(make: Callable[..., tuple[ApiKey, str]]) -> None:
    key, value = make(expires_at=timezone.now() + timedelta(days=1))
    assert keys.authenticate(value, None) == key
    ApiKey.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert keys.authenticate(value, None) is None


@pytest.mark.parametrize(
    ("networks", "address", "allowed"),
    [
        ([], None, True),
        ([], "203.0.113.7", True),
        (["203.0.113.0/24"], "203.0.113.7", True),
        (["203.0.113.0/24"], "::ffff:203.0.113.7", True),
        (["203.0.113.0/24"], "203.0.114.7", False),
        (["203.0.113.0/24"], None, False),
        (["203.0.113.0/24"], "2001:db8::1", False),
        (["203.0.113.0/24", "2001:db8::/32"], "2001:db8::1", True),
        (["2001:db8::/32"], "2001:db9::1", False),
        (["203.0.113.7/32"], "203.0.113.7", True),
    ],
)
def test_it_opens_from_its_networks_only(networks: list[str], address: str | None, allowed: bool) -> None:
    assert keys.is_allowed(networks, address) is allowed


@pytest.mark.parametrize(
    ("text", "networks"),
    [
        ("", []),
        (" \n ", []),
        ("203.0.113.0/24", ["203.0.113.0/24"]),
        ("203.0.113.7", ["203.0.113.7/32"]),
        ("2001:DB8::/32", ["2001:db8::/32"]),
        ("203.0.113.0/24,198.51.100.0/24\n2001:db8::/32", ["203.0.113.0/24", "198.51.100.0/24", "2001:db8::/32"]),
        ("203.0.113.0/255.255.255.0\n203.0.113.0/24", ["203.0.113.0/24"]),
    ],
)
def test_networks_are_read_one_a_line_or_by_commas(text: str, networks: list[str]) -> None:
    assert keys.networks_in(text) == networks


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("203.0.113.7/24", "Write 203.0.113.0/24"),
        ("2001:db8::1/32", "Write 2001:db8::/32"),
        ("office", "no network"),
        ("203.0.113.0/33", "no network"),
        ("<script>", "no network"),
        ("\n".join(f"10.0.0.{number}" for number in range(51)), "at most 50"),
    ],
)
def test_what_is_no_network_is_refused_with_what_would_be_right(text: str, right: str) -> None:
    with pytest.raises(ValidationError, match=right):
        keys.networks_in(text)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": " "}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["read", "operate"]}, "scopes"),
        ({"scopes": ["operate"]}, "scopes"),
        ({"mode": "loud"}, "mode"),
        ({"expires_at": datetime(2020, 1, 1, tzinfo=timezone.get_default_timezone())}, "expires_at"),
    ],
)
def test_a_wrong_value_is_refused_by_its_field(
    fields: dict[str, Any], field: str, make: Callable[..., tuple[ApiKey, str]]
) -> None:
    with pytest.raises(ValidationError) as refused:
        make(**fields)
    assert list(refused.value.message_dict) == [field]
    assert not ApiKey.objects.exists()


def test_two_clicks_make_one_key(make: Callable[..., tuple[ApiKey, str]]) -> None:
    key, _ = make()
    with pytest.raises(ValidationError, match="key of this name"):
        make()
    keys.revoke(key, ALICE)
    make()


def test_another_tenants_key_may_have_the_same_name(
    make: Callable[..., tuple[ApiKey, str]], make_tenant: Callable[..., Tenant]
) -> None:
    make()
    keys.create(make_tenant("globex"), ALICE, name="Billing", scopes=["read"])
    assert ApiKey.objects.count() == 2


def test_there_are_no_more_than_so_many(
    make: Callable[..., tuple[ApiKey, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "MOST", 1)
    key, _ = make("one")
    with pytest.raises(Refused, match="Revoke one first"):
        make("two")
    keys.revoke(key, ALICE)
    make("two")


def test_a_key_may_what_its_scopes_say(make: Callable[..., tuple[ApiKey, str]]) -> None:
    key, _ = make(scopes=["write"])
    assert [scope for scope in Scope if keys.may(key, scope)] == [Scope.WRITE]


def test_a_program_is_named_in_the_log_by_its_key(make: Callable[..., tuple[ApiKey, str]]) -> None:
    key, value = make()
    actor = keys.actor_of(key, "203.0.113.7")
    assert actor == Actor(f"Billing ({key.beginning}…)", None, "203.0.113.7")
    assert value not in actor.name


def test_the_operators_key_belongs_to_nobody_and_acts_as_the_operator() -> None:
    key = ApiKey(name="Deploy", scopes=["operate"])
    value = key.fill()
    key.save()
    found = keys.authenticate(value, None)
    assert found is not None
    assert found.tenant is None
    assert keys.actor_of(found, None).as_operator


def test_whoever_listens_hears_of_keys_and_not_of_their_use(
    make: Callable[..., tuple[ApiKey, str]], tenant: Tenant, subscribe: Callable[..., Any]
) -> None:
    subscribe(tenant, "subscriptions.apikey.*")
    key, value = make()
    keys.authenticate(value, None)
    keys.revoke(key, ALICE)
    events = Event.objects.order_by("pk")
    assert [event.topic for event in events] == ["subscriptions.apikey.created", "subscriptions.apikey.updated"]
    assert all(value.encode() not in bytes(event.body) for event in events)
    assert all(key.digest.encode() not in bytes(event.body) for event in events)


def test_no_value_is_logged(make: Callable[..., tuple[ApiKey, str]], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        key, value = make()
        keys.authenticate(value, "203.0.113.7")
        keys.revoke(key, ALICE)
    assert value not in caplog.text


def test_who_is_no_owner_any_more_makes_and_revokes_none(tenant: Tenant, alice: User, bob: User) -> None:
    """The page looked at the role before; it was taken away since."""
    key, _ = keys.create(tenant, Actor(alice.email, alice.pk), name="Billing", scopes=["read"])
    for deed in (
        lambda: keys.create(tenant, Actor(bob.email, bob.pk), name="Bob's", scopes=["read"]),
        lambda: keys.revoke(key, Actor(bob.email, bob.pk)),
    ):
        with pytest.raises(Refused, match="not an owner"):
            deed()
    assert list(ApiKey.objects.live()) == [key]


def test_the_keys_of_a_person_are_known_whatever_they_were_called_then(
    tenant: Tenant, alice: User, make_tenant: Callable[..., Tenant]
) -> None:
    made = [
        keys.create(tenant, Actor(called, alice.pk), name=f"key {called}", scopes=["read"])[0]
        for called in ("alice@old.example", alice.email, "alice")
    ]
    keys.create(tenant, Actor("bob@acme.example"), name="Bob's", scopes=["read"])
    keys.create(make_tenant("globex"), Actor(alice.email), name="elsewhere", scopes=["read"])
    keys.revoke(made.pop(), ALICE)
    assert set(keys.made_by(tenant, user_id=alice.pk, name=alice.email)) == set(made)


def test_the_operator_revokes_a_key_that_is_nobodys() -> None:
    key = ApiKey(name="Operator's")
    key.fill()
    key.save()
    assert keys.revoke(key, Actor("root", 99, as_operator=True))


class TestWhatIsRemembered:
    @pytest.fixture(autouse=True)
    def a_minute(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(keys, "GOES_BY", 60.0)

    def test_of_a_key_that_was_just_read_is_only_asked_whether_it_was_revoked(
        self, make: Callable[..., tuple[ApiKey, str]], django_assert_num_queries: Any
    ) -> None:
        _key, value = make()
        assert keys.authenticate(value, None)
        with django_assert_num_queries(1) as queries:
            assert keys.authenticate(value, None)
        assert "revoked_at IS NULL" in queries[0]["sql"]

    def test_what_this_process_changes_it_knows_at_once(self, make: Callable[..., tuple[ApiKey, str]]) -> None:
        key, value = make()
        assert keys.authenticate(value, None)
        assert keys.revoke(key, ALICE)
        assert keys.authenticate(value, None) is None

    @pytest.mark.parametrize("how", ["update", "save", "delete", "delete_all", "tenant"])
    def test_however_it_is_changed(self, make: Callable[..., tuple[ApiKey, str]], how: str) -> None:
        key, value = make()
        assert keys.authenticate(value, None)
        if how == "update":
            ApiKey.objects.filter(pk=key.pk).update(revoked_at=timezone.now())
        elif how == "save":
            key.expires_at = timezone.now() - timedelta(seconds=1)
            key.save()
        elif how == "delete":
            key.delete()
        elif how == "delete_all":
            ApiKey.objects.all().delete()
        else:
            Tenant.objects.get().delete()
        assert keys.authenticate(value, None) is None

    def test_what_another_process_revokes_opens_nothing_from_then_on(
        self, make: Callable[..., tuple[ApiKey, str]]
    ) -> None:
        key, value = make()
        assert keys.authenticate(value, None)
        models.QuerySet(ApiKey).filter(pk=key.pk).update(revoked_at=timezone.now())
        assert keys.authenticate(value, None) is None

    def test_another_change_of_another_process_is_seen_in_time(
        self, make: Callable[..., tuple[ApiKey, str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key, value = make()
        now = time.monotonic()
        assert keys.authenticate(value, None)
        models.QuerySet(ApiKey).filter(pk=key.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
        assert keys.authenticate(value, None)
        monkeypatch.setattr(time, "monotonic", lambda: now + 61)
        assert keys.authenticate(value, None) is None

    def test_its_end_and_its_networks_are_looked_at_each_time(
        self, make: Callable[..., tuple[ApiKey, str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _key, value = make(networks=["192.0.2.0/24"], expires_at=timezone.now() + timedelta(hours=1))
        assert keys.authenticate(value, "192.0.2.1")
        assert keys.authenticate(value, "198.51.100.1") is None
        later = timezone.now() + timedelta(hours=2)
        monkeypatch.setattr(timezone, "now", lambda: later)
        assert keys._remembered(digest(value)) is None

    def test_no_more_keys_are_remembered_than_there_is_room_for(
        self, make: Callable[..., tuple[ApiKey, str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(keys, "MOST_KNOWN", 2)
        values = [make(name=f"key {number}")[1] for number in range(5)]
        for value in values:
            assert keys.authenticate(value, None)
        assert len(keys._known) <= 2


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has one writer at a time")
def test_who_is_overtaken_in_a_host_that_isolates_its_transactions_more_is_let_in(tenant: Tenant) -> None:
    key, value = keys.create(tenant, ALICE, name="Program", scopes=["read"])
    let_in: list[ApiKey | None] = []
    # Some backend waits for this one.
    blocked = (
        "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid)))"
    )

    def slower() -> None:
        try:
            with connection.cursor() as cursor:
                cursor.execute("SET default_transaction_isolation TO 'repeatable read'")
            let_in.append(keys.authenticate(value, None))
        finally:
            connection.close()

    other = threading.Thread(target=slower)
    with transaction.atomic(), connection.cursor() as cursor:
        ApiKey.objects.filter(pk=key.pk).update(last_used_at=timezone.now())
        other.start()
        waiting = False
        while not waiting and other.is_alive():
            cursor.execute(blocked)
            (waiting,) = cursor.fetchone()
    other.join()
    assert let_in == [key]

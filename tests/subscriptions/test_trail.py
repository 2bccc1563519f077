"""The audit log: who, from where, and never changed."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import IntegrityError, connection, connections, transaction
from django.test import RequestFactory
from hypothesis import given
from hypothesis import strategies as st

from subscriptions import trail
from subscriptions.models import AuditEntry, Subscription, Tenant

if TYPE_CHECKING:
    from collections.abc import Callable

Action = AuditEntry.Action
ALICE = trail.Actor("alice@acme.example", 1, "203.0.113.7")
TABLE = AuditEntry._meta.db_table
MIGRATION = import_module("subscriptions.migrations.0002_audit_append_only")
CHANGED, WIPED = "UPDATE {} SET actor = 'charlie'", "DELETE FROM {}"

pytestmark = pytest.mark.django_db


@pytest.fixture
def entry(tenant: Tenant) -> AuditEntry:
    return trail.note(ALICE, Action.SECRET_ROTATED, tenant=tenant, name="Billing")


def test_an_entry_says_who_did_what_to_what_from_where(tenant: Tenant) -> None:
    subscription = Subscription.objects.create(tenant=tenant, name="Billing", url="https://a.example/")
    entry = trail.note(ALICE, Action.SECRET_ROTATED, tenant=tenant, about=subscription, overlap=24)
    entry.refresh_from_db()
    assert (entry.tenant_id, entry.actor, entry.user_id, entry.address) == (
        tenant.pk,
        "alice@acme.example",
        1,
        "203.0.113.7",
    )
    assert (entry.kind, entry.number, entry.name) == ("subscription", str(subscription.pk), "Billing")
    assert entry.detail == {"overlap": 24}


CHANGES: dict[str, Callable[[AuditEntry], Any]] = {
    "save": lambda entry: entry.save(),
    "save of some fields": lambda entry: entry.save(update_fields=["actor"]),
    "delete": lambda entry: entry.delete(),
    "update of many": lambda entry: AuditEntry.objects.update(actor="charlie"),
    "delete of many": lambda entry: AuditEntry.objects.all().delete(),
    "bulk_update": lambda entry: AuditEntry.objects.bulk_update([entry], ["actor"]),
    "bulk_create over what is there": lambda entry: AuditEntry.objects.bulk_create(
        [AuditEntry(pk=entry.pk, action=entry.action, actor="charlie")],
        update_conflicts=True,
        update_fields=["actor"],
        unique_fields=["id"],
    ),
    "update_or_create": lambda entry: AuditEntry.objects.update_or_create(pk=entry.pk, defaults={"actor": "charlie"}),
    "raw delete": lambda entry: AuditEntry.objects.all()._raw_delete("default"),
}


@pytest.mark.parametrize("way", CHANGES)
def test_no_way_of_django_changes_or_takes_away_an_entry(way: str, entry: AuditEntry) -> None:
    with pytest.raises(TypeError, match="only added to"):
        CHANGES[way](entry)
    assert AuditEntry.objects.get().actor == "alice@acme.example"


def test_an_entry_with_a_number_that_is_taken_does_not_replace_the_other(entry: AuditEntry) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        AuditEntry(pk=entry.pk, action=entry.action, actor="charlie").save()
    assert AuditEntry.objects.get().actor == "alice@acme.example"


@pytest.mark.parametrize("statement", [CHANGED, WIPED])
def test_the_database_itself_refuses(statement: str, entry: AuditEntry) -> None:
    with pytest.raises(IntegrityError, match="only added to"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement.format(TABLE))
    assert AuditEntry.objects.get().actor == "alice@acme.example"


@pytest.mark.django_db(databases="__all__")
def test_every_database_has_the_triggers() -> None:
    named = {
        "sqlite": ("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = %s", 2),
        "postgresql": ("SELECT tgname FROM pg_trigger WHERE tgrelid = %s::regclass AND NOT tgisinternal", 1),
    }
    for alias in connections:
        query, number = named[connections[alias].vendor]
        with connections[alias].cursor() as cursor:
            cursor.execute(query, [TABLE])
            assert len(cursor.fetchall()) == number, alias


@pytest.mark.django_db(transaction=True)
def test_the_migration_goes_back_and_forth(entry: AuditEntry) -> None:
    with connection.schema_editor() as editor:
        MIGRATION.take_away(apps, editor)
    with connection.cursor() as cursor:
        cursor.execute(CHANGED.format(TABLE))
    with connection.schema_editor() as editor:
        MIGRATION.put(apps, editor)
    with pytest.raises(IntegrityError, match="only added to"), connection.cursor() as cursor:
        cursor.execute(CHANGED.format(TABLE))


def test_a_tenant_can_be_deleted_and_its_entries_stay(tenant: Tenant, entry: AuditEntry) -> None:
    tenant.delete()
    assert AuditEntry.objects.get() == entry


@pytest.mark.django_db(transaction=True)
def test_flush_empties_the_log_and_leaves_it_guarded(entry: AuditEntry, tenant: Tenant) -> None:
    call_command("flush", interactive=False, verbosity=0)
    assert not AuditEntry.objects.exists()
    trail.note(ALICE, Action.SECRET_ROTATED, tenant=None)
    with pytest.raises(IntegrityError, match="only added to"), connection.cursor() as cursor:
        cursor.execute(WIPED.format(TABLE))


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("203.0.113.7:4711", "203.0.113.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%eth0]:80", "fe80::1"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("", None),
        ("unknown", None),
        ("_hidden", None),
        ("203.0.113.256", None),
        ("203.0.113.7, 10.0.0.1", None),
        ("'; DROP TABLE", None),
    ],
)
def test_an_address_is_written_as_the_database_takes_it(written: str, address: str | None) -> None:
    assert trail.address(written) == address


@given(st.text(max_size=60))
def test_whatever_a_client_writes_is_an_address_or_none(written: str) -> None:
    found = trail.address(written)
    assert found is None or trail.address(found) == found


@pytest.mark.parametrize(
    ("proxies", "forwarded", "address"),
    [
        (0, "203.0.113.9", "10.0.0.1"),  # the header is not believed
        (1, "203.0.113.9", "203.0.113.9"),
        (1, "6.6.6.6, 203.0.113.9", "203.0.113.9"),  # what the client wrote itself stands at the left
        (2, "6.6.6.6, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        (2, "203.0.113.9", "10.0.0.1"),  # it did not come through both
        (1, "", "10.0.0.1"),
        (1, "203.0.113.9,", None),  # an empty entry is no address
        (1, "nonsense", None),
        (1, None, "10.0.0.1"),
    ],
)
def test_the_address_is_the_one_that_the_outermost_of_our_proxies_saw(
    proxies: int, forwarded: str | None, address: str | None, *, settings: Any, rf: RequestFactory
) -> None:
    settings.SIGNALPOST_TRUSTED_PROXIES = proxies
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    assert trail.address_of(rf.get("/", headers=headers, REMOTE_ADDR="10.0.0.1")) == address


def test_a_server_behind_a_unix_socket_knows_no_address(rf: RequestFactory) -> None:
    assert trail.address_of(rf.get("/", REMOTE_ADDR="")) is None


def test_a_person_without_an_address_of_mail_is_called_by_their_name(rf: RequestFactory) -> None:
    request = rf.get("/")
    request.user = User(pk=7, username="alice")
    assert trail.actor_of(request) == trail.Actor("alice", 7, "127.0.0.1")


@pytest.mark.parametrize("action", Action)
def test_every_action_is_a_sentence(action: Action) -> None:
    entry = AuditEntry(action=action, actor="alice", name="Billing", detail={"role": "viewer"})
    sentence = trail.sentence(entry)
    assert sentence.startswith("<b>alice</b> ")
    assert not sentence.endswith(".")
    assert "{" not in sentence


def test_a_sentence_escapes_what_people_wrote() -> None:
    entry = AuditEntry(action=Action.SECRET_ROTATED, actor="<i>", name="<script>{actor}")
    assert trail.sentence(entry) == "<b>&lt;i&gt;</b> rotated the secret of <b>&lt;script&gt;{actor}</b>"


def test_an_action_of_a_later_release_is_read_all_the_same() -> None:
    assert trail.sentence(AuditEntry(action="moon.landed", actor="alice", name="Eagle")) == (
        "<b>alice</b>: <b>Eagle</b>"
    )


def test_what_has_no_name_goes_by_its_number() -> None:
    entry = AuditEntry(action=Action.SECRET_REVEALED, actor="alice", kind="subscription", number="12")
    assert trail.sentence(entry) == "<b>alice</b> revealed the secret of <b>subscription 12</b>"


def test_a_replay_of_no_one_subscription_is_of_all() -> None:
    entry = AuditEntry(action=Action.REPLAY_STARTED, actor="alice", kind="replay", number="12")
    assert trail.sentence(entry) == "<b>alice</b> started a replay: <b>all subscriptions</b>"

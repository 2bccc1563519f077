"""Who listens is known from memory, at once in the process that changes it and
within a second in every other."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from subscriptions.entries import TEST
from subscriptions.models import Revision, Subscription, Tenant, Topic, wishes_changed
from tests.traffic import make_event
from webhooks import capture, matching
from webhooks.events import publish
from webhooks.matching import wanted, wanted_by
from webhooks.models import Event

if TYPE_CHECKING:
    from pytest_django import Settings

Subscribe = Callable[..., Subscription]
MakeTenant = Callable[..., Tenant]

UPDATED = "shop.order.updated"


@contextmanager
def rolled_back() -> Iterator[None]:
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def in_a_thread(question: Callable[[], Any]) -> Any:
    """The answer of another thread, on a connection of its own."""

    def ask() -> Any:
        try:
            return question()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as threads:
        return threads.submit(ask).result(10)


def by_another_process(change: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Change a wish as another process would: this one is not told."""
    with monkeypatch.context() as patch:
        patch.setattr(wishes_changed, "send", lambda *args, **kwargs: [])
        change()


def pairs(*events: Event) -> list[tuple[uuid.UUID, int, int]]:
    query, parameters = matching.wanting(events, using="default")
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        return [(uuid.UUID(str(event)), subscription, tenant) for event, subscription, tenant in cursor.fetchall()]


def wanting(event: Event) -> list[Subscription]:
    return [Subscription.objects.get(pk=pk) for _, pk, _ in pairs(event)]


def read_by(step: Any) -> Iterator[tuple[str, int]]:
    """The tables of PostgreSQL's plan, and how many rows of each were looked at."""
    if "Relation Name" in step:
        looked_at = step["Actual Rows"] + step.get("Rows Removed by Filter", 0)
        yield step["Relation Name"], looked_at * step["Actual Loops"]
    for before in step.get("Plans", ()):
        yield from read_by(before)


class TestNames:
    @pytest.mark.parametrize(
        ("topic", "names"),
        [
            ("shop.order.updated", ("shop.order.updated", "shop.order.*", "shop.*", "*")),
            ("crm.won", ("crm.won", "crm.*", "*")),
            ("project.request.failed", ("project.request.failed", "project.request.*", "project.*", "*")),
            ("single", ("single", "*")),
        ],
    )
    def test_a_topic_is_matched_by_itself_its_prefixes_and_the_star(self, topic: str, names: tuple[str, ...]) -> None:
        assert matching.candidates(topic) == names

    @pytest.mark.parametrize(
        ("listens_to", "topic", "heard"),
        [
            ("shop.order.updated", "shop.order.updated", True),
            ("shop.order.*", "shop.order.updated", True),
            ("shop.*", "shop.order.updated", True),
            ("*", "shop.order.updated", True),
            ("shop.order.created", "shop.order.updated", False),
            ("shop.orders.*", "shop.order.updated", False),
            ("shop.order.*", "shop.orders.updated", False),
            ("shop.order.*", "shop.order", False),
            ("shop.order.updated.*", "shop.order.updated", False),
        ],
    )
    def test_memory_and_sql_agree_on_what_matches(
        self, tenant: Tenant, subscribe: Subscribe, listens_to: str, *, topic: str, heard: bool
    ) -> None:
        subscribe(tenant, listens_to)
        event = make_event(tenant, topic=topic)
        assert wanted(topic) is wanted_by(topic, tenant.pk) is bool(wanting(event)) is heard


class TestWanted:
    def test_nobody_listens_at_first(self, db: None) -> None:
        assert not wanted(UPDATED)
        assert not wanted_by(UPDATED, 1)

    def test_another_tenants_wish_is_anyones_but_not_this_ones(
        self, make_tenant: MakeTenant, subscribe: Subscribe
    ) -> None:
        acme, other = make_tenant("acme"), make_tenant("other")
        subscribe(other, UPDATED)
        assert wanted(UPDATED)
        assert wanted_by(UPDATED, None)
        assert wanted_by(UPDATED, other.pk)
        assert not wanted_by(UPDATED, acme.pk)

    def test_a_wish_for_some_fields_is_a_wish(self, tenant: Tenant, subscribe: Subscribe) -> None:
        subscribe(tenant, UPDATED, changed=("status",))
        assert wanted_by(UPDATED, tenant.pk)

    def test_tenants_are_known_by_id_slug_and_key(self, make_tenant: MakeTenant) -> None:
        acme = make_tenant("acme", key="7")
        assert matching.slug_of(acme.pk) == "acme"
        assert matching.id_of_slug("acme") == acme.pk
        assert matching.tenant_by_key("7") == matching.tenant_by_key(7) == acme.pk
        assert [matching.tenant_by_key("acme"), matching.id_of_slug("7"), matching.slug_of(-1)] == [None] * 3

    def test_also_one_that_is_new_and_was_given_as_a_number(
        self, make_tenant: MakeTenant, subscribe: Subscribe
    ) -> None:
        make_tenant("first")
        assert matching.tenant_by_key(7) is None
        tenant = make_tenant("second", key=7)
        assert matching.tenant_by_key(7) == matching.tenant_by_key("7") == tenant.pk
        subscription = Subscription(tenant_id=str(tenant.pk), url="https://receiver.example/")
        subscription.save()
        subscription.listen_to(UPDATED)
        assert wanted_by(UPDATED, tenant.pk)

    def test_after_the_first_question_there_are_no_queries(self, tenant: Tenant, subscribe: Subscribe) -> None:
        subscribe(tenant, UPDATED)
        wanted(UPDATED)
        with CaptureQueriesContext(connection) as queries:
            for _ in range(100):
                assert wanted(UPDATED)
                assert wanted_by(UPDATED, tenant.pk)
                assert not wanted_by("crm.lead.won", tenant.pk)
                assert matching.slug_of(tenant.pk)
        assert len(queries) == 0

    def test_the_first_question_costs_three_queries_and_later_looks_one(
        self, db: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wanted(UPDATED)
        migrated = matching._memory.migrated
        matching.forget()
        matching._memory.migrated = migrated
        with CaptureQueriesContext(connection) as queries:
            wanted(UPDATED)
        assert len(queries) == 3
        monkeypatch.setattr(matching, "LOOK_EVERY", 0.0)
        matching._memory.look_at = 0
        wanted(UPDATED)
        with CaptureQueriesContext(connection) as queries:
            for _ in range(5):
                wanted(UPDATED)
        assert len(queries) == 5


class TestOwnChanges:
    @pytest.mark.parametrize(
        "change",
        [
            lambda each: each.disable(reason="410 Gone"),
            lambda each: each.delete(),
            lambda each: each.topics.all().delete(),
            lambda each: each.topics.get().delete(),
            lambda each: each.tenant.delete(),
            lambda each: Topic.objects.update(name="crm.*"),
            lambda each: type(each).objects.bulk_update(
                [type(each)(pk=each.pk, disabled_at=timezone.now())], ["disabled_at"]
            ),
        ],
    )
    def test_whatever_silences_a_subscription_takes_effect_at_once(
        self, tenant: Tenant, subscribe: Subscribe, change: Callable[[Subscription], Any]
    ) -> None:
        subscription = subscribe(tenant, UPDATED)
        assert wanted_by(UPDATED, tenant.pk)
        change(subscription)
        assert not wanted_by(UPDATED, tenant.pk)

    def test_a_subscription_that_is_enabled_again_is_heard_at_once(self, tenant: Tenant, subscribe: Subscribe) -> None:
        subscription = subscribe(tenant, UPDATED)
        subscription.disable(reason="x")
        assert not wanted(UPDATED)
        subscription.enable()
        assert wanted_by(UPDATED, tenant.pk)

    def test_a_topic_of_a_disabled_subscription_is_not_heard(self, tenant: Tenant) -> None:
        off = Subscription.objects.create(tenant=tenant, url="https://x.example/", disabled_at=timezone.now())
        wanted(UPDATED)
        off.listen_to(UPDATED)
        assert not wanted(UPDATED)

    def test_a_topic_that_knows_its_subscription_by_number_only(self, tenant: Tenant) -> None:
        subscription = Subscription.objects.create(tenant=tenant, url="https://x.example/")
        wanted(UPDATED)
        Topic.objects.create(subscription_id=subscription.pk, name=UPDATED)
        assert wanted_by(UPDATED, tenant.pk)

    def test_many_wishes_at_once(self, tenant: Tenant) -> None:
        wanted(UPDATED)
        made = Subscription.objects.bulk_create([Subscription(tenant=tenant, url="https://x.example/")] * 1)
        Topic.objects.bulk_create([Topic(subscription=each, name=UPDATED) for each in made])
        assert wanted_by(UPDATED, tenant.pk)

    def test_a_tenant_that_changes_its_slug_or_key(self, make_tenant: MakeTenant) -> None:
        acme = make_tenant("acme", key="1")
        assert matching.tenant_by_key("1") == acme.pk
        acme.slug, acme.key = "umbrella", "2"
        acme.save(update_fields=["slug", "key"])
        assert matching.slug_of(acme.pk) == "umbrella"
        assert matching.id_of_slug("acme") is matching.tenant_by_key("1") is None
        assert matching.tenant_by_key("2") == acme.pk

    @pytest.mark.parametrize("together", [True, False])
    @pytest.mark.django_db(transaction=True)
    def test_a_thousand_wishes_made_one_by_one_are_not_a_thousand_readings(
        self, make_tenant: MakeTenant, together: bool
    ) -> None:
        tenant = make_tenant()
        wanted(UPDATED)

        def make() -> None:
            for number in range(50):
                subscription = Subscription.objects.create(tenant=tenant, url="https://x.example/")
                subscription.listen_to(f"shop.order.n{number}")
                assert wanted_by(f"shop.order.n{number}", tenant.pk)

        with CaptureQueriesContext(connection) as queries:
            if together:
                with transaction.atomic():
                    make()
            else:
                make()
        assert len([each for each in queries if "DISTINCT" in each["sql"]]) <= 5
        assert wanted_by("shop.order.n7", tenant.pk)
        matching.forget()
        assert wanted_by("shop.order.n7", tenant.pk)


class TestTransactions:
    def test_a_savepoint_that_is_rolled_back_is_forgotten(self, tenant: Tenant, subscribe: Subscribe) -> None:
        subscribe(tenant, "crm.*")
        with transaction.atomic():
            with rolled_back():
                subscribe(tenant, UPDATED)
                assert wanted_by(UPDATED, tenant.pk)
            assert not wanted_by(UPDATED, tenant.pk)
            assert wanted_by("crm.won", tenant.pk)
            subscribe(tenant, "shop.order.created")
            assert not wanted_by(UPDATED, tenant.pk)
            assert wanted_by("shop.order.created", tenant.pk)

    def test_a_silence_that_is_rolled_back_is_forgotten(self, tenant: Tenant, subscribe: Subscribe) -> None:
        subscription = subscribe(tenant, UPDATED)
        with rolled_back():
            subscription.disable(reason="x")
            assert not wanted(UPDATED)
        assert wanted(UPDATED)

    @pytest.mark.django_db(transaction=True)
    def test_what_is_not_committed_is_heard_by_its_own_thread_only(
        self, make_tenant: MakeTenant, subscribe: Subscribe
    ) -> None:
        tenant = make_tenant()
        subscription = subscribe(tenant, UPDATED)
        with rolled_back():
            subscription.disable(reason="x")
            subscription.listen_to("crm.*")
            Topic.objects.filter(name="crm.*").update(name="shop.*")
            assert not wanted(UPDATED)
            assert in_a_thread(lambda: wanted(UPDATED))
        assert wanted(UPDATED)

    @pytest.mark.django_db(transaction=True)
    def test_what_is_committed_is_heard_by_every_thread_at_once(
        self, make_tenant: MakeTenant, subscribe: Subscribe
    ) -> None:
        tenant = make_tenant()
        assert not in_a_thread(lambda: wanted(UPDATED))
        with transaction.atomic():
            subscription = subscribe(tenant, UPDATED)
        assert in_a_thread(lambda: wanted_by(UPDATED, tenant.pk))
        subscription.disable(reason="x")
        assert not in_a_thread(lambda: wanted(UPDATED))
        assert not wanted(UPDATED)

    @pytest.mark.django_db(transaction=True)
    def test_what_was_changed_in_sql_is_heard_when_the_revision_is_renewed(
        self, make_tenant: MakeTenant, subscribe: Subscribe
    ) -> None:
        subscribe(make_tenant(), UPDATED)
        assert wanted(UPDATED)
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM subscriptions_topic")
        Revision.renew()
        assert not wanted(UPDATED)

    @pytest.mark.django_db(transaction=True)
    def test_a_transaction_that_is_rolled_back_leaves_nothing_behind(
        self, make_tenant: MakeTenant, subscribe: Subscribe
    ) -> None:
        tenant = make_tenant()
        wanted(UPDATED)
        with rolled_back():
            subscribe(tenant, UPDATED)
            assert wanted(UPDATED)
        assert not wanted(UPDATED)

    @pytest.mark.django_db(transaction=True)
    def test_threads_that_ask_while_wishes_change_agree_in_the_end(
        self, make_tenant: MakeTenant, subscribe: Subscribe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(matching, "LOOK_EVERY", 0.001)
        tenant = make_tenant()
        subscription = subscribe(tenant, UPDATED)
        done = threading.Event()

        def ask() -> int:
            asked = 0
            try:
                while not done.is_set():
                    wanted_by(UPDATED, tenant.pk)
                    asked += 1
            finally:
                connection.close()
            return asked

        with ThreadPoolExecutor(3) as threads:
            asking = [threads.submit(ask) for _ in range(3)]
            try:
                for _ in range(10):
                    subscription.disable(reason="x")
                    assert not wanted(UPDATED)
                    subscription.enable()
                    assert wanted(UPDATED)
            finally:
                done.set()
            assert all(each.result(10) for each in asking)
        assert in_a_thread(lambda: wanted(UPDATED))


class TestOtherProcesses:
    def test_their_change_is_heard_at_the_next_look(
        self, tenant: Tenant, subscribe: Subscribe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        matching.forget()  # As if the tenant had long been committed.
        assert not wanted(UPDATED)
        by_another_process(lambda: subscribe(tenant, UPDATED), monkeypatch)
        assert not wanted(UPDATED)
        matching._memory.look_at = 0
        assert wanted_by(UPDATED, tenant.pk)

    def test_a_number_that_comes_again_after_a_rollback_is_another_revision(
        self, tenant: Tenant, subscribe: Subscribe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(matching, "LOOK_EVERY", 0.0)
        subscribe(tenant, "crm.*")
        matching.forget()
        numbers = []
        with rolled_back():
            by_another_process(lambda: Tenant.objects.update(name="Acme & Sons"), monkeypatch)
            assert wanted("crm.won")
            numbers.append(Revision.objects.get().number)
        by_another_process(lambda: Topic.objects.all().delete(), monkeypatch)
        numbers.append(Revision.objects.get().number)
        assert not wanted("crm.won")
        assert numbers[0] == numbers[1]

    def test_an_old_snapshot_does_not_undo_what_is_known(
        self, tenant: Tenant, subscribe: Subscribe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        subscribe(tenant, UPDATED)
        matching.forget()
        assert wanted(UPDATED)
        monkeypatch.setattr(matching, "LOOK_EVERY", 0.0)
        Revision.objects.update(number=F("number") - 1, token=uuid.uuid4())
        Topic.objects.all()._raw_delete("default")
        matching._memory.look_at = 0
        assert wanted(UPDATED)
        Revision.objects.update(number=F("number") + 2)
        assert not wanted(UPDATED)

    def test_two_processes_hear_of_each_other_within_a_second(
        self, process_env: dict[str, str], make_tenant: MakeTenant, subscribe: Subscribe
    ) -> None:
        tenant = make_tenant()
        with subprocess.Popen(
            [sys.executable, "-c", LISTENER, UPDATED, str(tenant.pk)],
            env=process_env,
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
        ) as other:
            assert other.stdout is not None
            assert other.stdin is not None
            try:
                assert other.stdout.readline() == "False\n"
                subscription = subscribe(tenant, "shop.*")
                began = time.monotonic()
                assert other.stdout.readline() == "True\n"
                assert time.monotonic() - began < 1
                subscription.disable(reason="x")
                began = time.monotonic()
                assert other.stdout.readline() == "False\n"
                assert time.monotonic() - began < 1
            finally:
                other.terminate()

    def test_a_fork_starts_afresh(self, process_env: dict[str, str]) -> None:
        done = subprocess.run([sys.executable, "-c", FORK], env=process_env, timeout=30, check=False)
        assert done.returncode == 0


# Says whenever the answer becomes another one.
LISTENER = """
import sys, time
import django
django.setup()
from webhooks import capture, matching
topic, tenant = sys.argv[1], int(sys.argv[2])
last = None
while True:
    answer = matching.wanted_by(topic, tenant)
    if answer is not last:
        print(answer, flush=True)
        last = answer
    time.sleep(0.01)
"""

FORK = """
import os, sys
import django
django.setup()
from webhooks import capture, matching
matching._memory.looking.acquire()
matching._memory.writing.acquire()
child = os.fork()
if child == 0:
    os._exit(matching._memory.looking.locked() or matching._memory.writing.locked())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


class TestBeforeTheFirstMigration:
    def test_nobody_listens_and_the_callers_transaction_lives_on(self, tenant: Tenant, subscribe: Subscribe) -> None:
        subscribe(tenant, UPDATED)
        with rolled_back():
            with connection.cursor() as cursor:
                cursor.execute("ALTER TABLE subscriptions_topic RENAME TO subscriptions_gone")
            connection.run_on_commit.clear()
            matching.forget()
            assert not wanted(UPDATED)
            assert matching.slug_of(tenant.pk) is None
            assert Tenant.objects.count() == 1
        matching.forget()
        assert wanted(UPDATED)


class TestWhatGoesWrong:
    """A release runs before its migrations: a column is not there yet."""

    @pytest.fixture(autouse=True)
    def without_a_column(self, tenant: Tenant) -> Iterator[None]:
        wanted(UPDATED)
        with rolled_back():
            with connection.cursor() as cursor:
                cursor.execute("ALTER TABLE subscriptions_revision RENAME COLUMN token TO gone")
            connection.run_on_commit.clear()
            matching.forget()
            yield
        matching.forget()

    def test_it_can_be_logged_and_the_callers_transaction_lives_on(
        self, settings: Settings, caplog: pytest.LogCaptureFixture
    ) -> None:
        settings.SIGNALPOST_CAPTURE_ERRORS = "log"
        assert not capture.wanted(UPDATED)
        assert Tenant.objects.count() == 1
        assert f"The event {UPDATED} was not captured" in caplog.text

    def test_or_it_is_raised(self) -> None:
        with pytest.raises(DatabaseError):
            capture.wanted(UPDATED)


class TestWanting:
    @pytest.fixture
    def event(self, tenant: Tenant) -> Callable[..., Event]:
        def make(**fields: Any) -> Event:
            return make_event(**{"topic": UPDATED, "tenant": tenant, **fields})

        return make

    def test_each_subscription_once_however_many_topics_match(
        self, tenant: Tenant, subscribe: Subscribe, event: Callable[..., Event]
    ) -> None:
        subscription = subscribe(tenant, UPDATED, "shop.order.*", "shop.*", "*")
        subscription.listen_to(UPDATED, changed=["status", "total"])
        assert wanting(event(changed=["status", "total"])) == [subscription]

    def test_only_the_tenants_own(
        self, tenant: Tenant, make_tenant: MakeTenant, subscribe: Subscribe, event: Callable[..., Event]
    ) -> None:
        mine = subscribe(tenant, "*")
        theirs = subscribe(make_tenant("other"), "*")
        assert wanting(event()) == [mine]
        assert set(wanting(event(tenant=None))) == {mine, theirs}

    def test_only_enabled_ones_that_were_there_when_it_happened(
        self, tenant: Tenant, subscribe: Subscribe, event: Callable[..., Event]
    ) -> None:
        subscribe(tenant, "*").disable(reason="x")
        there = subscribe(tenant, "*")
        happened = timezone.now()
        subscribe(tenant, "*")
        assert wanting(event(created_at=happened)) == [there]
        assert not wanting(event(created_at=there.created_at - timedelta(microseconds=1)))
        assert wanting(event(created_at=there.created_at))

    def test_one_that_the_writer_knew_of_was_there_whatever_the_clocks_say(
        self, tenant: Tenant, subscribe: Subscribe, event: Callable[..., Event]
    ) -> None:
        known, _ = subscribe(tenant, "*"), subscribe(tenant, "*")
        an_hour_slow = timezone.now() - timedelta(hours=1)
        assert wanting(event(created_at=an_hour_slow, newest_subscription=known.pk)) == [known]

    @pytest.mark.parametrize("is_read", [True, False], ids=["added to what is known", "read anew"])
    def test_an_event_says_which_was_the_newest_that_its_writer_knew_of(
        self, tenant: Tenant, subscribe: Subscribe, is_read: bool
    ) -> None:
        subscribe(tenant, "*")
        assert matching.wanted(UPDATED)
        newest = subscribe(tenant, "billing.*")
        if not is_read:
            matching.forget()
        assert publish("billing.paid", tenant, {}).newest_subscription == newest.pk

    @pytest.mark.parametrize(
        ("changed", "heard"),
        [(["status"], True), (["note", "total"], True), (["note"], False), ([], False), (None, False)],
    )
    def test_only_when_one_of_its_fields_changed(
        self, tenant: Tenant, subscribe: Subscribe, event: Callable[..., Event], *, changed: Any, heard: bool
    ) -> None:
        subscribe(tenant, UPDATED, changed=("status", "total"))
        assert bool(wanting(event(changed=changed))) is heard

    def test_it_is_one_query_that_an_index_serves(
        self, tenant: Tenant, subscribe: Subscribe, event: Callable[..., Event]
    ) -> None:
        subscribe(tenant, UPDATED)
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL enable_seqscan = off")
        query, parameters = matching.wanting([event(), event()], using="default")
        explain = "EXPLAIN" if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN"
        with connection.cursor() as cursor:
            cursor.execute(f"{explain} {query}", parameters)
            plan = " ".join(str(row[-1]) for row in cursor.fetchall())
        assert "Seq Scan" not in plan
        assert "SCAN" not in plan.replace("SCAN json_each VIRTUAL TABLE", "")

    @pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite joins in one way only")
    def test_only_the_tenants_own_subscriptions_are_read_whatever_the_planner_takes_for_cheaper(
        self, make_tenant: MakeTenant, subscribe: Subscribe, event: Callable[..., Event]
    ) -> None:
        tenants = [make_tenant(f"tenant-{number}") for number in range(20)]
        for tenant in tenants:
            subscribe(tenant, UPDATED)
        query, parameters = matching.wanting([event(tenant=tenants[10])], using="default")
        with connection.cursor() as cursor:
            # What statistics from before the tenant joined come to.
            cursor.execute("SET LOCAL enable_nestloop = off")
            cursor.execute("SET LOCAL enable_seqscan = off")
            cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}", parameters)
            ((plan,),) = cursor.fetchall()
        assert dict(read_by(plan[0]["Plan"]))["subscriptions_subscription"] == 1

    def test_nobody_hears_of_a_test_event(
        self, tenant: Tenant, subscribe: Subscribe, event: Callable[..., Event]
    ) -> None:
        subscribe(tenant, "*")
        assert not wanting(event(topic=TEST))

    def test_several_at_once_are_matched_each_for_itself(
        self, tenant: Tenant, make_tenant: MakeTenant, subscribe: Subscribe, event: Callable[..., Event]
    ) -> None:
        first = subscribe(tenant, "*")
        early = event(created_at=timezone.now())
        second, theirs = subscribe(tenant, "shop.*"), subscribe(make_tenant("other"), "shop.*")
        late, other = event(), event(tenant=theirs.tenant)
        assert set(pairs(early, late, other)) == {
            (early.pk, first.pk, tenant.pk),
            (late.pk, first.pk, tenant.pk),
            (late.pk, second.pk, tenant.pk),
            (other.pk, theirs.pk, theirs.tenant_id),
        }

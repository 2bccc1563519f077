"""The events of one transaction are written together, and it does not show."""

from __future__ import annotations

import json
import threading
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from django.db import DatabaseError, IntegrityError, connection, connections, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from examples.shop.models import Tag
from subscriptions.models import home
from webhooks import coalescing
from webhooks.events import publish
from webhooks.models import Event, new_event_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from subscriptions.models import Tenant

pytestmark = pytest.mark.django_db(transaction=True)

INSERT = 'INSERT INTO "webhooks_event"'
RELEASE, BACK = "RELEASE SAVEPOINT {}", "ROLLBACK TO SAVEPOINT {}"


class UndoneError(Exception):
    pass


def names(*, using: str = "default") -> Counter[str]:
    """Of the rows that there are."""
    return Counter(Tag.objects.using(using).values_list("name", flat=True))


def told(*, using: str = "default") -> Counter[str]:
    """Of the rows that there are events of."""
    bodies = Event.objects.using(using).values_list("body", flat=True)
    return Counter(json.loads(bytes(body))["data"]["object"]["name"] for body in bodies)


def save(tenant: Tenant, *tags: str, using: str = "default") -> None:
    for name in tags:
        Tag(tenant=tenant, name=name).save(using=using)


def waiting(*, using: str = "default") -> int:
    found = vars(connections[using]).get(coalescing.PLACE)
    return 0 if found is None else len(found.rows)


@contextmanager
def inserts() -> Iterator[list[str]]:
    """The statements that write events."""
    found: list[str] = []
    with CaptureQueriesContext(connection) as queries:
        yield found
    found += [query["sql"] for query in queries if INSERT in query["sql"]]


# --- whatever happens ------------------------------------------------------------


def steps(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    some = st.lists(children, min_size=1, max_size=5)
    ends = st.sampled_from(["leave", "leave", "raise", "set_rollback"])
    return st.one_of(
        st.tuples(st.just("block"), some, ends, st.booleans(), st.booleans()),
        st.tuples(st.just("savepoint"), some, st.booleans()),
        st.tuples(st.just("written_savepoint"), some, st.booleans()),
        st.tuples(st.just("drivers_transaction"), some, st.booleans()),
    )


SIMPLE = ["save"] * 6 + ["read", "harmless", "broken", "set", "later", "fail", "close"]
PROGRAMS = st.lists(st.recursive(st.sampled_from(SIMPLE), steps, max_leaves=25), min_size=1, max_size=6)


class Program:
    """Runs what hypothesis thought of; every change is a new tag."""

    def __init__(self, tenant: Tenant, insert: Callable[..., int]) -> None:
        self.tenant = tenant
        self.really_insert = insert
        self.number = 0
        self.fails = False

    def insert(self, rows: Any, *, using: str) -> int:
        if self.fails:
            self.fails = False
            raise DatabaseError("The disk is full.")
        return self.really_insert(rows, using=using)

    def run(self, program: list[Any]) -> None:
        for step in program:
            try:
                self.step(step)
            except (UndoneError, DatabaseError, transaction.TransactionManagementError):
                assert not connection.in_atomic_block
            finally:
                self.fails = False

    def step(self, step: Any) -> None:
        kind, *rest = (step,) if isinstance(step, str) else step
        getattr(self, kind)(*rest)

    def all(self, children: list[Any]) -> None:
        for child in children:
            self.step(child)

    def block(self, children: list[Any], end: str, savepoint: bool, swallow: bool) -> None:
        try:
            with transaction.atomic(savepoint=savepoint):
                self.all(children)
                if end == "raise":
                    raise UndoneError
                if end == "set_rollback":
                    transaction.set_rollback(True)
        except (UndoneError, DatabaseError):
            if not swallow:
                raise

    def savepoint(self, children: list[Any], back: bool) -> None:
        with transaction.atomic():
            point = connection.savepoint()
            self.all(children)
            (connection.savepoint_rollback if back else connection.savepoint_commit)(point)  # type: ignore[arg-type]
            self.save()

    def written_savepoint(self, children: list[Any], back: bool) -> None:
        with transaction.atomic():
            self.number += 1
            point = f"by_hand_{self.number}"
            self.sql(f"SAVEPOINT {point}")
            self.all(children)
            self.sql((BACK if back else RELEASE).format(point))
            self.save()

    def drivers_transaction(self, children: list[Any], back: bool) -> None:
        if connection.vendor != "postgresql":
            return
        with transaction.atomic():
            self.save()
            try:
                with connection.wrap_database_errors, connection.connection.transaction():
                    self.all(children)
                    if back:
                        raise UndoneError
            except UndoneError:
                self.save()

    def sql(self, statement: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(statement)

    def save(self) -> None:
        self.number += 1
        save(self.tenant, str(self.number))

    def read(self) -> None:
        seen = told()
        # In psycopg's own transaction() what has waited since before it goes on waiting.
        assert seen == names() or coalescing._is_nested(connection.connection)

    def harmless(self) -> None:
        self.sql("SELECT 1")

    def broken(self) -> None:
        try:
            self.sql("SELECT nothing FROM nowhere")
        except DatabaseError:
            self.harmless()

    def set(self) -> None:
        self.sql("SET LOCAL lock_timeout = 1000" if connection.vendor == "postgresql" else "PRAGMA cache_size = 1000")

    def later(self) -> None:
        transaction.on_commit(self.save)

    def fail(self) -> None:
        self.fails = True

    def close(self) -> None:
        connection.close()


@pytest.fixture
def memory(listening: Tenant) -> Tenant:
    """A tenant whose wishes are in memory: what breaks a transaction is then no look of ours."""
    from webhooks import matching

    assert matching.wanted("shop.tag.created")
    return listening


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(program=PROGRAMS, most=st.sampled_from([1, 2, 3, 100]))
def test_exactly_the_committed_changes_have_events(memory: Tenant, program: list[Any], most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        runs = Program(memory, coalescing.insert)
        patch.setattr(coalescing, "MOST_ROWS", most)
        patch.setattr(coalescing, "insert", runs.insert)
        runs.run(program)
    assert connection.execute_wrappers == []
    assert told() == names()
    Event.objects.all().delete()
    Tag.objects.all()._raw_delete("default")


# --- what it is for --------------------------------------------------------------


def test_many_saves_take_two_statements(listening: Tenant) -> None:
    with inserts() as statements, transaction.atomic():
        save(listening, *map(str, range(50)))
        assert waiting() == 49
    # The first at once, the others together.
    assert len(statements) == 2
    assert told() == names()
    assert len(names()) == 50
    assert connection.execute_wrappers == []


def test_one_save_waits_for_nothing(listening: Tenant) -> None:
    with transaction.atomic():
        save(listening, "one")
        assert waiting() == 0
        assert connection.execute_wrappers == []
    save(listening, "two")
    assert told() == {"one": 1, "two": 1}


def test_memory_holds_so_many_at_most(listening: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coalescing, "MOST_ROWS", 10)
    with inserts() as statements, transaction.atomic():
        for number in range(101):
            save(listening, str(number))
            assert waiting() < 10
    assert len(statements) == 11
    assert told() == names()


def test_memory_holds_so_many_bytes_at_most(listening: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coalescing, "MOST_BYTES", 500)
    with transaction.atomic():
        save(listening, "first", "second")
        assert waiting() == 1
        save(listening, *("x" * 20 for _ in range(4)))
        assert waiting() < 4
    assert told() == names()


def test_what_is_stored_does_not_tell_how_it_was_stored(db: None) -> None:
    moment = datetime(2026, 11, 21, 10, 30, 0, 123456, tzinfo=UTC)
    rows: list[tuple[Any, ...]] = [
        (new_event_id(), 1, "a.b", None, b"{}", "", moment, None, 7),
        (new_event_id(), None, "a.b.c", [], b'"\xc3\xa9\x00\\"', "", moment + timedelta(microseconds=1), None, None),
        (new_event_id(), 2**40, "x" * 200, ["é", '"', "{", "\\"], b"", "Too long; é", moment, moment, 2**40),
    ]
    alone, together = rows, [(new_event_id(), *row[1:]) for row in rows]
    with transaction.atomic():
        connection.disable_constraint_checking()
        for row in alone:
            coalescing.insert([coalescing.prepared(row, using="default")], using="default")
        coalescing.insert([coalescing.prepared(row, using="default") for row in together], using="default")
        stored = {row[0]: row for row in Event.objects.values_list(*coalescing.NAMES)}
        for one, other in zip(alone, together, strict=True):
            assert [bytes(each) if isinstance(each, memoryview) else each for each in stored[one[0]]] == list(one)
            assert [bytes(each) if isinstance(each, memoryview) else each for each in stored[other[0]]] == list(other)
        transaction.set_rollback(True)


def test_what_is_too_long_is_refused_and_not_cut() -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite knows no length")
    row = (new_event_id(), None, "x" * 201, None, b"{}", "", datetime.now(tz=UTC), None, None)
    rows = [coalescing.prepared((new_event_id(), *row[1:]), using="default") for _ in range(2)]
    with pytest.raises(DatabaseError, match="too long"):
        coalescing.insert(rows, using="default")


# --- who looks at them -----------------------------------------------------------


def test_who_reads_in_the_same_transaction_finds_them(listening: Tenant) -> None:
    with transaction.atomic():
        save(listening, "a", "b", "c")
        assert waiting() == 2
        assert Event.objects.count() == 3
        assert waiting() == 0
        save(listening, "d", "e")
        with connection.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM webhooks_event")
            assert cursor.fetchone() == (5,)


def test_reads_and_writes_of_other_tables_let_them_wait(listening: Tenant) -> None:
    with transaction.atomic():
        save(listening, "a", "b", "c")
        assert Tag.objects.filter(name="b").update(name="B") == 1
        assert Tag.objects.count() == 3
        Tag.objects.all()._raw_delete("default")
        assert waiting() == 2


@pytest.mark.parametrize(
    "statement",
    [
        'SELECT * FROM "webhooks_event"',
        "DELETE FROM webhooks_delivery",
        "SAVEPOINT a",
        "SET LOCAL search_path TO other",
        "LOCK TABLE shop_tag",
        "UPDATE shop_tag SET name = 'a'; SAVEPOINT a",
        "/* UPDATE */ SAVEPOINT a",
        "COMMIT",
        "WITH a AS (SELECT 1) SELECT * FROM a",
        b"SELECT 1",
        "",
    ],
)
def test_before_anything_else_they_are_inserted(statement: Any) -> None:
    assert not coalescing._is_harmless(statement)


def test_a_published_event_is_there_at_once(listening: Tenant) -> None:
    with transaction.atomic():
        save(listening, "a", "b")
        event = publish("crm.lead.won", listening, {"object": {"name": "c"}})
        assert waiting() == 0
        assert Event.objects.get(pk=event.pk).topic == "crm.lead.won"


def test_after_the_commit_they_are_there(listening: Tenant) -> None:
    seen: list[Counter[str]] = []
    with transaction.atomic():
        transaction.on_commit(lambda: seen.append(told()))
        save(listening, "a", "b", "c")
        transaction.on_commit(lambda: seen.append(told()))
    assert seen == [names(), names()]


def test_a_wrapper_of_the_hosts_comes_and_goes_as_ever(listening: Tenant) -> None:
    seen: list[str] = []

    def hosts(execute: Any, sql: str, *rest: Any) -> Any:
        seen.append(sql)
        return execute(sql, *rest)

    with transaction.atomic():
        with connection.execute_wrapper(hosts):
            save(listening, "a", "b")
            assert any("shop_tag" in sql for sql in seen)
        assert hosts not in connection.execute_wrappers
        save(listening, "c")
        with connection.execute_wrapper(hosts):
            seen.clear()
            assert Event.objects.count() == 3
        assert any(INSERT in sql for sql in seen)
        save(listening, "d")
    assert connection.execute_wrappers == []
    assert told() == names()


# --- what is rolled back ---------------------------------------------------------


def test_a_savepoint_made_by_hand_takes_its_own_along(listening: Tenant) -> None:
    with transaction.atomic():
        save(listening, "a", "b", "c")
        point = connection.savepoint()
        assert point is not None
        save(listening, "d", "e")
        connection.savepoint_rollback(point)
        save(listening, "f", "g")
        assert waiting() > 0
    assert told() == names() == Counter("abcfg")


def test_a_released_savepoint_keeps_what_waits_in_it(listening: Tenant) -> None:
    with transaction.atomic():
        save(listening, "a")
        with transaction.atomic():
            save(listening, "b", "c")
        assert waiting() == 2
    assert told() == names() == Counter("abc")


def test_a_closed_connection_forgets_them(listening: Tenant) -> None:
    with transaction.atomic():
        save(listening, "a", "b")
        connection.close()
        assert waiting() == 0
    save(listening, "c")
    assert told() == names() == Counter("c")


def test_a_connection_that_was_taken_away_forgets_them(listening: Tenant) -> None:
    with transaction.atomic():
        save(listening, "a", "b")
        raw, connection.connection = connection.connection, None
        raw.rollback()
        raw.close()
        connection.connect()
    save(listening, "c")
    assert told() == names() == Counter("c")


def test_sqlite_may_end_a_transaction_by_itself(listening: Tenant) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("only SQLite does")
    with transaction.atomic():
        save(listening, "a", "b")
        with connection.cursor() as cursor, pytest.raises(IntegrityError):
            cursor.execute("INSERT OR ROLLBACK INTO shop_tag (id, tenant_id, name) VALUES (NULL, NULL, 'x')")
        assert waiting() == 0
        save(listening, "c", "d")
    assert told() == names() == Counter("cd")


def test_a_write_that_fails_at_the_commit_undoes_everything(listening: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (DatabaseError("The disk is full."), MemoryError(), KeyboardInterrupt()):
        after: list[int] = []

        def fail(rows: Any, *, using: str, error: BaseException = error) -> int:
            raise error

        with pytest.raises(type(error)), monkeypatch.context() as patched, transaction.atomic():  # noqa: PT012
            transaction.on_commit(lambda after=after: after.append(1))  # type: ignore[misc]
            save(listening, "a", "b")
            patched.setattr(coalescing, "insert", fail)
        assert (names(), told(), after, waiting()) == (Counter(), Counter(), [], 0)
        assert connection.get_autocommit()


def test_a_write_that_fails_before_it_cannot_be_swallowed(listening: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(rows: Any, *, using: str) -> int:
        raise DatabaseError("The disk is full.")

    with transaction.atomic():
        save(listening, "a", "b")
        with monkeypatch.context() as patched:
            patched.setattr(coalescing, "insert", fail)
            with pytest.raises(DatabaseError, match="full"):
                Event.objects.count()
        assert connection.needs_rollback
    assert names() == told() == Counter()


# --- where nothing waits ---------------------------------------------------------


def test_where_errors_are_logged_nothing_waits(listening: Tenant, settings: Any) -> None:
    settings.SIGNALPOST_CAPTURE_ERRORS = "log"
    with transaction.atomic():
        save(listening, "a", "b", "c")
        assert waiting() == 0
    assert told() == names()


def test_without_autocommit_nothing_waits(listening: Tenant) -> None:
    transaction.set_autocommit(False)
    try:
        with transaction.atomic():
            save(listening, "a", "b", "c")
            assert waiting() == 0
        transaction.commit()
        save(listening, "d", "e")
        transaction.rollback()
    finally:
        transaction.set_autocommit(True)
    assert told() == names() == Counter("abc")


def test_where_somebody_took_over_the_commit_nothing_waits(listening: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    with transaction.atomic():
        save(listening, "a", "b")
    with monkeypatch.context() as patched:
        patched.setitem(vars(connections["default"]), "commit", partial(connection.commit))
        with transaction.atomic():
            save(listening, "c", "d")
            assert waiting() == 0
    del connections["default"].commit
    with transaction.atomic():
        save(listening, "e", "f")
        assert waiting() == 1
    assert told() == names() == Counter("abcdef")


# --- several at once -------------------------------------------------------------


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_each_database_has_its_own(listening: Tenant) -> None:
    assert home() == "default"
    with transaction.atomic():
        save(listening, "a", "b")
        with transaction.atomic(using="other"):
            connections["other"].disable_constraint_checking()
            save(listening, "c", "d", using="other")
            assert (waiting(), waiting(using="other")) == (1, 1)
            assert Event.objects.using("other").count() == 2
            assert (waiting(), waiting(using="other")) == (1, 0)
            transaction.set_rollback(True, using="other")
    assert told() == names() == Counter("ab")
    assert told(using="other") == names(using="other") == Counter()


def test_each_thread_has_its_own(listening: Tenant) -> None:
    seen: list[Any] = []

    def other() -> None:
        seen.append((waiting(), list(connection.execute_wrappers)))
        connection.close()

    with transaction.atomic():
        save(listening, "a", "b")
        assert waiting() == 1
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert waiting() == 1
    assert seen == [(0, [])]
    assert told() == names()

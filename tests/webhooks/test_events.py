"""Events are written with the change, on its alias, and rung for when it commits."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from examples.shop.models import Customer, Order, Tag
from subscriptions import catalog
from subscriptions.models import Subscription, Tenant
from subscriptions.tenancy import EVERY_TENANT
from tests.zoo.kinds import Animal, Keeper
from tests.zoo.odd import Book
from webhooks import coalescing, events, matching, tasks
from webhooks.events import CaptureError, publish, publish_rows, write
from webhooks.models import Event, new_event_id

Commit = Callable[..., AbstractContextManager[Any]]

WHEN = datetime(2026, 11, 21, 9, 30, 0, 123987, tzinfo=UTC)


@pytest.fixture(autouse=True)
def rings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for every ring."""
    rung: list[int] = []

    def ring() -> bool:
        rung.append(1)
        return True

    monkeypatch.setattr(tasks, "ring", ring)
    return rung


@contextmanager
def rolled_back() -> Iterator[None]:
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def body(event: Event) -> Any:
    return json.loads(bytes(Event.objects.get(pk=event.pk).body))


@pytest.fixture
def commit(db: None, django_capture_on_commit_callbacks: Commit) -> Commit:
    return django_capture_on_commit_callbacks


def a_write(**fields: Any) -> Event:
    given = {"topic": "shop.order.paid", "tenant_id": None, "tenant_slug": None, "data": {"a": 1}, "using": "default"}
    return write(**{**given, **fields})


class TestWrite:
    def test_the_body_is_the_one_of_the_design(self, tenant: Tenant) -> None:
        event = a_write(tenant_id=tenant.pk, tenant_slug="acme", timestamp=WHEN, changed=["a"])
        assert bytes(Event.objects.get().body) == (
            b'{"type":"shop.order.paid","timestamp":"2026-11-21T09:30:00.123Z","tenant":"acme","data":{"a":1}}'
        )
        stored = Event.objects.get()
        assert (stored.pk, stored.tenant, stored.topic, stored.changed) == (event.pk, tenant, event.topic, ["a"])
        assert (stored.created_at, stored.fanned_out_at, stored.error) == (WHEN, None, "")

    def test_what_is_returned_is_what_was_stored(self, db: None) -> None:
        event = a_write()
        stored = Event.objects.get()
        for field in Event._meta.concrete_fields:
            assert getattr(event, field.attname) == getattr(stored, field.attname), field.name
        assert event._state.db == "default"
        event.error = "later"
        event.save()
        assert Event.objects.get().error == "later"

    def test_it_is_what_save_would_have_stored(self, tenant: Tenant) -> None:
        event = a_write(tenant_id=tenant.pk, changed=["é"])
        columns = [field.attname for field in Event._meta.concrete_fields]
        stored = Event.objects.values_list(*columns).get()
        Event.objects.all().delete()
        event.save(force_insert=True)
        assert Event.objects.values_list(*columns).get() == stored

    def test_an_event_of_every_tenant_says_null(self, db: None) -> None:
        assert body(a_write())["tenant"] is None

    def test_the_timestamp_is_now_in_utc_with_milliseconds(self, db: None) -> None:
        before = datetime.now(tz=UTC)
        event = a_write()
        assert before <= event.created_at <= datetime.now(tz=UTC)
        assert body(event)["timestamp"] == event.created_at.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"

    def test_another_time_zone_becomes_utc(self, db: None) -> None:
        there = WHEN.astimezone(timezone(timedelta(hours=-8)))
        assert body(a_write(timestamp=there))["timestamp"] == "2026-11-21T09:30:00.123Z"

    def test_it_costs_one_query(self, db: None) -> None:
        a_write()
        with CaptureQueriesContext(connection) as queries:
            a_write()
        assert len(queries) == 1

    def test_a_body_at_the_limit_is_sent_and_one_over_it_is_not(self, db: None, settings: Any) -> None:
        size = len(a_write(data={"text": "x" * 1000}).body)
        settings.SIGNALPOST_BODY_LIMIT = size
        assert a_write(data={"text": "x" * 1000}).error == ""
        event = a_write(data={"text": "x" * 1001})
        stored = Event.objects.get(pk=event.pk)
        assert stored.error == f"The body has {size + 1:,} bytes; the limit is {size:,}."
        assert bytes(stored.body) == b""
        assert stored.fanned_out_at is not None
        assert stored not in Event.objects.waiting()

    def test_the_limit_is_256_kib_unless_it_is_set(self, db: None) -> None:
        event = a_write(data={"text": "x" * 300_000})
        assert event.error.startswith("The body has 300,")
        assert event.error.endswith("bytes; the limit is 262,144.")

    def test_bytes_are_counted_and_not_characters(self, db: None, settings: Any) -> None:
        settings.SIGNALPOST_BODY_LIMIT = 1000
        assert a_write(data={"text": "é" * 600}).error

    @pytest.mark.django_db(databases=["default", "other"])
    def test_the_event_is_written_where_the_change_is(self) -> None:
        event = a_write(using="other")
        assert event._state.db == "other"
        assert Event.objects.using("other").count() == 1
        assert Event.objects.using("default").count() == 0

    def test_an_alias_that_is_not_listed_is_refused(self, db: None, settings: Any) -> None:
        settings.SIGNALPOST_DATABASES = ["default"]
        with pytest.raises(CaptureError, match=r"Add it to SIGNALPOST_DATABASES.*migrate --database other"):
            a_write(using="other")

    @pytest.mark.parametrize("data", [{"a": object()}, {"a": [{"b": object()}]}])
    def test_data_without_json_is_refused_before_anything_is_written(self, db: None, data: Any) -> None:
        with pytest.raises(TypeError):
            a_write(data=data)
        assert not Event.objects.exists()


class TestRing:
    """`commit` runs what a real commit would: in these tests the outermost
    transaction is the test's own."""

    @pytest.mark.django_db(transaction=True)
    def test_a_write_rings_when_its_transaction_has_committed(self, rings: list[int]) -> None:
        a_write()
        assert len(rings) == 1
        with transaction.atomic():
            a_write()
            assert len(rings) == 1
        assert len(rings) == 2
        with rolled_back():
            a_write()
        assert len(rings) == 2
        assert Event.objects.count() == 2

    def test_a_thousand_writes_in_a_transaction_ring_once(self, commit: Commit, rings: list[int]) -> None:
        with commit(execute=True):
            for _ in range(1000):
                with transaction.atomic():
                    a_write()
            assert rings == []
        assert len(rings) == 1

    def test_beside_a_thousand_callbacks_of_others_it_is_a_handful(self, commit: Commit, rings: list[int]) -> None:
        with commit(execute=True):
            for _ in range(1000):
                a_write()
                transaction.on_commit(lambda: None)
        assert 1 <= len(rings) <= 1000 / events.NEAR + 1

    @pytest.mark.parametrize("again", ["before", "after", "inside"])
    def test_a_savepoint_that_is_rolled_back_takes_its_ring_and_leaves_the_others(
        self, commit: Commit, rings: list[int], again: str
    ) -> None:
        with commit(execute=True):
            if again == "before":
                a_write()
            with rolled_back():
                with transaction.atomic():
                    a_write()
                a_write()
            if again == "after":
                a_write()
            if again == "inside":
                with transaction.atomic(), transaction.atomic():
                    a_write()
        assert len(rings) == 1
        assert Event.objects.count() == 1

    def test_only_a_savepoint_rolled_back_rings_for_nobody(self, commit: Commit, rings: list[int]) -> None:
        with commit(execute=True), rolled_back():
            a_write()
        assert rings == []

    @pytest.mark.django_db(transaction=True, databases=["default", "other"])
    def test_every_alias_rings_when_it_commits_itself(self, rings: list[int]) -> None:
        with transaction.atomic(using="other"):
            with transaction.atomic():
                a_write(using="other")
            assert rings == []
            with transaction.atomic():
                a_write()
            assert len(rings) == 1
        assert len(rings) == 2

    @pytest.mark.django_db(transaction=True)
    def test_a_ring_that_fails_does_not_fail_the_commit(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken() -> bool:
            raise ConnectionError("no Redis")

        monkeypatch.setattr(tasks, "ring", broken)
        with transaction.atomic():
            a_write()
        assert Event.objects.count() == 1
        assert "no Redis" in caplog.text

    @pytest.mark.django_db(transaction=True)
    def test_a_transaction_managed_by_hand_is_left_to_the_workers_own_look(self, rings: list[int]) -> None:
        connection.set_autocommit(False)
        try:
            a_write()
            connection.commit()
        finally:
            connection.set_autocommit(True)
        assert rings == []
        assert Event.objects.count() == 1


class TestPublish:
    @pytest.mark.parametrize("given", ["tenant", "slug", "key"])
    def test_the_tenant_may_be_itself_its_slug_or_its_key(self, make_tenant: Callable[..., Tenant], given: str) -> None:
        tenant = make_tenant("acme", key="org-7")
        forms: dict[str, Tenant | str] = {"tenant": tenant, "slug": "acme", "key": "org-7"}
        event = publish("crm.lead.won", forms[given], {"n": 1})
        assert event.tenant_id == tenant.pk
        assert body(event)["tenant"] == "acme"
        assert body(event)["data"] == {"n": 1}
        assert Event.objects.get().changed is None

    def test_a_slug_comes_before_another_tenants_key(self, make_tenant: Callable[..., Tenant]) -> None:
        make_tenant("other", key="acme")
        acme = make_tenant("acme")
        assert publish("crm.lead.won", "acme", {}).tenant_id == acme.pk
        matching.forget()
        assert publish("crm.lead.won", "acme", {}).tenant_id == acme.pk

    def test_a_tenant_that_memory_has_not_met_is_looked_up(
        self, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(matching, "_index", lambda: matching._NOBODY)
        assert publish("crm.lead.won", "acme", {}).tenant_id == tenant.pk

    def test_none_is_every_tenant(self, db: None) -> None:
        event = publish("crm.lead.won", None, {})
        assert event.tenant_id is None
        assert body(event)["tenant"] is None

    def test_it_writes_though_nobody_listens(self, tenant: Tenant) -> None:
        publish("crm.lead.won", tenant, {})
        assert Event.objects.count() == 1

    def test_values_are_written_as_drf_does(self, tenant: Tenant) -> None:
        event = publish("crm.lead.won", tenant, {"id": uuid.UUID(int=1), "at": WHEN, "sum": Decimal("1.5")})
        assert body(event)["data"] == {
            "id": "00000000-0000-0000-0000-000000000001",
            "at": "2026-11-21T09:30:00.123987Z",
            "sum": 1.5,
        }

    @pytest.mark.parametrize("tenant", ["nobody", "", "ACME"])
    def test_an_unknown_tenant_is_refused(self, db: None, tenant: str) -> None:
        with pytest.raises(ValueError, match="No tenant has the slug or the key"):
            publish("crm.lead.won", tenant, {})

    def test_a_tenant_not_saved_is_refused(self, db: None) -> None:
        with pytest.raises(ValueError, match="not been saved"):
            publish("crm.lead.won", Tenant(slug="x"), {})

    @pytest.mark.parametrize(
        "topic",
        ["", "lead", "crm.*", "*", "crm..won", "Crm.lead", "crm.lead.", "crm.lead\n", "crm lead.won", "a." * 120 + "b"],
    )
    def test_a_topic_that_is_none_is_refused(self, tenant: Tenant, topic: str) -> None:
        with pytest.raises(ValueError, match="is no topic"):
            publish(topic, tenant, {})

    def test_our_own_topics_are_refused(self, tenant: Tenant) -> None:
        with pytest.raises(ValueError, match=r"Signalpost's own"):
            publish("signalpost.test", tenant, {})
        assert a_write(topic="signalpost.test").topic == "signalpost.test"

    @pytest.mark.parametrize("data", [None, [], "text", 1])
    def test_data_that_is_no_object_is_refused(self, tenant: Tenant, data: Any) -> None:
        with pytest.raises(ValueError, match="is a dict"):
            publish("crm.lead.won", tenant, data)

    def test_the_timestamp_says_when_it_happened(self, tenant: Tenant) -> None:
        event = publish("crm.lead.won", tenant, {}, timestamp=WHEN)
        assert event.created_at == WHEN
        assert body(event)["timestamp"] == "2026-11-21T09:30:00.123Z"

    def test_a_naive_timestamp_is_refused(self, tenant: Tenant) -> None:
        with pytest.raises(ValueError, match="time zone"):
            publish("crm.lead.won", tenant, {}, timestamp=WHEN.replace(tzinfo=None))

    @pytest.mark.django_db(databases=["default", "other"])
    def test_it_may_go_with_a_change_elsewhere(self, tenant: Tenant) -> None:
        publish("crm.lead.won", tenant, {}, using="other")
        assert Event.objects.using("other").count() == 1

    def test_it_is_part_of_the_open_transaction(self, tenant: Tenant, commit: Commit, rings: list[int]) -> None:
        with commit(execute=True), rolled_back():
            publish("crm.lead.won", tenant, {})
        assert not Event.objects.exists()
        with commit(execute=True):
            publish("crm.lead.won", tenant, {})
        assert Event.objects.count() == 1
        assert len(rings) == 1


@pytest.fixture
def orders(tenant: Tenant) -> list[Order]:
    customer = Customer.objects.create(tenant=tenant, name="Ann")
    return Order.objects.bulk_create(
        [Order(customer=customer, number=str(number), total=number) for number in range(250)]
    )


class TestPublishRows:
    def test_every_row_is_an_event_as_a_save_would_have_made(
        self, tenant: Tenant, orders: list[Order], subscribe: Callable[..., Subscription]
    ) -> None:
        subscribe(tenant, "shop.order.*")
        tag = Tag.objects.create(tenant=tenant, name="red")
        orders[0].tags.add(tag)
        Event.objects.all().delete()
        assert publish_rows(Order.objects.order_by("pk"), "created") == 250
        written = [body(event) for event in Event.objects.order_by("id")]
        assert sorted(one["data"]["object"]["number"] for one in written) == sorted(str(n) for n in range(250))
        first = next(one for one in written if one["data"]["object"]["number"] == "0")
        Event.objects.all().delete()
        orders[0].refresh_from_db()
        orders[0].save()
        saved = body(Event.objects.get())
        assert first["type"] == "shop.order.created"
        assert first["tenant"] == saved["tenant"] == "acme"
        assert first["data"] == {"object": saved["data"]["object"]}
        assert first["data"]["object"]["tags"] == [tag.pk]

    @pytest.mark.parametrize("changed", [["status"], "status"], ids=["names", "name"])
    def test_updated_is_the_usual_and_its_changes_are_not_known(
        self, tenant: Tenant, orders: list[Order], subscribe: Callable[..., Subscription], changed: Any
    ) -> None:
        subscribe(tenant, "shop.order.updated")
        rows = Order.objects.filter(pk__in=[order.pk for order in orders[:3]])
        rows.update(status="paid")
        assert publish_rows(rows, changed=changed) == 3
        event = Event.objects.order_by("id").first()
        assert event is not None
        assert (event.topic, event.changed) == ("shop.order.updated", ["status"])
        assert body(event)["data"]["changes"] == {}
        assert body(event)["data"]["object"]["status"] == "paid"

    def test_rows_nobody_listens_to_are_skipped(
        self, make_tenant: Callable[..., Tenant], subscribe: Callable[..., Subscription]
    ) -> None:
        acme, other = make_tenant("acme"), make_tenant("other")
        for each in (acme, other):
            Tag.objects.bulk_create([Tag(tenant=each, name=str(n)) for n in range(3)])
        assert publish_rows(Tag.objects.all()) == 0
        subscribe(acme, "shop.tag.updated")
        assert publish_rows(Tag.objects.all()) == 3
        assert set(Event.objects.values_list("tenant", flat=True)) == {acme.pk}

    @pytest.mark.parametrize("rule", [EVERY_TENANT, "owner__key"], ids=["every-tenant", "property"])
    def test_rows_of_every_tenant_and_of_one_that_a_property_finds(
        self,
        rule: Any,
        make_tenant: Callable[..., Tenant],
        subscribe: Callable[..., Subscription],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(Book, "owner", property(lambda book: book.tenant), raising=False)
        tenant = make_tenant(key="k-1")
        subscribe(tenant, "zoo.*")
        catalog.register(Book, tenant=rule, fields=["title"])
        try:
            Book.objects.bulk_create([Book(tenant=tenant, title="A")])
            assert publish_rows(Book.objects.all()) == 1
        finally:
            catalog.unregister(Book)
        assert Event.objects.get().tenant == (None if rule is EVERY_TENANT else tenant)

    def test_queries_grow_with_chunks_and_not_with_rows(
        self, tenant: Tenant, orders: list[Order], subscribe: Callable[..., Subscription]
    ) -> None:
        subscribe(tenant, "*")
        matching.wanted("warm.up")
        with CaptureQueriesContext(connection) as queries:
            assert publish_rows(Order.objects.all()) == 250
        sql = [query["sql"] for query in queries if "SAVEPOINT" not in query["sql"]]
        # 3 chunks, each with the keys of its tags and one INSERT; the rows themselves.
        assert len([each for each in sql if "INSERT INTO" in each]) == 3
        assert len(sql) <= 3 * 2 + 2

    def test_memory_holds_one_chunk_at_a_time(
        self, tenant: Tenant, orders: list[Order], subscribe: Callable[..., Subscription], monkeypatch: Any
    ) -> None:
        subscribe(tenant, "*")
        seen: list[int] = []
        insert = coalescing.insert

        def counted(rows: Any, *, using: str) -> int:
            seen.append(len(rows))
            return insert(rows, using=using)

        monkeypatch.setattr(coalescing, "insert", counted)
        publish_rows(Order.objects.all())
        assert seen == [100, 100, 50]

    def test_deferred_and_prefetched_querysets_are_read_whole(
        self, tenant: Tenant, orders: list[Order], subscribe: Callable[..., Subscription]
    ) -> None:
        subscribe(tenant, "*")
        rows = Order.objects.only("number").prefetch_related("tags").filter(pk=orders[7].pk)
        assert publish_rows(rows) == 1
        assert body(Event.objects.get())["data"]["object"]["total"] == "7.00"

    def test_many_to_many_fields_with_keys_that_are_no_numbers(
        self, tenant: Tenant, subscribe: Callable[..., Subscription]
    ) -> None:
        catalog.register(Animal, tenant="tenant", fields=["keepers", "friends"])
        try:
            subscribe(tenant, "zoo.animal.updated")
            keeper = Keeper.objects.create(badge="1")
            animal = Animal.objects.create(tenant=tenant)
            animal.keepers.add(keeper)
            Event.objects.all().delete()
            assert publish_rows(Animal.objects.all()) == 1
        finally:
            catalog.unregister(Animal)
        assert body(Event.objects.get())["data"]["object"] == {"keepers": [str(keeper.pk)], "friends": []}

    def test_all_of_it_rings_once(
        self,
        orders: list[Order],
        tenant: Tenant,
        subscribe: Callable[..., Subscription],
        commit: Commit,
        *,
        rings: list[int],
    ) -> None:
        subscribe(tenant, "*")
        with commit(execute=True):
            assert publish_rows(Order.objects.all()) == 250
        assert len(rings) == 1

    def test_all_of_it_is_one_transaction(
        self, orders: list[Order], tenant: Tenant, subscribe: Callable[..., Subscription], monkeypatch: Any
    ) -> None:
        subscribe(tenant, "*")
        chunks = events._chunks

        def breaking(queryset: Any) -> Iterator[list[Any]]:
            yield next(chunks(queryset))
            raise ZeroDivisionError

        monkeypatch.setattr(events, "_chunks", breaking)
        with pytest.raises(ZeroDivisionError):
            publish_rows(Order.objects.all())
        assert not Event.objects.exists()

    @pytest.mark.django_db(databases=["default", "other"])
    def test_rows_of_another_alias_are_written_there(
        self, tenant: Tenant, subscribe: Callable[..., Subscription]
    ) -> None:
        Tenant.objects.using("other").bulk_create([Tenant(pk=tenant.pk, slug="acme", name="Acme")])
        subscribe(tenant, "*")
        Tag.objects.using("other").bulk_create([Tag(tenant_id=tenant.pk, name="x")])
        assert publish_rows(Tag.objects.using("other")) == 1
        assert Event.objects.using("other").count() == 1
        assert Event.objects.using("default").count() == 0

    def test_a_model_that_is_not_registered_is_refused(self, db: None) -> None:
        with pytest.raises(ValueError, match=r"zoo.Keeper is not registered"):
            publish_rows(Keeper.objects.all())

    def test_another_action_is_refused(self, db: None) -> None:
        with pytest.raises(ValueError, match="created, updated, deleted"):
            publish_rows(Tag.objects.all(), "added")

    def test_an_alias_that_is_not_listed_is_refused(
        self, tenant: Tenant, subscribe: Callable[..., Subscription], settings: Any
    ) -> None:
        subscribe(tenant, "*")
        settings.SIGNALPOST_DATABASES = ["default"]
        with pytest.raises(CaptureError):
            publish_rows(Tag.objects.using("other"))


def test_ids_sort_in_the_order_in_which_one_process_made_them() -> None:
    made = [new_event_id() for _ in range(5_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert {(each.version, each.variant) for each in made} == {(7, uuid.RFC_4122)}
    assert abs((made[0].int >> 80) / 1_000 - time.time()) < 60

"""Bodies say what the database holds, the way DRF would."""

from __future__ import annotations

import gc
import json
import math
import threading
import time as time_module
import uuid
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import InMemoryStorage
from django.db import connection, models, transaction
from django.db.models import F, Value
from django.db.models.functions import Concat
from django.test.utils import CaptureQueriesContext
from django.utils import timezone as django_timezone
from hypothesis import given
from hypothesis import strategies as st
from rest_framework import serializers
from rest_framework.renderers import JSONRenderer

from subscriptions.entries import Entry
from subscriptions.models import Tenant
from subscriptions.tenancy import whose
from tests.zoo.kinds import HERE, Animal, Colour, Crate, Keeper, Passport
from tests.zoo.odd import Annex, Book, Place, ProxyBook, Restaurant
from webhooks.bodies import Shape, dumps, shape_of
from webhooks.columns import Column

if TYPE_CHECKING:
    AnimalBase = serializers.ModelSerializer[Animal]
else:
    AnimalBase = serializers.ModelSerializer

EVERYTHING = Entry(Animal, "tenant", fields="__all__")
SEEN = datetime(2026, 11, 21, 9, 30, 0, 123456, tzinfo=UTC)


@pytest.fixture(autouse=True)
def photos(monkeypatch: pytest.MonkeyPatch) -> InMemoryStorage:
    storage = InMemoryStorage(base_url="/media/")
    monkeypatch.setattr(Animal._meta.get_field("photo"), "storage", storage)
    return storage


@pytest.fixture
def keeper(db: None) -> Keeper:
    return Keeper.objects.create(badge="K1")


@pytest.fixture
def every_kind(tenant: Tenant, keeper: Keeper) -> dict[str, Any]:
    """A value for every field of an animal, as the database gives it back."""
    return {
        "tenant": tenant,
        "name": "Zoë \u2028 🦓",
        "notes": "two\nlines",
        "slug": "zoe",
        "email": "zoe@zoo.example",
        "site": "https://zoo.example/zoe",
        "size": Animal.Size.LARGE,
        "rank": Animal.Rank.HIGH,
        "legs": -3,
        "steps": 2**62,
        "age": 7,
        "tame": True,
        "vaccinated": False,
        "weight": 0.1,
        "price": Decimal("1234.50"),
        "discount": Decimal("0.1250"),
        "born": date(2020, 2, 29),
        "seen_at": SEEN,
        "fed_at": time(7, 5, 1, 5000),
        "nap": timedelta(days=1, hours=2, microseconds=7),
        "chip": uuid.UUID(int=7),
        "address": "2001:db8::1",
        "photo": ContentFile(b"stripes", name="zoe.png"),
        "chart": str(HERE / "kinds.py"),
        "dna": b"\x00\xff",
        "traits": {"stripes": [1, 2.5, None, True], "of": {"zoo": "é"}},
        "log": [{"at": "2026-11-21"}],
        "colour": Colour(1, 2, 255),
        "nick": "zz",
        "keeper": keeper,
        "deputy": keeper,
    }


@pytest.fixture
def zebra(every_kind: dict[str, Any], keeper: Keeper) -> Animal:
    mother = Animal.objects.create(tenant=every_kind["tenant"], name="Mother")
    animal = Animal.objects.create(**every_kind, mother=mother)
    animal.friends.add(mother)
    animal.keepers.add(keeper, Keeper.objects.create(badge="K2"))
    return animal


@pytest.fixture
def shape() -> Shape:
    return shape_of(EVERYTHING)


def by_drf(instance: models.Model, fields: list[str]) -> Any:
    """What DRF itself renders of a row freshly read."""
    meta = type("Meta", (), {"model": type(instance), "fields": fields})
    made: Any = type("Made", (serializers.ModelSerializer,), {"Meta": meta})
    fresh = type(instance)._base_manager.get(pk=instance.pk)
    return json.loads(JSONRenderer().render(made(fresh).data))


def body_of(shape: Shape, instance: models.Model) -> Any:
    return json.loads(dumps(shape.object(instance)))


def sorted_keys(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "keepers": sorted(body["keepers"]), "friends": sorted(body["friends"])}


class TestObject:
    def test_every_kind_of_field_is_written_the_way_drf_would(self, shape: Shape, zebra: Animal) -> None:
        body = body_of(shape, Animal.objects.get(pk=zebra.pk))
        assert body == sorted_keys(by_drf(zebra, list(body)))
        assert list(body) == list(shape.order)
        assert body["photo"] == "/media/photos/zoe.png"
        assert body["price"] == "1234.50"
        assert body["dna"] == "AP8="
        assert body["seen_at"] == "2026-11-21T09:30:00.123456Z"
        assert body["colour"] == "#0102ff"

    def test_the_instance_just_saved_says_the_same(self, shape: Shape, zebra: Animal) -> None:
        zebra.refresh_from_db()
        zebra.save()
        assert body_of(shape, zebra) == sorted_keys(by_drf(zebra, list(shape.order)))

    def test_empty_fields_are_null_or_empty_as_in_drf(self, shape: Shape, tenant: Tenant) -> None:
        bare = Animal.objects.create(tenant=tenant)
        body = body_of(shape, Animal.objects.get(pk=bare.pk))
        assert body == by_drf(bare, list(body))
        assert body["photo"] is None

    def test_sensitive_fields_are_not_among_all(self, shape: Shape) -> None:
        assert "secret_name" not in shape.order
        assert "name" in shape.order

    def test_choices_taken_from_an_enumeration_are_plain(self, every_kind: dict[str, Any]) -> None:
        class Other(str, Enum):  # noqa: UP042 - str() of it is "Other.LARGE", of a StrEnum "L"
            LARGE = "L"

        for large in (Animal.Size.LARGE, Other.LARGE, "L"):
            animal = Animal(tenant=every_kind["tenant"], name=StrEnum("Name", {"ZOE": "zoe"}).ZOE, size=large)  # type: ignore[attr-defined]
            body = shape_of(EVERYTHING_BUT_RELATIONS).object(animal)
            assert (body["size"], body["name"]) == ("L", "zoe")
            assert type(body["size"]) is str

    def test_moments_are_in_the_current_time_zone_as_in_drf(self, shape: Shape, zebra: Animal) -> None:
        fresh = Animal.objects.get(pk=zebra.pk)
        with django_timezone.override(timezone(timedelta(hours=2))):
            body = body_of(shape, fresh)
            assert body == sorted_keys(by_drf(zebra, list(body)))
        assert body["seen_at"] == "2026-11-21T11:30:00.123456+02:00"

    def test_the_settings_of_drf_are_followed(self, zebra: Animal, settings: Any) -> None:
        settings.REST_FRAMEWORK = {"COERCE_DECIMAL_TO_STRING": False, "DATETIME_FORMAT": "%s %Y"}
        shape = Shape(Entry(Animal, "tenant", fields=("price", "seen_at")))
        fresh = Animal.objects.get(pk=zebra.pk)
        assert body_of(shape, fresh) == by_drf(zebra, ["price", "seen_at"])
        assert shape.object(fresh)["price"] == 1234.5

    @pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
    def test_what_is_no_number_is_null(self, number: float) -> None:
        assert shape_of(EVERYTHING_BUT_RELATIONS).object(Animal(name="x", weight=number))["weight"] is None

    def test_deferred_fields_are_read_at_once_and_stay_deferred(self, shape: Shape, zebra: Animal) -> None:
        whole = shape.object(Animal.objects.get(pk=zebra.pk))
        partial = Animal.objects.only("name").get(pk=zebra.pk)
        before = partial.get_deferred_fields()
        with CaptureQueriesContext(connection) as queries:
            assert shape.object(partial) == whole
        assert len(queries) == 1 + len(shape.relations)
        assert partial.get_deferred_fields() == before

    def test_relations_are_read_now_whatever_was_prefetched(self, shape: Shape, zebra: Animal, keeper: Keeper) -> None:
        known = Animal.objects.prefetch_related("keepers").get(pk=zebra.pk)
        Animal.objects.get(pk=zebra.pk).keepers.remove(keeper)
        assert str(keeper.pk) not in shape.object(known)["keepers"]

    def test_a_foreign_key_costs_no_query(self, zebra: Animal, keeper: Keeper) -> None:
        shape = Shape(Entry(Animal, "tenant", fields=("keeper", "deputy", "mother")))
        fresh = Animal.objects.get(pk=zebra.pk)
        with CaptureQueriesContext(connection) as queries:
            assert shape.object(fresh) == {"keeper": str(keeper.pk), "deputy": "K1", "mother": zebra.mother_id}
        assert len(queries) == 0

    def test_a_key_that_is_a_foreign_key(self, zebra: Animal) -> None:
        passport = Passport.objects.create(animal=zebra, number="7")
        shape = Shape(Entry(Passport, "animal__tenant", fields="__all__"))
        assert body_of(shape, passport) == by_drf(passport, list(shape.order)) == {"animal": zebra.pk, "number": "7"}

    def test_a_storage_without_addresses_gives_the_name(self, shape: Shape, zebra: Animal, photos: Any) -> None:
        photos.base_url = photos._base_url = None
        photos.__dict__.pop("base_url", None)
        photos.url = _no_address
        assert shape.object(zebra)["photo"] == "photos/zoe.png"

    def test_nothing_but_the_key_is_exposed_unless_named(self, zebra: Animal) -> None:
        assert Shape(Entry(Animal, "tenant")).object(zebra) == {"id": zebra.pk}


def _no_address(name: str) -> str:
    raise NotImplementedError


EVERYTHING_BUT_RELATIONS = Entry(Animal, "tenant", fields=("name", "size", "weight"))


class TestCurrent:
    def same_after(self, shape: Shape, instance: models.Model, *, queries: int, only: Any = None) -> models.Model:
        """`current` right after a save: what DRF says of a fresh row, in so many queries."""
        with CaptureQueriesContext(connection) as seen:
            current = shape.current(instance, using="default", only=only)
        assert len(seen) == queries
        body = body_of(shape, current)
        assert body == by_drf(instance, list(body))
        return current

    def test_values_of_the_right_kind_need_no_query(self, tenant: Tenant, every_kind: dict[str, Any]) -> None:
        plain = {name: value for name, value in every_kind.items() if name not in {"colour", "nick", "log"}}
        shape = Shape(Entry(Animal, "tenant", fields=tuple(plain)))
        animal = Animal(**plain)
        animal.save()
        assert [each.name for each in shape.columns if not each.certain(animal.__dict__[each.attname])] == []
        assert self.same_after(shape, animal, queries=0) is animal

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("legs", "7"),
            ("legs", True),
            ("legs", F("legs") + 1),
            ("steps", 12.0),
            ("price", "9.5"),
            ("price", Decimal("9.999")),
            ("price", 3),
            ("price", 0.1),
            ("born", "2026-01-02"),
            ("born", datetime(2026, 1, 2, 23, tzinfo=UTC)),
            ("seen_at", "2026-01-02T03:04:05Z"),
            ("fed_at", "07:05"),
            ("chip", "00000000000000000000000000000007"),
            ("weight", "2.5"),
            ("weight", 2),
            ("tame", "1"),
            ("tame", 0),
            ("name", 5),
            ("name", Concat(F("notes"), Value("!"))),
            ("address", "2001:DB8:0::1"),
            ("address", "::ffff:10.0.0.1"),
            ("traits", {"a": (1, 2)}),
            ("traits", {1: "one"}),
            ("traits", {"far": 1e300}),
            ("log", [date(2026, 1, 2), Decimal("1.50")]),
            ("colour", "#010203"),
            ("nick", "LOUD"),
        ],
    )
    def test_a_value_of_another_kind_is_read_back(self, tenant: Tenant, field: str, value: Any) -> None:
        animal = Animal.objects.create(tenant=tenant, name="x", notes="n")
        setattr(animal, field, value)
        animal.save()
        # From Django 6 on, save() itself fetches what an expression came to.
        fetched = hasattr(value, "resolve_expression") and not hasattr(getattr(animal, field), "resolve_expression")
        self.same_after(Shape(Entry(Animal, "tenant", fields=("id", field))), animal, queries=0 if fetched else 1)

    def test_a_decimal_that_sqlite_shortens_is_read_back(self, tenant: Tenant) -> None:
        annex = Annex.objects.create(code=1, tenant=tenant, worth=Decimal("123456789012345678.91"))
        self.same_after(Shape(Entry(Annex, "tenant", fields=("worth",))), annex, queries=1)

    def test_an_address_that_is_none_is_not_believed(self) -> None:
        [address] = [column for column in Shape(EVERYTHING).columns if column.name == "address"]
        assert [address.certain(value) for value in ("10.0.0.1", "10.0.0.01", "here")] == [True, False, False]

    def test_a_foreign_key_given_as_text_is_read_back(self, tenant: Tenant, zebra: Animal) -> None:
        child = Animal.objects.create(tenant=tenant, mother_id=str(zebra.pk))
        self.same_after(Shape(Entry(Animal, "tenant", fields=("mother",))), child, queries=1)

    def test_what_update_fields_left_out_is_not_believed(self, tenant: Tenant) -> None:
        animal = Animal.objects.create(tenant=tenant, name="x", legs=4)
        animal.name, animal.legs = "y", 5
        animal.save(update_fields=["name"])
        current = self.same_after(
            Shape(Entry(Animal, "tenant", fields=("name", "legs"))), animal, queries=1, only=frozenset({"name"})
        )
        assert current.legs == 4  # type: ignore[attr-defined]

    def test_what_the_row_held_before_vouches_for_what_was_left_out(self, tenant: Tenant) -> None:
        shape = Shape(Entry(Animal, "tenant", fields=("name", "legs")))
        animal = Animal.objects.create(tenant=tenant, name="x", legs=4)
        animal.name = "y"
        only = frozenset({"name"})
        old = shape.old(animal, using="default")
        animal.save(update_fields=only)
        with CaptureQueriesContext(connection) as queries:
            assert shape.current(animal, using="default", only=only, old=old) is animal
        assert len(queries) == 0

    def test_a_tenant_that_update_fields_left_out_is_not_believed(
        self, tenant: Tenant, make_tenant: Callable[..., Tenant]
    ) -> None:
        animal = Animal.objects.create(tenant=tenant, name="x")
        animal.tenant = make_tenant("other")
        animal.save(update_fields=["name"])
        for rule in ("tenant", lambda each: each.tenant):
            shape = Shape(Entry(Animal, rule, fields=("name",)))
            current: Any = shape.current(animal, using="default", only=frozenset({"name"}))
            assert current.tenant_id == tenant.pk

    @pytest.mark.parametrize("rule", ["tenant_id", "owner__slug"])
    def test_nor_one_found_by_its_column_or_by_a_property(
        self, rule: str, make_tenant: Callable[..., Tenant], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Book, "owner", property(lambda book: book.tenant), raising=False)
        book = Book.objects.create(tenant=make_tenant(), title="A")
        book.tenant, book.title = make_tenant("other"), "B"
        book.save(update_fields=["title"])
        current = Shape(Entry(Book, rule, fields=("title",))).current(book, using="default", only=frozenset({"title"}))
        assert whose(current, rule) == Book.objects.get().tenant_id

    def test_generated_columns_and_database_defaults(self, tenant: Tenant) -> None:
        shape = Shape(Entry(Crate, "tenant", fields="__all__"))
        crate = Crate(tenant=tenant, width=2, height=3)
        crate.save()
        assert body_of(shape, shape.current(crate, using="default"))["area"] == 6
        old = shape.old(crate, using="default")
        crate.width = 5
        crate.save(update_fields=["width"])
        current = shape.current(crate, using="default", only=frozenset({"width"}), old=old)
        body = body_of(shape, current)
        assert body == by_drf(crate, list(body))
        assert (body["area"], body["state"]) == (15, "new")
        assert old is not None
        assert shape.changes(old, current, only=frozenset({"width"})) == {
            "width": {"from": 2, "to": 5},
            "area": {"from": 6, "to": 15},
        }

    def test_a_row_hidden_by_its_manager_is_read_all_the_same(self, tenant: Tenant) -> None:
        crate = Crate.objects.create(tenant=tenant, state="gone")
        crate.width = "5"
        crate.save()
        shape = Shape(Entry(Crate, "tenant", fields=("width",)))
        assert shape.object(shape.current(crate, using="default")) == {"width": 5}
        assert shape.old(crate, using="default") is not None


class TestChanges:
    @pytest.fixture
    def save(self, shape: Shape) -> Callable[..., dict[str, Any]]:
        """Save, and what the save changed."""

        def run(animal: Animal, *, only: frozenset[str] | None = None, **values: Any) -> dict[str, Any]:
            for name, value in values.items():
                setattr(animal, name, value)
            with transaction.atomic():
                old = shape.old(animal, using="default")
                animal.save(update_fields=only)
                assert old is not None
                current = shape.current(animal, using="default", only=only, old=old)
                changes = shape.changes(old, current, only=only)
            json.loads(dumps(changes))
            return {name: change for name, change in changes.items() if name != "touched_at"}

        return run

    def test_an_unchanged_save_changes_nothing(self, zebra: Animal, save: Callable[..., dict[str, Any]]) -> None:
        assert save(zebra) == {}
        assert save(Animal.objects.get(pk=zebra.pk)) == {}

    @pytest.mark.parametrize(
        ("field", "same"),
        [
            ("price", Decimal("1234.5")),
            ("price", "1234.50"),
            ("steps", str(2**62)),
            ("seen_at", SEEN.astimezone(timezone(timedelta(hours=5)))),
            ("seen_at", SEEN.isoformat()),
            ("born", "2020-02-29"),
            ("traits", {"stripes": (1, 2.5, None, True), "of": {"zoo": "é"}}),
            ("log", [{"at": date(2026, 11, 21)}]),
            ("colour", Colour(1, 2, 255)),
            ("nick", "ZZ"),
            ("address", "2001:0DB8::0001"),
            ("size", "L"),
            ("dna", memoryview(b"\x00\xff")),
            ("photo", "photos/zoe.png"),
        ],
    )
    def test_the_same_in_other_words_is_no_change(
        self, zebra: Animal, save: Callable[..., dict[str, Any]], field: str, same: Any
    ) -> None:
        assert save(zebra, **{field: same}) == {}

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            # The hour that comes twice: such a moment equals none of another zone.
            ("seen_at", datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))),
            # PostgreSQL makes whole numbers of them.
            ("traits", [1e300, 1.1e25, -1e16]),
            ("traits", json.loads("[" * 300 + "]" * 300)),
        ],
        ids=["repeated-hour", "far-numbers", "deep"],
    )
    def test_nor_is_saving_the_same_twice(
        self, zebra: Animal, save: Callable[..., dict[str, Any]], field: str, value: Any
    ) -> None:
        save(zebra, **{field: value})
        assert save(zebra, **{field: value}) == {}

    @pytest.mark.parametrize(
        ("field", "value", "was", "now"),
        [
            ("price", "9.5", "1234.50", "9.50"),
            ("legs", F("legs") - 1, -3, -4),
            ("tame", False, True, False),
            ("vaccinated", None, False, None),
            ("traits", {"stripes": 1}, {"stripes": [1, 2.5, None, True], "of": {"zoo": "é"}}, {"stripes": 1}),
            ("colour", Colour(9, 9, 9), "#0102ff", "#090909"),
            ("dna", b"\x01", "AP8=", "AQ=="),
            ("nap", timedelta(minutes=1), "1 02:00:00.000007", "00:01:00"),
            ("seen_at", None, "2026-11-21T09:30:00.123456Z", None),
            ("size", Animal.Size.SMALL, "L", "S"),
            ("keeper", None, ..., None),
            ("deputy", None, "K1", None),
            ("photo", None, "/media/photos/zoe.png", None),
            ("photo", ContentFile(b"x", name="new.png"), "/media/photos/zoe.png", "/media/photos/new.png"),
        ],
    )
    def test_a_change_is_written_as_the_object_is(
        self, zebra: Animal, save: Callable[..., dict[str, Any]], *, field: str, value: Any, was: Any, now: Any
    ) -> None:
        if was is ...:
            was = str(zebra.keeper_id)
        assert save(zebra, **{field: value}) == {field: {"from": was, "to": now}}

    def test_bytes_are_the_same_however_a_driver_hands_them_over(self, shape: Shape) -> None:
        [dna] = [column for column in shape.columns if column.name == "dna"]
        assert dna.same(memoryview(b"\x00\xff"), b"\x00\xff")
        assert not dna.same(memoryview(b"\x00\xff"), b"\x00")

    def test_true_is_not_one(self, zebra: Animal, save: Callable[..., dict[str, Any]]) -> None:
        save(zebra, traits={"a": 1})
        assert save(zebra, traits={"a": True}) == {"traits": {"from": {"a": 1}, "to": {"a": True}}}

    def test_only_what_update_fields_names(self, zebra: Animal, save: Callable[..., dict[str, Any]]) -> None:
        changes = save(zebra, only=frozenset({"name", "keeper_id"}), name="Zed", legs=99, keeper_id=None)
        assert set(changes) == {"name", "keeper"}

    def test_what_is_not_exposed_is_not_told(self, zebra: Animal, save: Callable[..., dict[str, Any]]) -> None:
        assert save(zebra, secret_name="Mr. Z") == {}

    def test_a_deferred_instance(self, zebra: Animal, save: Callable[..., dict[str, Any]], shape: Shape) -> None:
        partial = Animal.objects.only("name", "legs").get(pk=zebra.pk)
        loaded = frozenset({"name", "legs"})
        assert save(partial, only=loaded, legs=2) == {"legs": {"from": -3, "to": 2}}

    def test_right_after_refresh_from_db(self, zebra: Animal, save: Callable[..., dict[str, Any]]) -> None:
        Animal.objects.filter(pk=zebra.pk).update(legs=8)
        zebra.refresh_from_db()
        assert save(zebra, legs=9) == {"legs": {"from": 8, "to": 9}}

    def test_from_is_what_the_database_held_and_not_the_instance(
        self, zebra: Animal, save: Callable[..., dict[str, Any]]
    ) -> None:
        Animal.objects.filter(pk=zebra.pk).update(legs=8)
        assert save(zebra) == {"legs": {"from": 8, "to": -3}}

    def test_there_is_no_old_row_of_what_is_new(self, shape: Shape, tenant: Tenant) -> None:
        with CaptureQueriesContext(connection) as queries:
            assert shape.old(Animal(tenant=tenant), using="default") is None
        assert len(queries) == 0
        assert shape.old(Animal(pk=-1, tenant=tenant), using="default") is None

    def test_the_old_row_costs_one_query(self, shape: Shape, zebra: Animal) -> None:
        with CaptureQueriesContext(connection) as queries:
            shape.old(zebra, using="default")
        assert len(queries) == 1


class TestInheritance:
    shape = Shape(Entry(Restaurant, "tenant", fields="__all__"))

    def test_a_child_shows_its_own_columns_and_its_parents(self, tenant: Tenant) -> None:
        row = Restaurant.objects.create(tenant=tenant, name="Zum Zebra", stars=2)
        body = body_of(self.shape, row)
        assert body == by_drf(row, list(body))
        assert body == {"id": row.pk, "tenant": tenant.pk, "name": "Zum Zebra", "stars": 2}

    def test_changes_in_either_table(self, tenant: Tenant) -> None:
        row = Restaurant.objects.create(tenant=tenant, name="Zum Zebra", stars=2)
        old = self.shape.old(row, using="default")
        row.name, row.stars = "Zum Gnu", 1
        row.save()
        assert old is not None
        assert self.shape.changes(old, self.shape.current(row, using="default")) == {
            "name": {"from": "Zum Zebra", "to": "Zum Gnu"},
            "stars": {"from": 2, "to": 1},
        }

    def test_a_parents_entry_speaks_for_its_children(self, tenant: Tenant) -> None:
        shape = Shape(Entry(Place, "tenant", fields="__all__"))
        row = Restaurant.objects.create(tenant=tenant, name="Zum Zebra", stars=2)
        assert set(body_of(shape, shape.current(row, using="default"))) == {"id", "tenant", "name"}

    def test_a_proxy_is_its_table(self, tenant: Tenant) -> None:
        shape = Shape(Entry(Book, "tenant", fields="__all__"))
        row = ProxyBook.objects.create(tenant=tenant, title="Zebras")
        assert body_of(shape, shape.current(row, using="default")) == by_drf(row, list(shape.order))


class TestTwoAtOnce:
    @pytest.mark.django_db(transaction=True)
    def test_from_is_what_the_other_save_left(self, make_tenant: Callable[..., Tenant]) -> None:
        shape = Shape(Entry(Animal, "tenant", fields=("legs",)))
        animal = Animal.objects.create(tenant=make_tenant(), legs=1)
        began = threading.Event()

        def double() -> dict[str, Any]:
            try:
                mine = Animal(pk=animal.pk)
                began.set()
                with transaction.atomic():
                    old = shape.old(mine, using="default")
                    mine = Animal.objects.get(pk=animal.pk)
                    mine.legs = F("legs") * 2
                    mine.save()
                    assert old is not None
                    return shape.changes(old, shape.current(mine, using="default"))
            finally:
                connection.close()

        with ThreadPoolExecutor(1) as other:
            with transaction.atomic():
                animal.legs = 5
                animal.save()
                doubling = other.submit(double)
                assert began.wait(10)
                wait_until_somebody_waits()
            assert doubling.result(20) == {"legs": {"from": 5, "to": 10}}


def wait_until_somebody_waits() -> None:
    """SQLite has one writer, and no list of those that wait to be one."""
    deadline = time_module.monotonic() + 10
    while connection.vendor == "postgresql" and time_module.monotonic() < deadline:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()")
            if cursor.fetchone()[0]:
                return


class AnimalSerializer(AnimalBase):
    called = serializers.CharField(source="name")
    boss: serializers.PrimaryKeyRelatedField[Keeper] = serializers.PrimaryKeyRelatedField(
        source="keeper", read_only=True
    )
    shout = serializers.SerializerMethodField()
    owner = serializers.CharField(source="tenant.slug")
    nick = serializers.CharField(write_only=True)

    class Meta:
        model = Animal
        fields = ["id", "called", "boss", "shout", "owner", "nick", "price"]

    def get_shout(self, animal: Animal) -> str:
        return animal.name.upper()


class TestSerializer:
    shape = Shape(Entry(Animal, "tenant", serializer=AnimalSerializer))

    def test_its_fields_are_the_body(self, zebra: Animal) -> None:
        assert self.shape.object(zebra) == {
            "id": zebra.pk,
            "called": zebra.name,
            "boss": str(zebra.keeper_id),
            "shout": zebra.name.upper(),
            "owner": "acme",
            "price": "1234.50",
        }

    def test_it_is_given_what_the_database_holds(self, zebra: Animal) -> None:
        zebra.tenant.slug = "unsaved"
        zebra.name = "Saved"
        zebra.save()
        current = self.shape.current(zebra, using="default")
        assert self.shape.object(current)["owner"] == "acme"
        assert self.shape.object(current)["called"] == "Saved"

    def test_changes_are_those_of_its_source_fields(self, zebra: Animal) -> None:
        old = self.shape.old(zebra, using="default")
        zebra.name, zebra.price, zebra.keeper, zebra.legs = "Zed", Decimal(1), None, 77
        zebra.save()
        assert old is not None
        assert self.shape.changes(old, self.shape.current(zebra, using="default")) == {
            "called": {"from": "Zoë \u2028 🦓", "to": "Zed"},
            "boss": {"from": str(Keeper.objects.get(badge="K1").pk), "to": None},
            "price": {"from": "1234.50", "to": "1.00"},
        }


class TestShapeOf:
    def test_it_is_compiled_once(self) -> None:
        assert shape_of(EVERYTHING) is shape_of(EVERYTHING)

    def test_an_entry_that_leaves_takes_it_along(self) -> None:
        gone = weakref.ref(shape_of(Entry(Animal, "tenant")))
        gc.collect()
        assert gone() is None


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()))
    | st.decimals()
    | st.datetimes(timezones=st.just(UTC) | st.none())
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.uuids()
    | st.binary()
    | st.sampled_from([*Animal.Size, *Animal.Rank]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=())) | st.integers() | st.floats() | st.booleans() | st.none(),
            inner,
            max_size=4,
        )
        | st.dictionaries(st.uuids() | st.dates() | st.sampled_from(list(Animal.Size)), inner, max_size=2)
    ),
    max_leaves=12,
)


class TestDumps:
    @given(anything)
    def test_whatever_it_is_the_bytes_are_strict_json(self, value: Any) -> None:
        body = dumps(value)
        assert body
        assert not body.startswith(b"\xef\xbb\xbf")
        json.loads(body.decode("utf-8"), parse_constant=pytest.fail)

    @given(
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(st.characters(exclude_categories=())),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=8,
        )
    )
    def test_what_is_json_comes_back_as_it_was(self, value: Any) -> None:
        assert json.loads(dumps(value)) == value

    def test_what_json_cannot_say_is_null(self) -> None:
        assert dumps({"a": [math.nan, math.inf, -math.inf]}) == b'{"a":[null,null,null]}'
        assert dumps({"a": [math.nan, 2**70]}) == b'{"a":[null,1180591620717411303424]}'
        assert dumps([Decimal("NaN")]) == b"[null]"

    def test_lone_surrogates_are_escaped(self) -> None:
        assert dumps({"\udc80": "\ud800é"}) == b'{"\\udc80":"\\ud800\\u00e9"}'

    def test_keys_become_text(self) -> None:
        assert dumps({7: 2, None: 3, True: 4}) == b'{"7":2,"null":3,"true":4}'

    def test_the_rest_is_written_as_drf_does(self) -> None:
        values = [SEEN, SEEN.date(), time(1, 2), timedelta(minutes=1), uuid.UUID(int=1), Decimal("1.5"), b"abc", {1}]
        assert json.loads(dumps(values)) == json.loads(JSONRenderer().render(values))

    def test_bytes_that_are_no_text_are_base64(self) -> None:
        assert dumps(b"\xff") == b'"/w=="'

    @pytest.mark.parametrize("value", [object(), {"a": object()}, [2**70, object()]])
    def test_what_has_no_json_is_refused(self, value: Any) -> None:
        with pytest.raises(TypeError):
            dumps(value)

    def test_what_contains_itself_is_refused(self) -> None:
        endless: list[Any] = []
        endless.append(endless)
        with pytest.raises(ValueError, match="contains itself"):
            dumps(endless)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kathmandu"])
@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 11, 21, 9, 30, tzinfo=UTC),
        datetime(2026, 10, 25, 0, 30, 1, 123400, tzinfo=UTC),
        datetime(2026, 7, 1, 9, 30, tzinfo=ZoneInfo("America/St_Johns")),
        datetime(1, 1, 1, tzinfo=UTC),
    ],
)
def test_moments_are_written_as_drf_does(moment: datetime, zone: str) -> None:
    field = Column("at", Animal._meta.get_field("seen_at"), serializers.DateTimeField())
    with django_timezone.override(ZoneInfo(zone)):
        assert field.plain(moment) == serializers.DateTimeField().to_representation(moment)

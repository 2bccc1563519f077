from __future__ import annotations

from typing import TYPE_CHECKING, Any

import django
import pytest
from django.conf import settings
from django.core import checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.core.signals import request_finished
from django.db import DEFAULT_DB_ALIAS, connection, connections, models
from django.test import override_settings
from django.test.utils import isolate_apps
from rest_framework import serializers

from examples.shop.models import Customer, Order
from subscriptions import catalog
from subscriptions.conf import DEFAULTS
from subscriptions.models import Tenant
from tests.zoo.kinds import Animal, Keeper
from tests.zoo.odd import Book, Novel
from webhooks.checks import databases, values
from webhooks.models import Event
from webhooks.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from subscriptions.models import Subscription

EVERY_TENANT = catalog.EVERY_TENANT


@pytest.fixture(autouse=True)
def _same_catalog_afterwards() -> Iterator[None]:
    before, signals = list(catalog._registrations), list(catalog._signals)
    yield
    for registration in set(catalog._registrations) - set(before):
        if (model := registration.concrete()) is not None:
            catalog.unregister(model)
    catalog._registrations[:] = before
    catalog._signals[:] = signals
    catalog.load()


def found(*ids: str, deploy: bool = False) -> list[str]:
    """What the checks say under `ids`, as text and hint; of anything under no
    ids. They ask no database: most of these tests have none."""
    messages = checks.run_checks(tags=["signalpost"], include_deployment_checks=deploy)
    return [f"{each.obj or ''}: {each.msg} {each.hint}" for each in messages if not ids or each.id in ids]


def levels() -> dict[str, int]:
    return {each.id: each.level for each in checks.run_checks(tags=["signalpost"]) if each.id}


# As shipped


def test_the_checks_find_nothing_in_the_shipped_project() -> None:
    assert found() == []


@override_settings(USE_TZ=False)
def test_times_without_a_zone_are_warned_of() -> None:
    (told,) = found(databases.NO_ZONE)
    assert "Set USE_TZ = True" in told


# Registrations


@pytest.mark.parametrize(
    ("check", "model", "options", "says"),
    [
        ("E001", "shop.Nope", {}, "There is no model shop.Nope"),
        ("E002", Book, {"fields": ["id", "titel"]}, "zoo.Book has no field 'titel'. Fields are"),
        ("E003", Book, {"tenant": "owner"}, "The tenant of zoo.Book cannot be found by 'owner'"),
        ("E003", Book, {"tenant": None}, 'Write a path that ends in the tenant or its key, such as tenant="'),
        ("E004", Book, {"actions": ["created", "renamed"]}, "zoo.Book has no action 'renamed'. Actions are"),
        ("E005", Order, {"tenant": "customer__tenant"}, "shop.Order is registered twice"),
        ("E006", Event, {}, "webhooks.Event is Signalpost's own"),
        ("E007", Book, {"serializer": "BookSerializer"}, "is no serializer. Name a class that inherits"),
        ("E008", Book, {"fields": "title"}, "The fields of zoo.Book are 'title'. Write a list of names"),
    ],
)
def test_a_wrong_registration_is_an_error_that_names_the_model_and_what_to_write(
    check: str, model: Any, options: dict[str, Any], says: str
) -> None:
    assert not found(f"signalpost.{check}")
    catalog.register(model, **{"tenant": "tenant", **options})
    [text] = found(f"signalpost.{check}")
    assert says in text
    assert levels()[f"signalpost.{check}"] == checks.ERROR


def test_a_right_registration_is_none() -> None:
    before = found()
    catalog.register(Book, tenant="tenant", fields=["id", "title"], actions=[*catalog.DEFAULT_ACTIONS, "saving"])
    assert found() == before


@pytest.mark.django_db(databases=["default", "other"])
def test_a_wrong_registration_fails_at_the_start() -> None:
    catalog.register(Book, tenant="owner")
    with pytest.raises(SystemCheckError, match=r"signalpost\.E003"):
        call_command("check")


def test_a_signal_needs_a_topic() -> None:
    catalog.register_signal(
        request_finished, topic="No Topic", tenant=lambda **kwargs: EVERY_TENANT, payload=lambda **kwargs: {}
    )
    [text] = found("signalpost.E009")
    assert "'No Topic'" in text


@pytest.mark.parametrize(
    ("check", "setting", "says"),
    [
        ("E010", {"shop.*": {"tenants": "tenant"}}, "has no option tenants"),
        ("E010", {"shop.*": "tenant"}, "is no dict"),
        ("E011", {"nope.*": {"tenant": "tenant"}}, "names no model"),
        ("E002", {"zoo.Book": {"tenant": "tenant", "fields": ["titel"]}}, "zoo.Book has no field 'titel'"),
        ("E003", {"zoo.Book": {"tenant": "owner"}}, "cannot be found by 'owner'"),
        ("E006", {"webhooks.*": {"tenant": "tenant"}}, "Signalpost's own traffic"),
    ],
)
def test_a_wrong_pattern_is_an_error(check: str, setting: dict[str, Any], says: str) -> None:
    with override_settings(SIGNALPOST_REGISTER=setting):
        assert any(says in text for text in found(f"signalpost.{check}"))


def test_a_serializer_that_cannot_be_made_is_an_error() -> None:
    class Wrong(serializers.ModelSerializer[Book]):
        class Meta:
            model = Book
            fields = ("id", "titel")

    catalog.register(Book, tenant="tenant", serializer=Wrong)
    [text] = found("signalpost.E012")
    assert "zoo.Book" in text
    assert "titel" in text
    Wrong.Meta.fields = ("id", "title")
    assert not found("signalpost.E012")


# Exposure


def test_sensitive_fields_that_are_left_out_are_named() -> None:
    catalog.unregister(Customer)
    catalog.register(Customer, tenant="tenant", fields="__all__")
    [text] = found("signalpost.I050")
    assert text.startswith('shop.Customer: "__all__" does not expose password of shop.Customer. To expose them,')
    assert not found("signalpost.W051")
    assert levels()["signalpost.I050"] == checks.INFO


def test_sensitive_fields_that_are_named_are_a_warning() -> None:
    catalog.unregister(Customer)
    catalog.register(Customer, tenant="tenant", fields=["id", "password"])
    [text] = found("signalpost.W051")
    assert "password of shop.Customer leaves the system" in text
    assert not found("signalpost.I050")
    assert levels()["signalpost.W051"] == checks.WARNING


def test_a_serializer_that_exposes_a_sensitive_field_is_a_warning() -> None:
    class Safe(serializers.ModelSerializer[Customer]):
        class Meta:
            model = Customer
            fields = ("id", "name", "password")
            extra_kwargs = {"password": {"write_only": True}}

    class Unsafe(serializers.ModelSerializer[Customer]):
        class Meta:
            model = Customer
            fields = ("id", "password")

    for serializer, count in ((Safe, 0), (Unsafe, 1)):
        catalog.unregister(Customer)
        catalog.register(Customer, tenant="tenant", serializer=serializer)
        assert len(found("signalpost.W051")) == count


# Silent deletes


def test_foreign_keys_that_a_delete_empties_are_named() -> None:
    assert not found("signalpost.I060")
    catalog.register(Novel, tenant="author__tenant")
    [text] = found("signalpost.I060")
    assert "zoo.Novel.editor: when a zoo.Author is deleted" in text
    assert "no zoo.novel.updated is sent" in text
    assert "publish_rows()" in text


def test_foreign_keys_do_not_matter_where_updates_are_not_sent() -> None:
    catalog.register(Novel, tenant="author__tenant", actions=["created", "deleted"])
    assert not found("signalpost.I060")


@isolate_apps("tests.zoo")
def test_every_way_to_empty_a_foreign_key_is_known() -> None:
    class Parcel(models.Model):
        cascades = models.ForeignKey(Tenant, models.CASCADE, related_name="+")
        protects = models.ForeignKey(Tenant, models.PROTECT, related_name="+")
        default = models.ForeignKey(Tenant, models.SET_DEFAULT, default=1, related_name="+")
        given = models.ForeignKey(Tenant, models.SET(1), related_name="+")
        called = models.ForeignKey(Tenant, models.SET(lambda: 1), related_name="+")

        class Meta:
            app_label = "zoo"

        def __str__(self) -> str:
            return "parcel"

    catalog.register(Parcel, tenant=EVERY_TENANT)
    named = {text.split(":")[0] for text in found("signalpost.I060")}
    assert named == {"zoo.Parcel.default", "zoo.Parcel.given", "zoo.Parcel.called"}


@pytest.mark.skipif(django.VERSION < (6, 1), reason="database cascades came with Django 6.1")
@isolate_apps("tests.zoo")
def test_foreign_keys_that_the_database_cascades_are_a_warning() -> None:
    class Letter(models.Model):
        goes = models.ForeignKey(Tenant, models.DB_CASCADE, related_name="+")  # type: ignore[attr-defined,unused-ignore]
        stays = models.ForeignKey(Tenant, models.DB_SET_NULL, null=True, related_name="+")  # type: ignore[attr-defined,unused-ignore]

        class Meta:
            app_label = "zoo"

        def __str__(self) -> str:
            return "letter"

    catalog.register(Letter, tenant=EVERY_TENANT)
    goes, stays = sorted(found("signalpost.W061"))
    assert "zoo.Letter.goes: when a subscriptions.Tenant is deleted, the database itself deletes the rows" in goes
    assert "no zoo.letter.deleted is sent" in goes
    assert "no zoo.letter.updated is sent" in stays


def test_many_to_many_rows_that_go_with_an_unregistered_end_are_named() -> None:
    catalog.register(Animal, tenant="tenant")
    [text] = found("signalpost.I062")
    assert "zoo.Animal.keepers: when a zoo.Keeper is deleted" in text
    assert "no zoo.animal.removed is sent" in text
    catalog.register(Keeper, tenant=EVERY_TENANT)
    assert not found("signalpost.I062")


# Databases


@override_settings(SIGNALPOST_DATABASES=["default", "othr"])
def test_an_alias_that_does_not_exist_is_an_error() -> None:
    assert found("signalpost.E020") == [
        ': SIGNALPOST_DATABASES lists "othr", which DATABASES does not have. Write "other".'
    ]


class ToOther:
    """The shop lives on the other database."""

    def db_for_write(self, model: type[models.Model], **hints: Any) -> str | None:
        return "other" if model._meta.app_label == "shop" else None


def test_a_model_written_to_an_alias_that_is_not_listed_is_an_error() -> None:
    with override_settings(DATABASE_ROUTERS=[ToOther()], SIGNALPOST_DATABASES=["default"]):
        texts = found("signalpost.E021")
        assert len(texts) == 3
        assert 'shop.Order is written to "other", whose changes are not captured.' in "".join(texts)
        assert 'Add "other" to SIGNALPOST_DATABASES and run manage.py migrate --database other' in texts[0]
        assert levels()["signalpost.E021"] == checks.ERROR
    with override_settings(DATABASE_ROUTERS=[ToOther()], SIGNALPOST_DATABASES=["default", "other"]):
        assert not found("signalpost.E021")


class NoTraffic:
    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return False if (db, app_label) == ("other", "webhooks") else None


def test_an_alias_that_a_router_keeps_the_tables_off_is_an_error() -> None:
    with override_settings(DATABASE_ROUTERS=[NoTraffic()]):
        [text] = found("signalpost.E022")
    assert '"other"' in text
    assert not found("signalpost.E022")


def test_an_alias_of_another_vendor_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not found("signalpost.E024")
    monkeypatch.setattr(connections["other"], "vendor", "mysql")
    [text] = found("signalpost.E024")
    assert 'SIGNALPOST_DATABASES lists "other", which is mysql' in text
    assert 'Take "other" out of SIGNALPOST_DATABASES' in text
    assert levels()["signalpost.E024"] == checks.ERROR


@pytest.mark.parametrize(
    ("options", "wrong"),
    [(None, True), ({}, True), ({"transaction_mode": "DEFERRED"}, True), ({"transaction_mode": "immediate"}, False)],
)
def test_sqlite_that_takes_its_lock_too_late_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, str] | None, wrong: bool
) -> None:
    monkeypatch.setattr(connections["other"], "vendor", "sqlite")
    monkeypatch.setitem(connections["other"].settings_dict, "OPTIONS", options)
    texts = found("signalpost.W025")
    assert bool(texts) is wrong
    assert all('"transaction_mode": "IMMEDIATE" in the OPTIONS of DATABASES["other"]' in text for text in texts)


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite gives one number at a time")
@pytest.mark.django_db
def test_numbers_that_are_given_out_in_lots_are_a_warning() -> None:
    assert databases.numbers(None, databases=["default"]) == databases.numbers(None) == []
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE webhooks_delivery ALTER id SET CACHE 20")
    [message] = databases.numbers(None, databases=["default"])
    assert (message.id, "20 numbers" in message.msg) == ("signalpost.W027", True)
    with connection.cursor() as cursor:
        cursor.execute(str(message.hint))
    assert databases.numbers(None, databases=["default"]) == []


@pytest.mark.django_db(databases=["default", "other"])
def test_secrets_that_no_key_opens_are_a_warning(tenant: Tenant, subscribe: Callable[..., Subscription]) -> None:
    subscription = subscribe(tenant)
    assert databases.keys(None, databases=["default"]) == []
    with override_settings(SIGNALPOST_ENCRYPTION_KEYS=["another passphrase"]):
        subscribe(tenant)
        [message] = databases.keys(None, databases=["default"])
        assert databases.keys(None, databases=["other"]) == databases.keys(None) == []
    with override_settings(SIGNALPOST_ENCRYPTION_KEYS=["another passphrase", settings.SECRET_KEY]):
        assert databases.keys(None, databases=["default"]) == []
    assert message.msg.startswith("1 of the 2 newest signing secrets were encrypted with a key that is not there")
    assert "SECRET_KEY_FALLBACKS" in str(message.hint)
    assert subscription.secrets.get().value not in message.msg


@pytest.mark.django_db(databases=["default", "other"])
def test_secrets_without_their_table_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection.introspection, "table_names", lambda *args, **kwargs: [])
    assert databases.keys(None, databases=["default"]) == []


@pytest.mark.django_db(databases=["default", "other"], transaction=True)
def test_a_listed_alias_without_the_tables_is_a_warning() -> None:
    assert databases.tables(None, databases=["default", "other"]) == []
    with connections["other"].schema_editor() as editor:
        editor.alter_db_table(Event, "webhooks_event", "webhooks_event_away")
    try:
        [message] = databases.tables(None, databases=["default", "other"])
        assert databases.tables(None, databases=["default"]) == []
        with override_settings(SIGNALPOST_DATABASES=["default"]):
            assert databases.tables(None, databases=["other"]) == []
    finally:
        with connections["other"].schema_editor() as editor:
            editor.alter_db_table(Event, "webhooks_event_away", "webhooks_event")
    assert (message.id, message.level) == ("signalpost.W023", checks.WARNING)
    assert message.msg == '"other" has no table webhooks_event: changes captured there would fail.'
    assert message.hint == "Run manage.py migrate --database other."


@pytest.mark.django_db(databases=["default", "other"])
def test_a_database_with_no_tables_yet_is_being_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection.introspection, "table_names", lambda *args, **kwargs: [])
    assert databases.tables(None, databases=[DEFAULT_DB_ALIAS]) == []


# Settings

WRONG: dict[str, list[Any]] = {
    "REGISTER": [None, ["shop.*"], "shop.*"],
    "OPERATOR_TENANT": ["", None, 3],
    "PROJECT_ACTIONS": ["migrated", [1], None],
    "DATABASES": ["default", [""], None, 1],
    "CAPTURE_ERRORS": ["ignore", None, True],
    "BODY_LIMIT": [0, -1, "256", 1.5, True, None],
    "QUEUE": ["", None, 1],
    "RETRY_SCHEDULE": [5, "5", [0], [-5], ["5"], [float("nan")], [float("inf")], [10**9], None],
    "RETRY_JITTER": [-0.1, 1, 1.5, "0.2", float("nan"), None],
    "RETRY_AFTER_MAX": [0, -1, 10**9, "60", None],
    "LEASE_SECONDS": [0, -1, "45", None, float("inf")],
    "LOOK_SECONDS": [0, -2, None],
    "SWEEP_SECONDS": [0, -2, None],
    "IN_FLIGHT": [0, 1.5, "200", True],
    "IN_FLIGHT_PER_SUBSCRIPTION": [0, -1, None],
    "BREAKER_FAILURES": [0, 1.5, None],
    "BREAKER_SECONDS": [0, "60", None],
    "DISABLE_AFTER": [0, -1, None],
    "CONNECT_TIMEOUT": [0, -1, "5", None],
    "REQUEST_TIMEOUT": [0, None],
    "TOTAL_TIMEOUT": [0, None, "x"],
    "RESPONSE_LIMIT": [-1, 1.5, "16", None],
    "ALLOWED_NETWORKS": ["10.0.0.0/8", ["10.0.0.1/8"], ["example.com"], [7], None],
    "ENCRYPTION_KEYS": ["passphrase", [""], [b"x"], None],
    "SUBSCRIPTION_LIMIT": [0, -1, 1.5, "many"],
    "API_RATE": [600, "600", "0/min", "600/day", "many"],
    "TRUSTED_PROXIES": [-1, 1.0, True, "1", None],
    "METRICS_TOKEN": ["two words", "a line\n", "ключ", b"token", None],
}
RIGHT: dict[str, list[Any]] = {
    "RETRY_SCHEDULE": [[], [0.5], (5, 300)],
    "RETRY_JITTER": [0, 0.0, 0.99],
    "RESPONSE_LIMIT": [0],
    "ALLOWED_NETWORKS": [[], ("10.0.0.0/8", "::1/128", "192.168.1.1")],
    "ENCRYPTION_KEYS": [[], ["new", "old"]],
    "CAPTURE_ERRORS": ["raise", "log"],
}


def test_every_setting_has_a_rule_and_a_default_that_keeps_it() -> None:
    assert set(values.RULES) == set(DEFAULTS) == set(WRONG)
    for key, (test, _) in values.RULES.items():
        assert test(DEFAULTS[key]), key


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, wrong in WRONG.items() for value in wrong])
def test_a_setting_of_a_wrong_kind_is_an_error_and_nothing_worse(key: str, value: Any) -> None:
    with override_settings(**{f"SIGNALPOST_{key}": value}):
        texts = found("signalpost.E030")
    assert any(f"SIGNALPOST_{key} " in text and "Write " in text for text in texts)
    assert not found("signalpost.E030")


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, right in RIGHT.items() for value in right])
def test_a_setting_at_its_bounds_is_right(key: str, value: Any) -> None:
    with override_settings(**{f"SIGNALPOST_{key}": value}):
        assert not found("signalpost.E030")


def test_a_key_is_not_printed() -> None:
    with override_settings(SIGNALPOST_ENCRYPTION_KEYS="a-passphrase"):
        assert "a-passphrase" not in "".join(found())


@pytest.mark.parametrize(("lease", "wrong"), [(20, True), (24, True), (25, False), (45, False)])
def test_a_lease_outlasts_its_request(lease: float, wrong: bool) -> None:
    with override_settings(SIGNALPOST_LEASE_SECONDS=lease, SIGNALPOST_TOTAL_TIMEOUT=20):
        assert bool(found("signalpost.E031")) is wrong


def test_a_timeout_that_is_never_reached_is_a_warning() -> None:
    with override_settings(SIGNALPOST_REQUEST_TIMEOUT=30, SIGNALPOST_TOTAL_TIMEOUT=20):
        [text] = found("signalpost.W033")
    assert "SIGNALPOST_REQUEST_TIMEOUT" in text
    assert not found("signalpost.W033")


def test_a_setting_that_is_misspelt_is_a_warning() -> None:
    with override_settings(SIGNALPOST_ALLOWED_NETWORK=["10.0.0.0/8"]):
        assert found("signalpost.W032") == [
            ": There is no setting SIGNALPOST_ALLOWED_NETWORK; it has no effect. Write SIGNALPOST_ALLOWED_NETWORKS."
        ]
    assert not found("signalpost.W032")


@pytest.mark.parametrize("network", ["0.0.0.0/0", "::/0", "169.254.0.0/16"])
def test_networks_that_hold_a_cloud_s_metadata_are_a_warning_under_deploy(network: str) -> None:
    with override_settings(SIGNALPOST_ALLOWED_NETWORKS=["10.0.0.0/8", network]):
        assert network in found("signalpost.W040", deploy=True)[0]
        assert not found("signalpost.W040")
    with override_settings(SIGNALPOST_ALLOWED_NETWORKS=["10.0.0.0/8"]):
        assert not found("signalpost.W040", deploy=True)


def test_no_keys_of_our_own_is_said_under_deploy() -> None:
    assert found("signalpost.I041", deploy=True)
    assert not found("signalpost.I041")
    with override_settings(SIGNALPOST_ENCRYPTION_KEYS=["a long passphrase"]):
        assert not found("signalpost.I041", deploy=True)


def test_a_short_passphrase_is_a_warning_under_deploy() -> None:
    with override_settings(SIGNALPOST_ENCRYPTION_KEYS=["x" * 32, "short", "y" * 31]):
        [text] = found("signalpost.W042", deploy=True)
        assert "a passphrase shorter than 32 characters (number 2, 3)" in text
        assert "short" not in text.replace("shorter", "")
        assert not found("signalpost.W042")
    with override_settings(SIGNALPOST_ENCRYPTION_KEYS=["x" * 32]):
        assert not found("signalpost.W042", deploy=True)


def test_a_short_token_of_the_metrics_is_a_warning_under_deploy() -> None:
    with override_settings(SIGNALPOST_METRICS_TOKEN="hunter2"):
        [text] = found("signalpost.W043", deploy=True)
        assert "hunter2" not in text
        assert not found("signalpost.W043")
    for token in ("x" * 32, ""):
        with override_settings(SIGNALPOST_METRICS_TOKEN=token):
            assert not found("signalpost.W043", deploy=True)


# The queue


@override_settings(SIGNALPOST_QUEUE="webhooks")
def test_a_queue_that_rq_does_not_have_is_an_error() -> None:
    [text] = found("signalpost.E034")
    assert 'RQ_QUEUES has no queue "webhooks"' in text


@pytest.mark.parametrize(
    ("serializer", "wrong"),
    [
        (None, True),
        ("rq.serializers.PickleSerializer", True),
        ("json", False),
        ("rq.serializers.JSONSerializer", False),
    ],
)
def test_a_queue_of_pickles_is_a_warning(serializer: str | None, wrong: bool) -> None:
    with override_settings(RQ_QUEUES={"default": {"URL": "redis://localhost", "SERIALIZER": serializer}}):
        assert bool(found("signalpost.W035")) is wrong


class OwnWorker(Worker):
    """A host project's, made of ours."""


@pytest.mark.parametrize("worker", [OwnWorker, f"{__name__}.OwnWorker"])
def test_a_worker_made_of_ours_is_ours(worker: Any) -> None:
    with override_settings(RQ={"WORKER_CLASS": worker}):
        assert not found("signalpost.W036")


@pytest.mark.parametrize("options", [{}, {"WORKER_CLASS": "rq.Worker"}, {"WORKER_CLASS": "nowhere.Worker"}])
def test_a_worker_that_is_not_ours_is_a_warning(options: dict[str, str]) -> None:
    with override_settings(RQ=options):
        assert "webhooks.worker.Worker" in found("signalpost.W036")[0]
    assert not found("signalpost.W036")


def test_every_id_is_used_once() -> None:
    from webhooks.checks import deletes, exposure, queue, registrations

    ids = [*registrations.IDS.values()]
    for module in (registrations, exposure, deletes, databases, values, queue):
        ids += [each for each in vars(module).values() if isinstance(each, str) and each.startswith("signalpost.")]
    assert len(ids) == len(set(ids))


def test_the_checks_are_run_by_their_tag() -> None:
    assert "signalpost" in checks.registry.registry.tags_available()

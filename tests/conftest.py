"""Fixtures for every test: personas, factories, an embedded Valkey."""

from __future__ import annotations

import gc
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings
from django.contrib.contenttypes.models import ContentType
from django.core.cache import cache
from django.core.management.commands import flush
from django.db import connections
from hypothesis import settings as hypothesis_settings

from tests.receiver import Receiver
from tests.servers import Valkey, empty_database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from subscriptions.models import Subscription, Tenant
    from tests.programs import Api

# No time limit per example: a busy machine is no failure.
hypothesis_settings.register_profile("signalpost", deadline=None)
hypothesis_settings.load_profile("signalpost")


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis of this test process's own: an empty database of REDIS_URL's
    server, or an embedded Valkey."""
    with ExitStack() as stack:
        url = stack.enter_context(empty_database(os.environ["REDIS_URL"])) if "REDIS_URL" in os.environ else None
        yield url or stack.enter_context(Valkey(settings.DATA_DIR)).url


# Written by migrations, and the same for every test.
KEPT = ("auth_permission", "django_content_type")


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """After each test that commits, Django would take away what migrations
    wrote, and write it again: a tenth of a second, for each of hundreds."""
    with django_db_blocker.unblock():
        last = {alias: {table: _last_key(alias, table) for table in KEPT} for alias in _set_up()}

    def emptied(style: Any, connection: Any, **options: Any) -> list[str]:
        tables = connection.introspection.django_table_names(only_existing=True, include_views=False)
        rest = [table for table in tables if table not in KEPT]
        added = [f"DELETE FROM {table} WHERE id > {key}" for table, key in last[connection.alias].items()]  # noqa: S608
        return [*connection.ops.sql_flush(style, rest, **options), *added]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flush, "sql_flush", emptied)
        patch.setattr(flush, "emit_post_migrate_signal", lambda *_args: ContentType.objects.clear_cache())
        yield


def _set_up() -> list[str]:
    """pytest-django sets up only the databases that some test asks for."""
    other = connections["other"].settings_dict
    return ["default", "other"] if other["NAME"] == other["TEST"]["NAME"] else ["default"]


def _last_key(alias: str, table: str) -> int:
    with connections[alias].cursor() as cursor:
        cursor.execute(f"SELECT coalesce(max(id), 0) FROM {table}")  # noqa: S608
        return int(cursor.fetchone()[0])


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test's process listened to is not the next one's, nor is the
    language in which it was last asked. A key is read for each request, so that
    queries can be counted however slow the machine is."""
    from django.utils import translation

    from subscriptions import keys
    from subscriptions.api import throttles
    from webhooks import matching

    translation.deactivate()
    matching.forget()
    keys.forget()
    monkeypatch.setattr(keys, "GOES_BY", 0.0)
    throttles.forget()


@pytest.fixture(autouse=True)
def time_to_fan_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow moment of the machine must not end a batch early."""
    from webhooks import deliveries, turns

    monkeypatch.setattr(deliveries, "FAN_OUT_SECONDS", 60.0)
    monkeypatch.setattr(deliveries, "_pace", deliveries.MOST_EVENTS)
    turns.forget()


@pytest.fixture
def process_env(transactional_db: None, redis_url: str) -> dict[str, str]:
    """The environment in which a child process works on this test's database and queue."""
    database = connections["default"].settings_dict
    if database["ENGINE"] == "django.db.backends.sqlite3":
        url = f"sqlite:///{database['NAME']}"
    else:
        url = "postgres://{USER}:{PASSWORD}@{HOST}:{PORT}/{NAME}".format(**database)
    other = str(connections["other"].settings_dict["NAME"])
    second = {"TEST_OTHER_DATABASE": other} if "other" in _set_up() else {"SIGNALPOST_DATABASES": "default"}
    return {
        **os.environ,
        **second,
        "DATABASE_URL": url,
        "REDIS_URL": redis_url,
        "SECRET_KEY": settings.SECRET_KEY,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "SIGNALPOST_ALLOWED_NETWORKS": "127.0.0.0/8,::1/128",
        "PYTHONUNBUFFERED": "1",
        "TEST_DIR": str(settings.DATA_DIR),
    }


@pytest.fixture
def make_tenant(db: None) -> Callable[..., Tenant]:
    from subscriptions.models import Tenant

    def make(slug: str = "acme", **fields: Any) -> Tenant:
        return Tenant.objects.create(**{"slug": slug, "name": slug.title(), **fields})

    return make


@pytest.fixture
def tenant(make_tenant: Callable[..., Tenant]) -> Tenant:
    return make_tenant()


@pytest.fixture
def subscribe() -> Callable[..., Subscription]:
    """`subscribe(tenant, "shop.order.*", url=…, changed=[…])`: enabled, with a secret."""
    from subscriptions.models import Subscription

    def make(tenant: Tenant, *topics: str, changed: tuple[str, ...] = (), **fields: Any) -> Subscription:
        subscription = Subscription.objects.create(**{"tenant": tenant, "url": "https://receiver.example/", **fields})
        subscription.listen_to(*topics, changed=changed)
        subscription.rotate_secret()
        return subscription

    return make


@pytest.fixture
def make_api(db: None) -> Callable[..., Api]:
    """`make_api(tenant, scopes=["read"], mode="test")`; without a tenant, the operator's."""

    from subscriptions.models import ApiKey
    from tests.programs import EVERY, Api

    cache.clear()  # what another test's keys of these numbers have asked

    def make(tenant: Tenant | None, *, scopes: list[str] | None = None, name: str = "Program", **fields: Any) -> Api:
        key = ApiKey(tenant=tenant, name=name, scopes=EVERY if scopes is None else scopes, **fields)
        value = key.fill()
        key.save()
        return Api(value, key)

    return make


@pytest.fixture
def api(tenant: Tenant, make_api: Callable[..., Api]) -> Api:
    """A key of acme's that may do what a tenant's key may."""
    return make_api(tenant)


@pytest.fixture
def charlies(make_tenant: Callable[..., Tenant], make_api: Callable[..., Api]) -> Api:
    """The same of globex's."""
    return make_api(make_tenant("globex"), name="Charlie's")


@pytest.fixture
def operator(make_api: Callable[..., Api]) -> Api:
    return make_api(None, scopes=["read", "write", "publish", "operate"], name="Operations")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "on(database): what it asks is asked of that one only, where both are tried")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--only-database", action="store_true", help="leave out what touches no database")
    parser.addoption("--two-databases", action="store_true", help="the other round asks the other one")


def pytest_collection_finish() -> None:
    """Modules and tests stay: no collection need walk over them again."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kept = [item for item in items if _is_of_this_round(config, item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def _is_of_this_round(config: pytest.Config, item: pytest.Item) -> bool:
    touching = {"db", "transactional_db", "django_db_setup"}
    if config.getoption("--only-database") and not (
        item.get_closest_marker("django_db") or touching & set(getattr(item, "fixturenames", ()))
    ):
        return False
    only = item.get_closest_marker("on")
    return only is None or not config.getoption("--two-databases") or only.args == (connections["default"].vendor,)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A real receiver, at `receiver.url`."""
    with Receiver() as receiver:
        yield receiver

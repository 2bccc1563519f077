"""Each fault gets a world of its own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.conf import settings as project
from django.db import connections
from psycopg import sql

from subscriptions.models import Tenant
from tests.faults.settings import DATABASES
from tests.faults.world import World, migrate
from tests.receiver import Receiver
from tests.servers import Valkey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    Place = Mapping[str, Any]  # what Django's settings say of a database

# A copy: each world changes what the connection is told.
SERVER: Place = dict(project.DATABASES["default"])
POSTGRESQL = SERVER["ENGINE"] == "django.db.backends.postgresql"
HERE = "postgresql" if POSTGRESQL else "sqlite"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "only(vendor): the fault is one of this database")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        mark = item.get_closest_marker("only")
        if mark is not None and mark.args[0] != HERE:
            item.add_marker(pytest.mark.skip(reason=f"a fault of {mark.args[0]}"))


def environment(place: Place, folder: Path) -> dict[str, str]:
    address = "postgres://{USER}:{PASSWORD}@{HOST}:{PORT}/{NAME}" if POSTGRESQL else "sqlite:///{NAME}"
    return {
        **os.environ,
        "DATABASE_URL": address.format(**place),
        "REDIS_URL": Valkey(folder).url,
        "SECRET_KEY": project.SECRET_KEY,
        "DJANGO_SETTINGS_MODULE": "tests.faults.settings",
        "SIGNALPOST_DATABASES": "default",
        "SIGNALPOST_ALLOWED_NETWORKS": "127.0.0.0/8,::1/128",
        "PYTHONUNBUFFERED": "1",
        "TEST_DIR": str(folder),
    }


def on_server(place: Place, statement: str, *names: str) -> None:
    address = {key: place[name] for key, name in (("host", "HOST"), ("port", "PORT"), ("user", "USER"))}
    password, database = place["PASSWORD"] or None, place["NAME"]
    with psycopg.connect(**address, password=password, dbname=database, autocommit=True) as connection:
        connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Migrated once, and copied for each world."""
    folder = tmp_path_factory.mktemp("template")
    place = {**SERVER, "NAME": f"signalpost_faults_{os.getpid()}" if POSTGRESQL else folder / "template.sqlite3"}
    if POSTGRESQL:
        on_server(SERVER, "CREATE DATABASE {}", place["NAME"])
    migrate(environment(place, folder))
    yield place
    if POSTGRESQL:
        on_server(SERVER, "DROP DATABASE {} WITH (FORCE)", place["NAME"])


@pytest.fixture
def place(template: Place, tmp_path: Path) -> Iterator[Place]:
    """A database of this test's own."""
    if not POSTGRESQL:
        path = tmp_path / "world.sqlite3"
        path.write_bytes(template["NAME"].read_bytes())
        yield {**template, "NAME": path}
        return
    name = f"{template['NAME']}_world"
    on_server(SERVER, "CREATE DATABASE {} TEMPLATE {}", name, template["NAME"])
    yield {**template, "NAME": name}
    on_server(SERVER, "DROP DATABASE {} WITH (FORCE)", name)


@pytest.fixture
def make_world(tmp_path: Path, django_db_blocker: Any, settings: Any) -> Iterator[Callable[[Place], World]]:
    """A world in a migrated database; this process asks the same one."""
    settings.SIGNALPOST_DATABASES = ["default"]
    connection = connections["default"]
    worlds: list[World] = []
    before = dict(connection.settings_dict)
    receiver, valkey = Receiver(), Valkey(tmp_path)

    def make(place: Place) -> World:
        connection.close()
        connection.settings_dict.update({name: place[name] for name in ("NAME", "HOST", "PORT", "USER", "PASSWORD")})
        connection.settings_dict["OPTIONS"] = DATABASES["default"]["OPTIONS"]
        tenant = Tenant.objects.create(slug="acme", name="Acme")
        worlds.append(World(tmp_path, environment(place, tmp_path), valkey, receiver, tenant))
        return worlds[-1]

    with django_db_blocker.unblock(), valkey, receiver:
        try:
            yield make
        finally:
            for world in worlds:
                world.__exit__()
            connection.close()
            connection.settings_dict.update(before)


@pytest.fixture
def world(make_world: Callable[[Place], World], place: Place) -> World:
    return make_world(place)

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings as django_settings
from django.db import OperationalError, connections
from django.db.migrations.recorder import MigrationRecorder
from django.db.models import F
from django.test import Client
from redis import Redis

from webhooks import health, tallies, tasks
from webhooks.models import Tally

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_django import DjangoAssertNumQueries
    from pytest_django.fixtures import Settings


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_migrated", False)
    monkeypatch.setattr(tasks, "answers", lambda: True)


@pytest.fixture
def redis(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Redis]:
    monkeypatch.undo()
    monkeypatch.setitem(django_settings.RQ_QUEUES["default"], "URL", redis_url)
    tasks.forget()
    with Redis.from_url(redis_url) as client:
        yield client
    tasks.forget()


def get(path: str, **extra: Any) -> Any:
    return Client().get(path, **extra)


def test_the_process_answers_without_a_database() -> None:
    """pytest-django refuses every query of a test that asks for no database."""
    response = get("/healthz")
    assert response.status_code == 200
    assert response.json() == {"healthy": True}
    assert "no-store" in response.headers["Cache-Control"]


@pytest.mark.django_db
def test_with_everything_there_it_is_ready() -> None:
    tallies.add({(tallies.LOOKS, tallies.COUNT): 1}, using="default")
    response = get("/readyz")
    assert response.status_code == 200
    answer = response.json()
    assert 0 <= answer.pop("looked_seconds_ago") < 30
    assert answer == {"ready": True, "database": "ok", "migrations": "ok", "workers": "ok", "redis": "ok"}


@pytest.mark.django_db(transaction=True)
def test_without_the_database_it_is_not_ready_and_does_not_say_where_that_is() -> None:
    def away(*args: Any) -> None:
        raise OperationalError("connection to server at db.example failed")

    with connections["default"].execute_wrapper(away):
        response = get("/readyz")
    assert response.status_code == 503
    assert response.json() == {
        "ready": False,
        "database": "away",
        "migrations": "unknown",
        "workers": "unknown",
        "redis": "ok",
    }


@pytest.mark.django_db
def test_without_a_migration_it_is_not_ready_until_it_has_run() -> None:
    newest = MigrationRecorder.Migration.objects.filter(app="webhooks").latest("name")
    row = {"app": newest.app, "name": newest.name}
    newest.delete()
    response = get("/readyz")
    assert response.status_code == 503
    assert response.json()["migrations"] == "missing"
    MigrationRecorder.Migration.objects.create(**row)
    assert get("/readyz").status_code == 200


@pytest.mark.django_db
def test_a_release_that_has_migrated_further_does_not_matter() -> None:
    MigrationRecorder.Migration.objects.create(app="webhooks", name="9999_of_the_next_release")
    assert get("/readyz").status_code == 200


@pytest.mark.django_db
def test_once_migrated_it_asks_for_nothing_but_the_workers(
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    get("/readyz")
    with django_assert_max_num_queries(2):
        assert get("/readyz").status_code == 200


@pytest.mark.django_db
def test_workers_that_have_not_looked_for_a_while_are_silent_and_it_is_ready_all_the_same(settings: Settings) -> None:
    settings.SIGNALPOST_SWEEP_SECONDS = 10.0
    assert get("/readyz").json()["workers"] == "never seen"
    tallies.add({(tallies.LOOKS, tallies.COUNT): 1}, using="default")
    Tally.objects.update(written_at=F("written_at") - timedelta(seconds=60))
    response = get("/readyz")
    assert response.status_code == 200
    assert response.json()["workers"] == "silent"
    settings.SIGNALPOST_SWEEP_SECONDS = 300.0
    assert get("/readyz").json()["workers"] == "ok"


@pytest.mark.django_db
def test_redis_that_answers_is_said_to(redis: Redis) -> None:
    assert get("/readyz").json()["redis"] == "ok"


@pytest.mark.django_db
def test_redis_that_is_away_is_said_to_be_and_it_is_ready_all_the_same(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(django_settings.RQ_QUEUES["default"], "URL", "redis://:hunter2@127.0.0.1:1/0")
    tasks.forget()
    response = get("/readyz")
    assert response.status_code == 200
    assert response.json()["redis"] == "away"
    assert "hunter2" not in response.content.decode()


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_they_are_only_read(path: str) -> None:
    assert Client().post(path).status_code == 405


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_a_load_balancer_is_not_redirected_to_tls(path: str, settings: Settings) -> None:
    settings.SECURE_SSL_REDIRECT = True
    assert get(path).status_code == 200
    assert get("/metrics").status_code == 301


def test_a_host_that_is_not_allowed_gets_no_answer(settings: Settings) -> None:
    settings.ALLOWED_HOSTS = ["hooks.example"]
    assert get("/healthz", headers={"host": "10.0.0.7:8000"}).status_code == 400
    assert get("/healthz", headers={"host": "hooks.example"}).status_code == 200

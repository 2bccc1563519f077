from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import sync_to_async
from django.core.management import call_command
from django.core.signals import got_request_exception, request_finished
from django.db import connection, connections
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client
from django.urls import path

from subscriptions.models import Subscription
from webhooks import capture, project
from webhooks.models import Event

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.dispatch import Signal
    from pytest_django import Settings

    from subscriptions.models import Tenant
    from tests.webhooks.conftest import Captured

    Read = Callable[..., Captured]
    Make = Callable[..., Any]


def fine(request: HttpRequest) -> HttpResponse:
    return HttpResponse("fine")


def broken(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("secret words")


urlpatterns = [path("fine/", fine), path("broken/", broken)]


@pytest.fixture
def operator(make_tenant: Make, subscribe: Make, settings: Settings) -> Tenant:
    settings.ROOT_URLCONF = __name__
    settings.SIGNALPOST_PROJECT_ACTIONS = [
        "migrating",
        "migrated",
        "request.started",
        "request.finished",
        "request.failed",
    ]
    tenant: Tenant = make_tenant("operator")
    subscribe(tenant, "project.*")
    return tenant


def test_requests_are_told_to_the_operator(operator: Tenant, client: Client, captured: Read) -> None:
    client.get("/fine/?token=abc")
    seen = {"method": "GET", "path": "/fine/"}
    assert captured() == [("project.request.started", seen), ("project.request.finished", seen)]
    assert all(event.tenant == operator for event in Event.objects.all())


def test_and_those_that_fail_with_the_kind_of_the_error(operator: Tenant, captured: Read) -> None:
    Client(raise_request_exception=False).post("/broken/")
    told = dict(captured())
    assert told["project.request.failed"] == {"method": "POST", "path": "/broken/", "error": "RuntimeError"}


@pytest.mark.django_db(transaction=True)
def test_asynchronous_requests_too(operator: Tenant, captured: Read) -> None:
    async def work() -> None:
        await AsyncClient(raise_request_exception=False).get("/broken/")
        await sync_to_async(connections.close_all)()

    asyncio.run(work())
    told = dict(captured())
    assert told["project.request.started"] == {"method": "GET", "path": "/broken/"}
    assert told["project.request.failed"]["error"] == "RuntimeError"
    assert "project.request.finished" in told


def test_they_are_opt_in(operator: Tenant, client: Client, settings: Settings, captured: Read) -> None:
    settings.SIGNALPOST_PROJECT_ACTIONS = []
    client.get("/fine/")
    call_command("migrate", verbosity=0)
    assert captured() == []


def test_an_operator_that_does_not_listen_is_told_nothing(operator: Tenant, client: Client, captured: Read) -> None:
    Subscription.objects.all().delete()
    client.get("/fine/")
    assert captured() == []


def test_no_other_tenant_hears_them(
    operator: Tenant, listening: Tenant, client: Client, subscribe: Make, captured: Read
) -> None:
    client.get("/fine/")
    assert {event.tenant for event in Event.objects.all()} == {operator}


def test_without_the_operators_tenant_nothing_is_told(
    operator: Tenant, client: Client, settings: Settings, captured: Read
) -> None:
    settings.SIGNALPOST_OPERATOR_TENANT = "nobody"
    assert client.get("/fine/").status_code == 200
    assert captured() == []


@pytest.mark.usefixtures("operator")
def test_a_failure_is_logged_and_stops_no_request(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(**kwargs: Any) -> None:
        raise OSError("secret words")

    monkeypatch.setattr("webhooks.events.write", fail)
    assert client.get("/fine/").content == b"fine"
    logged = [record.getMessage() for record in caplog.records if record.name == capture.__name__]
    assert len(logged) == 2
    assert not any("secret words" in line for line in logged)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("signal", [request_finished, got_request_exception])
@pytest.mark.usefixtures("operator")
def test_the_end_of_a_request_leaves_no_connection_open(signal: Signal, captured: Read) -> None:
    connection.close()
    signal.send(sender=None)
    assert connection.connection is None
    assert len(captured()) == 1


def test_a_migration_is_told_once_though_many_apps_are_migrated(operator: Tenant, captured: Read) -> None:
    call_command("migrate", verbosity=0)
    data = {"database": "default", "plan": []}
    assert captured() == [("project.migrating", data), ("project.migrated", data)]


def test_a_plan_is_told_step_by_step(operator: Tenant, captured: Read) -> None:
    plan = [(SimpleNamespace(app_label="shop", name="0002_more"), False)]
    steps = [{"app": "shop", "name": "0002_more", "backwards": False}]
    project.pre_migrate(using="default", plan=plan)
    project.post_migrate(using="default", plan=plan)
    assert [data["plan"] for _, data in captured()] == [steps, steps]


def test_a_migration_of_our_own_tables_is_told_when_they_are_there(operator: Tenant, captured: Read) -> None:
    plan = [(SimpleNamespace(app_label="webhooks", name="0001_initial"), False)]
    project.pre_migrate(using="default", plan=plan)
    assert captured() == []
    project.post_migrate(using="default", plan=plan)
    assert [topic for topic, _ in captured()] == ["project.migrating", "project.migrated"]
    migrating, migrated = Event.objects.order_by("created_at")
    assert migrating.created_at < migrated.created_at


def test_flush_is_no_migration(operator: Tenant, captured: Read) -> None:
    project.post_migrate(using="default")
    assert captured() == []

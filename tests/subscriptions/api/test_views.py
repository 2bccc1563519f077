"""What every route has in common, tried on one of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from django.core.cache import cache
from django.db import connection
from django.test import Client, override_settings

from subscriptions.api import throttles
from subscriptions.models import ApiKey, AuditEntry
from subscriptions.models.wish import home

if TYPE_CHECKING:
    from collections.abc import Callable

    from subscriptions.models import Tenant
    from tests.programs import Api


def test_a_key_opens_what_its_tenant_may_see(api: Api) -> None:
    answer = api.get("topics/")
    assert answer.status_code == 200
    assert "shop.order.updated" in [each["name"] for each in answer.json()["data"]]
    assert answer["Signalpost-Mode"] == "live"
    assert (answer["RateLimit-Limit"], answer["RateLimit-Remaining"]) == ("600", "599")


@pytest.mark.django_db
@pytest.mark.parametrize("header", ["", "Basic YTpi", "Bearer", "Bearer sp_live_x", f"Bearer sp_live_{'x' * 43}"])
def test_without_a_key_nothing_is_seen(header: str) -> None:
    answer = Client(headers={"Authorization": header} if header else {}).get("/api/v1/topics/")
    assert answer.status_code == 401
    assert answer["Content-Type"] == "application/problem+json"
    assert answer["WWW-Authenticate"].startswith("Bearer")
    assert answer.json()["code"] == "unauthorized"


def test_a_missing_scope_is_named(tenant: Tenant, make_api: Callable[..., Api]) -> None:
    answer = make_api(tenant, scopes=["publish"]).get("topics/")
    assert answer.status_code == 403
    assert answer.json()["code"] == "missing_scope"
    assert "read" in answer.json()["detail"]


def test_an_address_is_the_same_without_its_last_slash(api: Api) -> None:
    assert api.get("topics").json() == api.get("topics/").json()


@pytest.mark.parametrize("path", ["nothing/", "nothing", "topics/shop.order.nothing/"])
def test_what_is_not_there_is_a_problem_too(api: Api, path: str) -> None:
    answer = api.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_another_method_is_named_in_allow(api: Api) -> None:
    answer = api.delete("topics/")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert answer["Allow"] == "GET, HEAD"


def test_an_unknown_parameter_is_refused(api: Api) -> None:
    answer = api.get("topics/?colour=red")
    assert (answer.status_code, answer.json()["code"]) == (400, "unknown_parameter")
    assert answer.json()["errors"][0]["field"] == "colour"


def test_an_operators_key_names_the_tenant(operator: Api, tenant: Tenant) -> None:
    assert operator.get("topics/").json()["code"] == "tenant_required"
    assert operator.get("topics/?tenant=acme").status_code == 200
    assert operator.get("topics/?tenant=nobody").status_code == 404


def test_a_tenants_key_names_no_other(api: Api, charlies: Api) -> None:
    assert api.get("topics/?tenant=acme").status_code == 200
    assert api.get("topics/?tenant=globex").status_code == 404


def test_each_key_has_its_rate(api: Api, tenant: Tenant, make_api: Callable[..., Api], settings: Any) -> None:
    settings.SIGNALPOST_API_RATE = "3/h"
    answers = [api.get("topics/") for _ in range(3)]
    assert [answer["RateLimit-Remaining"] for answer in answers] == ["2", "1", "0"]
    refused = api.get("topics/")
    assert (refused.status_code, refused.json()["code"]) == (429, "throttled")
    assert refused["RateLimit-Remaining"] == "0"
    assert 1 <= int(refused["Retry-After"]) <= 3600
    assert refused["Retry-After"] == refused["RateLimit-Reset"]
    assert make_api(tenant, name="Another").get("topics/").status_code == 200


def test_what_is_refused_counts_too(tenant: Tenant, make_api: Callable[..., Api], settings: Any) -> None:
    settings.SIGNALPOST_API_RATE = "2/h"
    api = make_api(tenant, scopes=["publish"])
    assert [api.get("topics/").status_code for _ in range(3)] == [403, 403, 429]


def test_a_window_ends(api: Api, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.SIGNALPOST_API_RATE = "1/min"
    monkeypatch.setattr(time, "time", lambda: 1_000_000_000.0)
    assert [api.get("topics/").status_code for _ in range(2)] == [200, 429]
    monkeypatch.setattr(time, "time", lambda: 1_000_000_060.0)
    assert api.get("topics/").status_code == 200


def test_while_much_is_left_a_process_counts_by_itself_and_tells_the_others_in_time(
    api: Api, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SIGNALPOST_API_RATE = "10/h"
    clock = [1_000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    told: list[int] = []
    plus = throttles._plus

    def noted(own: int, name: str, seconds: int) -> int:
        told.append(own)
        return plus(own, name, seconds)

    monkeypatch.setattr(throttles, "_plus", noted)
    left = [api.get("topics/")["RateLimit-Remaining"] for _ in range(3)]
    clock[0] += throttles.EVERY
    left += [api.get("topics/")["RateLimit-Remaining"] for _ in range(8)]
    # Once at first, once as it is time, and then each time.
    assert told == [1, 3, 1, 1, 1, 1, 1, 1, 1]
    assert left == ["9", "8", "7", "6", "5", "4", "3", "2", "1", "0", "0"]
    assert api.get("topics/").status_code == 429


@pytest.mark.parametrize("rate", [None, ""])
def test_without_a_rate_nothing_is_counted(api: Api, settings: Any, rate: str | None) -> None:
    settings.SIGNALPOST_API_RATE = rate
    assert not api.get("topics/").has_header("RateLimit-Limit")


def test_while_the_cache_is_away_nobody_is_kept_out_and_the_log_says_so_once(
    api: Api, settings: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings.SIGNALPOST_API_RATE = "1/h"
    monkeypatch.setattr(throttles, "_away", False)

    def away(*args: Any) -> Any:
        raise ConnectionError

    with monkeypatch.context() as patched:
        patched.setattr(type(cache), "__getattr__", lambda self, name: away)
        assert [api.get("topics/").status_code for _ in range(3)] == [200, 200, 200]
    assert [record.message for record in caplog.records if record.name == throttles.__name__] == [
        "No cache counts requests to the API: ConnectionError"
    ]
    assert [api.get("topics/").status_code for _ in range(2)] == [200, 429]


@pytest.mark.parametrize("rate", ["1/s", "1/sec", "1/second", "1/min", "1/minute", "1/h", "1/hour"])
def test_every_unit_is_read(settings: Any, rate: str) -> None:
    settings.SIGNALPOST_API_RATE = rate
    assert throttles.rate() == (1, {"s": 1, "m": 60, "h": 3600}[rate[2]])


def test_an_answer_is_for_its_key_alone(api: Api) -> None:
    answer = api.get("topics/")
    assert answer["Cache-Control"] == "private, no-cache"
    assert "Authorization" in answer["Vary"]
    assert "Set-Cookie" not in answer


def test_a_head_is_a_get_without_its_body(api: Api) -> None:
    answer = api.head("/api/v1/topics/")
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize("accept", ["text/html", "application/xml", "nonsense"])
def test_whatever_is_accepted_json_is_answered(api: Api, accept: str) -> None:
    answer = api.get("topics/", headers={"Accept": accept})
    assert (answer.status_code, answer["Content-Type"]) == (200, "application/json")


def test_the_hosts_own_settings_of_the_framework_change_nothing(api: Api) -> None:
    theirs = {
        "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.SessionAuthentication"],
        "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAdminUser"],
        "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.BrowsableAPIRenderer"],
        "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.FormParser"],
        "DEFAULT_THROTTLE_CLASSES": ["rest_framework.throttling.AnonRateThrottle"],
        "DEFAULT_VERSIONING_CLASS": "rest_framework.versioning.AcceptHeaderVersioning",
        "EXCEPTION_HANDLER": "nothing.that.there.is",
        "DATETIME_FORMAT": "%d.%m.%Y",
        "DATETIME_INPUT_FORMATS": ["%d.%m.%Y"],
        "NON_FIELD_ERRORS_KEY": "detail",
        "UNAUTHENTICATED_USER": None,
        "URL_FORMAT_OVERRIDE": "q",
    }
    with override_settings(REST_FRAMEWORK=theirs):
        made = api.post("keys/", {"name": "One", "scopes": ["read"], "expires_at": "2099-01-01T00:00:00Z"})
        assert (made.status_code, made.json()["expires_at"]) == (201, "2099-01-01T00:00:00.000Z")
        assert api.get("subscriptions/?q=x").status_code == 200
        assert api.get("nothing/").json()["code"] == "not_found"
        assert Client().get("/api/v1/keys/").json()["code"] == "unauthorized"


@pytest.mark.django_db(transaction=True)
def test_an_answer_comes_after_the_commit_in_a_host_that_wraps_its_requests(
    tenant: Tenant, make_api: Callable[..., Api], monkeypatch: pytest.MonkeyPatch
) -> None:
    api = make_api(tenant)
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    wrapped = []

    def written(key: ApiKey) -> dict[str, int]:
        wrapped.append(connection.in_atomic_block)
        return {"id": key.pk}

    monkeypatch.setattr("subscriptions.api.keys.written", written)
    assert api.post("keys/", {"name": "One", "scopes": ["read"]}).status_code == 201
    assert wrapped == [False]
    assert (home(), AuditEntry.objects.count()) == ("default", 1)


def test_a_method_that_no_route_of_a_tenant_knows_is_refused_before_its_scope(
    tenant: Tenant, make_api: Callable[..., Api]
) -> None:
    assert make_api(tenant, scopes=["publish"]).put("/api/v1/topics/").status_code == 405

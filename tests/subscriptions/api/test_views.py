"""What every route has in common, tried on one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.test import Client

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

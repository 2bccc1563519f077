"""Tenants by the API: one's own to be read, all of them for the operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from subscriptions.models import AuditEntry, Subscription, Tenant

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.programs import Api


def code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def slugs(answer: Any) -> list[str]:
    return [each["slug"] for each in answer.json()["data"]]


def test_a_tenants_key_sees_its_own(api: Api, charlies: Api) -> None:
    assert slugs(api.get("tenants/")) == ["acme"]
    assert api.get("tenants/acme/").json()["name"] == "Acme"
    assert code(api.get("tenants/globex/")) == (404, "not_found")


def test_a_tenants_key_runs_none(api: Api) -> None:
    for answer in (
        api.post("tenants/", {"slug": "mine", "name": "Mine"}),
        api.patch("tenants/acme/", {"name": "Other"}),
        api.post("tenants/acme/disable/", {"reason": "x"}),
        api.post("tenants/acme/enable/"),
    ):
        assert code(answer) == (403, "missing_scope")


def test_the_operator_finds_tenants(operator: Api, tenant: Tenant, make_tenant: Callable[..., Tenant]) -> None:
    make_tenant("globex", key="42")
    assert slugs(operator.get("tenants/")) == ["globex", "acme"]
    assert slugs(operator.get("tenants/?q=GLOB")) == ["globex"]
    assert slugs(operator.get("tenants/?key=42")) == ["globex"]
    assert slugs(operator.get("tenants/?key=4")) == []


def test_the_operator_makes_one(operator: Api) -> None:
    answer = operator.post("tenants/", {"slug": "initech", "name": "Initech", "key": "7"})
    assert answer.status_code == 201
    assert answer.json() == operator.get("tenants/initech/").json()
    assert (answer.json()["key"], answer.json()["enabled"]) == ("7", True)
    assert AuditEntry.objects.get().action == "tenant.created"


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"slug": "acme", "name": "Acme"}, "/slug"),
        ({"slug": "Acme Ltd", "name": "Acme"}, "/slug"),
        ({"slug": "x" * 64, "name": "Acme"}, "/slug"),
        ({"slug": "other", "name": ""}, "/name"),
        ({"slug": "other", "name": " "}, "/name"),
        ({"slug": "other", "name": "Other", "key": "1"}, "/key"),
        ({"slug": "other", "name": "Oth\u202eer"}, "/name"),
        ({"slug": "other"}, "/name"),
    ],
)
def test_a_wrong_one_is_refused(
    operator: Api, make_tenant: Callable[..., Tenant], wanted: dict[str, str], field: str
) -> None:
    make_tenant("acme", key="1")
    answer = operator.post("tenants/", wanted)
    assert code(answer) == (400, "invalid")
    assert [each["field"] for each in answer.json()["errors"]] == [field]
    assert Tenant.objects.count() == 1


def test_of_two_at_once_one_gets_the_slug(operator: Api, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tenant, "full_clean", lambda self: None)  # both looked before either wrote
    assert code(operator.post("tenants/", {"slug": "acme", "name": "Acme"})) == (400, "invalid")


def test_the_operator_changes_one(operator: Api, tenant: Tenant) -> None:
    answer = operator.patch("tenants/acme/", {"name": "Acme Ltd", "key": "9"})
    assert (answer.json()["name"], answer.json()["key"]) == ("Acme Ltd", "9")
    assert operator.patch("tenants/acme/", {"key": None}).json()["key"] is None
    operator.patch("tenants/acme/", {"name": "Acme Ltd"})  # as it is
    details = [entry.detail for entry in AuditEntry.objects.order_by("pk")]
    assert details == [
        {"called": {"from": "Acme", "to": "Acme Ltd"}, "key": {"from": None, "to": "9"}},
        {"key": {"from": "9", "to": None}},
    ]


def test_the_operator_turns_one_off_and_on(
    operator: Api, api: Api, tenant: Tenant, subscribe: Callable[..., Subscription]
) -> None:
    pk = subscribe(tenant, "*").pk
    off = operator.post("tenants/acme/disable/", {"reason": "Unpaid."}).json()
    assert (off["enabled"], off["disabled_reason"]) == (False, "Unpaid.")
    assert api.get(f"subscriptions/{pk}/").json()["disabled_by"] == "tenant"
    assert code(api.post(f"subscriptions/{pk}/enable/")) == (409, "refused")
    assert operator.post("tenants/acme/disable/", {"reason": "Again."}).json() == off
    assert operator.post("tenants/acme/enable/").json()["enabled"] is True
    assert api.get(f"subscriptions/{pk}/").json()["enabled"] is True
    assert code(operator.post("tenants/acme/disable/", {})) == (400, "invalid")
    assert code(operator.post("tenants/acme/disable/", {"reason": "x" * 201})) == (400, "invalid")


def test_a_reader_of_the_operators_changes_nothing(make_api: Callable[..., Api], tenant: Tenant) -> None:
    reader = make_api(None, scopes=["read"])
    assert slugs(reader.get("tenants/")) == ["acme"]
    assert code(reader.post("tenants/acme/disable/", {"reason": "x"})) == (403, "missing_scope")

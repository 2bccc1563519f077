"""Keys that make and revoke keys, and none that makes a stronger one."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from subscriptions import keys
from subscriptions.models import ApiKey, AuditEntry
from tests.programs import Api

if TYPE_CHECKING:
    from collections.abc import Callable

    from subscriptions.models import Tenant

    MakeApi = Callable[..., Api]

WANTED: dict[str, Any] = {"name": "Billing server", "scopes": ["publish", "read"]}


def code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_a_key_makes_another_and_its_value_opens_the_api(api: Api, tenant: Tenant) -> None:
    answer = api.post("keys/", {**WANTED, "networks": ["127.0.0.0/8", "::1/128"]})
    assert (answer.status_code, answer["Cache-Control"]) == (201, "no-store")
    made = answer.json()
    value = made.pop("key")
    assert value.startswith(made["beginning"])
    assert (made["scopes"], made["networks"]) == (["read", "publish"], ["127.0.0.0/8", "::1/128"])
    assert made["created_by"] == str(api.key)
    shown = Api(value, api.key).get(f"keys/{made['id']}/")
    assert shown.status_code == 200
    assert "key" not in shown.json()
    assert value not in api.get("keys/").content.decode()
    assert AuditEntry.objects.get(action="key.created").actor == str(api.key)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"scopes": []}, "/scopes"),
        ({"scopes": ["operate"]}, "/scopes/0"),
        ({"scopes": ["READ"]}, "/scopes/0"),
        ({"name": "  "}, "/name"),
        ({"name": "x" * 201}, "/name"),
        ({"name": "Program"}, "/name"),
        ({"mode": "dead"}, "/mode"),
        ({"networks": ["203.0.113.1/24"]}, "/networks"),
        ({"networks": ["nowhere"]}, "/networks"),
        ({"networks": ["203.0.113.0/24"] * 51}, "/networks"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ({"expires_at": "tomorrow"}, "/expires_at"),
        ({"expires_at": 1_800_000_000}, "/expires_at"),
    ],
)
def test_a_wrong_key_is_refused_by_its_field(api: Api, change: dict[str, Any], field: str) -> None:
    answer = api.post("keys/", {**WANTED, **change})
    assert code(answer) == (400, "invalid")
    assert [each["field"] for each in answer.json()["errors"]] == [field]
    assert ApiKey.objects.count() == 1


def test_a_key_gives_no_scope_that_it_lacks(tenant: Tenant, make_api: MakeApi) -> None:
    weak = make_api(tenant, scopes=["read", "write"])
    answer = weak.post("keys/", {"name": "Stronger", "scopes": ["read", "publish"]})
    assert code(answer) == (400, "invalid")
    assert answer.json()["errors"][0]["field"] == "/scopes"
    assert weak.post("keys/", {"name": "As strong", "scopes": ["read", "write"]}).status_code == 201


@pytest.mark.parametrize(
    ("networks", "status"),
    [
        (["127.0.0.0/8"], 201),
        (["127.0.0.1/32", "127.1.0.0/16"], 201),
        ([], 400),
        (["0.0.0.0/0"], 400),
        (["127.0.0.1/32", "203.0.113.0/24"], 400),
        (["::1/128"], 400),
    ],
)
def test_a_key_gives_no_network_outside_its_own(
    tenant: Tenant, make_api: MakeApi, networks: list[str], status: int
) -> None:
    bound = make_api(tenant, networks=["127.0.0.0/8"])
    answer = bound.post("keys/", {**WANTED, "networks": networks})
    assert answer.status_code == status, answer.content


def test_a_key_makes_none_that_outlives_it(tenant: Tenant, make_api: MakeApi) -> None:
    end = timezone.now() + timedelta(days=1)
    short = make_api(tenant, expires_at=end)
    assert code(short.post("keys/", WANTED)) == (400, "invalid")
    later = (end + timedelta(seconds=1)).isoformat()
    assert code(short.post("keys/", {**WANTED, "expires_at": later})) == (400, "invalid")
    assert short.post("keys/", {**WANTED, "expires_at": end.isoformat()}).status_code == 201


def test_a_key_needs_write_to_make_one(tenant: Tenant, make_api: MakeApi) -> None:
    assert code(make_api(tenant, scopes=["read", "publish"]).post("keys/", WANTED)) == (403, "missing_scope")


def test_no_more_keys_than_may_be(api: Api, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "MOST", 1)
    assert code(api.post("keys/", WANTED)) == (409, "refused")


def test_a_revoked_key_opens_nothing_from_the_next_request_on(api: Api) -> None:
    made = api.post("keys/", WANTED).json()
    other = Api(made["key"], api.key)
    assert other.get("topics/").status_code == 200
    revoked = api.post(f"keys/{made['id']}/revoke/").json()
    assert revoked["revoked_at"] is not None
    assert code(other.get("topics/")) == (401, "unauthorized")
    assert api.post(f"keys/{made['id']}/revoke/").json() == revoked
    assert AuditEntry.objects.filter(action="key.revoked").count() == 1


def test_a_key_revokes_itself(api: Api) -> None:
    assert api.post(f"keys/{api.key.pk}/revoke/").status_code == 200
    assert api.get("topics/").status_code == 401


def test_a_key_revokes_none_that_may_do_more(tenant: Tenant, make_api: MakeApi, api: Api) -> None:
    weak = make_api(tenant, scopes=["write"], name="Weak")
    assert code(weak.post(f"keys/{api.key.pk}/revoke/")) == (409, "refused")
    assert api.post(f"keys/{weak.key.pk}/revoke/").status_code == 200


def test_an_expired_key_opens_nothing(tenant: Tenant, make_api: MakeApi) -> None:
    past = make_api(tenant, expires_at=timezone.now() - timedelta(seconds=1))
    assert code(past.get("topics/")) == (401, "unauthorized")


def test_a_key_from_elsewhere_opens_nothing(tenant: Tenant, make_api: MakeApi) -> None:
    bound = make_api(tenant, networks=["203.0.113.0/24"])
    assert code(bound.get("topics/")) == (401, "unauthorized")
    assert bound.get("topics/", REMOTE_ADDR="203.0.113.9").status_code == 200


def test_when_a_key_was_last_used_is_told(api: Api) -> None:
    api.get("topics/")
    assert api.get(f"keys/{api.key.pk}/").json()["last_used_at"] is not None


def test_an_operators_key_makes_any_for_a_tenant_and_none_of_its_own(operator: Api, tenant: Tenant) -> None:
    answer = operator.post("keys/?tenant=acme", {"name": "First", "scopes": ["read", "write", "publish"]})
    assert answer.status_code == 201
    assert ApiKey.objects.get(pk=answer.json()["id"]).tenant == tenant
    assert code(operator.post("keys/", WANTED)) == (400, "tenant_required")
    wider = operator.post("keys/?tenant=acme", {"name": "Wider", "scopes": ["operate"]})
    assert code(wider) == (400, "invalid")
    assert operator.get(f"keys/{operator.key.pk}/?tenant=acme").status_code == 404


@pytest.mark.parametrize(
    ("own", "wanted", "field"),
    [
        ({"scopes": ["read", "write", "operate"]}, {"scopes": ["publish"]}, "/scopes"),
        ({"networks": ["127.0.0.0/8"]}, {}, "/networks"),
        ({"expires_at": timezone.now() + timedelta(days=1)}, {}, "/expires_at"),
    ],
)
def test_an_operators_key_makes_none_that_is_stronger_either(
    make_api: MakeApi, tenant: Tenant, own: dict[str, Any], wanted: dict[str, Any], field: str
) -> None:
    weak = make_api(None, **{"scopes": ["read", "write", "publish", "operate"], **own})
    answer = weak.post("keys/?tenant=acme", {"name": "Stronger", "scopes": ["read"], **wanted})
    assert code(answer) == (400, "invalid")
    assert [each["field"] for each in answer.json()["errors"]] == [field]


def run(*arguments: str) -> tuple[str, str]:
    out, err = StringIO(), StringIO()
    call_command("api_key", *arguments, stdout=out, stderr=err)
    return out.getvalue().strip(), err.getvalue()


def test_the_command_makes_an_operators_key(tenant: Tenant) -> None:
    value, told = run("--operator", "--name", "Operations", "--scopes", "read, operate", "--expires", "90d")
    key = ApiKey.objects.get()
    assert (key.tenant, key.scopes, key.mode) == (None, ["read", "operate"], "live")
    assert str(key) in told
    assert Api(value, key).get("tenants/").status_code == 200
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.as_operator, entry.tenant_id) == ("key.created", True, None)


def test_the_command_makes_a_tenants_key(tenant: Tenant) -> None:
    arguments = ["--tenant", "acme", "--name", "CI", "--scopes", "publish", "--mode", "test"]
    value, _told = run(*arguments, "--networks", "203.0.113.0/24")
    key = ApiKey.objects.get()
    assert (key.tenant, key.scopes, key.networks) == (tenant, ["publish"], ["203.0.113.0/24"])
    assert value.startswith("sp_test_")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--tenant", "nobody", "--name", "x", "--scopes", "read"], "no tenant"),
        (["--tenant", "acme", "--name", "x", "--scopes", "operate"], "Choose from"),
        (["--tenant", "acme", "--name", " ", "--scopes", "read"], "Write what"),
        (["--operator", "--name", "x", "--scopes", "everything"], "Choose from"),
        (["--operator", "--name", "x", "--scopes", "read", "--networks", "here"], "no network"),
        (["--operator", "--name", "x", "--scopes", "read", "--expires", "soon"], "no span"),
        (["--operator", "--tenant", "acme", "--name", "x", "--scopes", "read"], "not allowed"),
        (["--name", "x", "--scopes", "read"], "required"),
    ],
)
def test_the_command_says_what_is_wrong(tenant: Tenant, arguments: list[str], told: str) -> None:
    with pytest.raises(CommandError, match=told):
        run(*arguments)
    assert not ApiKey.objects.exists()

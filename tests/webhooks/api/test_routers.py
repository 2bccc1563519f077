"""A host whose router reads elsewhere, such as from a replica that lags: what
the API does is read where it is written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from django.db.models import Model

from subscriptions.models import ApiKey, Invitation, Membership, Subscription, Tenant
from webhooks import deliveries

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User

    from tests.programs import Api

pytestmark = pytest.mark.django_db


class ReadsElsewhere:
    """Whoever follows it fails: these tests may not ask that database."""

    checking = False

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return "other" if not self.checking and model._meta.app_label in {"subscriptions", "webhooks"} else None


@pytest.fixture
def elsewhere(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.DATABASE_ROUTERS = [f"{__name__}.ReadsElsewhere"]
    checked = Model.full_clean

    # Django's own look for what is unique may lag: the database decides.
    def full_clean(self: Model, *args: Any, **kwargs: Any) -> None:
        with monkeypatch.context() as during:
            during.setattr(ReadsElsewhere, "checking", True)
            checked(self, *args, **kwargs)

    monkeypatch.setattr(Model, "full_clean", full_clean)


class Walk:
    def __init__(self, api: Api, suffix: str = "") -> None:
        self.api, self.suffix = api, suffix

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.api.generic(method, f"/api/v1/{path}{self.suffix}", json.dumps(body or {}), "application/json")
        assert answer.status_code < 300, (method, path, answer.content)
        return answer.json() if answer.content else None


@pytest.mark.usefixtures("elsewhere", "paid")
def test_all_that_a_subscription_goes_through(api: Api) -> None:
    ask = Walk(api)
    topics = [{"name": "billing.invoice.paid"}, {"name": "shop.order.updated", "changed": ["status"]}]
    made = ask("POST", "subscriptions/", {"url": "feed:", "name": "Billing", "topics": topics})
    row = f"subscriptions/{made['id']}/"
    assert len(ask("PATCH", row, {"name": "Accounts"})["topics"]) == 2
    assert ask("PATCH", row, {"topics": topics[:1]})["topics"] == [{"name": "billing.invoice.paid", "changed": []}]
    assert ask("POST", f"{row}rotate/")["data"][0]["secret"] != made["secret"]
    assert len(ask("GET", f"{row}secrets/")["data"]) == 2
    ask("POST", f"{row}disable/")
    ask("POST", f"{row}enable/")
    assert [each["name"] for each in ask("GET", "subscriptions/?topic=billing.invoice.paid")["data"]] == ["Accounts"]
    ask("POST", f"{row}test/")
    event = ask("POST", "events/", {"type": "billing.invoice.paid", "data": {"number": 7, "total": "42.00"}, "id": "a"})
    ask("POST", "events/batch/", {"events": [{"type": "billing.invoice.paid", "data": {"number": 8, "total": "1.00"}}]})
    assert deliveries.fan_out() == 2
    assert len(ask("GET", "events/")["data"]) == 3
    ask("GET", f"events/{event['id']}/")
    found = ask("GET", "deliveries/?topic=billing.*&created_after=2026-01-01T00:00:00Z")["data"]
    assert len(found) == 2
    ask("GET", f"deliveries/?event={event['id']}")
    ask("POST", f"deliveries/{found[0]['id']}/cancel/")
    ask("POST", f"deliveries/{found[0]['id']}/replay/")
    ask("GET", f"deliveries/{found[0]['id']}/attempts/")
    read = ask("GET", f"{row}feed/?after=0")
    assert len(read["data"]) == 3
    ask("POST", f"{row}feed/", {"position": read["position"]})
    for path in ("stats/", f"{row}stats/", "inbox/", "health/", "topics/", "topics/billing.invoice.paid/", "audit/"):
        ask("GET", path)
    ask("DELETE", row)
    assert not Subscription.objects.using("default").exists()


@pytest.mark.usefixtures("elsewhere", "paid")
@pytest.mark.parametrize("kind", ["failed", "filtered", "missed"])
def test_replays(api: Api, kind: str) -> None:
    ask = Walk(api)
    made = ask("POST", "subscriptions/", {"url": "feed:", "topics": [{"name": "billing.invoice.paid"}]})
    ask("POST", "events/", {"type": "billing.invoice.paid", "data": {"number": 7, "total": "42.00"}})
    deliveries.fan_out()
    wish: dict[str, Any] = {"kind": kind, "subscription": made["id"], "since": "2026-01-01T00:00:00Z"}
    if kind == "filtered":
        wish = {"kind": kind, "filters": {"topic": "billing.*", "subscription": made["id"]}}
    number = ask("POST", "replays/count/", wish)["number"]
    assert number == (1 if kind == "filtered" else 0)
    if number:
        started = ask("POST", "replays/", wish)
        ask("GET", f"replays/{started['id']}/")
        ask("GET", "replays/")
        ask("POST", f"replays/{started['id']}/cancel/")


@pytest.mark.usefixtures("elsewhere")
def test_keys_and_tenants(api: Api, operator: Api, tenant: Tenant) -> None:
    ask, run = Walk(api), Walk(operator)
    made = ask("POST", "keys/", {"name": "Mine", "scopes": ["read"]})
    ask("GET", "keys/")
    ask("POST", f"keys/{made['id']}/revoke/")
    assert ApiKey.objects.using("default").filter(revoked_at__isnull=False).exists()
    run("POST", "tenants/", {"slug": "hooli", "name": "Hooli"})
    run("PATCH", "tenants/hooli/", {"name": "Hooli Ltd"})
    run("POST", "tenants/hooli/disable/", {"reason": "Unpaid."})
    run("POST", "tenants/hooli/enable/")
    run("GET", "tenants/?q=hooli")


@pytest.mark.usefixtures("elsewhere")
def test_people(operator: Api, tenant: Tenant, django_user_model: Callable[..., User]) -> None:
    users: Any = django_user_model
    rows = [
        Membership(tenant=tenant, user=users.objects.create_user(name, f"{name}@acme.example"), role="owner")
        for name in ("alice", "dana")
    ]
    for row in rows:
        row.save(using="default")
    run = Walk(operator, "?tenant=acme")
    run("GET", "members/")
    run("PATCH", f"members/{rows[1].pk}/", {"role": "developer"})
    run("DELETE", f"members/{rows[1].pk}/")
    invited = run("POST", "invitations/", {"email": "eve@acme.example", "role": "owner"})
    run("GET", "invitations/")
    run("DELETE", f"invitations/{invited['id']}/")
    assert not Invitation.objects.using("default").exists()

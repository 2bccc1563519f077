"""Subscriptions by the API: all that their pages do, by the same rules."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connections

from subscriptions import edits
from subscriptions.models import AuditEntry, Secret, Subscription
from tests.programs import Api

if TYPE_CHECKING:
    from collections.abc import Callable

    from subscriptions.models import Tenant

    Subscribe = Callable[..., Subscription]

WANTED: dict[str, Any] = {
    "url": "https://billing.example/hooks",
    "name": "Billing",
    "topics": [{"name": "shop.order.updated", "changed": ["status", "total"]}, {"name": "shop.customer.*"}],
    "rate_limit": 20,
}


def code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_one_is_made_with_its_secret(api: Api, tenant: Tenant) -> None:
    answer = api.post("subscriptions/", WANTED)
    assert answer.status_code == 201
    made, row = answer.json(), Subscription.objects.get()
    assert row.tenant == tenant
    assert made.pop("secret") == Secret.objects.get().value
    assert made == {
        "id": row.pk,
        "name": "Billing",
        "url": "https://billing.example/hooks",
        "topics": [
            {"name": "shop.customer.*", "changed": []},
            {"name": "shop.order.updated", "changed": ["status", "total"]},
        ],
        "rate_limit": 20,
        "enabled": True,
        "disabled_at": None,
        "disabled_by": None,
        "disabled_reason": None,
        "created_at": f"{row.created_at:%Y-%m-%dT%H:%M:%S}.{row.created_at.microsecond // 1000:03}Z",
        "version": 1,
    }
    assert answer["Cache-Control"] == "no-store"
    entry = AuditEntry.objects.get(action="subscription.created")
    assert entry.actor == str(api.key)
    assert api.get(f"subscriptions/{row.pk}/").json() == made


def test_a_refusal_says_why(api: Api, tenant: Tenant, settings: Any) -> None:
    settings.SIGNALPOST_SUBSCRIPTION_LIMIT = 1
    assert api.post("subscriptions/", WANTED).status_code == 201
    answer = api.post("subscriptions/", WANTED)
    assert code(answer) == (409, "refused")
    assert "may have 1 subscription" in answer.json()["detail"]
    assert Subscription.objects.count() == 1


def test_sent_again_by_the_same_key_it_is_made_once(api: Api, make_api: Callable[..., Api], make_tenant: Any) -> None:
    again = {"Idempotency-Key": "billing 7"}
    first = api.post("subscriptions/", WANTED, headers=again)
    second = api.post("subscriptions/", {**WANTED, "topics": WANTED["topics"][::-1]}, headers=again)
    assert (second.status_code, second.json(), second["ETag"]) == (201, first.json(), first["ETag"])
    assert (first.has_header("Idempotency-Replayed"), second["Idempotency-Replayed"]) == (False, "true")
    assert Subscription.objects.count() == 1
    other = api.post("subscriptions/", {**WANTED, "name": "Other"}, headers=again)
    assert code(other) == (422, "idempotency_mismatch")
    assert api.post("subscriptions/", WANTED, headers={"Idempotency-Key": "billing 8"}).status_code == 201
    charlies = make_api(make_tenant("globex"), name="Charlie's")
    assert charlies.post("subscriptions/", WANTED, headers=again).json()["id"] != first.json()["id"]
    assert Subscription.objects.count() == 3


@pytest.mark.parametrize("key", ["", "x" * 256, "é", "a\tb"])
def test_a_key_that_cannot_be_kept_is_refused(api: Api, key: str) -> None:
    answer = api.post("subscriptions/", WANTED, headers={"Idempotency-Key": key})
    assert code(answer) == (400, "invalid")
    assert answer.json()["errors"][0]["field"] == "Idempotency-Key"
    assert not Subscription.objects.exists()


@pytest.mark.parametrize(
    ("name", "topics", "heard"),
    [
        ("twice", [{"name": "shop.order.updated", "changed": ["status"]}] * 2, ["status"]),
        (
            "more fields",
            [{"name": "shop.order.updated", "changed": [field]} for field in ("total", "status")],
            ["status", "total"],
        ),
        (
            "any change after one",
            [{"name": "shop.order.updated", "changed": ["status"]}, {"name": "shop.order.updated"}],
            [],
        ),
        (
            "one after any change",
            [{"name": "shop.order.updated"}, {"name": "shop.order.updated", "changed": ["status"]}],
            [],
        ),
    ],
)
def test_a_topic_that_is_named_twice_means_both(api: Api, name: str, topics: Any, heard: list[str]) -> None:
    answer = api.post("subscriptions/", {**WANTED, "topics": topics})
    assert answer.json()["topics"] == [{"name": "shop.order.updated", "changed": heard}]


def test_what_a_change_leaves_out_stays(api: Api) -> None:
    pk = api.post("subscriptions/", WANTED).json()["id"]
    answer = api.patch(f"subscriptions/{pk}/", {"name": "Billing 2"})
    assert answer.status_code == 200
    assert (answer.json()["name"], answer.json()["version"]) == ("Billing 2", 2)
    assert len(answer.json()["topics"]) == 2
    answer = api.patch(f"subscriptions/{pk}/", {"topics": [{"name": "*"}], "rate_limit": None})
    assert answer.json()["topics"] == [{"name": "*", "changed": []}]
    assert answer.json()["rate_limit"] is None
    assert api.patch(f"subscriptions/{pk}/", {}).json()["version"] == 3


def test_a_change_follows_the_rules_of_the_pages(api: Api) -> None:
    pk = api.post("subscriptions/", WANTED).json()["id"]
    answer = api.patch(f"subscriptions/{pk}/", {"url": "https://169.254.169.254/", "topics": [{"name": "Bad Topic"}]})
    assert code(answer) == (400, "invalid")
    assert {each["field"] for each in answer.json()["errors"]} == {"/url", "/topics"}
    assert Subscription.objects.get().url == WANTED["url"]


def test_what_is_inside_a_change_is_whole(api: Api) -> None:
    pk = api.post("subscriptions/", WANTED).json()["id"]
    answer = api.patch(f"subscriptions/{pk}/", {"topics": [{"name": "*"}, {}]})
    assert code(answer) == (400, "invalid")
    assert [(each["field"], each["code"]) for each in answer.json()["errors"]] == [("/topics/1/name", "required")]


def test_an_etag_tells_versions_apart(api: Api, subscribe: Subscribe, tenant: Tenant) -> None:
    path = f"subscriptions/{subscribe(tenant, '*').pk}/"
    first = api.get(path)["ETag"]
    known = api.get(path, headers={"If-None-Match": f'"x", W/{first}'})
    assert (known.status_code, known.content, known["ETag"]) == (304, b"", first)
    assert api.patch(path, {"name": "New"}, headers={"If-Match": first})["ETag"] != first
    assert api.get(path, headers={"If-None-Match": first}).status_code == 200
    assert api.get(path, headers={"If-None-Match": "*"}).status_code == 304


@pytest.mark.parametrize("seen", ['"1"', '"99999999999"', '"x"', "1", 'W/"2"', '"1", "3"', "\x7f", "é"])
def test_a_change_of_what_was_changed_is_stale(api: Api, subscribe: Subscribe, tenant: Tenant, seen: str) -> None:
    row = subscribe(tenant, "*")
    api.patch(f"subscriptions/{row.pk}/", {"name": "Two"})
    headers = {"If-Match": seen}
    for answer in (
        api.patch(f"subscriptions/{row.pk}/", {"name": "Three"}, headers=headers),
        api.post(f"subscriptions/{row.pk}/disable/", {}, headers=headers),
        api.post(f"subscriptions/{row.pk}/enable/", {}, headers=headers),
        api.delete(f"subscriptions/{row.pk}/", headers=headers),
    ):
        assert code(answer) == (412, "stale")
    row.refresh_from_db()
    assert (row.name, row.enabled, row.version) == ("Two", True, 2)


@pytest.mark.parametrize("seen", ['"2"', "*"])
def test_a_change_of_what_was_seen_is_made(api: Api, subscribe: Subscribe, tenant: Tenant, seen: str) -> None:
    path = f"subscriptions/{subscribe(tenant, '*').pk}/"
    api.patch(path, {"name": "Two"})
    assert api.patch(path, {"name": "Three"}, headers={"If-Match": seen}).status_code == 200


def test_one_is_turned_off_and_on(api: Api, subscribe: Subscribe, tenant: Tenant) -> None:
    pk = subscribe(tenant, "*").pk
    off = api.post(f"subscriptions/{pk}/disable/", {"reason": "It moves."}).json()
    assert (off["enabled"], off["disabled_by"], off["disabled_reason"]) == (False, "member", "It moves.")
    assert api.post(f"subscriptions/{pk}/disable/").json() == off
    on = api.post(f"subscriptions/{pk}/enable/").json()
    assert (on["enabled"], on["disabled_by"], on["disabled_at"]) == (True, None, None)


def test_what_the_operator_turned_off_stays_off(api: Api, operator: Api, subscribe: Subscribe, tenant: Tenant) -> None:
    pk = subscribe(tenant, "*").pk
    off = operator.post(f"subscriptions/{pk}/disable/?tenant=acme", {"reason": "Spam."}).json()
    assert off["disabled_by"] == "operator"
    answer = api.post(f"subscriptions/{pk}/enable/")
    assert code(answer) == (409, "refused")
    assert "Spam." in answer.json()["detail"]
    assert operator.post(f"subscriptions/{pk}/enable/?tenant=acme").json()["enabled"]


def test_secrets_are_revealed_to_who_may_write_and_the_log_says_so(
    api: Api, make_api: Callable[..., Api], subscribe: Subscribe, tenant: Tenant
) -> None:
    row = subscribe(tenant, "*")
    assert code(make_api(tenant, scopes=["read"]).get(f"subscriptions/{row.pk}/secrets/")) == (403, "missing_scope")
    assert not AuditEntry.objects.filter(action="secret.revealed").exists()
    answer = api.get(f"subscriptions/{row.pk}/secrets/")
    assert [each["secret"] for each in answer.json()["data"]] == [Secret.objects.get().value]
    assert answer["Cache-Control"] == "no-store"
    assert AuditEntry.objects.get(action="secret.revealed").actor == str(api.key)


def test_a_secret_is_rotated_and_both_sign_for_a_day(api: Api, subscribe: Subscribe, tenant: Tenant) -> None:
    row = subscribe(tenant, "*")
    (new,) = api.post(f"subscriptions/{row.pk}/rotate/").json()["data"]
    shown = api.get(f"subscriptions/{row.pk}/secrets/").json()["data"]
    assert shown[0] == new
    assert (shown[0]["expires_at"], len(shown)) == (None, 2)
    assert shown[1]["expires_at"] is not None


def test_no_secret_is_made_for_who_saw_another_version(api: Api, subscribe: Subscribe, tenant: Tenant) -> None:
    row = subscribe(tenant)
    stale = api.post(f"subscriptions/{row.pk}/rotate/", headers={"If-Match": f'"{row.version + 1}"'})
    assert (stale.status_code, stale.json()["code"]) == (412, "stale")
    assert row.secrets.count() == 1
    assert api.post(f"subscriptions/{row.pk}/rotate/", headers={"If-Match": f'"{row.version}"'}).status_code == 200


def test_as_many_secrets_as_may_sign_are_not_exceeded(api: Api, subscribe: Subscribe, tenant: Tenant) -> None:
    path = f"subscriptions/{subscribe(tenant, '*').pk}/rotate/"
    answers = [api.post(path).status_code for _ in range(edits.MOST_SECRETS)]
    assert answers[-1] == 409
    assert Secret.objects.count() == edits.MOST_SECRETS


def test_one_is_deleted_once(api: Api, subscribe: Subscribe, tenant: Tenant) -> None:
    path = f"subscriptions/{subscribe(tenant, '*').pk}/"
    answer = api.delete(path)
    assert (answer.status_code, answer.content) == (204, b"")
    assert api.delete(path).status_code == 404
    assert not Subscription.objects.exists()


def test_what_takes_longer_than_a_request_is_deleted_by_asking_again(
    api: Api, subscribe: Subscribe, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = iter([False, True])
    monkeypatch.setattr("webhooks.removal.remove", lambda *args: next(turns))
    path = f"subscriptions/{subscribe(tenant, '*').pk}/"
    more = api.delete(path)
    assert (more.status_code, more["Retry-After"]) == (202, "1")
    assert api.delete(path).status_code == 204


@pytest.mark.parametrize("number", ["0", "999999", str(2**63), "9" * 40])
def test_a_number_of_none_is_404(api: Api, number: str) -> None:
    for answer in (
        api.get(f"subscriptions/{number}/"),
        api.patch(f"subscriptions/{number}/", {"name": "x"}),
        api.delete(f"subscriptions/{number}/"),
        api.post(f"subscriptions/{number}/enable/"),
        api.post(f"subscriptions/{number}/disable/"),
        api.get(f"subscriptions/{number}/secrets/"),
        api.post(f"subscriptions/{number}/rotate/"),
    ):
        assert code(answer) == (404, "not_found")


def test_a_test_key_is_answered_and_nothing_stays(
    make_api: Callable[..., Api], subscribe: Subscribe, tenant: Tenant
) -> None:
    row = subscribe(tenant, "*")
    test = make_api(tenant, mode="test")
    before = AuditEntry.objects.count()
    made = test.post("subscriptions/", WANTED)
    assert (made.status_code, made["Signalpost-Mode"]) == (201, "test")
    assert made.json()["secret"].startswith("whsec_")
    assert test.get(f"subscriptions/{made.json()['id']}/").status_code == 404
    assert test.patch(f"subscriptions/{row.pk}/", {"name": "Other"}).json()["name"] == "Other"
    assert test.post(f"subscriptions/{row.pk}/disable/").json()["enabled"] is False
    assert test.post(f"subscriptions/{row.pk}/rotate/").status_code == 200
    assert test.delete(f"subscriptions/{row.pk}/").status_code == 204
    assert code(test.post("subscriptions/", {**WANTED, "topics": []})) == (400, "invalid")
    row.refresh_from_db()
    assert (row.name, row.enabled, row.version, row.secrets.count()) == ("", True, 1, 1)
    assert AuditEntry.objects.count() == before
    assert Subscription.objects.count() == 1


def test_that_a_test_key_was_shown_a_secret_is_in_the_audit_log(
    make_api: Callable[..., Api], subscribe: Subscribe, tenant: Tenant
) -> None:
    row = subscribe(tenant, "*")
    assert make_api(tenant, mode="test").get(f"subscriptions/{row.pk}/secrets/").status_code == 200
    assert AuditEntry.objects.latest("pk").action == AuditEntry.Action.SECRET_REVEALED


def test_a_key_that_only_reads_sees_no_token_in_a_url_and_finds_none(
    api: Api, make_api: Callable[..., Api], subscribe: Subscribe, tenant: Tenant
) -> None:
    row = subscribe(tenant, "*", name="Chat", url="https://chat.example/hooks?token=geheim")
    reader = make_api(tenant, scopes=["read"], name="Reader")
    assert "geheim" in api.get(f"subscriptions/{row.pk}/").json()["url"]
    assert "geheim" not in reader.get(f"subscriptions/{row.pk}/").content.decode()
    assert "geheim" not in reader.get("subscriptions/").content.decode()
    assert len(api.get("subscriptions/?q=geheim").json()["data"]) == 1
    assert reader.get("subscriptions/?q=geheim").json()["data"] == []
    assert len(reader.get("subscriptions/?q=chat").json()["data"]) == 1


@pytest.mark.django_db(transaction=True)
def test_of_two_changes_at_once_of_what_both_saw_one_is_made(api: Api, subscribe: Subscribe, tenant: Tenant) -> None:
    row = subscribe(tenant, "*")
    start = threading.Barrier(4)

    def change(number: int) -> int:
        program = Api(api.value, api.key)
        start.wait()
        try:
            answer = program.patch(f"subscriptions/{row.pk}/", {"name": f"No. {number}"}, headers={"If-Match": '"1"'})
            return int(answer.status_code)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(change, range(4))) == [200, 412, 412, 412]
    row.refresh_from_db()
    assert row.version == 2
    assert AuditEntry.objects.filter(action="subscription.changed").count() == 1

"""Every route of the API, found by its URL and described by its operation: who
may not see it does not, who may not change anything does not, what is no body
changes nothing, and nothing that is asked ends in a 500."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth import get_user_model
from django.utils import timezone

from subscriptions.api.views import OPERATE, READ, ApiView
from subscriptions.models import ApiKey, AuditEntry, Invitation, Membership, Subscription, Tenant
from tests.test_pages_isolation import everything
from tests.webhooks.traffic import make_attempt, make_delivery
from webhooks import tasks
from webhooks.api import urls
from webhooks.models import Attempt, InboxRequest, Replay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from subscriptions.api.describing import Operation
    from tests.programs import Api

pytestmark = [pytest.mark.django_db, pytest.mark.on("postgresql")]

# What a route is about, by the part of its address before the number.
ROWS = ("subscriptions", "deliveries", "attempts", "replays", "keys", "members", "invitations")
CHANGING = ("POST", "PUT", "PATCH", "DELETE")
TOPIC = "shop.order.updated"
# What nobody's eyes but acme's may see.
OURS = "ours-alone"
NOWHERE = 999_999
# Of a receiver, in its URL: for who may change that.
TOKEN = "hush-hush"
# Each is wrong whatever a route wants; the last ones for every route that wants anything.
HOSTILE = [
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b"\xff\xfe",
    b'{"a": NaN}',
    b'{"a": 1e999}',
    b'{"a": 123456789012345678901234567890}',
    b'{"a": 1, "a": 2}',
    b'{"a": "\\ud800"}',
    b'{"a": "\\u0000"}',
    b"[" * 1_000 + b"]" * 1_000,
    b'{"a":' * 1_000 + b"1" + b"}" * 1_000,
    b'{"' + b"x" * 100_000 + b'": 1}',
    b'{"%s": 1}' % "ä\u202e\U0001f388".encode(),
]


@dataclass(frozen=True, slots=True)
class Route:
    route: str
    view: type[ApiView]
    method: str

    @property
    def operation(self) -> Operation:
        operation: Operation = getattr(self.view, self.method.lower()).operation
        return operation

    @property
    def is_about_a_row(self) -> bool:
        return "<" in self.route and not self.route.startswith("topics/")

    def at(self, world: World, *, numbers: dict[str, Any] | None = None, slug: str = "acme") -> str:
        path = self.route.replace("<slug:slug>", slug)
        for kind, number in (world.numbers if numbers is None else numbers).items():
            path = path.replace(f"{kind}/<int:pk>", f"{kind}/{number}").replace(
                f"{kind}/<str:name>", f"{kind}/{number}"
            )
        path = path.replace("topics/<str:name>", f"topics/{TOPIC}")
        assert "<" not in path, f"{self.route} is about something that ROWS does not know"
        return path

    def ask(self, api: Api, path: str, body: Any = None, **more: Any) -> Any:
        data = self.operation.example if body is None else body
        data = json.dumps({} if data is None else data) if not isinstance(data, bytes) else data
        return api.generic(self.method, f"/api/v1/{path}", data, "application/json", **more)


def _routes() -> Iterator[Route]:
    for pattern in urls.urlpatterns:
        view = getattr(pattern.callback, "cls", None)
        if isinstance(view, type) and issubclass(view, ApiView):
            for method in view().allowed_methods:
                if method not in {"HEAD", "OPTIONS"}:
                    yield Route(str(pattern.pattern), view, method)


ROUTES = [route for route in _routes() if route.view.authentication_classes]
CHANGES = [route for route in ROUTES if route.method in CHANGING]


@dataclass(frozen=True, slots=True)
class World:
    acme: Tenant
    numbers: dict[str, Any]
    api: Api
    charlies: Api
    operator: Api


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    monkeypatch.setattr(tasks, "ring", lambda: False)
    settings.SIGNALPOST_API_RATE = None


@pytest.fixture
def world(
    make_tenant: Callable[..., Tenant], subscribe: Callable[..., Subscription], make_api: Callable[..., Api]
) -> World:
    acme, globex = make_tenant("acme", name=f"Acme {OURS}"), make_tenant("globex")
    subscription = subscribe(acme, TOPIC, name=OURS, url=f"https://{OURS}.example/?token={TOKEN}")
    delivery = make_delivery(subscription, "failed")
    make_attempt(delivery, "status", response_body=OURS.encode())
    now = timezone.now()
    key = ApiKey(tenant=acme, name=OURS, scopes=["read"])
    key.fill()
    key.save()
    users = get_user_model().objects
    alice, dana = (users.create_user(name, f"{name}@{OURS}.example") for name in ("alice", "dana"))
    Membership.objects.create(tenant=acme, user=alice, role="owner")
    member = Membership.objects.create(tenant=acme, user=dana, role="owner")
    invitation = Invitation(tenant=acme, email=f"eve@{OURS}.example")
    invitation.fill()
    invitation.save()
    replay = Replay.objects.create(
        tenant=acme, subscription=subscription, kind="failed", until=now, created_at=now, by=OURS
    )
    InboxRequest.objects.create(
        tenant=acme,
        subscription=subscription,
        received_at=now,
        webhook_id=delivery.event.webhook_id,
        headers=b"",
        body=OURS.encode(),
    )
    AuditEntry.objects.create(tenant_id=acme.pk, action="test.sent", actor=OURS)
    rows = (subscription, delivery, Attempt.objects.get(), replay, key, member, invitation)
    numbers = {**dict(zip(ROWS, (row.pk for row in rows), strict=True)), "events": delivery.event.webhook_id}
    every = ["read", "write", "publish"]
    return World(
        acme,
        numbers,
        make_api(acme),
        make_api(globex, name="Charlie's"),
        make_api(None, scopes=[*every, "operate"], name="Operations"),
    )


def settled() -> dict[str, list[Any]]:
    """All that is in the database; when a key was last used is no matter."""
    found = everything()
    for key in found["subscriptions.ApiKey"]:
        key.pop("last_used_at")
    return found


def test_the_routes_are_found() -> None:
    assert len(ROUTES) > 45
    assert {route.route.partition("<")[0].strip("/") for route in ROUTES if route.is_about_a_row} == {
        *ROWS,
        "events",
        "tenants",
    }


def test_an_outsiders_key_finds_no_row_of_anothers(world: World) -> None:
    before = settled()
    for route in ROUTES:
        if route.is_about_a_row:
            scope = route.view.scopes[route.method]
            answer = route.ask(world.charlies, route.at(world))
            told = (route, answer.content)
            assert answer.status_code == (403 if scope == OPERATE else 404), told
            missing = route.ask(world.charlies, route.at(world, numbers=dict.fromkeys(world.numbers, NOWHERE)))
            assert (missing.status_code, missing.json()) == (answer.status_code, answer.json()), told
    assert settled() == before


def test_an_outsiders_key_names_no_other_tenant(world: World) -> None:
    before = settled()
    for route in ROUTES:
        if route.view.of_tenant and route.view.scopes[route.method] != OPERATE:
            answer = route.ask(world.charlies, f"{route.at(world)}?tenant=acme")
            assert answer.status_code == 404, (route, answer.content)
    assert settled() == before


def test_an_outsiders_lists_hold_nothing_of_anothers(world: World) -> None:
    for route in ROUTES:
        if not route.is_about_a_row and route.method == "GET":
            answer = route.ask(world.charlies, route.at(world))
            assert answer.status_code == 200, (route, answer.content)
            assert OURS.encode() not in answer.content, route
            shown = route.ask(world.api, route.at(world))
            assert shown.status_code == 200, (route, shown.content)


def test_anothers_number_in_a_query_or_a_body_finds_nothing(world: World) -> None:
    number, event = world.numbers["subscriptions"], world.numbers["events"]
    for query in (f"subscription={number}", f"event={event}", f"q={OURS}"):
        for route in ROUTES:
            if route.method == "GET" and not route.is_about_a_row:
                answer = route.ask(world.charlies, f"{route.at(world)}?{query}")
                assert answer.status_code in {200, 400, 404}, (route, query, answer.content)
                assert OURS.encode() not in answer.content, (route, query)
    before = settled()
    for path in ("replays/", "replays/count/"):
        for filters in ({"subscription": number}, {"event": event}):
            answer = world.charlies.post(path, {"kind": "filtered", "filters": filters})
            assert answer.status_code in {400, 404, 409} or answer.json().get("number") == 0, answer.content
            answer = world.charlies.post(path, {"kind": "failed", "subscription": number})
            assert answer.status_code in {400, 404}, answer.content
    assert settled() == before


def test_a_key_that_only_reads_sees_no_token_of_a_receiver(world: World, make_api: Callable[..., Api]) -> None:
    reader = make_api(world.acme, scopes=["read", "publish"], name="Reader")
    shown = set()
    for route in ROUTES:
        if route.method == "GET" and route.view.scopes["GET"] == READ:
            path = _path(route, world).partition("?")[0]
            assert TOKEN.encode() not in route.ask(reader, path).content, route
            if TOKEN.encode() in route.ask(world.api, path).content:
                shown.add(route.route)
    assert {"subscriptions/", "attempts/<int:pk>/", "deliveries/<int:pk>/attempts/"} <= shown


def test_without_a_key_or_its_scope_nothing_is_done(world: World, make_api: Callable[..., Api]) -> None:
    keys = {
        scope: make_api(world.acme, scopes=[each for each in ("read", "write", "publish") if each != scope], name=scope)
        for scope in ("read", "write", "publish")
    }
    keys["operate"] = world.api
    before = settled()
    for route in ROUTES:
        scope = route.view.scopes[route.method]
        answer = route.ask(keys[scope], route.at(world))
        assert (answer.status_code, answer.json()["code"]) == (403, "missing_scope"), route
        assert scope.value in answer.json()["detail"], route
        stranger = route.ask(world.api, route.at(world), headers={"Authorization": "Bearer sp_live_" + "x" * 43})
        assert (stranger.status_code, stranger.json()["code"]) == (401, "unauthorized"), route
    assert settled() == before


def test_no_cookie_takes_the_place_of_a_key(world: World, client: Any) -> None:
    client.force_login(get_user_model().objects.get(username="alice"))
    for route in ROUTES:
        assert route.ask(client, route.at(world)).status_code == 401, route


def test_an_expired_or_revoked_key_opens_nothing(world: World, make_api: Callable[..., Api]) -> None:
    now = timezone.now()
    dead = [make_api(world.acme, name="Expired", expires_at=now), make_api(world.acme, name="Revoked", revoked_at=now)]
    before = settled()
    for route, api in product(ROUTES, dead):
        assert route.ask(api, route.at(world)).status_code == 401, route
    assert settled() == before


def test_what_is_no_body_is_told_and_changes_nothing(world: World) -> None:
    before = settled()
    for route, body in product(CHANGES, HOSTILE):
        if route.method != "DELETE":
            answer = route.ask(_who(route, world), _path(route, world), body)
            assert answer.status_code == 400, (route, body[:40], answer.content)
            assert answer["Content-Type"] == "application/problem+json"
    assert settled() == before


def test_what_is_too_large_or_of_another_type_is_told_and_changes_nothing(world: World) -> None:
    before = settled()
    for route in CHANGES:
        if route.method != "DELETE":
            who, path = _who(route, world), _path(route, world)
            large = b'{"a": "' + b"x" * route.view.body_limit + b'"}'
            assert route.ask(who, path, large).status_code == 413, route
            form = who.generic(route.method, f"/api/v1/{path}", "a=1", "application/x-www-form-urlencoded")
            assert (form.status_code, form.json()["code"]) == (415, "unsupported_media_type"), route
    assert settled() == before


def test_every_field_refuses_what_is_not_of_its_type(world: World) -> None:
    """Never a 500, and nothing half-written, whatever stands where."""
    wrong: list[Any] = [None, True, -1, 0, 2**63, 1.5, "", "x" * 5_000, "\u202e", [], [[]], [None], {}, {"a": {}}]
    before = settled()
    for route in CHANGES:
        example = route.operation.example or {}
        for name, value in product(example, wrong):
            if value == example[name]:
                continue
            answer = route.ask(_who(route, world), _path(route, world), {**example, "colour": 1, name: value})
            assert answer.status_code == 400, (route, name, value, answer.content)
    assert settled() == before


def test_an_unknown_parameter_is_refused_everywhere(world: World) -> None:
    before = settled()
    for route in ROUTES:
        path = _path(route, world)
        answer = route.ask(_who(route, world), f"{path}{'&' if '?' in path else '?'}colour=red")
        assert (answer.status_code, answer.json()["code"]) == (400, "unknown_parameter"), (route, answer.content)
    assert settled() == before


def test_every_parameter_refuses_what_it_cannot_read(world: World) -> None:
    for route in ROUTES:
        for parameter in route.view.parameters.get(route.method, ()):
            for value in ("%00", "\ud7ff" * 3, "9" * 30, "-1", "a'b\"c", "%F0%9F%8E%88", "2026-02-30T00:00:00Z", ""):
                path = _path(route, world)
                mark = "&" if "?" in path else "?"
                answer = route.ask(_who(route, world), f"{path}{mark}{parameter.name}={value}")
                assert answer.status_code in {200, 400, 404}, (route, parameter.name, value, answer.content)


def test_every_other_method_is_refused(world: World) -> None:
    by_path: dict[str, set[str]] = {}
    for route in ROUTES:
        by_path.setdefault(route.route, set()).add(route.method)
    before = settled()
    for route in ROUTES:
        for method in {"GET", "OPTIONS", "TRACE", *CHANGING} - by_path[route.route]:
            answer = world.api.generic(method, f"/api/v1/{route.at(world)}")
            assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed"), (route, method)
            allowed = {each.strip() for each in answer["Allow"].split(",")} - {"HEAD"}
            assert allowed == by_path[route.route], route
    assert settled() == before


def test_a_get_changes_nothing_but_the_log_of_who_saw_a_secret(world: World) -> None:
    before = settled()
    for route in ROUTES:
        if route.method == "GET":
            answer = route.ask(_who(route, world), _path(route, world))
            assert answer.status_code == 200, (route, answer.content)
    after = settled()
    entries = [each["action"] for each in after.pop("subscriptions.AuditEntry")]
    assert entries == ["test.sent", "secret.revealed"]
    del before["subscriptions.AuditEntry"]
    assert after == before


def test_a_test_key_leaves_everything_as_it_is(world: World, make_api: Callable[..., Api]) -> None:
    test = make_api(world.acme, mode="test", name="Test")
    tests = make_api(None, scopes=["read", "write", "publish", "operate"], mode="test", name="Operator's test")
    before = settled()
    done = 0
    for route in CHANGES:
        answer = route.ask(tests if _needs_operator(route) else test, _path(route, world))
        assert answer.status_code < 500, (route, answer.content)
        assert answer["Signalpost-Mode"] == "test"
        done += answer.status_code < 300
        assert settled() == before, route
    assert done >= len(CHANGES) * 2 / 3


def _needs_operator(route: Route) -> bool:
    return route.view.scopes[route.method] == OPERATE


def _who(route: Route, world: World) -> Api:
    return world.operator if _needs_operator(route) else world.api


def _path(route: Route, world: World) -> str:
    path = route.at(world)
    return f"{path}?tenant=acme" if _needs_operator(route) and route.view.of_tenant else path

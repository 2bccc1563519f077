"""Every page, found by its URL: who may not see it does not, who may not
change anything does not, and a GET changes nothing. A new URL is tried as
soon as it is there; that of a new kind of row needs a line in ROWS.

All pages in one test, as what is in the database takes longer to set up, and
to compare, than a page to ask for; the message names the page.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from allauth.account.models import EmailAddress
from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.contrib.sessions.models import Session
from django.db import transaction
from django.http import QueryDict
from django.test import Client
from django.urls import get_resolver
from django.utils import timezone

from subscriptions import support
from subscriptions.models import ApiKey, AuditEntry, Invitation, Membership, Subscription, Tenant
from tests.webhooks.traffic import make_attempt, make_delivery
from webhooks import tasks
from webhooks.models import Delivery, InboxRequest, Replay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.django_db
# Of who may do what it matters little which database is asked; of what nobody expects, much.
one_database, the_stricter = pytest.mark.on("sqlite"), pytest.mark.on("postgresql")

CHANGING = ["POST", "PUT", "PATCH", "DELETE"]
METHODS = ["GET", "HEAD", "OPTIONS", *CHANGING]
# What a page is about, by the part of its address before the number.
ROWS: dict[str, Any] = {
    "subscriptions": Subscription,
    "deliveries": Delivery,
    "replays": Replay,
    "keys": ApiKey,
    "members": Membership,
    "invitations": Invitation,
}
TOPIC = "shop.order.updated"
# What nobody's eyes but acme's may see.
OURS = "ours-alone"
NOWHERE = 999_999
MOST_OF_A_PAGE = 300_000  # bytes

# Whom a POST is for, where that is not the owner alone; of everybody else it is refused.
EVERY_MEMBERS = {"leave"}
DEVELOPERS = EVERY_MEMBERS | {
    "create", "check", "edit", "secret", "rotate", "disable", "enable", "test", "delete",
    "delivery_replay", "delivery_cancel", "replay_new", "replay_cancel",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Page:
    name: str
    route: str

    def at(self, slug: str, numbers: dict[str, int]) -> str:
        path = self.route.replace("<slug:slug>", slug).replace("<str:topic>", TOPIC)
        for kind, number in numbers.items():
            path = path.replace(f"{kind}/<int:pk>", f"{kind}/{number}")
        assert "<" not in path, f"{self.route} is about something that ROWS does not know"
        return f"/{path}"


def _routes(patterns: Any, before: str = "") -> Iterator[Page]:
    for each in patterns:
        route = before + str(each.pattern)
        if hasattr(each, "url_patterns"):
            yield from _routes(each.url_patterns, route)
        else:
            yield Page(each.name or "", route)


PAGES = [page for page in _routes(get_resolver().url_patterns) if page.route.startswith("t/<slug:slug>/")]
ABOUT_A_ROW = [page for page in PAGES if "<int:pk>" in page.route]
OF_THE_PERSON = [
    page for page in _routes(get_resolver().url_patterns)
    if page.route.startswith(("account/", "support/", "tenants/")) and "<" not in page.route and "(" not in page.route
]  # fmt: skip


# A few at a time, where each is asked for hundreds of times: for two processes to share.
SOME = pytest.mark.parametrize("pages", [PAGES[n::6] for n in range(6)], ids=[f"part {n}" for n in range(6)])


@dataclass(frozen=True, slots=True)
class World:
    acme: Tenant
    numbers: dict[str, int]
    alice: Client
    charlie: Client

    def at(self, page: Page) -> str:
        return page.at(self.acme.slug, self.numbers)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "ring", lambda: False)


@pytest.fixture
def enter() -> Callable[..., Client]:
    def make(name: str, tenant: Tenant | None = None, role: str = "viewer", **fields: Any) -> Client:
        user = get_user_model().objects.create_user(name, f"{name}@people.example", **fields)
        if tenant is not None:
            Membership.objects.create(tenant=tenant, user=user, role=role)
        client = Client()
        client.force_login(user)
        return client

    return make


@pytest.fixture
def world(make_tenant: Callable[..., Tenant], subscribe: Callable[..., Subscription], enter: Any) -> World:
    acme, globex = make_tenant("acme", name=f"Acme {OURS}"), make_tenant("globex")
    alice, charlie = enter("alice", acme, "owner"), enter("charlie", globex, "owner")
    enter("dana", acme, "owner")
    subscription = subscribe(acme, TOPIC, name=OURS, url=f"https://{OURS}.example/")
    delivery = make_delivery(subscription, "failed")
    make_attempt(delivery, "status", response_body=OURS.encode())
    now = timezone.now()
    key = ApiKey(tenant=acme, name=OURS, scopes=["read"])
    key.fill()
    key.save()
    invitation = Invitation(tenant=acme, email=f"eve@{OURS}.example")
    invitation.fill()
    invitation.save()
    replay = Replay.objects.create(
        tenant=acme, subscription=subscription, kind="failed", until=now, created_at=now, by=OURS
    )  # fmt: skip
    InboxRequest.objects.create(
        tenant=acme, subscription=subscription, received_at=now, webhook_id=delivery.event.webhook_id,
        headers=b"", body=OURS.encode(),
    )  # fmt: skip
    member = Membership.objects.get(user__username="dana").pk
    numbers = dict(zip(ROWS, (subscription.pk, delivery.pk, replay.pk, key.pk, member, invitation.pk), strict=True))
    return World(acme, numbers, alice, charlie)


def everything(*, but: tuple[type, ...] = ()) -> dict[str, list[Any]]:
    """All that is in the database; sessions and when somebody was last here are no one's."""
    kept = [model for model in apps.get_models() if model._meta.managed and not issubclass(model, (Session, *but))]
    return {
        model._meta.label: [
            {name: value for name, value in row.items() if name != "last_login"}
            for row in model._base_manager.order_by("pk").values()
        ]
        for model in kept
    }


@contextmanager
def unchanged(*, but: tuple[type, ...] = ()) -> Iterator[None]:
    before = everything(but=but)
    yield
    assert everything(but=but) == before


def test_the_pages_are_found() -> None:
    assert {"overview", "subscription", "deliveries", "keys", "audit", "edit"} <= {page.name for page in PAGES}
    assert {page.route.partition("<int:pk>")[0].split("/")[-2] for page in ABOUT_A_ROW} == ROWS.keys()
    assert len(OF_THE_PERSON) > 10


@one_database
def test_an_outsider_finds_nothing(world: World) -> None:
    with unchanged():
        for page, method in product(PAGES, METHODS):
            answer = world.charlie.generic(method, world.at(page))
            assert answer.status_code in {404, 405}, (page, method)
            assert OURS.encode() not in answer.content, (page, method)


@one_database
def test_under_ones_own_address_anothers_row_is_as_if_it_were_not_there(world: World) -> None:
    with unchanged():
        for page, method in product(ABOUT_A_ROW, METHODS):
            answers: list[Any] = [
                world.charlie.generic(method, page.at("globex", numbers))
                for numbers in (world.numbers, dict.fromkeys(ROWS, NOWHERE))
            ]
            foreign, missing = answers
            assert foreign.status_code == missing.status_code, (page, method)
            assert foreign.status_code in {404, 405} or page.name == "invitation_withdraw", (page, method)
            assert OURS.encode() not in foreign.content, (page, method)


@one_database
def test_anothers_number_in_a_query_finds_nothing(world: World) -> None:
    number = world.numbers["subscriptions"]
    event = Delivery.objects.get().event.webhook_id
    for query in (f"subscription={number}", f"event={event}", f"delivery={number}", f"test={number}", f"q={OURS}"):
        for page in PAGES:
            if page not in ABOUT_A_ROW:
                answer = world.charlie.get(f"{page.at('globex', {})}?{query}")
                assert Subscription.objects.get().host.encode() not in answer.content, (page.name, query)
    answer = world.charlie.post(f"/t/globex/replays/new/?kind=filtered&subscription={number}")
    assert answer.status_code == 404
    assert Replay.objects.count() == 1


@one_database
def test_a_stranger_is_sent_to_sign_in(world: World) -> None:
    with unchanged():
        for page in PAGES:
            for method in METHODS:
                answer: Any = Client().generic(method, world.at(page))
                to_sign_in = answer.status_code == 405 or answer.url.startswith("/account/login/?next=/t/acme/")
                assert to_sign_in, (page, method)
            part = Client().get(world.at(page), headers={"hx-request": "true"})
            assert part.status_code == 405 or (part.content, part["hx-refresh"]) == (b"", "true"), page


@one_database
@pytest.mark.parametrize(
    ("role", "may"), [("viewer", EVERY_MEMBERS), ("developer", DEVELOPERS)], ids=["viewer", "developer"]
)
def test_who_may_only_look_changes_nothing(world: World, enter: Any, role: str, may: set[str]) -> None:
    bob = enter("bob", world.acme, role)
    with unchanged():
        for page, method in product(PAGES, CHANGING):
            if page.name not in may:
                assert bob.generic(method, world.at(page)).status_code in {403, 405}, (page, method)


@one_database
def test_support_looks_and_changes_nothing(world: World, enter: Any) -> None:
    sam = enter("sam", is_staff=True)
    get_user_model().objects.get(username="sam").user_permissions.add(
        Permission.objects.get(codename=support.PERMISSION.partition(".")[2])
    )
    for page in PAGES:
        assert sam.get(world.at(page)).status_code in {404, 405}, page
    session = sam.session
    session[support.SESSION_KEY] = {"tenant": world.acme.pk, "since": timezone.now().timestamp()}
    session.save()
    with unchanged(but=(AuditEntry,)):
        for page in PAGES:
            for method in CHANGING:
                assert sam.generic(method, world.at(page)).status_code in {403, 405}, (page, method)
            sam.get(world.at(page))
    assert set(AuditEntry.objects.values_list("action", flat=True)) == {AuditEntry.Action.SUPPORT_LOOKED}


@one_database
def test_looking_changes_nothing(world: World) -> None:
    with unchanged():
        for page in PAGES:
            for method in ("GET", "HEAD", "OPTIONS"):
                assert world.alice.generic(method, world.at(page)).status_code < 500, (page, method)
            for target in ("subscriptions", "sample", "delete", "panel"):
                world.alice.get(world.at(page), headers={"hx-request": "true", "hx-target": target})


@one_database
def test_looking_at_ones_account_changes_nothing(world: World) -> None:
    with unchanged(but=(EmailAddress,)):  # allauth writes down, on looking, that a person has one
        for page, client in product(OF_THE_PERSON, (world.alice, Client())):
            assert client.get(f"/{page.route}").status_code < 500, page


@one_database
def test_no_cache_shows_a_page_to_somebody_else_or_a_part_as_the_page(world: World) -> None:
    for page in PAGES:
        answer = world.alice.get(world.at(page))
        if answer.status_code != 405:
            assert "private" in answer["cache-control"], page
            assert {"Cookie", "HX-Request", "HX-Target"} <= set(answer["vary"].split(", ")), page
            assert answer["x-frame-options"] == "DENY", page
            assert answer["referrer-policy"] == "same-origin", page
            assert answer["x-content-type-options"] == "nosniff", page


@one_database
def test_no_form_is_taken_without_its_token(world: World) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.cookies = world.alice.cookies
    with unchanged():
        for page in PAGES:
            assert browser.post(world.at(page)).status_code in {403, 405}, page


@one_database
def test_who_was_removed_is_an_outsider_at_once(world: World, enter: Any) -> None:
    bob = enter("bob", world.acme, "owner")
    for page in PAGES:
        assert bob.get(world.at(page)).status_code < 500, page
    Membership.objects.filter(user__username="bob").delete()
    for page in PAGES:
        assert bob.get(world.at(page)).status_code in {404, 405}, page
        assert bob.post(world.at(page)).status_code in {404, 405}, page


HOSTILE = "\"'><script>alert(1)</script>\u202e{{ 7|add:7 }}"


@one_database
def test_what_others_wrote_is_text_on_every_page(world: World) -> None:
    Tenant.objects.update(name=HOSTILE)
    Subscription.objects.update(name=HOSTILE, url=f"https://receiver.example/?{HOSTILE}", disabled_reason=HOSTILE)
    Subscription.objects.update(disabled_by="member", disabled_at=timezone.now())
    ApiKey.objects.update(name=HOSTILE, created_by=HOSTILE, networks=[HOSTILE])
    Invitation.objects.update(email=HOSTILE)
    get_user_model().objects.filter(username="dana").update(email=HOSTILE)
    get_user_model().objects.filter(username="alice").update(email=HOSTILE)
    Replay.objects.update(by=HOSTILE)
    strange = HOSTILE.encode()
    Delivery.objects.update(triggered_by=HOSTILE)
    Delivery.objects.get().attempts.update(
        response_body=strange, response_headers=strange, request_headers=strange, triggered_by=HOSTILE, url=HOSTILE
    )
    InboxRequest.objects.update(body=strange, headers=strange, refusal=HOSTILE)
    for kind in ("subscription", "apikey", "replay"):
        note = {"tenant_id": world.acme.pk, "actor": HOSTILE, "kind": kind, "number": HOSTILE[-40:], "name": HOSTILE}
        AuditEntry.objects.create(**note, action=AuditEntry.Action.MEMBER_JOINED, detail={HOSTILE: {"from": HOSTILE}})
    for page, headers in product(PAGES, ({}, {"hx-request": "true", "hx-target": "subscriptions"})):
        answer = world.alice.get(world.at(page), headers=headers)
        assert answer.status_code < 500, page
        if answer["content-type"].startswith("text/html"):
            assert b"<script>alert" not in answer.content, page
            assert b"\"'>" not in answer.content, page
            assert b"&lt;script&gt;alert" in answer.content or headers or answer.status_code != 200, page


# Whatever stands in a query.

BAD = ["", "-1", str(2**31), str(2**63), "9" * 5_000, "NaN", "a\0b", "%_\\'\"", "٣", "²", "9999-12-31T23:59:59-23:59",
       "0001-01-01", "x" * 10_000, "*", "\u202e<script>alert(1)</script>", "0-٣", "1-" + "9" * 18]  # fmt: skip


class Read(set[str]):
    """The names that a page reads from the query."""


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Read:
    names = Read()

    def spy(method: str) -> None:
        usual = getattr(QueryDict, method)

        def seen(self: QueryDict, key: str, *args: Any) -> Any:
            if not self._mutable:
                names.add(str(key))
            return usual(self, key, *args)

        monkeypatch.setattr(QueryDict, method, seen)

    for method in ("get", "getlist", "__getitem__", "__contains__"):
        spy(method)
    return names


@the_stricter
@SOME
def test_no_query_breaks_a_page(world: World, pages: list[Page], read: Read) -> None:
    world.alice.raise_request_exception = False
    for page in pages:
        _try_queries(world, page, read)


def _try_queries(world: World, page: Page, read: Read) -> None:
    path = world.at(page)
    read.clear()
    if world.alice.get(path).status_code == 405:
        return
    tried: set[str] = set()
    base = {"kind": "failed"} if page.name == "replay_new" else {}
    while left := sorted(read - tried):
        for name in left:
            tried.add(name)
            for value in BAD:
                answer = world.alice.get(path, {**base, name: value})
                assert answer.status_code < 500, (page, name, value[:40])
                assert b"<script>alert" not in answer.content, (page, name)
                assert len(answer.content) < MOST_OF_A_PAGE, (page, name)
    for value in BAD:
        answer = world.alice.get(path, {name: [value, "2"] for name in tried})
        assert answer.status_code < 500, (page, value[:40])
        part = {"hx-request": "true", "hx-target": value if value.isprintable() and value.isascii() else "x"}
        answer = world.alice.get(path, dict.fromkeys(tried, value), headers=part)
        assert answer.status_code < 500, (page, value[:40])


@the_stricter
@SOME
def test_no_form_breaks_a_page(world: World, pages: list[Page], read: Read) -> None:
    world.alice.raise_request_exception = False
    for page in pages:
        _try_forms(world, page, read)


def _try_forms(world: World, page: Page, read: Read) -> None:
    path = f"{world.at(page)}?kind=failed"

    def send(form: dict[str, Any]) -> int:
        with transaction.atomic():
            answer = world.alice.post(path, form)
            transaction.set_rollback(True)
        assert b"<script>alert" not in answer.content, page
        assert len(answer.content) < MOST_OF_A_PAGE, page
        return answer.status_code

    read.clear()
    if send({"unknown": "1"}) == 405:
        return
    # Choices that lead further into the form.
    chosen = {"target": "url", "role": "viewer", "was": "viewer", "scopes": "read", "mode": "live", "zone": "UTC"}
    tried: set[str] = set()
    while left := sorted(read - tried - {"csrfmiddlewaretoken"}):
        tried.update(left)
        for value in BAD:
            assert send(dict.fromkeys(tried, value)) < 500, (page, value[:40])
            assert send({**dict.fromkeys(tried, value), **chosen, "topic": "shop.*"}) < 500, (page, value[:40])
            assert send({name: [value, "2"] for name in tried}) < 500, (page, value[:40])

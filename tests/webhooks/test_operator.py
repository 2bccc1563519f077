"""The operator: the overview, turning a tenant off, looking at its pages as support."""

from __future__ import annotations

import io
import re
import threading
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.db import connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import get_resolver, reverse
from django.utils import timezone
from rq import Worker as RQWorker

from subscriptions import disabling, edits
from subscriptions.models import AuditEntry, Membership, Revision, Subscription, Tenant
from subscriptions.trail import Actor
from tests.webhooks.personas import sign_in, text
from tests.webhooks.traffic import make_attempt, make_delivery, make_event
from webhooks import cron, deliveries, matching, operations, tallies, tasks
from webhooks.models import Delivery, Event, Replay, Rollup, Tally, Throttle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Subscribe = Callable[..., Subscription]

# The overview looks into every database that is captured from.
pytestmark = [pytest.mark.django_db(databases=["default", "other"]), pytest.mark.on("sqlite")]

OVERVIEW = "/admin/webhooks/overview/"
OPERATOR = Actor("root@example.com", as_operator=True)
MEMBER = Actor("alice@acme.example")
MARKUP = "<script>alert(1)</script>\"'"


@pytest.fixture
def staff(client: Client) -> Callable[..., Client]:
    """A member of the staff who may do what is named, signed in."""

    def login(*permissions: str) -> Client:
        user = User.objects.create_user("staff", email="staff@example.com", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        client.force_login(user)
        return client

    return login


@pytest.fixture
def looked() -> None:
    """A worker, a moment ago."""
    tallies.add({(tallies.LOOKS, tallies.COUNT): 1}, using="default")


@pytest.fixture
def redis(monkeypatch: pytest.MonkeyPatch, redis_url: str) -> Iterator[None]:
    monkeypatch.setitem(settings.RQ_QUEUES["default"], "URL", redis_url)
    tasks.forget()
    tasks.connect().flushdb()
    yield
    tasks.forget()


@pytest.fixture
def no_redis(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setitem(settings.RQ_QUEUES["default"], "URL", f"unix://{tmp_path}/nothing")
    tasks.forget()
    yield
    tasks.forget()


def throttle(subscription: Subscription, failures: int, *, hours: float = 1, **fields: Any) -> Throttle:
    since = timezone.now() - timedelta(hours=hours)
    return Throttle.objects.create(subscription=subscription, failures=failures, failing_since=since, **fields)


def shown(client: Client) -> str:
    response = client.get(OVERVIEW)
    assert response.status_code == 200
    return text(response)


def deeds(tenant: Tenant) -> list[tuple[str, bool]]:
    """Of the tenant's audit log, oldest first: (action, by the operator)."""
    entries = AuditEntry.objects.for_tenant(tenant).order_by("id")
    return [(entry.action, entry.as_operator) for entry in entries]


# --- the overview ---


def test_the_overview_lists_what_fails_of_all_tenants_the_longest_first(
    admin_client: Client, make_tenant: Callable[..., Tenant], subscribe: Subscribe
) -> None:
    acme, globex = make_tenant("acme"), make_tenant("globex")
    lately = subscribe(acme, url="https://lately.example/secret-path")
    long = subscribe(globex, url="https://long.example/")
    off, answering = (subscribe(acme, url=f"https://{name}.example/") for name in ("off", "answering"))
    throttle(lately, 3, hours=1)
    throttle(long, 1_234, hours=30, probe_at=timezone.now())
    throttle(off, 20)
    Throttle.objects.create(subscription=answering, next_at=timezone.now())
    off.disable(reason="410 Gone")
    response = admin_client.get(OVERVIEW)
    assert [row.subscription for row in response.context["failing"]] == [long, lately]
    page = text(response)
    assert "1,234" in page
    assert "secret-path" not in page
    assert f"{reverse('admin:webhooks_delivery_replay_matching')}?subscription__id__exact={long.pk}" in page
    assert reverse("admin:subscriptions_subscription_turn_off", args=[long.pk]) in page
    assert list(response.context["turned_off"]) == [off]
    assert "410 Gone" in page


def test_the_links_of_the_overview_lead_to_what_they_say(
    admin_client: Client, tenant: Tenant, subscribe: Subscribe
) -> None:
    subscription = subscribe(tenant)
    make_delivery(subscription, "failed")
    throttle(subscription, 3)
    _, _, page = admin_client.get(OVERVIEW).content.decode().partition('id="content-main"')
    links = {link.replace("&amp;", "&") for link in re.findall(r'href="(/admin/[^"]+)"', page)}
    assert any("replay" in link for link in links)
    for link in links:
        assert admin_client.get(link).status_code in {200, 302}, link


def test_only_who_may_act_is_offered_to(staff: Callable[..., Client], tenant: Tenant, subscribe: Subscribe) -> None:
    throttle(subscribe(tenant), 3)
    page = shown(staff("view_overview"))
    assert "Turn off" not in page
    assert "Replay" not in page


def test_the_overview_takes_its_own_permission(staff: Callable[..., Client]) -> None:
    assert Client().get(OVERVIEW).status_code == 302
    client = staff("view_delivery")
    assert client.get(OVERVIEW).status_code == 403
    index = client.get("/admin/")
    assert "standing" not in index.context
    assert 'id="standing"' not in index.content.decode()


def test_the_index_begins_with_the_head_of_the_overview(admin_client: Client) -> None:
    page = text(admin_client.get("/admin/"))
    assert page.index("No worker has ever looked") < page.index("Deliveries")
    assert OVERVIEW in page


def test_a_worker_that_never_looked_or_fell_silent_is_said_first(admin_client: Client, looked: None) -> None:
    Tally.objects.update(written_at=timezone.now() - timedelta(minutes=9))
    assert "No worker has looked for 9 minutes" in shown(admin_client)
    Tally.objects.all().delete()
    assert "No worker has ever looked" in shown(admin_client)


def test_what_waits_for_long_is_late(admin_client: Client, looked: None, tenant: Tenant, subscribe: Subscribe) -> None:
    long_ago = timezone.now() - timedelta(minutes=7)
    make_delivery(subscribe(tenant), "pending", next_attempt_at=long_ago)
    standing = operations.standing()
    assert standing.due_for == pytest.approx(420, abs=5)
    assert standing.grave
    assert "A delivery has waited for a worker for 7 minutes" in shown(admin_client)


def test_an_event_that_waits_for_long_is_late(admin_client: Client, looked: None, tenant: Tenant) -> None:
    milliseconds = int((timezone.now() - timedelta(hours=2)).timestamp() * 1000)
    event = make_event(tenant, fanned_out_at=None)
    old = event.id.int & ((1 << 80) - 1) | milliseconds << 80
    Event.objects.filter(pk=event.pk).update(id=type(event.id)(int=old))
    page = shown(admin_client)
    assert "An event has waited to be fanned out for 2 hours" in page


def test_what_waits_for_a_subscription_that_is_off_or_failing_is_not_late(
    looked: None, tenant: Tenant, subscribe: Subscribe
) -> None:
    long_ago = timezone.now() - timedelta(minutes=7)
    off, failing = subscribe(tenant), subscribe(tenant)
    for subscription in (off, failing):
        make_delivery(subscription, "pending", next_attempt_at=long_ago)
    off.disable(reason="off")
    throttle(failing, 20, probe_at=timezone.now() + timedelta(minutes=1))
    assert operations.standing().due_for == 0


def test_without_redis_the_overview_says_so_and_shows_the_rest(
    admin_client: Client, no_redis: None, looked: None, tenant: Tenant, subscribe: Subscribe
) -> None:
    throttle(subscribe(tenant, url="https://failing.example/"), 5)
    page = shown(admin_client)
    assert "Redis does not answer. Workers look by themselves" in page
    assert "1 subscription is failing" in page
    assert "failing.example" in page


def test_with_redis_the_workers_and_the_clock_are_shown(admin_client: Client, looked: None, redis: None) -> None:
    page = shown(admin_client)
    assert "No worker listens to Redis" in page
    assert "The clock does not tick" in page
    connection = tasks.connect()
    worker = RQWorker(["default"], connection=connection)
    worker.register_birth()  # type: ignore[no-untyped-call]
    elsewhere = RQWorker(["another"], connection=connection, name="elsewhere")
    elsewhere.register_birth()  # type: ignore[no-untyped-call]
    clock = cron.Clock(connection)
    clock.register_birth()
    clock.heartbeat()
    page = shown(admin_client)
    assert "Workers keep up, and no subscription is failing" in page
    assert f"process {worker.pid}" in page
    assert "1 worker listens" in page


def test_the_last_day_counts_what_was_delivered_and_given_up_on(
    admin_client: Client, tenant: Tenant, subscribe: Subscribe
) -> None:
    hour = timezone.now().replace(minute=0, second=0, microsecond=0)
    counts = {"attempts": 1_300, "delivered": 1_200, "at_first": 1_100, "failed": 21, "took_3": 1_300}
    for age in (0, 5, 30):
        Rollup.objects.create(
            subscription=subscribe(tenant), span="hour", starts_at=hour - timedelta(hours=age), **counts
        )
    figures = {figure.label: figure for figure in admin_client.get(OVERVIEW).context["figures"]}
    assert figures["Delivered in 24 hours"].value == "2,400"
    assert figures["Given up on in 24 hours"].value == "42"


def test_the_overview_costs_the_same_however_much_fails(
    admin_client: Client,
    make_tenant: Callable[..., Tenant],
    subscribe: Subscribe,
    django_assert_max_num_queries: Callable[..., Any],
) -> None:
    admin_client.get(OVERVIEW)  # what is cached once per process
    for number in range(20):
        tenant = make_tenant(f"tenant-{number}")
        throttle(subscribe(tenant), 3)
        subscribe(tenant).disable(reason="off")
        make_delivery(subscribe(tenant), "pending")
    with django_assert_max_num_queries(16):
        page = shown(admin_client)
    assert page.count("first failed <time") == 20


def test_what_a_tenant_wrote_is_text_on_the_overview(
    admin_client: Client, make_tenant: Callable[..., Tenant], subscribe: Subscribe
) -> None:
    tenant = make_tenant(name=MARKUP)
    throttle(subscribe(tenant, name=MARKUP, url=f"https://{MARKUP}/"), 3)
    subscribe(tenant, name=MARKUP).disable(reason=MARKUP)
    page = admin_client.get(OVERVIEW).content.decode()
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;alert") >= 3


# --- a tenant that is off ---


def test_a_tenant_is_turned_off_with_its_subscriptions_and_on_again_with_exactly_these(
    admin_client: Client, tenant: Tenant, make_tenant: Callable[..., Tenant], subscribe: Subscribe
) -> None:
    on, other = subscribe(tenant), subscribe(make_tenant("globex"))
    by_member, by_engine = subscribe(tenant), subscribe(tenant)
    edits.disable(by_member, MEMBER, reason="Moving")
    by_engine.disable(reason="410 Gone")
    off = reverse("admin:subscriptions_tenant_turn_off", args=[tenant.pk])
    asked = text(admin_client.get(off))
    assert "1 subscription is turned off with it" in asked
    assert "2 subscriptions are off for another reason, and stay off" in asked
    assert "This field is required" in text(admin_client.post(off))
    assert Tenant.objects.get(pk=tenant.pk).disabled_at is None

    told = text(admin_client.post(off, {"reason": "Unpaid since August"}, follow=True))
    assert "Turned off, with 1 subscription" in told
    assert "Unpaid since August" in told
    on.refresh_from_db()
    assert (on.disabled_reason, on.disabled_by) == ("Unpaid since August", Subscription.DisabledBy.TENANT)
    assert list(Subscription.objects.enabled()) == [other]

    turn_on = reverse("admin:subscriptions_tenant_turn_on", args=[tenant.pk])
    asked = text(admin_client.get(turn_on))
    assert "1 subscription is turned on with it" in asked
    assert "2 subscriptions are off for another reason" in asked
    admin_client.post(turn_on)
    assert set(Subscription.objects.enabled()) == {on, other}
    assert Tenant.objects.get(pk=tenant.pk).disabled_reason == ""
    assert deeds(tenant) == [
        ("subscription.disabled", False),
        ("tenant.disabled", True),
        ("tenant.enabled", True),
    ]
    entry = AuditEntry.objects.for_tenant(tenant).get(action="tenant.disabled")
    assert entry.detail == {"reason": "Unpaid since August", "subscriptions": 1}


def test_a_tenant_that_is_off_is_not_turned_off_again(tenant: Tenant, subscribe: Subscribe) -> None:
    subscribe(tenant)
    assert disabling.disable(tenant, OPERATOR, reason="Unpaid")
    assert not disabling.disable(tenant, OPERATOR, reason="Something else")
    assert disabling.enable(tenant, OPERATOR)
    assert not disabling.enable(tenant, OPERATOR)
    assert len(deeds(tenant)) == 2


def test_while_a_tenant_is_off_nobody_turns_a_subscription_of_it_on_or_makes_one(
    admin_client: Client, tenant: Tenant, subscribe: Subscribe
) -> None:
    subscription = subscribe(tenant)
    disabling.disable(tenant, OPERATOR, reason="Unpaid since August")
    for actor in (MEMBER, OPERATOR):
        with pytest.raises(edits.Refused, match="Unpaid since August"):
            edits.enable(subscription, actor)
        with pytest.raises(edits.Refused, match="Unpaid since August"):
            edits.create(tenant, actor, url="https://new.example/", topics={"shop.order.*": []})
    assert not subscription.enable()
    turn_on = reverse("admin:subscriptions_subscription_turn_on", args=[subscription.pk])
    assert "Unpaid since August" in text(admin_client.post(turn_on, follow=True))
    topics = {"topics-TOTAL_FORMS": 0, "topics-INITIAL_FORMS": 0}
    added = admin_client.post(
        reverse("admin:subscriptions_subscription_add"),
        {"tenant": tenant.pk, "name": "", "url": "https://new.example/", **topics},
    )
    assert "This tenant is off: Unpaid since August" in text(added)
    assert not Subscription.objects.enabled().exists()
    assert Subscription.objects.count() == 1


def test_while_a_tenant_is_off_events_make_no_deliveries_and_open_ones_wait(
    tenant: Tenant, subscribe: Subscribe
) -> None:
    subscription = subscribe(tenant, "shop.*")
    waiting = make_delivery(subscription, "pending", next_attempt_at=timezone.now())
    disabling.disable(tenant, OPERATOR, reason="Unpaid")
    make_event(tenant, "shop.order.updated", fanned_out_at=None)
    deliveries.fan_out()
    assert not Event.objects.waiting().exists()
    assert list(Delivery.objects.all()) == [waiting]
    assert deliveries.claim(10) == []
    disabling.enable(tenant, OPERATOR)
    assert [claim.delivery_id for claim in deliveries.claim(10)] == [waiting.pk]


def test_turning_a_tenant_off_is_an_event_of_each_subscription(tenant: Tenant, subscribe: Subscribe) -> None:
    subscriptions = [subscribe(tenant, "*"), subscribe(tenant, "*")]
    before = set(Event.objects.values_list("pk", flat=True))
    disabling.disable(tenant, OPERATOR, reason="Unpaid")
    events = Event.objects.exclude(pk__in=before)
    assert [event.topic for event in events] == ["subscriptions.subscription.updated"] * 2
    for subscription in subscriptions:
        subscription.refresh_from_db()
        assert subscription.version == 2  # an older form or program is told


def test_a_tenant_is_switched_as_one_change_however_many_subscriptions_it_has(
    tenant: Tenant, subscribe: Subscribe
) -> None:
    for _number in range(10):
        subscribe(tenant, "*")
    for act in (partial(disabling.disable, reason="Unpaid"), disabling.enable):
        matching.forget()
        before = Revision.objects.get()
        with CaptureQueriesContext(connections["default"]) as queries:
            act(tenant, OPERATOR)
        readings = [query for query in queries if 'FROM "subscriptions_topic"' in query["sql"]]
        assert len(readings) <= 1
        now = Revision.objects.get()
        assert (now.number, now.token != before.token) == (before.number + 1, True)
    event = make_event(tenant, fanned_out_at=None)
    deliveries.fan_out()
    assert event.deliveries.count() == 10


def test_the_operator_may_keep_one_subscription_off_when_its_tenant_is_turned_on(
    tenant: Tenant, subscribe: Subscribe
) -> None:
    kept, other = subscribe(tenant), subscribe(tenant)
    disabling.disable(tenant, OPERATOR, reason="Unpaid")
    assert edits.disable(kept, OPERATOR, reason="Floods its receiver")
    disabling.enable(tenant, OPERATOR)
    assert list(Subscription.objects.enabled()) == [other]


def test_a_member_sees_that_the_tenant_is_off_and_why(tenant: Tenant, subscribe: Subscribe) -> None:
    subscribe(tenant)
    member = sign_in(tenant)
    disabling.disable(tenant, OPERATOR, reason="Unpaid since August")
    assert "Unpaid since August" in text(member.get(f"/t/{tenant.slug}/"))
    disabling.enable(tenant, OPERATOR)
    assert "Unpaid since August" not in text(member.get(f"/t/{tenant.slug}/"))


def test_what_the_operator_turned_off_no_member_turns_on(
    admin_client: Client, tenant: Tenant, subscribe: Subscribe
) -> None:
    subscription = subscribe(tenant)
    turn_off = reverse("admin:subscriptions_subscription_turn_off", args=[subscription.pk])
    admin_client.post(turn_off, {"reason": "Floods its receiver"})
    member = sign_in(tenant, "owner")
    member.post(f"/t/{tenant.slug}/subscriptions/{subscription.pk}/enable/")
    subscription.refresh_from_db()
    assert (subscription.enabled, subscription.disabled_by) == (False, Subscription.DisabledBy.OPERATOR)
    admin_client.post(reverse("admin:subscriptions_subscription_turn_on", args=[subscription.pk]))
    subscription.refresh_from_db()
    assert subscription.enabled
    assert deeds(tenant) == [("subscription.disabled", True), ("subscription.enabled", True)]


@pytest.mark.parametrize("verb", ["turn_off", "turn_on"])
def test_turning_a_tenant_off_or_on_takes_the_permission_to_change_it(
    staff: Callable[..., Client], tenant: Tenant, verb: str
) -> None:
    if verb == "turn_on":
        disabling.disable(tenant, OPERATOR, reason="Unpaid")
    before = Tenant.objects.values().get()
    client = staff("view_tenant")
    path = reverse(f"admin:subscriptions_tenant_{verb}", args=[tenant.pk])
    assert client.get(path).status_code == 403
    assert client.post(path, {"reason": "Unpaid"}).status_code == 403
    assert Tenant.objects.values().get() == before


# --- support ---


def look(client: Client, tenant: Tenant, reason: str = "Ticket 4711") -> Any:
    return client.post(reverse("admin:subscriptions_tenant_support", args=[tenant.pk]), {"reason": reason})


def pages() -> list[str]:
    """The names of all pages of a tenant, with the arguments of those of one row."""
    found = [
        (f"{namespace}:{name}", sorted(possible[0][1]))
        for namespace, (_, resolver) in get_resolver().namespace_dict.items()
        if namespace in {"webhooks", "subscriptions"}
        for name in resolver.reverse_dict
        if isinstance(name, str)
        for possible in [resolver.reverse_dict.getlist(name)[0][0]]
    ]
    return sorted(name for name, arguments in found if "slug" in arguments)


def path_of(name: str, tenant: Tenant, subscription: Subscription) -> str:
    for arguments in ({"pk": subscription.pk}, {}, {"topic": "shop.order.updated"}):
        try:
            return reverse(name, kwargs={"slug": tenant.slug, **arguments})
        except Exception:  # noqa: BLE001, S112 - the next one may fit
            continue
    raise AssertionError(name)


def test_support_looks_at_the_pages_of_one_tenant_and_it_is_recorded(
    staff: Callable[..., Client], tenant: Tenant, make_tenant: Callable[..., Tenant]
) -> None:
    client = staff("support_tenant", "view_tenant")
    overview = f"/t/{tenant.slug}/"
    assert client.get(overview).status_code == 404
    assert "Look as support" in text(client.get(reverse("admin:subscriptions_tenant_change", args=[tenant.pk])))
    assert "This field is required" in text(look(client, tenant, reason=""))
    assert client.get(overview).status_code == 404

    assert look(client, tenant).headers["location"] == overview
    page = text(client.get(overview))
    assert f"You look at the pages of {tenant.name} as support" in page
    assert client.get(f"/t/{make_tenant('globex').slug}/").status_code == 404
    client.get(overview)
    client.get(overview, headers={"HX-Request": "true"})
    client.get(f"{overview}deliveries/", headers={"HX-Request": "true"})
    entries = AuditEntry.objects.for_tenant(tenant).order_by("id")
    assert [(entry.actor, entry.action, entry.as_operator, entry.name) for entry in entries] == [
        ("staff@example.com", "support.looked", True, name)
        for name in (tenant.slug, overview, f"{overview}deliveries/")
    ]
    assert entries[0].detail == {"reason": "Ticket 4711"}


def test_support_changes_nothing_on_any_page(admin_client: Client, tenant: Tenant, subscribe: Subscribe) -> None:
    subscription = subscribe(tenant, "shop.*")
    delivery = make_delivery(subscription, "failed", id=subscription.pk)
    make_attempt(delivery, "timeout")
    look(admin_client, tenant)
    names = pages()
    assert {"webhooks:secret", "webhooks:delivery_replay", "subscriptions:create", "subscriptions:key_new"} <= set(
        names
    )
    before = [list(model.objects.values()) for model in (Tenant, Subscription, Delivery, Event, Membership)]
    for name in names:
        path = path_of(name, tenant, subscription)
        assert admin_client.post(path).status_code == 403, name
        for method in (admin_client.put, admin_client.patch, admin_client.delete):
            assert method(path).status_code in {403, 405}, name
    assert [list(model.objects.values()) for model in (Tenant, Subscription, Delivery, Event, Membership)] == before


def test_no_page_shows_support_a_secret_or_a_fresh_signature(
    admin_client: Client, tenant: Tenant, subscribe: Subscribe
) -> None:
    subscription = subscribe(tenant, "shop.*")
    make_attempt(make_delivery(subscription, "failed", id=subscription.pk), "timeout")
    secret = subscription.secrets.get().value.removeprefix("whsec_")
    look(admin_client, tenant)
    seen = 0
    for name in pages():
        response = admin_client.get(path_of(name, tenant, subscription))
        assert response.status_code in {200, 302, 403, 404, 405}, name
        page = response.content.decode()
        assert secret not in page, name
        assert "webhook-signature: v1," not in page, name
        seen += response.status_code == 200
    assert seen > 5
    assert admin_client.get(path_of("webhooks:delivery_curl", tenant, subscription)).status_code == 403


def test_support_ends_when_it_is_told_to(admin_client: Client, tenant: Tenant) -> None:
    look(admin_client, tenant)
    end = reverse("subscriptions:support_end")
    assert end in admin_client.get(f"/t/{tenant.slug}/").content.decode()
    assert admin_client.get(end).status_code == 405
    assert admin_client.get(f"/t/{tenant.slug}/").status_code == 200
    ended = admin_client.post(end)
    assert ended.headers["location"] == reverse("admin:subscriptions_tenant_change", args=[tenant.pk])
    assert admin_client.get(f"/t/{tenant.slug}/").status_code == 404
    assert admin_client.post(end).headers["location"] == "/admin/"


def test_support_ends_after_an_hour(admin_client: Client, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    look(admin_client, tenant)
    now = timezone.now()
    monkeypatch.setattr(timezone, "now", lambda: now + timedelta(minutes=59))
    assert admin_client.get(f"/t/{tenant.slug}/").status_code == 200
    monkeypatch.setattr(timezone, "now", lambda: now + timedelta(minutes=61))
    assert admin_client.get(f"/t/{tenant.slug}/").status_code == 404


def test_support_takes_a_permission_of_its_own_and_ends_with_it(staff: Callable[..., Client], tenant: Tenant) -> None:
    client = staff("view_tenant", "change_tenant")
    assert "Look as support" not in text(client.get(reverse("admin:subscriptions_tenant_change", args=[tenant.pk])))
    assert look(client, tenant).status_code == 403
    user = User.objects.get(username="staff")
    user.user_permissions.add(Permission.objects.get(codename="support_tenant"))
    look(client, tenant)
    assert client.get(f"/t/{tenant.slug}/").status_code == 200
    user.user_permissions.clear()
    assert client.get(f"/t/{tenant.slug}/").status_code == 404
    user.user_permissions.add(Permission.objects.get(codename="support_tenant"))
    User.objects.update(is_staff=False)
    assert client.get(f"/t/{tenant.slug}/").status_code == 404


def test_a_member_of_the_staff_who_is_a_member_stays_one(
    admin_client: Client, tenant: Tenant, admin_user: User
) -> None:
    Membership.objects.create(tenant=tenant, user=admin_user, role="viewer")
    look(admin_client, tenant)
    response = admin_client.get(f"/t/{tenant.slug}/")
    assert "as support" not in text(response)


# --- what the operator does to traffic ---


def test_what_the_operator_replays_and_cancels_stands_in_the_tenants_log(
    admin_client: Client, make_tenant: Callable[..., Tenant], subscribe: Subscribe
) -> None:
    acme, globex = make_tenant("acme"), make_tenant("globex")
    theirs, others = make_delivery(subscribe(acme), "failed"), make_delivery(subscribe(globex), "failed")
    in_flight = make_delivery(
        subscribe(acme), "pending", leased_until=timezone.now() + timedelta(minutes=1), next_attempt_at=timezone.now()
    )
    for delivery in (theirs, in_flight):
        admin_client.post(reverse("admin:webhooks_delivery_replay", args=[delivery.pk]))
    admin_client.post(reverse("admin:webhooks_delivery_cancel", args=[theirs.pk]))
    assert deeds(acme) == [("delivery.replayed", True), ("delivery.cancelled", True)]
    entry = AuditEntry.objects.for_tenant(acme).first()
    assert entry is not None
    assert (entry.number, entry.detail) == (str(theirs.pk), {"event": theirs.event.webhook_id})

    matching = reverse("admin:webhooks_delivery_replay_matching")
    newest = max(theirs.pk, others.pk, in_flight.pk)
    admin_client.post(f"{matching}?status__exact=failed", {"newest": newest})
    assert deeds(globex) == [("replay.started", True)]
    entry = AuditEntry.objects.for_tenant(globex).get()
    assert entry.detail == {"filters": ["status: Failed"], "expected": 1}
    assert len(deeds(acme)) == 2


def test_what_the_command_replays_stands_in_each_tenants_log(
    make_tenant: Callable[..., Tenant], subscribe: Subscribe
) -> None:
    acme, globex, umbrella = (make_tenant(slug) for slug in ("acme", "globex", "umbrella"))
    for tenant, number in ((acme, 2), (globex, 1)):
        for _number in range(number):
            make_delivery(subscribe(tenant), "failed")
    make_delivery(subscribe(umbrella), "delivered")
    call_command("replay", "--topic", "shop.*", "--yes", stdout=io.StringIO())
    entries = AuditEntry.objects.order_by("tenant_id")
    assert [(entry.tenant_id, entry.actor, entry.as_operator, entry.name, entry.detail) for entry in entries] == [
        (acme.pk, "manage.py replay", True, "a replay of 2 deliveries", {"filters": ["topic: shop.*"], "expected": 2}),
        (globex.pk, "manage.py replay", True, "a replay of 1 delivery", {"filters": ["topic: shop.*"], "expected": 1}),
    ]


# --- RQ's own pages ---


@pytest.mark.parametrize(
    ("path", "styles", "scripts"),
    [
        ("/admin/", False, False),
        ("/admin/django-rq/", True, False),
        ("/admin/django_rq/dashboard/", True, False),
        ("/admin/django-rq/queues/0/failed/", True, False),
        ("/admin/django-rq/queues/0/a-job/", True, True),
    ],
)
def test_the_policy_is_looser_for_rqs_pages_alone(
    admin_client: Client, redis: None, path: str, styles: bool, scripts: bool
) -> None:
    job = tasks.Door().queue.enqueue("webhooks.nothing", job_id="a-job")
    assert job.id == "a-job"
    response = admin_client.get(path)
    assert response.status_code == 200
    policy = dict(part.strip().split(" ", 1) for part in response.headers["content-security-policy"].split(";"))
    assert ("'unsafe-inline'" in policy["style-src"]) is styles
    assert ("'unsafe-inline'" in policy["script-src"]) is scripts
    assert "'unsafe-eval'" not in response.headers["content-security-policy"]
    # What stands in a page without the looser policy would not run.
    page = response.content.decode()
    assert scripts or not re.search(r"<script(?![^>]*\bsrc=)[^>]*>|\son[a-z]+=", page)
    assert styles or not re.search(r"<style|\sstyle=", page)


def test_without_redis_rqs_pages_say_so(admin_client: Client, no_redis: None) -> None:
    for path in ("/admin/django-rq/", "/admin/django_rq/dashboard/"):
        response = admin_client.get(path)
        assert response.status_code == 503
        assert "Redis does not answer" in text(response)


# --- bulk replays ---


def make_replay(subscription: Subscription, **fields: Any) -> Replay:
    now = timezone.now()
    defaults = {"kind": Replay.Kind.FAILED, "until": now, "created_at": now, "by": "alice@acme.example"}
    return Replay.objects.create(
        tenant=subscription.tenant, subscription=subscription, **{**defaults, "expected": 1_234, **fields}
    )


def test_bulk_replays_of_all_tenants_are_shown_with_how_far_they_got(
    admin_client: Client, make_tenant: Callable[..., Tenant], subscribe: Subscribe
) -> None:
    first, second = subscribe(make_tenant("acme")), subscribe(make_tenant("globex"))
    going, cancelled = make_replay(first, queued=2), make_replay(second, cancelled_at=timezone.now())
    for status in ("delivered", "pending"):
        make_delivery(first, status, replay=going)
    listed = reverse("admin:webhooks_replay_changelist")
    for filters, found in [
        ({}, [cancelled, going]),
        ({"tenant": "acme"}, [going]),
        ({"state": "cancelled"}, [cancelled]),
        ({"state": "queued"}, []),
        ({"q": str(going.pk)}, [going]),
        ({"q": "acme"}, []),
    ]:
        assert list(admin_client.get(listed, filters).context["cl"].result_list) == found, filters
    page = text(admin_client.get(reverse("admin:webhooks_replay_change", args=[going.pk])))
    assert "1,234" in page
    assert "<dt>Still open</dt><dd>1</dd>" in page


def test_the_operator_cancels_a_bulk_replay_and_the_tenant_sees_it(
    staff: Callable[..., Client], tenant: Tenant, subscribe: Subscribe
) -> None:
    replay = make_replay(subscribe(tenant))
    client = staff("view_replay")
    cancel = reverse("admin:webhooks_replay_cancel", args=[replay.pk])
    assert client.post(cancel).status_code == 403
    assert cancel not in text(client.get(reverse("admin:webhooks_replay_change", args=[replay.pk])))
    user = User.objects.get(username="staff")
    user.user_permissions.add(Permission.objects.get(codename="cancel_delivery"))
    assert cancel in text(client.get(reverse("admin:webhooks_replay_change", args=[replay.pk])))
    assert "Cancelled" in text(client.post(cancel, follow=True))
    assert "too late" in text(client.post(cancel, follow=True))
    assert deeds(tenant) == [("replay.cancelled", True)]


# --- at once ---


@pytest.mark.django_db(transaction=True)
def test_a_subscription_turned_on_while_its_tenant_is_turned_off_ends_off(tenant: Tenant, subscribe: Subscribe) -> None:
    subscription = subscribe(tenant)
    for _round in range(5):
        edits.disable(subscription, MEMBER)
        together = threading.Barrier(2)
        raised: list[Exception] = []

        def at_once(act: Callable[[], Any], together: threading.Barrier, raised: list[Exception]) -> None:
            try:
                together.wait(10)
                act()
            except edits.Refused:
                pass  # It came second.
            except Exception as error:  # noqa: BLE001
                raised.append(error)
            finally:
                connections.close_all()

        acts = (
            partial(edits.enable, subscription, MEMBER),
            partial(disabling.disable, tenant, OPERATOR, reason="Unpaid"),
        )
        threads = [threading.Thread(target=at_once, args=(act, together, raised)) for act in acts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert raised == []
        assert not Subscription.objects.enabled().exists()
        disabling.enable(tenant, OPERATOR)

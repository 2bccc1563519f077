from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from subscriptions.admin.wishes import BoundedPaginator
from tests.webhooks.traffic import make_attempt, make_delivery, make_event
from webhooks.models import Attempt, Delivery, Event

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.models import Model
    from django.test.utils import CaptureQueriesContext

    from subscriptions.models import Subscription, Tenant

# The head of the index looks into every database that is captured from.
pytestmark = [pytest.mark.django_db(databases=["default", "other"]), pytest.mark.on("sqlite")]

DELIVERIES = "/admin/webhooks/delivery/"
EVENTS = "/admin/webhooks/event/"
ATTEMPTS = "/admin/webhooks/attempt/"
REPLAY = "/admin/webhooks/delivery/replay/"


@pytest.fixture
def acme(tenant: Tenant, subscribe: Callable[..., Subscription]) -> Subscription:
    return subscribe(tenant, "shop.*", url="https://hooks.acme.example/orders")


@pytest.fixture
def globex(make_tenant: Callable[..., Tenant], subscribe: Callable[..., Subscription]) -> Subscription:
    return subscribe(make_tenant("globex"), "shop.*", url="https://hooks.globex.example/")


@pytest.fixture
def staff(client: Client) -> Callable[..., Client]:
    """A member of the staff who may do what is named, logged in."""

    def login(*permissions: str) -> Client:
        user = User.objects.create_user("staff", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        client.force_login(user)
        return client

    return login


def shown(client: Client, path: str, **filters: str) -> set[Any]:
    """The keys of the rows that a list shows."""
    response = client.get(path, filters)
    assert response.status_code == 200, response.headers
    return {row.pk for row in response.context["cl"].result_list}


def page(client: Client, row: Model) -> str:
    response = client.get(reverse(f"admin:webhooks_{row._meta.model_name}_change", args=[row.pk]))
    assert response.status_code == 200
    return response.content.decode()


# Lists


def test_the_lists_show_what_is_there(admin_client: Client, acme: Subscription) -> None:
    delivery = make_delivery(acme)
    attempt = make_attempt(delivery, "timeout")
    assert shown(admin_client, DELIVERIES) == {delivery.pk}
    assert shown(admin_client, EVENTS) == {delivery.event_id}
    assert shown(admin_client, ATTEMPTS) == {attempt.pk}


def test_the_index_links_to_the_pages_of_rq(admin_client: Client) -> None:
    assert reverse("admin:django_rq_dashboard_changelist") in admin_client.get("/admin/").content.decode()


def test_deliveries_are_filtered_by_status(admin_client: Client, acme: Subscription) -> None:
    failed, _ = make_delivery(acme, "failed"), make_delivery(acme, "delivered")
    assert shown(admin_client, DELIVERIES, status__exact="failed") == {failed.pk}


def test_deliveries_are_filtered_by_the_reason_of_their_last_attempt(admin_client: Client, acme: Subscription) -> None:
    timed_out, unreachable = make_delivery(acme), make_delivery(acme)
    make_attempt(timed_out, "connect")
    make_attempt(timed_out, "timeout")
    make_attempt(unreachable, "connect")
    assert shown(admin_client, DELIVERIES, reason="timeout") == {timed_out.pk}
    assert shown(admin_client, DELIVERIES, reason="connect") == {unreachable.pk}


@pytest.mark.parametrize(("age", "found"), [("hour", 1), ("day", 2), ("week", 3), ("", 4)])
def test_deliveries_and_events_are_filtered_by_age(
    admin_client: Client, acme: Subscription, age: str, found: int
) -> None:
    for hours in (0, 2, 30, 400):
        make_delivery(acme, age=timedelta(hours=hours))
    assert len(shown(admin_client, DELIVERIES, age=age)) == found
    assert len(shown(admin_client, EVENTS, age=age)) == found


def test_lists_are_filtered_by_tenant(admin_client: Client, acme: Subscription, globex: Subscription) -> None:
    theirs, _ = make_delivery(acme), make_delivery(globex)
    attempt = make_attempt(theirs)
    assert shown(admin_client, DELIVERIES, tenant="acme") == {theirs.pk}
    assert shown(admin_client, EVENTS, tenant="acme") == {theirs.event_id}
    assert shown(admin_client, ATTEMPTS, tenant="acme") == {attempt.pk}
    assert shown(admin_client, DELIVERIES, tenant="nobody") == set()


@pytest.mark.parametrize(
    ("topic", "found"),
    [("shop.order.created", 1), ("shop.order.*", 2), ("*", 3), ("", 3), ("shop.orderXcreated", 0), ("shop.%", 0)],
)
def test_lists_are_filtered_by_topic(admin_client: Client, acme: Subscription, topic: str, found: int) -> None:
    for name in ("shop.order.created", "shop.order.updated", "shop.tag.created"):
        make_attempt(make_delivery(acme, topic=name))
    for path in (DELIVERIES, EVENTS, ATTEMPTS):
        assert len(shown(admin_client, path, topic=topic)) == found


def test_filters_add_up_and_survive_each_other(admin_client: Client, acme: Subscription, globex: Subscription) -> None:
    wanted = make_delivery(acme, "failed", topic="shop.tag.created")
    make_delivery(acme, "failed")
    make_delivery(acme, "delivered", topic="shop.tag.created")
    make_delivery(globex, "failed", topic="shop.tag.created")
    filters = {"status__exact": "failed", "tenant": "acme", "topic": "shop.tag.created"}
    assert shown(admin_client, DELIVERIES, **filters) == {wanted.pk}
    text = admin_client.get(DELIVERIES, filters).content.decode()
    # The form of the topic keeps the other filters.
    assert '<input type="hidden" name="tenant" value="acme">' in text
    assert '<input type="hidden" name="status__exact" value="failed">' in text


def test_attempts_are_filtered_by_outcome_and_reason(admin_client: Client, acme: Subscription) -> None:
    delivery = make_delivery(acme)
    failed, delivered = make_attempt(delivery, "dns"), make_attempt(delivery)
    in_flight = make_attempt(delivery, ended_at=None, response_status=None)
    assert shown(admin_client, ATTEMPTS, outcome="failed") == {failed.pk}
    assert shown(admin_client, ATTEMPTS, outcome="delivered") == {delivered.pk}
    assert shown(admin_client, ATTEMPTS, outcome="open") == {in_flight.pk}
    assert shown(admin_client, ATTEMPTS, reason="dns") == {failed.pk}


def test_events_are_filtered_by_progress(admin_client: Client, tenant: Tenant) -> None:
    waiting = make_event(tenant, fanned_out_at=None)
    refused = make_event(tenant, body=b"", error="The body has 300,000 bytes; the limit is 262,144.")
    done = make_event(None)
    assert shown(admin_client, EVENTS, progress="waiting") == {waiting.pk}
    assert shown(admin_client, EVENTS, progress="refused") == {refused.pk}
    assert shown(admin_client, EVENTS, progress="fanned-out") == {done.pk}


def test_search_finds_by_every_id_and_by_url(admin_client: Client, acme: Subscription, globex: Subscription) -> None:
    delivery, other = make_delivery(acme), make_delivery(globex)
    attempt = make_attempt(delivery)
    make_attempt(other)
    event = delivery.event
    for term in (str(delivery.pk), str(event.pk), event.webhook_id, event.pk.hex, "hooks.ACME", f" {delivery.pk} "):
        assert shown(admin_client, DELIVERIES, q=term) == {delivery.pk}, term
        assert attempt.pk in shown(admin_client, ATTEMPTS, q=term), term
    assert attempt.pk in shown(admin_client, ATTEMPTS, q=str(attempt.pk))
    assert shown(admin_client, ATTEMPTS, q=event.webhook_id) == {attempt.pk}
    assert shown(admin_client, ATTEMPTS, q=str(attempt.pk + delivery.pk + other.pk + 100)) == set()
    for term in (str(event.pk), event.webhook_id):
        assert shown(admin_client, EVENTS, q=term) == {event.pk}
    assert shown(admin_client, EVENTS, q="shop.order.updated") == {event.pk, other.event_id}


@pytest.mark.parametrize("term", ["9" * 19, "9" * 400, "evt_", "evt_zz", "%", "'", "²", "\x00", "٣", "-1"])
@pytest.mark.parametrize("path", [DELIVERIES, EVENTS, ATTEMPTS])
def test_search_bears_any_term(admin_client: Client, acme: Subscription, path: str, term: str) -> None:
    make_attempt(make_delivery(acme))
    assert admin_client.get(path, {"q": term}).status_code == 200


@pytest.mark.parametrize("filters", [{"age": "x"}, {"status__exact": "x"}, {"reason": "x"}, {"topic": "\x01"}])
def test_filters_bear_any_value(admin_client: Client, filters: dict[str, str]) -> None:
    assert admin_client.get(DELIVERIES, filters).status_code == 200


@pytest.mark.parametrize(("path", "budget"), [(DELIVERIES, 7), (EVENTS, 7), (ATTEMPTS, 7)])
def test_a_list_costs_the_same_however_many_rows_it_shows(
    admin_client: Client,
    acme: Subscription,
    path: str,
    budget: int,
    django_assert_max_num_queries: Callable[..., Any],
) -> None:
    admin_client.get(path)  # what is cached once per process
    for _ in range(60):
        make_attempt(make_delivery(acme), "timeout")
    with django_assert_max_num_queries(budget) as queries:
        admin_client.get(path)
    assert not [query for query in queries.captured_queries if '_body"' in query["sql"] or '."body"' in query["sql"]]


def test_a_list_is_counted_only_as_far_as_anybody_pages(
    admin_client: Client,
    acme: Subscription,
    monkeypatch: pytest.MonkeyPatch,
    django_assert_max_num_queries: Callable[..., CaptureQueriesContext],
) -> None:
    monkeypatch.setattr(BoundedPaginator, "MOST", 3)
    for _ in range(5):
        make_delivery(acme)
    with django_assert_max_num_queries(20) as queries:
        text = admin_client.get(DELIVERIES).content.decode()
    counts = [query["sql"] for query in queries.captured_queries if "COUNT(" in query["sql"]]
    assert counts
    assert all("LIMIT 4" in count for count in counts)
    assert "There are more than these 3" in text
    monkeypatch.setattr(BoundedPaginator, "MOST", 5)
    assert "There are more" not in admin_client.get(DELIVERIES).content.decode()


def test_a_list_is_ordered_by_an_index_alone(admin_client: Client, acme: Subscription) -> None:
    oldest, newest = make_delivery(acme), make_delivery(acme)
    response = admin_client.get(DELIVERIES, {"o": "2"})  # by status
    assert [row.pk for row in response.context["cl"].result_list] == [newest.pk, oldest.pk]


# Reading only


@pytest.mark.parametrize("model", [Event, Delivery, Attempt])
def test_traffic_cannot_be_written_by_hand(admin_client: Client, acme: Subscription, model: type[Model]) -> None:
    make_attempt(make_delivery(acme))
    row = model._default_manager.get()
    for path in ("add/", f"{row.pk}/delete/"):
        url = reverse(f"admin:webhooks_{model._meta.model_name}_changelist") + path
        assert admin_client.post(url, {"post": "yes"}).status_code == 403
    change = reverse(f"admin:webhooks_{model._meta.model_name}_change", args=[row.pk])
    assert admin_client.post(change, {"status": "delivered"}).status_code in {302, 403}
    before = model._default_manager.values().get()
    delete = {"action": "delete_selected", "_selected_action": row.pk, "post": "yes"}
    admin_client.post(reverse(f"admin:webhooks_{model._meta.model_name}_changelist"), delete)
    assert model._default_manager.values().get() == before


@pytest.mark.parametrize("path", [DELIVERIES, EVENTS, ATTEMPTS, REPLAY])
def test_only_staff_with_the_permission_see_traffic(staff: Callable[..., Client], path: str) -> None:
    assert Client().get(path).status_code == 302
    assert staff().get(path).status_code == 403


# One row


def test_a_delivery_reads_newest_first_from_the_next_attempt_on(admin_client: Client, acme: Subscription) -> None:
    delivery = make_delivery(acme, "retrying", next_attempt_at=timezone.now() + timedelta(minutes=11, seconds=30))
    make_attempt(delivery, "status", response_status=503)
    make_attempt(delivery, "timeout", duration_ms=15_000)
    text = page(admin_client, delivery)
    order = ["Next attempt", "Timed out after 15 s", "503 Service Unavailable"]
    assert [text.index(part) for part in order] == sorted(text.index(part) for part in order)
    assert "in 11\xa0minutes" in text


def test_a_delivery_says_why_nothing_goes_out(admin_client: Client, acme: Subscription) -> None:
    delivery = make_delivery(acme, "pending")
    acme.disable(reason="410 Gone")
    assert "The subscription is turned off" in page(admin_client, delivery)


def test_an_attempt_in_flight_is_shown_as_such(admin_client: Client, acme: Subscription) -> None:
    delivery = make_delivery(acme, "pending", leased_until=timezone.now() + timedelta(minutes=1))
    make_attempt(delivery, ended_at=None, response_status=None, duration_ms=None)
    text = page(admin_client, delivery)
    assert "in flight" in text
    assert "Next attempt" not in text
    assert reverse("admin:webhooks_delivery_replay", args=[delivery.pk]) not in text


def test_any_bytes_are_shown_as_text(admin_client: Client, acme: Subscription) -> None:
    event = make_event(acme.tenant, body=b'{"note": "<script>alert(1)</script> \xe2\x80\xae"} \x00\xff')
    delivery = make_delivery(acme, event=event)
    make_attempt(
        delivery,
        "status",
        request_headers=b"x-sent: 1\r\n",
        response_headers=b"x-odd: caf\xe9 <b>\r\n",
        response_body=b"<img src=x onerror=alert(1)> \x00 \xff\xfe",
        response_cut=True,
    )
    text = page(admin_client, delivery)
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert "&lt;img src=x onerror=alert(1)&gt; \\x00 \\xff\\xfe" in text
    assert "x-odd: café &lt;b&gt;" in text
    assert "The body was cut after 33 bytes." in text
    assert "\\u202e" in page(admin_client, event)
    assert "\x00" not in text


def test_a_body_is_indented_for_reading(admin_client: Client, tenant: Tenant) -> None:
    text = page(admin_client, make_event(tenant, body='{"a":{"b":"Grüße"}}'.encode()))
    assert "{\n  &quot;a&quot;: {\n    &quot;b&quot;: &quot;Grüße&quot;\n  }\n}" in text


def test_an_event_shows_its_deliveries(admin_client: Client, acme: Subscription) -> None:
    delivery = make_delivery(acme)
    text = page(admin_client, delivery.event)
    assert reverse("admin:webhooks_delivery_change", args=[delivery.pk]) in text
    assert "https://hooks.acme.example/orders" in text


def test_an_event_for_many_subscriptions_shows_the_newest_of_its_deliveries(
    admin_client: Client, tenant: Tenant, subscribe: Callable[..., Subscription]
) -> None:
    event = make_event(tenant)
    for _ in range(53):
        make_delivery(subscribe(tenant), event=event)
    text = page(admin_client, event)
    assert "All 53 deliveries" in text
    assert text.count("/admin/webhooks/delivery/") < 60


def test_an_event_outlives_its_tenant(admin_client: Client, acme: Subscription) -> None:
    acme.listen_to("subscriptions.*")
    gone = acme.tenant_id
    acme.tenant.delete()
    event = Event.objects.get(topic="subscriptions.subscription.deleted")
    for url in (reverse("admin:webhooks_event_changelist"), reverse("admin:webhooks_event_change", args=[event.pk])):
        assert f"tenant {gone}, deleted" in admin_client.get(url).content.decode()


def test_an_event_over_the_limit_says_so(admin_client: Client, tenant: Tenant) -> None:
    event = make_event(tenant, body=b"", error="The body has 300,000 bytes; the limit is 262,144.")
    assert "The body has 300,000 bytes; the limit is 262,144." in page(admin_client, event)


def test_an_attempt_is_read_in_the_timeline_of_its_delivery(admin_client: Client, acme: Subscription) -> None:
    delivery = make_delivery(acme)
    attempts = [make_attempt(delivery, "connect") for _ in range(25)]
    change = reverse("admin:webhooks_delivery_change", args=[delivery.pk])
    for attempt, query in ((attempts[-1], ""), (attempts[2], "?upto=3")):
        response = admin_client.get(reverse("admin:webhooks_attempt_change", args=[attempt.pk]))
        assert response.headers["location"] == f"{change}{query}#attempt-{attempt.number}"
        assert f'id="attempt-{attempt.number}"' in admin_client.get(f"{change}{query}").content.decode()
    assert 'id="attempt-5"' not in admin_client.get(change).content.decode()


def test_the_pages_of_one_row_cost_the_same_whatever_hangs_on_it(
    admin_client: Client,
    tenant: Tenant,
    subscribe: Callable[..., Subscription],
    django_assert_max_num_queries: Callable[..., Any],
) -> None:
    event = make_event(tenant)
    deliveries = [make_delivery(subscribe(tenant), event=event) for _ in range(12)]
    for _ in range(12):
        make_attempt(deliveries[0], "timeout")
    admin_client.get("/admin/")  # what is cached once per process
    with django_assert_max_num_queries(11):
        page(admin_client, deliveries[0])
    with django_assert_max_num_queries(11):
        page(admin_client, event)


def test_a_row_that_is_gone_leads_back_to_the_index(admin_client: Client) -> None:
    for path in (f"{DELIVERIES}1/change/", f"{ATTEMPTS}1/change/", f"{EVENTS}x/change/"):
        assert admin_client.get(path).headers["location"] == "/admin/"


# Replay and cancel


def act(client: Client, action: str, *deliveries: Delivery) -> None:
    selected = [delivery.pk for delivery in deliveries]
    response = client.post(DELIVERIES, {"action": action, "_selected_action": selected})
    assert response.status_code == 302, response.content


def test_replay_selected_makes_a_manual_attempt_due(admin_client: Client, acme: Subscription) -> None:
    chosen, other = make_delivery(acme, "failed", schedule_step=9), make_delivery(acme, "failed")
    act(admin_client, "replay_selected", chosen)
    chosen.refresh_from_db()
    other.refresh_from_db()
    assert (chosen.status, chosen.trigger, chosen.triggered_by) == ("pending", "manual", "admin")
    assert (chosen.schedule_step, chosen.ended_at) == (0, None)
    assert chosen.next_attempt_at is not None
    assert chosen.next_attempt_at <= timezone.now() + timedelta(seconds=5)
    assert (other.status, other.trigger) == ("failed", "schedule")


def test_what_is_in_flight_is_not_replayed(admin_client: Client, acme: Subscription) -> None:
    delivery = make_delivery(acme, "pending", leased_until=timezone.now() + timedelta(minutes=1), lease=3)
    act(admin_client, "replay_selected", delivery)
    delivery.refresh_from_db()
    assert (delivery.trigger, delivery.lease) == ("schedule", 3)


def test_cancel_selected_ends_what_is_open(admin_client: Client, acme: Subscription) -> None:
    waiting, delivered = make_delivery(acme, "retrying"), make_delivery(acme, "delivered")
    act(admin_client, "cancel_selected", waiting, delivered)
    waiting.refresh_from_db()
    delivered.refresh_from_db()
    assert (waiting.status, waiting.next_attempt_at) == ("cancelled", None)
    assert delivered.status == "delivered"


def test_one_delivery_is_replayed_and_cancelled_on_its_page(admin_client: Client, acme: Subscription) -> None:
    delivery = make_delivery(acme, "failed")
    replay = reverse("admin:webhooks_delivery_replay", args=[delivery.pk])
    cancel = reverse("admin:webhooks_delivery_cancel", args=[delivery.pk])
    assert replay in page(admin_client, delivery)
    assert cancel not in page(admin_client, delivery)
    assert admin_client.get(replay).status_code == 405
    admin_client.post(replay)
    delivery.refresh_from_db()
    assert delivery.status == "pending"
    assert cancel in page(admin_client, delivery)
    admin_client.post(cancel)
    delivery.refresh_from_db()
    assert delivery.status == "cancelled"
    assert admin_client.post(reverse("admin:webhooks_delivery_replay", args=[delivery.pk + 1])).status_code == 404


def test_replay_all_that_match_says_how_many_before_it_happens(
    admin_client: Client, acme: Subscription, globex: Subscription
) -> None:
    matching = [make_delivery(acme, "failed") for _ in range(3)]
    make_delivery(globex, "failed")
    make_delivery(acme, "delivered")
    filters = "?status__exact=failed&tenant=acme&age=day"
    assert f"{REPLAY}?age=day&amp;status__exact=failed&amp;tenant=acme" in (
        admin_client.get(DELIVERIES + filters).content.decode()
    )
    text = admin_client.get(REPLAY + filters).content.decode()
    assert "<strong>3 deliveries</strong> will be sent again" in text
    for words in ("status: Failed", "tenant: acme", "age: last day"):
        assert words in text
    assert not Delivery.objects.filter(trigger="manual").exists()
    admin_client.post(REPLAY + filters, {"newest": matching[-1].pk})
    replayed = Delivery.objects.filter(trigger="manual")
    assert {delivery.pk for delivery in replayed} == {delivery.pk for delivery in matching}
    assert {delivery.triggered_by for delivery in replayed} == {"admin"}


def test_what_comes_to_match_after_the_count_was_shown_is_left_out(admin_client: Client, acme: Subscription) -> None:
    counted = make_delivery(acme, "failed")
    newest = admin_client.get(f"{REPLAY}?status__exact=failed").context["newest"]
    later = make_delivery(acme, "failed")
    admin_client.post(f"{REPLAY}?status__exact=failed", {"newest": newest})
    counted.refresh_from_db()
    later.refresh_from_db()
    assert (counted.status, later.status) == ("pending", "failed")


def test_the_confirmation_says_who_would_get_it_twice(admin_client: Client, acme: Subscription) -> None:
    make_delivery(acme, "delivered")
    make_delivery(acme, "pending", leased_until=timezone.now() + timedelta(minutes=1))
    acme.disable(reason="maintenance")
    text = admin_client.get(REPLAY).content.decode()
    assert "None: these are all the deliveries there are." in text
    assert "1 delivery that arrived before" in text
    assert "2 deliveries of subscriptions that are turned off" in text
    assert "1 delivery being sent right now" in text


def test_replay_all_that_match_asks_again_without_the_number_it_showed(
    admin_client: Client, acme: Subscription
) -> None:
    make_delivery(acme, "failed")
    for posted in ({}, {"newest": "x"}, {"newest": "9" * 30}):
        assert "will be sent again" in admin_client.post(REPLAY, posted).content.decode()
    assert not Delivery.objects.filter(trigger="manual").exists()


def test_replay_all_that_match_refuses_filters_it_does_not_know(admin_client: Client, acme: Subscription) -> None:
    delivery = make_delivery(acme, "failed")
    response = admin_client.post(f"{REPLAY}?state=failed", {"newest": delivery.pk})
    assert response.status_code == 302
    assert not Delivery.objects.filter(trigger="manual").exists()


def test_replay_all_that_match_loads_none_of_them(
    admin_client: Client, acme: Subscription, django_assert_max_num_queries: Callable[..., Any]
) -> None:
    events = Event.objects.bulk_create(
        Event(tenant=acme.tenant, topic="shop.order.updated", body=b"{}", created_at=timezone.now())
        for _ in range(3_000)
    )
    Delivery.objects.bulk_create(
        Delivery(event=event, subscription=acme, tenant=acme.tenant, status="failed", created_at=timezone.now())
        for event in events
    )
    assert "3,000 deliveries" in admin_client.get(f"{REPLAY}?topic=shop.*").content.decode()
    newest = Delivery.objects.latest("pk").pk
    with django_assert_max_num_queries(15):
        admin_client.post(f"{REPLAY}?topic=shop.*", {"newest": newest})
    assert Delivery.objects.filter(trigger="manual", status="pending").count() == 3_000


def test_who_may_only_look_can_replay_and_cancel_nothing(staff: Callable[..., Client], acme: Subscription) -> None:
    client = staff("view_delivery")
    delivery = make_delivery(acme, "failed")
    listed = client.get(DELIVERIES).content.decode()
    assert REPLAY not in listed
    assert "replay_selected" not in listed
    assert client.get(REPLAY).status_code == 403
    assert client.post(REPLAY, {"newest": delivery.pk}).status_code == 403
    for name in ("replay", "cancel"):
        assert client.post(reverse(f"admin:webhooks_delivery_{name}", args=[delivery.pk])).status_code == 403
    client.post(DELIVERIES, {"action": "replay_selected", "_selected_action": [delivery.pk]})
    delivery.refresh_from_db()
    assert delivery.status == "failed"


def test_replaying_and_cancelling_are_permissions_of_their_own(
    staff: Callable[..., Client], acme: Subscription
) -> None:
    client = staff("view_delivery", "replay_delivery")
    delivery = make_delivery(acme, "failed")
    assert client.post(reverse("admin:webhooks_delivery_replay", args=[delivery.pk])).status_code == 302
    assert client.post(reverse("admin:webhooks_delivery_cancel", args=[delivery.pk])).status_code == 403
    delivery.refresh_from_db()
    assert (delivery.status, delivery.triggered_by) == ("pending", "staff")


def test_replaying_is_protected_against_forged_requests(admin_user: User, acme: Subscription) -> None:
    delivery = make_delivery(acme, "failed")
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user)
    assert client.post(REPLAY, {"newest": delivery.pk}).status_code == 403
    assert client.post(reverse("admin:webhooks_delivery_replay", args=[delivery.pk])).status_code == 403
    delivery.refresh_from_db()
    assert delivery.status == "failed"


def test_cancelling_is_protected_against_forged_requests(admin_user: User, acme: Subscription) -> None:
    delivery = make_delivery(acme, "pending")
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user)
    selected = {"_selected_action": [delivery.pk]}
    assert client.post(reverse("admin:webhooks_delivery_cancel", args=[delivery.pk])).status_code == 403
    for action in ("cancel_selected", "replay_selected"):
        assert client.post(DELIVERIES, {**selected, "action": action}).status_code == 403
    delivery.refresh_from_db()
    assert (delivery.status, delivery.trigger) == ("pending", "schedule")


def test_looking_changes_nothing(admin_client: Client, acme: Subscription) -> None:
    delivery = make_delivery(acme, "failed")
    attempt = make_attempt(delivery, "timeout")
    waiting = make_delivery(acme, "retrying")

    def rows() -> list[Any]:
        return [list(model._default_manager.order_by("pk").values()) for model in (Event, Delivery, Attempt)]

    before = rows()
    asked = {"action": "replay_selected", "_selected_action": str(delivery.pk), "newest": str(waiting.pk)}
    for path in (
        DELIVERIES,
        EVENTS,
        ATTEMPTS,
        REPLAY,
        *(reverse(f"admin:webhooks_delivery_{name}", args=[waiting.pk]) for name in ("change", "replay", "cancel")),
        reverse("admin:webhooks_attempt_change", args=[attempt.pk]),
        reverse("admin:webhooks_event_change", args=[delivery.event_id]),
    ):
        admin_client.get(path, asked if path == REPLAY else {})
        admin_client.head(path)
    assert rows() == before


def test_a_second_click_sends_nothing_twice(admin_client: Client, acme: Subscription) -> None:
    delivery = make_delivery(acme, "failed")
    replay = reverse("admin:webhooks_delivery_replay", args=[delivery.pk])
    for _ in range(2):
        admin_client.post(replay)
    # One row with one time at which it is due: one claim, one attempt.
    assert Delivery.objects.filter(pk=delivery.pk, status="pending").count() == 1
    matching = f"{REPLAY}?status__exact=failed"
    failed = make_delivery(acme, "failed")
    first = admin_client.post(matching, {"newest": failed.pk}, follow=True).content.decode()
    second = admin_client.post(matching, {"newest": failed.pk}, follow=True).content.decode()
    assert "1 delivery will be sent again." in first
    assert "No delivery will be sent again." in second


def test_what_was_left_alone_is_said(admin_client: Client, acme: Subscription) -> None:
    free, taken = make_delivery(acme, "failed"), make_delivery(acme, "pending")
    Delivery.objects.filter(pk=taken.pk).update(leased_until=timezone.now() + timedelta(minutes=1))
    selected = {"_selected_action": [free.pk, taken.pk]}
    for action, says in (
        (
            "replay_selected",
            "1 delivery will be sent again. 1 delivery left alone: what a worker is sending right now.",
        ),
        (
            "cancel_selected",
            "1 delivery cancelled. 1 delivery left alone: what is at its end, or being sent right now.",
        ),
        ("cancel_selected", "No delivery cancelled. 2 deliveries left alone"),
    ):
        assert says in admin_client.post(DELIVERIES, {**selected, "action": action}, follow=True).content.decode()


def test_who_cancelled_a_delivery_is_kept(admin_client: Client, acme: Subscription) -> None:
    waiting, ended = make_delivery(acme, "retrying"), make_delivery(acme, "cancelled")
    act(admin_client, "cancel_selected", waiting, ended)
    [entry] = LogEntry.objects.all()
    assert (entry.object_id, entry.user.get_username(), entry.change_message) == (
        str(waiting.pk),
        "admin",
        "Cancelled.",
    )
    history = reverse("admin:webhooks_delivery_history", args=[waiting.pk])
    assert history in page(admin_client, waiting)
    assert "Cancelled." in admin_client.get(history).content.decode()


# What others wrote

MARKUP = "<script>alert(1)</script>\"'"


def test_what_others_wrote_is_text_on_every_page(
    admin_client: Client, make_tenant: Callable[..., Tenant], subscribe: Callable[..., Subscription]
) -> None:
    tenant = make_tenant("odd", name=MARKUP)
    subscription = subscribe(tenant, name=MARKUP, url=f"https://receiver.example/{MARKUP}")
    event = make_event(tenant, MARKUP, changed=[MARKUP], error=MARKUP, body=MARKUP.encode())
    delivery = make_delivery(subscription, "pending", event=event, triggered_by=MARKUP)
    attempt = make_attempt(
        delivery,
        "connect",
        detail=MARKUP,
        url=f"https://receiver.example/{MARKUP}",
        triggered_by=MARKUP,
        request_headers=MARKUP.encode(),
        response_status=500,
        response_headers=MARKUP.encode(),
        response_body=MARKUP.encode(),
    )
    filters = {"topic": MARKUP, "tenant": MARKUP, "q": MARKUP, "age": MARKUP, "status__exact": MARKUP}
    pages = [admin_client.get(path).content.decode() for path in (DELIVERIES, EVENTS, ATTEMPTS)]
    pages += [admin_client.get(path, filters).content.decode() for path in (DELIVERIES, REPLAY)]
    pages += [page(admin_client, row) for row in (event, delivery)]
    for text in pages:
        assert "<script>alert" not in text
        assert "&lt;script&gt;alert" in text
    link = reverse("admin:webhooks_attempt_change", args=[attempt.pk])
    assert link in pages[2]


def test_no_page_of_traffic_shows_a_secret(admin_client: Client, acme: Subscription) -> None:
    delivery = make_delivery(acme)
    attempt = make_attempt(delivery, "timeout")
    key = acme.secrets.get().value.removeprefix("whsec_")
    paths = [DELIVERIES, EVENTS, ATTEMPTS, REPLAY, f"{ATTEMPTS}{attempt.pk}/change/"]
    texts = [admin_client.get(path, follow=True).content.decode() for path in paths]
    texts += [page(admin_client, row) for row in (delivery, delivery.event)]
    assert not [text for text in texts if key in text or "whsec_" in text]


def test_pages_are_shown_without_time_zones(admin_client: Client, acme: Subscription, settings: Any) -> None:
    settings.USE_TZ = False
    delivery = make_delivery(acme, "retrying", next_attempt_at=timezone.now() + timedelta(minutes=11))
    make_attempt(delivery, "timeout")
    for path in (DELIVERIES, EVENTS, ATTEMPTS, REPLAY):
        assert admin_client.get(path, {"age": "day"}).status_code == 200
    assert "Next attempt" in page(admin_client, delivery)
    page(admin_client, delivery.event)

"""Create, edit and delete a subscription in the browser."""

from __future__ import annotations

import logging
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from subscriptions import edits
from subscriptions.models import AuditEntry, Membership, Role, Subscription, Tenant
from subscriptions.trail import Actor
from webhooks import deliveries, events, removal
from webhooks.models import Attempt, Delivery, Event

if TYPE_CHECKING:
    from collections.abc import Callable

    Browser = Callable[[User], Client]

pytestmark = [pytest.mark.django_db, pytest.mark.on("sqlite")]

NEW, CHECK = "/t/acme/subscriptions/new/", "/t/acme/subscriptions/check/"
URL = "https://receiver.example/in/s3cret"
SECRET = re.compile(r"whsec_[A-Za-z0-9+/=]+")
BOB = Actor("bob@acme.example")
AT_MOST = 14  # queries of a page, however much there is to choose


@pytest.fixture
def subscription(tenant: Tenant) -> Subscription:
    topics = {"shop.order.updated": ["status"], "shop.customer.*": [], "shop.*": []}
    return edits.create(tenant, BOB, name="Billing", url=URL, topics=topics, rate_limit=5)[0]


@pytest.fixture
def developer(bob: User, browser: Browser) -> Client:
    Membership.objects.filter(user=bob).update(role=Role.DEVELOPER)
    return browser(bob)


def editing(subscription: Subscription) -> str:
    return reverse("subscriptions:edit", args=["acme", subscription.pk])


def deleting(subscription: Subscription) -> str:
    return reverse("webhooks:delete", args=["acme", subscription.pk])


def typed(*topics: str, **values: Any) -> dict[str, Any]:
    """What the form posts."""
    return {"target": "url", "url": URL, "name": "", "rate_limit": "", "others": "", "topic": list(topics), **values}


def of(subscription: Subscription, *topics: str, **values: Any) -> dict[str, Any]:
    return typed(*topics, version=subscription.version, **values)


def text(response: Any) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", response.content.decode()).split())


def ticked(response: Any) -> set[str]:
    boxes = re.findall(r"<input[^>]*>", response.content.decode())
    on = [box for box in boxes if 'type="checkbox"' in box and " checked" in box]
    return {match[1] for box in on if (match := re.search(r'value="([^"]*)"', box))}


def value_of(response: Any, name: str) -> str:
    box = re.search(rf'<input[^>]*name="{name}"[^>]*>', response.content.decode())
    assert box is not None
    match = re.search(r'value="([^"]*)"', box[0])
    return match[1] if match else ""


# Who may


def test_an_outsider_gets_404_and_who_is_not_signed_in_is_sent_to_sign_in(
    subscription: Subscription, charlie: User, browser: Browser, client: Client
) -> None:
    for url in (NEW, editing(subscription), deleting(subscription)):
        assert browser(charlie).get(url).status_code == 404
        assert browser(charlie).post(url, of(subscription, "*")).status_code == 404
        assert client.get(url).url.endswith(f"?next={url}")  # type: ignore[attr-defined]
    assert browser(charlie).post(CHECK, {"url": URL}).status_code == 404
    assert list(Subscription.objects.values_list("name", "version")) == [("Billing", 1)]


def test_another_tenants_subscription_is_not_there(
    make_tenant: Callable[..., Tenant], subscription: Subscription, alice: User, browser: Browser
) -> None:
    theirs, _ = edits.create(make_tenant("initech"), BOB, url=URL, topics={"*": []})
    for url in (editing(theirs), deleting(theirs)):
        assert browser(alice).get(url).status_code == 404
        assert browser(alice).post(url, of(theirs, "*", name="mine")).status_code == 404
    assert Subscription.objects.filter(pk=theirs.pk, name="").exists()


def test_a_viewer_is_told_that_it_takes_a_developer(subscription: Subscription, bob: User, browser: Browser) -> None:
    Membership.objects.filter(user=bob).update(role=Role.VIEWER)
    for url in (NEW, editing(subscription), deleting(subscription)):
        for response in (browser(bob).get(url), browser(bob).post(url, of(subscription, "*"))):
            assert response.status_code == 403
    assert Subscription.objects.get().version == 1


# Creating


def test_a_developer_makes_one_and_sees_its_secret_once(
    developer: Client, tenant: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    page = developer.get(NEW)
    chosen = typed("shop.order.updated", "shop.tag.created", changed=["shop.order.updated:status"], rate_limit="7")
    with caplog.at_level(logging.DEBUG):
        answer = developer.post(NEW, {**chosen, "name": "Billing", "made_by": value_of(page, "made_by")})
    made = Subscription.objects.get()
    assert (made.tenant, made.name, made.url, made.rate_limit) == (tenant, "Billing", URL, 7)
    assert edits.topics_of(made) == {"shop.order.updated": ["status"], "shop.tag.created": []}
    [secret] = set(SECRET.findall(answer.content.decode()))
    assert secret == made.secrets.get().value
    assert "no-store" in answer.headers["Cache-Control"]
    for language in ("Python", "Node.js", "Go"):
        assert language in text(answer)
    assert reverse("webhooks:subscription", args=["acme", made.pk]) in answer.content.decode()
    assert AuditEntry.objects.get().actor == "bob@acme.example"
    kept = [str(session.get_decoded()) for session in Session.objects.all()]
    assert secret.removeprefix("whsec_") not in "\n".join([*kept, str(developer.cookies), caplog.text])


def test_a_double_click_makes_one_and_both_answers_show_its_secret(developer: Client) -> None:
    chosen = typed("shop.order.created", made_by=value_of(developer.get(NEW), "made_by"))
    answers = [developer.post(NEW, chosen) for _ in range(2)]
    assert Subscription.objects.count() == 1
    assert len({SECRET.search(answer.content.decode())[0] for answer in answers}) == 1  # type: ignore[index]


def test_a_form_that_made_one_and_was_changed_since_asks_before_it_makes_another(developer: Client) -> None:
    chosen = typed("shop.order.created", made_by=value_of(developer.get(NEW), "made_by"))
    developer.post(NEW, chosen)
    asked = developer.post(NEW, {**chosen, "name": "second"})
    assert "has already made the subscription receiver.example. Save again to make another one." in text(asked)
    assert Subscription.objects.count() == 1
    developer.post(NEW, {**chosen, "name": "second", "made_by": value_of(asked, "made_by")})
    assert set(Subscription.objects.values_list("name", flat=True)) == {"", "second"}


def test_what_is_wrong_stands_at_its_field_and_in_the_summary_and_what_was_typed_is_kept(developer: Client) -> None:
    wrong = typed("shop.tag.created", url="http://10.0.0.1/in", name="B" * 201, rate_limit="0", others="shop.* and *")
    page = developer.post(NEW, wrong)
    said = text(page)
    for error in (
        "This address is private; use one that is reached from the internet.",
        "Write at most 200 characters.",
        "Write a whole number from 1 to 1,000, or nothing.",
        "Line 1: write one topic, such as shop.order.updated or shop.*.",
    ):
        assert said.count(error) == 2, error
    assert "4 things are not right yet" in said
    assert (value_of(page, "url"), value_of(page, "name"), value_of(page, "rate_limit")) == (
        "http://10.0.0.1/in",
        "B" * 201,
        "0",
    )
    assert "shop.* and *" in said
    assert ticked(page) == {"shop.tag.created"}
    assert not Subscription.objects.exists()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"topic": []}, "Choose at least one topic."),
        ({"url": ""}, "Write the URL of your receiver, such as https://example.com/webhooks."),
        ({"target": "elsewhere"}, "elsewhere"),
        ({"rate_limit": "many"}, "Write a whole number from 1 to 1,000, or nothing."),
        ({"others": "Shop.Order.updated"}, "Write a topic such as shop.order.updated"),
        ({"others": "shop.order.created (status)"}, "Only topics that end in .updated have changed fields."),
        ({"others": "shop.order.updated (colour)"}, "says of no change of colour"),
        ({"topic": ["nonsense"]}, "nonsense: Write a topic such as"),
        ({"name": "a\x00b"}, "Null characters are not allowed."),
        ({"name": "a\x07b"}, "The name holds an invisible character"),
        ({"made_by": "not a number"}, "Enter a valid UUID."),
    ],
)
def test_each_wrong_value_is_said_and_nothing_is_made(developer: Client, values: dict[str, Any], said: str) -> None:
    response = developer.post(NEW, typed("shop.order.created") | values)
    assert response.status_code == 200
    assert said in text(response)
    assert not Subscription.objects.exists()


def test_markup_that_was_typed_is_text(developer: Client) -> None:
    markup = "<script>alert(1)</script>"
    page = developer.post(NEW, typed(f"shop.{markup}", url=markup, name=markup, others=markup, q=markup))
    assert markup not in page.content.decode()


def test_fields_of_an_update_that_is_not_ticked_are_left_out(developer: Client) -> None:
    developer.post(NEW, typed("shop.tag.created", changed=["shop.order.updated:status"]))
    assert edits.topics_of(Subscription.objects.get()) == {"shop.tag.created": []}


def test_topics_and_patterns_may_be_written_in_lines(developer: Client) -> None:
    lines = "shop.*\r\n\r\n  billing.invoice.updated (paid_at, state)\nbilling.invoice.paid"
    developer.post(NEW, typed("shop.order.created", others=lines))
    assert edits.topics_of(Subscription.objects.get()) == {
        "billing.invoice.paid": [],
        "billing.invoice.updated": ["paid_at", "state"],
        "shop.*": [],
        "shop.order.created": [],
    }


def test_whoever_has_no_server_sends_to_the_inbox(developer: Client) -> None:
    answer = developer.post(NEW, typed("shop.order.created", target="inbox", url="what was typed before"))
    made = Subscription.objects.get()
    assert (made.url, made.is_inbox) == ("inbox:", True)
    assert reverse("webhooks:inbox", args=["acme"]) in answer.content.decode()
    page = developer.get(editing(made))
    assert re.search(r'<input type="radio"[^>]*value="inbox"[^>]*checked', page.content.decode())
    assert value_of(page, "url") == ""
    # Nobody gets there by writing it as a URL.
    refused = developer.post(NEW, typed("shop.order.created", url="inbox:"))
    assert "Begin the URL with https://" in text(refused)


def test_a_topic_that_is_named_in_the_address_is_ticked(developer: Client) -> None:
    assert ticked(developer.get(NEW, {"topic": "shop.order.deleted"})) == {"shop.order.deleted"}
    assert ticked(developer.get(NEW, {"topic": "made.up"})) == set()


def test_a_tenant_without_room_is_told_before_it_types(developer: Client, settings: Any) -> None:
    settings.SIGNALPOST_SUBSCRIPTION_LIMIT = 1
    developer.post(NEW, typed("*"))
    assert "may have 1 subscription, and has it" in text(developer.get(NEW))
    assert "may have 1 subscription, and has it" in text(developer.post(NEW, typed("*")))
    assert Subscription.objects.count() == 1


# The check of a URL


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://192.168.0.7/", "This address is private"),
        ("ftp://receiver.example/", "Begin the URL with https:// or http://"),
        ("https://me:pw@receiver.example/", "Leave out the user name and password"),
        (f"  {URL}  ", "It will be sent to receiver.example."),
        ("", ""),
    ],
)
def test_a_url_is_checked_while_the_form_is_filled(developer: Client, url: str, said: str) -> None:
    response = developer.post(CHECK, {"url": url})
    assert (response.status_code, said in text(response)) == (200, True)
    assert bool(text(response)) is bool(said)
    assert "s3cret" not in text(response)


def test_a_url_is_checked_by_post_so_that_no_log_holds_it(developer: Client) -> None:
    assert developer.get(CHECK, {"url": URL}).status_code == 405


# The grid


def test_the_grid_has_a_header_for_each_row_and_column(developer: Client) -> None:
    page = developer.get(NEW).content.decode()
    assert re.search(r'<th scope="col">created</th>\s*<th scope="col">updated</th>', page)
    assert re.search(r'<th scope="row"><a [^>]*>Orders</a><code>shop.order</code></th>', page)
    for box in re.findall(r'<input type="checkbox"[^>]*name="topic"[^>]*>', page):
        assert "aria-label=" in box or "id=" in box


def rows_shown(response: Any) -> list[str]:
    rows = re.findall(r'<tr class="grid-model" data-words="(\S+)[^>]*?"( hidden)?>', response.content.decode())
    return [label for label, hidden in rows if not hidden]


def test_a_search_shows_the_rows_that_have_all_its_words(developer: Client) -> None:
    assert rows_shown(developer.get(NEW, {"q": "ORDER"})) == ["shop.order"]
    assert rows_shown(developer.get(NEW, {"q": "shop added"})) == ["shop.order", "shop.tag"]
    nothing = developer.get(NEW, {"q": "nothing"})
    assert rows_shown(nothing) == []
    assert "No model is called that." in text(nothing)
    single = r'<label class="check" [^>]*data-words="signalpost.subscription.disabled [^>]*hidden>'
    assert re.search(single, nothing.content.decode())
    assert not re.search(single, developer.get(NEW, {"q": "turned off"}).content.decode())


def test_a_search_without_scripts_keeps_what_was_typed_and_says_nothing_of_errors(developer: Client) -> None:
    page = developer.post(NEW, typed("shop.tag.created", url="htt", name="Billing", q="order", find="1"))
    assert rows_shown(page) == ["shop.order"]
    assert (value_of(page, "url"), value_of(page, "name")) == ("htt", "Billing")
    assert ticked(page) == {"shop.tag.created"}
    assert "not right" not in text(page)
    assert not Subscription.objects.exists()


def test_a_page_takes_few_queries_however_much_is_chosen(
    developer: Client, subscription: Subscription, django_assert_max_num_queries: Callable[..., Any]
) -> None:
    lines: dict[str, list[str]] = {f"billing.kind{n}.created": [] for n in range(300)}
    edits.change(
        subscription,
        BOB,
        version=1,
        name="",
        url=URL,
        rate_limit=None,
        topics={**lines, "shop.order.updated": ["status"]},
    )
    with django_assert_max_num_queries(AT_MOST):
        page = developer.get(editing(subscription))
    assert "billing.kind299.created" in text(page)


# Editing


def test_an_edit_begins_with_what_is(developer: Client, subscription: Subscription) -> None:
    page = developer.get(editing(subscription))
    assert [value_of(page, name) for name in ("url", "name", "rate_limit", "version")] == [URL, "Billing", "5", "1"]
    assert ticked(page) == {"shop.order.updated", "shop.order.updated:status", "shop.customer.*"}
    # What the grid has no box for is a line.
    assert re.search(r"<textarea[^>]*>\s*shop\.\*</textarea>", page.content.decode())


def test_what_the_page_shows_is_what_it_saves(developer: Client, subscription: Subscription) -> None:
    had = edits.topics_of(subscription)
    posted = of(
        subscription, "shop.order.updated", "shop.customer.*", changed="shop.order.updated:status", others="shop.*"
    )
    response = developer.post(editing(subscription), {**posted, "name": "Accounting", "rate_limit": "5"})
    assert response.status_code == 302
    now = Subscription.objects.get()
    assert (now.name, now.version, edits.topics_of(now)) == ("Accounting", 2, had)
    assert AuditEntry.objects.first().detail == {"called": {"from": "Billing", "to": "Accounting"}}  # type: ignore[union-attr]


def test_a_field_that_is_not_offered_any_more_is_kept_as_a_line(developer: Client, subscription: Subscription) -> None:
    subscription.topics.filter(name="shop.order.updated").update(field="colour")
    page = developer.get(editing(subscription))
    assert "shop.order.updated (colour)" in text(page)
    assert "shop.order.updated" not in ticked(page)
    posted = of(subscription, "shop.customer.*", others="shop.*\nshop.order.updated (colour)")
    assert developer.post(editing(subscription), posted).status_code == 302
    assert edits.topics_of(Subscription.objects.get())["shop.order.updated"] == ["colour"]


def test_a_stale_form_says_who_changed_what_and_keeps_what_was_typed(
    developer: Client, subscription: Subscription
) -> None:
    seen = of(subscription, "shop.tag.created", name="Mine", rate_limit="5")
    edits.change(
        subscription,
        Actor("alice@acme.example"),
        version=1,
        name="Hers",
        url="https://hers.example/",
        topics={"shop.order.updated": ["total"]},
        rate_limit=5,
    )
    page = developer.post(editing(subscription), seen)
    said = text(page)
    assert "alice@acme.example changed this subscription meanwhile." in said
    for now in ("https://hers.example/", "Hers", "shop.order.updated (total)"):
        assert now in said
    assert "<dt>Requests" not in page.content.decode()  # the same in both
    assert (value_of(page, "name"), value_of(page, "version"), ticked(page)) == ("Mine", "2", {"shop.tag.created"})
    assert Subscription.objects.get().name == "Hers"
    # Having seen it, one may save it all the same.
    assert developer.post(editing(subscription), {**seen, "version": "2"}).status_code == 302
    assert Subscription.objects.get().name == "Mine"


def test_an_edit_without_the_version_that_was_seen_is_stale(developer: Client, subscription: Subscription) -> None:
    for version in ("", "99"):
        page = developer.post(editing(subscription), {**of(subscription, "*", name="Mine"), "version": version})
        assert "changed this subscription meanwhile" in text(page) or "was changed meanwhile" in text(page)
    assert Subscription.objects.get().name == "Billing"


def test_an_edit_that_is_wrong_is_not_saved(developer: Client, subscription: Subscription) -> None:
    page = developer.post(editing(subscription), of(subscription, "*", url="http://127.1/"))
    assert "Write the IPv4 address as four plain numbers" in text(page)
    assert Subscription.objects.get().version == 1


# Deleting


def with_traffic(tenant: Tenant, count: int) -> None:
    for number in range(count):
        events.publish("shop.order.created", tenant, {"number": number})
    deliveries.fan_out()
    deliveries.claim(count)
    Delivery.objects.update(leased_until=timezone.now() - timedelta(seconds=1))


def test_deleting_asks_first_and_says_how_many_deliveries_go(
    developer: Client, tenant: Tenant, subscription: Subscription
) -> None:
    with_traffic(tenant, 3)
    page = developer.get(deleting(subscription))
    assert "Delete Billing?" in text(page)
    assert "3 deliveries go with it, and every attempt." in text(page)
    part = developer.get(deleting(subscription), headers={"HX-Request": "true", "HX-Target": "delete"})
    assert "3 deliveries go with it" in text(part)
    assert "<html" not in part.content.decode()
    assert Subscription.objects.exists()
    response = developer.post(deleting(subscription))
    assert response.status_code == 302
    assert not Subscription.objects.exists()
    assert not Delivery.objects.exists()
    assert not Attempt.objects.exists()
    assert Event.objects.count() == 3
    assert developer.post(deleting(subscription)).status_code == 404


def test_what_is_too_much_for_one_request_goes_on_in_the_next(
    developer: Client, tenant: Tenant, subscription: Subscription, subscribe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = subscribe(tenant, "shop.*")
    with_traffic(tenant, 5)
    monkeypatch.setattr(removal, "BATCH", 2)
    monkeypatch.setattr(removal.remove, "__kwdefaults__", {"seconds": 0.0})
    page = developer.post(deleting(subscription))
    assert "It is turned off and being deleted: 3 deliveries are left." in text(page)
    assert not Subscription.objects.get(pk=subscription.pk).enabled
    assert "1 delivery is left" in text(developer.post(deleting(subscription)))
    assert developer.post(deleting(subscription)).status_code == 302
    assert list(Subscription.objects.all()) == [other]
    assert Delivery.objects.filter(subscription=other).count() == Delivery.objects.count() == 5


def test_a_count_of_very_many_ends_early(
    developer: Client, tenant: Tenant, subscription: Subscription, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "COUNTED", 2)
    with_traffic(tenant, 4)
    assert "More than 2 deliveries go with it" in text(developer.get(deleting(subscription)))

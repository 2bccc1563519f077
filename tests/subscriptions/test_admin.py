from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from subscriptions import disabling, secrets
from subscriptions.models import AuditEntry, Subscription, Tenant, Topic
from subscriptions.trail import Actor

if TYPE_CHECKING:
    from collections.abc import Callable

# The head of the index looks into every database that is captured from.
pytestmark = [pytest.mark.django_db(databases=["default", "other"]), pytest.mark.on("sqlite")]

SUBSCRIPTIONS = "/admin/subscriptions/subscription/"
TENANTS = "/admin/subscriptions/tenant/"
SECRET = re.compile(r"whsec_[A-Za-z0-9+/=]+")


@pytest.fixture
def staff(client: Client) -> Callable[..., Client]:
    """A member of the staff who may do what is named, logged in."""

    def login(*permissions: str) -> Client:
        user = User.objects.create_user("staff", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        client.force_login(user)
        return client

    return login


def form(*topics: tuple[str, str], topic_ids: tuple[int, ...] = (), **fields: Any) -> dict[str, Any]:
    """What the page of a subscription posts."""
    posted: dict[str, Any] = {"name": "", "url": "https://receiver.example/", **fields}
    posted.update({"topics-TOTAL_FORMS": len(topics), "topics-INITIAL_FORMS": len(topic_ids)})
    for number, (name, field) in enumerate(topics):
        posted |= {f"topics-{number}-name": name, f"topics-{number}-field": field}
    for number, pk in enumerate(topic_ids):
        posted[f"topics-{number}-id"] = pk
    return posted


def act(subscription: Subscription, verb: str) -> str:
    return reverse(f"admin:subscriptions_subscription_{verb}", args=[subscription.pk])


def change(subscription: Subscription) -> str:
    return reverse("admin:subscriptions_subscription_change", args=[subscription.pk])


def found(client: Client, **filters: str) -> set[int]:
    response = client.get(SUBSCRIPTIONS, filters)
    assert response.status_code == 200
    return {row.pk for row in response.context["cl"].result_list}


def text(client: Client, path: str) -> str:
    response = client.get(path)
    assert response.status_code == 200
    return response.content.decode()


# Creating


def test_a_tenant_is_created(admin_client: Client) -> None:
    memberships = {"memberships-TOTAL_FORMS": 0, "memberships-INITIAL_FORMS": 0}
    response = admin_client.post(f"{TENANTS}add/", {"slug": "acme", "name": "Acme", "key": "", **memberships})
    assert response.status_code == 302
    assert Tenant.objects.get().key is None
    assert "acme" in text(admin_client, TENANTS)


def test_a_new_subscription_gets_a_secret_that_is_shown_once(admin_client: Client, tenant: Tenant) -> None:
    topics = (("shop.order.*", ""), ("shop.customer.updated", "email"))
    response = admin_client.post(f"{SUBSCRIPTIONS}add/", form(*topics, tenant=tenant.pk), follow=True)
    subscription = Subscription.objects.get()
    [secret] = subscription.secrets.all()
    assert SECRET.findall(response.content.decode()) == [secret.value]
    assert secrets.key_of(secret.value)
    assert [str(topic) for topic in subscription.topics.order_by("id")] == [
        "shop.order.*",
        "shop.customer.updated (email)",
    ]
    for path in (SUBSCRIPTIONS, change(subscription)):
        assert not SECRET.search(text(admin_client, path))


def test_a_secret_is_in_one_answer_and_nowhere_else(
    admin_client: Client, tenant: Tenant, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither in the session, where messages may be kept, nor in the history, nor in the log."""
    settings.MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"
    unheard = ("billing.invoice.paid", "")  # warned of, by a message
    with caplog.at_level("DEBUG"):
        added = admin_client.post(f"{SUBSCRIPTIONS}add/", form(unheard, tenant=tenant.pk))
        subscription = Subscription.objects.get()
        rotated = admin_client.post(act(subscription, "rotate"))
    for response in (added, rotated):
        [secret] = set(SECRET.findall(response.content.decode()))
        assert "no-store" in response.headers["cache-control"]
        kept = [
            *(str(session.get_decoded()) for session in Session.objects.all()),
            *(f"{entry.object_repr} {entry.change_message}" for entry in LogEntry.objects.all()),
            caplog.text,
        ]
        assert secret.removeprefix("whsec_") not in "\n".join(kept)
    assert "No registered model sends billing.invoice.paid" in added.content.decode()


def test_who_turned_a_subscription_off_and_rotated_its_secret_is_kept(
    admin_client: Client, tenant: Tenant, subscribe: Callable[..., Subscription]
) -> None:
    subscription = subscribe(tenant)
    admin_client.post(act(subscription, "rotate"))
    admin_client.post(act(subscription, "turn_off"), {"reason": "Asked for"})
    admin_client.post(act(subscription, "turn_off"), {"reason": "Asked for again"})
    selected = {"_selected_action": [subscription.pk]}
    admin_client.post(SUBSCRIPTIONS, {**selected, "action": "turn_on_selected"})
    admin_client.post(SUBSCRIPTIONS, {**selected, "action": "turn_off_selected", "reason": "maintenance"})
    admin_client.post(act(subscription, "turn_on"))
    kept = LogEntry.objects.order_by("id").values_list("user__username", "change_message")
    told = ["Rotated the secret.", "Turned off: Asked for", "Turned on.", "Turned off: maintenance", "Turned on."]
    assert list(kept) == [("admin", each) for each in told]
    assert "Turned off: maintenance" in text(admin_client, act(subscription, "history"))


@pytest.mark.parametrize("verb", ["turn_on", "turn_off", "rotate"])
def test_looking_at_a_question_changes_nothing(
    admin_client: Client, tenant: Tenant, subscribe: Callable[..., Subscription], verb: str
) -> None:
    subscription = subscribe(tenant)
    before = Subscription.objects.values().get(), list(subscription.secrets.values())
    text(admin_client, act(subscription, verb))
    assert (Subscription.objects.values().get(), list(subscription.secrets.values())) == before
    assert not LogEntry.objects.exists()


MARKUP = "<script>alert(1)</script>\"'"


def test_what_a_tenant_wrote_is_text_on_every_page(
    admin_client: Client, make_tenant: Callable[..., Tenant], subscribe: Callable[..., Subscription]
) -> None:
    tenant = make_tenant(name=MARKUP, key=MARKUP)
    subscription = subscribe(tenant, "shop.*", name=MARKUP, url=f"https://receiver.example/{MARKUP}")
    subscription.disable(reason=MARKUP)
    pages = [
        text(admin_client, path)
        for path in (
            TENANTS,
            reverse("admin:subscriptions_tenant_change", args=[tenant.pk]),
            SUBSCRIPTIONS,
            f"{SUBSCRIPTIONS}?q={MARKUP}&topic={MARKUP}&tenant={MARKUP}",
            change(subscription),
            *(act(subscription, verb) for verb in ("turn_on", "turn_off", "rotate", "history")),
        )
    ]
    pages.append(admin_client.post(act(subscription, "rotate")).content.decode())
    pages.append(text(admin_client, "/admin/"))  # the recent actions
    for page in pages:
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert" in page


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftp://receiver.example/", "Begin the URL with https:// or http://"),
        ("https://10.0.0.1/", "This address is private"),
        ("https://user:pass@receiver.example/", "Leave out the user name and password"),
        ("", "This field is required"),
    ],
)
def test_a_url_that_cannot_be_a_target_is_refused_with_the_reason(
    admin_client: Client, tenant: Tenant, url: str, says: str
) -> None:
    response = admin_client.post(f"{SUBSCRIPTIONS}add/", form(tenant=tenant.pk, url=url))
    assert response.status_code == 200
    assert says in response.content.decode()
    assert not Subscription.objects.exists()


@pytest.mark.parametrize(
    ("topic", "says"),
    [
        (("Shop Order", ""), "Write a topic such as shop.order.updated"),
        (("shop.*.updated", ""), "Write a topic such as shop.order.updated"),
        (("shop.order.created", "status"), "Only topics that end in .updated have changed fields"),
    ],
)
def test_a_wrong_topic_is_refused_with_the_reason(
    admin_client: Client, tenant: Tenant, topic: tuple[str, str], says: str
) -> None:
    response = admin_client.post(f"{SUBSCRIPTIONS}add/", form(topic, tenant=tenant.pk))
    assert says in response.content.decode()
    assert not Subscription.objects.exists()


def test_a_topic_given_twice_is_refused(admin_client: Client, tenant: Tenant) -> None:
    response = admin_client.post(
        f"{SUBSCRIPTIONS}add/", form(("shop.order.*", ""), ("shop.order.*", ""), tenant=tenant.pk)
    )
    assert "Please correct the duplicate data" in response.content.decode()
    assert not Subscription.objects.exists()


@pytest.mark.parametrize(
    ("topic", "warned"),
    [
        ("shop.ordre.created", True),
        ("shop.ordre.*", True),
        ("shop.order.created", False),
        ("shop.*", False),
        ("*", False),
    ],
)
def test_a_topic_that_no_model_sends_is_pointed_out(
    admin_client: Client, tenant: Tenant, topic: str, warned: bool
) -> None:
    response = admin_client.post(f"{SUBSCRIPTIONS}add/", form((topic, ""), tenant=tenant.pk), follow=True)
    assert Topic.objects.get().name == topic
    assert (f"No registered model sends {topic}" in response.content.decode()) is warned


# Changing


def test_a_subscription_is_edited(admin_client: Client, tenant: Tenant, subscribe: Callable[..., Subscription]) -> None:
    subscription = subscribe(tenant, "shop.order.*")
    topic = subscription.topics.get()
    posted = form(
        ("shop.order.created", ""),
        ("shop.tag.*", ""),
        topic_ids=(topic.pk,),
        name="Billing",
        url="https://new.example/",
    )
    assert admin_client.post(change(subscription), posted).status_code == 302
    subscription.refresh_from_db()
    assert (subscription.name, subscription.url) == ("Billing", "https://new.example/")
    assert set(subscription.topics.values_list("name", flat=True)) == {"shop.order.created", "shop.tag.*"}
    assert subscription.secrets.count() == 1


def test_the_tenant_of_a_subscription_stays(
    admin_client: Client, tenant: Tenant, make_tenant: Callable[..., Tenant], subscribe: Callable[..., Subscription]
) -> None:
    subscription = subscribe(tenant)
    admin_client.post(change(subscription), form(tenant=make_tenant("globex").pk))
    subscription.refresh_from_db()
    assert subscription.tenant == tenant


def test_editing_does_not_turn_on_what_was_turned_off_meanwhile(
    admin_client: Client, tenant: Tenant, subscribe: Callable[..., Subscription], monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription = subscribe(tenant)
    original = Subscription.full_clean

    def meanwhile(self: Subscription, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        subscription.disable(reason="410 Gone")

    monkeypatch.setattr(Subscription, "full_clean", meanwhile)
    assert admin_client.post(change(subscription), form(name="Billing")).status_code == 302
    subscription.refresh_from_db()
    assert (subscription.name, subscription.disabled_reason) == ("Billing", "410 Gone")


def test_nothing_is_deleted_here(admin_client: Client, tenant: Tenant, subscribe: Callable[..., Subscription]) -> None:
    subscription = subscribe(tenant)
    for path in (f"{SUBSCRIPTIONS}{subscription.pk}/delete/", f"{TENANTS}{tenant.pk}/delete/"):
        assert admin_client.post(path, {"post": "yes"}).status_code == 403
    assert "delete_selected" not in text(admin_client, SUBSCRIPTIONS)


def logged(tenant: Tenant) -> list[tuple[str, str, dict[str, Any]]]:
    """Of the tenant's audit log, oldest first; all of it the operator's."""
    entries = AuditEntry.objects.for_tenant(tenant).order_by("id")
    assert all(entry.as_operator for entry in entries)
    return [(entry.action, entry.name, entry.detail) for entry in entries]


def test_what_the_operator_writes_stands_in_the_tenants_log(admin_client: Client, tenant: Tenant) -> None:
    admin_client.post(f"{SUBSCRIPTIONS}add/", form(("shop.order.*", ""), tenant=tenant.pk, name="Billing"))
    subscription = Subscription.objects.get()
    topic = subscription.topics.get()
    kept: dict[str, Any] = {"tenant": tenant.pk, "name": "Billing", "topic_ids": (topic.pk,)}
    admin_client.post(change(subscription), form(("shop.order.*", ""), **kept))  # nothing was edited
    edited: dict[str, Any] = {**kept, "name": "Invoices", "url": "https://new.example/a-secret-path", "rate_limit": "5"}
    admin_client.post(change(subscription), form(("shop.tag.*", ""), ("shop.customer.updated", "email"), **edited))
    admin_client.post(act(subscription, "rotate"))
    assert logged(tenant) == [
        ("subscription.created", "Billing", {"host": "receiver.example", "topics": ["shop.order.*"]}),
        (
            "subscription.changed",
            "Invoices",
            {
                "called": {"from": "Billing", "to": "Invoices"},
                "rate_limit": {"from": None, "to": 5},
                "url": {"from": "receiver.example", "to": "new.example"},
                "topics": {"added": ["shop.tag.*", "shop.customer.updated (email)"], "removed": ["shop.order.*"]},
            },
        ),
        ("secret.rotated", "Invoices", {}),
    ]


def test_a_form_that_is_older_than_the_subscription_says_so(
    admin_client: Client, tenant: Tenant, subscribe: Callable[..., Subscription]
) -> None:
    subscription = subscribe(tenant)
    seen = admin_client.get(change(subscription)).context["adminform"].form["seen"].value()
    subscription.disable(reason="410 Gone")
    response = admin_client.post(change(subscription), form(seen=seen, name="Billing"))
    assert "It was changed meanwhile" in response.content.decode()
    assert "Billing" in response.content.decode()  # what was typed
    subscription.refresh_from_db()
    assert subscription.name == ""
    admin_client.post(change(subscription), form(seen=subscription.version, name="Billing"))
    subscription.refresh_from_db()
    assert subscription.name == "Billing"


def test_what_the_operator_does_to_a_tenant_and_its_people_stands_in_its_log(admin_client: Client) -> None:
    bob = User.objects.create_user("bob", email="bob@acme.example")
    people = {"memberships-TOTAL_FORMS": 1, "memberships-INITIAL_FORMS": 0}
    member = {"memberships-0-user": bob.pk, "memberships-0-role": "viewer"}
    admin_client.post(f"{TENANTS}add/", {"slug": "acme", "name": "Acme", "key": "", **people, **member})
    tenant = Tenant.objects.get()
    page = reverse("admin:subscriptions_tenant_change", args=[tenant.pk])
    people["memberships-INITIAL_FORMS"] = 1
    member |= {"memberships-0-id": str(tenant.memberships.get().pk), "memberships-0-role": "owner"}
    admin_client.post(page, {"slug": "acme", "name": "Acme Ltd", "key": "4711", **people, **member})
    admin_client.post(page, {"slug": "acme", "name": "Acme Ltd", "key": "4711", **people, **member})
    admin_client.post(
        page, {"slug": "acme", "name": "Acme Ltd", "key": "4711", **people, **member, "memberships-0-DELETE": "on"}
    )
    assert logged(tenant) == [
        ("tenant.created", "acme", {}),
        ("member.changed", "bob@acme.example", {"role": "viewer"}),
        ("tenant.changed", "acme", {"called": {"from": "Acme", "to": "Acme Ltd"}, "key": {"from": None, "to": "4711"}}),
        ("member.changed", "bob@acme.example", {"role": "owner"}),
        ("member.removed", "bob@acme.example", {"role": "owner"}),
    ]


def test_editing_a_tenant_does_not_turn_it_on(admin_client: Client, tenant: Tenant) -> None:
    disabling.disable(tenant, Actor("root", as_operator=True), reason="Unpaid")
    memberships = {"memberships-TOTAL_FORMS": 0, "memberships-INITIAL_FORMS": 0}
    page = reverse("admin:subscriptions_tenant_change", args=[tenant.pk])
    admin_client.post(page, {"slug": "acme", "name": "Acme Ltd", "key": "", **memberships})
    tenant.refresh_from_db()
    assert (tenant.name, tenant.disabled_reason) == ("Acme Ltd", "Unpaid")
    for state, found in (("off", True), ("on", False)):
        assert (page in text(admin_client, f"{TENANTS}?state={state}")) is found


# On, off, and the secret


def test_a_subscription_is_turned_off_for_a_reason_and_on_again(
    admin_client: Client, tenant: Tenant, subscribe: Callable[..., Subscription]
) -> None:
    subscription = subscribe(tenant)
    assert act(subscription, "turn_off") in text(admin_client, change(subscription))
    assert "This field is required" in admin_client.post(act(subscription, "turn_off")).content.decode()
    assert Subscription.objects.enabled().exists()
    assert 'name="reason"' in text(admin_client, act(subscription, "turn_off"))
    admin_client.post(act(subscription, "turn_off"), {"reason": "Asked for by <b>Acme</b>"})
    subscription.refresh_from_db()
    assert (subscription.enabled, subscription.disabled_reason) == (False, "Asked for by <b>Acme</b>")
    shown = text(admin_client, change(subscription))
    assert "Asked for by &lt;b&gt;Acme&lt;/b&gt;" in shown
    assert act(subscription, "turn_on") in shown
    assert "Turn on" in text(admin_client, act(subscription, "turn_on"))
    admin_client.post(act(subscription, "turn_on"))
    subscription.refresh_from_db()
    assert (subscription.enabled, subscription.disabled_reason) == (True, "")


def test_selected_subscriptions_are_turned_off_and_on(
    admin_client: Client, tenant: Tenant, subscribe: Callable[..., Subscription]
) -> None:
    first, second, other = (subscribe(tenant) for _ in range(3))
    selected = {"action": "turn_off_selected", "_selected_action": [first.pk, second.pk]}
    asked = admin_client.post(SUBSCRIPTIONS, selected)
    assert asked.status_code == 200
    assert f'name="_selected_action" value="{first.pk}"' in asked.content.decode()
    assert Subscription.objects.enabled().count() == 3
    admin_client.post(SUBSCRIPTIONS, {**selected, "reason": "maintenance"})
    assert [*Subscription.objects.enabled()] == [other]
    assert set(Subscription.objects.exclude(pk=other.pk).values_list("disabled_reason", flat=True)) == {"maintenance"}
    admin_client.post(SUBSCRIPTIONS, {"action": "turn_on_selected", "_selected_action": [first.pk, other.pk]})
    assert set(Subscription.objects.enabled()) == {first, other}


def test_a_secret_is_rotated_and_the_old_one_signs_on_for_a_day(
    admin_client: Client, tenant: Tenant, subscribe: Callable[..., Subscription]
) -> None:
    subscription = subscribe(tenant)
    old = subscription.secrets.get()
    assert "24 hours" in text(admin_client, act(subscription, "rotate"))
    assert subscription.secrets.count() == 1
    response = admin_client.post(act(subscription, "rotate"), follow=True)
    new, before = subscription.secrets.all()
    assert SECRET.findall(response.content.decode()) == [new.value]
    assert before == old
    assert before.expires_at is not None
    assert abs(before.expires_at - timezone.now() - timedelta(hours=24)) < timedelta(minutes=1)
    shown = text(admin_client, change(subscription))
    assert "has no end" in shown
    assert "signs until" in shown
    assert not SECRET.search(shown)


def test_a_subscription_without_a_live_secret_says_so(admin_client: Client, tenant: Tenant) -> None:
    subscription = Subscription.objects.create(tenant=tenant, url="https://receiver.example/")
    assert "nothing can be signed" in text(admin_client, change(subscription))


@pytest.mark.parametrize("verb", ["turn_on", "turn_off", "rotate"])
def test_what_changes_a_subscription_needs_the_permission(
    staff: Callable[..., Client], tenant: Tenant, subscribe: Callable[..., Subscription], verb: str
) -> None:
    subscription = subscribe(tenant)
    client = staff("view_subscription")
    assert act(subscription, verb) not in text(client, change(subscription))
    assert client.get(act(subscription, verb)).status_code == 403
    assert client.post(act(subscription, verb), {"reason": "x"}).status_code == 403
    assert client.post(change(subscription), form(name="x")).status_code == 403
    client.post(SUBSCRIPTIONS, {"action": "turn_off_selected", "_selected_action": [subscription.pk], "reason": "x"})
    subscription.refresh_from_db()
    assert (subscription.enabled, subscription.name, subscription.secrets.count()) == (True, "", 1)


def test_rotating_is_protected_against_forged_requests(
    admin_user: User, tenant: Tenant, subscribe: Callable[..., Subscription]
) -> None:
    subscription = subscribe(tenant)
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user)
    assert client.post(act(subscription, "rotate")).status_code == 403
    assert subscription.secrets.count() == 1


# Lists


def test_subscriptions_are_filtered_and_searched(
    admin_client: Client, make_tenant: Callable[..., Tenant], subscribe: Callable[..., Subscription]
) -> None:
    acme, globex = make_tenant("acme"), make_tenant("globex")
    first = subscribe(acme, "shop.order.*", "shop.tag.created", url="https://one.example/", name="Billing")
    second = subscribe(globex, "shop.tag.created", url="https://two.example/")
    second.disable(reason="410 Gone")
    both = {first.pk, second.pk}
    assert found(admin_client) == both
    assert found(admin_client, state="on") == {first.pk}
    assert found(admin_client, state="off") == {second.pk}
    assert found(admin_client, topic="shop.order.*") == {first.pk}
    assert found(admin_client, topic="shop.tag.created") == both
    assert found(admin_client, tenant="globex") == {second.pk}
    for term in ("one.example", "billing", "acme", str(first.pk)):
        assert found(admin_client, q=term) == {first.pk}, term
    assert found(admin_client, q="9" * 40) == set()


def test_the_list_costs_the_same_however_many_there_are(
    admin_client: Client,
    tenant: Tenant,
    subscribe: Callable[..., Subscription],
    django_assert_max_num_queries: Callable[..., Any],
) -> None:
    for number in range(30):
        subscribe(tenant, "shop.order.*", "shop.tag.*", "shop.customer.created", f"shop.extra.n{number}")
    admin_client.get(SUBSCRIPTIONS)  # what is cached once per process
    with django_assert_max_num_queries(8):
        shown = text(admin_client, SUBSCRIPTIONS)
    assert "and 1 more" in shown


def test_the_list_of_tenants_costs_the_same_however_many_there_are(
    admin_client: Client, make_tenant: Callable[..., Tenant], django_assert_max_num_queries: Callable[..., Any]
) -> None:
    admin_client.get(TENANTS)  # what is cached once per process
    for number in range(30):
        make_tenant(f"tenant-{number}")
    with django_assert_max_num_queries(6):
        assert text(admin_client, TENANTS).count("/admin/subscriptions/tenant/") >= 30


def test_a_list_offers_to_show_all_only_where_it_does_not(admin_client: Client, tenant: Tenant) -> None:
    assert "Show all" not in text(admin_client, TENANTS)
    assert "Show all" in text(admin_client, f"{TENANTS}?q=nobody")


def test_a_tenant_and_its_key_are_found(admin_client: Client, make_tenant: Callable[..., Tenant]) -> None:
    make_tenant("acme", key="4711")
    make_tenant("globex")
    shown = text(admin_client, f"{TENANTS}?q=4711")
    assert "acme" in shown
    assert "globex" not in shown


def test_only_staff_with_the_permission_see_subscriptions(staff: Callable[..., Client]) -> None:
    assert Client().get(SUBSCRIPTIONS).status_code == 302
    client = staff("view_tenant")
    assert client.get(TENANTS).status_code == 200
    assert client.get(SUBSCRIPTIONS).status_code == 403

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from django.core.exceptions import ValidationError
from django.db import connections, transaction
from django.utils import timezone

from subscriptions import edits
from subscriptions.models import AuditEntry, Revision, Secret, Subscription, Tenant, Topic
from subscriptions.trail import Actor

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.django_db

ALICE = Actor("alice@acme.example", user_id=7, address="198.41.0.4")
OPERATOR = Actor("root", user_id=1, as_operator=True)
URL = "https://receiver.example/in/s3cret?key=s3cret"
PAID = {"shop.order.updated": ["status"]}


def create(tenant: Tenant, **values: Any) -> Subscription:
    return edits.create(tenant, ALICE, **{"url": URL, "topics": PAID, **values})[0]


def change(subscription: Subscription, **values: Any) -> Subscription:
    now: dict[str, Any] = {
        "version": subscription.version,
        "name": subscription.name,
        "url": subscription.url,
        "rate_limit": subscription.rate_limit,
        "topics": edits.topics_of(subscription),
    }
    return edits.change(subscription, ALICE, **{**now, **values})


def trail() -> list[tuple[str, dict[str, Any]]]:
    return [(entry.action, entry.detail) for entry in AuditEntry.objects.order_by("id")]


def refusal(**errors: str) -> Any:
    """What pytest.raises calls with a ValidationError by field."""

    def check(error: ValidationError) -> bool:
        found = {field: " ".join(said) for field, said in error.message_dict.items()}
        return found.keys() == errors.keys() and all(errors[field] in found[field] for field in errors)

    return check


# Creating


def test_a_new_subscription_listens_has_a_secret_and_an_entry_in_the_log(tenant: Tenant) -> None:
    topics = {"shop.order.updated": ["status", "total"], "shop.customer.*": []}
    subscription, secret = edits.create(tenant, ALICE, name=" Billing ", url=URL, topics=topics, rate_limit=5)
    kept = Subscription.objects.get()
    assert (kept.tenant, kept.name, kept.url, kept.rate_limit, kept.version) == (tenant, "Billing", URL, 5, 1)
    assert edits.topics_of(kept) == {"shop.customer.*": [], "shop.order.updated": ["status", "total"]}
    assert [each.value for each in kept.secrets.all()] == [secret]
    [entry] = AuditEntry.objects.all()
    assert (entry.tenant_id, entry.actor, entry.user_id, entry.address) == (tenant.pk, ALICE.name, 7, "198.41.0.4")
    assert (entry.kind, entry.number, entry.name) == ("subscription", str(subscription.pk), "Billing")
    listed = ["shop.order.updated (status)", "shop.order.updated (total)", "shop.customer.*"]
    assert (entry.action, entry.detail) == ("subscription.created", {"host": "receiver.example", "topics": listed})


def test_a_new_subscription_needs_something_to_hear(tenant: Tenant) -> None:
    with pytest.raises(ValidationError, check=refusal(topics="Choose at least one topic")):
        create(tenant, topics={})
    assert not Subscription.objects.exists()


def test_all_that_is_wrong_is_said_at_once(tenant: Tenant) -> None:
    wrong: dict[str, Any] = {"name": "a\nb", "url": "http://10.0.0.1/", "rate_limit": 0, "topics": {"shop": []}}
    said = {"name": "invisible", "url": "private", "rate_limit": "1", "topics": "shop: Write a topic such as"}
    with pytest.raises(ValidationError, check=refusal(**said)):
        create(tenant, **wrong)


@pytest.mark.parametrize(
    ("topics", "said"),
    [
        ({"shop.order.created": ["status"]}, "Only topics that end in .updated"),
        (
            {"shop.order.updated": ["colour"]},
            "shop.order.updated says of no change of colour; it does of number, status",
        ),
        ({"shop.order.updated": ["x" * 101]}, "at most 100 characters"),
        ({"Shop.Order.updated": []}, "Write a topic such as"),
        ({"shop.\x00.updated": []}, "Write a topic such as"),
        ({"a." + "b" * 200: []}, "at most 200 characters"),
        ({f"shop.n{number}.created": [] for number in range(1_001)}, "at most 1,000 topics"),
    ],
)
def test_a_topic_that_cannot_be_is_refused(tenant: Tenant, topics: dict[str, list[str]], said: str) -> None:
    with pytest.raises(ValidationError, check=refusal(topics=said)):
        create(tenant, topics=topics)


def test_a_topic_that_only_publish_sends_may_be_named(tenant: Tenant) -> None:
    assert edits.topics_of(create(tenant, topics={"billing.invoice.paid": []})) == {"billing.invoice.paid": []}


def test_a_tenant_has_room_for_so_many(tenant: Tenant, make_tenant: Callable[..., Tenant], settings: Any) -> None:
    settings.SIGNALPOST_SUBSCRIPTION_LIMIT = 2
    create(tenant)
    create(make_tenant("globex"))
    create(tenant)
    with pytest.raises(edits.Refused, match="may have 2 subscriptions, and has them all"):
        create(tenant)
    assert Subscription.objects.for_tenant(tenant).count() == 2


def test_nothing_is_made_for_a_tenant_that_is_turned_off(make_tenant: Callable[..., Tenant]) -> None:
    tenant = make_tenant(disabled_at=timezone.now(), disabled_reason="Unpaid")
    with pytest.raises(edits.Refused, match="turned webhooks off for this tenant: Unpaid"):
        create(tenant)


def test_a_request_that_comes_twice_makes_one(tenant: Tenant, make_tenant: Callable[..., Tenant]) -> None:
    once = uuid4()
    made = create(tenant, made_by=once)
    with pytest.raises(edits.MadeAlready) as caught:
        create(tenant, made_by=once, name="the second")
    assert caught.value.subscription == made
    # What another tenant's request is called is nobody else's business.
    assert create(make_tenant("globex"), made_by=once) != made
    assert len(trail()) == Subscription.objects.count() == 2


def at_once(deed: Callable[[], object], times: int = 4) -> list[object]:
    """Each in a thread and a connection of its own; errors are answers."""

    def one(_: int) -> object:
        try:
            return deed()
        except edits.Refused as error:
            return error
        finally:
            connections.close_all()

    with ThreadPoolExecutor(times) as threads:
        return list(threads.map(one, range(times)))


@pytest.mark.django_db(transaction=True)
def test_requests_that_come_at_once_make_one(tenant: Tenant) -> None:
    once = uuid4()
    answers = at_once(lambda: create(tenant, made_by=once))
    assert Subscription.objects.count() == 1
    assert sum(isinstance(answer, edits.MadeAlready) for answer in answers) == 3


@pytest.mark.django_db(transaction=True)
def test_two_at_once_do_not_both_take_the_last_place(tenant: Tenant, settings: Any) -> None:
    settings.SIGNALPOST_SUBSCRIPTION_LIMIT = 1
    answers = at_once(lambda: create(tenant))
    assert Subscription.objects.count() == 1
    assert sum(isinstance(answer, edits.Refused) for answer in answers) == 3


@pytest.mark.django_db(transaction=True)
def test_of_two_changes_at_once_one_is_told_that_it_is_stale(tenant: Tenant) -> None:
    subscription = create(tenant)
    answers = at_once(lambda: change(subscription, name=str(uuid4())))
    assert Subscription.objects.get().version == 2
    assert sum(isinstance(answer, edits.StaleError) for answer in answers) == 3


# Changing


def test_a_change_counts_up_and_says_what_was_and_is(tenant: Tenant) -> None:
    subscription = create(tenant, topics={"shop.order.updated": ["status"], "shop.*": []})
    kept = subscription.topics.get(name="shop.*").pk
    topics = {"shop.*": [], "shop.order.updated": ["total"]}
    changed = change(subscription, name="Billing", url="https://other.example/s3cret", rate_limit=9, topics=topics)
    now = Subscription.objects.get()
    assert (now.name, now.url, now.rate_limit, now.version) == ("Billing", "https://other.example/s3cret", 9, 2)
    assert changed.version == 2
    assert edits.topics_of(now) == topics
    # Since when it listens is known of what stayed.
    assert now.topics.get(name="shop.*").pk == kept
    assert trail()[1] == (
        "subscription.changed",
        {
            "called": {"from": "", "to": "Billing"},
            "rate_limit": {"from": None, "to": 9},
            "url": {"from": "receiver.example", "to": "other.example"},
            "topics": {"added": ["shop.order.updated (total)"], "removed": ["shop.order.updated (status)"]},
        },
    )
    assert "s3cret" not in str(trail())


def test_a_change_of_nothing_is_none(tenant: Tenant) -> None:
    subscription = create(tenant)
    revision = Revision.current()
    assert change(subscription).version == 1
    assert len(trail()) == 1
    assert Revision.current() == revision


def test_whoever_saw_an_older_one_is_told_what_it_is_now(tenant: Tenant) -> None:
    seen = create(tenant)
    change(seen, name="Billing")
    with pytest.raises(edits.StaleError, match="changed meanwhile") as caught:
        change(seen, name="Accounting")
    assert (caught.value.now.name, caught.value.now.version) == ("Billing", 2)
    assert Subscription.objects.get().name == "Billing"
    assert len(trail()) == 2


def test_a_refused_change_leaves_everything_as_it_was(tenant: Tenant) -> None:
    subscription = create(tenant)
    with pytest.raises(ValidationError, check=refusal(url="private")):
        change(subscription, url="http://10.0.0.1/", topics={"*": []})
    now = Subscription.objects.get()
    assert (now.url, now.version, edits.topics_of(now)) == (URL, 1, PAID)


def test_a_field_that_is_no_longer_exposed_may_stay_where_it_was(tenant: Tenant) -> None:
    subscription = create(tenant)
    Topic.objects.create(subscription=subscription, name="shop.order.updated", field="colour")
    changed = change(subscription, name="Billing")
    assert edits.topics_of(changed) == {"shop.order.updated": ["colour", "status"]}


def test_a_change_of_what_is_deleted_says_so(tenant: Tenant) -> None:
    subscription = create(tenant)
    edits.delete(Subscription.objects.get(), ALICE)
    with pytest.raises(edits.Refused, match="deleted meanwhile"):
        change(subscription, name="x")


def test_an_entry_calls_one_without_a_name_by_its_host(tenant: Tenant) -> None:
    create(tenant)
    assert AuditEntry.objects.get().name == "receiver.example"


def test_a_deleted_one_is_remembered_by_its_name_and_host(tenant: Tenant) -> None:
    subscription = create(tenant, name="Billing")
    pk = subscription.pk
    edits.delete(subscription, ALICE)
    assert not Subscription.objects.exists()
    entry = AuditEntry.objects.get(action="subscription.deleted")
    assert (entry.number, entry.name, entry.detail) == (str(pk), "Billing", {"host": "receiver.example"})


@pytest.mark.django_db(transaction=True)
def test_of_two_that_delete_at_once_one_is_told(tenant: Tenant) -> None:
    subscription = create(tenant)
    answers = at_once(lambda: edits.delete(subscription, ALICE))
    assert sum(isinstance(answer, edits.Refused) for answer in answers) == 3
    assert [action for action, _ in trail()] == ["subscription.created", "subscription.deleted"]


# Turning off and on


def test_a_member_turns_off_and_on_again(tenant: Tenant) -> None:
    subscription = create(tenant)
    assert edits.disable(subscription, ALICE, reason="Holidays")
    off = Subscription.objects.get()
    assert (off.enabled, off.disabled_reason, off.disabled_by, off.version) == (False, "Holidays", "member", 2)
    assert not edits.disable(subscription, ALICE, reason="again")
    assert edits.enable(subscription, ALICE)
    on = Subscription.objects.get()
    assert (on.enabled, on.disabled_reason, on.disabled_by, on.version) == (True, "", "", 3)
    assert not edits.enable(subscription, ALICE)
    assert trail()[1:] == [("subscription.disabled", {"reason": "Holidays"}), ("subscription.enabled", {})]


def test_a_member_turns_on_what_the_engine_turned_off(tenant: Tenant) -> None:
    subscription = create(tenant)
    subscription.disable(reason="410 Gone")
    assert Subscription.objects.get().disabled_by == "engine"
    assert edits.enable(subscription, ALICE)


def test_only_the_operator_undoes_the_operator(tenant: Tenant) -> None:
    subscription = create(tenant)
    edits.disable(subscription, ALICE)
    # The member turned it off; the operator makes that lasting.
    assert edits.disable(subscription, OPERATOR, reason="Abuse")
    assert not edits.disable(subscription, OPERATOR, reason="Abuse again")
    with pytest.raises(edits.Refused, match="only the operator turns it on again: Abuse"):
        edits.enable(subscription, ALICE)
    assert not Subscription.objects.get().enabled
    assert edits.enable(subscription, OPERATOR)
    assert Subscription.objects.get().enabled


def test_what_went_off_with_its_tenant_is_not_a_members_to_turn_on(tenant: Tenant) -> None:
    subscription = create(tenant)
    subscription.disable(reason="Unpaid", by=Subscription.DisabledBy.TENANT)
    with pytest.raises(edits.Refused, match="Unpaid"):
        edits.enable(subscription, ALICE)


@pytest.mark.parametrize("actor", [ALICE, OPERATOR])
def test_nothing_is_turned_on_while_its_tenant_is_off(tenant: Tenant, actor: Actor) -> None:
    subscription = create(tenant)
    edits.disable(subscription, ALICE)
    tenant.disabled_at, tenant.disabled_reason = timezone.now(), "Unpaid"
    tenant.save()
    with pytest.raises(edits.Refused, match="turned webhooks off for this tenant: Unpaid"):
        edits.enable(Subscription.objects.get(), actor)


def test_a_reason_that_is_too_long_is_said_to_be(tenant: Tenant) -> None:
    with pytest.raises(ValidationError, check=refusal(reason="at most 200 characters")):
        edits.disable(create(tenant), ALICE, reason="x" * 201)


# Secrets


def test_rotating_lets_both_sign_and_revealing_shows_both(tenant: Tenant) -> None:
    subscription, first = edits.create(tenant, ALICE, url=URL, topics=PAID)
    second = edits.rotate(subscription, ALICE)
    shown = edits.reveal(subscription, ALICE)
    assert [secret.value for secret in shown] == [second, first]
    assert shown[0].expires_at is None
    assert shown[1].expires_at is not None
    assert [action for action, _ in trail()] == ["subscription.created", "secret.rotated", "secret.revealed"]
    assert not any(secret.removeprefix("whsec_") in str(trail()) for secret in (first, second))


def test_no_more_secrets_sign_at_once_than_a_header_should_hold(tenant: Tenant) -> None:
    subscription = create(tenant)
    for _ in range(4):
        edits.rotate(subscription, ALICE)
    with pytest.raises(edits.Refused, match="Rotate again after"):
        edits.rotate(subscription, ALICE)
    oldest = subscription.secrets.order_by("id")[0]
    Secret.objects.filter(pk=oldest.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert edits.rotate(subscription, ALICE)


def test_a_secret_that_no_key_opens_is_not_shown_but_said(tenant: Tenant, settings: Any) -> None:
    subscription = create(tenant)
    settings.SIGNALPOST_ENCRYPTION_KEYS = ["another passphrase"]
    with pytest.raises(edits.Refused, match="Rotate it"):
        edits.reveal(subscription, ALICE)
    assert len(trail()) == 1


# The log and the deed stand or fall together


@pytest.mark.parametrize(
    "deed",
    [
        lambda subscription: change(subscription, name="x"),
        lambda subscription: edits.delete(subscription, ALICE),
        lambda subscription: edits.disable(subscription, ALICE),
        lambda subscription: edits.rotate(subscription, ALICE),
    ],
    ids=["change", "delete", "disable", "rotate"],
)
def test_a_deed_that_cannot_be_noted_is_not_done(
    tenant: Tenant, deed: Callable[[Subscription], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription = create(tenant)
    before = list(Subscription.objects.values()), list(Secret.objects.values_list("pk", "expires_at"))

    def fails(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no room for the log")

    monkeypatch.setattr(edits, "note", fails)
    with pytest.raises(RuntimeError), transaction.atomic():
        deed(subscription)
    assert (list(Subscription.objects.values()), list(Secret.objects.values_list("pk", "expires_at"))) == before


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://receiver.example/in?key=1", "receiver.example"),
        ("https://receiver.example:8443", "receiver.example:8443"),
        ("https://receiver.example?key=1", "receiver.example"),
        ("https://[2606:4700::1]:8443/in", "[2606:4700::1]:8443"),
        ("inbox:", "inbox"),
    ],
)
def test_a_host_shows_nothing_else_of_a_url(url: str, host: str) -> None:
    assert Subscription(url=url).host == host


def test_a_large_choice_of_topics_takes_few_queries(
    tenant: Tenant, django_assert_max_num_queries: Callable[..., Any]
) -> None:
    many: dict[str, list[str]] = {f"shop.n{number}.created": [] for number in range(300)}
    with django_assert_max_num_queries(25):
        subscription = create(tenant, topics=many)
    with django_assert_max_num_queries(25):
        change(subscription, topics={"shop.*": []})
    assert edits.topics_of(Subscription.objects.get()) == {"shop.*": []}

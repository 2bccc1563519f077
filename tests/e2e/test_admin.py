"""The operator in the admin: how all stands, replay, a tenant turned off, a look as support."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from django.contrib.auth import get_user_model
from playwright.sync_api import expect

from subscriptions.models import AuditEntry, Membership, Role, Tenant
from tests.e2e.showcase import Stage
from tests.e2e.test_looks import PICTURES, WCAG, look
from tests.receiver import Reply
from webhooks.models import Throttle

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import BrowserContext, Page

    from tests.e2e.showcase import Showcase
    from tests.e2e.site import Site

    SignIn = Callable[[BrowserContext, str], None]

OPERATOR, ZOE = "operator@signalpost.example", "zoe@umbrella.example"
REASON = "The invoice of October is open."


@pytest.fixture(scope="module")
def operator(site: Site) -> str:
    people = get_user_model().objects
    return str((people.filter(email=OPERATOR).first() or people.create_superuser(OPERATOR, OPERATOR)).email)


@pytest.fixture(scope="module")
def umbrella(site: Site) -> Tenant:
    """A tenant whose receiver broke, and is mended since."""
    stage = Stage()
    tenant = Tenant.objects.create(slug="umbrella", name="Umbrella")
    Membership.objects.create(tenant=tenant, user=stage.person(ZOE), role=Role.OWNER)
    subscription = stage.subscription(tenant, f"{site.receiver.url}umbrella", "shop.*", name="Umbrella's")
    for minutes in range(3):
        failed = {"reason": "status", "response_status": 500}
        stage.delivery(subscription, "failed", failed, age=timedelta(minutes=minutes))
    Throttle.objects.create(subscription=subscription, failures=3, failing_since=stage.now - timedelta(hours=1))
    return tenant


@pytest.fixture
def page(open_context: Callable[..., BrowserContext], sign_in: SignIn, operator: str) -> Page:
    context = open_context()
    sign_in(context, operator)
    return context.new_page()


@pytest.fixture
def zoe(open_context: Callable[..., BrowserContext], sign_in: SignIn, umbrella: Tenant) -> Page:
    context = open_context()
    sign_in(context, ZOE)
    return context.new_page()


def fill_reason(page: Page, button: str) -> None:
    page.get_by_label("Reason").fill(REASON)
    page.get_by_role("button", name=button).click()


def test_the_operator_sees_what_fails_and_sends_it_again(page: Page, site: Site, umbrella: Tenant) -> None:
    site.work()
    site.receiver.reply = lambda received: Reply()
    before = len(site.receiver.received)
    page.goto("/admin/")
    expect(page.locator("#standing")).to_contain_text("Oldest due delivery")
    page.get_by_role("link", name="The whole overview").click()
    row = page.get_by_role("table", name="Failing now").get_by_role("row").filter(has_text="Umbrella's")
    expect(row).to_contain_text("first failed an hour ago")
    row.get_by_role("link", name="Replay").click()
    expect(page.locator("#content")).to_contain_text("3 deliveries will be sent again")
    page.get_by_role("button", name="Replay 3 deliveries").click()
    expect(page.locator(".messagelist")).to_have_text("3 deliveries will be sent again.")
    site.receiver.wait_for(before + 3)
    entries = AuditEntry.objects.for_tenant(umbrella).filter(action=AuditEntry.Action.REPLAY_STARTED)
    assert entries.get().actor == OPERATOR


def test_a_tenant_that_is_turned_off_reads_why_until_it_is_on_again(page: Page, zoe: Page, umbrella: Tenant) -> None:
    page.goto(f"/admin/subscriptions/tenant/{umbrella.pk}/change/")
    page.get_by_role("link", name="Turn off").click()
    expect(page.locator("#content")).to_contain_text("1 subscription is turned off with it")
    fill_reason(page, "Turn off")
    expect(page.locator(".messagelist")).to_contain_text("Turned off, with 1 subscription")
    zoe.goto("/t/umbrella/")
    expect(zoe.get_by_role("main")).to_contain_text(f"The operator turned webhooks off for you: {REASON}")
    page.get_by_role("link", name="Turn on").click()
    page.get_by_role("button", name="Turn on").click()
    expect(page.locator(".messagelist")).to_contain_text("Turned on, with 1 subscription.")
    zoe.reload()
    expect(zoe.get_by_role("main")).not_to_contain_text(REASON)


def test_support_looks_changes_nothing_and_is_on_record(page: Page, zoe: Page, umbrella: Tenant) -> None:
    page.goto("/t/umbrella/")
    expect(page.get_by_role("main")).to_contain_text("Nothing here")
    page.goto(f"/admin/subscriptions/tenant/{umbrella.pk}/change/")
    page.get_by_role("link", name="Look as support").click()
    fill_reason(page, "Look as support")
    expect(page).to_have_url(re.compile("/t/umbrella/$"))
    main = page.get_by_role("main")
    expect(main).to_contain_text("You look at the pages of Umbrella as support")
    expect(main.get_by_role("link", name="New subscription")).to_have_count(0)
    main.get_by_role("link", name="127.0.0.1").first.click()
    expect(main.get_by_role("button", name=re.compile("Send|Reveal|Turn off|Replay"))).to_have_count(0)
    page.get_by_role("button", name="End").click()
    expect(page).to_have_url(re.compile(f"/admin/subscriptions/tenant/{umbrella.pk}/change/$"))

    zoe.goto("/t/umbrella/audit/")
    log = zoe.get_by_role("main")
    expect(log).to_contain_text(re.compile(f"{OPERATOR}.* looked at umbrella as support"))
    expect(log).to_contain_text(re.compile(r"looked at /t/umbrella/subscriptions/\d+/ as support"))
    log.locator("summary").filter(has_text="looked at umbrella").first.click()
    expect(log).to_contain_text(REASON)


def places(show: Showcase) -> dict[str, str]:
    tenant = f"subscriptions/tenant/{show.tenant.pk}"
    subscription = f"subscriptions/subscription/{show.failing.pk}"
    failed = show.deliveries["failed"]
    paths = {
        "index": "",
        "overview": "webhooks/overview/",
        "deliveries": "webhooks/delivery/",
        "deliveries-filtered": "webhooks/delivery/?status__exact=failed&tenant=acme",
        "delivery": f"webhooks/delivery/{failed.pk}/change/",
        "delivery-replay": "webhooks/delivery/replay/?status__exact=failed",
        "events": "webhooks/event/",
        "event": f"webhooks/event/{failed.event_id}/change/",
        "attempts": "webhooks/attempt/",
        "replays": "webhooks/replay/",
        "replay": f"webhooks/replay/{show.running.pk}/change/",
        "tenants": "subscriptions/tenant/",
        "tenant": f"{tenant}/change/",
        "tenant-turn-off": f"{tenant}/turn-off/",
        "tenant-support": f"{tenant}/support/",
        "subscriptions": "subscriptions/subscription/",
        "subscription": f"{subscription}/change/",
        "subscription-turn-off": f"{subscription}/turn-off/",
        "subscription-rotate": f"{subscription}/rotate/",
        "keys": "subscriptions/apikey/",
        "invitations": "subscriptions/invitation/",
        "audit": "subscriptions/auditentry/",
    }
    return {f"admin-{name}": f"/admin/{path}" for name, path in paths.items()}


def test_every_page_of_ours_in_the_admin_reads_well(page: Page, showcase: Showcase) -> None:
    """By the rules of WCAG; what else is good practice is for Django's own markup to follow."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    found = [what for name, path in places(showcase).items() for what in look(page, name, path, rules=WCAG)]
    assert found == []

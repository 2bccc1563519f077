"""What a new tenant does in its first quarter of an hour, with scripts and without."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import standardwebhooks
from playwright.sync_api import expect

from subscriptions.models import ApiKey, Membership, Tenant
from tests.e2e.showcase import Stage
from tests.receiver import Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Browser, BrowserContext, Page, Route

    from tests.e2e.site import Site
    from tests.receiver import Received

PASSWORD = "correct horse battery staple"


KINDS: dict[str, dict[str, Any]] = {
    "scripts": {},
    "none": {"java_script_enabled": False},
    "narrow": {"width": 360, "color_scheme": "dark", "has_touch": True},
}


@pytest.fixture(params=["scripts", "none"])
def name(request: pytest.FixtureRequest) -> str:
    """Of the browser's kind, and of the company that uses it."""
    return str(request.param)


@pytest.fixture
def scripts(name: str) -> bool:
    return name != "none"


@pytest.fixture
def page(open_context: Callable[..., BrowserContext], name: str) -> Page:
    return open_context(**KINDS[name]).new_page()


def sign_up(page: Page, site: Site, email: str, company: str) -> None:
    """As a stranger does, mail and all; ends on the overview."""
    page.goto("/")
    page.get_by_role("link", name="Sign up").click()
    page.get_by_label("Email").fill(email)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_label("Company").fill(company)
    page.get_by_role("button", name="Sign up").click()
    found = re.search(r"http://\S+/confirm\S+", site.mail(email))
    assert found is not None
    page.goto(found[0])
    page.get_by_role("button", name="Yes, it is mine").click()
    if page.get_by_label("Password").is_visible():
        page.get_by_label("Email").fill(email)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Subscriptions")


def seen(page: Page, text: str, *, scripts: bool) -> None:
    """By itself where scripts run; by reloading where they do not."""
    if scripts:
        expect(page.get_by_role("main")).to_contain_text(text)
        return
    for _ in range(50):
        if page.get_by_role("main").get_by_text(text).count():
            return
        page.wait_for_timeout(100)
        page.reload()
    raise AssertionError(f"{text!r} is not on the page:\n{page.get_by_role('main').inner_text()}")


def shown_secret(page: Page) -> str:
    """The first, which is the newest."""
    return page.locator("code", has_text="whsec_").first.inner_text()


def verify(received: Received, *secrets: str) -> None:
    for secret in secrets:
        standardwebhooks.Webhook(secret).verify(received.body, dict(received.headers))


@pytest.mark.parametrize("name", KINDS, indirect=True)
def test_from_sign_up_to_a_mended_receiver(page: Page, site: Site, name: str, scripts: bool) -> None:
    site.work()
    before = len(site.receiver.received)
    sign_up(page, site, f"ada-{name}@company.example", f"Analytical Engines {name}")

    page.get_by_role("main").get_by_role("link", name="New subscription").first.click()
    page.get_by_label("URL", exact=True).fill(f"{site.receiver.url}{name}")
    page.get_by_label("Name").first.fill("Billing")
    page.get_by_role("checkbox", name="shop.order.updated", exact=True).check()
    page.get_by_role("button", name="Create subscription").click()
    secret = shown_secret(page)
    page.get_by_role("link", name="Send a test event").click()

    page.get_by_role("button", name="Send test event").click()
    (first,) = site.receiver.wait_for(before + 1)[before:]
    verify(first, secret)
    seen(page, "Delivered", scripts=scripts)

    site.receiver.reply = lambda received: Reply(500, body=b'{"error": "out of paper"}')
    page.get_by_role("button", name="Send test event").click()
    site.receiver.wait_for(before + 3)  # and its one retry
    seen(page, "Failed", scripts=scripts)
    page.get_by_role("link", name="Deliveries", exact=True).click()
    page.get_by_label("Status", exact=True).select_option("failed")
    page.get_by_role("button", name="Filter").click()
    page.get_by_role("row").filter(has_text="Failed").get_by_role("link").first.click()
    expect(page.get_by_role("main")).to_contain_text("500 Internal Server Error")
    expect(page.get_by_role("main")).to_contain_text("out of paper")

    site.receiver.reply = lambda received: Reply()
    page.get_by_role("button", name="Replay").click()
    again = site.receiver.wait_for(before + 4)[-1]
    verify(again, secret)
    assert again.webhook_id == site.receiver.received[-2].webhook_id
    seen(page, "Delivered", scripts=scripts)

    page.get_by_role("link", name="Billing").first.click()
    page.get_by_role("link", name="Rotate").click()
    page.get_by_role("button", name="Rotate").click()
    expect(page.get_by_role("main")).to_contain_text("There is a new secret")
    page.get_by_role("button", name="Reveal").click()
    expect(page.get_by_role("main")).to_contain_text("Before it, signing until")
    new = shown_secret(page)
    assert new != secret
    if not page.get_by_role("button", name="Send test event").count():
        page.get_by_role("link", name="Billing").first.click()
    page.get_by_role("button", name="Send test event").click()
    both = site.receiver.wait_for(before + 5)[-1]
    verify(both, secret, new)


def test_a_first_delivery_without_a_server_of_ones_own(page: Page, site: Site, name: str, scripts: bool) -> None:
    site.work()
    sign_up(page, site, f"ben-{name}@company.example", f"Cellar {name}")
    page.get_by_role("main").get_by_role("link", name="New subscription").first.click()
    page.get_by_role("radio", name="The built-in inbox").check()
    page.get_by_role("checkbox", name=re.compile("^Everything")).check()
    page.get_by_role("button", name="Create subscription").click()
    page.get_by_role("link", name="Send a test event").click()
    page.get_by_role("button", name="Send test event").click()
    seen(page, "Delivered", scripts=scripts)
    page.get_by_role("link", name="the built-in inbox").click()
    seen(page, "signalpost.test", scripts=scripts)
    expect(page.get_by_role("main")).to_contain_text("The signature was made with a current secret")


def test_members_are_invited_and_see_what_their_role_may(
    page: Page, site: Site, name: str, scripts: bool, open_context: Callable[..., BrowserContext]
) -> None:
    sign_up(page, site, f"cleo-{name}@company.example", f"Nile {name}")
    page.get_by_role("link", name="Members").click()
    page.get_by_label("Email").fill(f"dan-{name}@company.example")
    page.get_by_role("radio", name="viewer").check()
    page.get_by_role("button", name="Send invitation").click()
    mail = site.mail(f"dan-{name}@company.example", "/invitations/")
    found = re.search(r"http://\S+/invitations/\S+", mail)
    assert found is not None

    other = open_context(java_script_enabled=scripts).new_page()
    other.goto(found[0])
    other.get_by_role("link", name="Create an account").click()
    other.get_by_label("Password", exact=True).fill(PASSWORD)
    other.get_by_role("button", name="Sign up").click()
    expect(other.get_by_role("heading", level=1)).to_have_text("Subscriptions")
    expect(other.get_by_role("link", name="New subscription")).to_have_count(0)
    answer = other.goto(f"{other.url}subscriptions/new/")
    assert answer is not None
    assert answer.status == 403


def test_what_failed_is_replayed_together(page: Page, site: Site, name: str, scripts: bool) -> None:
    site.work()
    sign_up(page, site, f"eva-{name}@company.example", f"Orchard {name}")
    page.get_by_role("main").get_by_role("link", name="New subscription").first.click()
    page.get_by_label("URL", exact=True).fill(f"{site.receiver.url}together-{name}")
    page.get_by_role("checkbox", name="subscriptions.apikey.*", exact=True).check()
    page.get_by_role("button", name="Create subscription").click()
    tenant = Tenant.objects.get(slug=f"orchard-{name}")
    site.receiver.reply = lambda received: Reply(500)
    before = len(site.receiver.received)
    for number in range(12):
        key = ApiKey(tenant=tenant, name=f"key {number}")
        key.fill()
        key.save()
    site.receiver.wait_for(before + 24)
    site.receiver.reply = lambda received: Reply()

    page.get_by_role("link", name="Deliveries", exact=True).click()
    page.get_by_label("Status", exact=True).select_option("failed")
    page.get_by_role("button", name="Filter").click()
    page.get_by_role("link", name=re.compile("^Replay all")).click()
    expect(page.get_by_role("main")).to_contain_text("12")
    page.get_by_role("button", name=re.compile("Replay|Send")).click()
    seen(page, "12 of 12 done", scripts=scripts)
    assert len(site.receiver.received) == before + 36


def test_a_keyboard_reaches_everything(open_context: Callable[..., BrowserContext], site: Site) -> None:
    page = open_context().new_page()
    sign_up(page, site, "fay@company.example", "Quay")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    reached = page.evaluate("document.activeElement.textContent.trim()")
    assert reached == "New subscription"
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("New subscription")
    page.get_by_label("URL", exact=True).focus()
    page.keyboard.type("https://quay.example/in")
    box = page.get_by_role("checkbox", name="shop.order.created", exact=True)
    for _ in range(60):
        page.keyboard.press("Tab")
        if box.evaluate("box => box === document.activeElement"):
            break
    page.keyboard.press("Space")
    expect(box).to_be_checked()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Subscription created")


def test_a_wrong_form_keeps_what_was_typed_and_says_what_would_be_right(
    page: Page, site: Site, name: str, scripts: bool
) -> None:
    sign_up(page, site, f"gus-{name}@company.example", f"Forge {name}")
    page.get_by_role("main").get_by_role("link", name="New subscription").first.click()
    page.get_by_label("URL", exact=True).fill("https://169.254.169.254/latest")
    page.get_by_label("Name").first.fill("Kept")
    page.get_by_role("button", name="Create subscription").click()
    expect(page.get_by_label("URL", exact=True)).to_have_value("https://169.254.169.254/latest")
    expect(page.get_by_label("Name").first).to_have_value("Kept")
    expect(page.get_by_role("alert")).to_contain_text("This address is link-local")


def test_deliveries_are_filtered_and_paged_both_ways(page: Page, site: Site, name: str, scripts: bool) -> None:
    sign_up(page, site, f"hal-{name}@company.example", f"Harbour {name}")
    tenant = Tenant.objects.get(slug=f"harbour-{name}")
    stage = Stage()
    subscription = stage.subscription(tenant, "https://harbour.example/in", "shop.order.*")
    for number in range(70):
        stage.delivery(
            subscription, "failed" if number % 10 == 0 else "delivered", {}, age=timedelta(minutes=70 - number)
        )
    page.get_by_role("link", name="Deliveries", exact=True).click()
    rows = page.get_by_role("main").get_by_role("table").locator("tbody tr")
    newest = rows.first.inner_text()
    first = rows.count()
    page.get_by_role("link", name=re.compile("Older")).click()
    expect(rows).to_have_count(70 - first)
    page.get_by_role("link", name=re.compile("Newer")).click()
    expect(rows).to_have_count(first)
    assert rows.first.inner_text() == newest
    page.get_by_label("Status", exact=True).select_option("failed")
    page.get_by_role("button", name="Filter").click()
    expect(rows).to_have_count(7)
    assert "status=failed" in page.url
    page.get_by_role("link", name="Clear").click()
    expect(rows).to_have_count(first)


def test_a_lost_session_comes_back_to_where_it_was(page: Page, site: Site, name: str, scripts: bool) -> None:
    email = f"ida-{name}@company.example"
    sign_up(page, site, email, f"Isle {name}")
    page.get_by_role("link", name="Topics").click()
    where = page.url
    page.context.clear_cookies(name="sessionid")
    page.reload()
    page.get_by_label("Email").fill(email)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(where)


def test_a_part_that_cannot_be_had_is_asked_for_as_a_page(
    browser: Browser, site: Site, sign_in: Callable[[BrowserContext, str], None]
) -> None:
    stage = Stage()
    tenant = Tenant.objects.create(slug="pier", name="Pier")
    Membership.objects.create(tenant=tenant, user=stage.person("jo@pier.example"), role="owner")
    stage.subscription(tenant, "https://pier.example/in", "shop.*")
    # Not watched, as htmx tells the console of each answer that is an error.
    with browser.new_context(base_url=site.url) as context:
        sign_in(context, "jo@pier.example")
        page = context.new_page()
        parts: list[str] = []

        def refuse(route: Route) -> None:
            if "hx-request" in route.request.headers:
                parts.append(route.request.url)
                route.fulfill(status=500)
            else:
                route.continue_()

        page.route("**/*period=30d*", refuse)
        page.goto("/t/pier/")
        page.get_by_role("link", name="30 days").click()
        expect(page.get_by_role("heading", name="The last 30 days")).to_be_visible()
        assert len(parts) == 1


def test_a_narrow_screen_shows_the_section_of_the_page(
    open_context: Callable[..., BrowserContext], sign_in: Callable[[BrowserContext, str], None], site: Site
) -> None:
    tenant = Tenant.objects.create(slug="strait", name="Strait")
    Membership.objects.create(tenant=tenant, user=Stage().person("kim@strait.example"), role="owner")
    context = open_context(width=360)
    sign_in(context, "kim@strait.example")
    page = context.new_page()
    for section in ("Subscriptions", "Members", "Settings"):
        page.goto("/t/strait/")
        page.get_by_role("link", name=section, exact=True).click()
        expect(page.locator(".sections [aria-current]")).to_have_text(section)
        expect(page.locator(".sections [aria-current]")).to_be_in_viewport(ratio=1)

"""Every page in every state: nothing that axe finds, nothing wider than the
screen, and a picture for people to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.conf import settings as project

from tests.e2e.showcase import ALICE, BOB

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import BrowserContext, Page

    from tests.e2e.showcase import Showcase

PICTURES = project.BASE_DIR / "var" / "screenshots"
LARGEST = 150_000  # bytes of a picture in the README
LOOKS: list[tuple[int, Literal["light", "dark"]]] = [(360, "light"), (360, "dark"), (1280, "light"), (1280, "dark")]
WCAG = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa")


def places(show: Showcase) -> dict[str, str]:
    tenant = f"/t/{show.tenant.slug}"
    deliveries = {
        f"delivery-{name}": f"{tenant}/deliveries/{delivery.pk}/" for name, delivery in show.deliveries.items()
    }
    subscriptions = {
        f"subscription-{name}": f"{tenant}/subscriptions/{getattr(show, name).pk}/"
        for name in ("healthy", "failing", "off", "inbox")
    }
    return {
        "overview": f"{tenant}/",
        "overview-30d": f"{tenant}/?period=30d",
        "overview-empty": f"/t/{show.fresh.slug}/",
        **subscriptions,
        "create": f"{tenant}/subscriptions/new/",
        "edit": f"{tenant}/subscriptions/{show.failing.pk}/edit/",
        "deliveries": f"{tenant}/deliveries/",
        "deliveries-failed": f"{tenant}/deliveries/?status=failed",
        "deliveries-none": f"{tenant}/deliveries/?topic=no.such.topic",
        "deliveries-empty": f"/t/{show.fresh.slug}/deliveries/",
        "deliveries-refused": f"{tenant}/deliveries/?status=bad&since=never",
        **deliveries,
        "replay": f"{tenant}/replays/{show.running.pk}/",
        "replay-new": f"{tenant}/replays/new/?kind=failed&subscription={show.failing.pk}",
        "inbox": f"{tenant}/inbox/",
        "inbox-empty": f"/t/{show.fresh.slug}/inbox/",
        "topics": f"{tenant}/topics/",
        "keys": f"{tenant}/keys/",
        "keys-empty": f"/t/{show.fresh.slug}/keys/",
        "members": f"{tenant}/members/",
        "audit": f"{tenant}/audit/",
        "settings": f"{tenant}/settings/",
        "account-email": "/account/email/",
        "account-password": "/account/password/change/",
        "account-two-factor": "/account/two-factor/",
        "not-found": f"{tenant}/nothing/",
    }


SIGNED_OUT = {
    "sign-in": "/account/login/",
    "sign-up": "/account/signup/",
    "reset": "/account/password/reset/",
    "api": "/api/v1/docs/",
}


def look(page: Page, name: str, path: str, *, rules: tuple[str, ...] = (*WCAG, "best-practice")) -> list[str]:
    page.goto(path)
    found = []
    for width, scheme in LOOKS:
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        # The admin's colours change over some moments.
        page.evaluate("Promise.allSettled(document.getAnimations().map(each => each.finished)).then(() => {})")
        seen = f"{name} {width} {scheme}"
        page.screenshot(path=PICTURES / f"{name}-{width}-{scheme}.png", full_page=True)
        found += [
            f"{seen}: {each['id']} {[node['target'] for node in each['nodes'][:3]]}" for each in violations(page, rules)
        ]
        if page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
            found.append(f"{seen}: wider than the screen")
    return found


def violations(page: Page, rules: tuple[str, ...]) -> list[dict[str, list[dict[str, object]]]]:
    # It would load stylesheets once more, into a <style> that our policy refuses.
    options = {"runOnly": [*rules], "preload": False}
    found: list[dict[str, list[dict[str, object]]]] = Axe().run(page, options=options).response["violations"]
    return found


VIEWERS = ("overview", "subscription-failing", "delivery-failed", "members", "keys", "settings")


@pytest.mark.parametrize("group", ["stranger", "owner", "viewer"])
def test_every_page_reads_well(
    showcase: Showcase,
    open_context: Callable[..., BrowserContext],
    sign_in: Callable[[BrowserContext, str], None],
    group: str,
) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    context = open_context()
    wanted = SIGNED_OUT
    if group == "owner":
        sign_in(context, ALICE)
        wanted = places(showcase)
    elif group == "viewer":
        sign_in(context, BOB)
        wanted = {f"{name}-viewer": places(showcase)[name] for name in VIEWERS}
    page = context.new_page()
    found = [what for name, path in wanted.items() for what in look(page, name, path)]
    assert found == []


@pytest.mark.parametrize("name", ["overview", "delivery-delivered"])
def test_pictures_for_the_readme_are_small(
    request: pytest.FixtureRequest,
    showcase: Showcase,
    open_context: Callable[..., BrowserContext],
    sign_in: Callable[[BrowserContext, str], None],
    name: str,
) -> None:
    """`make pictures` writes them to docs/img/."""
    folder = Path(request.config.getoption("--pictures") or PICTURES / "readme")
    folder.mkdir(parents=True, exist_ok=True)
    context = open_context(width=1080, height=1080)
    sign_in(context, ALICE)
    page = context.new_page()
    page.goto(places(showcase)[name])
    picture = folder / f"{name.partition('-')[0]}.png"
    page.screenshot(path=picture)
    assert picture.stat().st_size < LARGEST

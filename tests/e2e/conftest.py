"""A site, a browser, and people who sign in."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from django.conf import settings as project
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.contrib.sessions.backends.db import SessionStore
from django.db import connections
from playwright.sync_api import sync_playwright

from tests.e2e.showcase import Showcase, build
from tests.e2e.site import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request

PATIENCE = 15_000  # milliseconds
CONTEXTS = pytest.StashKey[list[Any]]()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is looked at first, before a worker delivers it."""
    items.sort(key=lambda item: "showcase" not in getattr(item, "fixturenames", ()))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pictures", default="", help="the folder of the README's pictures, to make them anew")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: Any) -> Iterator[Site]:
    """Its database is this process's, too."""
    connection = connections["default"]
    before = dict(connection.settings_dict)
    place = Site(tmp_path_factory.mktemp("site"))
    connection.close()
    connection.settings_dict["NAME"] = str(place.database)
    with django_db_blocker.unblock(), place:
        try:
            yield place
        finally:
            connection.close()
            connection.settings_dict.update(before)


@pytest.fixture(scope="session")
def showcase(site: Site) -> Showcase:
    site.rest()  # what waits is to be seen waiting
    return build()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.getuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=os.environ["CHROMIUM"], args=arguments)
        yield browser
        browser.close()


class Watched:
    """What a page must not do: complain, break its policy, ask another host."""

    def __init__(self, context: BrowserContext, host: str) -> None:
        self.trouble: list[str] = []
        self.host = host
        context.on("console", self._hear)
        context.on("weberror", lambda error: self.trouble.append(f"error: {error.error}"))
        context.on("request", self._see)

    def _hear(self, message: ConsoleMessage) -> None:
        # An answer other than 2xx that a test asked for is told in the console, too.
        if message.type in {"error", "warning"} and "Failed to load resource" not in message.text:
            self.trouble.append(f"{message.type}: {message.text} at {message.location}")

    def _see(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in {"http", "https"} and parts.netloc != self.host:
            self.trouble.append(f"asked another host: {request.url}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """What the pages showed when a test failed."""
    report = yield
    if report.when == "call" and report.failed:
        for context in item.stash.get(CONTEXTS, []):
            for page in context.pages:
                report.sections.append((page.url, page.locator("body").inner_text()))
    return report


@pytest.fixture
def open_context(
    request: pytest.FixtureRequest, site: Site, browser: Browser
) -> Iterator[Callable[..., BrowserContext]]:
    """`open_context(java_script_enabled=False, color_scheme="dark")`: a browser of somebody's own."""
    contexts: list[tuple[BrowserContext, Watched]] = []

    def make(*, width: int = 1280, height: int = 800, **options: Any) -> BrowserContext:
        viewport = {"width": width, "height": height}
        context = browser.new_context(base_url=site.url, viewport=viewport, reduced_motion="reduce", **options)  # type: ignore[arg-type]
        context.set_default_timeout(PATIENCE)
        contexts.append((context, Watched(context, urlsplit(site.url).netloc)))
        request.node.stash.setdefault(CONTEXTS, []).append(context)
        return context

    yield make
    for context, _ in contexts:
        context.close()
    assert [what for _, watched in contexts for what in watched.trouble] == []


@pytest.fixture
def page(open_context: Callable[..., BrowserContext]) -> Page:
    return open_context().new_page()


@pytest.fixture
def sign_in(site: Site) -> Callable[[BrowserContext, str], None]:
    """Without the form, which has a test of its own."""

    def by_cookie(context: BrowserContext, email: str) -> None:
        user = get_user_model().objects.get(email=email)
        session = SessionStore()
        session[SESSION_KEY] = str(user.pk)
        session[BACKEND_SESSION_KEY] = project.AUTHENTICATION_BACKENDS[0]
        session[HASH_SESSION_KEY] = user.get_session_auth_hash()
        session.create()
        value = str(session.session_key)
        context.add_cookies([{"name": project.SESSION_COOKIE_NAME, "value": value, "url": site.url}])

    return by_cookie

"""The pytest plugin: the fixture `webhooks_sent`.

pytest imports this in every project where Signalpost is installed, before
Django is set up: nothing but pytest may be imported at the top.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from webhooks.testing.sent import Sent

NO_DJANGO = "The fixture webhooks_sent needs pytest-django: pip install pytest-django"
NO_APPS = 'The fixture webhooks_sent needs "subscriptions" and "webhooks" in INSTALLED_APPS.'


@pytest.fixture
def webhooks_sent(request: pytest.FixtureRequest) -> Iterator[Sent]:
    """What the code under test would send, without a queue, a worker, Redis or HTTP."""
    try:
        # By name: where pytest-django is not installed there is no such fixture.
        request.getfixturevalue("db")
    except pytest.FixtureLookupError as error:
        if error.argname != "db":
            raise
        pytest.fail(NO_DJANGO, pytrace=False)
    from django.apps import apps

    if not (apps.is_installed("subscriptions") and apps.is_installed("webhooks")):
        pytest.fail(NO_APPS, pytrace=False)
    from webhooks.testing.sent import capture

    with capture() as sent:
        yield sent


def pytest_assertrepr_compare(op: str, left: Any, right: Any) -> list[str] | None:
    """Why `assert webhooks_sent.topics == […]` failed, in sentences."""
    module = sys.modules.get("webhooks.testing.sent")
    for sent, expected in ((left, right), (right, left)):
        if module is not None and op == "==" and isinstance(sent, module.Topics) and isinstance(expected, list):
            lines: list[str] = sent.unlike(expected)
            return lines
    return None

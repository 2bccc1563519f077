"""What is in the code is in the README, and the other way round."""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from django.core.management import get_commands, load_command_class
from django.core.management.base import BaseCommand

from subscriptions import catalog, keys, people
from subscriptions.conf import DEFAULTS, PREFIX
from subscriptions.models import Role
from subscriptions.models.tenants import INVITED_FOR
from webhooks import __version__, drain, events, metrics, urls
from webhooks.models import Attempt, Delivery

if TYPE_CHECKING:
    from collections.abc import Callable

    from subscriptions.models import Subscription, Tenant
    from tests.receiver import Receiver

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
OF_EVERY_COMMAND = {
    option for action in BaseCommand().create_parser("manage.py", "any")._actions for option in action.option_strings
}


def rows(heading: str) -> dict[str, str]:
    """The table whose head begins with `heading`: first cell → whole row."""
    table = README.split(f"\n| {heading} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return {row.split("|")[1].strip(): row for row in table}


def codes(text: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", text))


def test_every_setting_stands_in_its_table_with_its_default() -> None:
    table = rows("setting")
    assert set(table) == {f"`{PREFIX}{name}`" for name in DEFAULTS}
    for name, default in DEFAULTS.items():
        if isinstance(default, bool | int | float) and default:
            assert f"{default:g}" in table[f"`{PREFIX}{name}`"].replace(",", ""), name


def test_every_variable_of_the_environment_stands_in_its_table() -> None:
    tree = ast.parse((ROOT / "config" / "settings.py").read_text())
    read = {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "env"
        and isinstance(node.args[0], ast.Constant)
    }
    assert read <= codes("\n".join(rows("variable")))
    assert {"DATABASE_URL", "SECRET_KEY", "HTTPS"} <= read


def test_every_command_and_option_stands_in_its_table() -> None:
    table = rows("command")
    ours = {name for name, app in get_commands().items() if app == "webhooks"}
    assert {f"`{name}`" for name in ours} == set(table) - {"`rqworker`"}
    for name in ours:
        parser = load_command_class("webhooks", name).create_parser("manage.py", name)
        options = {option for action in parser._actions for option in action.option_strings if option.startswith("--")}
        missing = {option for option in options - OF_EVERY_COMMAND if option not in table[f"`{name}`"]}
        assert not missing, f"{name}: {missing}"


@pytest.mark.parametrize(
    ("heading", "choices"),
    [("delivery", Delivery.Status.values), ("attempt failed with", Attempt.Reason.values)],
)
def test_every_status_and_reason_stands_in_its_table(heading: str, choices: list[str]) -> None:
    assert list(rows(heading)) == [f"`{choice}`" for choice in choices]


def test_every_action_stands_in_the_table_of_signals() -> None:
    table = codes("\n".join(rows("signal").values()))
    assert set(catalog.ACTIONS) <= table


def test_every_check_stands_in_its_table() -> None:
    written = {
        found
        for file in (ROOT / "webhooks" / "checks").glob("*.py")
        for found in re.findall(r'"(signalpost\.[EWI][0-9]{3})"', file.read_text())
    }
    assert set(rows("check")) == {f"`{check}`" for check in written}


@pytest.mark.django_db(databases="__all__")
def test_every_metric_stands_in_its_table_with_its_label() -> None:
    table = rows("metric")
    families = list(metrics.families())
    assert set(table) == {f"`{family.name}`" for family in families}
    for family in families:
        for _, label, _ in family.samples:
            assert label is None or f"`{label[0]}`" in table[f"`{family.name}`"], family.name
    assert f"{metrics.MOST:,}" in table["`signalpost_events_waiting`"]
    assert f"{metrics.MOST:,}" in table["`signalpost_deliveries_open`"]


def test_every_alert_is_on_a_metric_that_there_is() -> None:
    named = set(re.findall(r"signalpost_\w+", "\n".join(rows("alert"))))
    assert len(named) >= 6
    assert named <= set(re.findall(r"signalpost_\w+", "\n".join(rows("metric"))))


def test_every_path_stands_in_its_table() -> None:
    assert set(rows("path")) == {f"`/{pattern.pattern}`" for pattern in urls.urlpatterns}


def test_every_role_stands_in_its_table_and_every_limit_below_it() -> None:
    assert list(rows("role")) == [f"`{role}`" for role in Role.values]
    text = README.split("### People, API keys and the audit log", 1)[1].split("\n## ", 1)[0]
    for limit in (INVITED_FOR.days, people.MOST_OPEN, people.MOST_A_DAY, keys.MOST):
        assert f" {limit} " in text, limit
    assert {scope.value for scope in keys.MAY} <= codes(text)


def test_every_argument_of_register_stands_in_its_table() -> None:
    assert set(rows("argument")) == {f"`{name}`" for name in inspect.signature(catalog.register).parameters}


@pytest.mark.django_db(transaction=True, databases="__all__")
def test_every_header_of_a_request_stands_in_its_table(
    tenant: Tenant, subscribe: Callable[..., Subscription], receiver: Receiver, redis_url: str
) -> None:
    subscribe(tenant, "*", url=receiver.url)
    events.publish("billing.invoice.paid", tenant, {})
    drain.run()
    (received,) = receiver.wait_for(1)
    assert set(rows("request header")) == {f"`{name}`" for name in received.headers}


def test_every_answer_of_the_test_receiver_stands_there() -> None:
    text = README.split("While you write a receiver", 1)[1].split("## ", 1)[0]
    for status in ("204", "400", "405", "411", "413"):
        assert status in text


def test_the_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__
    assert f"\n## {__version__}" in (ROOT / "CHANGELOG.md").read_text()

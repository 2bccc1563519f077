"""Topics that programs publish: their schemas, what does not fit, and what is wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.core.checks import run_checks
from django.dispatch import Signal
from jsonschema import Draft202012Validator

from subscriptions import catalog, offers
from subscriptions.conf import conf
from subscriptions.declared import MOST_FAULTS, Declared
from subscriptions.models import Tenant
from tests.webhooks.personas import sign_in, text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.programs import Api

SCHEMA = {
    "type": "object",
    "required": ["number", "total"],
    "additionalProperties": False,
    "properties": {
        "number": {"type": "integer", "minimum": 1},
        "total": {"type": "string", "pattern": r"^\d+\.\d\d$"},
        "lines": {"type": "array", "maxItems": 3, "items": {"$ref": "#/$defs/line"}},
        "a/b~c": {"const": 1},
    },
    "$defs": {"line": {"type": "object", "required": ["sku"], "properties": {"sku": {"enum": ["A", "B"]}}}},
}
FITS: dict[str, Any] = {"number": 7, "total": "42.00", "lines": [{"sku": "A"}]}


@pytest.fixture
def declare() -> Iterator[Callable[..., None]]:
    """`catalog.register_topic` until the test ends."""
    names: list[str] = []

    def make(name: str = "billing.invoice.paid", **options: Any) -> None:
        names.append(name)
        catalog.register_topic(name, **options)

    yield make
    for name in names:
        catalog.unregister_topic(name)


def said(data: Any, schema: Any = None) -> dict[str, str]:
    return {fault.pointer: fault.text for fault in Declared("a.b", SCHEMA if schema is None else schema).faults(data)}


def test_data_that_fits_has_no_fault() -> None:
    assert said(FITS) == {}


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"number": "7"}, "/number"),
        ({"number": 0}, "/number"),
        ({"number": True}, "/number"),
        ({"total": "42"}, "/total"),
        ({"more": 1}, "/more"),
        ({"lines": [{"sku": "A"}, {"sku": "C"}]}, "/lines/1/sku"),
        ({"lines": [{}]}, "/lines/0/sku"),
        ({"lines": [{"sku": "A"}] * 4}, "/lines"),
        ({"a/b~c": 2}, "/a~1b~0c"),
    ],
)
def test_a_fault_is_named_by_its_pointer_and_said_in_a_sentence(change: dict[str, Any], pointer: str) -> None:
    found = said({**FITS, **change})
    assert list(found) == [pointer]
    assert found[pointer].startswith(("This ", "There "))
    assert found[pointer].endswith(".")


def test_each_missing_field_is_one_fault_at_its_own_place() -> None:
    assert said({}) == {"/number": "This is missing.", "/total": "This is missing."}


def test_no_more_faults_are_told_than_anybody_reads() -> None:
    assert len(said({**FITS, **{f"extra_{n}": n for n in range(100)}})) == MOST_FAULTS


def test_without_a_schema_any_object_fits() -> None:
    assert Declared("a.b").faults({"any": ["thing"]}) == []


def test_a_schema_that_turns_in_a_circle_refuses_and_never_breaks() -> None:
    assert list(said({}, {"$ref": "#"})) == [""]


@pytest.mark.parametrize(
    "schema",
    [
        [],
        "object",
        {"type": "objekt"},
        {"required": "number"},
        {"properties": {"number": {"minimum": "1"}}},
        {"properties": {"number": {"pattern": "("}}},
        {"$ref": "https://schemas.example/invoice.json"},
        {"$ref": "invoice.json"},
        {"$ref": "#/$defs/nothing"},
        {"$dynamicRef": "#nothing"},
    ],
)
def test_what_is_no_schema_is_an_error_and_not_offered(declare: Callable[..., None], schema: Any) -> None:
    declare(schema=schema)
    assert [error.id for error in run_checks(tags=["signalpost"])] == ["signalpost.E013"]
    assert catalog.declared_topic("billing.invoice.paid") is None
    assert "billing.invoice.paid" not in catalog.topics()


def test_a_value_that_looks_like_a_reference_is_a_value(declare: Callable[..., None]) -> None:
    declare(schema={"properties": {"ref": {"const": {"$ref": "https://elsewhere.example/"}}}})
    assert run_checks(tags=["signalpost"]) == []


def test_an_example_that_does_not_fit_is_an_error(declare: Callable[..., None]) -> None:
    declare(schema=SCHEMA, example={**FITS, "number": "seven"})
    [error] = run_checks(tags=["signalpost"])
    assert error.id == "signalpost.E014"
    assert "/number" in error.msg


@pytest.mark.parametrize("name", ["invoice", "Billing.paid", "billing.*", "signalpost.test", "project.migrated"])
def test_a_name_that_is_no_topic_or_somebody_elses_is_an_error(declare: Callable[..., None], name: str) -> None:
    declare(name)
    assert [error.id for error in run_checks(tags=["signalpost"])] == ["signalpost.E009"]
    assert catalog.declared_topic(name) is None


def test_a_topic_of_a_model_or_a_signal_can_be_declared_by_nobody(
    declare: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        catalog, "_signals", [catalog.CustomSignal(Signal(), "billing.signal.sent", lambda: None, dict)]
    )
    for name in ("shop.order.created", "billing.signal.sent", "billing.invoice.paid"):
        declare(name)
    declare("billing.invoice.paid")
    assert [error.id for error in run_checks(tags=["signalpost"])] == ["signalpost.E005"] * 3
    assert [each.name for each in catalog.declared()] == ["shop.stock.counted", "billing.invoice.paid"]


def test_a_declared_topic_can_be_heard_and_its_schema_is_that_of_its_bodies(declare: Callable[..., None]) -> None:
    declare(schema=SCHEMA, description="An invoice was paid.", example=FITS)
    assert "billing.invoice.paid" in catalog.topics()
    offer = offers.find("billing.invoice.paid", Tenant(slug="acme"))
    assert offer is not None
    assert offer.means == "An invoice was paid."
    schema = offer.schema()
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    body = {"type": "billing.invoice.paid", "timestamp": "2026-11-21T09:30:00.000Z", "tenant": "acme", "data": FITS}
    assert validator.is_valid(body)
    # The reference still finds what it refers to, inside the schema of the body.
    assert not validator.is_valid({**body, "data": {**FITS, "lines": [{"sku": "C"}]}})


def test_the_operator_does_not_publish_what_the_project_tells_itself() -> None:
    assert not conf.project_actions
    catalog.register_topic("project.migrated")
    try:
        assert catalog.declared_topic("project.migrated") is None
    finally:
        catalog.unregister_topic("project.migrated")


@pytest.mark.django_db
def test_its_page_shows_its_schema_and_its_example(declare: Callable[..., None], tenant: Tenant, api: Api) -> None:
    declare(schema=SCHEMA, description="An invoice was paid.", example=FITS)
    client = sign_in(tenant)
    assert "An invoice was paid." in text(client.get(f"/t/{tenant.slug}/topics/"))
    page = text(client.get(f"/t/{tenant.slug}/topics/billing.invoice.paid/"))
    assert "42.00" in page
    assert "#/properties/data/$defs/line" in page
    assert "billing.invoice.paid" in text(client.get(f"/t/{tenant.slug}/subscriptions/new/"))
    shown = api.get("topics/billing.invoice.paid/").json()
    assert shown["sample"]["data"] == FITS
    assert Draft202012Validator(shown["schema"]).is_valid(shown["sample"])


@pytest.mark.django_db
def test_without_an_example_a_body_is_made_up_whatever_the_schema_holds(
    declare: Callable[..., None], tenant: Tenant, api: Api
) -> None:
    for number, schema in enumerate([None, SCHEMA, {}, {"properties": {"any": True, "none": False}}, {"items": True}]):
        declare(f"billing.kind_{number}.made", schema=schema)
        assert isinstance(api.get(f"topics/billing.kind_{number}.made/").json()["sample"]["data"], dict)

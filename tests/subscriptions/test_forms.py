"""The form of a subscription, apart from its page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings
from django.http import QueryDict
from hypothesis import given
from hypothesis import strategies as st

from subscriptions import edits, forms
from subscriptions.models import Tenant
from subscriptions.snippets import SNIPPETS
from subscriptions.trail import Actor

if TYPE_CHECKING:
    from subscriptions.models import Subscription

pytestmark = pytest.mark.django_db

BOB = Actor("bob@acme.example")


def typed(text: str) -> QueryDict:
    return QueryDict(f"target=url&url=https://receiver.example/&{text}")


def made(tenant: Tenant, topics: dict[str, list[str]]) -> Subscription:
    return edits.create(tenant, BOB, url="https://receiver.example/", topics=topics)[0]


@pytest.mark.parametrize(
    "topics",
    [
        {"*": []},
        {"shop.order.*": [], "shop.order.updated": ["status"]},
        {"shop.*": [], "signalpost.subscription.disabled": []},
        {"billing.invoice.updated": ["paid_at", "state"], "shop.order.updated": ["status", "total"]},
    ],
)
def test_what_a_form_shows_and_is_sent_back_unchanged_changes_nothing(
    tenant: Tenant, topics: dict[str, list[str]]
) -> None:
    subscription = made(tenant, topics)
    shown = forms.SubscriptionForm(tenant=tenant, subscription=subscription)
    data = QueryDict(mutable=True)
    for name in ("target", "url", "name", "rate_limit", "others", "version"):
        data[name] = "" if (value := shown[name].value()) is None else str(value)
    data.setlist("topic", list(shown.chosen))
    data.setlist("changed", [f"{topic}:{field}" for topic, fields in shown.chosen.items() for field in fields])
    form = forms.SubscriptionForm(data, tenant=tenant, subscription=subscription)
    assert form.is_valid(), form.errors
    changed = form.change(BOB)
    assert changed is not None
    assert (changed.version, edits.topics_of(changed)) == (1, topics)


def test_the_topic_that_is_shown_first_is_one_that_is_chosen(tenant: Tenant) -> None:
    assert forms.SubscriptionForm(tenant=tenant).first().endswith(".updated")
    chosen = forms.SubscriptionForm(tenant=tenant, subscription=made(tenant, {"shop.*": [], "shop.tag.deleted": []}))
    assert chosen.first() == "shop.tag.deleted"


def test_a_field_is_named_once_however_often_it_was_ticked(tenant: Tenant) -> None:
    ticked = "topic=shop.order.updated&changed=shop.order.updated:status&changed=shop.order.updated:status"
    form = forms.SubscriptionForm(typed(ticked), tenant=tenant)
    assert form.is_valid()
    subscription, _ = form.create(BOB) or pytest.fail(str(form.errors))
    assert edits.topics_of(subscription) == {"shop.order.updated": ["status"]}


def test_every_box_of_the_grid_is_one_topic(tenant: Tenant) -> None:
    drawn = forms.SubscriptionForm(tenant=tenant).drawn()
    for section in drawn.sections:
        for row in section.rows:
            assert len(row.cells) == len(drawn.columns)
            for action, cell in zip(drawn.columns, row.cells, strict=True):
                assert cell is None or cell.offer.topic == f"{row.model.label}.{action}"


@given(
    data=st.dictionaries(st.sampled_from(["topic", "changed", "others", "url", "name", "rate_limit", "q"]), st.text())
)
def test_whatever_is_posted_is_refused_in_words(data: dict[str, Any]) -> None:
    """No database: nothing here may raise."""
    posted = QueryDict(mutable=True)
    posted.update(data)
    form = forms.SubscriptionForm(posted, tenant=Tenant(slug="acme"))
    form.is_valid()
    form.drawn(data.get("q", ""))
    assert form.first()


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.name)
def test_the_readme_shows_the_same_snippet(snippet: Any) -> None:
    readme = (Path(settings.BASE_DIR) / "README.md").read_text()
    assert f"```{snippet.language}\n{snippet.code}```" in readme

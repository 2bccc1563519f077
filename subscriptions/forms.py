"""The form of a subscription: create and edit."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.forms.utils import ErrorDict
from django.utils.functional import cached_property
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from subscriptions import addresses, edits, offers
from subscriptions.addresses import FEED, INBOX
from subscriptions.conf import conf
from subscriptions.models import HIGHEST_RATE, UPDATED, Subscription

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from django.http import QueryDict

    from subscriptions.models import Tenant
    from subscriptions.offers import Group, Model, Offer
    from subscriptions.trail import Actor

TO_URL, TO_INBOX, TO_FEED = "url", "inbox", "feed"
# What stands in the place of a URL.
BUILT_IN = {TO_INBOX: INBOX, TO_FEED: FEED}
# A topic, and in parentheses the fields one of which must have changed.
LINE = re.compile(r"(?P<name>[^\s()]+)\s*(\((?P<fields>[^()]*)\))?")
WRONG_RATE = gettext_lazy("Write a whole number from 1 to 1,000, or nothing.")

Chosen = dict[str, list[str]]


def refusal_of(url: str) -> str:
    """Why nothing can be sent to `url`; empty where it can."""
    if not url:
        return _("Write the URL of your receiver, such as https://example.com/webhooks.")
    try:
        addresses.check_url(url, allowed_networks=conf.allowed_networks)
    except addresses.RefusedAddress as error:
        return str(error)
    return ""


class Grid(forms.Widget):
    """What was ticked: `topic` by its name, and `changed` by topic and field.
    The page draws it; see subscriptions/grid.html."""

    def value_from_datadict(self, data: Any, files: Any, name: str) -> Chosen:
        posted: QueryDict = data
        chosen: Chosen = {topic: [] for topic in posted.getlist("topic")}
        for each in posted.getlist("changed"):
            topic, _colon, field = each.partition(":")
            if topic in chosen:
                chosen[topic].append(field)
        return chosen


class SubscriptionForm(forms.Form):
    target = forms.ChoiceField(
        label=gettext_lazy("Where to"),
        choices=[
            (TO_URL, gettext_lazy("My receiver")),
            (TO_INBOX, gettext_lazy("The built-in inbox")),
            (TO_FEED, gettext_lazy("A feed")),
        ],
        widget=forms.RadioSelect,
        initial=TO_URL,
        error_messages={"required": gettext_lazy("Choose where to send.")},
    )
    url = forms.CharField(
        label=gettext_lazy("URL"),
        required=False,
        help_text=gettext_lazy("It gets a POST for every event. https is best; the address must be public."),
        widget=forms.TextInput(attrs={"inputmode": "url", "autocomplete": "off", "spellcheck": "false"}),
    )
    name = forms.CharField(
        label=gettext_lazy("Name"),
        required=False,
        max_length=200,
        help_text=gettext_lazy("What you call it. Without one, its host is shown."),
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
        error_messages={"max_length": gettext_lazy("Write at most %(limit_value)s characters.")},
    )
    rate_limit = forms.IntegerField(
        label=gettext_lazy("Requests per second at most"),
        required=False,
        help_text=gettext_lazy("Empty: as many as there are."),
        validators=[MinValueValidator(1, WRONG_RATE), MaxValueValidator(HIGHEST_RATE, WRONG_RATE)],
        error_messages={"invalid": WRONG_RATE},
        widget=forms.NumberInput(attrs={"min": 1, "max": HIGHEST_RATE}),
    )
    topics = forms.Field(label=gettext_lazy("Topics"), required=False, widget=Grid)
    others = forms.CharField(
        label=gettext_lazy("Other topics and patterns"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false", "class": "mono"}),
        help_text=gettext_lazy("One per line, such as shop.* or billing.invoice.paid."),
    )
    version = forms.IntegerField(required=False, widget=forms.HiddenInput)
    made_by = forms.UUIDField(required=False, widget=forms.HiddenInput)

    def __init__(
        self,
        data: Any = None,
        *,
        tenant: Tenant,
        subscription: Subscription | None = None,
        topic: str = "",
        target: str = "",
    ) -> None:
        """`topic` is ticked in a new one, and `target` is chosen."""
        self.tenant, self.subscription = tenant, subscription
        initial: dict[str, Any] = _initial(subscription, self._shown) if subscription else {"made_by": uuid.uuid4()}
        if topic in self._shown:
            initial["topics"] = {topic: []}
        if target in BUILT_IN:
            initial["target"] = target
        super().__init__(data, initial=initial)

    @cached_property
    def groups(self) -> list[Group]:
        return offers.groups()

    @cached_property
    def singles(self) -> list[Offer]:
        return offers.singles(self.tenant)

    @cached_property
    def _shown(self) -> dict[str, tuple[str, ...]]:
        """What the grid has a box for → the fields it offers."""
        models = [model for group in self.groups for model in group.models]
        found: dict[str, tuple[str, ...]] = {offers.EVERYTHING: (), **{model.every: () for model in models}}
        found.update((offer.topic, ()) for model in models for offer in model.offers)
        found.update((model.updated, model.changing()) for model in models if model.updated in found)
        found.update((offer.topic, ()) for offer in self.singles)
        return found

    @cached_property
    def chosen(self) -> Chosen:
        """What is ticked as the page shows it now."""
        value: Chosen = self["topics"].value() or {}
        return value

    # --- what was typed ---

    def clean_url(self) -> str:
        url: str = self.cleaned_data["url"]
        if built_in := BUILT_IN.get(self.cleaned_data.get("target", "")):
            return built_in
        if refused := refusal_of(url):
            raise ValidationError(refused)
        return url

    def clean_others(self) -> Chosen:
        found: Chosen = {}
        for number, line in enumerate(self.cleaned_data["others"].splitlines(), start=1):
            if not line.strip():
                continue
            match = LINE.fullmatch(line.strip())
            if match is None:
                told = _("Line %(number)s: write one topic, such as shop.order.updated or shop.*.")
                raise ValidationError(told % {"number": number})
            fields = [field.strip() for field in (match["fields"] or "").split(",")]
            found.setdefault(match["name"], []).extend(field for field in fields if field)
        return found

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or self.cleaned_data
        if "others" in values and not (values.get("topics") or values["others"]):
            self.add_error("topics", _("Choose at least one topic."))
        return values

    def wanted(self) -> Chosen:
        """All that was chosen, from the grid and from the lines."""
        wanted = {topic: list(fields) for topic, fields in (self.cleaned_data["topics"] or {}).items()}
        for topic, fields in self.cleaned_data["others"].items():
            wanted.setdefault(topic, []).extend(fields)
        return wanted

    def look_only(self) -> None:
        """Show what was typed, without a word on what is wrong with it."""
        self._errors, self.cleaned_data = ErrorDict(), {}

    # --- what is done with it ---

    def create(self, actor: Actor) -> tuple[Subscription, str] | None:
        """None where it cannot be; the form says why."""
        try:
            return edits.create(self.tenant, actor, **self._values(), made_by=self.cleaned_data["made_by"])
        except edits.MadeAlready:
            raise
        except (edits.Refused, ValidationError) as error:
            self._say(error)
        return None

    def change(self, actor: Actor) -> Subscription | None:
        """None where it cannot be; the form says why. Raises StaleError."""
        assert self.subscription is not None  # noqa: S101
        version = self.cleaned_data["version"] or 0
        try:
            return edits.change(self.subscription, actor, version=version, **self._values())
        except edits.StaleError:
            raise
        except (edits.Refused, ValidationError) as error:
            self._say(error)
        return None

    def _values(self) -> dict[str, Any]:
        given = {field: self.cleaned_data[field] for field in ("name", "url", "rate_limit")}
        return {**given, "topics": self.wanted()}

    def _say(self, error: edits.Refused | ValidationError) -> None:
        if isinstance(error, edits.Refused):
            self.add_error(None, str(error))
            return
        for field, errors in error.error_dict.items():
            self.add_error(field if field in self.fields else None, errors)

    def see(self, now: Subscription) -> None:
        """From here on it is the version `now` that was seen."""
        self._put("version", now.version)

    def ask_again(self) -> None:
        """A new request, that may make another one."""
        self._put("made_by", uuid.uuid4())

    def _put(self, name: str, value: object) -> None:
        data: Any = self.data
        self.data = data.copy()
        self.data[name] = str(value)  # type: ignore[index]

    # --- what the page draws ---

    def drawn(self, words: str = "") -> Drawn:
        columns = offers.columns(self.groups)
        return Drawn(
            columns=columns,
            sections=[_section(group, self.chosen, words, columns) for group in self.groups],
            singles=[Cell(each, each.topic in self.chosen, each.is_found(words)) for each in self.singles],
            everything=offers.EVERYTHING in self.chosen,
            words=words,
        )

    def first(self) -> str:
        """The topic whose body is shown first: one that is chosen, if any is."""
        known = [offer.topic for group in self.groups for model in group.models for offer in model.offers]
        concrete = next((topic for topic in self.chosen if topic in known), None)
        return concrete or next((topic for topic in known if topic.endswith(UPDATED)), "") or next(iter(known), "")


@dataclass(frozen=True, slots=True)
class Cell:
    offer: Offer
    ticked: bool
    shown: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    model: Model
    every: bool
    cells: list[Cell | None]
    fields: list[tuple[str, bool]]
    shown: bool

    @property
    def limited(self) -> str:
        return ", ".join(name for name, ticked in self.fields if ticked)


@dataclass(frozen=True, slots=True)
class Section:
    group: Group
    rows: list[Row]

    @property
    def shown(self) -> bool:
        return any(row.shown for row in self.rows)


@dataclass(frozen=True, slots=True)
class Drawn:
    """The grid: models by actions."""

    columns: list[str]
    sections: list[Section]
    singles: list[Cell]
    everything: bool
    words: str

    @property
    def shown(self) -> bool:
        return any(section.shown for section in self.sections)

    @property
    def width(self) -> int:
        return len(self.columns) + 2


def _section(group: Group, chosen: Chosen, words: str, actions: Iterable[str]) -> Section:
    return Section(group, [_row(model, chosen, words, actions) for model in group.models])


def _row(model: Model, chosen: Chosen, words: str, actions: Iterable[str]) -> Row:
    by_action = {offer.action: Cell(offer, offer.topic in chosen) for offer in model.offers}
    limited = chosen.get(model.updated, [])
    return Row(
        model=model,
        every=model.every in chosen,
        cells=[by_action.get(action) for action in actions],
        fields=[(name, name in limited) for name in model.changing()],
        shown=model.is_found(words),
    )


def _initial(subscription: Subscription, shown: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    wanted = edits.topics_of(subscription)
    ticked = {name: fields for name, fields in wanted.items() if name in shown and set(fields) <= set(shown[name])}
    target = next((name for name, url in BUILT_IN.items() if url == subscription.url), TO_URL)
    return {
        "target": target,
        "url": subscription.url if target == TO_URL else "",
        "name": subscription.name,
        "rate_limit": subscription.rate_limit,
        "topics": ticked,
        "others": "\n".join(line(name, fields) for name, fields in wanted.items() if name not in ticked),
        "version": subscription.version,
    }


def line(name: str, fields: Iterable[str]) -> str:
    """As it is written among the other topics."""
    limited = ", ".join(fields)
    return f"{name} ({limited})" if limited else name

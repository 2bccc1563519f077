from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.contrib.humanize.templatetags.humanize import intcomma
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import models
from django.db.models import Prefetch, QuerySet
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from subscriptions import catalog, edits
from subscriptions.admin.asking import ReasonForm
from subscriptions.admin.filters import StateFilter, TenantFilter, TopicFilter
from subscriptions.admin.inlines import LabelledFormSet
from subscriptions.admin.shown import below, clipped, moment, state
from subscriptions.admin.wishes import WishAdmin
from subscriptions.models import OVERLAP, AuditEntry, Subscription, Topic
from subscriptions.trail import actor_of, note

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.http import HttpRequest, HttpResponse
    from django.utils.safestring import SafeString

    from subscriptions.trail import Actor

# How many topics a line of the list shows.
TOPICS_SHOWN = 3


class Deed(models.TextChoices):
    """What is asked about before it is done."""

    TURN_ON = "turn_on", gettext_lazy("Turn on")
    TURN_OFF = "turn_off", gettext_lazy("Turn off")
    ROTATE = "rotate", gettext_lazy("Rotate the secret")


class SubscriptionForm(forms.ModelForm):  # type: ignore[type-arg]
    # As it was when the form was made.
    seen = forms.IntegerField(required=False, widget=forms.HiddenInput)

    class Meta:
        model = Subscription
        fields = ("tenant", "name", "url", "rate_limit")
        labels: ClassVar = {
            "tenant": gettext_lazy("Tenant"),
            "name": gettext_lazy("Name"),
            "url": gettext_lazy("URL"),
            "rate_limit": gettext_lazy("Requests per second at most"),
        }
        help_texts: ClassVar = {"rate_limit": gettext_lazy("Empty: as many as there are.")}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["seen"].initial = self.instance.version

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        seen = cleaned.get("seen")
        if self.instance.pk and seen is not None and seen != self.instance.version:
            told = _("It was changed meanwhile. Open it again to see what it is now, then change it.")
            raise ValidationError(told, code="stale")
        tenant = cleaned.get("tenant")
        if not self.instance.pk and tenant is not None and tenant.disabled_at:
            told = _("This tenant is off: %(reason)s Turn it on first.")
            self.add_error("tenant", told % {"reason": tenant.disabled_reason})
        return cleaned


class TopicForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = Topic
        fields = ("name", "field")
        widgets: ClassVar = {"name": forms.TextInput(attrs={"list": "topics", "size": 40, "autocomplete": "off"})}
        labels: ClassVar = {"name": gettext_lazy("topic"), "field": gettext_lazy("only when this field changed")}


class TopicInline(admin.TabularInline):  # type: ignore[type-arg]
    model = Topic
    form = TopicForm
    formset = LabelledFormSet
    extra = 1


@admin.register(Subscription)
class SubscriptionAdmin(WishAdmin):
    form = SubscriptionForm
    list_display = ("id", "shown_url", "shown_topics", "listed_state")
    list_display_links = ("id", "shown_url")
    list_filter = (StateFilter, "created_at", TenantFilter, TopicFilter)
    list_select_related = ("tenant",)
    search_fields = ("url", "name", "=tenant__slug")
    search_help_text = gettext_lazy("A number, a part of the URL or of the name, or a tenant's slug.")
    sortable_by = ("id",)
    ordering = ("-id",)
    fieldsets = (
        (None, {"fields": ("tenant", "name", "url", "rate_limit", "seen")}),
        (gettext_lazy("State"), {"fields": ("shown_state", "shown_secrets", "shown_created")}),
    )
    # There is no state yet.
    add_fieldsets = ((None, {"fields": ("tenant", "name", "url", "rate_limit", "shown_secrets")}),)
    autocomplete_fields = ("tenant",)
    readonly_fields = ("shown_state", "shown_secrets", "shown_created")
    inlines = (TopicInline,)
    actions = ("turn_on_selected", "turn_off_selected")
    change_form_template = "admin/subscriptions/subscription/change_form.html"

    @admin.display(description=gettext_lazy("URL"))
    def shown_url(self, subscription: Subscription) -> SafeString:
        url = clipped(subscription.url)
        return below(clipped(subscription.name), url) if subscription.name else url

    @admin.display(description=gettext_lazy("topics"))
    def shown_topics(self, subscription: Subscription) -> SafeString:
        topics = subscription.topics.all()
        more = _("and %(number)s more") % {"number": intcomma(len(topics) - TOPICS_SHOWN)}
        shown = format_html_join("", "{}", ((clipped(topic),) for topic in topics[:TOPICS_SHOWN]))
        return below(
            format_html("{}{}", shown or _("none"), more if len(topics) > TOPICS_SHOWN else ""),
            clipped(subscription.tenant.slug),
        )

    @admin.display(description=gettext_lazy("state"))
    def listed_state(self, subscription: Subscription) -> SafeString:
        if subscription.disabled_at is None:
            return state("on", "✓", _("on"))
        return below(state("off", "✕", _("off")), clipped(subscription.disabled_reason))

    @admin.display(description=gettext_lazy("state"))
    def shown_state(self, subscription: Subscription) -> SafeString:
        if subscription.disabled_at is None:
            return state("on", "✓", _("on"))
        off, since = state("off", "✕", _("off")), moment(subscription.disabled_at)
        reason = subscription.disabled_reason
        if not subscription.disabled_by:
            return format_html(_("{} since {}. {}"), off, since, reason)
        return format_html(_("{} since {} by {}. {}"), off, since, subscription.get_disabled_by_display(), reason)

    @admin.display(description=gettext_lazy("secrets"))
    def shown_secrets(self, subscription: Subscription) -> SafeString | str:
        """Their ages and ends, never what they are."""
        if subscription._state.adding:
            return _("One is made when you save, and shown once.")
        lines = [
            (moment(secret.created_at), format_html(_("signs until {}"), moment(secret.expires_at)))
            if secret.expires_at
            else (moment(secret.created_at), _("has no end"))
            for secret in subscription.secrets.live().defer("ciphertext")
        ]
        if not lines:
            return _("None, so nothing can be signed. Rotate it.")
        return format_html_join("", "<div>{}</div>", ((format_html(_("made {}, {}"), *line),) for line in lines))

    @admin.display(description=gettext_lazy("created"))
    def shown_created(self, subscription: Subscription) -> SafeString | str:
        return moment(subscription.created_at)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Subscription]:
        topics = Prefetch("topics", queryset=Topic.objects.order_by("name", "field"))
        return super().get_queryset(request).prefetch_related(topics)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if re.fullmatch(r"[0-9]{1,18}", term):  # what a column of numbers holds in any case
            return queryset.filter(pk=int(term)), False
        return super().get_search_results(request, queryset, term)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        # Its deliveries belong to its tenant.
        return (*self.readonly_fields, "tenant") if obj else self.readonly_fields

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.fieldsets if obj else self.add_fieldsets

    # --- writing --------------------------------------------------------------

    def save_model(self, request: HttpRequest, obj: Subscription, form: Any, change: bool) -> None:
        if not change:
            super().save_model(request, obj, form, change)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        subscription = form.instance
        detail = {**_edited(form), **_topics(formsets)} if change else {}
        if detail:
            # Only what was edited: a worker may be turning it off right now.
            subscription.version = _version(subscription) + 1
            subscription.save(update_fields=[*sorted(FIELDS.intersection(form.changed_data)), "version"])
        super().save_related(request, form, formsets, change)
        topics = subscription.topics.order_by("id")
        if not change:
            detail = {"host": subscription.host, "topics": [str(topic) for topic in topics]}
        if detail:
            action = AuditEntry.Action.SUBSCRIPTION_CHANGED if change else AuditEntry.Action.SUBSCRIPTION_CREATED
            note(_operator(request), action, tenant=subscription.tenant, about=subscription, **detail)
        known = catalog.topics()
        for topic in topics:
            if not _heard(topic.name, known):
                told = _("No registered model sends %(topic)s; only publish() can.") % {"topic": topic.name}
                self.message_user(request, told, messages.WARNING)

    def response_add(
        self, request: HttpRequest, obj: Subscription, post_url_continue: str | None = None
    ) -> HttpResponse:
        return self._show_once(request, obj, obj.rotate_secret())

    def _show_once(self, request: HttpRequest, subscription: Subscription, secret: str) -> HttpResponse:
        """In this answer and nowhere else: a message would be kept in a cookie
        or a session until a page shows it, as plain text."""
        context = {
            **self.admin_site.each_context(request),
            "title": _("The new secret"),
            "opts": self.opts,
            "subscription": subscription,
            "secret": secret,
            "media": self.media,
        }
        return TemplateResponse(request, "admin/subscriptions/subscription/secret.html", context)

    # --- what can be done -------------------------------------------------------

    @admin.action(description=gettext_lazy("Turn on selected"), permissions=["change"])
    def turn_on_selected(self, request: HttpRequest, queryset: QuerySet[Subscription]) -> None:
        done = sum(self._turn_on(request, subscription) for subscription in queryset)
        told = ngettext("%(number)s subscription turned on.", "%(number)s subscriptions turned on.", done)
        self.message_user(request, told % {"number": intcomma(done)}, messages.SUCCESS)

    @admin.action(description=gettext_lazy("Turn off selected"), permissions=["change"])
    def turn_off_selected(self, request: HttpRequest, queryset: QuerySet[Subscription]) -> HttpResponse | None:
        form = ReasonForm(request.POST if "reason" in request.POST else None)
        if not form.is_valid():
            return self._ask(request, Deed.TURN_OFF, list(queryset), form=form, action="turn_off_selected")
        reason = form.cleaned_data["reason"]
        done = sum(self._turn_off(request, subscription, reason=reason) for subscription in queryset)
        told = ngettext("%(number)s subscription turned off.", "%(number)s subscriptions turned off.", done)
        self.message_user(request, told % {"number": intcomma(done)}, messages.SUCCESS)
        return None

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view  # logged in as staff, and protected against CSRF
        return [
            path("<int:pk>/turn-on/", view(self.turn_on), name="subscriptions_subscription_turn_on"),
            path("<int:pk>/turn-off/", view(self.turn_off), name="subscriptions_subscription_turn_off"),
            path("<int:pk>/rotate/", view(self.rotate), name="subscriptions_subscription_rotate"),
            *super().get_urls(),
        ]

    def turn_on(self, request: HttpRequest, pk: int) -> HttpResponse:
        subscription = self._changeable(request, pk)
        if request.method != "POST":
            return self._ask(request, Deed.TURN_ON, [subscription])
        if self._turn_on(request, subscription):
            self.message_user(request, _("Turned on: what waited for it is sent now."), messages.SUCCESS)
        return redirect("admin:subscriptions_subscription_change", pk)

    def turn_off(self, request: HttpRequest, pk: int) -> HttpResponse:
        subscription = self._changeable(request, pk)
        form = ReasonForm(request.POST if request.method == "POST" else None)
        if not form.is_valid():
            return self._ask(request, Deed.TURN_OFF, [subscription], form=form)
        if self._turn_off(request, subscription, reason=form.cleaned_data["reason"]):
            self.message_user(request, _("Turned off: what happens from now on is not sent."), messages.SUCCESS)
        return redirect("admin:subscriptions_subscription_change", pk)

    def rotate(self, request: HttpRequest, pk: int) -> HttpResponse:
        subscription = self._changeable(request, pk)
        if request.method != "POST":
            return self._ask(request, Deed.ROTATE, [subscription])
        try:
            secret = edits.rotate(subscription, _operator(request))
        except edits.Refused as error:
            self.message_user(request, str(error), messages.ERROR)
            return redirect("admin:subscriptions_subscription_change", pk)
        self.log_change(request, subscription, _("Rotated the secret."))
        return self._show_once(request, subscription, secret)

    def _turn_on(self, request: HttpRequest, subscription: Subscription) -> bool:
        try:
            done = edits.enable(subscription, _operator(request))
        except edits.Refused as error:
            self.message_user(request, str(error), messages.ERROR)
            return False
        if done:
            self.log_change(request, subscription, _("Turned on."))
        return done

    def _turn_off(self, request: HttpRequest, subscription: Subscription, *, reason: str) -> bool:
        done = edits.disable(subscription, _operator(request), reason=reason)
        if done:
            self.log_change(request, subscription, _("Turned off: %(reason)s") % {"reason": reason})
        return done

    def _changeable(self, request: HttpRequest, pk: int) -> Subscription:
        subscription = get_object_or_404(Subscription, pk=pk)
        if not self.has_change_permission(request, subscription):
            raise PermissionDenied
        return subscription

    def _ask(
        self,
        request: HttpRequest,
        deed: Deed,
        subscriptions: list[Subscription],
        *,
        form: forms.Form | None = None,
        action: str = "",
    ) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": ASKED[deed],
            "opts": self.opts,
            "deed": deed.label,
            "explained": [EXPLAINED[deed] % {"hours": f"{OVERLAP.total_seconds() / 3600:g}"}],
            "about": subscriptions,
            "back": reverse("admin:subscriptions_subscription_changelist"),
            "form": form,
            "action": action,
            "media": self.media,
        }
        return TemplateResponse(request, "admin/subscriptions/ask.html", context)

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        context["topics"] = catalog.topics()
        if kwargs.get("add"):
            # The page that follows shows the secret.
            context.update(show_save_and_add_another=False, show_save_and_continue=False)
        if kwargs.get("obj"):
            context.update(title=_("Subscription %(number)s") % {"number": kwargs["obj"].pk}, subtitle=None)
        return super().render_change_form(request, context, *args, **kwargs)


ASKED = {
    Deed.TURN_ON: gettext_lazy("Turn on?"),
    Deed.TURN_OFF: gettext_lazy("Turn off?"),
    Deed.ROTATE: gettext_lazy("Rotate the secret?"),
}
EXPLAINED = {
    Deed.TURN_ON: gettext_lazy("What happens from now on is sent to it again, and so is what still waits for it."),
    Deed.TURN_OFF: gettext_lazy(
        "What happens while it is off is not sent to it, not later either. "
        "Deliveries that are under way wait until it is turned on. No member can turn it on again; you can."
    ),
    Deed.ROTATE: gettext_lazy(
        "A new secret is made and shown once. The present one goes on signing beside it for %(hours)s hours, "
        "so that the receiver can change over."
    ),
}


def _heard(pattern: str, topics: Iterable[str]) -> bool:
    if not pattern.endswith("*"):
        return pattern in topics
    return any(topic.startswith(pattern[:-1]) for topic in topics)


FIELDS = {"name", "url", "rate_limit"}


def _edited(form: forms.ModelForm[Subscription]) -> dict[str, Any]:
    """From → to, of a URL only the host: its path and query may be secrets."""
    was, now = form.initial, form.instance
    found: dict[str, Any] = {
        word: {"from": was[field], "to": getattr(now, field)}
        for word, field in (("called", "name"), ("rate_limit", "rate_limit"))
        if field in form.changed_data
    }
    if "url" in form.changed_data:
        found["url"] = {"from": Subscription(url=was["url"]).host, "to": now.host}
    return found


def _topics(formsets: Iterable[Any]) -> dict[str, Any]:
    changed = [form for formset in formsets for form in formset.forms if form.has_changed()]
    gone = [str(Topic(name=form.initial["name"], field=form.initial["field"])) for form in changed if form.initial]
    kept = [form for form in changed if not form.cleaned_data.get("DELETE")]
    new = [str(Topic(name=form.cleaned_data["name"], field=form.cleaned_data["field"])) for form in kept]
    return {"topics": {"added": new, "removed": gone}} if gone or new else {}


def _version(subscription: Subscription) -> int:
    rows = Subscription.objects.select_for_update(no_key=True).filter(pk=subscription.pk)
    return int(rows.values_list("version", flat=True).get())


def _operator(request: HttpRequest) -> Actor:
    return actor_of(request, as_operator=True)

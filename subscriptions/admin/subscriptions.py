from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Prefetch, QuerySet
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.html import format_html, format_html_join

from subscriptions import catalog
from subscriptions.admin.filters import StateFilter, TenantFilter, TopicFilter
from subscriptions.admin.shown import below, clipped, moment, state
from subscriptions.admin.wishes import WishAdmin
from subscriptions.models import OVERLAP, Subscription, Topic

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.http import HttpRequest, HttpResponse
    from django.utils.safestring import SafeString

# How many topics a line of the list shows.
TOPICS_SHOWN = 3


class TopicForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = Topic
        fields = ("name", "field")
        widgets: ClassVar = {"name": forms.TextInput(attrs={"list": "topics", "size": 40, "autocomplete": "off"})}
        labels: ClassVar = {"name": "topic", "field": "only when this field changed"}


class TopicInline(admin.TabularInline):  # type: ignore[type-arg]
    model = Topic
    form = TopicForm
    extra = 1


@admin.register(Subscription)
class SubscriptionAdmin(WishAdmin):
    list_display = ("id", "shown_url", "shown_topics", "listed_state")
    list_display_links = ("id", "shown_url")
    list_filter = (StateFilter, "created_at", TenantFilter, TopicFilter)
    list_select_related = ("tenant",)
    search_fields = ("url", "name", "=tenant__slug")
    search_help_text = "A number, a part of the URL or of the name, or a tenant's slug."
    sortable_by = ("id",)
    ordering = ("-id",)
    fieldsets = (
        (None, {"fields": ("tenant", "name", "url", "rate_limit")}),
        ("State", {"fields": ("shown_state", "shown_secrets", "shown_created")}),
    )
    # There is no state yet.
    add_fieldsets = ((None, {"fields": ("tenant", "name", "url", "rate_limit", "shown_secrets")}),)
    autocomplete_fields = ("tenant",)
    readonly_fields = ("shown_state", "shown_secrets", "shown_created")
    inlines = (TopicInline,)
    actions = ("turn_on_selected", "turn_off_selected")
    change_form_template = "admin/subscriptions/subscription/change_form.html"

    @admin.display(description="URL")
    def shown_url(self, subscription: Subscription) -> SafeString:
        url = clipped(subscription.url)
        return below(clipped(subscription.name), url) if subscription.name else url

    @admin.display(description="topics")
    def shown_topics(self, subscription: Subscription) -> SafeString:
        topics = subscription.topics.all()
        more = f"and {len(topics) - TOPICS_SHOWN} more" if len(topics) > TOPICS_SHOWN else ""
        shown = format_html_join("", "{}", ((clipped(topic),) for topic in topics[:TOPICS_SHOWN]))
        return below(format_html("{}{}", shown or "none", more), clipped(subscription.tenant.slug))

    @admin.display(description="state")
    def listed_state(self, subscription: Subscription) -> SafeString:
        if subscription.disabled_at is None:
            return state("on", "✓", "on")
        return below(state("off", "✕", "off"), clipped(subscription.disabled_reason))

    @admin.display(description="state")
    def shown_state(self, subscription: Subscription) -> SafeString:
        if subscription.disabled_at is None:
            return state("on", "✓", "on")
        off, since = state("off", "✕", "off"), moment(subscription.disabled_at)
        return format_html("{} since {}. {}", off, since, subscription.disabled_reason)

    @admin.display(description="secrets")
    def shown_secrets(self, subscription: Subscription) -> SafeString | str:
        """Their ages and ends, never what they are."""
        if subscription._state.adding:
            return "One is made when you save, and shown once."
        lines = [
            (moment(secret.created_at), format_html("signs until {}", moment(secret.expires_at)))
            if secret.expires_at
            else (moment(secret.created_at), "has no end")
            for secret in subscription.secrets.live().defer("ciphertext")
        ]
        if not lines:
            return "None, so nothing can be signed. Rotate it."
        return format_html_join("", "<div>made {}, {}</div>", lines)

    @admin.display(description="created")
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
        if change:
            # Only what was edited: a worker may be turning it off right now.
            obj.save(update_fields=sorted({"name", "url", "rate_limit"}.intersection(form.changed_data)))
            return
        super().save_model(request, obj, form, change)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        known = catalog.topics()
        for topic in form.instance.topics.all():
            if not _heard(topic.name, known):
                told = f"No registered model sends {topic.name}; only publish() can."
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
            "title": "The new secret",
            "opts": self.opts,
            "subscription": subscription,
            "secret": secret,
            "media": self.media,
        }
        return TemplateResponse(request, "admin/subscriptions/subscription/secret.html", context)

    # --- what can be done -------------------------------------------------------

    @admin.action(description="Turn on selected", permissions=["change"])
    def turn_on_selected(self, request: HttpRequest, queryset: QuerySet[Subscription]) -> None:
        done = sum(self._turn_on(request, subscription) for subscription in queryset)
        self.message_user(request, f"{_subscriptions(done)} turned on.", messages.SUCCESS)

    @admin.action(description="Turn off selected", permissions=["change"])
    def turn_off_selected(self, request: HttpRequest, queryset: QuerySet[Subscription]) -> HttpResponse | None:
        form = ReasonForm(request.POST if "reason" in request.POST else None)
        if not form.is_valid():
            return self._ask(request, "Turn off", subscriptions=list(queryset), form=form, action="turn_off_selected")
        reason = form.cleaned_data["reason"]
        done = sum(self._turn_off(request, subscription, reason=reason) for subscription in queryset)
        self.message_user(request, f"{_subscriptions(done)} turned off.", messages.SUCCESS)
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
            return self._ask(request, "Turn on", subscriptions=[subscription])
        if self._turn_on(request, subscription):
            self.message_user(request, "Turned on: what waited for it is sent now.", messages.SUCCESS)
        return redirect("admin:subscriptions_subscription_change", pk)

    def turn_off(self, request: HttpRequest, pk: int) -> HttpResponse:
        subscription = self._changeable(request, pk)
        form = ReasonForm(request.POST if request.method == "POST" else None)
        if not form.is_valid():
            return self._ask(request, "Turn off", subscriptions=[subscription], form=form)
        if self._turn_off(request, subscription, reason=form.cleaned_data["reason"]):
            self.message_user(request, "Turned off: what happens from now on is not sent.", messages.SUCCESS)
        return redirect("admin:subscriptions_subscription_change", pk)

    def rotate(self, request: HttpRequest, pk: int) -> HttpResponse:
        subscription = self._changeable(request, pk)
        if request.method != "POST":
            return self._ask(request, "Rotate the secret", subscriptions=[subscription])
        self.log_change(request, subscription, "Rotated the secret.")
        return self._show_once(request, subscription, subscription.rotate_secret())

    def _turn_on(self, request: HttpRequest, subscription: Subscription) -> bool:
        if not subscription.enable():
            return False
        self.log_change(request, subscription, "Turned on.")
        return True

    def _turn_off(self, request: HttpRequest, subscription: Subscription, *, reason: str) -> bool:
        if not subscription.disable(reason=reason, by=Subscription.DisabledBy.OPERATOR):
            return False
        self.log_change(request, subscription, f"Turned off: {reason}")
        return True

    def _changeable(self, request: HttpRequest, pk: int) -> Subscription:
        subscription = get_object_or_404(Subscription, pk=pk)
        if not self.has_change_permission(request, subscription):
            raise PermissionDenied
        return subscription

    def _ask(
        self,
        request: HttpRequest,
        deed: str,
        *,
        subscriptions: list[Subscription],
        form: forms.Form | None = None,
        action: str = "",
    ) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": f"{deed}?",
            "opts": self.opts,
            "deed": deed,
            "explained": EXPLAINED[deed],
            "subscriptions": subscriptions,
            "form": form,
            "action": action,
            "media": self.media,
        }
        return TemplateResponse(request, "admin/subscriptions/subscription/ask.html", context)

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        context["topics"] = catalog.topics()
        if kwargs.get("add"):
            # The page that follows shows the secret.
            context.update(show_save_and_add_another=False, show_save_and_continue=False)
        if kwargs.get("obj"):
            context.update(title=f"Subscription {kwargs['obj'].pk}", subtitle=None)
        return super().render_change_form(request, context, *args, **kwargs)


EXPLAINED = {
    "Turn on": "What happens from now on is sent to it again, and so is what still waits for it.",
    "Turn off": "What happens while it is off is not sent to it, not later either. "
    "Deliveries that are under way wait until it is turned on.",
    "Rotate the secret": f"A new secret is made and shown once. The present one goes on signing beside it for "
    f"{OVERLAP.total_seconds() / 3600:g} hours, so that the receiver can change over.",
}


class ReasonForm(forms.Form):
    reason = forms.CharField(
        max_length=200,
        widget=forms.TextInput(attrs={"size": 60}),
        help_text="The tenant sees it too.",
    )


def _subscriptions(count: int) -> str:
    return "1 subscription" if count == 1 else f"{count} subscriptions"


def _heard(pattern: str, topics: Iterable[str]) -> bool:
    if not pattern.endswith("*"):
        return pattern in topics
    return any(topic.startswith(pattern[:-1]) for topic in topics)

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.humanize.templatetags.humanize import intcomma
from django.core.exceptions import PermissionDenied
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from subscriptions import disabling, people, support
from subscriptions.admin.asking import ReasonForm
from subscriptions.admin.filters import StateFilter
from subscriptions.admin.inlines import LabelledFormSet
from subscriptions.admin.shown import NOTHING, below, clipped, moment, state
from subscriptions.admin.wishes import WishAdmin
from subscriptions.models import AuditEntry, Membership, Subscription, Tenant
from subscriptions.trail import actor_of, note

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django import forms
    from django.http import HttpRequest, HttpResponse
    from django.utils.safestring import SafeString

    from subscriptions.trail import Actor

Action = AuditEntry.Action
FIELDS = ("slug", "name", "key")


class MembershipInline(admin.TabularInline):  # type: ignore[type-arg]
    model = Membership
    formset = LabelledFormSet
    extra = 0
    autocomplete_fields = ("user",)


@admin.register(Tenant)
class TenantAdmin(WishAdmin):
    list_display = ("shown_slug", "listed_state", "shown_name", "shown_key", "shown_created")
    list_filter = (StateFilter,)
    search_fields = ("slug", "name", "key")
    search_help_text = gettext_lazy("A part of the slug, of the name or of the key.")
    ordering = ("slug",)
    fieldsets = ((None, {"fields": FIELDS}), (gettext_lazy("State"), {"fields": ("shown_state", "shown_created")}))
    add_fieldsets = ((None, {"fields": FIELDS}),)  # there is no state yet
    readonly_fields = ("shown_state", "shown_created")
    inlines = (MembershipInline,)
    change_form_template = "admin/subscriptions/tenant/change_form.html"

    @admin.display(description=gettext_lazy("slug"), ordering="slug")
    def shown_slug(self, tenant: Tenant) -> SafeString:
        return clipped(tenant.slug)

    @admin.display(description=gettext_lazy("name"), ordering="name")
    def shown_name(self, tenant: Tenant) -> SafeString:
        return clipped(tenant.name)

    @admin.display(description=gettext_lazy("state"))
    def listed_state(self, tenant: Tenant) -> SafeString:
        if tenant.disabled_at is None:
            return state("on", "✓", _("on"))
        return below(state("off", "✕", _("off")), clipped(tenant.disabled_reason))

    @admin.display(description=gettext_lazy("state"))
    def shown_state(self, tenant: Tenant) -> SafeString:
        if tenant.disabled_at is None:
            return state("on", "✓", _("on"))
        off, since = state("off", "✕", _("off")), moment(tenant.disabled_at)
        return format_html(_("{} since {}. {}"), off, since, tenant.disabled_reason)

    @admin.display(description=gettext_lazy("key"), ordering="key")
    def shown_key(self, tenant: Tenant) -> SafeString | str:
        return NOTHING if tenant.key is None else clipped(tenant.key)

    @admin.display(description=gettext_lazy("created"), ordering="created_at")
    def shown_created(self, tenant: Tenant) -> SafeString | str:
        return moment(tenant.created_at)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.fieldsets if obj else self.add_fieldsets

    # --- writing --------------------------------------------------------------

    def save_model(self, request: HttpRequest, obj: Tenant, form: Any, change: bool) -> None:
        actor = _operator(request)
        if not change:
            super().save_model(request, obj, form, change)
            note(actor, Action.TENANT_CREATED, tenant=obj, about=obj)
        elif edited := [field for field in FIELDS if field in form.changed_data]:
            # Only what was edited: somebody may be turning it off right now.
            obj.save(update_fields=edited)
            words = {"name": "called"}
            detail: dict[str, Any] = {
                words.get(field, field): {"from": form.initial[field], "to": getattr(obj, field)} for field in edited
            }
            note(actor, Action.TENANT_CHANGED, tenant=obj, about=obj, **detail)

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        super().save_formset(request, form, formset, change)
        actor, tenant = _operator(request), form.instance
        for action, membership, detail in _deeds(formset):
            note(actor, action, tenant=tenant, about=membership, name=people.name_of(membership.user), **detail)

    # --- what can be done -------------------------------------------------------

    def has_support_permission(self, request: HttpRequest) -> bool:
        return support.may_look(request.user)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view  # logged in as staff, and protected against CSRF
        return [
            path("<int:pk>/turn-off/", view(self.turn_off), name="subscriptions_tenant_turn_off"),
            path("<int:pk>/turn-on/", view(self.turn_on), name="subscriptions_tenant_turn_on"),
            path("<int:pk>/support/", view(self.look), name="subscriptions_tenant_support"),
            *super().get_urls(),
        ]

    def turn_off(self, request: HttpRequest, pk: int) -> HttpResponse:
        tenant = self._changeable(request, pk)
        form = ReasonForm(request.POST if request.method == "POST" else None)
        if not form.is_valid():
            explained = [
                _are_turned_off(disabling.listening(tenant).count()),
                _("No member can turn one on, or make another, until the tenant is on again."),
                _("What happens meanwhile is not sent, not later either. Deliveries that are under way wait."),
                _others(_off(tenant)),
            ]
            return self._ask(request, _("Turn off"), tenant, explained=explained, form=form)
        reason = form.cleaned_data["reason"]
        if disabling.disable(tenant, _operator(request), reason=reason):
            self.log_change(request, tenant, _("Turned off: %(reason)s") % {"reason": reason})
            self.message_user(request, _turned_off(disabling.waiting(tenant).count()), messages.SUCCESS)
        else:
            self.message_user(request, _("It already was off."), messages.WARNING)
        return redirect("admin:subscriptions_tenant_change", pk)

    def turn_on(self, request: HttpRequest, pk: int) -> HttpResponse:
        tenant = self._changeable(request, pk)
        waiting = disabling.waiting(tenant).count()
        if request.method != "POST":
            explained = [
                _are_turned_on(waiting),
                _others(_off(tenant) - waiting),
            ]
            return self._ask(request, _("Turn on"), tenant, explained=explained)
        if disabling.enable(tenant, _operator(request)):
            self.log_change(request, tenant, _("Turned on."))
            self.message_user(request, _turned_on(waiting), messages.SUCCESS)
        return redirect("admin:subscriptions_tenant_change", pk)

    def look(self, request: HttpRequest, pk: int) -> HttpResponse:
        """At the tenant's pages, as they see them."""
        tenant = get_object_or_404(Tenant, pk=pk)
        if not self.has_support_permission(request):
            raise PermissionDenied
        try:
            pages = reverse("webhooks:overview", args=[tenant.slug])
        except NoReverseMatch:
            self.message_user(request, _("This project does not show the tenants' pages."), messages.ERROR)
            return redirect("admin:subscriptions_tenant_change", pk)
        form = ReasonForm(request.POST if request.method == "POST" else None)
        form.fields["reason"].help_text = _("Such as a ticket's number. The tenant sees it, in its audit log.")
        if not form.is_valid():
            explained = [
                _("You see the pages of %(tenant)s as an owner does, for an hour.") % {"tenant": tenant.name},
                _("You change nothing, and no secret is shown to you."),
                _("The tenant sees in its audit log that you looked, why, and at which pages."),
            ]
            return self._ask(request, _("Look as support"), tenant, explained=explained, form=form)
        support.begin(request, tenant, reason=form.cleaned_data["reason"])
        return redirect(pages)

    def _changeable(self, request: HttpRequest, pk: int) -> Tenant:
        tenant = get_object_or_404(Tenant, pk=pk)
        if not self.has_change_permission(request, tenant):
            raise PermissionDenied
        return tenant

    def _ask(
        self,
        request: HttpRequest,
        deed: str,
        tenant: Tenant,
        *,
        explained: list[str],
        form: forms.Form | None = None,
    ) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": f"{deed}: {tenant.name}",
            "opts": self.opts,
            "deed": deed,
            "explained": [sentence for sentence in explained if sentence],
            "back": reverse("admin:subscriptions_tenant_change", args=[tenant.pk]),
            "form": form,
            "media": self.media,
        }
        return TemplateResponse(request, "admin/subscriptions/ask.html", context)

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        context["may_look"] = self.has_support_permission(request)
        if kwargs.get("obj"):
            context.update(title=_("Tenant %(slug)s") % {"slug": kwargs["obj"].slug}, subtitle=None)
        return super().render_change_form(request, context, *args, **kwargs)


def _deeds(formset: Any) -> Iterable[tuple[AuditEntry.Action, Membership, dict[str, Any]]]:
    for membership in formset.new_objects:  # nobody joined by themselves
        yield Action.MEMBER_CHANGED, membership, {"role": membership.role}
    for membership, fields in formset.changed_objects:
        if "role" in fields:
            yield Action.MEMBER_CHANGED, membership, {"role": membership.role}
    for membership in formset.deleted_objects:
        yield Action.MEMBER_REMOVED, membership, {"role": membership.role}


def _off(tenant: Tenant) -> int:
    return int(Subscription.objects.for_tenant(tenant).filter(disabled_at__isnull=False).count())


def _others(number: int) -> str:
    """What was off for a reason of its own."""
    told = ngettext(
        "%(number)s subscription is off for another reason, and stays off.",
        "%(number)s subscriptions are off for another reason, and stay off.",
        number,
    )
    return told % {"number": intcomma(number)} if number else ""


def _are_turned_off(number: int) -> str:
    told = ngettext(
        "%(number)s subscription is turned off with it.", "%(number)s subscriptions are turned off with it.", number
    )
    return told % {"number": intcomma(number)}


def _are_turned_on(number: int) -> str:
    told = ngettext(
        "%(number)s subscription is turned on with it, and what waits is sent now.",
        "%(number)s subscriptions are turned on with it, and what waits is sent now.",
        number,
    )
    return told % {"number": intcomma(number)}


def _turned_off(number: int) -> str:
    told = ngettext(
        "Turned off, with %(number)s subscription: what happens from now on is not sent.",
        "Turned off, with %(number)s subscriptions: what happens from now on is not sent.",
        number,
    )
    return told % {"number": intcomma(number)}


def _turned_on(number: int) -> str:
    told = ngettext("Turned on, with %(number)s subscription.", "Turned on, with %(number)s subscriptions.", number)
    return told % {"number": intcomma(number)}


def _operator(request: HttpRequest) -> Actor:
    return actor_of(request, as_operator=True)

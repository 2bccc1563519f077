"""Invitations, API keys and the audit log, of all tenants: to be read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.humanize.templatetags.humanize import intcomma
from django.db.models import OuterRef, Subquery
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from subscriptions import keys
from subscriptions.admin.filters import TenantFilter, TypedFilter
from subscriptions.admin.shown import NOTHING, below, clipped, moment, state
from subscriptions.admin.wishes import BoundedPaginator, WishAdmin
from subscriptions.models import ApiKey, AuditEntry, Invitation, Tenant
from subscriptions.trail import actor_of, sentence

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest
    from django.utils.safestring import SafeString


class ReadAdmin(WishAdmin):
    # No other order has an index.
    sortable_by = ()
    ordering = ("-id",)
    list_max_show_all = 0

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Invitation)
class InvitationAdmin(ReadAdmin):
    list_display = ("email", "tenant", "role", "shown_state", "invited_by", "shown_expires")
    list_filter = (TenantFilter,)
    list_select_related = ("tenant", "invited_by")
    search_fields = ("email",)
    search_help_text = gettext_lazy("A part of the address.")
    fields = ("email", "tenant", "role", "shown_state", "invited_by", "shown_expires", "shown_mailed")
    readonly_fields = fields

    @admin.display(description=gettext_lazy("state"))
    def shown_state(self, invitation: Invitation) -> SafeString:
        if invitation.expired:
            return state("cancelled", "-", _("expired"))
        return state("on", "✓", _("open")) if invitation.mailed_at else state("off", "✕", _("mail not sent"))

    @admin.display(description=gettext_lazy("open until"))
    def shown_expires(self, invitation: Invitation) -> SafeString | str:
        return moment(invitation.expires_at)

    @admin.display(description=gettext_lazy("mailed"))
    def shown_mailed(self, invitation: Invitation) -> SafeString | str:
        return moment(invitation.mailed_at)


@admin.register(ApiKey)
class ApiKeyAdmin(ReadAdmin):
    list_display = ("shown_name", "shown_tenant", "shown_scopes", "shown_state", "shown_used", "shown_created")
    list_filter = (TenantFilter,)
    list_select_related = ("tenant",)
    search_fields = ("name", "beginning")
    search_help_text = gettext_lazy("A part of the name, or of the key's beginning.")
    actions = ("revoke",)
    fields = (
        "name",
        "shown_tenant",
        "shown_scopes",
        "mode",
        "shown_networks",
        "shown_state",
        "shown_used",
        "shown_created",
    )
    readonly_fields = fields

    @admin.display(description=gettext_lazy("name"))
    def shown_name(self, key: ApiKey) -> SafeString:
        return below(clipped(key.name), f"{key.beginning}…")

    @admin.display(description=gettext_lazy("tenant"))
    def shown_tenant(self, key: ApiKey) -> str:
        return key.tenant.slug if key.tenant else _("the operator's")

    @admin.display(description=gettext_lazy("may"))
    def shown_scopes(self, key: ApiKey) -> str:
        return ", ".join(str(key.Scope(scope).label) for scope in key.scopes if scope in key.Scope) or NOTHING

    @admin.display(description=gettext_lazy("from"))
    def shown_networks(self, key: ApiKey) -> str:
        return ", ".join(key.networks) or _("anywhere")

    @admin.display(description=gettext_lazy("state"))
    def shown_state(self, key: ApiKey) -> SafeString:
        if key.revoked_at:
            return below(state("off", "✕", _("revoked")), moment(key.revoked_at))
        if key.expired:
            return below(state("cancelled", "-", _("expired")), moment(key.expires_at))
        works = state("on", "✓", _("works"))
        return below(works, format_html(_("until {}"), moment(key.expires_at))) if key.expires_at else works

    @admin.display(description=gettext_lazy("last used"))
    def shown_used(self, key: ApiKey) -> SafeString | str:
        return moment(key.last_used_at)

    @admin.display(description=gettext_lazy("made"))
    def shown_created(self, key: ApiKey) -> SafeString | str:
        made = moment(key.created_at)
        return below(made, clipped(_("by %(who)s") % {"who": key.created_by})) if key.created_by else made

    @admin.action(description=gettext_lazy("Revoke"), permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        actor = actor_of(request, as_operator=True)
        revoked = sum(keys.revoke(key, actor) for key in queryset.select_related("tenant"))
        messages.success(request, _("Revoked: %(number)s.") % {"number": intcomma(revoked)})

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("subscriptions.change_apikey")


class OfTenantFilter(TenantFilter):
    path = "tenant_id"


class ActorFilter(TypedFilter):
    title = gettext_lazy("who")
    placeholder = "alice@example.com"
    parameter_name = "actor"

    def suggestions(self) -> list[str]:
        return []

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        return queryset.filter(actor=self.value()) if self.value() else None


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadAdmin):
    paginator = BoundedPaginator
    list_display = ("shown_at", "shown_sentence", "shown_address", "shown_tenant")
    list_display_links = ("shown_at",)
    list_filter = (OfTenantFilter, ActorFilter, "action")
    fields = ("shown_at", "shown_sentence", "shown_address", "shown_tenant", "kind", "number", "as_operator", "detail")
    readonly_fields = fields

    @admin.display(description=gettext_lazy("when"))
    def shown_at(self, entry: AuditEntry) -> SafeString | str:
        return moment(entry.at)

    @admin.display(description=gettext_lazy("what"))
    def shown_sentence(self, entry: AuditEntry) -> SafeString:
        return sentence(entry)

    @admin.display(description=gettext_lazy("from"))
    def shown_address(self, entry: AuditEntry) -> str:
        return entry.address or NOTHING

    @admin.display(description=gettext_lazy("tenant"))
    def shown_tenant(self, entry: AuditEntry) -> str:
        slug = getattr(entry, "slug", None)
        return slug or (_("number %(number)s") % {"number": entry.tenant_id} if entry.tenant_id else NOTHING)

    def get_queryset(self, request: HttpRequest) -> QuerySet[AuditEntry]:
        # An entry outlives its tenant, and has no foreign key to join by.
        slug = Tenant.objects.filter(pk=OuterRef("tenant_id")).values("slug")[:1]
        entries: QuerySet[AuditEntry] = super().get_queryset(request)
        return entries.annotate(slug=Subquery(slug))

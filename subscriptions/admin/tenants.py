from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import admin

from subscriptions.admin.shown import NOTHING, clipped, moment
from subscriptions.admin.wishes import WishAdmin
from subscriptions.models import Membership, Tenant

if TYPE_CHECKING:
    from django.utils.safestring import SafeString


class MembershipInline(admin.TabularInline):  # type: ignore[type-arg]
    model = Membership
    extra = 0
    autocomplete_fields = ("user",)


@admin.register(Tenant)
class TenantAdmin(WishAdmin):
    list_display = ("shown_slug", "shown_name", "shown_key", "shown_created")
    search_fields = ("slug", "name", "key")
    ordering = ("slug",)
    fields = ("slug", "name", "key", "shown_created")
    readonly_fields = ("shown_created",)
    inlines = (MembershipInline,)

    @admin.display(description="slug", ordering="slug")
    def shown_slug(self, tenant: Tenant) -> SafeString:
        return clipped(tenant.slug)

    @admin.display(description="name", ordering="name")
    def shown_name(self, tenant: Tenant) -> SafeString:
        return clipped(tenant.name)

    @admin.display(description="key", ordering="key")
    def shown_key(self, tenant: Tenant) -> SafeString | str:
        return NOTHING if tenant.key is None else clipped(tenant.key)

    @admin.display(description="created", ordering="created_at")
    def shown_created(self, tenant: Tenant) -> SafeString | str:
        return moment(tenant.created_at)

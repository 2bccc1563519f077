"""What every page writes the same way: times, states, numbers, JSON."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from django import template
from django.contrib.humanize.templatetags.humanize import naturaltime
from django.urls import NoReverseMatch, reverse
from django.utils import formats, timezone
from django.utils.html import format_html
from django.utils.translation import gettext_lazy, pgettext
from heroicons.templatetags.heroicons import heroicon_micro

from subscriptions import addresses
from subscriptions.models import Role, Tenant

if TYPE_CHECKING:
    from datetime import datetime

    from django.http import HttpRequest
    from django.utils.safestring import SafeString

register = template.Library()

# kind -> (icon, tone, word). The tone is a class of the stylesheet.
STATES = {
    "on": ("check-circle", "good", gettext_lazy("On")),
    "off": ("no-symbol", "bad", gettext_lazy("Off")),
    "failing": ("exclamation-triangle", "bad", gettext_lazy("Failing")),
    "delivered": ("check-circle", "good", gettext_lazy("Delivered")),
    "failed": ("x-circle", "bad", gettext_lazy("Failed")),
    "retrying": ("arrow-path", "waiting", gettext_lazy("Retrying")),
    "pending": ("clock", "waiting", gettext_lazy("Pending")),
    "cancelled": ("minus-circle", "quiet", gettext_lazy("Cancelled")),
}


@register.simple_tag
def state(kind: str, word: str = "") -> SafeString:
    """Icon, word and colour, never colour alone."""
    icon, tone, usual = STATES.get(kind, ("minus-circle", "quiet", kind))
    drawn = heroicon_micro(icon, aria_hidden="true")
    return format_html('<span class="state {}">{}{}</span>', tone, drawn, word or usual)


@register.simple_tag
def moment(when: datetime | None, *, ago: bool = False, brief: bool = False, seconds: bool = False) -> SafeString | str:
    """In the reader's zone; UTC to whoever points at it. With `ago`, how long
    since; with `brief`, of today only the time; with `seconds`, to the second."""
    if when is None:
        return "-"
    local = timezone.localtime(when)
    utc = when.astimezone(timezone.get_fixed_timezone(0))
    today = brief and local.date() == timezone.localdate()
    usual = to_the_second() if seconds else "TIME_FORMAT" if today else "DATETIME_FORMAT"
    shown = naturaltime(when) if ago else formats.date_format(local, usual)
    title = f"{formats.date_format(utc, to_the_second())} UTC"
    return format_html('<time datetime="{}" title="{}">{}</time>', utc.isoformat(), title, shown)


def to_the_second() -> str:
    """Django's own formats of a time end with its minute."""
    return pgettext("format of a date and a time, as Django's date filter writes it", "j M Y, H:i:s")


@register.simple_tag(takes_context=True)
def begin(context: dict[str, Any]) -> str:
    """Where the name at the top leads: to the project's page called `home`,
    which lists the tenants of a person; without one, to the tenant's overview."""
    tenant = getattr(context.get("request"), "tenant", None)
    for name, arguments in (("home", []), ("webhooks:overview", [tenant.slug] if tenant else None)):
        if arguments is not None:
            with suppress(NoReverseMatch):
                return reverse(name, args=arguments)
    return ""


@register.simple_tag(takes_context=True)
def url_for_reader(context: dict[str, Any], url: str) -> str:
    """A receiver's URL; to those who only look, without what its query says,
    where receivers like to have a token."""
    return url if context["request"].may(Role.DEVELOPER) else addresses.without_values(url)


@register.filter
def zone(request: HttpRequest) -> str:
    return timezone.get_current_timezone_name()


@register.filter
def tenants(request: HttpRequest) -> list[Tenant]:
    """Those that the person is a member of."""
    return list(Tenant.objects.filter(memberships__user=request.user.pk).order_by("name"))


@register.simple_tag(takes_context=True)
def query_with(context: dict[str, Any], **changes: Any) -> str:
    """The page's own query string with some of it changed; None takes one away."""
    query = context["request"].GET.copy()
    for name, value in changes.items():
        query.pop(name, None)
        if value is not None:
            query[name] = value
    return f"?{query.urlencode()}"

"""How the admin writes states, times and long texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.utils import formats, timezone
from django.utils.html import format_html
from django.utils.translation import pgettext

if TYPE_CHECKING:
    from datetime import datetime

    from django.utils.safestring import SafeString

NOTHING = "-"


def state(kind: str, icon: str, word: str) -> SafeString:
    """A state as icon, word and colour; `kind` names the colour in subscriptions/admin.css."""
    return format_html(
        '<span class="state state-{}"><span class="state-icon" aria-hidden="true">{}</span>{}</span>', kind, icon, word
    )


def clipped(text: object) -> SafeString:
    """In a cell of a list: its beginning, and all of it to whoever points at it."""
    return format_html('<span class="clipped" title="{}">{}</span>', text, text)


def below(first: str, second: str) -> SafeString:
    """Two lines in one cell of a list."""
    return format_html('{}<div class="second">{}</div>', first, second)


def moment(when: datetime | None) -> SafeString | str:
    """To the second, in the current time zone; as it stands where USE_TZ is off."""
    if when is None:
        return NOTHING
    local = timezone.localtime(when) if timezone.is_aware(when) else when
    time = pgettext("format of a time, as Django's date filter writes it", "H:i:s")
    parts = formats.date_format(local, "DATE_FORMAT"), formats.time_format(local, time)
    return format_html('<time datetime="{}"><span>{}</span> <span>{}</span></time>', local.isoformat(), *parts)

"""How the page of the API shows parts of its OpenAPI document."""

from __future__ import annotations

import re
from typing import Any

from django import template
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _

register = template.Library()

CODE = re.compile(r"`([^`]+)`")


@register.filter
def marked(text: Any) -> SafeString:
    """What stands between backticks as code."""
    return mark_safe(CODE.sub(r"<code>\1</code>", escape(str(text))))  # noqa: S308 - escaped before


@register.filter
def kind(schema: dict[str, Any]) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "enum" in schema:
        return " | ".join("null" if each is None else str(each) for each in schema["enum"])
    kinds = schema.get("type", "any")
    words = [_of(each, schema) for each in (kinds if isinstance(kinds, list) else [kinds])]
    return " | ".join(words)


def _of(kind_: str, schema: dict[str, Any]) -> str:
    if kind_ == "array":
        return _("array of %(items)s") % {"items": kind(schema.get("items", {}))}
    return f"{kind_} ({schema['format']})" if "format" in schema and kind_ != "null" else kind_

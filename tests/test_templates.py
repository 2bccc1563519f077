"""Every word on a tenant's page can be translated. (The admin is for the operator.)"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEMPLATES = sorted(
    path
    for app in ("config", "subscriptions", "webhooks")
    for path in (ROOT / app / "templates").rglob("*.html")
    if "admin" not in path.parts
)
# Names, and what is the same in every language.
SAME = {"Signalpost", "webhook-id", "URL", "UTC", "JSON", "ID", "curl", "API", "http", "https"}
TRANSLATED = re.compile(
    r"\{%-?\s*comment\b.*?endcomment\s*%\}|\{#.*?#\}|\{%\s*blocktrans(?:late)?\b.*?endblocktrans(?:late)?\s*%\}",
    re.DOTALL,
)
TAG = re.compile(r"\{%.*?%\}|\{\{.*?\}\}", re.DOTALL)
READ = re.compile(r"\b(?:aria-label|alt|title|data-label|data-copied)=\"([^\"]*)\"|\b(?:title|alt)='([^']*)'")
# What machines read, or what is quoted as it stands.
QUOTED = re.compile(r"<(script|style|code|pre|svg|kbd)\b.*?</\1>", re.DOTALL)
WORD = re.compile(r"[^\W\d_][\w-]*[^\W\d_]")


def bare_words(template: str) -> set[str]:
    """Those outside of {% translate %}, {% blocktranslate %} and variables."""
    text = TAG.sub(" ", TRANSLATED.sub(" ", template))
    attributes = [found for pair in READ.findall(text) for found in pair]
    shown = re.sub(r"&\w+;", " ", re.sub(r"<[^>]*>", " ", QUOTED.sub(" ", text)))
    return {word for part in (shown, *attributes) for word in WORD.findall(part)} - SAME


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_word_can_be_translated(path: Path) -> None:
    assert bare_words(path.read_text()) == set()


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ("<p>Hello {{ name }}</p>", {"Hello"}),
        ('<a title="Help">{% translate "Hello" %}</a>', {"Help"}),
        ("<p>{% blocktranslate %}Hello {{ name }}{% endblocktranslate %}</p>", set()),
        ("{# Hello #}<p>{% translate 'Hello' %} &middot; <code>GET</code></p>", set()),
    ],
)
def test_a_bare_word_is_found(template: str, found: set[str]) -> None:
    assert bare_words(template) == found

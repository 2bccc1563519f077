"""Every word on a page can be translated, the admin's included."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEMPLATES = sorted(
    path for app in ("config", "subscriptions", "webhooks") for path in (ROOT / app / "templates").rglob("*.html")
)
MODULES = sorted(
    [ROOT / "config" / "admin.py", ROOT / "config" / "views.py", *ROOT.glob("*/admin/*.py"), *ROOT.glob("*/pages/*.py")]
)
# Names, and what is the same in every language.
SAME = {"Signalpost", "webhook-id", "URL", "UTC", "JSON", "ID", "curl", "API", "http", "https"}
NO_WORDS = re.compile(
    r"\{% block bodyclass %\}.*?\{% endblock %\}|"
    r"\{%-?\s*comment\b.*?endcomment\s*%\}|\{#.*?#\}|\{%\s*blocktrans(?:late)?\b.*?endblocktrans(?:late)?\s*%\}",
    re.DOTALL,
)
TAG = re.compile(r"\{%.*?%\}|\{\{.*?\}\}", re.DOTALL)
READ = re.compile(
    r"\b(?:aria-label|alt|title|data-label|data-copied)=\"([^\"]*)\"|\b(?:title|alt)='([^']*)'"
    r'|<input type="submit"[^>]* value="([^"]*)"'
)
# What machines read, or what is quoted as it stands.
QUOTED = re.compile(r"<(script|style|code|pre|svg|kbd)\b.*?</\1>", re.DOTALL)
WORD = re.compile(r"[^\W\d_][\w-]*[^\W\d_]")
EXAMPLES = {"shop.order.*", "alice@example.com"}


def bare_words(template: str) -> set[str]:
    """Those outside of {% translate %}, {% blocktranslate %} and variables."""
    text = TAG.sub(" ", NO_WORDS.sub(" ", template))
    attributes = [found for groups in READ.findall(text) for found in groups]
    shown = re.sub(r"&\w+;", " ", re.sub(r"<[^>]*>", " ", QUOTED.sub(" ", text)))
    return {word for part in (shown, *attributes) for word in WORD.findall(part)} - SAME


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_word_can_be_translated(path: Path) -> None:
    assert bare_words(path.read_text()) == set()


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ("<p>Hello {{ name }}</p>", {"Hello"}),
        ('<input type="submit" class="default" value="Send {{ all }}">', {"Send"}),
        ('<a title="Help">{% translate "Hello" %}</a>', {"Help"}),
        ("<p>{% blocktranslate %}Hello {{ name }}{% endblocktranslate %}</p>", set()),
        ("{# Hello #}<p>{% translate 'Hello' %} &middot; <code>GET</code></p>", set()),
    ],
)
def test_a_bare_word_is_found(template: str, found: set[str]) -> None:
    assert bare_words(template) == found


# What Python shows: whatever these name, and whatever reads like a sentence.
SHOWN = {"description", "title", "placeholder", "label", "help_text", "search_help_text"}
MARKS = {"_", "gettext", "gettext_lazy", "ngettext", "pgettext"}


def unmarked(source: str) -> set[str]:
    """Strings for people that no gettext call holds."""
    return set(_unmarked(ast.parse(source)))


def _unmarked(node: ast.AST, named: str = "") -> Iterator[str]:
    if isinstance(node, ast.Call) and ast.unparse(node.func) in MARKS:
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        text = re.sub(r"<[^>]*>|\{[^}]*\}", " ", node.value)
        if (named in SHOWN and WORD.search(text)) or re.search(r"[^\W\d_] [^\W\d_]|[a-z][.!?]$", text):
            yield node.value
        return
    body = getattr(node, "body", None)
    skipped = body[0] if isinstance(body, list) and body and _is_docstring(body[0]) else None
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and child is not skipped and field not in {"annotation", "returns"}:
                yield from _unmarked(child, _name_of(node))


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _name_of(node: ast.AST) -> str:
    """What a value is given to: a keyword, or a name of a class."""
    if isinstance(node, ast.keyword):
        return node.arg or ""
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    return ""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_word_of_python_can_be_translated(path: Path) -> None:
    assert unmarked(path.read_text()) - SAME - EXAMPLES == set()


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('message_user(request, "It is done")', {"It is done"}),
        ('message_user(request, f"{number} of them")', {" of them"}),
        ('message_user(request, _("It is done"))', set()),
        ('@admin.display(description="state")\ndef state(): ...', {"state"}),
        ('class A:\n    title = "state"', {"state"}),
        ('def a():\n    """Do it well."""\n    return "webhooks_delivery_change"', set()),
    ],
)
def test_a_bare_string_is_found(source: str, found: set[str]) -> None:
    assert unmarked(source) == found

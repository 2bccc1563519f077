"""The OpenAPI document: valid, complete, current; and the page made of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings
from django.test import Client, override_settings
from django.urls import Resolver404, resolve
from django.utils import translation
from drf_spectacular.validation import validate_schema
from jsonschema import Draft202012Validator

from subscriptions import catalog
from subscriptions.api.problems import CODES
from subscriptions.api.views import ApiView
from webhooks.api import schema, urls

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.programs import Api

ROOT = Path(__file__).resolve().parents[3]
FILE = ROOT / "docs" / "openapi.json"
VALUES = {"id": "7", "slug": "acme", "name": "shop.order.updated"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return schema.document()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def views() -> Iterator[tuple[str, type[ApiView]]]:
    for pattern in urls.urlpatterns:
        view = getattr(pattern.callback, "cls", None)
        if isinstance(view, type) and issubclass(view, ApiView):
            yield re.sub(r"<\w+:(\w+)>", r"{\1}", str(pattern.pattern)).replace("{pk}", "{id}"), view


def test_the_file_is_what_the_command_writes_today(tmp_path: Path) -> None:
    """By a process of its own: the tests register models that nobody else has."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "VIRTUAL_ENV") if name in os.environ}
    env = {**kept, "SIGNALPOST_DATA_DIR": str(tmp_path), "DJANGO_SETTINGS_MODULE": "config.settings"}
    made = tmp_path / "openapi.json"
    subprocess.run([sys.executable, "manage.py", "openapi", "--output", made], cwd=ROOT, env=env, check=True)
    assert FILE.read_text() == made.read_text(), "write it anew: python manage.py openapi --output docs/openapi.json"


def test_the_file_lists_the_shops_topics() -> None:
    written = json.loads(FILE.read_text())
    assert written["openapi"] == "3.1.0"
    assert {"shop.order.created", "shop.order.updated", "signalpost.subscription.disabled"} <= set(written["webhooks"])
    assert not [topic for topic in written["webhooks"] if topic.startswith("zoo.")]


def test_it_is_valid(document: dict[str, Any]) -> None:
    validate: Any = validate_schema
    validate(document)
    validate(json.loads(FILE.read_text()))


def test_nothing_warned(capsys: pytest.CaptureFixture[str]) -> None:
    schema._routes.cache_clear()
    schema.routes()
    assert capsys.readouterr().err == ""


def test_every_route_and_method_is_described(document: dict[str, Any]) -> None:
    told = {(path, method) for path, method, _operation in operations(document)}
    there = {
        (f"/{path}", method.lower())
        for path, view in views()
        for method in view().allowed_methods
        if method not in {"HEAD", "OPTIONS"}
    }
    assert told == there
    assert len(there) > 30


def test_operations_have_names_of_their_own_and_say_what_they_do(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _path, _method, operation in operations(document)]
    assert len(set(names)) == len(names)
    for _path, _method, operation in operations(document):
        assert operation["summary"]
        assert all(
            parameter.get("description") or parameter["in"] == "path" for parameter in operation.get("parameters", ())
        )


def test_every_body_and_answer_has_an_example_that_fits(document: dict[str, Any]) -> None:
    store = {"$schema": "https://json-schema.org/draft/2020-12/schema", "components": document["components"]}
    without = []
    for path, method, operation in operations(document):
        contents = [operation.get("requestBody", {}).get("content", {})]
        contents += [answer.get("content", {}) for answer in operation["responses"].values()]
        for content in filter(None, (each.get("application/json") for each in contents)):
            if not content.get("examples"):
                without.append(f"{method} {path}")
            for example in content.get("examples", {}).values():
                Draft202012Validator({**store, **content["schema"]}).validate(example["value"])
    # Bodies that are empty, and what is too long to show.
    assert {
        each for each in without if not re.match(r"post .*/(enable|rotate|revoke|again|cancel|replay|test)/", each)
    } <= {"get /openapi.json"}


def test_every_code_is_of_some_route(document: dict[str, Any]) -> None:
    used = {code for _path, _method, operation in operations(document) for code in operation["x-problems"]}
    assert set(CODES) - used <= {"method_not_allowed"}


def test_every_topic_has_its_body_and_an_example_that_fits(document: dict[str, Any]) -> None:
    assert set(document["webhooks"]) == set(catalog.topics())
    for topic, item in document["webhooks"].items():
        content = item["post"]["requestBody"]["content"]["application/json"]
        assert content["schema"] == {"$ref": f"#/components/schemas/{topic}"}
        body = document["components"]["schemas"][topic]
        Draft202012Validator.check_schema(body)
        Draft202012Validator(body).validate(content["examples"]["body"]["value"])
        assert body["properties"]["type"] == {"const": topic}


def test_without_a_key_it_tells_no_topic(client: Client, db: None) -> None:
    answer = client.get("/api/v1/openapi.json")
    assert answer.status_code == 200
    assert answer.json()["servers"] == [{"url": "http://testserver/api/v1"}]
    assert "webhooks" not in answer.json()
    assert "shop.order" not in str(answer.json()["components"]["schemas"].keys())


def test_with_a_key_it_lists_what_the_tenant_may_hear(api: Api, operator: Api) -> None:
    answer = api.get("openapi.json")
    assert "shop.order.updated" in answer.json()["webhooks"]
    assert "shop.order.updated" in operator.get("openapi.json").json()["webhooks"]
    assert Client(headers={"Authorization": "Bearer x"}).get("/api/v1/openapi.json").status_code == 401


def test_one_answer_changes_no_other(api: Api) -> None:
    first = api.get("openapi.json").json()
    assert api.get("openapi.json").json() == first
    assert "webhooks" not in schema.routes()


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loads: list[str] = []
        self.tags: set[str] = set()
        self.inline: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        found = {name: value or "" for name, value in attrs}
        if "id" in found:
            self.ids.append(found["id"])
        if tag == "a":
            self.links.append(found["href"])
        elif "href" in found or "src" in found:
            self.loads.append(found.get("href") or found["src"])
        self.inline |= {name for name in found if name == "style" or name.startswith("on")}


def test_the_page_shows_every_operation_and_code_with_our_own_files_alone(client: Client) -> None:
    answer = client.get("/api/v1/docs/")
    assert answer.status_code == 200
    assert "'unsafe-inline'" not in answer["Content-Security-Policy"]
    page = Page()
    page.feed(answer.content.decode())
    assert len(set(page.ids)) == len(page.ids)
    assert set(CODES) <= set(page.ids)
    assert {operation["operationId"] for _path, _method, operation in operations(schema.routes())} <= set(page.ids)
    assert all(link[1:] in page.ids for link in page.links if link.startswith("#"))
    assert all(each.startswith("/static/") for each in page.loads)
    assert not page.tags & {"script", "style", "iframe"}
    assert not page.inline
    assert client.get("/api/v1/").headers["Location"] == "http://testserver/api/v1/docs/"


@pytest.mark.parametrize("path", ["", "docs/", "docs"])
def test_what_is_sent_to_a_page_is_a_problem_of_the_api(path: str) -> None:
    strict = Client(enforce_csrf_checks=True)
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        answer = strict.generic(method, f"/api/v1/{path}", b"{}", "application/json")
        assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
        assert answer["Allow"] == "GET, HEAD"


def test_the_document_is_made_in_one_language_whatever_a_browser_asks_for(client: Client) -> None:
    client.get("/api/v1/openapi.json")
    made = schema._routes.cache_info().misses
    # The last language that was asked for would stay the process's own.
    middleware = [*settings.MIDDLEWARE, "django.middleware.locale.LocaleMiddleware"]
    with translation.override("en"), override_settings(MIDDLEWARE=middleware):
        for language in ("de", "fr", "ar"):
            asked = Client().get("/api/v1/openapi.json", headers={"Accept-Language": language})
            assert asked.headers["Content-Language"] == language
    assert schema._routes.cache_info().misses == made


@pytest.mark.parametrize("root", ["/hooks", "/inside/hooks"])
def test_a_host_mounts_the_api_where_it_likes_without_pages(client: Client, api: Api, root: str) -> None:
    with override_settings(ROOT_URLCONF="tests.subscriptions.api.urls_api_only"):
        page = client.get(f"{root}/", follow=True)
        assert page.redirect_chain == [(f"http://testserver{root}/docs/", 302)]
        assert f"http://testserver{root}/subscriptions/" in page.content.decode()
        assert client.get(f"{root}/openapi.json").json()["servers"] == [{"url": f"http://testserver{root}"}]
        listed = api.get(f"{root}/subscriptions?limit=1")
        assert listed.status_code == 200
        assert client.get(f"{root}/keys/").json()["type"] == f"http://testserver{root}/docs/#unauthorized"
        assert client.get(f"{root}/nothing/").json()["type"] == f"http://testserver{root}/docs/#not_found"


def test_every_path_leads_to_its_view() -> None:
    for path, view in views():
        try:
            found = resolve(f"/api/v1/{path.format(**VALUES)}")
        except Resolver404:
            pytest.fail(path)
        assert getattr(found.func, "cls", None) is view, path

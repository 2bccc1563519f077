"""The API's own description: the OpenAPI document, and a page made of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

from django.shortcuts import redirect, render
from django.utils.translation import gettext_lazy as _
from django.views.decorators.csrf import csrf_exempt
from rest_framework.exceptions import MethodNotAllowed
from rest_framework.response import Response

from subscriptions.api.authenticating import BearerAuthentication
from subscriptions.api.describing import CODES_OF, described
from subscriptions.api.problems import CODES, address
from subscriptions.api.views import ApiView, NotFound
from webhooks.api import schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.http import HttpRequest, HttpResponse
    from rest_framework.request import Request


class OpenApi(ApiView):
    """Open to anybody, but for the topics: they tell how the host's models look."""

    authentication_classes = []
    of_tenant = False

    @described(
        "get_openapi",
        _("Get this document"),
        about=_("With a key, `webhooks` lists the topics that it may hear; without one, none."),
        gives={"type": "object", "additionalProperties": True},
        problems=("unauthorized",),
    )
    def get(self, request: Request) -> Response:
        root = address(request, "root").rstrip("/")
        if "Authorization" not in request.headers:
            return Response({**schema.routes(), "servers": [{"url": root}]})
        caller, _key = BearerAuthentication().authenticate(request)
        return Response(schema.document(caller.tenant, root=root))


@dataclass(frozen=True, slots=True)
class Shown:
    """One operation, for the page."""

    method: str
    path: str
    operation: dict[str, Any]
    parameters: list[dict[str, Any]]
    fields: list[tuple[str, dict[str, Any], bool]]
    request: str  # an example
    answer: str  # another
    good: list[tuple[str, dict[str, Any]]]
    problems: list[str]


class ForPeople(NotFound):
    """What a program hears that sends something to a page."""

    allowed_methods = ["GET", "HEAD"]

    def _handler(self) -> Callable[..., Response]:
        raise MethodNotAllowed(self.request.method or "")


def _for_people(page: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], Any]:

    @csrf_exempt
    @wraps(page)
    def shown(request: HttpRequest) -> Any:
        return page(request) if request.method in ForPeople.allowed_methods else ForPeople.as_view()(request)

    return shown


@_for_people
def root(request: HttpRequest) -> HttpResponse:
    return redirect(address(request, "docs"))


@_for_people
def docs(request: HttpRequest) -> HttpResponse:
    found = schema.routes()
    shown = list(_operations(found))
    context = {
        "groups": [
            (tag["name"], [each for each in shown if tag["name"] in each.operation["tags"]]) for tag in found["tags"]
        ],
        "codes": CODES,
        "version": found["info"]["version"],
        "root": address(request, "root"),
        "openapi": address(request, "openapi"),
    }
    return render(request, "webhooks/api/docs.html", context)


def _operations(found: schema.Document) -> Iterator[Shown]:
    for path, methods in found["paths"].items():
        for method, operation in methods.items():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            good = [(code, each) for code, each in operation["responses"].items() if "$ref" not in each]
            yield Shown(
                method=method.upper(),
                path=path,
                operation=operation,
                parameters=operation.get("parameters", []),
                fields=_fields(found, body.get("schema", {})),
                request=_example(body),
                answer=_example(good[0][1].get("content", {}).get("application/json", {})),
                good=good,
                problems=operation[CODES_OF],
            )


def _fields(found: schema.Document, body: dict[str, Any]) -> list[tuple[str, dict[str, Any], bool]]:
    """Name, schema, and whether it is needed."""
    named = found["components"]["schemas"].get(body.get("$ref", "").rpartition("/")[2], body)
    needed = set(named.get("required", ()))
    return [(name, each, name in needed) for name, each in named.get("properties", {}).items()]


def _example(content: dict[str, Any]) -> str:
    for example in content.get("examples", {}).values():
        return json.dumps(example["value"], indent=2, ensure_ascii=False)
    return ""

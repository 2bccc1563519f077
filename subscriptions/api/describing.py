"""What a route takes and gives, beside the route: the OpenAPI document is made
of it.

    @described("list_keys", _("List keys"), gives=listed(KeyShape))
    def get(self, request: Request) -> Response: ...
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from django.utils.translation import gettext_lazy as _
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse
from rest_framework import serializers

from subscriptions.api.fields import Strict
from subscriptions.api.paging import TENANT, Parameter
from subscriptions.api.problems import CODES, MEDIA_TYPE, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from django_stubs_ext import StrOrPromise

    View = TypeVar("View", bound=Callable[..., Any])

ALWAYS = ("unknown_parameter", "bad_filter", "unauthorized", "missing_scope", "throttled", "internal", "unavailable")
OF_TENANT = ("tenant_required", "not_found")
OF_BODY = (
    "malformed_json",
    "duplicate_key",
    "too_deep",
    "bad_number",
    "bad_text",
    "invalid",
    "unknown_field",
    "length_required",
    "too_large",
    "unsupported_media_type",
)
# Where an operation of the document keeps the codes of its problems.
CODES_OF = "x-problems"
NUMBER: dict[str, Any] = {"type": "integer"}
COUNTED = (
    ("RateLimit-Limit", _("How many requests the key may make in the window."), NUMBER),
    ("RateLimit-Remaining", _("How many of them are left."), NUMBER),
    ("RateLimit-Reset", _("Seconds until the window ends."), NUMBER),
    ("Signalpost-Mode", _("The key's mode: what a key for tests writes is not kept."), {"enum": ["live", "test"]}),
)
IF_MATCH = Parameter("If-Match", _("The `ETag` that was seen: 412 where it is another by now."))
IF_NONE_MATCH = Parameter("If-None-Match", _("The `ETag` that is known: 304 where it still is the same."))


@dataclass(frozen=True, slots=True)
class Operation:
    id: str
    summary: StrOrPromise
    about: StrOrPromise = ""
    takes: type[serializers.Serializer[Any]] | None = None
    gives: Any = None  # a serializer, or a schema; None for no body
    status: int = 200
    # Other good answers: status → what it means.
    also: Mapping[int, StrOrPromise] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    headers: tuple[Parameter, ...] = ()  # of the request
    example: Any = None  # of the request's body
    answer: Any = None  # an example of the answer


def described(id: str, summary: StrOrPromise, **more: Any) -> Callable[[View], View]:  # noqa: A002 - as in OpenAPI
    operation = Operation(id, summary, **more)

    def decorate(view: View) -> View:
        view.operation = operation  # type: ignore[attr-defined]
        return view

    return decorate


TEXT: dict[str, Any] = {"type": "string"}
FAULT = {
    "field": {**TEXT, "description": _("A JSON pointer into the body, or the name of a parameter.")},
    "detail": TEXT,
    "code": TEXT,
}
# RFC 9457.
PROBLEM = {
    "type": {**TEXT, "description": _("Where the code is described.")},
    "title": TEXT,
    "status": {"type": "integer"},
    "code": {**TEXT, "description": _("What programs may rely on.")},
    "detail": TEXT,
    "errors": {"type": "array", "items": {"$ref": "#/components/schemas/Fault"}},
}


@cache
def listed(shape: type[serializers.Serializer[Any]]) -> type[serializers.Serializer[Any]]:
    """A page of a list."""
    fields = {
        "data": shape(many=True),
        "next": serializers.URLField(help_text=str(_("Where older ones are; null at the end.")), allow_null=True),
        "previous": serializers.URLField(
            help_text=str(_("Where newer ones are; null at the beginning.")), allow_null=True
        ),
    }
    return type(f"{shape.__name__.removesuffix('Shape')}List", (serializers.Serializer,), fields)


def only(*rows: Any) -> dict[str, Any]:
    """An example of a list."""
    return {"data": list(rows), "next": None, "previous": None}


class Described(AutoSchema):
    """Of an ApiView's method, as its `@described` says."""

    view: Any

    @property
    def operation(self) -> Operation:
        operation: Operation = getattr(self.view, self.method.lower()).operation
        return operation

    def get_operation_id(self) -> str:
        return self.operation.id

    def get_summary(self) -> str:
        return str(self.operation.summary)

    def get_description(self) -> str:  # type: ignore[override]
        scope = self.view.scopes[self.method] if self.view.authentication_classes else None
        needs = _("Needs the scope `%(scope)s`.") % {"scope": scope.value} if scope else ""
        return "\n\n".join(str(part) for part in (self.operation.about, needs) if part)

    def get_tags(self) -> list[str]:
        return [self.path.strip("/").split("/")[0].removesuffix(".json")]

    def get_auth(self) -> list[dict[str, Any]]:
        return [{"key": []}] if self.view.authentication_classes else []

    def get_override_parameters(self) -> list[Any]:
        query = list(self.view.parameters.get(self.method, ()))
        if self.view.of_tenant:
            query.append(TENANT)
        found = [_parameter(each, OpenApiParameter.QUERY) for each in query]
        return found + [_parameter(each, OpenApiParameter.HEADER) for each in self.operation.headers]

    def get_request_serializer(self) -> Any:
        return self.operation.takes

    def get_response_serializers(self) -> Any:
        operation = self.operation
        found: dict[Any, Any] = {operation.status: OpenApiResponse(operation.gives, str(operation.summary))}
        for status, means in operation.also.items():
            found[status] = OpenApiResponse(None, str(means))
        return found

    def get_extensions(self) -> dict[str, Any]:
        """The codes of its problems, for `complete`."""
        codes = list(ALWAYS) if self.view.authentication_classes else ["unknown_parameter", "bad_filter"]
        if self.view.of_tenant:
            codes += OF_TENANT
        if self.operation.takes is not None:
            codes += OF_BODY
        return {CODES_OF: list(dict.fromkeys([*codes, *self.operation.problems]))}

    def get_serializer_name(self, serializer: Any, direction: Any) -> str:
        return type(serializer).__name__.removesuffix("Shape")

    def get_examples(self) -> list[OpenApiExample]:
        found = []
        if self.operation.example is not None:
            found.append(OpenApiExample("request", self.operation.example, request_only=True))
        if self.operation.answer is not None:
            status = [str(self.operation.status)]
            found.append(OpenApiExample("answer", self.operation.answer, response_only=True, status_codes=status))
        return found

    def _map_basic_serializer(self, serializer: Any, direction: Any) -> Any:
        """What is refused by the serializer is refused by its schema; what is
        only given may be empty."""
        parent: Any = super()
        found = parent._map_basic_serializer(serializer, direction)
        if isinstance(serializer, Strict):
            return {**found, "additionalProperties": False}
        for each in found.get("properties", {}).values():
            each.pop("minLength", None)
        return found


def _parameter(each: Parameter, place: Any) -> OpenApiParameter:
    return OpenApiParameter(each.name, each.schema, place, description=str(each.about))


def shared() -> dict[str, dict[str, Any]]:
    """Components that every route refers to."""
    statuses = sorted({kind.status for kind in CODES.values()})
    return {
        "schemas": {"Problem": _shape(PROBLEM), "Fault": _shape(FAULT)},
        "responses": {f"Problem{status}": _answer(status) for status in statuses},
        "headers": {name: {"description": str(about), "schema": schema} for name, about, schema in COUNTED},
    }


def complete(operation: dict[str, Any]) -> None:
    """Give an operation of the document its problems, and the headers of every answer."""
    if operation.get("security"):
        for answer in operation["responses"].values():
            answer["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name, *_more in COUNTED}
    for status in sorted({CODES[code].status for code in operation[CODES_OF]}):
        operation["responses"][str(status)] = {"$ref": f"#/components/responses/Problem{status}"}


def _answer(status: int) -> dict[str, Any]:
    codes = {code: kind for code, kind in CODES.items() if kind.status == status}
    return {
        "description": "; ".join(f"`{code}`: {kind.title}" for code, kind in codes.items()),
        "content": {
            MEDIA_TYPE: {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "examples": {code: {"value": _example(code, kind)} for code, kind in codes.items()},
            }
        },
    }


def _example(code: str, kind: Kind) -> dict[str, Any]:
    return {
        "type": f"https://signalpost.example/api/v1/docs/#{code}",
        "title": str(kind.title),
        "status": kind.status,
        "code": code,
        "detail": str(kind.advice),
        "errors": [],
    }


def _shape(fields: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Its words in the language that is asked for."""
    told = {
        name: {word: str(value) if word == "description" else value for word, value in each.items()}
        for name, each in fields.items()
    }
    return {"type": "object", "properties": told, "required": list(told)}

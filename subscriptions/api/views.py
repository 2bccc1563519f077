"""What every route of the API has in common, whatever the host project's own
REST_FRAMEWORK settings say.

    class Subscriptions(ApiView):
        parameters = {"GET": (*PAGING, *TIMES)}

        def get(self, request: Request) -> Response: ...
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, cast

import orjson
from django.db import transaction
from django.http import Http404
from django.utils.cache import patch_cache_control, patch_vary_headers
from django.utils.functional import cached_property
from django.utils.translation import gettext as _
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.permissions import SAFE_METHODS
from rest_framework.renderers import BaseRenderer
from rest_framework.views import APIView

from subscriptions import keys
from subscriptions.api import problems, reading, throttles
from subscriptions.api.authenticating import BearerAuthentication, Caller
from subscriptions.api.describing import Described
from subscriptions.api.paging import TENANT, Parameter, bad_filter, trouble
from subscriptions.api.problems import Fault, Problem
from subscriptions.models import ApiKey, Tenant, home

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from rest_framework.request import Request
    from rest_framework.response import Response

    from subscriptions.api.fields import Strict
    from subscriptions.trail import Actor

Scope = ApiKey.Scope
READ, WRITE, PUBLISH, OPERATE = Scope.READ, Scope.WRITE, Scope.PUBLISH, Scope.OPERATE

MODE = "Signalpost-Mode"


class Renderer(BaseRenderer):
    media_type = "application/json"
    format = "json"
    charset = None

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        if data is None:
            return b""
        try:
            return orjson.dumps(data, default=str)
        except TypeError:  # a number beyond 64 bits, as a host's schema may have
            return json.dumps(data, default=str).encode()


class Negotiation(BaseContentNegotiation):
    """There is one language, whatever is asked for."""

    def select_parser(self, request: Request, parsers: Iterable[Any]) -> Any:
        media_type = (request.content_type or "").partition(";")[0].strip().lower()
        return next((parser for parser in parsers if parser.media_type == media_type), None)

    def select_renderer(self, request: Request, renderers: Iterable[Any], format_suffix: str | None = None) -> Any:
        renderer = next(iter(renderers))
        return renderer, renderer.media_type


class ApiView(APIView):
    scopes: ClassVar[Mapping[str, Scope]] = {
        "GET": READ,
        "HEAD": READ,
        "POST": WRITE,
        "PATCH": WRITE,
        "PUT": WRITE,
        "DELETE": WRITE,
    }
    # What the query may hold, by method.
    parameters: ClassVar[Mapping[str, Sequence[Parameter]]] = {}
    # Whether what it shows is one tenant's, so that an operator's key has to name that.
    of_tenant: ClassVar[bool] = True
    body_limit: ClassVar[int] = reading.LIMIT

    http_method_names = ["get", "head", "post", "put", "patch", "delete"]
    authentication_classes = [BearerAuthentication]
    permission_classes = []
    throttle_classes = []
    parser_classes = [reading.StrictJSONParser]
    renderer_classes = [Renderer]
    content_negotiation_class = Negotiation
    versioning_class = None
    metadata_class = None
    format_kwarg = None
    schema = Described()

    request: Request

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Any:
        # An answer is given after the commit: not inside a transaction of the host's.
        return transaction.non_atomic_requests(home())(super().as_view(**initkwargs))

    # --- for the routes ---

    @property
    def caller(self) -> Caller:
        assert self.known is not None  # noqa: S101 - there is one where anybody is asked who they are
        return self.known

    @property
    def actor(self) -> Actor:
        """For the audit log."""
        return self.caller.actor

    @cached_property
    def tenant(self) -> Tenant:
        """Whose things are asked for: the key's, or the one that an operator names."""
        named, own = self.request.query_params.get(TENANT.name), self.caller.tenant
        if own is not None:
            if named not in {None, own.slug}:
                raise Http404
            return own
        if named is None:
            raise Problem("tenant_required", errors=[Fault(TENANT.name, _("Name a tenant."), "required")])
        tenant: Tenant | None = Tenant.objects.using(home()).filter(slug=named).first()
        if tenant is None:
            raise Http404
        return tenant

    def read(self, serializer: type[Strict], **options: Any) -> dict[str, Any]:
        """The body by `serializer`; whatever is wrong with it is told by field."""
        found = serializer(data=self.request.data, **options)
        found.is_valid(raise_exception=True)
        return cast("dict[str, Any]", found.validated_data)

    def need(self, scope: Scope) -> None:
        # To operate is the operator's, whatever a tenant's key may say.
        if not keys.may(self.caller.key, scope) or (scope == OPERATE and self.caller.tenant is not None):
            raise Problem("missing_scope", _("This takes a key with the scope %(scope)s.") % {"scope": scope.value})

    # --- the way of a request ---

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        self.args, self.kwargs = args, kwargs
        self.request = self.initialize_request(request, *args, **kwargs)
        self.headers = self.default_response_headers
        self.known: Caller | None = None
        self.room: throttles.Room | None = None
        try:
            self.initial(self.request, *args, **kwargs)
            with self._kept_or_not():
                response = self._handler()(self.request, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - each is answered, or raised again
            response = self.handle_exception(error)
        self.response = self.finalize_response(self.request, response, *args, **kwargs)
        return self.response

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        request.accepted_renderer, request.accepted_media_type = self.perform_content_negotiation(request)
        if self.authentication_classes:
            self.known = cast("Caller", request.user)
            self.room = throttles.count(self.known.key)
            throttles.check(self.room)
        self._handler()
        reading.check_length(request)
        self._check_parameters()
        if self.authentication_classes:
            self.need(self.scopes[request.method or "GET"])

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)
        for name, value in (self.room.headers() if self.room else {}).items():
            response[name] = value
        if self.known is not None:
            response[MODE] = self.known.key.mode
        patch_vary_headers(response, ["Authorization"])
        if not response.has_header("Cache-Control"):
            patch_cache_control(response, private=True, no_cache=True)
        return response

    def get_exception_handler(self) -> Any:
        return problems.handle

    def get_authenticate_header(self, request: Request) -> str:
        return BearerAuthentication().authenticate_header(request)

    def _handler(self) -> Callable[..., Response]:
        name = (self.request.method or "").lower()
        handler = getattr(self, name, None) if name in self.http_method_names else None
        return cast("Callable[..., Response]", handler or self.http_method_not_allowed(self.request))

    @contextmanager
    def _kept_or_not(self) -> Iterator[None]:
        """A key for tests does all of it, and then nothing of it stays, but
        for the entry in the audit log of who was shown a secret."""
        if self.known is None or not self.known.is_test or self.request.method in SAFE_METHODS:
            yield
            return
        with transaction.atomic(using=home()):
            yield
            transaction.set_rollback(True, using=home())

    def _check_parameters(self) -> None:
        query = self.request._request.GET
        method = "GET" if self.request.method == "HEAD" else self.request.method or ""
        known = {each.name: each for each in self.parameters.get(method, ())}
        if self.of_tenant:
            known[TENANT.name] = TENANT
        unknown = [
            Fault(name, _("There is no such parameter."), "unknown_parameter") for name in query if name not in known
        ]
        if unknown:
            raise Problem("unknown_parameter", errors=unknown)
        for name, values in query.lists():
            if len(values) > 1 or "\0" in values[0]:
                raise bad_filter(name, _("Give it once, and without invisible characters."))
            if told := trouble(known[name], values[0]):
                raise bad_filter(name, told)


class NotFound(ApiView):
    """Whatever no route knows."""

    authentication_classes = []
    of_tenant = False

    def _handler(self) -> Callable[..., Response]:
        raise Http404

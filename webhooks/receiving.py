"""The receiver's side: a Standard Webhooks request is verified before a view sees it.

    @receive(secrets=[settings.BILLING_SECRET])
    def billing(request: HttpRequest, webhook: Webhook) -> HttpResponse:
        Invoice.objects.filter(order=webhook.data["object"]["id"]).update(paid=True)
        return HttpResponse(status=204)

Needs none of our apps, models or workers in INSTALLED_APPS, only Django's
cache, shared by all web processes: there each `webhook-id` is remembered.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from dataclasses import dataclass
from functools import wraps
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, ClassVar, cast

from django.core.cache import cache
from django.core.exceptions import RequestDataTooBig
from django.db import connections, transaction
from django.http import HttpResponse
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST
from rest_framework.response import Response
from rest_framework.views import APIView

from webhooks import signing
from webhooks.signing import TOLERANCE, VerificationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase
    from rest_framework.request import Request

    Secrets = str | Iterable[str] | Callable[[HttpRequest], Iterable[str]]

__all__ = ["Webhook", "WebhookView", "receive"]

# Seconds. Longer than our own retries go on (75 h 35 min and their jitter).
REMEMBER = 5 * 86_400
# Seconds after which a request that never ended may be tried again.
AT_WORK = 60
RUNNING, DONE = "running", "done"
_SUCCESS = range(200, 300)


@dataclass(frozen=True, slots=True)
class Webhook:
    """What arrived, verified. `id` is the same on every attempt and replay."""

    id: str
    body: bytes
    content: Any  # of the body, which is JSON

    @property
    def type(self) -> str:
        return str(self._part("type", ""))

    @property
    def data(self) -> Any:
        return self._part("data", None)

    def _part(self, name: str, default: Any) -> Any:
        return self.content.get(name, default) if isinstance(self.content, dict) else default


def receive(
    *, secrets: Secrets, tolerance: float = TOLERANCE, remember: float = REMEMBER
) -> Callable[[Callable[..., HttpResponseBase]], Callable[..., HttpResponseBase]]:
    """Call the view as `view(request, webhook, …)`, once for each `webhook-id`.

    `secrets` is a whsec_ string, several of them (any may have signed: during
    a rotation, both), or a function of the request. `tolerance` is in seconds
    either way, and `remember` in seconds: how long an id is known again.

    What does not verify gets 400 with the reason, what is too large 413. An id
    that was answered with 2xx gets 200 and no view; one that is being worked on
    409, so that the sender comes again. A view that raises, or answers other
    than 2xx, has not received it: the next attempt is let through.
    """

    def decorate(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
        if iscoroutinefunction(view):
            raise TypeError("receive() is for synchronous views.")
        scope = f"{view.__module__}.{view.__qualname__}"
        whole: Callable[..., HttpResponseBase] = _atomic(view)

        @csrf_exempt
        @require_POST
        @wraps(view)
        def received(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            def answer(webhook: Webhook) -> HttpResponseBase:
                return whole(request, webhook, *args, **kwargs)

            return _receive(request, answer, scope=scope, secrets=secrets, tolerance=tolerance, remember=remember)

        return cast("Callable[..., HttpResponseBase]", _unwrapped(received))

    return decorate


@method_decorator(csrf_exempt, name="dispatch")
class WebhookView(APIView):
    """The same as a DRF view:

    class Billing(WebhookView):
        secrets = [settings.BILLING_SECRET]

        def received(self, request: Request, webhook: Webhook) -> Response | None: ...
    """

    secrets: ClassVar[Any] = ()
    tolerance: ClassVar[float] = TOLERANCE
    remember: ClassVar[float] = REMEMBER

    # The signature is the authentication.
    authentication_classes = ()
    permission_classes = ()

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Any:
        return _unwrapped(super().as_view(**initkwargs))

    def received(self, request: Request, webhook: Webhook) -> Response | None:
        """To be written; None answers with 204."""
        raise NotImplementedError

    def post(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponseBase:
        def answer(webhook: Webhook) -> HttpResponseBase:
            return _atomic(self.received)(request, webhook) or Response(status=204)

        secrets = type(self).__dict__.get("secrets", self.secrets)
        return _receive(
            request._request,
            answer,
            scope=f"{type(self).__module__}.{type(self).__qualname__}",
            secrets=getattr(secrets, "__func__", secrets),
            tolerance=self.tolerance,
            remember=self.remember,
        )


def _unwrapped(view: Any) -> Any:
    """Without the transaction of ATOMIC_REQUESTS, which would commit only after
    the id is remembered: what a failed commit undid would not come again."""
    for alias in connections:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


def _atomic(view: Callable[..., Any]) -> Callable[..., Any]:
    """With that transaction, around the view alone."""
    without = frozenset(getattr(view, "_non_atomic_requests", ()))

    @wraps(view)
    def whole(*args: Any, **kwargs: Any) -> Any:
        with ExitStack() as stack:
            for alias in set(connections) - without:
                if connections[alias].settings_dict["ATOMIC_REQUESTS"]:
                    stack.enter_context(transaction.atomic(using=alias))
            return view(*args, **kwargs)

    return whole


def _receive(
    request: HttpRequest,
    answer: Callable[[Webhook], HttpResponseBase],
    *,
    scope: str,
    secrets: Secrets,
    tolerance: float,
    remember: float,
) -> HttpResponseBase:
    try:
        webhook = _verified(request, secrets=secrets, tolerance=tolerance)
    except VerificationError as why:
        return _plain(400, str(why))
    except RequestDataTooBig:
        return _plain(413, "The body is larger than this site takes.")
    key = f"signalpost:received:{hashlib.sha256(f'{scope} {webhook.id}'.encode()).hexdigest()}"
    if not cache.add(key, RUNNING, AT_WORK):
        return _again(cache.get(key))
    response = None
    try:
        response = answer(webhook)
    finally:
        if response is not None and response.status_code in _SUCCESS:
            cache.set(key, DONE, remember)
        else:
            cache.delete(key)
    return response


def _verified(request: HttpRequest, *, secrets: Secrets, tolerance: float) -> Webhook:
    body = request.body
    signing.verify(request.headers, body, _known(secrets, request), tolerance=tolerance)
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise VerificationError("The body is signed, but it is not JSON.") from error
    return Webhook(id=request.headers[signing.ID], body=body, content=content)


def _known(secrets: Secrets, request: HttpRequest) -> list[str]:
    found = secrets(request) if callable(secrets) else secrets
    known = [found] if isinstance(found, str) else list(found)
    if not known:
        raise VerificationError("There is no secret that could have signed this.")
    return known


def _again(state: str | None) -> HttpResponse:
    if state == DONE:
        return _plain(200, "Received before.")
    response = _plain(409, "Being received; come again.")
    response["Retry-After"] = "5"
    return response


def _plain(status: int, text: str) -> HttpResponse:
    return HttpResponse(text, status=status, content_type="text/plain; charset=utf-8")

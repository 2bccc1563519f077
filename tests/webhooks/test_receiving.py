"""The receiver's side, against what the official library signs."""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import standardwebhooks
import svix.webhooks as svix
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.core.cache import cache
from django.core.handlers.base import BaseHandler
from django.db import IntegrityError, connection, transaction
from django.http import HttpResponse
from django.test import RequestFactory
from rest_framework.response import Response

from subscriptions import secrets
from webhooks.receiving import Webhook, WebhookView, receive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase
    from rest_framework.request import Request

    View = Callable[..., Any]

SECRET, OLD = secrets.generate(), secrets.generate()
BODY = {"type": "shop.order.updated", "timestamp": "2026-11-21T09:30:00Z", "data": {"object": {"id": 7}}}


@pytest.fixture(autouse=True)
def nothing_received() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


def request(
    body: bytes | None = None,
    *,
    webhook_id: str = "evt_1",
    secret: str = SECRET,
    age: timedelta = timedelta(0),
    method: str = "POST",
    **headers: str,
) -> HttpRequest:
    content = json.dumps(BODY).encode() if body is None else body
    at = datetime.now(UTC) - age
    signature = standardwebhooks.Webhook(secret).sign(webhook_id, at, content.decode("utf-8", "surrogateescape"))
    signed = {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": signature,
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    return RequestFactory().generic(method, "/", content, content_type="application/json", headers=signed)


class Seen(list[Webhook]):
    """A view that notes what it sees, and answers as it is told."""

    status = 204

    def __call__(self, request: HttpRequest, webhook: Webhook) -> HttpResponse:
        self.append(webhook)
        if self.status == 0:
            raise RuntimeError("the view broke")
        return HttpResponse(status=self.status)


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def view(seen: Seen) -> Callable[[HttpRequest], HttpResponseBase]:
    @receive(secrets=[SECRET, OLD])
    def billing(request: HttpRequest, webhook: Webhook) -> HttpResponse:
        return seen(request, webhook)

    return billing


def test_what_the_official_library_signed_reaches_the_view(view: View, seen: Seen) -> None:
    assert view(request()).status_code == 204
    (webhook,) = seen
    assert webhook.id == "evt_1"
    assert webhook.type == "shop.order.updated"
    assert webhook.data == {"object": {"id": 7}}
    assert json.loads(webhook.body) == BODY


@pytest.mark.parametrize("library", [standardwebhooks.Webhook, svix.Webhook])
def test_what_either_official_library_signed_reaches_the_view_and_no_other_body(library: Any, seen: Seen) -> None:
    at, content = datetime.now(UTC), json.dumps(BODY)
    headers = {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(int(at.timestamp())),
        # During the receiver's rotation and the sender's: the old secret of each.
        "webhook-signature": f"{library(secrets.generate()).sign('evt_1', at, content)} "
        f"{library(OLD).sign('evt_1', at, content)}",
    }
    view = receive(secrets=[SECRET, OLD])(seen_by(seen))
    make = partial(RequestFactory().generic, "POST", "/", content_type="application/json", headers=headers)
    assert [view(make(data)).status_code for data in (content + " ", content)] == [400, 204]
    assert [webhook.type for webhook in seen] == ["shop.order.updated"]


def test_either_secret_may_have_signed_during_a_rotation(view: View, seen: Seen) -> None:
    assert view(request(secret=OLD)).status_code == 204
    assert len(seen) == 1


def test_one_fitting_signature_among_several_is_enough(view: View, seen: Seen) -> None:
    good = request().headers["webhook-signature"]
    other = f"v1,{base64.b64encode(b'o' * 32).decode()}"
    assert view(request(webhook_signature=f"v1a,xyz {other} {good}")).status_code == 204


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"secret": secrets.generate()}, "No signature matches"),
        ({"age": timedelta(minutes=6)}, "s old"),
        ({"age": timedelta(minutes=-6)}, "in the future"),
        ({"webhook_id": ""}, "webhook-id header is missing"),
        ({"webhook_signature": ""}, "webhook-signature header is missing"),
        ({"webhook_signature": "v2,abc"}, "holds no v1 signature"),
        ({"webhook_timestamp": "soon"}, "not a number"),
        ({"body": b"not json"}, "not JSON"),
        ({"body": b"[" * 100_000}, "not JSON"),
    ],
)
def test_what_does_not_verify_gets_400_with_the_reason_and_no_view(
    view: View, seen: Seen, changed: dict[str, Any], why: str
) -> None:
    response = view(request(**changed))
    assert response.status_code == 400
    assert why in response.content.decode()
    assert seen == []


def test_another_body_under_the_same_signature_is_refused(view: View, seen: Seen) -> None:
    tampered = request()
    tampered._body = json.dumps({**BODY, "data": {}}).encode()
    assert view(tampered).status_code == 400
    assert seen == []


def test_a_wider_tolerance_is_the_views_choice(seen: Seen) -> None:
    late = receive(secrets=SECRET, tolerance=600)(seen_by(seen))
    assert late(request(age=timedelta(minutes=6))).status_code == 204


def seen_by(seen: Seen) -> Callable[[HttpRequest, Webhook], HttpResponse]:
    def view(request: HttpRequest, webhook: Webhook) -> HttpResponse:
        return seen(request, webhook)

    return view


def test_an_id_reaches_the_view_once(view: View, seen: Seen) -> None:
    assert [view(request()).status_code for _ in range(3)] == [204, 200, 200]
    assert len(seen) == 1


def test_each_view_has_a_memory_of_its_own(view: View, seen: Seen) -> None:
    other = receive(secrets=SECRET)(seen_by(seen))
    assert [view(request()).status_code, other(request()).status_code] == [204, 204]


@pytest.mark.parametrize("status", [302, 400, 500])
def test_what_the_view_did_not_take_may_come_again(view: View, seen: Seen, status: int) -> None:
    seen.status = status
    assert view(request()).status_code == status
    seen.status = 204
    assert view(request()).status_code == 204
    assert len(seen) == 2


def test_what_broke_the_view_may_come_again(view: View, seen: Seen) -> None:
    seen.status = 0
    with pytest.raises(RuntimeError, match="the view broke"):
        view(request())
    seen.status = 204
    assert view(request()).status_code == 204


def test_a_second_attempt_while_the_first_is_at_work_is_asked_to_come_again() -> None:
    inner: list[HttpResponseBase] = []

    @receive(secrets=SECRET)
    def slow(request_: HttpRequest, webhook: Webhook) -> HttpResponse:
        inner.append(slow(request()))
        return HttpResponse(status=204)

    assert slow(request()).status_code == 204
    assert inner[0].status_code == 409
    assert inner[0].headers["Retry-After"] == "5"


def test_a_function_of_the_request_may_choose_the_secrets(seen: Seen) -> None:
    chosen = receive(secrets=lambda request: [SECRET] if request.path == "/" else [])(seen_by(seen))
    assert chosen(request()).status_code == 204


def test_without_a_secret_nothing_verifies(seen: Seen) -> None:
    assert receive(secrets=[])(seen_by(seen))(request()).status_code == 400


def test_only_a_post_is_a_webhook(view: View) -> None:
    assert view(request(method="GET")).status_code == 405


def test_a_body_that_the_site_does_not_take_gets_413(view: View, settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 10
    assert view(request()).status_code == 413


def test_a_coroutine_is_refused_when_it_is_decorated() -> None:
    async def view(request: HttpRequest, webhook: Webhook) -> HttpResponse:
        return HttpResponse()

    with pytest.raises(TypeError, match="synchronous"):
        receive(secrets=SECRET)(view)  # type: ignore[arg-type]


def as_a_host_calls_it(view: View) -> View:
    wrapped: View = BaseHandler().make_view_atomic(view)
    return wrapped


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", ["decorator", "view"])
def test_what_could_not_be_committed_may_come_again(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a host with ATOMIC_REQUESTS, which wraps the whole view."""
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    nobodys = [10**6]

    def save(*args: Any) -> HttpResponse:
        assert connection.in_atomic_block
        # The key is checked at the end.
        kind = nobodys.pop() if nobodys else ContentType.objects.create(app_label="acme", model="order").pk
        Permission.objects.create(content_type_id=kind, codename="received", name="Received")
        return HttpResponse(status=204)

    class Saving(WebhookView):
        secrets = (SECRET,)

        def received(self, request: Request, webhook: Webhook) -> Any:
            return save()

    view = as_a_host_calls_it(receive(secrets=SECRET)(save) if kind == "decorator" else Saving.as_view())
    with pytest.raises(IntegrityError):
        view(request())
    assert not Permission.objects.filter(codename="received").exists()
    assert view(request()).status_code == 204
    assert Permission.objects.filter(codename="received").exists()
    assert view(request()).status_code == 200


@pytest.mark.django_db(transaction=True)
def test_a_view_that_wants_no_transaction_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)

    @receive(secrets=SECRET)
    @transaction.non_atomic_requests
    def view(request: HttpRequest, webhook: Webhook) -> HttpResponse:
        return HttpResponse(status=500 if connection.in_atomic_block else 204)

    assert as_a_host_calls_it(view)(request()).status_code == 204


class Billing(WebhookView):
    secrets = (SECRET,)
    taken: list[Webhook] = []

    def received(self, request: Request, webhook: Webhook) -> Response | None:
        self.taken.append(webhook)
        return Response({"id": webhook.id}) if webhook.id == "evt_2" else None


class TestTheDrfView:
    def test_it_verifies_and_answers_204(self) -> None:
        Billing.taken.clear()
        view = Billing.as_view()
        assert [view(request()).status_code for _ in range(2)] == [204, 200]
        assert [webhook.id for webhook in Billing.taken] == ["evt_1"]

    def test_it_may_answer_for_itself(self) -> None:
        response = Billing.as_view()(request(webhook_id="evt_2"))
        assert response.status_code == 200
        assert response.data == {"id": "evt_2"}

    def test_it_refuses_what_does_not_verify(self) -> None:
        assert Billing.as_view()(request(secret=OLD)).status_code == 400

    def test_a_method_may_choose_the_secrets(self) -> None:
        class Chosen(Billing):
            @staticmethod
            def secrets(request: HttpRequest) -> list[str]:  # type: ignore[override]
                return [OLD]

        assert Chosen.as_view()(request(secret=OLD)).status_code == 204


PAGE = (Path(__file__).resolve().parents[2] / "docs" / "receiving.md").read_text()


class Invoice(list[dict[str, Any]]):
    """As much of a model as the page's examples need."""

    def __init__(self) -> None:
        self.objects = self

    def filter(self, **lookup: Any) -> Invoice:
        self.append(lookup)
        return self

    def update(self, **values: Any) -> None:
        self[-1].update(values)


@pytest.mark.parametrize("heading", ["Django", "Django REST framework"])
def test_what_the_page_shows_works(heading: str, settings: Any) -> None:
    settings.BILLING_SECRET = SECRET
    block = re.search(rf"^## {heading}\n.*?```python\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)
    assert block is not None
    names: dict[str, Any] = {"__name__": "page", "Invoice": Invoice(), "settings": settings}
    exec(block[1], names)  # noqa: S102 - our own page
    view = names["billing"] if "billing" in names else names["Billing"].as_view()
    assert [view(request()).status_code for _ in range(2)] == [204, 200]
    assert names["Invoice"] == [{"order": 7, "status": "paid"}]

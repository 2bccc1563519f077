"""What happens in the shop while the demo runs, step by step, each one checked.

The receivers answer 204 only when the signature is right (`manage.py
listen`), so "delivered" below also means "verified".
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import urllib.request
from decimal import Decimal
from http import HTTPStatus
from http.cookiejar import CookieJar
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

import django

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from subscriptions.models import Subscription
    from webhooks.models import Delivery, Event

T = TypeVar("T")

LOGIN = "demo@acme.example"
DELIVERED = "deliveries/?status=delivered"
PATIENCE = 45  # seconds for one step; the slowest waits for a retry, 5 s ± 20 %


class MissingError(Exception):
    """Something that should have happened did not."""


def say(text: str) -> None:
    print(text, flush=True)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 -- our own address
            return bool(response.status == HTTPStatus.OK)
    except OSError:
        return False


class Story:
    def __init__(self) -> None:
        self.site = f"http://127.0.0.1:{os.environ['PORT']}"
        self.step = "start"

    def begin(self, step: str) -> None:
        self.step = step
        say(f"\n{step[0].upper()}{step[1:]}")

    def wait_for(self, what: str, look: Callable[[], T | None]) -> T:
        """What `look` finds, as soon as it finds something; MissingError when patience ends."""
        self.step = what
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if (found := look()) is not None:
                return found
            time.sleep(0.02)
        raise MissingError(what)

    # What is there before anything happens.

    def set_up(self) -> None:
        from django.contrib.auth import get_user_model

        from subscriptions import keys
        from subscriptions.models import ApiKey, Membership, Role, Tenant
        from subscriptions.trail import Actor

        self.wait_for("the web process answers", lambda: answers(f"{self.site}/account/login/") or None)
        user, _ = get_user_model().objects.get_or_create(username="demo", is_staff=True, is_superuser=True)
        user.email = LOGIN
        user.set_password(os.environ["DEMO_PASSWORD"])
        user.save()
        self.tenant, _ = Tenant.objects.get_or_create(slug="acme", defaults={"name": "Acme"})
        Membership.objects.update_or_create(tenant=self.tenant, user=user, defaults={"role": Role.OWNER})
        self.tenant.subscriptions.all().delete()  # of an earlier demo on the same database
        self.tenant.api_keys.all().delete()
        scopes = [ApiKey.Scope.READ, ApiKey.Scope.WRITE, ApiKey.Scope.PUBLISH]
        _, self.key = keys.create(self.tenant, Actor("demo"), name="Demo", scopes=scopes)
        self.subscribe("The receiver", os.environ["DEMO_PORT"], "shop.order.*", "shop.stock.counted")
        self.subscribe("The flaky receiver", os.environ["DEMO_FLAKY_PORT"], "shop.tag.created")

    def subscribe(self, name: str, port: str, *topics: str) -> Subscription:
        from subscriptions import secrets
        from subscriptions.models import Subscription

        subscription = Subscription.objects.create(tenant=self.tenant, name=name, url=f"http://127.0.0.1:{port}/")
        subscription.listen_to(*topics)
        subscription.secrets.create(ciphertext=secrets.encrypt(os.environ["DEMO_SECRET"]))
        say(f"{self.tenant} subscribes to {', '.join(topics)} at {subscription.url}")
        return subscription

    # Checks.

    def newest(self, topic: str) -> Event:
        from webhooks.models import Event

        event = Event.objects.for_tenant(self.tenant).filter(topic=topic).order_by("-id").first()
        if event is None:
            raise MissingError(f"an event {topic} in the transaction of the change")
        return event

    def arrived(self, topic: str, *, attempts: int = 1) -> Delivery:
        from webhooks.models import Delivery

        event = self.newest(topic)

        def look() -> Delivery | None:
            return event.deliveries.filter(status=Delivery.Status.DELIVERED, attempt_count=attempts).first()

        delivery = self.wait_for(f"{topic} arrives, verified, at attempt {attempts}", look)
        attempt = delivery.attempts.order_by("-number")[0]
        took = attempt.duration_ms
        say(f"  ✓ {topic} arrived, signature verified (attempt {attempt.number}, {took} ms)")
        return delivery

    # What happens.

    def tell(self) -> None:
        from django.db import transaction

        from examples.shop.models import Customer, Order, Tag
        from webhooks import deliveries
        from webhooks.models import Delivery, Event

        self.begin("an order is placed")
        customer = Customer.objects.create(tenant=self.tenant, name="Ada", email="ada@example.com")
        order = Order.objects.create(customer=customer, number="A-1001", total=Decimal("42.00"))
        self.arrived("shop.order.created")

        self.begin("it is paid")
        order.status = Order.Status.PAID
        order.save()
        self.arrived("shop.order.updated")

        self.begin("it is tagged")
        tag = Tag.objects.create(tenant=self.tenant, name="gift")
        order.tags.add(tag)
        self.arrived("shop.order.added")

        self.begin("a change is rolled back: nothing may be sent")
        before = Event.objects.count()
        with transaction.atomic():
            order.status = Order.Status.SHIPPED
            order.save()
            transaction.set_rollback(True)
        if Event.objects.count() != before:
            raise MissingError("no event of a change that was rolled back")
        say("  ✓ no event was written")

        self.begin("the flaky receiver answered 500 to the new tag; the retry comes after 5 s")
        self.arrived("shop.tag.created", attempts=2)

        self.begin("an admin replays the first delivery: the same id, the same bytes, a new signature")
        first = self.newest("shop.order.created").deliveries.get()
        deliveries.replay(Delivery.objects.filter(pk=first.pk), by="demo")
        replayed = self.arrived("shop.order.created", attempts=2)
        if replayed.attempts.order_by("-number")[0].trigger != Delivery.Trigger.MANUAL:
            raise MissingError("the replay's attempt says that it was asked for by hand")

        self.begin("the order is deleted")
        order.delete()
        self.arrived("shop.order.deleted")

        self.begin("a member of the tenant signs in")
        if "The flaky receiver" not in self.overview():
            raise MissingError("the tenant's overview shows its subscriptions")
        say("  ✓ the overview shows both subscriptions")

        self.begin("a program of the store publishes by the API what it counted, and repeats itself")
        counted = {"type": "shop.stock.counted", "data": {"sku": "MUG-1", "counted": 12}, "id": "count-1"}
        once, again = self.ask("events/", counted), self.ask("events/", counted)
        if again != {**once, "duplicate": True}:
            raise MissingError("what is published twice under one id is one event")
        self.arrived("shop.stock.counted")

        self.begin("it asks what was delivered")
        if self.ask(DELIVERED)["data"][0]["event"] != once["id"]:
            raise MissingError("the API lists what was delivered, the newest first")
        say("  ✓ the newest is what it published")

    def ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The API's answer."""
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.api}{path}", data, headers)  # noqa: S310 -- our own address
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:  # noqa: S310
            answer: dict[str, Any] = json.load(response)
            return answer

    @property
    def api(self) -> str:
        return f"{self.site}/api/v1/"

    def overview(self) -> str:
        """The tenant's page, as a browser gets it that has signed in."""
        cookies = CookieJar()
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(cookies))
        sign_in = f"{self.site}/account/login/"
        opener.open(sign_in, timeout=PATIENCE)
        (token,) = (cookie.value for cookie in cookies if cookie.name == "csrftoken")
        form = {"login": LOGIN, "password": os.environ["DEMO_PASSWORD"], "csrfmiddlewaretoken": token}
        with opener.open(sign_in, urlencode(form).encode(), timeout=PATIENCE) as page:
            return str(page.read().decode()) if page.url == self.page else ""

    @property
    def page(self) -> str:
        return f"{self.site}/t/{self.tenant.slug}/"


def stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    signal.signal(signal.SIGTERM, stop)
    story = Story()
    try:
        django.setup()
        story.set_up()
        story.tell()
    except MissingError as missing:
        say(f"FAILED at: {missing}")
        return 1
    except KeyboardInterrupt:
        say(f"Stopped at: {story.step}")
        return 1
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    say("\nEverything arrived.")
    if "--once" in sys.argv:
        return 0
    say("")
    say(f"See all of it:    {story.page}")
    say(f"As the operator:  {story.site}/admin/")
    say(f"Sign in as:       {LOGIN} / {os.environ['DEMO_PASSWORD']}")
    say(f"As a program:     curl -H 'Authorization: Bearer {story.key}' '{story.api}{DELIVERED}'")
    say("Ctrl-C stops everything.")
    signal.pause()
    return 0


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    sys.exit(main())

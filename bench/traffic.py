"""Wishes and traffic of a benchmark, made directly: what is measured comes after."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from django.db import ProgrammingError, connection, transaction
from django.db.models import CharField, Max, Value
from django.db.models.functions import Cast, Concat
from django.utils import timezone

from bench.processes import wait_for_number
from subscriptions import secrets
from subscriptions.models import Membership, Revision, Secret, Subscription, Tenant, Topic
from webhooks import tasks
from webhooks.models import Attempt, Delivery, Event, Rollup, Throttle, new_event_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bench.receiver import Receiver

# Deliveries are spread over 200 subscriptions, as the figures are defined.
TENANTS = 20
SUBSCRIPTIONS_OF_TENANT = 10
# One more tenant, with a single subscription.
SOLO = "solo"
TOPIC = "warehouse.heard.created"
HEARD = "warehouse.heard.*"
# 1 kB, as bodies are.
BODY = (
    b'{"type":"warehouse.heard.created","timestamp":"2026-01-01T00:00:00.000Z","tenant":"account-0","data":{"object":'
)
BODY += b'{"id":1,"note":"' + b"x" * (1024 - len(BODY) - 20) + b'"}}}'
TRAFFIC = (Attempt, Delivery, Event)
WISHES = (Rollup, Throttle, Topic, Secret, Subscription, Membership, Tenant)


def account(number: int) -> str:
    return f"account-{number}"


def subscribe(
    *, tenants: int = TENANTS, each: int = SUBSCRIPTIONS_OF_TENANT, prefix: str = "account", secret: bool = True
) -> list[Subscription]:
    """Tenants with `each` subscriptions to the model that is heard."""
    made = Tenant.objects.bulk_create(
        Tenant(slug=f"{prefix}-{number}", name=prefix, key=f"{prefix}-{number}") for number in range(tenants)
    )
    subscriptions: list[Subscription] = Subscription.objects.bulk_create(
        Subscription(tenant=tenant, url="http://127.0.0.1:9/") for tenant in made for _ in range(each)
    )
    Topic.objects.bulk_create(Topic(subscription=each, name=HEARD) for each in subscriptions)
    if secret:
        sealed = secrets.encrypt(secrets.generate())
        Secret.objects.bulk_create(Secret(subscription=each, ciphertext=sealed) for each in subscriptions)
    return subscriptions


def aim(receiver: Receiver, run: str, *, delay: int, hang: Iterable[int] = ()) -> None:
    """Let all subscriptions send to the receiver, those in `hang` to where nobody answers."""
    hanging = list(hang)
    for rows, where in (
        (Subscription.objects.exclude(pk__in=hanging), receiver.target(run, delay=delay)),
        (Subscription.objects.filter(pk__in=hanging), receiver.target(f"{run}-hanging", delay="hang")),
    ):
        rows.update(url=Concat(Value(where), Cast("pk", CharField())))


def backlog(subscriptions: Iterable[int], number: int, *, due: bool = True) -> list[int]:
    """`number` deliveries, each of an event of its own, spread over `subscriptions`."""
    now = timezone.now()
    tenants = dict(Subscription.objects.values_list("pk", "tenant_id"))
    targets = list(subscriptions)
    chosen = [targets[turn % len(targets)] for turn in range(number)]
    events = Event.objects.bulk_create(
        (Event(tenant_id=tenants[pk], topic=TOPIC, body=BODY, created_at=now, fanned_out_at=now) for pk in chosen),
        batch_size=1000,
    )
    made = Delivery.objects.bulk_create(
        (
            Delivery(
                event=event,
                subscription_id=pk,
                tenant_id=tenants[pk],
                created_at=now,
                next_attempt_at=now if due else None,
            )
            for event, pk in zip(events, chosen, strict=True)
        ),
        batch_size=1000,
    )
    return [delivery.pk for delivery in made]


def flood(tenant: Tenant, number: int, *, fanned_out: bool) -> None:
    """`number` events of one tenant that wait for the fan-out, or as many
    deliveries of theirs that are due. By the database: they are many."""
    now, subscriptions = timezone.now(), Subscription.objects.filter(tenant=tenant).count()
    # In the order of time, as the product makes them.
    digits = "lpad(to_hex(number), 12, '0')" if connection.vendor == "postgresql" else "printf('%%012x', number)"
    key = f"'{new_event_id().hex[:12]}70008000' || {digits}"
    if connection.vendor == "postgresql":
        key = f"({key})::uuid"
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH RECURSIVE counted (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM counted WHERE number < %s)
            INSERT INTO webhooks_event (id, tenant_id, topic, body, error, created_at, fanned_out_at)
            SELECT {key}, %s, %s, %s, '', %s, %s FROM counted
            """,  # noqa: S608 - one of two names of ours
            [
                number // subscriptions if fanned_out else number,
                tenant.pk,
                TOPIC,
                BODY,
                now,
                now if fanned_out else None,
            ],
        )
        if fanned_out:
            cursor.execute(PENDING, [tenant.pk])


# Every event of a tenant to every subscription of theirs.
PENDING = """
    INSERT INTO webhooks_delivery
        (event_id, subscription_id, tenant_id, status, created_at, next_attempt_at,
         attempt_count, schedule_step, lease, "trigger", triggered_by)
    SELECT e.id, s.id, s.tenant_id, 'pending', e.created_at, e.created_at, 0, 0, 0, 'schedule', ''
    FROM webhooks_event e JOIN subscriptions_subscription s ON s.tenant_id = e.tenant_id WHERE s.tenant_id = %s
    ON CONFLICT DO NOTHING
"""


def analyze() -> None:
    """As autovacuum does within a minute: what is measured is a database in use."""
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def settle() -> None:
    """Let PostgreSQL write to the disk what was loaded, where it lets us: its
    next checkpoint would else fall into what is measured."""
    if connection.vendor == "postgresql":
        with suppress(ProgrammingError), connection.cursor() as cursor:
            cursor.execute("CHECKPOINT")


def deliver(subscriptions: Iterable[int], number: int, *, hanging: Sequence[int] = ()) -> float:
    """Deliveries per second of the workers that run, from the commit of a
    backlog to the record of its last attempt. Those of `hanging` do not count."""
    with transaction.atomic():
        backlog(subscriptions, number)
        analyze()
    began = time.time()
    tasks.ring()
    return number / (recorded(hanging=hanging) - began)


def recorded(*, hanging: Sequence[int] = ()) -> float:
    """The Unix time at which the last attempt's end was recorded, once nothing is open."""
    others = Delivery.objects.exclude(subscription__in=hanging)
    wait_for_number(others.open().count, 0, what="open deliveries")
    if bad := others.exclude(status=Delivery.Status.DELIVERED).count():
        raise RuntimeError(f"{bad} deliveries failed")
    last = Attempt.objects.exclude(delivery__subscription__in=hanging).aggregate(last=Max("ended_at"))["last"]
    return float(last.timestamp())


def clear(*, wishes: bool = False) -> None:
    """Remove the traffic, and with `wishes` the wishes, too."""
    tables = [model._meta.db_table for model in (*TRAFFIC, *(WISHES if wishes else ()))]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(f"TRUNCATE {', '.join(tables)} RESTART IDENTITY CASCADE")
        else:
            # As CASCADE: whatever else refers to them is in nobody's way.
            with connection.constraint_checks_disabled():
                for table in tables:
                    cursor.execute(f"DELETE FROM {table}")  # noqa: S608 - our own names
    if wishes:
        Revision.renew()

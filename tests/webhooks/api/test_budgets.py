"""Every list of traffic takes as many queries with fifty rows as with one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.utils import timezone

from tests.webhooks.traffic import make_attempt, make_delivery
from webhooks.models import Delivery, InboxRequest, Replay

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_django import DjangoAssertNumQueries

    from subscriptions.models import Subscription, Tenant
    from tests.programs import Api

MOST = 12


@pytest.mark.parametrize(
    "path",
    [
        "events/",
        "deliveries/",
        "deliveries/?status=failed&topic=shop.*",
        "deliveries/{delivery}/attempts/",
        "replays/",
        "inbox/",
        "subscriptions/{subscription}/feed/?after=0",
        "stats/",
        "subscriptions/{subscription}/stats/",
    ],
)
def test_a_list_takes_as_many_queries_with_fifty_rows_as_with_one(
    api: Api,
    tenant: Tenant,
    subscribe: Callable[..., Subscription],
    path: str,
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    subscription = subscribe(tenant, "shop.*")
    _grow(subscription, 1)
    at = path.format(delivery=Delivery.objects.earliest("pk").pk, subscription=subscription.pk)
    api.get(at)  # what a process reads once
    with django_assert_max_num_queries(MOST) as one:
        first = api.get(at)
    _grow(subscription, 49)
    with django_assert_max_num_queries(MOST) as many:
        answer = api.get(at)
    assert (first.status_code, answer.status_code) == (200, 200)
    if "stats" not in path:
        assert len(first.json()["data"]) < len(answer.json()["data"]) == 50
    assert len(many) == len(one)


def _grow(subscription: Subscription, count: int) -> None:
    now, tenant = timezone.now(), subscription.tenant
    first = Delivery.objects.order_by("pk").first()
    for _ in range(count):
        delivery = make_delivery(subscription)
        first = first or delivery
        make_attempt(first, "status")
        where = {"tenant": tenant, "subscription": subscription}
        Replay.objects.create(**where, kind="failed", until=now, created_at=now, by="alice")
        InboxRequest.objects.create(
            **where, received_at=now, webhook_id=delivery.event.webhook_id, headers=b"", body=b"{}"
        )

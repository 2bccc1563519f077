"""What people do to one delivery, with its entry in the audit log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib.humanize.templatetags.humanize import intcomma
from django.db import transaction
from django.db.models import Count
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from subscriptions.edits import Refused
from subscriptions.models import AuditEntry, Tenant, home
from subscriptions.trail import note
from webhooks import deliveries
from webhooks.models import Delivery

if TYPE_CHECKING:
    from django.db.models import QuerySet

    from subscriptions.trail import Actor


def replay(delivery: Delivery, by: Actor, *, lease: int | None = None) -> None:
    """Send it again, now. With `lease`, only if nothing has happened to it
    since the asker saw that number, so that a double click sends once.

    Raises Refused where it cannot be sent.
    """
    if not delivery.subscription.enabled:
        raise Refused(_("The subscription is off. Turn it on first, or nothing can be sent."))
    rows = Delivery.objects.filter(pk=delivery.pk)
    with transaction.atomic(using=home()):
        if not deliveries.replay(rows if lease is None else rows.filter(lease=lease), by=by.name):
            raise Refused(_("It is being sent, or was replayed a moment ago."))
        _note(by, AuditEntry.Action.DELIVERY_REPLAYED, delivery)


def cancel(delivery: Delivery, by: Actor) -> None:
    """Never send it, unless it is replayed. Raises Refused where it is too late."""
    with transaction.atomic(using=home()):
        if not deliveries.cancel(Delivery.objects.filter(pk=delivery.pk)):
            raise Refused(_("It is being sent right now, or is at its end."))
        _note(by, AuditEntry.Action.DELIVERY_CANCELLED, delivery)


def replay_all(rows: QuerySet[Delivery], by: Actor, *, name: str, filters: list[str]) -> int:
    """Send all of these again, of whichever tenants, whether their subscriptions
    are on or not; `name` is what their attempts call it. Each tenant's log gets one entry."""
    with transaction.atomic(using=home()):
        of_tenants = dict(rows.order_by().values_list("tenant").annotate(Count("pk")))
        done = deliveries.replay(rows, by=name)
        for tenant in Tenant.objects.using(home()).filter(pk__in=of_tenants):
            number = of_tenants[tenant.pk]
            called = ngettext("a replay of %(count)s delivery", "a replay of %(count)s deliveries", number)
            action = AuditEntry.Action.REPLAY_STARTED
            detail = {"filters": filters, "expected": number}
            note(by, action, tenant=tenant, name=called % {"count": intcomma(number)}, **detail)
    return done


def _note(by: Actor, action: AuditEntry.Action, delivery: Delivery) -> None:
    topic = delivery.event.topic
    note(by, action, tenant=delivery.tenant, about=delivery, name=topic, event=delivery.event.webhook_id)

"""A test event: for one subscription only, whatever it listens to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import transaction
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from subscriptions.edits import Refused
from subscriptions.entries import TEST
from subscriptions.models import AuditEntry, Subscription, home
from subscriptions.trail import note
from webhooks import events, horizon, tallies
from webhooks.models import Delivery, Event

if TYPE_CHECKING:
    from subscriptions.trail import Actor

NOTE = "This is a test. Somebody pressed “Send test event”."
# As the fan-out would have.
COUNTED = {(tallies.EVENTS, tallies.CAPTURED): 1, (tallies.EVENTS, tallies.FANNED_OUT): 1}


def send(subscription: Subscription, actor: Actor) -> Delivery:
    """A real event, signed, retried and logged as any other.

    The delivery is made beside it, in one transaction, as nothing matches
    this topic. Raises Refused where the subscription is off.
    """
    alias = home()
    with transaction.atomic(using=alias):
        row = Subscription.objects.using(alias).select_related("tenant").filter(pk=subscription.pk).first()
        if row is None or not row.enabled:
            raise Refused(_("The subscription is off: turn it on, then send a test event."))
        about = {"id": row.pk, "name": row.name}
        event = events.write(
            topic=TEST,
            tenant_id=row.tenant_id,
            tenant_slug=row.tenant.slug,
            data={"note": NOTE, "subscription": about},
            using=alias,
        )
        Event.objects.using(alias).filter(pk=event.pk).update(fanned_out_at=Now())
        horizon.announce(alias)
        delivery = Delivery.objects.using(alias).create(
            event=event,
            subscription=row,
            tenant=row.tenant,
            created_at=Now(),
            next_attempt_at=Now(),
            trigger=Delivery.Trigger.MANUAL,
            triggered_by=actor.name[: Delivery._meta.get_field("triggered_by").max_length],
        )
        note(actor, AuditEntry.Action.TEST_SENT, tenant=row.tenant, about=row, event=event.webhook_id)
        tallies.add(COUNTED, using=alias)
    return delivery

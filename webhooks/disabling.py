"""A subscription that the machine turns off: its tenant hears of it, by an
event to whoever listens to that, and by mail."""

from __future__ import annotations

import atexit
import logging
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from django.core import mail
from django.db import transaction

from subscriptions.entries import DISABLED
from subscriptions.models import Subscription
from webhooks import events

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

logger = logging.getLogger(__name__)

# Seconds that a worker which ends waits for a mail that is under way.
MAIL_TIMEOUT = 10.0
SUBJECT = "Webhooks to {host} were turned off"
TEXT = """\
The subscription {name} of {tenant} was turned off:

    {reason}

Nothing more is sent to {url}.
What happens while it is off is not sent later. Mend the receiver, then turn the subscription on again.
"""


def disable(pk: int, *, reason: str, using: str) -> bool:
    """Turn the subscription off and tell its tenant, in the open transaction;
    the mail goes once that has committed. False where it already was off."""
    if not Subscription(pk=pk).disable(reason=reason):
        return False
    subscription = Subscription.objects.using(using).select_related("tenant").get(pk=pk)
    about = {"id": subscription.pk, "name": subscription.name, "url": subscription.url}
    events.write(
        topic=DISABLED,
        tenant_id=subscription.tenant_id,
        tenant_slug=subscription.tenant.slug,
        data={"subscription": about, "reason": reason},
        using=using,
    )
    if recipients := _members(subscription):
        transaction.on_commit(partial(_mail, subscription, reason, recipients), using=using, robust=True)
    logger.warning("Subscription %d was turned off: %s", pk, reason, extra={"subscription": pk})
    return True


def _members(subscription: Subscription) -> list[str]:
    users = subscription.tenant.memberships.filter(user__is_active=True).exclude(user__email="")
    return sorted(set(users.values_list("user__email", flat=True)))


def _mail(subscription: Subscription, reason: str, recipients: Sequence[str]) -> None:
    subject = SUBJECT.format(host=subscription.host[:100])
    text = TEXT.format(
        name=repr(subscription.name) if subscription.name else subscription.pk,
        tenant=subscription.tenant.name,
        reason=reason,
        url="the built-in inbox" if subscription.is_inbox else subscription.url,
    )
    _post(_send, subject, text, recipients, subscription.pk)


def _post(send: Callable[..., None], *arguments: Any) -> None:
    """In a thread, as mail must not keep deliveries waiting; a daemon, as a
    mail server that hangs must not keep the worker from ending."""
    thread = threading.Thread(target=send, args=arguments, name="signalpost-mail", daemon=True)
    thread.start()
    atexit.register(thread.join, MAIL_TIMEOUT)


def _send(subject: str, text: str, recipients: Sequence[str], pk: int) -> None:
    """To each alone: members need not know each other's addresses."""
    try:
        for recipient in recipients:
            mail.EmailMessage(subject, text, to=[recipient]).send()
    except Exception as error:  # noqa: BLE001 - whatever a mail backend raises, deliveries go on
        logger.error(
            "No mail about subscription %d, which was turned off: %s",
            pk,
            type(error).__name__,
            extra={"subscription": pk},
        )

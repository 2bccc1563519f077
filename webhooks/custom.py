"""Signals of the host's own that are registered as topics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import connections

from subscriptions import tenancy
from subscriptions.models import home
from webhooks.capture import addressed, capturing, wanted, write
from webhooks.events import CaptureError

if TYPE_CHECKING:
    from subscriptions.catalog import CustomSignal


def receive(custom: CustomSignal, *, sender: Any, signal: Any, **kwargs: Any) -> None:
    topic = custom.topic
    if not wanted(topic):
        return
    alias = kwargs.get("using")
    using = alias if isinstance(alias, str) and alias in connections else home()
    with capturing(topic, using=using):
        to = addressed(tenancy.answer(custom.tenant(sender, **kwargs)), topic, label=topic)
        if to is None:
            return
        data = custom.payload(sender, **kwargs)
        if not isinstance(data, dict):
            raise CaptureError(f"The payload of {topic} is a {type(data).__name__}; it must be a dict.")
        write(topic, to, data, using=using)

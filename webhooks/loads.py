"""Rows loaded: `initializing` and `initialized`, an audit of reads.

Django sends these for every row of every query, and for every `Model(...)`;
an event for each is as dear as it sounds, which is why both are opt-in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models, router

from subscriptions import catalog
from webhooks.capture import addressee, capturing, held, is_unheard, wanted_of, write

if TYPE_CHECKING:
    from django.db.models import Model

    from subscriptions.catalog import Entry


def pre_init(*, sender: type[Model], args: tuple[Any, ...], kwargs: dict[str, Any], **rest: Any) -> None:
    """There is no instance yet: a stand-in made of the same arguments says
    whose it would be."""
    entry = _listened(sender, "initializing")
    if entry is None:
        return
    using = router.db_for_write(entry.model)
    with capturing(entry.topic("initializing"), using=using):
        stand_in = sender.__new__(sender)
        models.Model.__init__(stand_in, *args, **kwargs)
        _tell(entry, "initializing", stand_in, using=using)


def post_init(*, sender: type[Model], instance: Model, **rest: Any) -> None:
    entry = _listened(sender, "initialized")
    if entry is None:
        return
    using = router.db_for_write(entry.model)
    with capturing(entry.topic("initialized"), using=using):
        _tell(entry, "initialized", instance, using=using)


def _listened(sender: type[Model], action: str) -> Entry | None:
    """Rows that a capture loads are no reads, or reading would never end."""
    entry = None if is_unheard() else catalog.entry_for(sender)
    return entry if entry is not None and wanted_of(entry, action) else None


def _tell(entry: Entry, action: str, instance: Model, *, using: str) -> None:
    topic = entry.topic(action)
    to = addressee(entry, instance, topic)
    if to is not None:
        write(topic, to, held(entry, instance), using=using)

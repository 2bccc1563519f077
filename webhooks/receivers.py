"""The one receiver, and what it is connected to.

Always per sender: a receiver without one would switch Django's fast deletes
off for every model of the project.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core import signals as requests
from django.db.models import signals

from subscriptions import catalog
from subscriptions.entries import M2M_ACTIONS
from webhooks import custom, deletes, loads, project, relations, saves
from webhooks.capture import skipped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.db.models import Model
    from django.dispatch import Signal

    from subscriptions.catalog import CustomSignal, Entry

__all__ = ["connect_all", "receive", "skipped"]


def receive(sender: Any, *, signal: Signal, **kwargs: Any) -> None:
    """The receiver of every signal that Django itself sends."""
    HANDLERS[signal](sender=sender, **kwargs)


def connect_all() -> None:
    """Listen to what the catalog holds, and to what joins it. Safe to repeat."""
    catalog.registered.connect(_registered, dispatch_uid="signalpost")
    catalog.unregistered.connect(_unregistered, dispatch_uid="signalpost")
    for entry in catalog.entries().values():
        connect(entry)
    for each in catalog.signals():
        _connect_custom(each)
    _connect(signals.class_prepared)
    # Django sends these once for every app: ours stands for the whole run.
    ours = apps.get_app_config("webhooks")
    _connect(signals.pre_migrate, ours)
    _connect(signals.post_migrate, ours)
    _connect(requests.request_started)
    _connect(requests.request_finished)
    _connect(requests.got_request_exception)


def connect(entry: Entry) -> None:
    saves.wrap(entry.model)
    for signal, sender in _senders(entry):
        _connect(signal, sender)


def disconnect(entry: Entry) -> None:
    saves.unwrap(entry.model)
    for signal, sender in _senders(entry):
        signal.disconnect(sender=sender, dispatch_uid="signalpost")


def _connect(signal: Signal, sender: Any = None) -> None:
    signal.connect(receive, sender=sender, weak=False, dispatch_uid="signalpost")


def _connect_custom(each: CustomSignal) -> None:
    each.signal.connect(partial(custom.receive, each), weak=False, dispatch_uid=f"signalpost.{each.topic}")


def _senders(entry: Entry) -> Iterator[tuple[Signal, type[Model]]]:
    """Proxies, and children with tables of their own, are senders of their
    own: a receiver of the parent hears nothing of their saves."""
    actions = entry.actions
    for model in _kin(entry.model):
        if actions & {*saves.ACTIONS, *M2M_ACTIONS}:
            yield signals.pre_save, model
            yield signals.post_save, model
        if actions & set(deletes.ACTIONS) and model._meta.concrete_model is entry.model:
            yield signals.pre_delete, model
            yield signals.post_delete, model
        if "initializing" in actions:
            yield signals.pre_init, model
        if "initialized" in actions:
            yield signals.post_init, model
        if actions & M2M_ACTIONS:
            for through in relations.throughs(model):
                yield signals.m2m_changed, through


def _kin(model: type[Model]) -> list[type[Model]]:
    # Itself by name: the registry lists only models of installed apps.
    return [model, *(each for each in apps.get_models() if issubclass(each, model) and each is not model)]


def _registered(*, entry: Entry | None = None, custom: CustomSignal | None = None, **kwargs: Any) -> None:
    if entry is not None:
        connect(entry)
    if custom is not None:
        _connect_custom(custom)


def _unregistered(*, entry: Entry, **kwargs: Any) -> None:
    disconnect(entry)
    # A sender may have spoken for several: a child for itself and its parent.
    for other in catalog.entries().values():
        connect(other)


def _class_prepared(*, sender: type[Model], **kwargs: Any) -> None:
    """A class made after the start. Django sends this before the class is in
    its registry, and also for the models of migrations, which never are. The
    through model of a relation comes while its owner is half made; what comes
    while apps are loading, ready() finds."""
    meta = sender._meta
    if meta.apps is apps and apps.models_ready and not meta.auto_created:
        apps.lazy_model_operation(_made, (meta.app_label, meta.model_name))


def _made(model: type[Model]) -> None:
    apps.clear_cache()  # Django does so right after us; until then it lists the models as they were.
    catalog.meet(model)
    # It may be a proxy, a child, or the other side of one that is registered.
    for entry in catalog.entries().values():
        connect(entry)


HANDLERS: dict[Signal, Callable[..., None]] = {
    signals.class_prepared: _class_prepared,
    signals.pre_init: loads.pre_init,
    signals.post_init: loads.post_init,
    signals.pre_save: saves.pre_save,
    signals.post_save: saves.post_save,
    signals.pre_delete: deletes.pre_delete,
    signals.post_delete: deletes.post_delete,
    signals.m2m_changed: relations.m2m_changed,
    signals.pre_migrate: project.pre_migrate,
    signals.post_migrate: project.post_migrate,
    requests.request_started: project.request_started,
    requests.request_finished: project.request_finished,
    requests.got_request_exception: project.got_request_exception,
}

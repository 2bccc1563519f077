"""Moments of the sentence at which a process is hit, to the line.

`FAULT=claimed=SIGKILL` lets the process send itself that signal when it gets
there for the first time; `FAULT=claimed=SIGKILL@3` the third time. Nothing of
this is in the product: the function that the moment is in gets a wrapper.
"""

from __future__ import annotations

import functools
import os
import pkgutil
import signal
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Moment:
    """Before `function` of `module` begins, or after it has returned something."""

    module: str
    function: str
    after: bool = False


MOMENTS = {
    # The application
    "committing": Moment("django.db.backends.base.base", "BaseDatabaseWrapper.commit"),
    "committed": Moment("webhooks.tasks", "ring"),
    # The drain, in the order of its steps
    "matching": Moment("webhooks.deliveries", "_insert_deliveries"),
    "matched": Moment("webhooks.deliveries", "_insert_deliveries", after=True),
    "fanned out": Moment("webhooks.deliveries", "fan_out", after=True),
    "leased": Moment("webhooks.claims", "_begin"),
    "claimed": Moment("webhooks.deliveries", "claim", after=True),
    "answered": Moment("webhooks.sending", "record"),
    "recording": Moment("webhooks.recording", "_fill_in"),
    "recorded": Moment("webhooks.sending", "record", after=True),
}


def arm() -> None:
    """Put in what FAULT asks for. Raises where the product has no such function any more."""
    if "FAULT" not in os.environ:
        return
    name, _, what = os.environ["FAULT"].partition("=")
    sent, _, time = what.partition("@")
    moment, number = MOMENTS[name], signal.Signals[sent]
    path, _, last = f"{moment.module}.{moment.function}".rpartition(".")
    holder = pkgutil.resolve_name(path)
    setattr(holder, last, _hit(getattr(holder, last), after=moment.after, number=number, time=int(time or 1)))


def _hit(function: Callable[..., Any], *, after: bool, number: int, time: int) -> Callable[..., Any]:
    times = count(1)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if not after and next(times) == time:
            os.kill(os.getpid(), number)
        result = function(*args, **kwargs)
        # `None` for what returns nothing; 0 and [] say that there was nothing to do.
        if after and (result is None or result) and next(times) == time:
            os.kill(os.getpid(), number)
        return result

    return wrapper

"""System checks: what can be told before anything goes wrong.

README.md lists the ids; E stops the start, W and I are for reading.
"""

from __future__ import annotations

from webhooks.checks import databases, deletes, exposure, queue, registrations, values

__all__ = ["databases", "deletes", "exposure", "queue", "registrations", "values"]

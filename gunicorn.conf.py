"""What gunicorn reads by itself: its own lines go the way of all others."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from config.settings import LOGGING

logconfig_dict = {
    **LOGGING,
    # With a configuration of its own gunicorn would also log every request.
    "loggers": {"gunicorn.error": {"propagate": True}, "gunicorn.access": {"propagate": False}},
}

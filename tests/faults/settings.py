"""Of the processes that a fault is put into: the tests' settings, and the faults."""

from __future__ import annotations

import os

from tests.settings import *  # noqa: F403
from tests.settings import DATABASES, INSTALLED_APPS

INSTALLED_APPS += ["tests.faults"]
if "FAULT_RELEASE" in os.environ:
    INSTALLED_APPS += ["tests.faults.release"]
if "FAULT_BUSY_TIMEOUT" in os.environ:  # of SQLite
    DATABASES["default"]["OPTIONS"]["timeout"] = float(os.environ["FAULT_BUSY_TIMEOUT"])
# What a crash would take these tests do ask: committed is on the disk.
for _database in DATABASES.values():
    _database["OPTIONS"] = {name: value for name, value in _database["OPTIONS"].items() if name != "options"}
# A lease in a hurry ends sooner than the check likes, which allows for
# machines slower than their timeouts.
SILENCED_SYSTEM_CHECKS = ["signalpost.E031"]

"""The project's settings, with the zoo, a second database, and files that
belong to one test process."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

# One directory per test process: those that xdist starts inherit this one's
# environment, and must not share its Valkey. What a test starts is told.
CHILD = "TEST_DIR" in os.environ
TEST_DIR = Path(os.environ["TEST_DIR"] if CHILD else tempfile.mkdtemp(prefix="signalpost-test-"))
os.environ["SIGNALPOST_DATA_DIR"] = str(TEST_DIR)
if not CHILD:
    atexit.register(shutil.rmtree, TEST_DIR, ignore_errors=True)

from config.embedded import socket_url  # noqa: E402
from config.settings import *  # noqa: E402, F403
from config.settings import CACHES, DATABASES, INSTALLED_APPS, REDIS_URL, RQ_QUEUES  # noqa: E402

INSTALLED_APPS += ["tests.zoo"]
# Nothing is collected in a test, and WhiteNoise warns of the missing directory.
WHITENOISE_AUTOREFRESH = True
if not CHILD:  # what a test saves does not ring at somebody's own Redis
    REDIS_URL = RQ_QUEUES["default"]["URL"] = CACHES["default"]["LOCATION"] = socket_url(TEST_DIR)
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DATABASES["other"] = {**DATABASES["default"]}
if "TEST_OTHER_DATABASE" in os.environ:  # a child process of a test, on that test's databases
    DATABASES["other"]["NAME"] = os.environ["TEST_OTHER_DATABASE"]
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # Files, so that threads and processes of a test see the same database.
    for _alias, _database in DATABASES.items():
        _database["TEST"] = {"NAME": str(TEST_DIR / f"{_alias}.sqlite3")}
else:
    DATABASES["other"]["TEST"] = {"NAME": f"test_{DATABASES['default']['NAME']}_other"}
    # Committed is committed for whoever asks; what a power cut would take no test asks.
    for _database in DATABASES.values():
        _database["OPTIONS"] = {"options": "-c synchronous_commit=off"}
# A child process of a test that has not set up the second one knows the first only.
_ALONE = "SIGNALPOST_DATABASES" in os.environ
SIGNALPOST_DATABASES = ["default"] if _ALONE else ["default", "other"]
SIGNALPOST_ALLOWED_NETWORKS = ["127.0.0.0/8", "::1/128"]

"""The project's settings in three variants: with Signalpost, with the peer
package in its place, and with neither."""

from __future__ import annotations

import os

from config.settings import *  # noqa: F403
from config.settings import INSTALLED_APPS

VARIANT = os.environ.get("BENCH_VARIANT", "signalpost")
OURS = {"subscriptions", "webhooks"}

if VARIANT in {"bare", "package"}:
    INSTALLED_APPS = [app for app in INSTALLED_APPS if app not in OURS]
    ROOT_URLCONF = "bench.warehouse.urls"
    # Ours know Signalpost's models.
    ACCOUNT_ADAPTER, ACCOUNT_FORMS = "allauth.account.adapter.DefaultAccountAdapter", {}
    MFA_ADAPTER, MFA_FORMS = "allauth.mfa.adapter.DefaultMFAAdapter", {}
if VARIANT == "package":
    # Before the package's tasks, which join the application that is there by then.
    import bench.peers.package  # noqa: F401
if VARIANT in {"package", "all"}:
    INSTALLED_APPS = [*INSTALLED_APPS, "django_webhook"]

DJANGO_WEBHOOK = {"MODELS": ["warehouse.Heard"]}
# Requests are counted, and none is refused.
SIGNALPOST_API_RATE = "100000000/min"
SILENCED_SYSTEM_CHECKS = ["urls.W005"]

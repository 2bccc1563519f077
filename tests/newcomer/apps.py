from __future__ import annotations

from django.apps import AppConfig


class NewcomerConfig(AppConfig):
    """Not installed: a test adds it to a project that has started."""

    name = "tests.newcomer"
    label = "newcomer"
    default_auto_field = "django.db.models.BigAutoField"

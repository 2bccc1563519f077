from __future__ import annotations

from django.apps import AppConfig


class FaultsConfig(AppConfig):
    name = "tests.faults"

    def ready(self) -> None:
        from tests.faults import clock, moments

        moments.arm()
        clock.wind()

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from subscriptions import keys
from subscriptions.edits import Refused
from subscriptions.models import ApiKey, Tenant, home
from subscriptions.trail import Actor
from webhooks.management.arguments import duration

if TYPE_CHECKING:
    from argparse import ArgumentParser

ACTOR = Actor("manage.py api_key", as_operator=True)


class Command(BaseCommand):
    help = "Make an API key, of a tenant's or of the operator's, and print its value: once, and never again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        whose = parser.add_mutually_exclusive_group(required=True)
        whose.add_argument("--tenant", metavar="SLUG", help="whose key it is")
        whose.add_argument("--operator", action="store_true", help="for all tenants, and for what only operators do")
        parser.add_argument("--name", required=True, help="what it is for, such as Billing server")
        parser.add_argument("--scopes", required=True, help=f"with commas between: {', '.join(keys.OPERATOR_MAY)}")
        parser.add_argument("--mode", choices=ApiKey.Mode.values, default=ApiKey.Mode.LIVE.value)
        parser.add_argument("--networks", default="", help="from where it may be used, such as 203.0.113.0/24")
        parser.add_argument("--expires", metavar="SPAN", help="in how long, such as 90d")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            key, value = keys.create(
                _tenant(options["tenant"]),
                ACTOR,
                name=options["name"],
                scopes=[scope.strip() for scope in options["scopes"].split(",")],
                mode=options["mode"],
                networks=keys.networks_in(options["networks"]),
                expires_at=_end(options["expires"]),
            )
        except (Refused, ValidationError) as wrong:
            raise CommandError(" ".join(_sentences(wrong))) from wrong
        self.stderr.write(f"Made {key} for {options['tenant'] or 'the operator'}. Keep its value: it is shown once.")
        self.stdout.write(value)


def _tenant(slug: str | None) -> Tenant | None:
    if slug is None:
        return None
    tenant: Tenant | None = Tenant.objects.using(home()).filter(slug=slug).first()
    if tenant is None:
        raise CommandError(f"There is no tenant {slug!r}.")
    return tenant


def _end(span: str | None) -> datetime | None:
    return timezone.now() + duration(span) if span else None


def _sentences(wrong: Refused | ValidationError) -> list[str]:
    return wrong.messages if isinstance(wrong, ValidationError) else [str(wrong)]

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError
from django.db.models import Count

from subscriptions.models import TOPIC_PATTERN, Subscription, Tenant
from subscriptions.trail import Actor
from webhooks import deeds
from webhooks.management.arguments import counted, event_id, moment, row_id
from webhooks.models import Delivery, Event

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable

    from django.db.models import QuerySet

ANY = "any"
BY = "command"
OPERATOR = Actor("manage.py replay", as_operator=True)
FILTERS = ("delivery", "event", "subscription", "tenant", "topic", "since")


class Command(BaseCommand):
    help = "Send deliveries again: the failed ones, of what the filters name."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--delivery", nargs="+", default=[], metavar="ID")
        parser.add_argument("--event", nargs="+", default=[], metavar="ID", help="a UUID, or a webhook-id (evt_…)")
        parser.add_argument("--subscription", nargs="+", default=[], metavar="ID")
        parser.add_argument("--tenant", metavar="SLUG")
        parser.add_argument("--topic", metavar="TOPIC", help="such as shop.order.updated or shop.order.*")
        parser.add_argument(
            "--status",
            choices=[*Delivery.Status.values, ANY],
            help="the status that they have now; failed, or any where --delivery names them",
        )
        parser.add_argument("--since", metavar="WHEN", help="made since then: 2h, 2026-11-21, 2026-11-21T09:30")
        parser.add_argument("--all", action="store_true", help="needed where no filter is given")
        parser.add_argument("--dry-run", action="store_true", help="only say how many there are")
        parser.add_argument("--yes", action="store_true", help="do not ask")

    def handle(self, *args: Any, **options: Any) -> None:
        if not (options["all"] or options["status"] or any(options[name] for name in FILTERS)):
            raise CommandError(f"Name what to replay: --{', --'.join(FILTERS)} or --status; or --all.")
        chosen = self._chosen(**options)
        count = self._tell(chosen)
        if not count or options["dry_run"]:
            return
        if not options["yes"] and sys.stdin.isatty() and not self._agreed(count):
            raise CommandError("Nothing was replayed.")
        done = deeds.replay_all(chosen, OPERATOR, name=BY, filters=_written(options))
        self.stdout.write(f"{counted(done, 'delivery')} will be sent again.")
        if done < count:
            self.stdout.write(f"{counted(count - done, 'delivery')} left alone: being sent right now.")

    def _chosen(self, **options: Any) -> QuerySet[Delivery]:
        chosen: QuerySet[Delivery] = Delivery.objects.all()
        if ids := _several(options["delivery"], row_id):
            chosen = chosen.filter(pk__in=_known(Delivery, ids))
        if ids := _several(options["event"], event_id):
            chosen = chosen.filter(event__in=_known(Event, ids))
        if ids := _several(options["subscription"], row_id):
            chosen = chosen.filter(subscription__in=_known(Subscription, ids))
        if options["tenant"]:
            chosen = chosen.filter(tenant=_tenant(options["tenant"]))
        if options["topic"]:
            chosen = _of_topic(chosen, options["topic"])
        if options["since"]:
            chosen = chosen.filter(created_at__gte=moment(options["since"]))
        status = options["status"] or (ANY if options["delivery"] else Delivery.Status.FAILED)
        return chosen if status == ANY else chosen.filter(status=status)

    def _tell(self, chosen: QuerySet[Delivery]) -> int:
        counts = dict(chosen.order_by().values_list("status").annotate(Count("pk")))
        total = sum(counts.values())
        parts = ", ".join(f"{count:,} {status}" for status, count in sorted(counts.items()))
        self.stdout.write(f"{counted(total, 'delivery')} found{': ' if parts else ''}{parts}.")
        return total

    def _agreed(self, count: int) -> bool:
        return input(f"Send {counted(count, 'delivery')} again? [y/N] ").strip().lower() in {"y", "yes"}


def _written(options: dict[str, Any]) -> list[str]:
    """For the tenants' audit logs; the others' numbers are none of a tenant's business."""
    return [f"{name}: {options[name]}" for name in ("topic", "status", "since") if options[name]]


def _several(value: Any, read: Callable[[Any], Any]) -> list[Any]:
    """call_command may be given one where the command line gives a list."""
    if not value:
        return []
    return [read(each) for each in (value if isinstance(value, (list, tuple)) else [value])]


def _known(model: type[Delivery | Event | Subscription], ids: list[Any]) -> list[Any]:
    there = set(model._default_manager.filter(pk__in=ids).values_list("pk", flat=True))
    if missing := [str(pk) for pk in ids if pk not in there]:
        raise CommandError(f"There is no {model._meta.verbose_name} {', '.join(missing)}.")
    return ids


def _tenant(slug: str) -> Tenant:
    tenant: Tenant | None = Tenant.objects.filter(slug=slug).first()
    if tenant is None:
        raise CommandError(f"There is no tenant {slug!r}.")
    return tenant


def _of_topic(chosen: QuerySet[Delivery], topic: str) -> QuerySet[Delivery]:
    if not TOPIC_PATTERN.fullmatch(topic):
        raise CommandError(f"{topic!r} is no topic. Write one such as shop.order.updated, shop.order.* or *.")
    if topic.endswith("*"):
        return chosen.filter(event__topic__startswith=topic[:-1])
    return chosen.filter(event__topic=topic)

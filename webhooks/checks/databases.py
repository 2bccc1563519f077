"""The aliases whose changes are captured, and their tables."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004 -- Django's names
from django.db import connections, router

from subscriptions import catalog
from subscriptions.conf import conf
from subscriptions.models import Secret, home
from webhooks import statements
from webhooks.models import Attempt, Delivery, Event

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

UNKNOWN_ALIAS = "signalpost.E020"
UNLISTED_ALIAS = "signalpost.E021"
KEPT_OFF = "signalpost.E022"
NO_TABLES = "signalpost.W023"
OTHER_VENDOR = "signalpost.E024"
DEFERRED = "signalpost.W025"
UNREADABLE = "signalpost.W026"
IN_LOTS = "signalpost.W027"
NO_ZONE = "signalpost.W028"

# The newest secrets: enough to notice that a key is gone, whatever their number.
SECRETS_TRIED = 100


def _listed() -> tuple[str, ...]:
    """Of a setting that may be anything."""
    names: Any = conf.databases
    return tuple(name for name in names if isinstance(name, str)) if isinstance(names, tuple) else ()


@register("signalpost")
def aliases(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    return [*_unknown(), *_unlisted(), *_kept_off(), *_vendors(), *_zone()]


def _unknown() -> Iterator[CheckMessage]:
    for alias in _listed():
        if alias not in connections:
            near = difflib.get_close_matches(alias, list(connections), n=1)
            meant = f'"{near[0]}"' if near else ", ".join(f'"{name}"' for name in connections)
            yield Error(
                f'SIGNALPOST_DATABASES lists "{alias}", which DATABASES does not have.',
                hint=f"Write {meant}.",
                id=UNKNOWN_ALIAS,
            )


def _unlisted() -> Iterator[CheckMessage]:
    for model in catalog.entries():
        alias = router.db_for_write(model)
        if alias not in _listed():
            yield Error(
                f'{model._meta.label} is written to "{alias}", whose changes are not captured.',
                hint=f'Add "{alias}" to SIGNALPOST_DATABASES and run manage.py migrate --database {alias}, '
                f"or take the registration of {model._meta.label} away.",
                obj=model._meta.label,
                id=UNLISTED_ALIAS,
            )


def _kept_off() -> Iterator[CheckMessage]:
    for alias in _listed():
        if alias in connections and not router.allow_migrate_model(alias, Event):
            yield Error(
                f'SIGNALPOST_DATABASES lists "{alias}", but a router of DATABASE_ROUTERS keeps the table of events '
                "off it.",
                hint=f'Let allow_migrate("{alias}", "webhooks") be true: an event is written in the transaction of '
                "its change, and so on its alias.",
                id=KEPT_OFF,
            )


def _zone() -> Iterator[CheckMessage]:
    if not settings.USE_TZ:
        yield Warning(
            "USE_TZ is False. Webhooks are sent, but the pages and the API take times in UTC, and refuse or mistake yours.",
            hint="Set USE_TZ = True, which is Django's default, or mount neither of them.",
            id=NO_ZONE,
        )


def _vendors() -> Iterator[CheckMessage]:
    for alias in _listed():
        if alias not in connections:
            continue
        vendor = connections[alias].vendor
        if vendor not in {"postgresql", "sqlite"}:
            yield Error(
                f'SIGNALPOST_DATABASES lists "{alias}", which is {vendor}: events are written to PostgreSQL and '
                "SQLite only.",
                hint=f'Take "{alias}" out of SIGNALPOST_DATABASES, with the registrations of its models.',
                id=OTHER_VENDOR,
            )
        options = connections[alias].settings_dict.get("OPTIONS") or {}
        if vendor == "sqlite" and str(options.get("transaction_mode")).upper() not in {"IMMEDIATE", "EXCLUSIVE"}:
            yield Warning(
                f'"{alias}" is SQLite and begins its transactions without a lock: one that reads and then writes '
                'fails with "database is locked" while a worker writes.',
                hint=f'Write "transaction_mode": "IMMEDIATE" in the OPTIONS of DATABASES["{alias}"].',
                id=DEFERRED,
            )


@register(Tags.database)
def keys(app_configs: Any, databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Asks the database, so only `migrate` and `check --database` run it."""
    if home() not in (databases or ()):
        return []
    connection = connections[home()]
    with connection.cursor() as cursor:
        if Secret._meta.db_table not in connection.introspection.table_names(cursor):
            return []
    tried = list(Secret.objects.using(home()).live().order_by("-id")[:SECRETS_TRIED])
    unreadable = [secret for secret in tried if not _is_readable(secret)]
    if not unreadable:
        return []
    return [
        Warning(
            f"{len(unreadable)} of the {len(tried)} newest signing secrets were encrypted with a key that is not "
            "there any more: nothing can be signed with them.",
            hint="Add the former key to SIGNALPOST_ENCRYPTION_KEYS, or the former SECRET_KEY to SECRET_KEY_FALLBACKS.",
            id=UNREADABLE,
        )
    ]


@register(Tags.database)
def numbers(app_configs: Any, databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Asks the database, too. See `horizon`: a number may not be given out before it is needed."""
    connection = connections[home()]
    if home() not in (databases or ()) or connection.vendor != "postgresql":
        return []
    if Delivery._meta.db_table not in connection.introspection.table_names():
        return []
    [[lot]] = statements.rows(LOT, [Delivery._meta.db_table], using=home())
    if lot == 1:
        return []
    return [
        Warning(
            f"Each connection takes {lot} numbers of deliveries at a time: who reads a feed may miss some.",
            hint=f"ALTER TABLE {Delivery._meta.db_table} ALTER id SET CACHE 1;",
            id=IN_LOTS,
        )
    ]


# How many numbers a connection takes at a time.
LOT = "SELECT seqcache FROM pg_sequence WHERE seqrelid = pg_get_serial_sequence(%s, 'id')::regclass"


def _is_readable(secret: Secret) -> bool:
    try:
        return bool(secret.value)
    except ValueError:
        return False


@register(Tags.database)
def tables(app_configs: Any, databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """A warning, not an error: `migrate` runs this check before it makes the tables."""
    found: list[CheckMessage] = []
    for alias in databases or ():
        if alias not in _listed():
            continue
        wanted = [Event, Delivery, Attempt] if alias == home() else [Event]
        with connections[alias].cursor() as cursor:
            there = set(connections[alias].introspection.table_names(cursor))
        missing = [model._meta.db_table for model in wanted if model._meta.db_table not in there]
        # A database with no tables at all is just being set up.
        if there and missing:
            found.append(
                Warning(
                    f'"{alias}" has no table {", ".join(missing)}: changes captured there would fail.',
                    hint=f"Run manage.py migrate --database {alias}.",
                    id=NO_TABLES,
                )
            )
    return found

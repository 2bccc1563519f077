"""What only owners do, checked where it is done."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from django.db import transaction
from django.utils.translation import gettext as _

from subscriptions.edits import Refused
from subscriptions.models import Membership, Tenant, home

if TYPE_CHECKING:
    from collections.abc import Iterator

    from subscriptions.trail import Actor


@contextmanager
def alone(tenant: Tenant, actor: Actor | None) -> Iterator[None]:
    """Nobody else changes who belongs to `tenant` meanwhile; and `actor`, if a
    person is to be an owner for it, still is one."""
    with transaction.atomic(using=home()):
        Tenant.objects.using(home()).select_for_update(no_key=True).get(pk=tenant.pk)
        if actor is not None and actor.user_id is not None and not actor.as_operator:
            owners = Membership.objects.using(home()).for_tenant(tenant).owners()
            if not owners.filter(user_id=actor.user_id).exists():
                raise Refused(_("You are not an owner any more."))
        yield

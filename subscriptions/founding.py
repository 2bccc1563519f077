"""A new tenant, with its first owner."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils.crypto import get_random_string
from django.utils.text import slugify

from subscriptions import names
from subscriptions.conf import conf
from subscriptions.models import AuditEntry, Membership, Role, Tenant, home
from subscriptions.trail import note

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser

    from subscriptions.trail import Actor

SLUG_LENGTH = 48  # of at most 63, so that there is room for what makes it unique
UNNAMED = "tenant"  # for a name with no letter that an address may have
LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"  # none that look alike
TRIES = 8


def found(name: str, *, owner: AbstractBaseUser, actor: Actor) -> Tenant:
    """Make the tenant `name`, whose address nobody has yet, in one transaction."""
    if told := names.trouble(name):
        raise ValidationError({"name": told})
    with transaction.atomic(using=home()):
        tenant = _with_own_slug(name)
        Membership(tenant=tenant, user_id=owner.pk, role=Role.OWNER).save(using=home())
        note(actor, AuditEntry.Action.TENANT_CREATED, tenant=tenant, about=tenant)
    return tenant


def slug_of(name: str) -> str:
    return slugify(name)[:SLUG_LENGTH].strip("-_") or UNNAMED


def _with_own_slug(name: str) -> Tenant:
    wanted = slug_of(name)
    # The operator's tenant hears what happens to the whole project: nobody
    # gets it by choosing a name.
    slug = _another(wanted) if wanted == conf.operator_tenant else wanted
    for _try in range(TRIES):
        if not Tenant.objects.using(home()).filter(slug=slug).exists():
            tenant = Tenant(slug=slug, name=name)
            try:
                with transaction.atomic(using=home()):
                    tenant.save(using=home())
            except IntegrityError:
                pass  # somebody else was quicker
            else:
                return tenant
        slug = _another(wanted)
    raise RuntimeError(f"No free address for a tenant after {TRIES} tries")


def _another(slug: str) -> str:
    return f"{slug}-{get_random_string(5, LETTERS)}"

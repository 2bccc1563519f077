"""Who the customers are, and their people."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta
from typing import Self

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from subscriptions import names
from subscriptions.models.wish import Wish, WishQuerySet

INVITED_FOR = timedelta(days=7)


class Tenant(Wish):
    slug = models.SlugField(max_length=63, unique=True)
    name = models.CharField(max_length=200)
    key = models.CharField(
        max_length=200,
        unique=True,
        null=True,
        blank=True,
        help_text=_("How the host project knows this tenant, such as its own primary key."),
    )
    created_at = models.DateTimeField(auto_now_add=True)
    # Turned off by the operator; its subscriptions are, too.
    disabled_at = models.DateTimeField(null=True, blank=True, editable=False)
    disabled_reason = models.CharField(max_length=200, blank=True, editable=False)

    objects = WishQuerySet.as_manager()

    class Meta:
        ordering = ["slug"]
        permissions = [("support_tenant", "Can look at a tenant's pages as support")]

    def __str__(self) -> str:
        return self.slug

    def clean(self) -> None:
        if told := names.trouble(self.name):
            raise ValidationError({"name": told})


class Role(models.TextChoices):
    """An owner does everything, a developer all but people and keys, a viewer looks."""

    OWNER = "owner", _("owner")
    DEVELOPER = "developer", _("developer")
    VIEWER = "viewer", _("viewer")


class MembershipQuerySet(models.QuerySet["Membership"]):
    def for_tenant(self, tenant: Tenant) -> Self:
        return self.filter(tenant=tenant)

    def owners(self) -> Self:
        return self.filter(role=Role.OWNER)

    def with_people(self) -> Self:
        return self.select_related("user").order_by("user__email", "pk")


class Membership(models.Model):
    Role = Role

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=16, choices=Role, default=Role.VIEWER)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = MembershipQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "user"], name="membership_once")]

    def __str__(self) -> str:
        return f"{self.user} in {self.tenant}"


class InvitationQuerySet(models.QuerySet["Invitation"]):
    def for_tenant(self, tenant: Tenant) -> Self:
        return self.filter(tenant=tenant)

    def open(self) -> Self:
        return self.filter(expires_at__gt=Now())

    def holding(self, token: str) -> Self:
        return self.filter(digest=_digest(token))


class Invitation(models.Model):
    """A mail that makes whoever holds it a member, once; the row goes with it."""

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="invitations")
    email = models.EmailField()
    role = models.CharField(max_length=16, choices=Role, default=Role.DEVELOPER)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    # When a mail server took the mail; none did as long as it is empty.
    mailed_at = models.DateTimeField(null=True, blank=True, editable=False)
    invited_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+")

    objects = InvitationQuerySet.as_manager()

    class Meta:
        ordering = ["email"]
        constraints = [models.UniqueConstraint(fields=["tenant", "email"], name="invitation_once")]

    def __str__(self) -> str:
        return f"{self.email} to {self.tenant}"

    def fill(self) -> str:
        """Give it a token and a week, and return the token: only its hash is kept."""
        token = secrets.token_urlsafe(32)
        self.digest = _digest(token)
        self.expires_at = timezone.now() + INVITED_FOR
        self.mailed_at = None
        return token

    @property
    def expired(self) -> bool:
        return self.expires_at <= timezone.now()


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()

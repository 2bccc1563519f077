"""Wishes: who the tenants are and what they want to hear about."""

from __future__ import annotations

import re
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models, router, transaction
from django.db.models import F, Q
from django.db.models.functions import Now
from django.dispatch import Signal
from django.utils import timezone

from subscriptions import addresses, secrets
from subscriptions.conf import conf

if TYPE_CHECKING:
    from collections.abc import Iterable

# How long the old secret keeps signing beside the new one.
OVERLAP = timedelta(hours=24)

TOPIC = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)+")
TOPIC_PATTERN = re.compile(r"\*|[a-z0-9_]+(\.[a-z0-9_]+)*\.(\*|[a-z0-9_]+)")
UPDATED = ".updated"
HIGHEST_RATE = 1_000  # requests per second to one subscription

# Sent in the transaction that changes a wish, after the change; with `added`,
# the wish that is new, where that is all there is to it.
wishes_changed = Signal()
# Sent in the transaction that deletes `wishes`, a queryset, before it is seen
# what else goes with them.
wishes_leaving = Signal()


def home() -> str:
    """The database alias that holds the wishes, and with them the traffic."""
    return router.db_for_write(Subscription)


class Revision(models.Model):
    """One row that is another one after every change to a wish, so that a
    process can tell with one small query whether what it remembers is stale.

    A random token beside the number: a number that was rolled back comes
    again with other contents behind it. The number tells which is later, as
    an old snapshot of the database shows an old one.
    """

    number = models.PositiveBigIntegerField(default=0)
    token = models.UUIDField(default=uuid.uuid4)

    def __str__(self) -> str:
        return str(self.token)

    @classmethod
    def renew(cls, *, added: Wish | None = None) -> None:
        """Say that a wish changed, in the transaction that changes it."""
        row = cls.objects.filter(pk=1)
        later = {"number": F("number") + 1, "token": uuid.uuid4()}
        if not row.update(**later) and not cls.objects.get_or_create(pk=1)[1]:
            row.update(**later)  # Another process has just made the row.
        wishes_changed.send(cls, added=added)

    @classmethod
    def current(cls) -> tuple[int, uuid.UUID] | None:
        return cls.objects.using(home()).filter(pk=1).values_list("number", "token").first()


class WishQuerySet(models.QuerySet[Any]):
    """A queryset whose writes renew the revision; `save()` and `delete()` of
    an instance do so in `Wish`."""

    def update(self, **kwargs: Any) -> int:
        with transaction.atomic(using=self.db):
            rows = super().update(**kwargs)
            if rows:
                Revision.renew()
        return rows

    def delete(self) -> tuple[int, dict[str, int]]:
        with transaction.atomic(using=self.db):
            wishes_leaving.send(self.model, wishes=self)
            deleted = super().delete()
            Revision.renew()
        return deleted

    def bulk_create(self, *args: Any, **kwargs: Any) -> list[Any]:
        with transaction.atomic(using=self.db):
            rows = super().bulk_create(*args, **kwargs)
            Revision.renew()
        return rows


class Wish(models.Model):
    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        is_new = self.pk is None
        with transaction.atomic(using=home()):
            super().save(*args, **kwargs)
            Revision.renew(added=self if is_new else None)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        with transaction.atomic(using=home()):
            wishes_leaving.send(type(self), wishes=type(self)._default_manager.filter(pk=self.pk))
            deleted = super().delete(*args, **kwargs)
            Revision.renew()
        return deleted


class Tenant(Wish):
    slug = models.SlugField(max_length=63, unique=True)
    name = models.CharField(max_length=200)
    key = models.CharField(
        max_length=200,
        unique=True,
        null=True,
        blank=True,
        help_text="How the host project knows this tenant, such as its own primary key.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    objects = WishQuerySet.as_manager()

    class Meta:
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.slug


class Membership(models.Model):
    class Role(models.TextChoices):
        OWNER = "owner"
        DEVELOPER = "developer"
        VIEWER = "viewer"

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=16, choices=Role, default=Role.VIEWER)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "user"], name="membership_once")]

    def __str__(self) -> str:
        return f"{self.user} in {self.tenant}"


class SubscriptionQuerySet(WishQuerySet):
    def for_tenant(self, tenant: Tenant) -> Self:
        return self.filter(tenant=tenant)

    def enabled(self) -> Self:
        return self.filter(disabled_at=None)


class Subscription(Wish):
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="subscriptions")
    name = models.CharField(max_length=200, blank=True)
    url = models.CharField("URL", max_length=2000)
    created_at = models.DateTimeField(auto_now_add=True)
    # When it was last turned on, so that an audit knows since when it listens.
    # May be null, since workers of the release before know nothing of it.
    enabled_at = models.DateTimeField(default=timezone.now, editable=False, null=True)
    disabled_at = models.DateTimeField(null=True, blank=True)
    disabled_reason = models.CharField(max_length=200, blank=True)
    rate_limit = models.PositiveSmallIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(HIGHEST_RATE)],
        help_text="Requests per second at most; empty: as many as there are.",
    )

    objects = SubscriptionQuerySet.as_manager()

    class Meta:
        # Whoever writes it: the claims of all tenants divide by it.
        constraints = [models.CheckConstraint(condition=Q(rate_limit__gte=1), name="subscription_rate_limit")]
        indexes = [
            # Fan-out: the enabled subscriptions of an event's tenant.
            models.Index(fields=["tenant"], name="subscription_enabled", condition=Q(disabled_at=None)),
        ]

    def __str__(self) -> str:
        return self.name or self.url

    def clean(self) -> None:
        if not self.url:
            return
        try:
            addresses.check_url(self.url, allowed_networks=conf.allowed_networks)
        except addresses.RefusedAddress as error:
            raise ValidationError({"url": str(error)}) from error

    @property
    def enabled(self) -> bool:
        return self.disabled_at is None

    def disable(self, *, reason: str) -> bool:
        """Turn off; False where it already was, so that only one of two
        that do it at once acts on it."""
        return self._switch(type(self).objects.enabled(), disabled_at=Now(), disabled_reason=reason)

    def enable(self) -> bool:
        """Turn on again; False where it already was."""
        off = type(self).objects.filter(disabled_at__isnull=False)
        return self._switch(off, enabled_at=Now(), disabled_at=None, disabled_reason="")

    def _switch(self, rows: SubscriptionQuerySet, **values: Any) -> bool:
        """Under a lock and by `save()`, as an UPDATE would be no event."""
        with transaction.atomic(using=home()):
            row = rows.using(home()).select_for_update(no_key=True).filter(pk=self.pk).first()
            if row is None:
                return False
            for name, value in values.items():
                setattr(row, name, value)
            row.save(update_fields=list(values))
        return True

    def listen_to(self, *topics: str, changed: Iterable[str] = ()) -> None:
        """Add `topics`; with `changed`, only when one of these fields changed."""
        fields = (changed,) if isinstance(changed, str) else tuple(changed)
        for name in topics:
            for field in fields or ("",):
                topic = Topic(subscription=self, name=name, field=field)
                topic.full_clean()
                topic.save()

    def rotate_secret(self) -> str:
        """Make a new secret and let the live ones sign for `OVERLAP` more.

        Returns the new secret as the tenant sees it.
        """
        secret = secrets.generate()
        with transaction.atomic():
            self.secrets.live().filter(expires_at=None).update(expires_at=Now() + OVERLAP)
            self.secrets.create(ciphertext=secrets.encrypt(secret))
        return secret


class Topic(Wish):
    """One topic, or pattern of topics, that a subscription wants.

    A row with a `field` wants an `updated` event only when that field
    changed; several rows of one name mean any of their fields.
    """

    subscription = models.ForeignKey(Subscription, models.CASCADE, related_name="topics")
    name = models.CharField(
        max_length=200,
        validators=[
            RegexValidator(
                rf"^({TOPIC_PATTERN.pattern})\Z", "Write a topic such as shop.order.updated, shop.order.* or *."
            )
        ],
    )
    field = models.CharField(max_length=100, blank=True, default="")
    # For an audit, too: what happened before cannot be said to have been wanted.
    changed_at = models.DateTimeField(auto_now=True, null=True)

    objects = WishQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["subscription", "name", "field"], name="topic_once")]

    def __str__(self) -> str:
        return f"{self.name} ({self.field})" if self.field else self.name

    def clean(self) -> None:
        if self.field and not self.name.endswith(UPDATED):
            raise ValidationError({"field": f"Only topics that end in {UPDATED} have changed fields."})


class SecretQuerySet(models.QuerySet["Secret"]):
    def live(self) -> Self:
        return self.filter(Q(expires_at=None) | Q(expires_at__gt=Now()))


class Secret(models.Model):
    """A signing secret of a subscription; the newest has no end."""

    subscription = models.ForeignKey(Subscription, models.CASCADE, related_name="secrets")
    ciphertext = models.BinaryField()
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)

    objects = SecretQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"secret {self.pk} of {self.subscription}"

    @property
    def value(self) -> str:
        return secrets.decrypt(bytes(self.ciphertext))

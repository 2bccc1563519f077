"""What tenants want to hear about, and how it is signed."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models, transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from subscriptions import addresses, names, secrets
from subscriptions.conf import conf
from subscriptions.models.tenants import Tenant
from subscriptions.models.wish import Wish, WishQuerySet, home

if TYPE_CHECKING:
    from collections.abc import Iterable

# How long the old secret keeps signing beside the new one.
OVERLAP = timedelta(hours=24)

TOPIC = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)+")
TOPIC_PATTERN = re.compile(r"\*|[a-z0-9_]+(\.[a-z0-9_]+)*\.(\*|[a-z0-9_]+)")
UPDATED = ".updated"
HIGHEST_RATE = 1_000  # requests per second to one subscription


class SubscriptionQuerySet(WishQuerySet):
    def for_tenant(self, tenant: Tenant) -> Self:
        return self.filter(tenant=tenant)

    def enabled(self) -> Self:
        return self.filter(disabled_at=None)


class Subscription(Wish):
    class DisabledBy(models.TextChoices):
        """Who may turn it on again: only an operator undoes an operator."""

        MEMBER = "member", _("a member")
        ENGINE = "engine", _("Signalpost")
        OPERATOR = "operator", _("the operator")
        # The whole tenant was; turned on again with it.
        TENANT = "tenant", _("the operator, with the tenant")

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="subscriptions")
    name = models.CharField(max_length=200, blank=True)
    url = models.CharField("URL", max_length=2000)
    created_at = models.DateTimeField(auto_now_add=True)
    # When it was last turned on, so that an audit knows since when it listens.
    # May be null, since workers of the release before know nothing of it.
    enabled_at = models.DateTimeField(default=timezone.now, editable=False, null=True)
    disabled_at = models.DateTimeField(null=True, blank=True)
    disabled_reason = models.CharField(max_length=200, blank=True)
    disabled_by = models.CharField(max_length=16, choices=DisabledBy, blank=True, editable=False)
    # Counts the edits, so that a form or a program that saw an older one is told.
    version = models.PositiveIntegerField(default=1, editable=False)
    # What its form called the request that made it: sent twice, it makes one.
    made_by = models.UUIDField(null=True, blank=True, editable=False)
    rate_limit = models.PositiveSmallIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(HIGHEST_RATE)],
        help_text=_("Requests per second at most; empty: as many as there are."),
    )

    objects = SubscriptionQuerySet.as_manager()

    class Meta:
        # Whoever writes it: the claims of all tenants divide by it.
        constraints = [
            models.CheckConstraint(condition=Q(rate_limit__gte=1), name="subscription_rate_limit"),
            models.UniqueConstraint(fields=["tenant", "made_by"], name="subscription_made_once"),
        ]
        indexes = [
            # Fan-out: the enabled subscriptions of an event's tenant.
            models.Index(fields=["tenant"], name="subscription_enabled", condition=Q(disabled_at=None)),
        ]

    def __str__(self) -> str:
        return self.name or self.url

    def clean(self) -> None:
        errors: dict[str, Any] = {}
        if told := names.trouble(self.name):
            errors["name"] = told
        if self.url:
            try:
                addresses.check_target(self.url, allowed_networks=conf.allowed_networks)
            except addresses.RefusedAddress as error:
                errors["url"] = str(error)
        if errors:
            raise ValidationError(errors)

    @property
    def enabled(self) -> bool:
        return self.disabled_at is None

    @property
    def host(self) -> str:
        """Where it goes, without what may be a secret of the receiver's."""
        scheme, _slashes, rest = self.url.partition("://")
        return re.split("[/?#]", rest, maxsplit=1)[0] or scheme.rstrip(":")

    @property
    def path(self) -> str:
        """What comes after the host."""
        return re.sub("^[^:]*:/*[^/?#]*", "", self.url)

    @property
    def is_inbox(self) -> bool:
        """Sent to the receiver that is built in."""
        return self.url == addresses.INBOX

    @property
    def is_feed(self) -> bool:
        """Sent nowhere: its receiver asks for what there is."""
        return self.url == addresses.FEED

    def disable(self, *, reason: str, by: str = DisabledBy.ENGINE) -> bool:
        """Turn off; False where it already was, so that only one of two
        that do it at once acts on it. What a member or the engine turned off
        the operator may turn off once more: then only the operator undoes it."""
        rows = type(self).objects.enabled()
        if by == self.DisabledBy.OPERATOR:
            rows = type(self).objects.exclude(disabled_by=by)
        return self._switch(rows, disabled_at=Now(), disabled_reason=reason, disabled_by=by)

    def enable(self) -> bool:
        """Turn on again; False where it already was, or where its whole tenant is off."""
        off = type(self).objects.filter(disabled_at__isnull=False, tenant__disabled_at=None)
        return self._switch(off, enabled_at=Now(), disabled_at=None, disabled_reason="", disabled_by="")

    def _switch(self, rows: SubscriptionQuerySet, **values: Any) -> bool:
        """Under a lock and by `save()`, as an UPDATE would be no event."""
        with transaction.atomic(using=home()):
            row = rows.using(home()).select_for_update(no_key=True, of=("self",)).filter(pk=self.pk).first()
            if row is None:
                return False
            for name, value in values.items():
                setattr(row, name, value)
            row.version += 1
            row.save(update_fields=[*values, "version"])
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
        with transaction.atomic(using=home()):
            live = self.secrets.using(home()).live()
            live.filter(expires_at=None).update(expires_at=Now() + OVERLAP)
            self.secrets.using(home()).create(subscription=self, ciphertext=secrets.encrypt(secret))
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
                rf"^({TOPIC_PATTERN.pattern})\Z", _("Write a topic such as shop.order.updated, shop.order.* or *.")
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
            told = _("Only topics that end in %(updated)s have changed fields.")
            raise ValidationError({"field": told % {"updated": UPDATED}})


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

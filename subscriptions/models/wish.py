"""What every wish does when it is written: say so to all processes."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from django.db import models, router, transaction
from django.db.models import F
from django.dispatch import Signal

if TYPE_CHECKING:
    from collections.abc import Iterator

# Sent in the transaction that changes a wish, after the change; with `added`,
# the wish that is new, where that is all there is to it.
wishes_changed = Signal()
# Sent in the transaction that deletes `wishes`, a queryset, before it is seen
# what else goes with them.
wishes_leaving = Signal()


_together: ContextVar[bool] = ContextVar("together", default=False)


@contextmanager
def at_once() -> Iterator[None]:
    """Wishes that change as one, in the open transaction: said once, at the
    end. Otherwise each save reads again who listens, of all tenants, and holds
    up every other change until the last one is done."""
    token = _together.set(True)
    try:
        yield
    finally:
        _together.reset(token)
    Revision.renew()


def home() -> str:
    """The database alias that holds the wishes, and with them the traffic."""
    return router.db_for_write(Revision)


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
        if _together.get():
            return
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
            wishes_leaving.send(type(self), wishes=type(self)._default_manager.using(home()).filter(pk=self.pk))
            deleted = super().delete(*args, **kwargs)
            Revision.renew()
        return deleted

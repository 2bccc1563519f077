"""What can be done to a subscription, for the pages, the admin and the API
alike: each in one transaction with its entry in the audit log.

A deed that is not allowed raises Refused with a sentence for whoever asked;
values that are wrong raise Django's ValidationError, by field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import formats
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from subscriptions import catalog
from subscriptions.conf import conf
from subscriptions.models import AuditEntry, Secret, Subscription, Tenant, Topic, home
from subscriptions.schemas import changing
from subscriptions.trail import note

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from uuid import UUID

    from subscriptions.trail import Actor

Action = AuditEntry.Action

# Each is a signature in the header of every request.
MOST_SECRETS = 5
# Rows of one subscription: every topic of a large catalog, and a few fields.
MOST_TOPICS = 1_000
LONGEST_REASON = 200  # the width of the column


class Refused(Exception):  # noqa: N818 - what it says is the answer, not a failure
    """Says why not, in a sentence for people."""


class StaleError(Refused):
    """It was changed since it was seen; `now` is how it stands."""

    def __init__(self, now: Subscription) -> None:
        super().__init__(_("The subscription was changed meanwhile. Look at what it is now, then save again."))
        self.now = now


class MadeAlready(Refused):
    """What was asked for once is there: `subscription`."""

    def __init__(self, subscription: Subscription) -> None:
        super().__init__(_("This form has already made a subscription."))
        self.subscription = subscription


def create(
    tenant: Tenant,
    actor: Actor,
    *,
    name: str = "",
    url: str,
    topics: Mapping[str, Iterable[str]],
    rate_limit: int | None = None,
    made_by: UUID | None = None,
) -> tuple[Subscription, str]:
    """A new subscription and its secret. `topics` maps a pattern to the fields
    one of which must have changed; none: any change. Of two requests with one
    `made_by` the later raises MadeAlready."""
    with transaction.atomic(using=home()):
        _hold(tenant.pk)  # Two requests at once come one after the other.
        if made_by is not None:
            _check_new(tenant, made_by)
        _check_room(tenant)
        subscription = Subscription(tenant=tenant, name=name.strip(), url=url, rate_limit=rate_limit, made_by=made_by)
        wanted = _checked(subscription, topics, had=frozenset())
        subscription.save(using=home())
        _listen(subscription, wanted)
        secret = subscription.rotate_secret()
        detail: dict[str, Any] = {"host": subscription.host, "topics": _written(wanted)}
        note(actor, Action.SUBSCRIPTION_CREATED, tenant=tenant, about=subscription, **detail)
    return subscription, secret


def change(
    subscription: Subscription,
    actor: Actor,
    *,
    version: int,
    name: str,
    url: str,
    topics: Mapping[str, Iterable[str]],
    rate_limit: int | None,
) -> Subscription:
    """Make it so, if it still is at the `version` that the asker saw."""
    with transaction.atomic(using=home()):
        row = _locked(subscription)
        _check_seen(row, version)
        before = {"name": row.name, "url": row.url, "host": row.host, "rate_limit": row.rate_limit}
        had = {(topic.name, topic.field): topic for topic in row.topics.using(home())}
        row.name, row.url, row.rate_limit = name.strip(), url, rate_limit
        wanted = _checked(row, topics, had=frozenset(had))
        gone, new = had.keys() - set(wanted), [each for each in wanted if each not in had]
        detail = _differences(row, before=before)
        if gone or new:
            detail["topics"] = {"added": _written(new), "removed": _written(sorted(gone))}
        if not detail:
            return row
        row.version += 1
        row.save(using=home(), update_fields=["name", "url", "rate_limit", "version"])
        if gone:
            row.topics.using(home()).filter(pk__in=[had[each].pk for each in gone]).delete()
        _listen(row, new)
        note(actor, Action.SUBSCRIPTION_CHANGED, tenant=row.tenant, about=row, **detail)
    return row


def delete(subscription: Subscription, actor: Actor) -> None:
    """With all that was ever sent to it."""
    with transaction.atomic(using=home()):
        row: Subscription | None = (
            Subscription.objects.using(home()).select_related("tenant").filter(pk=subscription.pk).first()
        )
        if row is None:
            raise Refused(_("The subscription was deleted meanwhile."))
        note(actor, Action.SUBSCRIPTION_DELETED, tenant=row.tenant, about=row, host=row.host)
        # Not locked here: it is in its turn, after what a worker may hold.
        gone, _rows = row.delete()
        if not gone:
            raise Refused(_("The subscription was deleted meanwhile."))


def disable(subscription: Subscription, actor: Actor, *, reason: str = "", version: int | None = None) -> bool:
    """Turn off; False where it already was. The operator's word stands over a member's."""
    by = Subscription.DisabledBy.OPERATOR if actor.as_operator else Subscription.DisabledBy.MEMBER
    reason = reason.strip() or _("A member turned it off.")
    if len(reason) > LONGEST_REASON:
        raise ValidationError({"reason": _("Write at most %(most)s characters.") % {"most": LONGEST_REASON}})
    with transaction.atomic(using=home()):
        row = _locked(subscription)
        _check_seen(row, version)
        if not row.disable(reason=reason, by=by):
            return False
        note(actor, Action.SUBSCRIPTION_DISABLED, tenant=row.tenant, about=row, reason=reason)
    return True


def enable(subscription: Subscription, actor: Actor, *, version: int | None = None) -> bool:
    """Turn on again; False where it already was. Nobody undoes the operator but the operator."""
    with transaction.atomic(using=home()):
        _hold(subscription.tenant_id)
        row = _locked(subscription)
        _check_seen(row, version)
        if row.enabled:
            return False
        if reason := keeps_off(row, as_operator=actor.as_operator):
            raise Refused(reason)
        row.enable()
        note(actor, Action.SUBSCRIPTION_ENABLED, tenant=row.tenant, about=row)
    return True


def no_room(tenant: Tenant) -> str:
    """Why it cannot have one more subscription; empty where it can."""
    if tenant.disabled_at:
        told = _("The operator turned webhooks off for this tenant: %(reason)s")
        return told % {"reason": tenant.disabled_reason}
    limit = conf.subscription_limit
    if Subscription.objects.using(home()).for_tenant(tenant).count() < limit:
        return ""
    told = ngettext(
        "This tenant may have %(limit)s subscription, and has it. Delete it first, or give it more topics.",
        "This tenant may have %(limit)s subscriptions, and has them all. Delete one first, or give one more topics.",
        limit,
    )
    return told % {"limit": formats.number_format(limit, force_grouping=True)}


def keeps_off(subscription: Subscription, *, as_operator: bool = False) -> str:
    """Why it cannot be turned on; empty where it can."""
    if subscription.tenant.disabled_at:
        told = _("The operator turned webhooks off for this tenant: %(reason)s")
        return told % {"reason": subscription.tenant.disabled_reason}
    if as_operator:
        return ""
    if subscription.disabled_by in {Subscription.DisabledBy.OPERATOR, Subscription.DisabledBy.TENANT}:
        return _("The operator turned this subscription off, and only the operator turns it on again: %(reason)s") % {
            "reason": subscription.disabled_reason
        }
    return ""


def rotate(subscription: Subscription, actor: Actor, *, version: int | None = None) -> str:
    """A new secret; those before it go on signing beside it for a day."""
    with transaction.atomic(using=home()):
        row = _locked(subscription)
        _check_seen(row, version)
        ends = sorted(end for end in row.secrets.using(home()).live().values_list("expires_at", flat=True) if end)
        if len(ends) >= MOST_SECRETS - 1:
            when = formats.date_format(ends[0], "DATETIME_FORMAT")
            raise Refused(_("As many secrets sign as may at once. Rotate again after %(when)s UTC.") % {"when": when})
        secret = row.rotate_secret()
        note(actor, Action.SECRET_ROTATED, tenant=row.tenant, about=row)
    return secret


def reveal(subscription: Subscription, actor: Actor) -> list[Secret]:
    """Those that sign, the newest first; `.value` is what the receiver needs."""
    with transaction.atomic(using=home()):
        row = _locked(subscription)
        live = list(row.secrets.using(home()).live())
        try:
            for secret in live:
                secret.value  # noqa: B018 - whether a key opens it shows when it is read
        except ValueError:
            raise Refused(
                _("The secret cannot be read any more. Rotate it, and give the new one to the receiver.")
            ) from None
        note(actor, Action.SECRET_REVEALED, tenant=row.tenant, about=row)
    return live


def topics_of(subscription: Subscription) -> dict[str, list[str]]:
    """Pattern → the fields one of which must have changed; none: any change."""
    found: dict[str, list[str]] = {}
    unlimited = set()
    for name, field in sorted((topic.name, topic.field) for topic in _topics(subscription)):
        fields = found.setdefault(name, [])
        if field:
            fields.append(field)
        else:
            unlimited.add(name)
    return {name: [] if name in unlimited else fields for name, fields in found.items()}


def _topics(subscription: Subscription) -> Iterable[Topic]:
    """As they were fetched with it; or from where they are written, as a replica lags."""
    fetched = "topics" in getattr(subscription, "_prefetched_objects_cache", ())
    return subscription.topics.all() if fetched else subscription.topics.using(home())


def _hold(tenant: int) -> None:
    """So that it is not turned off meanwhile. Before its subscriptions, as whoever turns it off does."""
    list(Tenant.objects.using(home()).select_for_update(no_key=True).filter(pk=tenant).values_list("pk"))


def _locked(subscription: Subscription) -> Subscription:
    """As it stands now, until the end of the transaction."""
    rows = Subscription.objects.using(home()).select_related("tenant").filter(pk=subscription.pk)
    row: Subscription | None = rows.select_for_update(no_key=True, of=("self",)).first()
    if row is None:
        raise Refused(_("The subscription was deleted meanwhile."))
    return row


def _check_seen(row: Subscription, version: int | None) -> None:
    """Under its lock, so that nobody changes it in between."""
    if version not in {None, row.version}:
        raise StaleError(row)


def _check_new(tenant: Tenant, made_by: UUID) -> None:
    made = Subscription.objects.using(home()).for_tenant(tenant).filter(made_by=made_by).first()
    if made is not None:
        raise MadeAlready(made)


def _check_room(tenant: Tenant) -> None:
    """While the tenant is held, so that two at once do not both take the last place."""
    if reason := no_room(Tenant.objects.using(home()).get(pk=tenant.pk)):
        raise Refused(reason)


Pair = tuple[str, str]


def _checked(subscription: Subscription, topics: Mapping[str, Iterable[str]], *, had: frozenset[Pair]) -> list[Pair]:
    """The rows that `topics` means; ValidationError by field for all that is wrong."""
    errors: dict[str, Any] = {}
    try:
        subscription.full_clean(exclude=["tenant"])
    except ValidationError as error:
        errors.update(error.error_dict)
    wanted = _pairs(topics)
    if wrong := _wrong_topics(wanted, had=had):
        errors["topics"] = wrong
    if errors:
        raise ValidationError(errors)
    return wanted


def _pairs(topics: Mapping[str, Iterable[str]]) -> list[Pair]:
    return [(name, field) for name, fields in topics.items() for field in dict.fromkeys(fields) or ("",)]


def _wrong_topics(wanted: list[Pair], *, had: frozenset[Pair]) -> list[ValidationError]:
    if not wanted:
        return [ValidationError(_("Choose at least one topic."), code="none")]
    if len(wanted) > MOST_TOPICS:
        told = _("Choose at most %(most)s topics, or use a pattern such as shop.*.")
        return [ValidationError(told % {"most": formats.number_format(MOST_TOPICS, force_grouping=True)}, code="many")]
    fields = {entry.topic("updated"): changing(entry) for entry in catalog.entries().values()}
    return [error for pair in wanted if pair not in had for error in _wrong_topic(*pair, known=fields)]


def _wrong_topic(name: str, field: str, *, known: Mapping[str, tuple[str, ...]]) -> list[ValidationError]:
    try:
        Topic(name=name, field=field).full_clean(exclude=["subscription"], validate_unique=False)
    except ValidationError as error:
        return [ValidationError(f"{name[:200]}: {message}") for message in error.messages]
    if field and name in known and field not in known[name]:
        told = _("%(topic)s says of no change of %(field)s; it does of %(fields)s.")
        values = {"topic": name, "field": field, "fields": ", ".join(known[name]) or _("none")}
        return [ValidationError(told % values)]
    return []


def _listen(subscription: Subscription, pairs: Iterable[Pair]) -> None:
    rows = [Topic(subscription=subscription, name=name, field=field) for name, field in pairs]
    if rows:
        Topic.objects.using(home()).bulk_create(rows)


def _differences(row: Subscription, *, before: Mapping[str, Any]) -> dict[str, Any]:
    """From → to, of a URL only the host: its path and query may be secrets."""
    found: dict[str, Any] = {
        word: {"from": before[field], "to": getattr(row, field)}
        for word, field in (("called", "name"), ("rate_limit", "rate_limit"))
        if before[field] != getattr(row, field)
    }
    if before["url"] != row.url:
        found["url"] = {"from": before["host"], "to": row.host}
    return found


def _written(pairs: Iterable[Pair]) -> list[str]:
    return [f"{name} ({field})" if field else name for name, field in pairs]

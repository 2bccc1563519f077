"""Subscriptions: all that their pages can do to them. What else belongs to one,
its traffic, webhooks/api adds."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.db.models import Prefetch, Q
from django.http import Http404
from django.utils.translation import gettext as _now
from django.utils.translation import gettext_lazy as _
from rest_framework import serializers
from rest_framework.response import Response

from subscriptions import addresses, edits
from subscriptions import keys as rules
from subscriptions.api import etags, fields
from subscriptions.api.describing import IF_MATCH, IF_NONE_MATCH, described, listed, only
from subscriptions.api.fields import longest, rfc3339
from subscriptions.api.paging import PAGING, TIMES, Parameter, created, page
from subscriptions.api.problems import Fault, Problem
from subscriptions.api.views import WRITE, ApiView
from subscriptions.models import HIGHEST_RATE, Subscription, Topic, home

if TYPE_CHECKING:
    from rest_framework.request import Request

    from subscriptions.models import Secret, SubscriptionQuerySet

TRUTHS = ("true", "false")
REPLAYED = "Idempotency-Replayed"
IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    _("A name of the request's own: sent again, it gets what was made the first time, and makes nothing."),
    {"type": "string", "minLength": 1, "maxLength": 255},
)
# Makes a UUID of it.
NAMESPACE = uuid.UUID("5d2c1b60-6d3b-4a0e-9a55-0f4c8be0f6a1")
PRINTABLE = re.compile(r"[\x20-\x7e]{1,255}")
SEARCH = Parameter(
    "q",
    _("Only those with this in their name, or, with the scope `write`, in their URL."),
    {"type": "string", "maxLength": 200},
)
ENABLED = Parameter("enabled", _("Only those that are on, or off."), {"type": "string", "enum": list(TRUTHS)})
TOPIC = Parameter("topic", _("Only those that name this topic or pattern."))


class WantedTopic(fields.Strict):
    name = fields.Text(
        max_length=longest(Topic, "name"),
        help_text=_("A topic, or a pattern such as `shop.order.*` or `*`."),
    )
    changed = fields.Many(
        child=fields.Text(max_length=longest(Topic, "field")),
        max_length=edits.MOST_TOPICS,
        required=False,
        help_text=_("Of a topic that ends in .updated: only when one of these fields changed."),
    )


class WantedSubscription(fields.Strict):
    url = fields.Text(max_length=longest(Subscription, "url"), help_text=_("Where events are sent, by POST."))
    topics = fields.Many(child=WantedTopic(), min_length=1, max_length=edits.MOST_TOPICS)
    name = fields.Text(max_length=longest(Subscription, "name"), allow_blank=True, required=False)
    rate_limit = fields.Whole(
        min_value=1,
        max_value=HIGHEST_RATE,
        allow_null=True,
        required=False,
        help_text=_("Requests per second at most; null: as many as there are."),
    )


class Reason(fields.Strict):
    reason = fields.Text(max_length=longest(Subscription, "disabled_reason"), allow_blank=True, required=False)


class HeardTopic(serializers.Serializer[Any]):
    name = serializers.CharField()
    changed = serializers.ListField(child=serializers.CharField(), help_text=_("Empty: any change."))


class SubscriptionShape(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    name = serializers.CharField(allow_blank=True)
    url = serializers.CharField(help_text=_("To keys without `write`, without the values of its query."))
    topics = HeardTopic(many=True)
    rate_limit = serializers.IntegerField(allow_null=True)
    enabled = serializers.BooleanField()
    disabled_at = fields.Moment(allow_null=True)
    disabled_by = serializers.ChoiceField(Subscription.DisabledBy.values, allow_null=True)
    disabled_reason = serializers.CharField(allow_null=True)
    created_at = fields.Moment()
    version = serializers.IntegerField(help_text=_("Counts the changes; the `ETag` is made of it."))


class MadeSubscriptionShape(SubscriptionShape):
    secret = serializers.CharField(help_text=_("Verifies what is sent; also at …/secrets/."))


class SecretShape(serializers.Serializer[Any]):
    secret = serializers.CharField()
    created_at = fields.Moment()
    expires_at = fields.Moment(allow_null=True, help_text=_("Null for the newest."))


class SecretsShape(serializers.Serializer[Any]):
    data = SecretShape(many=True)  # type: ignore[assignment]


EXAMPLE = {
    "url": "https://billing.example/hooks",
    "name": "Billing",
    "topics": [{"name": "shop.order.updated", "changed": ["status"]}, {"name": "shop.customer.*"}],
}
ANSWER: dict[str, Any] = {
    "id": 12,
    "name": "Billing",
    "url": "https://billing.example/hooks",
    "topics": [
        {"name": "shop.customer.*", "changed": []},
        {"name": "shop.order.updated", "changed": ["status"]},
    ],
    "rate_limit": None,
    "enabled": True,
    "disabled_at": None,
    "disabled_by": None,
    "disabled_reason": None,
    "created_at": "2026-11-21T09:30:00.123Z",
    "version": 1,
}
SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"  # noqa: S105 - the specification's example
OFF = {
    **ANSWER,
    "enabled": False,
    "disabled_at": "2026-11-22T09:30:00.123Z",
    "disabled_by": "member",
    "disabled_reason": "A member turned it off.",
    "version": 2,
}


class SubscriptionView(ApiView):
    """What is at hand where the address names one."""

    def rows(self) -> SubscriptionQuerySet:
        return Subscription.objects.using(home()).for_tenant(self.tenant).select_related("tenant")

    def found(self, pk: int) -> Subscription:
        row: Subscription | None = self.rows().filter(pk=pk).first()
        if row is None:
            raise Http404
        return row

    @property
    def whole(self) -> bool:
        """Whether the key sees what a URL's query says, where receivers like to have a token."""
        return rules.may(self.caller.key, WRITE)

    def written(self, row: Subscription) -> dict[str, Any]:
        return written(row, whole=self.whole)

    def answer(self, row: Subscription) -> Response:
        return Response(self.written(row), headers={"ETag": etags.tag(row.version)})


class SubscriptionList(SubscriptionView):
    parameters = {"GET": (*PAGING, *TIMES, SEARCH, ENABLED, TOPIC)}

    @described(
        "list_subscriptions",
        _("List subscriptions, the newest first"),
        gives=listed(SubscriptionShape),
        problems=("bad_cursor",),
        answer=only(ANSWER),
    )
    def get(self, request: Request) -> Response:
        topics = Prefetch("topics", Topic.objects.using(home()).order_by("pk"))
        rows = created(request, self._filtered(self.rows()))
        return page(request, rows.prefetch_related(topics), self.written)

    @described(
        "create_subscription",
        _("Create a subscription"),
        about=_("The answer holds the secret by which the receiver verifies what it gets."),
        takes=WantedSubscription,
        gives=MadeSubscriptionShape,
        status=201,
        problems=("refused", "idempotency_mismatch"),
        headers=(IDEMPOTENCY_KEY,),
        example=EXAMPLE,
        answer={**ANSWER, "secret": SECRET},
    )
    def post(self, request: Request) -> Response:
        wanted = self.read(WantedSubscription)
        wanted["topics"] = _topics(wanted["topics"])
        headers = {"Cache-Control": "no-store"}
        try:
            row, secret = edits.create(self.tenant, self.actor, made_by=_made_by(request), **wanted)
        except edits.MadeAlready as error:
            row, secret = self._once_more(error.subscription, wanted)
            headers[REPLAYED] = "true"
        headers["ETag"] = etags.tag(row.version)
        return Response({**self.written(row), "secret": secret}, status=201, headers=headers)

    def _once_more(self, made: Subscription, wanted: dict[str, Any]) -> tuple[Subscription, str]:
        """The first answer again, if it still is what is asked for."""
        asked = {"name": "", "rate_limit": None, **wanted}
        asked["topics"] = {name: sorted(set(changed)) for name, changed in wanted["topics"].items()}
        if asked != _values(made):
            told = _now("The subscription %(id)s was made by this key, and is not what is asked for now.")
            raise Problem("idempotency_mismatch", told % {"id": made.pk})
        newest = edits.reveal(made, self.actor)[0]
        return made, newest.value

    def _filtered(self, rows: SubscriptionQuerySet) -> SubscriptionQuerySet:
        query = self.request.query_params
        if search := query.get(SEARCH.name, ""):
            # Nobody finds out by searching what they may not see.
            in_url = Q(url__icontains=search) if self.whole else Q()
            rows = rows.filter(Q(name__icontains=search) | in_url)
        if enabled := query.get(ENABLED.name):
            rows = rows.filter(disabled_at__isnull=enabled == "true")
        return rows.filter(topics__name=query[TOPIC.name]).distinct() if TOPIC.name in query else rows


class SubscriptionDetail(SubscriptionView):
    @described(
        "get_subscription",
        _("Get a subscription"),
        gives=SubscriptionShape,
        also={304: _("It still is at the version that If-None-Match names")},
        headers=(IF_NONE_MATCH,),
        answer=ANSWER,
    )
    def get(self, request: Request, pk: int) -> Response:
        row = self.found(pk)
        if etags.is_known(request, row.version):
            return Response(status=304, headers={"ETag": etags.tag(row.version)})
        return self.answer(row)

    @described(
        "change_subscription",
        _("Change a subscription"),
        about=_("What is left out stays as it is. `topics` takes the place of all there were."),
        takes=WantedSubscription,
        gives=SubscriptionShape,
        problems=("refused", "stale"),
        headers=(IF_MATCH,),
        example={"topics": [{"name": "shop.order.*"}]},
        answer={**ANSWER, "topics": [{"name": "shop.order.*", "changed": []}], "version": 2},
    )
    def patch(self, request: Request, pk: int) -> Response:
        wanted = self.read(WantedSubscription, partial=True)
        if "topics" in wanted:
            wanted["topics"] = _topics(wanted["topics"])
        with transaction.atomic(using=home()):
            # Under the lock, so that what is left out is what it then is.
            list(self.rows().filter(pk=pk).select_for_update(no_key=True, of=("self",)).values_list("pk"))
            row = self.found(pk)
            seen = etags.seen(request)
            version = row.version if seen is None else seen
            row = edits.change(row, self.actor, version=version, **{**_values(row), **wanted})
        return self.answer(self.found(row.pk))


class SubscriptionEnable(SubscriptionView):
    @described(
        "enable_subscription",
        _("Turn a subscription on"),
        about=_("What happened while it was off is not sent."),
        takes=fields.Nothing,
        gives=SubscriptionShape,
        problems=("refused", "stale"),
        headers=(IF_MATCH,),
        answer={**ANSWER, "version": 3},
    )
    def post(self, request: Request, pk: int) -> Response:
        self.read(fields.Nothing)
        edits.enable(self.found(pk), self.actor, version=etags.seen(request))
        return self.answer(self.found(pk))


class SubscriptionDisable(SubscriptionView):
    @described(
        "disable_subscription",
        _("Turn a subscription off"),
        takes=Reason,
        gives=SubscriptionShape,
        problems=("refused", "stale"),
        headers=(IF_MATCH,),
        example={"reason": "The receiver moves."},
        answer={**OFF, "disabled_reason": "The receiver moves."},
    )
    def post(self, request: Request, pk: int) -> Response:
        wanted = self.read(Reason)
        edits.disable(self.found(pk), self.actor, version=etags.seen(request), **wanted)
        return self.answer(self.found(pk))


class SubscriptionSecrets(SubscriptionView):
    scopes = {"GET": WRITE, "HEAD": WRITE}

    @described(
        "reveal_secrets",
        _("Reveal the secrets that sign, the newest first"),
        about=_("The audit log says that they were revealed."),
        gives=SecretsShape,
        problems=("refused",),
        answer={"data": [{"secret": SECRET, "created_at": "2026-11-21T09:30:00.123Z", "expires_at": None}]},
    )
    def get(self, request: Request, pk: int) -> Response:
        return _secrets(edits.reveal(self.found(pk), self.actor))


class SubscriptionRotate(SubscriptionView):
    @described(
        "rotate_secret",
        _("Make a new secret"),
        about=_("Those before it go on signing beside it for 24 hours, each in the same header."),
        takes=fields.Nothing,
        gives=SecretsShape,
        problems=("refused", "stale"),
        headers=(IF_MATCH,),
        answer={"data": [{"secret": SECRET, "created_at": "2026-11-21T09:30:00.123Z", "expires_at": None}]},
    )
    def post(self, request: Request, pk: int) -> Response:
        self.read(fields.Nothing)
        row = self.found(pk)
        edits.rotate(row, self.actor, version=etags.seen(request))
        return _secrets([row.secrets.using(home()).live()[0]])


def written(row: Subscription, *, whole: bool) -> dict[str, Any]:
    return {
        "id": row.pk,
        "name": row.name,
        "url": row.url if whole else addresses.without_values(row.url),
        "topics": [{"name": name, "changed": changed} for name, changed in edits.topics_of(row).items()],
        "rate_limit": row.rate_limit,
        "enabled": row.enabled,
        "disabled_at": rfc3339(row.disabled_at),
        "disabled_by": row.disabled_by or None,
        "disabled_reason": row.disabled_reason or None,
        "created_at": rfc3339(row.created_at),
        "version": row.version,
    }


def _secrets(rows: list[Secret]) -> Response:
    data = [
        {"secret": row.value, "created_at": rfc3339(row.created_at), "expires_at": rfc3339(row.expires_at)}
        for row in rows
    ]
    return Response({"data": data}, headers={"Cache-Control": "no-store"})


def _made_by(request: Request) -> uuid.UUID | None:
    text = request.headers.get(IDEMPOTENCY_KEY.name)
    if text is None:
        return None
    if not PRINTABLE.fullmatch(text):
        raise Problem(
            "invalid", errors=[Fault(IDEMPOTENCY_KEY.name, _now("Send 1 to 255 printable ASCII characters."))]
        )
    return uuid.uuid5(NAMESPACE, text)


def _topics(wanted: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Named twice, a topic means the fields of both; or any change, if one does."""
    found: dict[str, list[str]] = {}
    for each in wanted:
        before, more = found.get(each["name"]), list(each.get("changed", ()))
        found[each["name"]] = [] if before == [] or not more else [*(before or ()), *more]
    return found


def _values(row: Subscription) -> dict[str, Any]:
    return {"name": row.name, "url": row.url, "topics": edits.topics_of(row), "rate_limit": row.rate_limit}

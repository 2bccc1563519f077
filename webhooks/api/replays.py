"""Bulk replays: counted before, started, watched, cancelled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

from django.db.models import Exists, OuterRef
from django.utils.translation import gettext_lazy as _
from rest_framework import serializers
from rest_framework.response import Response

from subscriptions.api import paging
from subscriptions.api.describing import described, listed, only
from subscriptions.api.fields import Choice, Moment, Nothing, Strict, Text, Truth, Whole, refused, rfc3339
from subscriptions.api.paging import PAGING
from subscriptions.api.problems import Problem
from subscriptions.api.views import READ, ApiView
from subscriptions.models import home
from webhooks import replays as rules
from webhooks.api import drafts, rows
from webhooks.api.deliveries import filters
from webhooks.api.events import IDEMPOTENCY_KEY, REPLAYED
from webhooks.filters import HIGHEST_KEY
from webhooks.models import Delivery, Replay

if TYPE_CHECKING:
    from datetime import datetime

    from rest_framework.request import Request

Kind = Replay.Kind
QUEUEING, SENDING, DONE, CANCELLING, CANCELLED = "queueing", "sending", "done", "cancelling", "cancelled"

REPLAY = {
    "id": 4,
    "kind": "failed",
    "state": "sending",
    "subscription": 3,
    "since": "2026-11-20T09:30:00.000Z",
    "until": "2026-11-21T09:30:00.000Z",
    "filters": {},
    "expected": 14,
    "queued": 14,
    "taken_back": 0,
    "by": "Billing server (sp_live_Zk3q…)",
    "created_at": "2026-11-21T09:30:00.000Z",
    "settled_at": "2026-11-21T09:30:00.310Z",
    "cancelled_at": None,
}
ASKED = {"kind": "failed", "subscription": 3, "since": "2026-11-20T09:30:00Z"}
PROGRESS = {"total": 14, "delivered": 9, "failed": 1, "open": 4, "elsewhere": 0, "going_on": True}


class FiltersShape(Strict):
    """As the parameters of the list of deliveries."""

    status = Choice(Delivery.Status.choices, required=False)
    topic = Text(required=False)
    subscription = Whole(required=False, min_value=1, max_value=HIGHEST_KEY)
    event = Text(required=False)
    created_after = Moment(required=False)
    created_before = Moment(required=False)


class WishShape(Strict):
    kind = Choice(
        Kind.choices,
        help_text=_("failed: what failed; filtered: what the filters match; missed: what was never sent."),
    )
    subscription = Whole(
        required=False, allow_null=True, min_value=1, max_value=HIGHEST_KEY, help_text=_("Null: all of them.")
    )
    since = Moment(required=False, allow_null=True, help_text=_("Of what failed, by when it was given up."))
    filters = FiltersShape(required=False, help_text=_("Only with the kind `filtered`."))


class StartShape(WishShape):
    enable = Truth(required=False, help_text=_("Turn the subscription on first."))


class NumberShape(serializers.Serializer[Any]):
    number = serializers.IntegerField()
    exact = serializers.BooleanField(help_text=_("False: there are more, and nobody counted them all."))


class ReplayShape(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    kind = serializers.ChoiceField(Kind.choices)
    state = serializers.ChoiceField([QUEUEING, SENDING, DONE, CANCELLING, CANCELLED])
    subscription = serializers.IntegerField(allow_null=True)
    since = Moment(allow_null=True)
    until = Moment()
    filters = serializers.DictField()
    expected = serializers.IntegerField(allow_null=True, help_text=_("How many there were; null where nobody counted."))
    queued = serializers.IntegerField()
    taken_back = serializers.IntegerField()
    by = serializers.CharField()
    created_at = Moment()
    settled_at = Moment(allow_null=True, help_text=_("Since when all of it is queued, or taken back."))
    cancelled_at = Moment(allow_null=True)


class ProgressShape(serializers.Serializer[Any]):
    total = serializers.IntegerField(allow_null=True)
    delivered = serializers.IntegerField()
    failed = serializers.IntegerField()
    open = serializers.IntegerField()
    elsewhere = serializers.IntegerField(help_text=_("Cancelled, or part of a later replay."))
    going_on = serializers.BooleanField()


class ReplayDetailShape(ReplayShape):
    progress = ProgressShape()


class ReplayList(ApiView):
    parameters = {"GET": PAGING}

    @described(
        "list_replays", _("List replays"), gives=listed(ReplayShape), answer=only(REPLAY), problems=("bad_cursor",)
    )
    def get(self, request: Request) -> Response:
        waiting = Delivery.objects.using(home()).open().filter(replay=OuterRef("pk"))
        found = Replay.objects.using(home()).for_tenant(self.tenant).annotate(waits=Exists(waiting))
        return paging.page(request, found, lambda row: written(row, waits=row.waits))  # type: ignore[attr-defined]

    @described(
        "start_replay",
        _("Start a replay"),
        about=_("Workers carry it out; what `replays/count/` gives is what it means now."),
        takes=StartShape,
        gives=ReplayDetailShape,
        status=202,
        headers=(IDEMPOTENCY_KEY,),
        problems=("refused", "idempotency_mismatch"),
        example=ASKED,
        answer={**REPLAY, "progress": PROGRESS},
    )
    def post(self, request: Request) -> Response:
        asked = self.read(StartShape)
        key = drafts.key(self)
        wish = _wish(self, asked)
        started = rules.start(
            wish,
            by=self.actor,
            enable=asked.get("enable", False),
            token=uuid5(NAMESPACE_URL, f"{self.caller.key.pk} {key}") if key else None,
        )
        if _asked(started) != _asked(wish):
            raise Problem("idempotency_mismatch")
        headers = None if started is wish else {REPLAYED: "true"}
        return Response(_detail(rows.replay(self.tenant, started.pk)), status=202, headers=headers)


class ReplayCount(ApiView):
    # It changes nothing; what is meant is too long for a query.
    scopes = {"POST": READ}

    @described(
        "count_replay",
        _("Count what a replay would send"),
        takes=WishShape,
        gives=NumberShape,
        problems=("refused",),
        example=ASKED,
        answer={"number": 14, "exact": True},
    )
    def post(self, request: Request) -> Response:
        found = rules.count(_wish(self, self.read(WishShape)))
        return Response({"number": found.number, "exact": found.exact})


class ReplayDetail(ApiView):
    @described(
        "get_replay",
        _("Get a replay with its progress"),
        gives=ReplayDetailShape,
        answer={**REPLAY, "progress": PROGRESS},
    )
    def get(self, request: Request, pk: int) -> Response:
        return Response(_detail(rows.replay(self.tenant, pk)))


class ReplayCancel(ApiView):
    @described(
        "cancel_replay",
        _("Cancel a replay"),
        about=_(
            "What is not attempted yet goes back to what it was. Where nothing is left to cancel, nothing happens."
        ),
        takes=Nothing,
        gives=ReplayDetailShape,
        status=202,
    )
    def post(self, request: Request, pk: int) -> Response:
        self.read(Nothing)
        rules.cancel(rows.replay(self.tenant, pk), by=self.actor)
        return Response(_detail(rows.replay(self.tenant, pk)), status=202)


def written(row: Replay, *, waits: bool) -> dict[str, Any]:
    return {
        "id": row.pk,
        "kind": row.kind,
        "state": _state(row, waits=waits),
        "subscription": row.subscription_id,
        "since": rfc3339(row.since),
        "until": rfc3339(row.until),
        "filters": _filters(row),
        "expected": row.expected,
        "queued": row.queued,
        "taken_back": row.taken_back,
        "by": row.by,
        "created_at": rfc3339(row.created_at),
        "settled_at": rfc3339(row.settled_at),
        "cancelled_at": rfc3339(row.cancelled_at),
    }


def _detail(row: Replay) -> dict[str, Any]:
    found = rules.progress(row)
    names = ("total", "delivered", "failed", "open", "elsewhere", "going_on")
    return {**written(row, waits=found.open > 0), "progress": {name: getattr(found, name) for name in names}}


def _state(row: Replay, *, waits: bool) -> str:
    if row.cancelled_at:
        return CANCELLED if row.settled_at else CANCELLING
    if not row.settled_at:
        return QUEUEING
    return SENDING if waits else DONE


def _filters(row: Replay) -> dict[str, Any]:
    """By the names of the API."""
    names = {"since": "created_after", "until": "created_before"}
    found = {names.get(name, name): value for name, value in row.filters.items()}
    if "subscription" in found:
        found["subscription"] = int(found["subscription"])
    return found


def _wish(view: ApiView, asked: dict[str, Any]) -> Replay:
    """Raises Http404 for a subscription of another tenant's."""
    number, since, given = asked.get("subscription"), asked.get("since"), asked.get("filters")
    if given is not None and asked["kind"] != Kind.FILTERED:
        raise refused("filters", _("Only a replay of the kind filtered has filters."))
    if since is not None and asked["kind"] == Kind.FILTERED:
        raise refused("since", _("Write created_after into the filters."))
    subscription = None if number is None else rows.subscription(view.tenant, number)
    chosen = None if given is None else _chosen(given)
    if chosen is not None and chosen.subscription is not None:
        rows.subscription(view.tenant, chosen.subscription)
    return rules.wish(view.tenant, asked["kind"], subscription=subscription, since=since, filters=chosen)


def _asked(replay: Replay) -> tuple[Any, ...]:
    """What makes two wishes the same."""
    return replay.kind, replay.subscription_id, replay.since, replay.filters


def _chosen(given: dict[str, Any]) -> Any:
    since: datetime | None = given.pop("created_after", None)
    until: datetime | None = given.pop("created_before", None)
    return filters(given, since=since, until=until, where="/filters/")

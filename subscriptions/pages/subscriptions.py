"""Create and edit a subscription."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from subscriptions import addresses, edits
from subscriptions.forms import SubscriptionForm, line, refusal_of
from subscriptions.models import AuditEntry, Role, Secret, Subscription
from subscriptions.pages.access import TenantRequest, page
from subscriptions.snippets import SNIPPETS
from subscriptions.trail import actor_of

if TYPE_CHECKING:
    from subscriptions.models import Tenant


@never_cache
@page(Role.DEVELOPER)
def create(request: TenantRequest) -> HttpResponse:
    data = request.POST if request.method == "POST" else None
    topic, target = (request.GET.get(name, "") for name in ("topic", "target"))
    form = SubscriptionForm(data, tenant=request.tenant, topic=topic, target=target)
    if request.method == "POST" and not _is_search(request, form) and form.is_valid():
        actor = actor_of(request)
        try:
            made = form.create(actor)
        except edits.MadeAlready as error:
            made = _once_more(form, error.subscription, request)
        if made:
            return _made(request, *made)
    return _form_page(request, form)


@never_cache
@page(Role.DEVELOPER)
def edit(request: TenantRequest, pk: int) -> HttpResponse:
    subscription = get_object_or_404(Subscription.objects.for_tenant(request.tenant), pk=pk)
    data = request.POST if request.method == "POST" else None
    form = SubscriptionForm(data, tenant=request.tenant, subscription=subscription)
    if not request.may(Role.DEVELOPER):
        form.initial["url"] = addresses.without_values(form.initial["url"])
    stale: dict[str, Any] = {}
    if data is not None and not _is_search(request, form) and form.is_valid():
        try:
            changed = form.change(actor_of(request))
        except edits.StaleError as error:
            changed, stale = None, _stale(form, error.now)
            form.see(error.now)
        if changed is not None:
            messages.success(request, _("Saved. It holds for what happens from now on."))
            return redirect("webhooks:subscription", request.tenant.slug, pk)
    return _form_page(request, form, **stale)


@require_POST
@page(Role.DEVELOPER)
def check(request: TenantRequest) -> HttpResponse:
    """Whether a URL may be one; it is looked at, and nothing is looked up. By
    POST, as a URL may hold a secret, and addresses of requests are logged."""
    url = request.POST.get("url", "").strip()
    said = {"refused": refusal_of(url), "host": Subscription(url=url).host}
    return render(request, "subscriptions/url_said.html", said if url else {})


def _is_search(request: TenantRequest, form: SubscriptionForm) -> bool:
    """Without scripts the search is a button of the form, so that what was
    typed and ticked stays."""
    if "find" not in request.POST:
        return False
    form.look_only()
    return True


def _form_page(request: TenantRequest, form: SubscriptionForm, **more: Any) -> HttpResponse:
    words = (request.POST if request.method == "POST" else request.GET).get("q", "")
    context = {
        "section": "overview",
        "form": form,
        "grid": form.drawn(words.strip()),
        "subscription": form.subscription,
        "sample": form.first(),
        "full": "" if form.subscription else edits.no_room(request.tenant),
        "may_save": request.may(Role.DEVELOPER),
        **more,
    }
    return render(request, "subscriptions/edit.html", context)


def _made(request: TenantRequest, subscription: Subscription, secret: str) -> HttpResponse:
    """The secret is in this answer and nowhere else: a redirect would have to
    keep it in a session or a cookie."""
    context = {
        "section": "overview",
        "subscription": subscription,
        "secret": secret,
        "snippets": SNIPPETS,
    }
    return render(request, "subscriptions/made.html", context)


def _once_more(form: SubscriptionForm, made: Subscription, request: TenantRequest) -> tuple[Subscription, str] | None:
    """The same request again, as a double click sends it, has the same answer;
    a form that was changed since asks whether another one is meant."""
    asked = form.cleaned_data
    if (made.name, made.url, edits.topics_of(made)) == (asked["name"], asked["url"], _sorted(form.wanted())):
        try:
            newest: Secret = edits.reveal(made, actor_of(request))[0]
        except edits.Refused as error:
            form.add_error(None, str(error))
            return None
        return made, newest.value
    form.ask_again()
    told = _("This form has already made the subscription %(name)s. Save again to make another one.")
    form.add_error(None, told % {"name": made.name or made.host})
    return None


def _sorted(wanted: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: sorted(set(fields)) for name, fields in wanted.items()}


def _stale(form: SubscriptionForm, now: Subscription) -> dict[str, Any]:
    """Who changed it meanwhile, and how what it is now differs from what was typed."""
    typed, wanted = form.cleaned_data, edits.topics_of(now)
    pairs = [
        (form["url"].label, _("the built-in inbox") if now.is_inbox else now.url, now.url == typed["url"]),
        (form["name"].label, now.name, now.name == typed["name"]),
        (form["rate_limit"].label, now.rate_limit, now.rate_limit == typed["rate_limit"]),
        (
            form["topics"].label,
            ", ".join(line(name, fields) for name, fields in wanted.items()),
            wanted == _sorted(form.wanted()),
        ),
    ]
    differ = [(label, shown) for label, shown, same in pairs if not same]
    return {"stale": True, "differ": differ, "last": _last_change(form.tenant, now)}


def _last_change(tenant: Tenant, subscription: Subscription) -> AuditEntry | None:
    entries = AuditEntry.objects.for_tenant(tenant).filter(kind="subscription", number=str(subscription.pk))
    return entries.filter(action__in=CHANGES).first()


CHANGES = [
    AuditEntry.Action.SUBSCRIPTION_CHANGED,
    AuditEntry.Action.SUBSCRIPTION_ENABLED,
    AuditEntry.Action.SUBSCRIPTION_DISABLED,
]

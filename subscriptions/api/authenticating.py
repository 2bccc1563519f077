"""Who asks: a program with an API key, and no browser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.utils.translation import gettext as _
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed

from subscriptions import keys
from subscriptions.models import ApiKey
from subscriptions.trail import address_of

if TYPE_CHECKING:
    from rest_framework.request import Request

    from subscriptions.models import Tenant
    from subscriptions.trail import Actor


@dataclass(frozen=True, slots=True)
class Caller:
    """`tenant` is None for a key of the operator's."""

    key: ApiKey
    actor: Actor

    is_authenticated = True

    @property
    def tenant(self) -> Tenant | None:
        return self.key.tenant

    @property
    def is_test(self) -> bool:
        return self.key.mode == ApiKey.Mode.TEST


class BearerAuthentication(BaseAuthentication):
    """A key that is unknown, expired, revoked or used from elsewhere is told
    from the others by nobody."""

    def authenticate(self, request: Request) -> tuple[Caller, ApiKey]:
        scheme, _space, value = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() != "bearer":
            raise AuthenticationFailed(_("Send a key: Authorization: Bearer sp_live_…"))
        address = address_of(request._request)
        key = keys.authenticate(value.strip(), address)
        if key is None:
            raise AuthenticationFailed(
                _("This key is unknown, expired or revoked, or not used from an allowed network.")
            )
        return Caller(key, keys.actor_of(key, address)), key

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="api"'

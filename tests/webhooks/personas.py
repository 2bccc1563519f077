"""People who look at the pages: signed-in clients by their role."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.test import Client

from subscriptions.models import Membership

if TYPE_CHECKING:
    from subscriptions.models import Tenant

HTMX = {"HX-Request": "true"}


def sign_in(tenant: Tenant | None, role: str = "developer", *, name: str = "alice", **fields: Any) -> Client:
    """`name` with that role in the tenant; of no tenant where it is None."""
    user = get_user_model().objects.create_user(name, email=f"{name}@acme.example", **fields)
    if tenant is not None:
        Membership.objects.create(tenant=tenant, user=user, role=role)
    client = Client()
    client.force_login(user)
    return client


def text(response: Any) -> str:
    """The page, every run of blanks one blank."""
    return " ".join(response.content.decode().split())

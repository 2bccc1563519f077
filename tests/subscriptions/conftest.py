"""Personas: alice owns acme, bob is a member of it, charlie owns globex."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.contrib.auth.models import User
from django.test import Client

from subscriptions.models import Membership, Role, Tenant

if TYPE_CHECKING:
    from collections.abc import Callable

    Join = Callable[..., Membership]


@pytest.fixture
def join(db: None) -> Join:
    """`join(tenant, "alice", Role.OWNER)`: a person, made where there is none yet, and a member."""

    def make(tenant: Tenant, name: str, role: Role = Role.DEVELOPER) -> Membership:
        email = f"{name}@{tenant.slug}.example"
        user = User.objects.filter(username=name).first() or User.objects.create_user(name, email)
        return Membership.objects.create(tenant=tenant, user=user, role=role)

    return make


@pytest.fixture
def alice(tenant: Tenant, join: Join) -> User:
    return join(tenant, "alice", Role.OWNER).user


@pytest.fixture
def bob(tenant: Tenant, join: Join) -> User:
    return join(tenant, "bob", Role.DEVELOPER).user


@pytest.fixture
def charlie(make_tenant: Callable[..., Tenant], join: Join) -> User:
    return join(make_tenant("globex"), "charlie", Role.OWNER).user


@pytest.fixture
def browser() -> Callable[[User], Client]:
    """A browser in which somebody is signed in."""

    def sign_in(user: User) -> Client:
        client = Client()
        client.force_login(user)
        return client

    return sign_in

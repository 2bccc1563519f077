"""Keys of the personas' tenants: acme's, globex's and the operator's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.test import Client

from subscriptions.models import ApiKey

if TYPE_CHECKING:
    from collections.abc import Callable

    from subscriptions.models import Tenant

    MakeApi = Callable[..., "Api"]

EVERY = ["read", "write", "publish"]


class Api(Client):
    """What a program with a key sees: `api.post("keys/", {...}).json()`."""

    def __init__(self, value: str, key: ApiKey) -> None:
        super().__init__(headers={"Authorization": f"Bearer {value}"})
        self.value, self.key = value, key

    def post(self, path: str, data: Any = None, **kwargs: Any) -> Any:  # type: ignore[override]
        return super().post(_full(path), data, **{"content_type": "application/json", **kwargs})

    def get(self, path: str, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        return super().get(_full(path), *args, **kwargs)

    def patch(self, path: str, data: Any = None, **kwargs: Any) -> Any:  # type: ignore[override]
        return super().patch(_full(path), data, **{"content_type": "application/json", **kwargs})

    def delete(self, path: str, **kwargs: Any) -> Any:  # type: ignore[override]
        return super().delete(_full(path), **kwargs)


def _full(path: str) -> str:
    return path if path.startswith(("/", "http")) else f"/api/v1/{path}"


@pytest.fixture
def make_api(db: None) -> MakeApi:
    """`make_api(tenant, scopes=["read"], mode="test")`; without a tenant, the operator's."""

    def make(tenant: Tenant | None, *, scopes: list[str] | None = None, name: str = "Program", **fields: Any) -> Api:
        key = ApiKey(tenant=tenant, name=name, scopes=EVERY if scopes is None else scopes, **fields)
        value = key.fill()
        key.save()
        return Api(value, key)

    return make


@pytest.fixture
def api(tenant: Tenant, make_api: MakeApi) -> Api:
    """A key of acme's that may do what a tenant's key may."""
    return make_api(tenant)


@pytest.fixture
def charlies(make_tenant: Callable[..., Tenant], make_api: MakeApi) -> Api:
    """The same of globex's."""
    return make_api(make_tenant("globex"), name="Charlie's")


@pytest.fixture
def operator(make_api: MakeApi) -> Api:
    return make_api(None, scopes=[*EVERY, "operate"], name="Operations")

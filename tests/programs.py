"""Programs that ask the API with a key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.test import Client

if TYPE_CHECKING:
    from subscriptions.models import ApiKey

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

"""The OpenAPI 3.1 document: the routes, as they describe themselves, and under
`webhooks` the body of every topic, from the catalog."""

from __future__ import annotations

import copy
import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.utils.translation import gettext as _
from django.utils.translation import override
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.settings import patched_settings

from subscriptions import schemas
from subscriptions.api.describing import complete, shared
from subscriptions.api.topics import offered
from subscriptions.conf import conf
from subscriptions.models import Tenant
from webhooks import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

    from subscriptions.offers import Offer

Document = dict[str, Any]

URLS = "webhooks.api.urls"
ROOT = "/api/v1"
LICENSE = {"name": "MIT", "identifier": "MIT"}
# The host's own settings of drf-spectacular are another document's.
SETTINGS: dict[str, Any] = {
    "OAS_VERSION": "3.1.0",
    "SCHEMA_PATH_PREFIX": "",
    "SCHEMA_PATH_PREFIX_TRIM": False,
    "SCHEMA_PATH_PREFIX_INSERT": "",
    "COMPONENT_SPLIT_PATCH": True,
    "COMPONENT_SPLIT_REQUEST": False,
    "ENFORCE_NON_BLANK_FIELDS": True,
    "POSTPROCESSING_HOOKS": [],
    "PREPROCESSING_HOOKS": [],
    "SORT_OPERATIONS": False,
    "SORT_OPERATION_PARAMETERS": False,
    "CAMELIZE_NAMES": False,
    "SECURITY": [],
    "APPEND_PATHS": {},
    "EXTENSIONS_INFO": {},
    "EXTENSIONS_ROOT": {},
    "EXTERNAL_DOCS": {},
    "CONTACT": {},
    "TAGS": [],
    "WEBHOOKS": [],
    "SERVERS": [],
    "TITLE": "Signalpost",
    "VERSION": __version__,
    "LICENSE": LICENSE,
}
# Settings of drf-spectacular are of the process.
_one_at_a_time = threading.Lock()


def document(tenant: Tenant | None = None, *, root: str = ROOT) -> Document:
    """For `tenant`, with its topics; without one, with every topic there is."""
    found = copy.deepcopy(routes())
    found["servers"] = [{"url": root}]
    topics = offered(tenant or Tenant(slug=conf.operator_tenant))
    found["webhooks"] = {offer.topic: {"post": _webhook(offer)} for offer in topics}
    found["components"]["schemas"] |= {offer.topic: _body(offer) for offer in topics}
    found["components"]["parameters"] = _headers()
    return found


def routes() -> Document:
    """Without topics: what anybody may know."""
    # In the installation's language: one for each that a browser may ask for would be made anew all the time.
    with override(settings.LANGUAGE_CODE):
        return _routes(settings.LANGUAGE_CODE)


@lru_cache(maxsize=16)
def _routes(language: str | None) -> Document:
    words = {"DESCRIPTION": _about(), "APPEND_COMPONENTS": {"securitySchemes": {"key": _key()}}}
    with _one_at_a_time, patched_settings({**SETTINGS, **words}):
        kind: Any = SchemaGenerator
        generator = kind(urlconf=URLS)
        generator.coerce_path_pk = True  # whatever the host's setting says
        found: Document = generator.get_schema(public=True)
    for operation in _operations(found):
        complete(operation)
    for part, each in shared().items():
        found["components"].setdefault(part, {}).update(each)
    found["tags"] = [
        {"name": name} for name in dict.fromkeys(tag for each in _operations(found) for tag in each["tags"])
    ]
    return found


def _about() -> str:
    return _(
        "Subscriptions, events and deliveries of webhooks. Errors are RFC 9457 problems with a stable `code`. "
        "Under `webhooks` stands what your receiver gets."
    )


def _key() -> dict[str, Any]:
    return {"type": "http", "scheme": "bearer", "description": _("An API key, such as sp_live_…")}


def _operations(found: Document) -> Iterator[dict[str, Any]]:
    for path in found["paths"].values():
        yield from path.values()


# --- what is sent ---


def _webhook(offer: Offer) -> dict[str, Any]:
    return {
        "operationId": offer.topic.replace(".", "_"),
        "summary": str(offer.means) or offer.topic,
        "tags": ["webhooks"],
        "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in _headers()],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"$ref": f"#/components/schemas/{offer.topic}"},
                    "examples": {"body": {"value": schemas.example(_body(offer))}},
                }
            },
        },
        "responses": {
            "2XX": {"description": _("Delivered.")},
            "410": {"description": _("Not wanted any more: the subscription is turned off.")},
            "default": {"description": _("Failed: it is sent again, later.")},
        },
    }


def _body(offer: Offer) -> dict[str, Any]:
    return {name: value for name, value in offer.schema().items() if name != "$schema"}


def _headers() -> dict[str, Any]:
    told = {
        "webhook-id": _("The event's id: the same on every attempt and replay."),
        "webhook-timestamp": _("Seconds since 1970, of this attempt."),
        "webhook-signature": _("`v1,` and base64 of HMAC-SHA256 over `id.timestamp.body`; one for each live secret."),
    }
    return {
        name: {"name": name, "in": "header", "required": True, "description": about, "schema": {"type": "string"}}
        for name, about in told.items()
    }

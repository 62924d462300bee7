"""The OpenAPI document of the routes: served at `/openapi.json`, and written by `python -m streams.collect`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from streams.collect import auth, posthog, segment, snowplow, webhooks
from streams.collect.routes import FORM, JSON, Route
from streams.settings import CollectSettings

_OBJECT: Final = {"type": "object"}
_TEXT: Final = {"type": "string", "minLength": 1}
SECURITY: Final[dict[str, list[dict[str, list[str]]]]] = {
    "segment": [{"write_key": []}, {}],  # or in the body
    "posthog": [], "snowplow": [],  # in the body
    "hubspot": [{"hubspot": []}], "sendgrid": [{"sendgrid": []}], "events": [{"token": []}, {"signature": []}],
}  # fmt: skip
SCHEMES: Final = {
    "write_key": {"type": "http", "scheme": "basic", "description": "the write key as user, without a password"},
    "token": {"type": "http", "scheme": "bearer"},
    "signature": {"type": "apiKey", "in": "header", "name": auth.SIGNATURE, "description": "HMAC-SHA-256, hexadecimal,"
                  f" of `timestamp.body`; the timestamp, epoch seconds, goes into {auth.TIMESTAMP}"},
    "hubspot": {"type": "apiKey", "in": "header", "name": auth.HUBSPOT_SIGNATURE, "description": "with the time in"
                f" {auth.HUBSPOT_TIMESTAMP}, milliseconds"},
    "sendgrid": {"type": "apiKey", "in": "header", "name": auth.SENDGRID_SIGNATURE, "description": "with the time in"
                 f" {auth.SENDGRID_TIMESTAMP}, seconds"},
}  # fmt: skip
REFUSALS: Final = {
    "400": "The body cannot be read, or is none of what this path takes.",
    "401": "No key, token or signature, or none that we know, or a stale one.",
    "403": "Pages of this origin may not send (collect.cors_origins).",
    "405": "Another method is needed.",
    "408": "The body came too slowly.",
    "413": "A body, an event or a batch that is too large.",
    "415": "A content type or encoding that is not read here.",
    "429": "More events per second than one key may send; see Retry-After.",
    "503": "Kafka does not take it now, or the buffer is full; see Retry-After. Send it again.",
}


def document(routes: Sequence[Route], collect: CollectSettings) -> dict[str, Any]:
    """The document of these routes."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        for method in route.methods:
            paths.setdefault(route.path, {})[method.lower()] = _operation(route, method)
    for path, what in (("/healthz", "The process lives."), ("/readyz", "It can take events; 503 if not.")):
        states = {"200": _state(what)} | ({"503": _state("It waits for something.")} if path == "/readyz" else {})
        paths[path] = {"get": {"summary": what, "operationId": path[1:], "tags": ["probes"], "security": [],
                               "responses": states}}  # fmt: skip
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "trustwatch collect", "version": "1",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Webhooks and SDKs in, Kafka out. Success is told once Kafka has every event on all in-sync"
            " replicas; whatever else is told, send it again or mend it as `error` and `detail` say.",
        },
        "servers": [{"url": collect.public_url or "/"}],
        "paths": paths,
        "components": {
            "securitySchemes": SCHEMES,
            "schemas": {
                "Refusal": {"type": "object", "required": ["error", "detail"], "additionalProperties": False,
                            "properties": {"error": _TEXT, "detail": _TEXT}},
            },
        },
    }  # fmt: skip


def encoded(routes: Sequence[Route], collect: CollectSettings) -> bytes:
    """The document as JSON, for reading."""
    return msgspec.json.format(msgspec.json.encode(document(routes, collect)), indent=1) + b"\n"


def _operation(route: Route, method: str) -> dict[str, Any]:
    name = route.path.strip("/").replace("{key}", "key").replace("/", "_").replace(".", "_")
    made: dict[str, Any] = {"summary": route.summary, "operationId": f"{route.source}_{name}", "tags": [route.source]}
    made["security"] = SECURITY[route.source]
    parameters = _parameters(route)
    if parameters:
        made["parameters"] = parameters
    if method == "POST":
        schema = _body(route)
        made["requestBody"] = {"required": True, "content": {
            media: {"schema": schema if media != FORM else {"type": "object", "required": ["data"],
                    "properties": {"data": _TEXT}}} for media in route.media if media == JSON}}  # fmt: skip
    answer = {"schema": _OBJECT} if route.type == JSON else {"schema": {"type": "string"}}
    made["responses"] = {"200": {"description": "Kafka has it.", "content": {route.type: answer}}} | {
        status: _refusal(status, meaning) for status, meaning in REFUSALS.items()
    }
    return made


def _parameters(route: Route) -> list[dict[str, Any]]:
    if "{key}" in route.path:
        return [{"name": "key", "in": "path", "required": True, "schema": {**_TEXT, "maxLength": 200}}]
    if route.path == snowplow.PIXEL:
        kinds = {"type": "string", "enum": list(snowplow.EVENTS)}
        return [{"name": "e", "in": "query", "required": True, "schema": kinds},
                {"name": "aid", "in": "query", "required": True, "schema": _TEXT}]  # fmt: skip
    return []


def _body(route: Route) -> dict[str, Any]:  # noqa: PLR0911  (one a source)
    """What a path takes; not more strictly than it does."""
    batch = {"type": "array", "items": _OBJECT, "minItems": 1}
    if route.path in segment.BATCHES:
        calls = {"type": "object", "properties": {"batch": False}}
        return {"type": "object", "required": ["batch"], "properties": {"batch": {**batch, "items": calls}}}
    if route.path in segment.PATHS:
        return {"type": "object", "properties": {"batch": False}}
    if route.path in posthog.CAPTURES:
        keyed = {"api_key": _TEXT}
        one = {"type": "object", "required": ["api_key", "event"], "properties": {**keyed, "batch": False}}
        many = {"type": "object", "required": ["api_key", "batch"], "properties": {**keyed, "batch": batch}}
        return {"anyOf": [one, many]}
    if route.path == posthog.CAPTURE_V1:
        return {"type": "object", "required": ["api_key", "batch"], "properties": {"api_key": _TEXT, "batch": batch}}
    if route.path in posthog.FLAGS:
        return {"type": "object", "required": ["api_key"], "properties": {"api_key": _TEXT}}
    if route.path == snowplow.POST:
        kinds = [kind for kind in snowplow.EVENTS if kind != "ue"]  # that one asks for more than a schema can say
        unsaid = dict.fromkeys(("ue_pr", "ue_px", "co", "cx"), False)
        properties = {"e": {"type": "string", "enum": kinds}, "aid": _TEXT, **unsaid}
        item = {"type": "object", "required": ["e", "aid"], "properties": properties}
        return {"type": "object", "required": ["data"], "properties": {"data": {**batch, "items": item}}}
    if route.path in (webhooks.HUBSPOT, webhooks.SENDGRID):
        return batch
    if route.path == webhooks.EVENTS:
        return {"anyOf": [_OBJECT, batch]}
    return {}


def _refusal(status: str, meaning: str) -> dict[str, Any]:
    content = {JSON: {"schema": {"$ref": "#/components/schemas/Refusal"}}}
    said: dict[str, Any] = {"description": meaning, "content": content}
    if status in ("429", "503"):
        said["headers"] = {"Retry-After": {"schema": {"type": "string"}, "description": "seconds", "required": True}}
    return said


def _state(what: str) -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": ["waits_for"],
        "properties": {"waits_for": {"type": "array", "items": _TEXT}},
    }
    return {"description": what, "content": {JSON: {"schema": schema}}}

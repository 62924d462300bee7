"""Segment's HTTP tracking API, as its SDKs and RudderStack's call it.

Spec: "HTTP Tracking API Source" (the calls, their short names, basic authentication with the write key), and
"Timestamps in Segment": what arrives in `timestamp` is the device's clock; the receiver keeps it as `originalTimestamp`
and puts the corrected time in its place. Each call of a batch becomes a message of its own, with what the batch shares.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from streams.collect.asked import Asked, Message, Refused, a_dict, an_id, made_id
from streams.collect.auth import Keys, basic_user, missing
from streams.collect.times import corrected, epoch_s, in_calendar, iso

CALLS: Final = {"track": "t", "page": "p", "screen": "s", "identify": "i", "group": "g", "alias": "a"}
BEACON: Final = "/beacon/v1/batch"
"""RudderStack's, of a page that is left: a beacon has no headers, so the key is in the query."""
BATCHES: Final = ("/v1/batch", "/v1/b", "/v1/import", BEACON)
PATHS: Final = {f"/v1/{name}": call for call, short in CALLS.items() for name in (call, short)}
"""Path of a single call → its type."""
METRICS: Final = "/v1/m"
"""analytics.js tells here how it fares; nobody listens, but a browser would log an error."""
SETTINGS: Final = "/v1/projects/{key}/settings"
_encode = msgspec.json.Encoder().encode


def key_of(asked: Asked, keys: Keys, from_body: bool = True) -> int:
    """Number of the write key.

    Raises:
        Refused: 401.
    """
    shown = basic_user(asked.headers.get("Authorization", ""))
    if not shown and from_body:
        given = a_dict(asked.value).get("writeKey")
        shown = given if type(given) is str else asked.fields.get("writeKey")
    number = keys.find(shown) if shown else None
    if number is None:
        raise missing("a write key is needed: as user of basic authentication, or as writeKey in the body", "Basic")
    return number


def single(asked: Asked, call: str) -> list[Message]:
    """The message of a single call.

    Raises:
        Refused: 400, the body is no object.
    """
    body = asked.value
    if type(body) is not dict:
        raise Refused(400, "not_an_object", "the body: an object was expected")
    return [_message(asked, {**body, "type": call}, _Sent.of(body.get("sentAt"), asked.received_s))]


def batch(asked: Asked) -> list[Message]:
    """The messages of a batch, in order.

    Raises:
        Refused: 400, it is no batch of objects.
    """
    body = asked.value
    if type(body) is not dict:
        raise Refused(400, "not_an_object", "the body: an object was expected")
    shared = body.get("context")
    sent, messages = _Sent.of(body.get("sentAt"), asked.received_s), []
    for item in asked.objects(body.get("batch"), "batch"):
        if type(shared) is dict:
            item["context"] = {**shared, **a_dict(item.get("context"))}
        messages.append(_message(asked, item, sent))
    return messages


class _Sent(msgspec.Struct, frozen=True):
    """When a request was sent, by the device's clock, and received, by ours; the same for all calls of a batch."""

    at: object
    at_s: float | None
    received_s: float
    received: str

    @classmethod
    def of(cls, at: object, received_s: float) -> _Sent:
        return cls(at, epoch_s(at), received_s, iso(received_s))


def _message(asked: Asked, call: dict[str, Any], batch: _Sent) -> Message:
    if "batch" in call:
        raise Refused(400, "nested_batch", "a batch within a call")
    call.pop("writeKey", None)
    device = call.get("originalTimestamp") or call.get("timestamp")
    if call.get("messageId") is None:
        call["messageId"] = made_id(call, "sentAt", device is not None)
    sent, sent_s = batch.at, batch.at_s
    if own := call.get("sentAt"):
        sent, sent_s = own, epoch_s(own)
    time = batch.received
    if device is not None:
        call["originalTimestamp"] = time = device
        device_s = epoch_s(device)
        if device_s is not None and sent_s is not None:
            time_s = corrected(device_s, sent_s, batch.received_s)
            time = iso(time_s) if in_calendar(time_s) else device  # ingest says what is wrong with that
    if sent is not None:
        call["sentAt"] = sent
    call["timestamp"], call["receivedAt"] = time, batch.received
    if type(context := call.get("context")) is dict and "ip" in context:
        call["context"] = {name: value for name, value in context.items() if name != "ip"}
    return asked.message(call, an_id(call.get("anonymousId"), call.get("userId")))


def settings_of(asked: Asked, key: str, public_url: str | None) -> bytes:
    """What analytics.js asks a CDN for before it sends: here, that it shall send to us, and nothing else."""
    host = (public_url or f"http://{asked.headers.get('Host', '')}").partition("://")[2].rstrip("/")
    destination = {"apiKey": key, "apiHost": f"{host}/v1", "versionSettings": {"version": "4.4.7"}}
    return _encode({"integrations": {"Segment.io": destination}, "plan": {}, "edgeFunction": {},
                    "analyticsNextEnabled": True, "enabledMiddleware": {}, "remotePlugins": []})  # fmt: skip

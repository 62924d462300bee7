"""PostHog's capture API, as its SDKs call it.

Spec: "Capture and batch API" of PostHog's documentation, and the repository PostHog/posthog, rust/capture (what the
older libraries send: `data=` forms, base64, gzip named in the query). What SDKs ask for beside capturing (feature
flags, remote configuration, recordings) is answered with "none", so that they do not fail. Each event becomes a message
of its own, with `sent_at` and our `now` beside it, by which its time can be corrected.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from streams.collect.asked import Asked, Message, Refused, a_dict, an_id, made_id
from streams.collect.auth import Keys, bearer, missing
from streams.collect.body import too_large
from streams.collect.times import iso, milliseconds
from streams.formats._common import Refused as Unreadable
from streams.formats.posthog_body import unpacked

CAPTURES: Final = ("/batch", "/capture", "/e", "/i/v0/e")
CAPTURE_V1: Final = "/i/v1/analytics/events"
FLAGS: Final = ("/flags", "/decide")
RECORDINGS: Final = "/s"
CONFIG: Final = "/array/{key}/config"
_TOKENS: Final = ("api_key", "token", "$token")
_LEFT_OUT: Final = frozenset({"token", "$ip"})
_SENT_V1: Final = "PostHog-Request-Timestamp"
_BESIDE_V1: Final = {"session_id": "$session_id", "window_id": "$window_id"}
_OPTIONS_V1: Final = {"cookieless_mode": "$cookieless_mode", "disable_skew_correction": "$ignore_sent_at",
                      "process_person_profile": "$process_person_profile"}  # fmt: skip
"""What version 1 has beside the properties or as options → the property that it was before."""
_encode = msgspec.json.Encoder().encode
NO_FLAGS: Final = _encode({
    "flags": {}, "featureFlags": {}, "featureFlagPayloads": {}, "errorsWhileComputingFlags": False,
    "supportedCompression": ["gzip", "gzip-js"], "sessionRecording": False, "surveys": False, "heatmaps": False,
    "capturePerformance": False, "autocapture_opt_out": False, "config": {"enable_collect_everything": True},
    "isAuthenticated": False, "toolbarParams": {}, "siteApps": [], "quotaLimited": [],
})  # fmt: skip
"""No feature flag, nothing to be fetched, nothing to be recorded."""
NO_CONFIG: Final = _encode({
    "supportedCompression": ["gzip", "gzip-js"], "hasFeatureFlags": False, "sessionRecording": False, "surveys": False,
    "heatmaps": False, "capturePerformance": False, "autocapture_opt_out": False, "captureDeadClicks": False,
    "defaultIdentifiedOnly": True, "siteApps": [],
})  # fmt: skip


def captured(asked: Asked, keys: Keys) -> tuple[int, list[Message]]:
    """Number of the API key, and the messages of a capture or batch.

    Args:
        asked: the request.
        keys: that may send.

    Raises:
        Refused: 401, or 400 with what is wrong.
    """
    value = content(asked)
    number = key_of(asked, value, keys)
    sent = a_dict(value).get("sent_at")
    if sent is None and (sent_s := milliseconds(asked.fields.get("_"))) is not None:
        sent = iso(sent_s)
    now = iso(asked.received_s)
    return number, [_message(asked, item, sent, now) for item in _items(asked, value)]


def captured_v1(asked: Asked, keys: Keys) -> tuple[int, list[Message], bytes]:
    """The same of version 1 of the protocol, and the answer, which tells of each event by its id.

    Raises:
        Refused: 401, or 400 with what is wrong.
    """
    value = content(asked)
    number = key_of(asked, value, keys)
    sent, now = asked.headers.get(_SENT_V1), iso(asked.received_s)
    items = [_as_before_v1(item) for item in _items(asked, value)]
    messages = [_message(asked, item, sent, now) for item in items]
    return number, messages, _encode({"results": {str(item["uuid"]): {"result": "ok"} for item in items}})


def _as_before_v1(event: dict[str, Any]) -> dict[str, Any]:
    options = a_dict(event.pop("options", None))
    found = {name: options[short] for short, name in _OPTIONS_V1.items() if short in options}
    found |= {name: event.pop(short) for short, name in _BESIDE_V1.items() if short in event}
    if found:
        event["properties"] = {**a_dict(event.get("properties")), **found}
    return event


def key_of(asked: Asked, value: object, keys: Keys) -> int:
    """Number of the API key: in the body, in the first event, in the query, or as bearer token.

    Raises:
        Refused: 401.
    """
    number = keys.find(shown) if (shown := _token(asked, value)) else None
    if number is None:
        raise missing("a project API key is needed: as api_key in the body")
    return number


def content(asked: Asked) -> Any:
    """The JSON of a body, however the library packed it.

    Raises:
        Refused: 400 or 413.
    """
    try:
        body = unpacked(asked.body, asked.max_bytes)
    except Unreadable as unreadable:
        if unreadable.reason == "too_large":
            raise too_large(asked.max_bytes) from unreadable
        raise Refused(400, unreadable.reason, unreadable.detail) from unreadable
    asked.body = body
    return asked.value


def _items(asked: Asked, value: Any) -> list[dict[str, Any]]:
    if type(value) is list:
        return asked.objects(value, "the body")
    if type(value) is not dict:
        raise Refused(400, "not_an_object", "the body: an object or array was expected")
    if "batch" in value:
        return asked.objects(value["batch"], "batch")
    if "event" not in value:
        raise Refused(400, "missing_field", "event: missing, and there is no batch")
    return [value]


def _token(asked: Asked, value: Any) -> str | None:
    first = value[0] if type(value) is list and value else a_dict(value)
    for place in (a_dict(value), a_dict(first), a_dict(a_dict(first).get("properties"))):
        for name in _TOKENS:
            if type(shown := place.get(name)) is str and shown:
                return shown
    return asked.fields.get("api_key") or asked.fields.get("token") or bearer(asked.headers.get("Authorization", ""))


def _message(asked: Asked, event: dict[str, Any], sent: object, now: str) -> Message:
    for name in (*_TOKENS, "ip"):
        event.pop(name, None)
    properties = event.get("properties")
    if type(properties) is dict:
        event["properties"] = properties = {k: v for k, v in properties.items() if k not in _LEFT_OUT}
    if event.get("uuid") is None:
        event["uuid"] = made_id(event, "sent_at", event.get("timestamp") is not None)
    if event.get("sent_at") is None and sent is not None:
        event["sent_at"] = sent
    event["now"] = now
    inner = a_dict(properties)
    person = an_id(
        inner.get("$device_id"), event.get("distinct_id"), inner.get("distinct_id"), event.get("$distinct_id")
    )
    return asked.message(event, person)

"""CloudEvents 1.0: structured JSON, batches of it, and binary mode, where Kafka headers hold the attributes.

Spec: "CloudEvents - Version 1.0.2" (attributes), "JSON Event Format" (structured and batched) and "Kafka Protocol
Binding" (binary mode: headers `ce_…`; `content-type` for the data) of cloudevents/spec.

What `data` is decides: one of the other formats (a native event, a Segment call, …) is taken as that, with what it
lacks from the attributes: `id`, `time`, `subject` as the person, `type`. Anything else becomes what `names.yaml` says
of `type`, and is about `subject`. Either way an event is the same as another only if `source` and `id` are the same.
Data that says of itself (`datacontenttype`) that it is no JSON is not looked at.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import unquote

from streams.events import CLOCK, OTHER, Event, Outcome, Rejection, Value
from streams.formats import debezium, hubspot, native, posthog, salesforce, segment, sendgrid, snowplow
from streams.formats._common import (
    Fields,
    FormatOptions,
    Refused,
    each,
    epoch_s,
    identity,
    parse,
    readable_id,
    required,
    text,
    within,
)
from streams.formats._fields import labels_of, properties_of
from streams.formats._format import Format
from streams.formats._names import VendorNames, normalise

VERSIONS: Final = ("1.0", "1.0.1", "1.0.2")
_OF_HTTP: Final = "ce-"
_MODES: Final = ("ce_", _OF_HTTP)
"""Prefix of attributes in Kafka headers; bridges from HTTP leave it, and the percent-encoding, as they are there."""
_PEOPLE: Final = ("person", "userId", "user_id", "customerId", "customer_id", "anonymousId")
_TIMES: Final = ("timestamp", "originalTimestamp", "receivedAt", "sentAt")


def is_binary(headers: Mapping[str, bytes]) -> bool:
    """Whether these Kafka headers are those of a CloudEvent in binary mode."""
    return "ce_specversion" in headers or "ce-specversion" in headers


def read_binary(raw: bytes, headers: Mapping[str, bytes], options: FormatOptions) -> list[Outcome]:
    """The event whose attributes are in the headers, and whose data is the message."""
    event: Fields = {}
    for name, value in headers.items():
        if name.startswith(_MODES):
            text_ = value.decode("utf-8", "replace")
            event[name[3:]] = unquote(text_) if name.startswith(_OF_HTTP) else text_
    kind = headers.get("content-type", b"application/json").decode("latin-1").partition(";")[0].strip().lower()
    try:
        if kind.endswith("json") and raw and not raw.isspace():
            event["data"] = parse(raw)
        return decode(event, options)
    except Refused as refused:
        return [Rejection(refused.reason, refused.detail, _person_of(event))]
    except RecursionError:
        return [Rejection("too_deep", "nested too deeply", _person_of(event))]


def decode(value: Any, options: FormatOptions) -> list[Outcome]:
    """One event, or all of a batch in order."""
    if not isinstance(value, list):
        return _one(value, options)
    more: list[Outcome] = []  # of events whose data is a batch

    def one(position: int, item: object) -> Outcome:
        first, *others = _one(item, options, position)
        more.extend(others)
        return first

    return each(value, options, one, _person_of) + more


def recognises(value: Any) -> bool:
    """`specversion` is what the attributes of every event begin with; one of an array is enough."""
    items = value[:3] if isinstance(value, list) else [value]
    return any(isinstance(item, dict) and "specversion" in item and "source" in item for item in items)


def _person_of(fields: Fields) -> str | None:
    data = fields.get("data")
    return readable_id(fields, "subject") or (readable_id(data, *_PEOPLE) if isinstance(data, dict) else None)


def _one(item: object, options: FormatOptions, position: int | None = None) -> list[Outcome]:
    where = "" if position is None else f"item {position}: "
    if not isinstance(item, dict):
        return [Rejection("not_an_object", f"{where}a JSON object was expected")]
    try:
        return _events(item, options)
    except Refused as refused:
        return [Rejection(refused.reason, where + refused.detail, _person_of(item))]


def _events(fields: Fields, options: FormatOptions) -> list[Outcome]:
    if required(text(fields, "specversion"), "specversion") not in VERSIONS:
        raise Refused("bad_field", "specversion: 1.0 was expected")
    own_id, source = required(identity(fields, "id"), "id"), required(identity(fields, "source"), "source")
    kind = required(text(fields, "type"), "type")
    data = _data(fields)
    outcomes = _of_known_format(fields, data, kind, options) if isinstance(data, dict | list) else None
    if outcomes is None:
        outcomes = [_plain(fields, data if isinstance(data, dict) else {}, kind, options)]
    for number, outcome in enumerate(outcomes):
        if isinstance(outcome, Event) and outcome.type != CLOCK:
            outcome.id = f"{number}:{len(source)}:{source}:{own_id}"  # of no other pair, whatever characters it holds
    return outcomes


def _data(fields: Fields) -> Any:
    data, encoded = fields.get("data"), fields.get("data_base64")
    says_json = _is_json(fields.get("datacontenttype"))
    if encoded is not None:
        if not isinstance(encoded, str):
            raise Refused("bad_field", "data_base64: a string was expected")
        try:
            raw = b64decode(encoded, validate=True)
        except (binascii.Error, ValueError) as error:
            raise Refused("bad_field", "data_base64: not base64") from error
        return parse(raw) if says_json and raw[:1] in (b"{", b"[") else None
    if says_json and isinstance(data, str) and data.startswith(("{", "[")):
        try:
            return parse(data.encode())  # JSON in a string is how some producers write it, though it is a string
        except Refused:
            return None
    return data


def _is_json(media_type: object) -> bool:
    """Whether data is JSON, as it is where nothing is said."""
    if not isinstance(media_type, str):
        return True
    return media_type.partition(";")[0].strip().lower().endswith("json")


def _of_known_format(fields: Fields, data: Any, kind: str, options: FormatOptions) -> list[Outcome] | None:
    """The outcomes of data that is an event of another format; None if it is of none."""
    if isinstance(data, dict):
        if (whole := _as_native(fields, data, kind, options)) is not None:
            return native.decode(whole, options)
        data = _as_call(fields, data)
    for form, recognises_data in _INNER:
        if data and recognises_data(data):
            return form.decode(data, options)
    return None


def _as_native(fields: Fields, data: Fields, kind: str, options: FormatOptions) -> Fields | None:
    """Data that is a native event, which may leave to the attributes what they say anyway; None if it is none.

    Records of shops have an `id` and a `type`, too: only a type of ours makes it one, or a person without any type.
    """
    own, person = data.get("type"), data.get("person")
    if own is None and isinstance(person, str):
        own = _type(kind, options.names["cloudevents"])
    elif not isinstance(own, str) or own not in native.TYPES or not ("id" in data or isinstance(person, str)):
        return None
    lacking = {name: value for name in ("time", "subject") if (value := fields.get(name)) is not None}
    lacking["person"] = lacking.pop("subject", None)
    return lacking | data | {"type": own, "id": fields["id"]}


def _as_call(fields: Fields, data: Fields) -> Fields:
    """A call of Segment's gets its id and time from the attributes where it lacks them."""
    call = data.get("type")
    if not isinstance(call, str) or call not in segment.CALLS or data.keys().isdisjoint(("anonymousId", "userId")):
        return data
    lacking = {"messageId": fields.get("id")}
    if not any(data.get(name) for name in _TIMES):
        lacking["timestamp"] = fields.get("time")
    return {name: value for name, value in lacking.items() if value is not None} | data


def _is_call(data: Any) -> bool:
    """Unlike in a topic of calls, a record whose type is page or group may be of anything."""
    return isinstance(data, dict) and not data.keys().isdisjoint(("messageId", "batch")) and segment.recognises(data)


_INNER: Final[tuple[tuple[Format, Callable[[Any], bool]], ...]] = (
    (posthog.FORMAT, posthog.recognises), (segment.FORMAT, _is_call), (hubspot.FORMAT, hubspot.recognises),
    (snowplow.FORMAT, snowplow.recognises), (salesforce.FORMAT, salesforce.recognises),
    (debezium.FORMAT, debezium.recognises), (sendgrid.FORMAT, sendgrid.recognises),
)  # fmt: skip
"""Formats that `data` may be of besides the native one, and how it is told."""


def _plain(fields: Fields, data: Fields, kind: str, options: FormatOptions) -> Event:
    names = options.names["cloudevents"]
    event_type = _type(kind, names)
    person = identity(fields, "subject") or readable_id(data, *_PEOPLE)
    return Event(
        id="",  # the caller's
        type=event_type,
        time=_time_s(fields, options),
        person=required(person, "subject"),
        session=readable_id(data, "session", "sessionId", "session_id"),
        page=text(data, "page") or text(data, "path"),
        segment=labels_of(data, names, options.labels),
        properties=_properties(event_type, data, names),
    )


def _type(kind: str, names: VendorNames) -> str:
    """By the whole name, or by its end: producers prefix names with their domain, and some end them with a version.

    >>> _type("com.example.shop.order_completed.v2", VendorNames({"ordercompleted": "purchased"}))
    'purchased'
    """
    if (found := names.events.get(normalise(kind))) is not None:
        return found
    parts = [part for part in kind.split(".") if part]
    if len(parts) > 1 and parts[-1].lower().lstrip("v").isdecimal():
        parts.pop()
    for count in (2, 1):
        if (found := names.events.get(normalise("".join(parts[-count:])))) is not None:
            return found
    return OTHER


def _time_s(fields: Fields, options: FormatOptions) -> float:
    value = fields.get("time")
    if value is None or value == "":
        if options.arrived_s is None:
            raise Refused("missing_field", "time: missing or empty")
        return within(options.arrived_s, "time", options)
    return within(epoch_s(value, "time"), "time", options)


def _properties(event_type: str, data: Fields, names: VendorNames) -> dict[str, Value]:
    return properties_of(names.properties.get(event_type), data)


FORMAT: Final = Format(
    name="cloudevents",
    takes="CloudEvents 1.0: structured or batched JSON, or binary with the attributes in Kafka headers.",
    spec='"CloudEvents - Version 1.0.2", "JSON Event Format" and "Kafka Protocol Binding" of cloudevents/spec',
    decode=decode,
    recognises=recognises,
    coverage=(
        (
            "data of one of the formats: native, Segment, PostHog, Snowplow, HubSpot, Salesforce, Debezium, SendGrid",
            "what it is",
            "its id: source + id",
        ),
        ("other data", "by `type`", "whole, or its last words without a version; person = subject; unknown: `other`"),
    ),
)

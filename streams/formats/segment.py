"""Segment and RudderStack calls: track, page, screen, identify, group, alias, and batches of them.

Spec: "Segment Spec: Common Fields" and the pages of the six calls; "HTTP Tracking API" for batches; "RudderStack Event
Specification". Times follow "Timestamps in Segment": `timestamp = receivedAt - (sentAt - originalTimestamp)`.
Lenient where SDKs are known to be sloppy: PHP writes empty objects as `[]`, ids may be numbers, zones may be missing.

`read` takes the calls that nearly all traffic consists of, well-formed page and track calls, straight from their bytes
at a third of the time. It looks at nothing but the fields that we use, and leaves whatever is unusual to `decode`,
which alone says what is wrong with a call.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import msgspec

from streams.events import OTHER, Event, Outcome, Rejection
from streams.formats._cloud import completed, retell, service_of
from streams.formats._common import (
    MAX_ID_CHARS,
    MAX_TEXT_CHARS,
    Fields,
    FormatOptions,
    Refused,
    attempt,
    each,
    epoch_s,
    identity,
    is_nobody,
    iso_s,
    readable,
    readable_id,
    required,
    text,
    within,
    wrong,
)
from streams.formats._fields import DEVICES, LABEL_CHARS, device_of_agent, properties_of
from streams.formats._format import Format
from streams.formats._names import normalise
from streams.privacy import path_of

_IMPLIED: Final = ("channel", "campaign", "source", "device", "country")
"""Labels that the context implies."""
CALLS: Final = frozenset({"track", "page", "screen", "identify", "group", "alias", "batch"})
_SHARED: Final = ("context", "sentAt", "receivedAt")


class _Page(msgspec.Struct, frozen=True, gc=False):
    path: str | None = None
    url: str | None = None


class _Campaign(msgspec.Struct, frozen=True, gc=False):
    medium: str | None = None
    name: str | None = None
    source: str | None = None


class _Location(msgspec.Struct, frozen=True, gc=False):
    country: str | None = None


class _Device(msgspec.Struct, frozen=True, gc=False):
    type: str | None = None


class _Context(msgspec.Struct, frozen=True, gc=False):
    page: _Page = _Page()
    campaign: _Campaign = _Campaign()
    location: _Location = _Location()
    device: _Device = _Device()
    userAgent: str | None = None
    sessionId: Any = None
    traits: Any = None
    integration: Any = None


class _Call(msgspec.Struct, frozen=True, gc=False):
    """What we use of a page or track call, where it is of the types that the spec gives."""

    type: str
    messageId: str
    anonymousId: str
    timestamp: str
    event: str | None = None
    name: str | None = None
    userId: str | None = None
    originalTimestamp: str | None = None
    context: _Context = _Context()
    properties: Fields = {}
    batch: Any = msgspec.UNSET


_decode_call = msgspec.json.Decoder(_Call).decode


def read(raw: bytes, options: FormatOptions) -> Event | None:
    """The event of a well-formed page or track call, the same that `decode` gives; None leaves it to `decode`."""
    try:
        if not raw.isascii():
            raw.decode()  # what is skipped is not checked, but bytes that are no text are refused
        call = _decode_call(raw)
        context = call.context
        if call.batch is not msgspec.UNSET or context.integration is not None:
            return None
        if context.traits is not None and not _say_nothing(context.traits, options.labels):
            return None
        return _event_of(call, options)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, Refused):
        return None


def _say_nothing(traits: object, labels: tuple[str, ...]) -> bool:
    """Whether traits hold no label: RudderStack sends them with every call."""
    return type(traits) is dict and traits.keys().isdisjoint(labels)


def _event_of(call: _Call, options: FormatOptions) -> Event | None:
    context, properties, kind = call.context, call.properties, "page_viewed"
    if call.type == "track" and call.event:
        kind = options.names["segment"].events.get(normalise(call.event[:MAX_TEXT_CHARS]), OTHER)
    elif call.type != "page":
        return None
    session, user = context.sessionId, call.userId or None
    if session is None and "session_id" in properties:
        return None
    if type(session) is int:
        session = str(session)  # RudderStack's are numbers
    for name in (call.messageId, call.anonymousId, user, session):
        if name is not None and not (type(name) is str and 0 < len(name) <= MAX_ID_CHARS):
            return None
    time_s = iso_s(call.timestamp, "timestamp", naive_is_utc=True)
    device_s = None
    if (device := call.originalTimestamp) is not None:
        device_s = time_s if device == call.timestamp else iso_s(device, "originalTimestamp", naive_is_utc=True)
    return Event(
        call.messageId,
        kind,
        within(time_s, "timestamp", options),
        call.anonymousId,
        device_s,
        None if is_nobody(user) else user,
        session,
        _page_of(call, properties),
        None,
        _labels_of(call, properties, options.labels),
        properties_of(options.names["segment"].properties.get(kind), properties) if properties else {},
    )


def _page_of(call: _Call, properties: Fields) -> str | None:
    if page := call.context.page.path:
        return page[:MAX_TEXT_CHARS]
    if url := call.context.page.url:
        return path_of(url[:MAX_TEXT_CHARS])
    if path := text(properties, "path"):
        return path
    if url := text(properties, "url"):
        return path_of(url)
    return call.name[:MAX_TEXT_CHARS] if call.type == "page" and call.name else None


def _labels_of(call: _Call, properties: Fields, allowed: tuple[str, ...]) -> dict[str, str]:
    context = call.context
    campaign, agent, device = context.campaign, context.userAgent, context.device.type
    implied = (
        campaign.medium, campaign.name, campaign.source,
        DEVICES.get(device.lower(), device.lower()) if device else device_of_agent(agent) if agent else None,
        context.location.country,
    )  # fmt: skip
    own = map(properties.get, allowed) if properties else ()
    return _merge_labels(
        tuple([value and value[:LABEL_CHARS] for value in implied]),
        tuple([value[:LABEL_CHARS] if type(value) is str else None if value is None else "" for value in own]),
        allowed,
    )


@lru_cache(maxsize=16_384)
def _merge_labels(
    implied: tuple[str | None, ...], own: tuple[str | None, ...], allowed: tuple[str, ...]
) -> dict[str, str]:
    """Labels of the context, with the properties' own over them; shared by all calls of the same, never changed."""
    found = dict(zip(_IMPLIED, implied, strict=True))
    found |= {label: value for label, value in zip(allowed, own, strict=False) if value is not None}
    return {label: value for label in allowed if (value := found.get(label))}


def decode(value: Any, options: FormatOptions) -> list[Outcome]:
    """One call, or all calls of a batch in order."""
    if not _is_batch(value):
        return [attempt(_event, _person_of, value, options)]
    items = value.get("batch")
    if not isinstance(items, list):
        return [Rejection("bad_field", "batch: an array was expected", _person_of(value))]
    shared = {name: value[name] for name in _SHARED if value.get(name) is not None}
    return each(items, options, lambda position, item: _item(position, item, shared, options), _person_of)


def _is_batch(value: object) -> bool:
    return isinstance(value, dict) and ("batch" in value or value.get("type") == "batch")


def _item(position: int, item: object, shared: Fields, options: FormatOptions) -> Outcome:
    if _is_batch(item):
        return Rejection("nested_batch", f"item {position}: a batch within a batch", readable(item, _person_of))
    if isinstance(item, dict) and shared:
        own = item.get("context")
        item = {**shared, **item}
        if isinstance(own, dict) and isinstance(shared.get("context"), dict):
            item["context"] = {**shared["context"], **own}
    return attempt(_event, _person_of, item, options, position)


def _person_of(fields: Fields) -> str | None:
    names = ("userId", "anonymousId") if fields.get("type") == "alias" else ("anonymousId", "userId")
    return readable_id(fields, *names)


def _event(fields: Fields, options: FormatOptions) -> Event:
    call = required(text(fields, "type"), "type")
    if call not in CALLS:
        raise Refused("unknown_type", "type: none of the calls of the spec")
    context, properties = _object(fields, "context"), _object(fields, "properties")
    if (service := service_of(context)) is not None:
        fields = completed(fields, service)
    kind = _type(call, fields, options)
    person, also_person = _people(call, fields)
    time_s, device_time_s = _times(fields, options)
    event = Event(
        id=required(identity(fields, "messageId"), "messageId"),
        type=kind,
        time=time_s,
        person=person,
        device_time=device_time_s,
        also_person=also_person,
        session=_session(context, properties),
        page=_page(call, fields, context, properties),
        segment=_labels(context, properties, options.labels),
        properties=properties_of(options.names["segment"].properties.get(kind), properties),
    )
    if call == "track" and service is not None:
        retell(event, service, fields, options)
    return event


def _object(fields: Fields, field: str) -> Fields:
    value = fields.get(field)
    if isinstance(value, dict):
        return value
    if value is None or value == []:
        return {}
    raise wrong(value, field, "an object")


def _inner(context: Fields, field: str) -> Fields:
    """A part of the context, which only enriches: of another shape, it says nothing."""
    value = context.get(field)
    return value if isinstance(value, dict) else {}


def _type(call: str, fields: Fields, options: FormatOptions) -> str:
    if call == "track":
        name = required(text(fields, "event"), "event")
        return options.names["segment"].events.get(normalise(name), OTHER)
    return "page_viewed" if call in {"page", "screen"} else OTHER


def _people(call: str, fields: Fields) -> tuple[str, str | None]:
    """Person and second id.

    The anonymous id comes first: it is there before and after a login, so that a session does
    not break when `userId` appears.
    """
    user, anonymous = (identity(fields, name, numbers=True) for name in ("userId", "anonymousId"))
    if call == "alias":
        previous = identity(fields, "previousId", numbers=True)
        return required(user or anonymous, "userId or anonymousId"), required(previous, "previousId")
    if anonymous is None:
        return required(user, "anonymousId or userId"), None
    return anonymous, None if is_nobody(user) else user


def _times(fields: Fields, options: FormatOptions) -> tuple[float, float | None]:
    """Corrected time, and the device's own."""
    device = fields.get("originalTimestamp")
    device_s = None if device is None else _utc_s(fields, "originalTimestamp")
    for field in ("timestamp", "originalTimestamp", "receivedAt", "sentAt"):
        if fields.get(field) is not None:
            break
    else:
        raise Refused("missing_field", "timestamp: missing, and so are originalTimestamp, receivedAt and sentAt")
    complete = fields.get("receivedAt") is not None and fields.get("sentAt") is not None
    if field == "originalTimestamp" and device_s is not None and complete:
        time_s = _utc_s(fields, "receivedAt") - (_utc_s(fields, "sentAt") - device_s)
    else:
        time_s = _utc_s(fields, field)
    return within(time_s, field, options), device_s


def _utc_s(fields: Fields, field: str) -> float:
    # The spec wants a zone, yet server-side SDKs sent naive UTC for years; Segment reads those as UTC, and so do we.
    return epoch_s(fields[field], field, naive_is_utc=True)


def _session(context: Fields, properties: Fields) -> str | None:
    if context.get("sessionId") is not None:
        return identity(context, "sessionId", numbers=True)
    return identity(properties, "session_id", numbers=True)


def _page(call: str, fields: Fields, context: Fields, properties: Fields) -> str | None:
    if call == "screen":
        return text(fields, "name")
    for place in (_inner(context, "page"), properties):
        if path := text(place, "path"):
            return path
        if url := text(place, "url"):
            return path_of(url)
    return text(fields, "name") if call == "page" else None


def _labels(context: Fields, properties: Fields, allowed: tuple[str, ...]) -> dict[str, str]:
    """Labels in rising precedence: what the context implies, traits, properties.

    RudderStack's top-level `channel` (web, mobile, server) names the SDK, not the marketing channel: not read.
    """
    campaign = _inner(context, "campaign")
    implied = (
        campaign.get("medium"), campaign.get("name"), campaign.get("source"), _device(context),
        _inner(context, "location").get("country"),
    )  # fmt: skip
    own: list[object] = [properties.get(label) for label in allowed] if properties else [None] * len(allowed)
    if traits := _inner(context, "traits"):
        own = [traits.get(label) if value is None else value for label, value in zip(allowed, own, strict=True)]
    return _merge_labels(
        tuple([value[:LABEL_CHARS] if isinstance(value, str) else None for value in implied]),
        tuple([value[:LABEL_CHARS] if isinstance(value, str) else None if value is None else "" for value in own]),
        allowed,
    )


def _device(context: Fields) -> str | None:
    kind = _inner(context, "device").get("type")
    if isinstance(kind, str) and kind:
        return DEVICES.get(kind.lower(), kind.lower())
    agent = context.get("userAgent")
    return device_of_agent(agent) if isinstance(agent, str) else None


def recognises(value: Any) -> bool:
    """A call says so; what has a message id or a batch is taken for one, and refused with the reason."""
    if not isinstance(value, dict):
        return False
    kind = value.get("type")
    is_call = isinstance(kind, str) and kind in CALLS
    return is_call or "messageId" in value or isinstance(value.get("batch"), list)


def _read_one(raw: bytes, options: FormatOptions) -> list[Outcome] | None:
    return None if (event := read(raw, options)) is None else [event]


FORMAT: Final = Format(
    name="segment",
    takes="Segment and RudderStack calls: track, page, screen, identify, group, alias, and batches of them.",
    spec='"Segment Spec: Common Fields" and the pages of the six calls; "HTTP Tracking API" for batches; "RudderStack'
    ' Event Specification"',
    decode=decode,
    recognises=recognises,
    read=_read_one,
    marker=b'"messageId"',
    coverage=(
        ("page, screen", "page_viewed", ""),
        ("track", "by its event name", "names below; unknown names are `other`"),
        ("identify, group", "other", "joins anonymousId and userId"),
        ("alias", "other", "joins userId (without one, anonymousId) and previousId"),
    ),
)

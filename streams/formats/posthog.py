"""PostHog captures: one event, a batch, an array, in every wrapping that its clients use (see `posthog_body`).

Spec: "Capture API" and "Events" of PostHog's documentation; posthog-js for `$prev_pageview_…` and `$elements_chain`.

Time is PostHog's own: `now - (sent_at - timestamp)` where the body carries `now` (as PostHog's Kafka topics and our
collector write it), `now - offset` (ms) where there is no timestamp; otherwise `timestamp` or the property `$time` as
it is, and for an event that says nothing of time, `sent_at`, and at last when it was written to Kafka.
A page view may tell of the view before it (`$prev_pageview_…`): it stays one view, since PostHog counts it as one, and
a page that was left says so itself (`$pageleave`).
Person is `$device_id`, which a login does not change, otherwise `distinct_id`; the other one is the second id.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec

from streams.events import Event, Outcome, Rejection, Value
from streams.formats._common import (
    MAX_TEXT_CHARS,
    Fields,
    FormatOptions,
    Refused,
    attempt,
    each,
    epoch_s,
    identity,
    is_nobody,
    number,
    parse,
    readable_id,
    required,
    text,
    within,
)
from streams.formats._fields import labels_of, properties_of
from streams.formats._format import Format
from streams.formats._names import VendorNames
from streams.formats.posthog_body import is_packed, unpacked
from streams.formats.posthog_elements import touched
from streams.privacy import path_of

MAX_DWELL_S: Final = 1800.0
"""Browsers that sleep report views of days; nobody looks at a page for longer than this without doing anything."""
MAX_AHEAD_S: Final = 23 * 3600.0
"""Corrected times further ahead of the server's clock are its clock, as with PostHog."""
_TELLING: Final = ("distinct_id", "$distinct_id", "$device_id", "$session_id")
"""Properties that nobody else's events have."""
_SHARED: Final = ("api_key", "token", "sent_at", "now")
_CLICKS: Final = frozenset({"$autocapture", "$rageclick", "$dead_click"})
_JOINS: Final = {"$identify": "$anon_distinct_id", "$create_alias": "alias", "$merge_dangerously": "alias"}


def read(raw: bytes, options: FormatOptions) -> list[Outcome] | None:
    """The events of a packed body; None for plain JSON."""
    if not is_packed(raw):
        return None
    try:
        return decode(parse(unpacked(raw, options.max_event_bytes)), options)
    except Refused as refused:
        return [Rejection(refused.reason, refused.detail)]
    except RecursionError:
        return [Rejection("too_deep", "nested too deeply")]


def decode(value: Any, options: FormatOptions) -> list[Outcome]:
    """One event, or all of a batch in order."""
    if isinstance(value, dict):
        if "batch" in value:
            shared = {name: value[name] for name in _SHARED if value.get(name) is not None}
            return _all(value["batch"], shared, options)
        if "data" in value and "event" not in value:
            return _wrapped(value, options)
        return [attempt(_event, _person_of, value, options)]
    return _all(value, {}, options) if isinstance(value, list) else [attempt(_event, _person_of, value, options)]


def recognises(value: Any) -> bool:
    """Events name who they are about; batches carry the project's key, or hold such events."""
    if isinstance(value, list):
        return any(_is_event(item) for item in value[:3])
    if not isinstance(value, dict):
        return False
    batch = value.get("batch")
    if isinstance(batch, list):
        return "api_key" in value or "token" in value or any(_is_event(item) for item in batch[:3])
    return _is_event(value) or (isinstance(value.get("data"), str) and "distinct_id" in value and "now" in value)


def _is_event(value: object) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("event"), str) or "messageId" in value:
        return False
    given = value.get("properties")
    return (
        "distinct_id" in value or "$distinct_id" in value or "api_key" in value
        or (isinstance(given, dict) and not given.keys().isdisjoint(_TELLING))
    )  # fmt: skip


def _all(items: Any, shared: Fields, options: FormatOptions) -> list[Outcome]:
    if not isinstance(items, list):
        return [Rejection("bad_field", "batch: an array was expected")]

    def one(position: int, item: object) -> Outcome:
        if isinstance(item, dict):
            if "batch" in item:
                return Rejection("nested_batch", f"item {position}: a batch within a batch", _person_of(item))
            item = shared | item
        return attempt(_event, _person_of, item, options, position)

    return each(items, options, one, _person_of)


def _wrapped(value: Fields, options: FormatOptions) -> list[Outcome]:
    """What PostHog itself writes to Kafka: the event as JSON in a string, with the time of its arrival."""
    data = value["data"]
    inner = parse(data.encode()) if isinstance(data, str) else data
    outer = {name: value[name] for name in ("distinct_id", "uuid", *_SHARED) if value.get(name) is not None}
    if isinstance(inner, dict) and "batch" not in inner:
        return [attempt(_event, _person_of, outer | inner, options)]
    return _all(inner["batch"] if isinstance(inner, dict) else inner, outer, options)


# ── One event ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _event(fields: Fields, options: FormatOptions) -> Event:
    event = required(text(fields, "event"), "event")
    given = _properties(fields)
    names = options.names["posthog"]
    kind = names.event(f"{event} {given.get('$event_type')}"[:MAX_TEXT_CHARS] if event == "$autocapture" else event)
    person, also_person = _people(event, fields, given)
    time_s, device_s = _times(fields, given, options)
    return Event(
        id=_id(fields, given, time_s),
        type=kind,
        time=time_s,
        person=person,
        device_time=device_s,
        also_person=also_person,
        session=identity(given, "$session_id", numbers=True),
        page=_page(given),
        segment=labels_of(given, names, options.labels),
        properties=_said(event, kind, given, names),
    )


def _properties(fields: Fields) -> Fields:
    given = fields.get("properties")
    if given is None:
        return {}
    if isinstance(given, str):  # a column of ClickHouse, and of exports
        given = parse(given.encode())
    if not isinstance(given, dict):
        raise Refused("bad_field", "properties: an object was expected")
    return given


def _person_of(fields: Fields) -> str | None:
    given = fields.get("properties")
    own = given if isinstance(given, dict) else {}
    return readable_id(own, "$device_id") or readable_id(fields, "distinct_id") or readable_id(own, "distinct_id")


def _people(event: str, fields: Fields, given: Fields) -> tuple[str, str | None]:
    """Person and second id; ids that everybody may have are nobody's."""
    device, distinct = _own(given, "$device_id"), _own(fields, "distinct_id") or _own(given, "distinct_id")
    if distinct is None:
        distinct = _own(fields, "$distinct_id") or _own(given, "$distinct_id")
    ids: tuple[str | None, ...] = (device, distinct)
    if event in _JOINS:
        joined = _own(given, _JOINS[event])
        ids = (device, joined, distinct) if event == "$identify" else (device, distinct, joined)
    known = [found for found in ids if found is not None]
    if not known:
        raise Refused("missing_field", "distinct_id: missing or empty, or an id that everybody has")
    # Of three the account and what it is joined with matter more than a device that is one of them anyway.
    return known[0], next((other for other in reversed(known) if other != known[0]), None)


def _own(fields: Fields, name: str) -> str | None:
    """An id that belongs to somebody."""
    found = identity(fields, name, numbers=True)
    return None if is_nobody(found) else found


def _id(fields: Fields, given: Fields, time_s: float) -> str:
    found = identity(fields, "uuid") or identity(given, "$insert_id") or identity(fields, "messageId")
    if found is not None:
        return found
    # A client that gives no id: the same content at the same time is the same event.
    about = [str(fields.get(name))[:MAX_TEXT_CHARS] for name in ("event", "distinct_id")]
    content = [time_s, *about, repr(given)[:8192]]
    return hashlib.blake2b(msgspec.json.encode(content), digest_size=16).hexdigest()


def _times(fields: Fields, given: Fields, options: FormatOptions) -> tuple[float, float | None]:
    """Corrected time, and the device's own."""
    now_s, sent_s = _maybe_s(fields.get("now")), _maybe_s(fields.get("sent_at"))
    for place, field in ((fields, "timestamp"), (given, "timestamp"), (given, "$time")):
        if (value := place.get(field)) is not None and value != "":
            device_s = epoch_s(value, field, naive_is_utc=True)
            break
    else:
        return _undated_s(fields, now_s, sent_s, options), None
    if field == "$time" and now_s is not None and _offset_s(fields):
        return _undated_s(fields, now_s, sent_s, options), device_s  # as browsers send what they had queued
    time_s = device_s
    if now_s is not None:
        if sent_s is not None and not given.get("$ignore_sent_at"):
            time_s = now_s - (sent_s - device_s)
        if time_s > now_s + MAX_AHEAD_S:
            time_s = now_s
    return within(time_s, "timestamp", options), device_s


def _undated_s(fields: Fields, now_s: float | None, sent_s: float | None, options: FormatOptions) -> float:
    arrived_s = now_s if now_s is not None else sent_s if sent_s is not None else options.arrived_s
    if arrived_s is None:
        raise Refused("missing_field", "timestamp: missing, and so are now and sent_at")
    return within(arrived_s - _offset_s(fields), "timestamp", options)


def _offset_s(fields: Fields) -> float:
    """How long a client had kept the event when it sent it; 0 where it does not say."""
    offset = fields.get("offset")
    return number(offset, "offset") / 1000 if type(offset) is int or type(offset) is float else 0.0


def _maybe_s(value: object) -> float | None:
    """A time that only corrects another one: PostHog does without where it cannot be read."""
    if value is None:
        return None
    try:
        return epoch_s(value, "sent_at", naive_is_utc=True)
    except Refused:
        return None


def _page(given: Fields) -> str | None:
    if path := text(given, "$pathname"):
        return path
    if url := text(given, "$current_url"):
        return path_of(url)
    return text(given, "$screen_name")


# ── What it says ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _said(event: str, kind: str, given: Fields, names: VendorNames) -> dict[str, Value]:
    if event == "$pageleave":
        return _left(given)
    if event in _CLICKS:
        return touched(event, kind, given)
    return properties_of(names.properties.get(kind), given)


def _left(given: Fields) -> dict[str, Value]:
    found: dict[str, Value] = {}
    dwell_s, scrolled = given.get("$prev_pageview_duration"), given.get("$prev_pageview_max_scroll_percentage")
    if (type(dwell_s) is float or type(dwell_s) is int) and dwell_s >= 0:
        found["dwell_s"] = float(min(dwell_s, MAX_DWELL_S))
    if (type(scrolled) is float or type(scrolled) is int) and scrolled >= 0:
        found["scroll_ratio"] = float(min(scrolled, 1))  # of 1, in spite of its name
    return found


FORMAT: Final = Format(
    name="posthog",
    takes="PostHog captures: one event, a batch or an array; JSON, gzip, base64, or a form with `data=`.",
    spec='"Capture API" and "Events" of PostHog\'s documentation; posthog-js for properties of page views and elements',
    decode=decode,
    recognises=recognises,
    read=read,
    coverage=(
        ("$pageleave", "page_left", "dwell_s = $prev_pageview_duration (1,800 s at most), scroll_ratio = max. scroll"),
        ("$autocapture", "by its $event_type", "click, submit, change; the element by id, name, or tag and classes"),
        ("$dead_click", "clicked", "dead"),
        ("$identify", "other", "joins $anon_distinct_id and distinct_id"),
        ("$create_alias, $merge_dangerously", "other", "joins alias and distinct_id"),
    ),
)

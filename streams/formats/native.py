"""Native events: the typed event itself as one JSON object.

Spec: "Native event" in the project's reference of events. Strict, since whoever writes it writes it for us: a field of
the wrong type is refused rather than dropped. Labels and properties that are not on the allow-lists are dropped.
"""

from __future__ import annotations

from typing import Any, Final

from streams.events import CLOCK, EVENT_TYPES, PROPERTY_TYPES, Event, Outcome, Value
from streams.formats import segment
from streams.formats._common import (
    Fields,
    FormatOptions,
    Refused,
    attempt,
    epoch_s,
    identity,
    number,
    readable_id,
    required,
    text,
    typed_property,
    within,
    wrong,
)
from streams.formats._format import Format

TYPES: Final = EVENT_TYPES | {CLOCK}


def decode(value: Any, options: FormatOptions) -> list[Outcome]:
    """One native event; anything but an object is refused."""
    return [attempt(_event, _person_of, value, options)]


def _person_of(fields: Fields) -> str | None:
    return readable_id(fields, "person")


def _event(fields: Fields, options: FormatOptions) -> Event:
    kind = required(text(fields, "type"), "type")
    if kind not in TYPES:
        raise Refused("unknown_type", "type: none of the native event types")
    if kind == CLOCK:
        return Event("", CLOCK, _time_s(fields, options), "")
    device_time = fields.get("device_time")
    return Event(
        id=required(identity(fields, "id"), "id"),
        type=kind,
        time=_time_s(fields, options),
        person=required(identity(fields, "person"), "person"),
        # No range here: a device whose clock says 1970 still measures the gaps of its own session.
        device_time=None if device_time is None else epoch_s(device_time, "device_time"),
        also_person=identity(fields, "also_person"),
        session=identity(fields, "session"),
        page=text(fields, "page"),
        stage=text(fields, "stage"),
        segment=_segment(fields, options.labels),
        properties=_properties(fields),
    )


def _time_s(fields: Fields, options: FormatOptions) -> float:
    value = fields.get("time")
    if value is None or value == "":
        raise Refused("missing_field", "time: missing or empty")
    return within(epoch_s(value, "time"), "time", options)


def _object(fields: Fields, field: str) -> Fields:
    value = fields.get(field)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong(value, field, "an object")
    return value


def _segment(fields: Fields, labels: tuple[str, ...]) -> dict[str, str]:
    given = _object(fields, "segment")
    kept = {}
    for label in labels if given else ():
        value = given.get(label)
        if type(value) is int or type(value) is float:
            value = f"{number(value, f'segment.{label}'):g}"  # a numbered campaign or model version is a fair label
        if value is None or value == "":
            continue
        if not isinstance(value, str):
            raise wrong(value, f"segment.{label}", "a string")
        kept[label] = value
    return kept


def _properties(fields: Fields) -> dict[str, Value]:
    given = _object(fields, "properties")
    return {
        name: typed_property(name, value)
        for name, value in given.items()
        if name in PROPERTY_TYPES and value is not None
    }


def recognises(value: Any) -> bool:
    """One of our types, or an object with our required fields, whatever its type says; Segment calls come first."""
    if not isinstance(value, dict):
        return False
    kind = value.get("type")
    if isinstance(kind, str) and kind in TYPES:
        return True
    return "id" in value and "time" in value and "person" in value and not segment.recognises(value)


FORMAT: Final = Format(
    name="native",
    takes="Native events: the typed event itself as one JSON object.",
    spec='"Native event" in the project\'s reference of events',
    decode=decode,
    recognises=recognises,
)

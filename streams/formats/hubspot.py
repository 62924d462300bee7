"""HubSpot CRM webhooks: a JSON array of change notifications.

Spec: "Webhooks API" of HubSpot's developer documentation (section on the fields of a notification), and "Generic
webhook subscriptions" for `object.*` with an `objectTypeId`. Traps that it states: notifications come unordered and
repeatedly, `eventId` is not unique, and there is no old value. Connectors often unpack the array, so a single
notification is taken as well.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from streams.events import OTHER, Event, Outcome, Value
from streams.formats._common import (
    MAX_TEXT_CHARS,
    Fields,
    FormatOptions,
    Refused,
    epoch_s,
    identity,
    number,
    readable_id,
    required,
    text,
    within,
)
from streams.formats._format import Format
from streams.formats._several import several

CONTACT: Final = "contact"
CONTACT_TYPE_ID: Final = "0-1"
_SUBSCRIPTION: Final = re.compile(r"(\w+)\.(\w+)")
# attemptNumber stays out, so that a retry has the id of the first attempt; eventId alone would not do.
_IDENTIFYING: Final = (
    "portalId", "subscriptionType", "objectId", "occurredAt", "propertyName", "propertyValue", "eventId",
)  # fmt: skip


_OBJECTS: Final = ("objectId", "newObjectId", "primaryObjectId", "fromObjectId")
"""Where a notification names its object; of mergers the one that remains, of associations the one they begin with."""
_TWO_OBJECTS: Final = (
    "fromObjectId", "toObjectId", "associationType", "associationRemoved", "primaryObjectId", "mergedObjectIds",
)  # fmt: skip
_MOST_MERGED: Final = 32


def decode(value: Any, options: FormatOptions) -> list[Outcome]:
    """All notifications of one delivery, in order."""
    return several(value, options, _events, _person_of)


def _events(fields: Fields, options: FormatOptions) -> Iterator[Outcome]:
    event = _event(fields, options)
    if fields.get("subscriptionType") == f"{CONTACT}.merge":
        yield from _merger(event, fields)
    else:
        yield event


def _person_of(fields: Fields) -> str | None:
    portal, number_ = readable_id(fields, "portalId"), readable_id(fields, *_OBJECTS)
    if portal is None or number_ is None:
        return None
    subscription = fields.get("subscriptionType")
    return _person(
        portal, number_, _object_type(subscription[:MAX_TEXT_CHARS] if isinstance(subscription, str) else "", fields)
    )


def _object_type(subscription: str, fields: Fields) -> str:
    kind = subscription.partition(".")[0] or CONTACT
    return CONTACT if kind == "object" and fields.get("objectTypeId") == CONTACT_TYPE_ID else kind


def _person(portal: str, object_id: str, object_type: str) -> str:
    # Ids are unique per object type only: company 7 must not become contact 7.
    return f"{portal}:{object_id}" if object_type == CONTACT else f"{portal}:{object_type}:{object_id}"


def _event(fields: Fields, options: FormatOptions) -> Event:
    subscription = required(text(fields, "subscriptionType"), "subscriptionType")
    portal = required(identity(fields, "portalId", numbers=True), "portalId")
    named = next((name for name in _OBJECTS if fields.get(name) is not None), "objectId")
    object_id = required(identity(fields, named, numbers=True), named)
    if fields.get("occurredAt") is None:
        raise Refused("missing_field", "occurredAt: missing")
    time_s = within(epoch_s(fields["occurredAt"], "occurredAt"), "occurredAt", options)
    match = _SUBSCRIPTION.fullmatch(subscription)
    if match is None:
        raise Refused("unknown_type", "subscriptionType: not of the form object.verb")
    object_type = _object_type(subscription, fields)
    subscription = f"{object_type}.{match[2]}"
    event = Event(_id(fields), OTHER, time_s, _person(portal, object_id, object_type))
    if subscription == f"{CONTACT}.propertyChange":
        _apply_change(event, fields, options)
    else:
        event.type = options.names["hubspot"].event(subscription)
    return event


def _merger(event: Event, fields: Fields) -> Iterator[Outcome]:
    """Contacts that became one are one person from then on: an event for each id that was given up."""
    given = fields.get("mergedObjectIds")
    ids = [fields.get("primaryObjectId"), fields.get("newObjectId"), *(given if isinstance(given, list) else ())]
    portal = event.person.partition(":")[0]
    known = [readable_id({"id": number_}, "id") for number_ in ids[:_MOST_MERGED]]
    people = dict.fromkeys(_person(portal, number_, CONTACT) for number_ in known if number_ is not None)
    others = [person for person in people if person != event.person]
    event.also_person = others[0] if others else None
    yield event
    for at, other in enumerate(others[1:], 1):
        yield Event(f"{event.id}:{at}", event.type, event.time, event.person, also_person=other)


def _id(fields: Fields) -> str:
    # Oversized and odd values hash like any other; only equality matters.
    names = _IDENTIFYING if fields.get("objectId") is not None else _IDENTIFYING + _TWO_OBJECTS
    parts = msgspec.json.encode([str(fields.get(name))[:4096] for name in names])
    return hashlib.blake2b(parts, digest_size=16).hexdigest()


def _apply_change(event: Event, fields: Fields, options: FormatOptions) -> None:
    name = required(text(fields, "propertyName"), "propertyName")
    value = fields.get("propertyValue")
    if value is None or value == "":
        return  # the property was cleared: well-formed, and no statement about the lead
    if name in options.hubspot_score_properties:
        event.type, event.properties = "lead_scored", _score(name, value)
        return
    word = str(value).lower() if isinstance(value, str | bool) else ""
    event.type = options.names["hubspot"].changes.get(name, {}).get(word, OTHER)
    if event.type in {"lead_rejected", "lead_lost"}:
        event.properties = {"reason": word}
    label = options.names["hubspot"].labels.get(name)
    if label in options.labels and word:
        event.segment = {label: word}


def _score(model: str, value: object) -> dict[str, Value]:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError as error:
            raise Refused("bad_field", "propertyValue: a score must be a number") from error
    return {"score": number(value, "propertyValue"), "model": model}


def recognises(value: Any) -> bool:
    """Notifications name their subscription; one of an array is enough, the others are refused one by one."""
    items = value if isinstance(value, list) else [value]
    return any(isinstance(item, dict) and "subscriptionType" in item for item in items)


FORMAT: Final = Format(
    name="hubspot",
    takes="HubSpot CRM webhooks: a JSON array of change notifications, or a single one.",
    spec='"Webhooks API" of HubSpot\'s developer documentation, section on the fields of a notification; "Generic'
    ' webhook subscriptions" for `object.*` with an `objectTypeId`',
    decode=decode,
    recognises=recognises,
    coverage=(
        ("contact.propertyChange of `ingest.hubspot_score_properties`", "lead_scored", "score, model = the property"),
        ("contact.merge", "other", "joins the ids of the contacts"),
        ("other subscriptions and property values", "other", ""),
    ),
)

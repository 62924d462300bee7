"""HubSpot CRM webhooks: a JSON array of change notifications.

Spec: "Webhooks API" of HubSpot's developer documentation (section on the fields of a notification), and "Generic
webhook subscriptions" for `object.*` with an `objectTypeId`. Traps that it states: notifications come unordered and
repeatedly, `eventId` is not unique, and there is no old value. Connectors often unpack the array, so a single
notification is taken as well.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final

import msgspec

from streams.events import OTHER, Event, Outcome, Value
from streams.formats._common import (
    Fields,
    FormatOptions,
    Refused,
    attempt,
    each,
    epoch_s,
    identity,
    number,
    readable_id,
    required,
    text,
    within,
)

CONTACT: Final = "contact"
CONTACT_TYPE_ID: Final = "0-1"
_SUBSCRIPTION: Final = re.compile(r"(\w+)\.(\w+)")
# attemptNumber stays out, so that a retry has the id of the first attempt; eventId alone would not do.
_IDENTIFYING: Final = (
    "portalId", "subscriptionType", "objectId", "occurredAt", "propertyName", "propertyValue", "eventId",
)  # fmt: skip


def decode(value: Any, options: FormatOptions) -> list[Outcome]:
    """All notifications of one delivery, in order."""
    if isinstance(value, list):
        return each(value, options, lambda position, item: _one(item, options, position), _person_of)
    return [_one(value, options)]


def _one(item: object, options: FormatOptions, position: int | None = None) -> Outcome:
    return attempt(_event, _person_of, item, options, position)


def _person_of(fields: Fields) -> str | None:
    portal, number_ = readable_id(fields, "portalId"), readable_id(fields, "objectId")
    if portal is None or number_ is None:
        return None
    subscription = fields.get("subscriptionType")
    return _person(portal, number_, _object_type(subscription if isinstance(subscription, str) else "", fields))


def _object_type(subscription: str, fields: Fields) -> str:
    kind = subscription.partition(".")[0] or CONTACT
    return CONTACT if kind == "object" and fields.get("objectTypeId") == CONTACT_TYPE_ID else kind


def _person(portal: str, object_id: str, object_type: str) -> str:
    # Ids are unique per object type only: company 7 must not become contact 7.
    return f"{portal}:{object_id}" if object_type == CONTACT else f"{portal}:{object_type}:{object_id}"


def _event(fields: Fields, options: FormatOptions) -> Event:
    subscription = required(text(fields, "subscriptionType"), "subscriptionType")
    portal = required(identity(fields, "portalId", numbers=True), "portalId")
    object_id = required(identity(fields, "objectId", numbers=True), "objectId")
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
        event.type = options.names.subscriptions.get(subscription, OTHER)
    return event


def _id(fields: Fields) -> str:
    # Oversized and odd values hash like any other; only equality matters.
    parts = msgspec.json.encode([str(fields.get(name))[:4096] for name in _IDENTIFYING])
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
    event.type = options.names.changes.get(name, {}).get(word, OTHER)
    if event.type in {"lead_rejected", "lead_lost"}:
        event.properties = {"reason": word}
    label = options.names.labels.get(name)
    if label in options.labels and word:
        event.segment = {label: word}


def _score(model: str, value: object) -> dict[str, Value]:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError as error:
            raise Refused("bad_field", "propertyValue: a score must be a number") from error
    return {"score": number(value, "propertyValue"), "model": model}

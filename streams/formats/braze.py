"""Braze Currents: events of message engagement, as its HTTP connector posts them.

Spec: "Message engagement events" (custom HTTP connector) of Braze's documentation on Currents, which RudderStack's
Braze source takes, too. `id` is the event's id. The same events without the envelope `events` are taken as well.
"""

from __future__ import annotations

from typing import Any, Final

from streams.events import Event, Outcome, Rejection
from streams.formats._common import Fields, FormatOptions, attempt, each, identity, required, text
from streams.formats._email import address, campaign, event_type, has_any, inner, mail_event, people, when_s, whom
from streams.formats._format import Format


def decode(value: Any, options: FormatOptions) -> list[Outcome]:
    """All events of one delivery, or of an array of deliveries, in order."""
    if isinstance(value, list) and any(isinstance(item, dict) and "events" in item for item in value):
        value = {"events": [item for delivery in value for item in _items(delivery)]}
    items = value.get("events") if isinstance(value, dict) and "events" in value else value
    if isinstance(items, list):
        return each(items, options, lambda at, item: attempt(_event, _person_of, item, options, at), _person_of)
    if items is not value:
        return [Rejection("bad_field", "events: an array was expected")]
    return [attempt(_event, _person_of, value, options)]


def _items(delivery: Any) -> list[Any]:
    """What a delivery of an array holds; anything else stands for itself, to be refused."""
    items = delivery.get("events") if isinstance(delivery, dict) else None
    return items if isinstance(items, list) else [delivery]


def _user_of(fields: Fields) -> Fields:
    return inner(fields, "user") or fields


def _person_of(fields: Fields) -> str | None:
    return whom(_user_of(fields), "user_id", "external_user_id")


def _event(fields: Fields, options: FormatOptions) -> Event:
    name = required(text(fields, "event_type"), "event_type")
    user, told = _user_of(fields), inner(fields, "properties") or fields
    who = people("user.user_id or user.external_user_id", address(user, "user_id"), address(user, "external_user_id"))
    kind = event_type(name, options.names["braze"], (told,))
    labels = campaign(options, told.get("campaign_name"), told.get("canvas_name"))
    given = required(identity(fields, "id"), "id")
    return mail_event(given, kind, when_s(fields, "time", options), who, labels)


def recognises(value: Any) -> bool:
    """`event_type`, in an array `events` or beside a user and a time."""
    return has_any(value, _is_event) or has_any(value, lambda item: has_any(item.get("events"), _has_type))


def _is_event(item: Fields) -> bool:
    return "event_type" in item and "time" in item and ("user" in item or "user_id" in item)


def _has_type(item: Fields) -> bool:
    return "event_type" in item


FORMAT: Final = Format(
    name="braze",
    takes="Braze Currents: an object with `events`, an array of them, or a single one.",
    spec='"Message engagement events" (custom HTTP connector) of Braze\'s documentation on Currents; "Braze source" of'
    " RudderStack's",
    decode=decode,
    recognises=recognises,
    coverage=(
        ("users.messages.email.Open with `machine_open`", "other", "a machine opened it"),
        ("other channels, users.behaviors.*, users.campaigns.*", "other", ""),
        ("`user_id`", "person", "`external_user_id` also_person"),
        ("`campaign_name`, else `canvas_name`", "label campaign", ""),
    ),
)

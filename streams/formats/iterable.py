"""Iterable's system webhooks: one event about one message.

Spec: "System Webhooks" of Iterable's support centre, which RudderStack's Iterable source takes, too. Iterable gives
events no id: one is made of message, recipient, event, link and time.
"""

from __future__ import annotations

from typing import Any, Final

from streams.events import Event, Outcome
from streams.formats._common import Fields, FormatOptions, attempt, each, required, text
from streams.formats._email import (
    address,
    campaign,
    digest,
    event_type,
    has_any,
    inner,
    mail_event,
    people,
    when_s,
    whom,
)
from streams.formats._format import Format

_IDENTIFYING: Final = ("messageId", "createdAt", "email", "userId", "linkId", "url", "campaignId", "templateId")


def decode(value: Any, options: FormatOptions) -> list[Outcome]:
    """One event, or all of an array."""
    if isinstance(value, list):
        return each(value, options, lambda at, item: attempt(_event, _person_of, item, options, at), _person_of)
    return [attempt(_event, _person_of, value, options)]


def _person_of(fields: Fields) -> str | None:
    return whom(fields, "email", "userId") or whom(inner(fields, "dataFields"), "email", "userId")


def _event(fields: Fields, options: FormatOptions) -> Event:
    name = required(text(fields, "eventName"), "eventName")
    data = inner(fields, "dataFields")
    who = people(
        "email or userId",
        address(fields, "email") or address(data, "email"),
        address(fields, "userId") or address(data, "userId"),
    )
    kind = event_type(name, options.names["iterable"], (data, fields))
    labels = campaign(options, data.get("campaignName"), data.get("campaignId"))
    place = data if data.get("createdAt") is not None else fields
    made = digest(name, *who, *(data.get(part) for part in _IDENTIFYING))
    return mail_event(made, kind, when_s(place, "createdAt", options), who, labels)


def recognises(value: Any) -> bool:
    """`eventName`, with fields of its own or an address."""
    return has_any(value, lambda item: "eventName" in item and not item.keys().isdisjoint({"dataFields", "email"}))


FORMAT: Final = Format(
    name="iterable",
    takes="Iterable's system webhooks: one event, or an array of them.",
    spec='"System Webhooks" of Iterable\'s support centre; "Iterable source" of RudderStack\'s documentation',
    decode=decode,
    recognises=recognises,
    coverage=(
        ("emailOpen with `proxySource` Apple, emailClick with `isBot`", "other", "a machine did it"),
        ("`email`", "person", "in lower case; `userId` also_person, or the person where there is no address"),
        ("`dataFields.campaignName`, else `campaignId`", "label campaign", ""),
    ),
)

"""Webhooks of HubSpot and SendGrid, and events of your own programs: their bodies stay as they are, item by item.

Spec: "Webhooks API" of HubSpot and "Event Webhook Reference" of SendGrid (JSON arrays); `/v1/events` takes one object,
an array of them, or JSON Lines (`application/x-ndjson`).
"""

from __future__ import annotations

from typing import Any, Final

from streams.collect.asked import Asked, Message, a_dict, an_id

HUBSPOT: Final = "/webhooks/hubspot"
SENDGRID: Final = "/webhooks/sendgrid"
EVENTS: Final = "/v1/events"
LINES: Final = "application/x-ndjson"
_IDS: Final = ("person", "anonymousId", "userId", "distinct_id", "domain_userid", "subject", "objectId", "email",
               "user_id")  # fmt: skip


def hubspot(asked: Asked) -> list[Message]:
    """One message a notification: they come in any order anyway, and those of one object stay together.

    Raises:
        Refused: 400.
    """
    return [asked.message(item, an_id(item.get("objectId"))) for item in asked.objects(asked.value, "the body")]


def sendgrid(asked: Asked) -> list[Message]:
    """One message an event, without the address it came from.

    Raises:
        Refused: 400.
    """
    items = asked.objects(asked.value, "the body")
    return [asked.message(_nowhere(item), an_id(item.get("email"))) for item in items]


def events(asked: Asked) -> list[Message]:
    """One message an object.

    Raises:
        Refused: 400.
    """
    if asked.headers.get("Content-Type", "").partition(";")[0].strip().lower() == LINES:
        lines = asked.body.split(b"\n", asked.max_items + 1)
        asked.require_items(lines[:-1])  # what follows the last line break may be nothing
        asked.value = [asked.parsed(line) for line in lines if line.strip()]
    value = asked.value
    items = asked.objects(value if type(value) is list else [value], "the body")
    return [asked.message(item, _person(item)) for item in items]


def _nowhere(item: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name != "ip"}


def _person(item: dict[str, Any]) -> str | None:
    """What looks like the id of a person in any of the formats; only their order depends on it."""
    inner = a_dict(item.get("data")) or a_dict(item.get("after")) or a_dict(item.get("properties"))
    return an_id(*(place.get(name) for place in (item, inner) for name in _IDS))

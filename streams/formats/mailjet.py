"""Mailjet's event webhooks, single or grouped in an array.

Spec: "Event API: real-time notifications" (webhooks) of Mailjet's developer guides, which RudderStack's Mailjet source
takes, too. Mailjet gives events no id: one is made of message, recipient, event and time.
"""

from __future__ import annotations

from typing import Any, Final

from streams.events import Event, Outcome
from streams.formats._common import Fields, FormatOptions, attempt, each, required, text
from streams.formats._email import address, campaign, digest, event_type, has_any, mail_event, people, when_s, whom
from streams.formats._format import Format

_OWN_FIELDS: Final = ("Message_GUID", "MessageID", "mj_campaign_id", "mj_contact_id", "mj_message_id")
_IDENTIFYING: Final = ("Message_GUID", "MessageID", "mj_message_id", "email", "mj_contact_id", "event", "time", "url")


def decode(value: Any, options: FormatOptions) -> list[Outcome]:
    """All events of one delivery, in order."""
    if isinstance(value, list):
        return each(value, options, lambda at, item: attempt(_event, _person_of, item, options, at), _person_of)
    return [attempt(_event, _person_of, value, options)]


def _person_of(fields: Fields) -> str | None:
    return whom(fields, "email")


def _event(fields: Fields, options: FormatOptions) -> Event:
    name = required(text(fields, "event"), "event")
    contact = address(fields, "mj_contact_id")
    who = people("email or mj_contact_id", address(fields, "email"), contact and f"mailjet:{contact}")
    kind = event_type(name, options.names["mailjet"], (fields,))
    labels = campaign(options, fields.get("customcampaign"), fields.get("mj_campaign_id"))
    made = digest(*(fields.get(part) for part in _IDENTIFYING))
    return mail_event(made, kind, when_s(fields, "time", options), who, labels)


def recognises(value: Any) -> bool:
    """An `event` beside one of Mailjet's own fields."""
    return has_any(value, lambda item: "event" in item and any(field in item for field in _OWN_FIELDS))


FORMAT: Final = Format(
    name="mailjet",
    takes="Mailjet's event webhooks: one e-mail event, or an array of them.",
    spec='"Event API: real-time notifications" of Mailjet\'s developer guides; "Mailjet source" of RudderStack\'s',
    decode=decode,
    recognises=recognises,
    coverage=(
        ("open by an agent that is only `Mozilla/5.0`", "other", "Apple's Mail Privacy Protection; Mailjet marks none"),
        ("`email`", "person", "in lower case; `mj_contact_id` also_person"),
        ("`customcampaign`, else `mj_campaign_id`", "label campaign", ""),
    ),
)

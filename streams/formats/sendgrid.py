"""SendGrid's event webhook: an array of what became of messages.

Spec: "Event Webhook Reference" of Twilio SendGrid's documentation. Deliveries come at least once: `sg_event_id` is the
event's id, so a repeat is a duplicate. `sg_machine_open` marks opens by Apple's Mail Privacy Protection.
"""

from __future__ import annotations

from typing import Any, Final

from streams.events import Event, Outcome
from streams.formats._common import Fields, FormatOptions, attempt, each, required, text
from streams.formats._email import address, campaign, digest, event_type, has_any, mail_event, people, when_s, whom
from streams.formats._format import Format

_OWN_IDS: Final = ("user_id", "userId", "customer_id", "contact_id", "contactId")
"""Custom arguments that senders put beside SendGrid's own fields to say who it was."""


def decode(value: Any, options: FormatOptions) -> list[Outcome]:
    """All events of one delivery, in order; a single one is taken as well, since connectors unpack the array."""
    if isinstance(value, list):
        return each(value, options, lambda at, item: attempt(_event, _person_of, item, options, at), _person_of)
    return [attempt(_event, _person_of, value, options)]


def _person_of(fields: Fields) -> str | None:
    return whom(fields, "email")


def _event(fields: Fields, options: FormatOptions) -> Event:
    name = required(text(fields, "event"), "event")
    who = people("email", address(fields, "email"), address(fields, *_OWN_IDS))
    time_s = when_s(fields, "timestamp", options)
    given = text(fields, "sg_event_id")
    labels = campaign(
        options, fields.get("marketing_campaign_name"), fields.get("singlesend_name"), fields.get("category")
    )
    kind = event_type(name, options.names["sendgrid"], (fields,))
    if given is None:
        given = digest(*(fields.get(part) for part in ("sg_message_id", "event", "timestamp", "email", "url")))
    return mail_event(given, kind, time_s, who, labels)


def recognises(value: Any) -> bool:
    """SendGrid's own ids give it away; one item of an array is enough, the others are refused one by one."""
    return has_any(value, _is_sendgrid)


def _is_sendgrid(item: Fields) -> bool:
    return "sg_event_id" in item or ("event" in item and ("sg_message_id" in item or "smtp-id" in item))


FORMAT: Final = Format(
    name="sendgrid",
    takes="SendGrid's event webhook: a JSON array of e-mail events, or a single one.",
    spec='"Event Webhook Reference" and "Understanding Apple Mail Privacy Protection and Open Events" of Twilio'
    " SendGrid's documentation",
    decode=decode,
    recognises=recognises,
    coverage=(
        ("open with `sg_machine_open`, or by an agent that is only `Mozilla/5.0`", "other", "a machine opened it"),
        ("processed, deferred, bounce, dropped, group_resubscribe, …", "other", ""),
        ("`email`", "person", "in lower case; `user_id`, `customer_id` or `contact_id` also_person"),
        ("`marketing_campaign_name`, `singlesend_name` or the first `category`", "label campaign", ""),
    ),
)

"""Customer.io's reporting webhooks: one event about one message or customer.

Spec: "Reporting Webhooks" and "Reporting Webhooks API" of Customer.io's documentation, which RudderStack's Customer.io
source takes, too. `event_id` is the event's id. An unsubscription is told twice, by the message and by the customer:
both have one id here, made of customer and second.
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
    mailbox,
    people,
    when_s,
    whom,
)
from streams.formats._format import Format


def decode(value: Any, options: FormatOptions) -> list[Outcome]:
    """One event, or all of an array."""
    if isinstance(value, list):
        return each(value, options, lambda at, item: attempt(_event, _person_of, item, options, at), _person_of)
    return [attempt(_event, _person_of, value, options)]


def _person_of(fields: Fields) -> str | None:
    data = inner(fields, "data")
    known = inner(data, "identifiers")
    return (
        whom(known, "id")
        or whom(data, "customer_id")
        or mailbox(data, "recipient", "email_address")
        or whom(known, "email", "cio_id")
    )


def _event(fields: Fields, options: FormatOptions) -> Event:
    about, metric = required(text(fields, "object_type"), "object_type"), required(text(fields, "metric"), "metric")
    data = inner(fields, "data")
    known = inner(data, "identifiers")
    who = people(
        "data.identifiers, data.customer_id or data.recipient",
        address(known, "id") or address(data, "customer_id"),
        # Recipients of other channels are a Slack channel or a URL, which many customers share.
        mailbox(data, "recipient", "email_address") or address(known, "email"),
        address(known, "cio_id"),
    )
    time_s = when_s(fields, "timestamp", options)
    kind = event_type(f"{about}.{metric}", options.names["customerio"], (data, fields))
    labels = campaign(options, *(data.get(part) for part in ("campaign_id", "broadcast_id", "newsletter_id")))
    given = text(fields, "event_id") or digest(about, metric, time_s, *who, data.get("delivery_id"), data.get("href"))
    if kind == "unsubscribed":
        given = digest(kind, who[0], int(time_s))
    return mail_event(given, kind, time_s, who, labels)


def recognises(value: Any) -> bool:
    """`object_type` and `metric`."""
    return has_any(value, lambda item: "object_type" in item and "metric" in item)


FORMAT: Final = Format(
    name="customerio",
    takes="Customer.io's reporting webhooks: one event, or an array of them.",
    spec='"Reporting Webhooks" and its API reference of Customer.io\'s documentation; "Customer.io source" of'
    " RudderStack's",
    decode=decode,
    recognises=recognises,
    coverage=(
        ("email.opened with `prefetched`", "other", "a machine opened it"),
        ("push, sms, slack, webhook and in-app messages", "other", ""),
        ("`identifiers.id`, else `customer_id`", "person", "`recipient` also_person, if it is an address"),
        ("`campaign_id`, `broadcast_id` or `newsletter_id`", "label campaign", ""),
    ),
)

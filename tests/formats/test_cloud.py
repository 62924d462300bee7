"""Track calls that RudderStack's cloud sources make of e-mail and survey webhooks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streams.events import OTHER, Event
from streams.formats import FormatOptions, decode
from streams.settings import Settings

OPTIONS = FormatOptions.from_settings(Settings(), 1_800_000_000.0)


def track(service: str, name: str, properties: dict[str, Any] | None = None, **context: Any) -> Event:
    call = {
        "type": "track", "event": name, "messageId": f"m-{service}-{name}", "userId": "5b6a3426", "anonymousId": "a-1",
        "originalTimestamp": "2023-07-22T04:26:40.000Z", "timestamp": "2023-07-22T04:26:40.000Z",
        "context": {"integration": {"name": service}, "library": {"name": "unknown"}} | context,
        "properties": properties or {},
    }  # fmt: skip
    outcomes = [decode(json.dumps(call).encode(), fmt, OPTIONS)[0] for fmt in (None, "segment")]
    assert outcomes[0] == outcomes[1]
    assert isinstance(outcomes[0], Event), outcomes[0]
    return outcomes[0]


@pytest.mark.parametrize(
    ("service", "name", "kind"),
    [
        ("MailJet", "sent", "email_sent"), ("MailJet", "open", "email_opened"), ("MailJet", "click", "email_clicked"),
        ("MailJet", "bounce", OTHER), ("Iterable", "emailSend", "email_sent"),
        ("Iterable", "emailOpen", "email_opened"), ("Iterable", "emailUnSubscribe", "unsubscribed"),
        ("Iterable", "inAppSendSkip", OTHER),
        ("Customer.io", "Email Sent", "email_sent"), ("Customer.io", "Email Delivered", OTHER),
        ("Customer.io", "Email Link Clicked", "email_clicked"), ("Customer.io", "Email Marked as Spam", "complained"),
        ("Customer.io", "Customer Unsubscribed", "unsubscribed"), ("Customer.io", "Push Link Clicked", OTHER),
        ("Customer.io", "Unknown Event", OTHER), ("Braze", "users.messages.email.Open", "email_opened"),
        ("Braze", "Email Opened", "email_opened"), ("Braze", "users.messages.sms.Delivery", OTHER),
        ("SomeTracker", "click", "clicked"), ("SomeTracker", "Email Delivered", "email_sent"),
    ],
)  # fmt: skip
def test_a_name_means_what_it_means_with_its_service(service: str, name: str, kind: str) -> None:
    assert track(service, name).type == kind


def test_machine_opens_are_not_a_persons() -> None:
    assert track("Braze", "users.messages.email.Open", {"machine_open": True}).type == OTHER
    assert track("Iterable", "emailOpen", {"proxySource": "Apple"}).type == OTHER
    assert track("MailJet", "open", userAgent="Mozilla/5.0").type == OTHER
    assert track("MailJet", "open", userAgent="Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko").type == "email_opened"


def test_a_linked_page_is_none_that_was_seen() -> None:
    found = track("MailJet", "click", {"url": "https://shop.test/x"}, page={"url": "https://shop.test/x"})
    assert (found.page, found.properties, found.person, found.also_person) == (None, {}, "a-1", "5b6a3426")


def bare(service: str, properties: dict[str, Any] | None = None, context: Any = None, **fields: Any) -> Any:
    """A call as the transformation of a webhook gives it, before RudderStack's servers add an id and times."""
    told = {
        "type": "track", "event": "open", "context": {"integration": {"name": service}} | (context or {}),
        "properties": properties or {}, "originalTimestamp": "2023-07-22T04:26:40.000Z",
    } | fields  # fmt: skip
    (outcome,) = decode(json.dumps(told).encode(), None, OPTIONS)
    return outcome


def test_a_call_without_an_id_gets_one_of_its_content() -> None:
    first, again, other = (bare("MailJet", {"ID": at}, userId="u") for at in (1, 1, 2))
    assert (first.type, first.id, len({first.id, other.id})) == ("email_opened", again.id, 2)
    assert bare("web", userId="u").reason == "missing_field"
    assert bare("Refiner", userId="u", type="identify", event=None).type == OTHER


def test_nobody_known_to_satismeter_is_the_same_as_another() -> None:
    given = {"answers": [{"metric": "nps", "value": 3}], "receivedAt": "2023-07-22T04:26:40.000Z"}
    parts: dict[str, Any] = {"event": "Survey completed", "originalTimestamp": None, "userId": "No response"}
    found = bare("SATISMETER", given, anonymousId="a-1", **parts)
    assert (found.type, found.person, found.also_person, found.time) == ("survey_answered", "a-1", None, 1_690_000_000)
    by_mail = bare("SATISMETER", given, {"traits": {"email": "Anna@example.test"}}, anonymousId="a-1", **parts)
    assert by_mail.also_person == "anna@example.test"
    assert bare("SATISMETER", given, **parts).reason == "missing_field"


def test_mailjet_names_a_contact_where_there_is_no_address() -> None:
    found = bare("MailJet", context={"externalId": [7, {"type": "mailjetContactId", "id": 399}]})
    assert (found.type, found.person) == ("email_opened", "mailjet:399")


@pytest.mark.parametrize("recipient", ["#signups", "https://hooks.test/x@y", 7, None])
def test_what_is_no_address_joins_nobody(recipient: Any) -> None:
    found = bare("Customer.io", context={"traits": {"email": recipient}}, userId="c-7", event="Slack Message Sent")
    assert (found.type, found.person, found.also_person) == (OTHER, "c-7", None)


@pytest.mark.parametrize(
    ("service", "name", "properties", "kind", "score"),
    [
        ("SATISMETER", "Survey completed", {"answers": [{"metric": "csat", "value": 4}, {"metric": "nps", "value": 3}]},
         "survey_answered", {"kind": "nps", "score": 3.0, "scale_max": 10.0}),
        ("SATISMETER", "Survey completed", {"answers": [{"value": "Anna"}]}, OTHER, {}),
        ("SATISMETER", "Survey dismissed", {"answers": [{"metric": "nps", "value": 3}]}, OTHER, {}),
        ("Refiner", "Completed Survey", {"response": {"data": {"csat": "4", "why": "Anna"}}},
         "survey_answered", {"kind": "csat", "score": 4.0, "scale_max": 5.0}),
        ("Refiner", "Completed Survey", {"response": {"data": {"rating": 8}}, "refiner_form_name": "Our NPS"},
         "survey_answered", {"kind": "nps", "score": 8.0, "scale_max": 10.0}),
        ("Refiner", "Completed Survey", {"response": {"data": {"why": "Anna"}}}, OTHER, {}),
    ],
)  # fmt: skip
def test_surveys_give_their_score(
    service: str, name: str, properties: dict[str, Any], kind: str, score: dict[str, Any]
) -> None:
    found = track(service, name, properties)
    assert (found.type, found.properties) == (kind, score)


def test_calls_of_a_batch_are_told_apart_one_by_one() -> None:
    calls = [
        {"type": "track", "event": "click", "messageId": f"m{at}", "userId": "u", "timestamp": "2023-07-22T04:26:40Z",
         "context": {"integration": {"name": service}}}
        for at, service in enumerate(["MailJet", "web"])
    ]  # fmt: skip
    found = decode(json.dumps({"batch": calls}).encode(), None, OPTIONS)
    assert [one.type for one in found if isinstance(one, Event)] == ["email_clicked", "clicked"]

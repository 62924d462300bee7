"""E-mail services' webhooks: Mailjet, Iterable, Customer.io, Braze."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streams.events import OTHER, Event, Rejection
from streams.formats import FormatOptions, decode
from streams.settings import Settings

NOW_S = 1_800_000_000.0
TIME_S = 1_690_000_000.0
OPTIONS = FormatOptions.from_settings(Settings(), NOW_S)


def mailjet(event: Any = "sent", **changes: Any) -> dict[str, Any]:
    return {
        "event": event, "time": int(TIME_S), "MessageID": 19421777835146490, "email": "Anna@example.test",
        "Message_GUID": "1ab23cd4-e567-8901-2345-6789f0gh1i2j", "mj_campaign_id": 7257, "mj_contact_id": 4,
        "customcampaign": "spring", "CustomID": "order-1", "Payload": "",
    } | changes  # fmt: skip


def iterable(event: str = "emailSend", data: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    fields = {
        "campaignId": 59, "campaignName": "spring", "messageId": "0fb8c1f0", "templateId": 93,
        "createdAt": "2023-07-22 04:26:40 +00:00", "email": "Anna@example.test", "emailSubject": "Hello Anna",
    } | (data or {})  # fmt: skip
    return {"email": "Anna@example.test", "eventName": event, "dataFields": fields} | changes


def customerio(metric: str = "sent", about: str = "email", data: dict[str, Any] | None = None, **changes: Any) -> Any:
    fields = {
        "customer_id": "c-7", "identifiers": {"id": "c-7", "cio_id": "d9c1"}, "delivery_id": "RPILAg",
        "campaign_id": 23, "recipient": "Anna@example.test", "subject": "Hello Anna",
    } | (data or {})  # fmt: skip
    return {
        "event_id": "01E2EMRMM6", "object_type": about, "metric": metric, "timestamp": int(TIME_S), "data": fields,
    } | changes  # fmt: skip


def braze(event: str = "users.messages.email.Send", **properties: Any) -> dict[str, Any]:
    one = {
        "id": "b1", "event_type": event, "time": int(TIME_S),
        "user": {"user_id": "5f0c", "external_user_id": "c-7", "timezone": "Europe/Berlin"},
        "properties": {"campaign_name": "spring", "email_address": "anna@example.test"} | properties,
    }  # fmt: skip
    return {"events": [one]}


def event(message: Any) -> Event:
    (outcome,) = decode(json.dumps(message).encode(), None, OPTIONS)
    assert isinstance(outcome, Event), outcome
    return outcome


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (mailjet(), "email_sent"), (mailjet("open"), "email_opened"), (mailjet("click"), "email_clicked"),
        (mailjet("bounce"), OTHER), (mailjet("blocked"), OTHER), (mailjet("spam"), "complained"),
        (mailjet("unsub"), "unsubscribed"), (mailjet("new"), OTHER),
        (iterable(), "email_sent"), (iterable("emailOpen"), "email_opened"), (iterable("emailClick"), "email_clicked"),
        (iterable("emailBounce"), OTHER), (iterable("emailComplaint"), "complained"),
        (iterable("emailUnSubscribe"), "unsubscribed"), (iterable("hostedUnsubscribeClick"), OTHER),
        (iterable("emailSubscribe"), OTHER), (iterable("smsReceived"), OTHER), (iterable("pushOpen"), OTHER),
        (customerio(), "email_sent"), (customerio("delivered"), OTHER), (customerio("opened"), "email_opened"),
        (customerio("human_opened"), OTHER), (customerio("clicked"), "email_clicked"),
        (customerio("spammed"), "complained"), (customerio("unsubscribed"), "unsubscribed"),
        (customerio("unsubscribed", "customer"), "unsubscribed"), (customerio("bounced"), OTHER),
        (customerio("clicked", "sms"), OTHER), (customerio("sent", "push"), OTHER),
        (customerio("subscribed", "customer"), OTHER),
        (braze(), "email_sent"), (braze("users.messages.email.Delivery"), OTHER),
        (braze("users.messages.email.Open"), "email_opened"), (braze("users.messages.email.Click"), "email_clicked"),
        (braze("users.messages.email.MarkAsSpam"), "complained"),
        (braze("users.messages.email.Unsubscribe"), "unsubscribed"),
        (braze("users.messages.pushnotification.Send"), OTHER), (braze("users.messages.inappmessage.Click"), OTHER),
    ],
)  # fmt: skip
def test_events_become_our_types(message: Any, kind: str) -> None:
    assert event(message).type == kind


@pytest.mark.parametrize(
    ("message", "person", "also_person", "campaign"),
    [
        (mailjet(), "anna@example.test", "mailjet:4", "spring"),
        (mailjet(email=None, customcampaign=""), "mailjet:4", None, "7257"),
        (iterable(), "anna@example.test", None, "spring"),
        (iterable(userId="c-7"), "anna@example.test", "c-7", "spring"),
        (iterable(email=None, userId="c-7", data={"email": None, "campaignName": None}), "c-7", None, "59"),
        (customerio(), "c-7", "anna@example.test", "23"),
        (customerio(data={"identifiers": None, "customer_id": ""}), "anna@example.test", None, "23"),
        (braze(), "5f0c", "c-7", "spring"),
    ],
)
def test_person_second_id_time_and_campaign(message: Any, person: str, also_person: str | None, campaign: str) -> None:
    found = event(message)
    assert (found.person, found.also_person, found.segment) == (person, also_person, {"campaign": campaign})
    assert (found.time, found.properties, found.page) == (TIME_S, {}, None)


@pytest.mark.parametrize(
    "message",
    [
        mailjet("open", agent="Mozilla/5.0"),
        iterable("emailOpen", {"proxySource": "Apple"}),
        iterable("emailClick", {"isBot": True}),
        customerio("opened", data={"prefetched": True}),
        braze("users.messages.email.Open", machine_open="true"),
        braze("users.messages.email.Open", machine_open=True),
    ],
)
def test_machine_opens_are_not_a_persons(message: Any) -> None:
    assert event(message).type == OTHER


@pytest.mark.parametrize(
    "message",
    [
        mailjet(
            "open", agent="Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"
        ),
        iterable("emailOpen", {"proxySource": "Google"}),
        customerio("opened", data={"prefetched": False}),
        braze("users.messages.email.Open", machine_open="false"),
    ],
)
def test_opens_through_a_proxy_are(message: Any) -> None:
    assert event(message).type == "email_opened"


@pytest.mark.parametrize(
    ("first", "other"),
    [
        (mailjet(), mailjet("open")), (mailjet("click", url="a"), mailjet("click", url="b")),
        (iterable(), iterable(data={"createdAt": "2023-07-22 04:26:41 +00:00"})),
        (iterable("emailClick", {"linkId": "1"}), iterable("emailClick", {"linkId": "2"})),
        (customerio(), customerio(event_id="01E2EMRMM7")),
        (customerio(event_id=None), customerio("opened", event_id=None)),
    ],
)  # fmt: skip
def test_a_repeat_has_the_same_id_and_another_event_has_not(first: Any, other: Any) -> None:
    assert event(first).id == event(first).id != event(other).id


@pytest.mark.parametrize(
    ("about", "recipient"),
    [("slack", "#signups"), ("webhook", "https://hooks.test/x@y"), ("push", "device"), ("email", "nobody")],
)
def test_a_channel_that_many_share_is_no_second_id(about: str, recipient: str) -> None:
    told = event(customerio("sent", about, {"recipient": recipient, "identifiers": {"id": "c-7"}}))
    assert (told.person, told.also_person) == ("c-7", None)
    nobody = customerio("sent", about, {"recipient": recipient, "identifiers": {}, "customer_id": None})
    (refused,) = decode(json.dumps(nobody).encode(), None, OPTIONS)
    assert isinstance(refused, Rejection)
    assert (refused.reason, refused.person) == ("missing_field", None)


def test_customer_io_tells_of_one_unsubscription_twice_and_it_counts_once() -> None:
    by_mail, by_customer = customerio("unsubscribed"), customerio("unsubscribed", "customer", event_id="01E2EMRMM9")
    assert event(by_mail).id == event(by_customer).id
    assert event(by_mail).id != event(customerio("unsubscribed", timestamp=int(TIME_S) + 5)).id


@pytest.mark.parametrize("time", ["1690000000", 1_690_000_000, 1_690_000_000_000, "2023-07-22T04:26:40Z"])
def test_times_come_as_numbers_and_texts(time: Any) -> None:
    assert event(customerio(timestamp=time)).time == TIME_S


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (mailjet(time=None), "missing_field"), (mailjet(time="abc"), "bad_time"),
        (mailjet(email=None, mj_contact_id=None), "missing_field"), (mailjet(event=7), "bad_field"),
        (iterable(data={"createdAt": "abc"}), "bad_time"), (iterable(data={"createdAt": None}), "missing_field"),
        (iterable(eventName=None), "missing_field"), (iterable(email=None, data={"email": None}), "missing_field"),
        (customerio(timestamp="abc"), "bad_time"), (customerio(metric=""), "missing_field"),
        (customerio(data={"customer_id": None, "identifiers": {}, "recipient": None}), "missing_field"),
        ({"events": [{"event_type": "users.messages.email.Open"}]}, "missing_field"),
    ],
)  # fmt: skip
def test_a_wrong_event_is_refused_with_its_reason(message: Any, reason: str) -> None:
    (refused,) = decode(json.dumps(message).encode(), None, OPTIONS)
    assert isinstance(refused, Rejection), refused
    assert refused.reason == reason
    assert "anna" not in refused.detail.lower()


@pytest.mark.parametrize("message", [mailjet(), iterable(), customerio()])
def test_grouped_events_keep_their_order_with_garbage_between(message: Any) -> None:
    outcomes = decode(json.dumps([message, None, message]).encode(), None, OPTIONS)
    assert [type(one) for one in outcomes] == [Event, Rejection, Event]


def test_events_of_braze_are_taken_with_and_without_their_envelope() -> None:
    batch = {"events": braze()["events"] + [7] + braze("users.messages.email.Open")["events"]}
    kinds = [getattr(one, "type", "refused") for one in decode(json.dumps(batch).encode(), None, OPTIONS)]
    assert kinds == ["email_sent", "refused", "email_opened"]
    assert event(braze()["events"]) == event(braze()["events"][0]) == event(braze())
    flat = {"id": "b1", "event_type": "users.messages.email.Send", "time": 1_690_000_000, "user_id": "5f0c"}
    assert event(flat).person == "5f0c"
    told = decode(json.dumps([braze(), 7, braze("users.messages.email.Open")]).encode(), None, OPTIONS)
    assert [getattr(one, "type", "refused") for one in told] == kinds
    (refused,) = decode(b'{"events":7}', "braze", OPTIONS)
    assert isinstance(refused, Rejection)

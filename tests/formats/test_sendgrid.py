"""SendGrid's event webhook."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streams.events import OTHER, Event, Rejection
from streams.formats import FormatOptions, decode
from streams.settings import Settings

NOW_S = 1_800_000_000.0
OPTIONS = FormatOptions.from_settings(Settings(), NOW_S)
DELIVERED: dict[str, Any] = {
    "email": "anna@example.test", "timestamp": 1_690_000_000, "smtp-id": "<a1@mail.example.test>", "event": "delivered",
    "category": ["spring sale"], "sg_event_id": "ZGVsaXZlcmVkLTA", "sg_message_id": "bWVzc2FnZS0w.filter.0",
    "response": "250 OK",
}  # fmt: skip


def event(**changes: Any) -> Event:
    (outcome,) = decode(json.dumps([DELIVERED | changes]).encode(), None, OPTIONS)
    assert isinstance(outcome, Event), outcome
    return outcome


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("processed", OTHER), ("deferred", OTHER), ("delivered", "email_sent"), ("bounce", OTHER), ("dropped", OTHER),
        ("open", "email_opened"), ("click", "email_clicked"), ("spamreport", "complained"),
        ("unsubscribe", "unsubscribed"), ("group_unsubscribe", "unsubscribed"), ("group_resubscribe", OTHER),
        ("something new", OTHER),
    ],
)  # fmt: skip
def test_events_become_our_types(name: str, kind: str) -> None:
    assert event(event=name).type == kind


def test_the_address_is_the_person_without_regard_to_case() -> None:
    assert event(email=" Anna@Example.test").person == "anna@example.test"
    assert (event(user_id="u-7").person, event(user_id="u-7").also_person) == ("anna@example.test", "u-7")


def test_time_campaign_and_nothing_else_of_a_message() -> None:
    found = event()
    assert (found.time, found.segment, found.properties, found.page) == (
        1_690_000_000.0, {"campaign": "spring sale"}, {}, None,
    )  # fmt: skip
    assert event(marketing_campaign_name="May").segment == {"campaign": "May"}
    assert event(category="alone").segment == {"campaign": "alone"}


@pytest.mark.parametrize(
    "by_machine", [{"sg_machine_open": True}, {"sg_machine_open": "true"}, {"useragent": "Mozilla/5.0"}]
)
def test_a_machines_open_is_no_open(by_machine: dict[str, Any]) -> None:
    assert event(event="open", **by_machine).type == OTHER
    assert event(event="open", sg_machine_open=False, useragent="Mozilla/5.0 (Macintosh)").type == "email_opened"


def test_a_repeat_has_the_same_id_and_another_event_has_not() -> None:
    assert event().id == event(response="250 again").id == "ZGVsaXZlcmVkLTA"
    assert event(sg_event_id=None).id == event(sg_event_id=None).id != event(sg_event_id=None, event="open").id


@pytest.mark.parametrize(
    ("changes", "reason", "person"),
    [
        ({"email": None}, "missing_field", None),
        ({"email": 1.5}, "bad_field", None),
        ({"timestamp": None}, "missing_field", "anna@example.test"),
        ({"timestamp": "yesterday"}, "bad_time", "anna@example.test"),
        ({"timestamp": 4_102_444_800}, "time_out_of_range", "anna@example.test"),
        ({"event": None}, "missing_field", "anna@example.test"),
        ({"event": 7}, "bad_field", "anna@example.test"),
    ],
)
def test_a_wrong_event_is_refused_with_its_reason(changes: dict[str, Any], reason: str, person: str | None) -> None:
    (refused,) = decode(json.dumps([DELIVERED | changes]).encode(), None, OPTIONS)
    assert isinstance(refused, Rejection)
    assert (refused.reason, refused.person) == (reason, person)
    assert "anna" not in refused.detail


def test_items_keep_their_order_and_a_single_event_is_taken() -> None:
    outcomes = decode(json.dumps([DELIVERED, 7, DELIVERED | {"event": "open"}]).encode(), None, OPTIONS)
    assert [type(one) for one in outcomes] == [Event, Rejection, Event]
    (old,) = decode(json.dumps([{k: v for k, v in DELIVERED.items() if k[:3] != "sg_"}]).encode(), None, OPTIONS)
    assert isinstance(old, Event)
    assert old.type == "email_sent"
    (single,) = decode(json.dumps(DELIVERED).encode(), None, OPTIONS)
    assert single == event()

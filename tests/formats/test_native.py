"""Native events: what is accepted, and each way to be refused."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from streams.events import CLOCK, EVENT_TYPES, Event, Rejection
from streams.formats import FormatOptions, decode
from streams.settings import Settings

NOW_S = 1_700_000_000.0
GOOD: dict[str, Any] = {"id": "e1", "type": "clicked", "time": NOW_S, "person": "anna"}


@pytest.fixture(scope="module")
def options() -> FormatOptions:
    return FormatOptions.from_settings(Settings(), NOW_S)


def one(options: FormatOptions, message: object, fmt: str | None = None) -> Event | Rejection:
    (outcome,) = decode(json.dumps(message).encode(), fmt, options)
    return outcome


def accepted(options: FormatOptions, **changes: Any) -> Event:
    outcome = one(options, GOOD | changes)
    assert isinstance(outcome, Event), outcome
    return outcome


def test_every_field_arrives(options: FormatOptions) -> None:
    event = accepted(
        options, device_time=NOW_S - 5, also_person="b", session="s", page="/p", stage="decide",
        segment={"channel": "email", "mood": "dropped"}, properties={"x": 3, "dead": True, "card_number": "dropped"},
    )  # fmt: skip
    assert msgspec.structs.asdict(event) == {
        "id": "e1", "type": "clicked", "time": NOW_S, "person": "anna", "device_time": NOW_S - 5, "also_person": "b",
        "session": "s", "page": "/p", "stage": "decide", "segment": {"channel": "email"},
        "properties": {"x": 3.0, "dead": True}, "page_id": None, "former": None,
    }  # fmt: skip


@pytest.mark.parametrize("kind", sorted(EVENT_TYPES))
def test_every_type_is_accepted_by_shape_alone(options: FormatOptions, kind: str) -> None:
    assert accepted(options, type=kind).type == kind


@pytest.mark.parametrize(
    "time",
    [1_577_836_800, 1_577_836_800.0, 1_577_836_800_000, "2020-01-01T00:00:00Z", "2020-01-01T01:00:00+01:00",
     "2020-01-01 00:00:00.000+00:00", "20200101T000000Z"],
)  # fmt: skip
def test_a_time_may_be_iso_seconds_or_milliseconds(options: FormatOptions, time: object) -> None:
    assert accepted(options, time=time).time == 1_577_836_800


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"time": "abc"}, "bad_time"),
        ({"time": True}, "bad_time"),
        ({"time": []}, "bad_time"),
        ({"time": "2020-01-01T00:00:00"}, "bad_time"),
        ({"time": "2020-01-01"}, "bad_time"),
        ({"time": "2020-13-01T00:00:00Z"}, "bad_time"),
        ({"time": "1970-01-01T00:00:00Z"}, "time_out_of_range"),
        ({"time": 0}, "time_out_of_range"),
        ({"time": -1e300}, "time_out_of_range"),
        ({"time": "2100-01-01T00:00:00Z"}, "time_out_of_range"),
        ({"time": NOW_S + 301}, "time_out_of_range"),
        ({"time": None}, "missing_field"),
        ({"id": None}, "missing_field"),
        ({"id": ""}, "missing_field"),
        ({"id": 7}, "bad_field"),
        ({"id": "x" * 513}, "bad_field"),
        ({"type": "teleported"}, "unknown_type"),
        ({"type": ["clicked"]}, "bad_field"),
        ({"device_time": "yesterday"}, "bad_time"),
        ({"page": 7}, "bad_field"),
        ({"segment": []}, "bad_field"),
        ({"segment": {"channel": {}}}, "bad_field"),
        ({"properties": "x"}, "bad_field"),
        ({"properties": {"x": "3"}}, "bad_field"),
        ({"properties": {"x": True}}, "bad_field"),
        ({"properties": {"dead": 1}}, "bad_field"),
        ({"properties": {"form": 1}}, "bad_field"),
        ({"properties": {"promised_at": "soon"}}, "bad_time"),
    ],
)
def test_a_wrong_field_is_refused_with_its_reason_and_the_person(
    options: FormatOptions, changes: dict[str, Any], reason: str
) -> None:
    outcome = one(options, GOOD | changes)
    assert isinstance(outcome, Rejection)
    assert (outcome.reason, outcome.person) == (reason, "anna")


def test_a_person_is_required(options: FormatOptions) -> None:
    assert one(options, {"id": "e", "type": "clicked", "time": NOW_S}) == Rejection(
        "missing_field", "person: missing or empty"
    )


def test_details_never_quote_values(options: FormatOptions) -> None:
    outcome = one(options, GOOD | {"time": "anna@example.org"})
    assert isinstance(outcome, Rejection)
    assert "anna" not in outcome.detail


def test_a_clock_needs_only_its_time(options: FormatOptions) -> None:
    assert one(options, {"type": "clock", "time": NOW_S}) == Event("", CLOCK, NOW_S, "")


def test_a_clock_from_the_future_is_refused_as_it_would_close_every_session(options: FormatOptions) -> None:
    outcome = one(options, {"type": "clock", "time": NOW_S + 1e6})
    assert isinstance(outcome, Rejection)
    assert outcome.reason == "time_out_of_range"


def test_a_promise_may_lie_in_the_future(options: FormatOptions) -> None:
    event = accepted(options, type="order_placed", properties={"promised_at": "2030-01-01T00:00:00Z"})
    assert event.properties == {"promised_at": 1_893_456_000.0}


@pytest.mark.parametrize(("fmt", "reason"), [(None, "unknown_format"), ("native", "not_an_object")])
def test_an_array_of_native_events_is_none(options: FormatOptions, fmt: str | None, reason: str) -> None:
    outcome = one(options, [GOOD], fmt)
    assert isinstance(outcome, Rejection)
    assert outcome.reason == reason

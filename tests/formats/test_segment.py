"""Segment and RudderStack calls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streams.errors import ConfigError
from streams.events import EVENT_TYPES, OTHER, SAID_TYPES, Event, Outcome, Rejection
from streams.formats import FormatOptions, decode
from streams.settings import Settings

NOW_S = 1_700_000_000.0
FIXTURES = Path(__file__).parents[1] / "data" / "fixtures" / "segment"
TRACK: dict[str, Any] = {
    "type": "track", "event": "Order Completed", "messageId": "m1", "anonymousId": "a",
    "timestamp": "2023-01-01T10:00:00Z",
}  # fmt: skip


@pytest.fixture(scope="module")
def options() -> FormatOptions:
    return FormatOptions.from_settings(Settings(), NOW_S)


def many(options: FormatOptions, message: object) -> list[Outcome]:
    return decode(json.dumps(message).encode(), None, options)


def event(options: FormatOptions, **changes: Any) -> Event:
    (outcome,) = many(options, TRACK | changes)
    assert isinstance(outcome, Event), outcome
    return outcome


def reasons(outcomes: list[Outcome]) -> list[str]:
    return [outcome.reason if isinstance(outcome, Rejection) else "accepted" for outcome in outcomes]


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.json")), ids=lambda path: path.stem)
def test_payloads_of_the_go_library_are_accepted(options: FormatOptions, path: Path) -> None:
    outcomes = decode(path.read_bytes(), None, options)
    assert len(outcomes) == len(json.loads(path.read_bytes())["batch"])
    assert {(type(o), o.time) for o in outcomes if isinstance(o, Event)} == {(Event, 1_257_894_000.0)}


@pytest.mark.parametrize(
    ("name", "kind"),
    [("Product Viewed", "page_viewed"), ("products_searched", "searched"), ("productAdded", "item_added"),
     ("PRODUCT-REMOVED", "item_removed"), ("Checkout Started", "checkout_started"), ("Lead Scored", "lead_scored"),
     ("Survey Answered", "survey_answered"), ("Moon Landed", OTHER)],
)  # fmt: skip
def test_vendor_names_find_their_type_however_they_are_spelt(options: FormatOptions, name: str, kind: str) -> None:
    assert event(options, event=name).type == kind


@pytest.mark.parametrize("kind", sorted(EVENT_TYPES - {OTHER} - SAID_TYPES))
def test_the_plain_form_of_each_own_type_is_known(options: FormatOptions, kind: str) -> None:
    assert event(options, event=kind.replace("_", " ").title()).type == kind


def test_the_users_names_win(tmp_path: Path) -> None:
    names = tmp_path / "names.yaml"
    names.write_text("segment: {events: {Moon Landed: purchased, Order Completed: other}}")
    mine = FormatOptions.from_settings(Settings(names_file=names), NOW_S)
    assert [event(mine, event=name).type for name in ("moon landed", "Order Completed")] == ["purchased", OTHER]


@pytest.mark.parametrize("text", ["segment: {events: {X: teleported}}", "sgment: {}", "[", "7"])
def test_a_wrong_names_file_is_a_configuration_error_that_names_it(tmp_path: Path, text: str) -> None:
    names = tmp_path / "names.yaml"
    names.write_text(text)
    with pytest.raises(ConfigError, match=r"names\.yaml.*(teleported|sgment|YAML|dictionary)"):
        FormatOptions.from_settings(Settings(names_file=names), NOW_S)


@pytest.mark.parametrize("key", ["revenue", "total", "value"])
@pytest.mark.parametrize("value", [12.5, "12.5"])
def test_an_order_carries_its_value(options: FormatOptions, key: str, value: object) -> None:
    assert event(options, properties={key: value, "email": "anna@example.org"}).properties == {"value": 12.5}


@pytest.mark.parametrize(
    ("given", "time", "device_time"),
    [
        ({"timestamp": "2023-01-01T10:00:00Z", "originalTimestamp": "2023-01-01T09:00:00Z"}, 36_000, 32_400),
        ({"originalTimestamp": "2023-01-01T09:00:00Z", "sentAt": "2023-01-01T09:00:05Z",
          "receivedAt": "2023-01-01T10:00:05Z"}, 36_000, 32_400),
        ({"originalTimestamp": "2023-01-01T09:00:00Z"}, 32_400, 32_400),
        ({"receivedAt": "2023-01-01T10:00:00Z", "sentAt": "2023-01-01T09:00:00Z"}, 36_000, None),
        ({"sentAt": "2023-01-01T09:00:00Z"}, 32_400, None),
        ({"timestamp": "2023-01-01T10:00:00"}, 36_000, None),
    ],
)  # fmt: skip
def test_corrected_time_and_device_time(
    options: FormatOptions, given: dict[str, str], time: float, device_time: float | None
) -> None:
    outcome = event(options, **({"timestamp": None} | given))
    midnight = 1_672_531_200
    assert outcome.time - midnight == time
    assert outcome.device_time == (None if device_time is None else midnight + device_time)


@pytest.mark.parametrize(
    ("message", "person", "also"),
    [
        ({"type": "track", "event": "X", "anonymousId": "a", "userId": "u"}, "a", "u"),
        ({"type": "track", "event": "X", "userId": 42}, "42", None),
        ({"type": "track", "event": "X", "anonymousId": "a", "userId": "undefined"}, "a", None),
        ({"type": "identify", "anonymousId": "a", "userId": "u"}, "a", "u"),
        ({"type": "group", "groupId": "g", "userId": "u"}, "u", None),
        ({"type": "alias", "userId": "u", "previousId": "old"}, "u", "old"),
        ({"type": "alias", "anonymousId": "a", "previousId": "old"}, "a", "old"),
    ],
)
def test_people(options: FormatOptions, message: dict[str, Any], person: str, also: str | None) -> None:
    (outcome,) = many(options, {"messageId": "m", "timestamp": "2023-01-01T10:00:00Z"} | message)
    assert isinstance(outcome, Event)
    assert (outcome.type, outcome.person, outcome.also_person) == (OTHER, person, also)


@pytest.mark.parametrize(
    ("message", "page"),
    [
        ({"type": "page", "context": {"page": {"path": "/a", "url": "https://x.example/b"}}}, "/a"),
        ({"type": "page", "context": {"page": {"url": "https://x.example/b?c=d"}}}, "/b"),
        ({"type": "page", "properties": {"url": "http://[::1"}}, "/"),
        ({"type": "page", "properties": {"path": "/p"}, "context": []}, "/p"),
        ({"type": "page", "name": "Pricing"}, "Pricing"),
        ({"type": "screen", "name": "Home"}, "Home"),
    ],
)
def test_pages_and_screens(options: FormatOptions, message: dict[str, Any], page: str) -> None:
    outcome = event(options, **message)
    assert (outcome.type, outcome.page) == ("page_viewed", page)


def test_labels_come_from_the_context_and_from_allowed_properties(options: FormatOptions) -> None:
    context = {
        "campaign": {"source": "newsletter", "medium": "email", "name": "spring"},
        "device": {"type": "iOS"}, "location": {"country": "DE"}, "traits": {"team": "north", "age": 7},
    }  # fmt: skip
    outcome = event(options, channel="web", context=context, properties={"campaign": "own", "mood": "good"})
    assert outcome.segment == {
        "channel": "email", "campaign": "own", "device": "mobile", "country": "DE", "source": "newsletter",
        "team": "north",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("agent", "device"),
    [("Mozilla/5.0 (Linux; Android 14) Mobile Safari", "mobile"), ("Mozilla/5.0 (Linux; Android 14) Safari", "tablet"),
     ("Mozilla/5.0 (X11; Linux x86_64)", "desktop"), ("curl/8", None)],
)  # fmt: skip
def test_a_browser_tells_its_device_by_user_agent(options: FormatOptions, agent: str, device: str | None) -> None:
    assert event(options, context={"userAgent": agent}).segment.get("device") == device


@pytest.mark.parametrize("place", [{"context": {"sessionId": 17}}, {"properties": {"session_id": "17"}}])
def test_session_ids_may_be_numbers(options: FormatOptions, place: dict[str, Any]) -> None:
    assert event(options, **place).session == "17"


def test_batch_items_inherit_context_and_times_and_keep_their_own(options: FormatOptions) -> None:
    shared = {"context": {"campaign": {"medium": "email"}, "sessionId": "s"}, "sentAt": "2023-01-01T10:00:00Z"}
    bare = {key: value for key, value in TRACK.items() if key != "timestamp"}
    outcomes = many(options, shared | {"batch": [bare, TRACK | {"context": {"sessionId": "own"}}]})
    assert [(o.session, o.segment, o.time) for o in outcomes if isinstance(o, Event)] == [
        ("s", {"channel": "email"}, 1_672_567_200.0),
        ("own", {"channel": "email"}, 1_672_567_200.0),
    ]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"timestamp": "abc"}, "bad_time"),
        ({"timestamp": "2100-01-01T00:00:00Z"}, "time_out_of_range"),
        ({"timestamp": None}, "missing_field"),
        ({"messageId": None}, "missing_field"),
        ({"event": None}, "missing_field"),
        ({"type": "teleport"}, "unknown_type"),
        ({"type": "alias", "userId": "a"}, "missing_field"),
        ({"properties": "x"}, "bad_field"),
        ({"properties": {"revenue": "much"}}, "bad_field"),
        ({"properties": {"revenue": "nan"}}, "not_finite"),
        ({"batch": "x"}, "bad_field"),
    ],
)
def test_a_wrong_call_is_refused_with_its_reason_and_the_person(
    options: FormatOptions, changes: dict[str, Any], reason: str
) -> None:
    (outcome,) = many(options, TRACK | changes)
    assert isinstance(outcome, Rejection)
    assert (outcome.reason, outcome.person) == (reason, "a")


def test_one_bad_item_does_not_spoil_its_batch(options: FormatOptions) -> None:
    items = [TRACK, 7, TRACK | {"timestamp": "abc"}, {"batch": [TRACK]}, {"type": "batch"}, TRACK]
    assert reasons(many(options, {"batch": items})) == [
        "accepted", "not_an_object", "bad_time", "nested_batch", "nested_batch", "accepted",
    ]  # fmt: skip


def test_items_beyond_the_limit_are_each_accounted_for() -> None:
    few = FormatOptions.from_settings(Settings(ingest={"max_batch_items": 2}), NOW_S)
    outcomes = many(few, {"batch": [TRACK] * 4})
    assert reasons(outcomes) == ["accepted", "accepted", "too_large", "too_large"]
    assert {outcome.person for outcome in outcomes} == {"a"}

"""CloudEvents 1.0: structured, batched and binary."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import msgspec
import pytest

from streams.events import OTHER, Event, Rejection
from streams.formats import FORMAT_HEADER, decode
from streams.ingest import Door, Raw
from streams.ingest_service import _headers
from streams.privacy import Privacy
from streams.settings import Settings
from tests.formats.kit import NOW_S, OPTIONS, event, outcomes, reason
from tests.formats.payloads import T0_S, iso

ORDER: dict[str, Any] = {
    "specversion": "1.0", "id": "A234-1234-1234", "source": "/shop/orders", "type": "com.example.order_completed.v2",
    "subject": "customer-7", "time": "2023-07-22T06:26:40+02:00", "datacontenttype": "application/json",
    "data": {"total": 99.5, "channel": "paid", "path": "/thanks"},
}  # fmt: skip
HEADERS = {
    "ce_specversion": b"1.0", "ce_id": b"A234-1234-1234", "ce_source": b"/shop/orders",
    "ce_type": b"com.example.order_completed.v2", "ce_subject": b"customer-7", "ce_time": b"2023-07-22T06:26:40+02:00",
    "content-type": b"application/json; charset=UTF-8",
}  # fmt: skip


def order(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in (ORDER | changes).items() if value is not ...}


def binary(data: bytes, fmt: str | None = None, /, **changes: Any) -> list[Any]:
    headers = {name: value for name, value in (HEADERS | changes).items() if value is not ...}
    return decode(data, fmt, OPTIONS, headers=headers)


@pytest.mark.parametrize("named", ["cloudevents", None])
def test_a_structured_event(named: str | None) -> None:
    assert event(ORDER, named) == Event(
        id="0:12:/shop/orders:A234-1234-1234", type="purchased", time=T0_S, person="customer-7", page="/thanks",
        segment={"channel": "paid"}, properties={"value": 99.5},
    )  # fmt: skip


@pytest.mark.parametrize("named", ["cloudevents", None])
def test_binary_mode_says_the_same_as_structured(named: str | None) -> None:
    assert binary(msgspec.json.encode(ORDER["data"]), named) == [event(ORDER)]


def test_headers_of_http_bridges_and_escaped_ones_are_read() -> None:
    bridged = {name.replace("ce_", "ce-"): value for name, value in HEADERS.items()} | {"ce-subject": b"J%C3%BCrgen"}
    (found,) = decode(b"{}", None, OPTIONS, headers=bridged)
    assert isinstance(found, Event) and (found.type, found.person) == ("purchased", "Jürgen")


@pytest.mark.parametrize("content_type", [b"text/plain", b"application/avro", b"application/octet-stream"])
def test_binary_data_that_is_no_json_leaves_the_attributes(content_type: bytes) -> None:
    (found,) = binary(b"\x00\xff\x01", **{"content-type": content_type})
    assert isinstance(found, Event) and (found.type, found.properties) == ("purchased", {})


def test_binary_data_that_should_be_json_and_is_none_is_refused() -> None:
    (found,) = binary(b"\x00\xff\x01")
    assert found == Rejection("not_json", "not JSON in UTF-8", "customer-7")
    (deep,) = binary(b"[" * 100_000)
    assert isinstance(deep, Rejection) and deep.reason == "too_deep"


def test_a_batch_is_taken_item_by_item() -> None:
    first, second, third = outcomes([ORDER, order(id="2"), order(id=...)])
    assert isinstance(first, Event) and isinstance(second, Event) and first.id != second.id
    assert third == Rejection("missing_field", "item 2: id: missing or empty", "customer-7")
    assert reason([], "cloudevents") == "empty_batch"
    found = outcomes([ORDER] * 3, "cloudevents", msgspec.structs.replace(OPTIONS, max_batch_items=2))
    assert [type(one) for one in found] == [Event, Event, Rejection]


def test_trap_dedupe_on_source_and_id() -> None:
    assert event(order()).id == event(order(time=iso(T0_S + 1))).id
    assert event(order()).id != event(order(source="/shop/returns")).id
    assert event(order(source="a", id="b:c")).id != event(order(source="a:b", id="c")).id


def test_trap_binary_mode_puts_attributes_in_headers_and_ingest_hands_them_on() -> None:
    settings = Settings(topics={"raw": [{"name": "shop"}]})
    door = Door(settings, Privacy(b"0123456789abcdef", labels=OPTIONS.labels), {"shop": 1})
    door.open_source("shop/0")
    door.take([Raw("shop", 0, 0, b'{"total": 5}', time=T0_S + 1, headers=HEADERS)], NOW_S)
    door.take([Raw("shop", 0, 1, None, time=T0_S + 1, headers=HEADERS | {"ce_id": b"without data"})], NOW_S)
    door.take([Raw("shop", 0, 2, None, time=T0_S + 1)], NOW_S)
    assert door.outcomes == {("shop", "accepted", "purchased"): 2, ("shop", "dead_letter", "tombstone"): 1}


# ── Data of other formats ─────────────────────────────────────────────────────────────────────────────────────────────


def test_data_that_is_a_native_event() -> None:
    whole = {"id": "inner", "type": "clicked", "time": T0_S + 5, "person": "p", "page": "/cart"}
    assert event(order(data=whole)) == Event("0:12:/shop/orders:A234-1234-1234", "clicked", T0_S + 5, "p", page="/cart")


def test_a_native_event_may_leave_to_the_attributes_what_they_say() -> None:
    found = event(order(type="com.example.item_added", data={"person": "p", "page": "/cart"}))
    assert (found.type, found.time, found.person, found.page) == ("item_added", T0_S, "p", "/cart")


def test_data_that_is_a_segment_call_or_a_batch_of_them() -> None:
    call = {"type": "page", "messageId": "m", "anonymousId": "a", "timestamp": iso(T0_S + 3)}
    found = event(order(data=call))
    assert (found.type, found.time, found.person) == ("page_viewed", T0_S + 3, "a")
    both = outcomes(order(data={"batch": [call, call | {"anonymousId": "b"}]}))
    assert [one.person for one in both] == ["a", "b"]
    assert len({one.id for one in both if isinstance(one, Event)}) == 2


@pytest.mark.parametrize(
    "data",
    [{"id": "17", "type": "invoice", "total": 99.5}, {"id": 3, "type": ["x"], "total": 99.5},
     {"person": {"name": "x"}, "total": 99.5},
     {"id": 3, "time": "x", "person": "customer-7", "total": 99.5, "type": {}}],
    ids=["own type", "list of types", "person as object", "like a native event"],
)  # fmt: skip
def test_a_record_with_an_id_and_a_type_of_its_own_is_no_native_event(data: dict[str, Any]) -> None:
    found = event(order(data=data))
    assert (found.type, found.person, found.properties) == ("purchased", "customer-7", {"value": 99.5})


def test_a_native_event_without_type_is_of_what_the_attribute_means() -> None:
    assert event(order(type="com.example.order.completed", data={"person": "p", "id": 7})).type == "purchased"


def test_a_call_without_id_and_time_has_those_of_the_attributes() -> None:
    found = event(order(data={"type": "track", "event": "Order Completed", "anonymousId": "a"}))
    assert (found.type, found.time, found.person) == ("purchased", T0_S, "a")
    assert found.id == event(ORDER).id
    assert event(order(data={"type": "page", "path": "/thanks"})) == event(order(data={"path": "/thanks"}))


def test_data_that_is_a_notification_of_a_crm() -> None:
    change = {"eventId": 1, "subscriptionId": 1, "portalId": 1, "occurredAt": int(T0_S * 1000), "objectId": 5,
              "subscriptionType": "contact.creation", "attemptNumber": 0, "changeSource": "CRM"}  # fmt: skip
    first, second = outcomes(order(data=[change, change]))
    assert isinstance(first, Event) and isinstance(second, Event)
    assert first.type == second.type == "lead_created" and first.id != second.id


@pytest.mark.parametrize("data", ["{oops", "[1", "{" * 50_000], ids=["object", "array", "deep"])
def test_data_that_is_text_is_not_read(data: str) -> None:
    for kind in ("text/plain", "application/json", ...):
        assert event(order(data=data, datacontenttype=kind)).type == "purchased"
    encoded = b64encode(data.encode()).decode()
    assert event(order(data=..., data_base64=encoded, datacontenttype="text/plain")).type == "purchased"


def test_only_headers_of_http_are_percent_encoded() -> None:
    (found,) = binary(b"{}", ce_subject=b"100%25")
    assert isinstance(found, Event) and found.person == "100%25"


def test_data_in_base64_and_in_a_string() -> None:
    data = msgspec.json.encode(ORDER["data"])
    assert event(order(data=..., data_base64=b64encode(data).decode())) == event(ORDER)
    assert event(order(data=data.decode())) == event(ORDER)
    assert reason(order(data=..., data_base64="%%%")) == "bad_field"


# ── Plain ones ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "known"),
    [("page_viewed", "page_viewed"), ("com.example.shop.lead_won", "lead_won"), ("org.a.order.completed", "purchased"),
     ("com.example.Form Submitted.v1", "form_submitted"), ("com.example.pull_request.opened", OTHER), ("...", OTHER)],
)  # fmt: skip
def test_names_are_found_whole_or_by_their_end(kind: str, known: str) -> None:
    assert event(order(type=kind, data=...)).type == known


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"specversion": "0.3"}, "bad_field"), ({"specversion": 1.0}, "bad_field"), ({"id": ...}, "missing_field"),
        ({"source": ""}, "missing_field"), ({"type": ...}, "missing_field"), ({"subject": ...}, "missing_field"),
        ({"time": "abc"}, "bad_time"), ({"time": "2023-07-22T06:26:40"}, "bad_time"), ({"time": ...}, "missing_field"),
        ({"time": "1970-01-01T00:00:00Z"}, "time_out_of_range"),
    ],
    ids=["0.3", "number", "no id", "no source", "no type", "nobody", "abc", "no zone", "no time", "1970"],
)  # fmt: skip
def test_what_is_wrong_is_refused(changes: dict[str, Any], why: str) -> None:
    assert reason(order(**changes)) == why


def test_without_subject_the_data_may_say_who_and_without_time_kafka_when() -> None:
    anonymous = order(subject=..., data={"userId": "u"})
    assert event(anonymous).person == "u"
    assert event(order(time=...), None, OPTIONS.at(NOW_S)).time == NOW_S


# ── The header that names a format ────────────────────────────────────────────────────────────────────────────────────


def test_a_header_names_the_format_where_the_topic_does_not() -> None:
    raw = b'{"id":"e","type":"page","time":1690000000,"person":"p"}'
    (shaped,) = decode(raw, None, OPTIONS)
    (named,) = decode(raw, None, OPTIONS, headers={FORMAT_HEADER: b"native"})
    (fixed,) = decode(raw, "segment", OPTIONS, headers={FORMAT_HEADER: b"native"})
    assert isinstance(named, Rejection) and named.reason == "unknown_type"
    assert isinstance(shaped, Rejection) and isinstance(fixed, Rejection) and fixed == shaped != named
    (unknown,) = decode(raw, None, OPTIONS, headers={FORMAT_HEADER: b"\xff"})
    assert isinstance(unknown, Rejection) and unknown.reason == "unknown_format"


def test_headers_of_kafka_are_handed_on_by_name_in_lower_case() -> None:
    given = (("CE_Id", b"1"), ("ce_id", b"2"), ("content-type", None))
    assert _headers(given) == {"ce_id": b"2"}

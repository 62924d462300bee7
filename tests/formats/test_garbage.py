"""Whatever the bytes are: outcomes with known reasons, never an exception."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.events import CLOCK, EVENT_TYPES, REASONS, Event, Outcome, Rejection
from streams.formats import FORMATS, FormatOptions, decode
from streams.privacy import Privacy
from streams.settings import Settings

NOW_S = 1_700_000_000.0
OPTIONS = FormatOptions.from_settings(Settings(), NOW_S)
PRIVACY = Privacy(b"0123456789abcdef", labels=OPTIONS.labels)
NATIVE = b'{"id":"e","type":"purchased","time":1690000000,"person":"p","properties":{"value":%s},"unused":%s}'
ALL_FORMATS = [None, *FORMATS]


def check(outcomes: list[Outcome]) -> list[str]:
    """The law of the door; returns the reasons."""
    assert outcomes
    for outcome in outcomes:
        if isinstance(outcome, Event):
            assert outcome.type in EVENT_TYPES | {CLOCK}
            assert OPTIONS.earliest_s <= outcome.time <= NOW_S + OPTIONS.max_future_s
        else:
            assert outcome.reason in REASONS
            assert outcome.reason != "reader_failed", outcome.detail
        msgspec.json.encode(PRIVACY.scrub(outcome))
    return [outcome.reason if isinstance(outcome, Rejection) else "accepted" for outcome in outcomes]


@pytest.mark.parametrize("fmt", ALL_FORMATS)
@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        pytest.param(b"", "empty", id="nothing"),
        pytest.param(b" \r\n", "empty", id="blank"),
        pytest.param(b"\x00\xff\xfe garbage", "not_json", id="garbage"),
        pytest.param(b"\x00", "not_json", id="null-byte"),
        pytest.param(b'{"id":"e","type":"clic', "not_json", id="truncated"),
        pytest.param(b"{}{}", "not_json", id="two-objects"),
        pytest.param(b'{"id":"\xff"}', "not_json", id="invalid-utf8"),
        pytest.param(rb'{"id":"\ud800"}', "not_json", id="lone-surrogate"),
        pytest.param(rb'{"id":"\ud800","x":1e999}', "not_json", id="lone-surrogate-past-the-fast-parser"),
        pytest.param(b"[" * 100_000, "too_deep", id="deep-array"),
        pytest.param(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "too_deep", id="deep-object"),
        pytest.param(b'{"n":NaN,"a":' + b"[" * 100_000, "too_deep", id="deep-past-the-fast-parser"),
        pytest.param(b'"' + b"x" * 10_000_000 + b'"', "too_large", id="10-MB"),
        pytest.param(b"7", "not_an_object", id="number"),
        pytest.param(b"null", "not_an_object", id="null"),
        pytest.param(b'"text"', "not_an_object", id="text"),
    ],
)
def test_garbage_has_one_reason_in_every_format(raw: bytes, fmt: str | None, reason: str) -> None:
    assert check(decode(raw, fmt, OPTIONS)) == [reason]


@pytest.mark.parametrize(
    ("raw", "fmt", "reason"),
    [
        (b"[]", None, "empty_batch"),
        (b"[]", "hubspot", "empty_batch"),
        (b'{"batch":[]}', None, "empty_batch"),
        (b'{"batch":[{"batch":[{}]}]}', None, "nested_batch"),
        (b'{"a":1}', None, "unknown_format"),
        (b"[[]]", None, "unknown_format"),
        (b'{"a":1}', "avro", "unknown_format"),
    ],
)
def test_shapes_that_mean_nothing(raw: bytes, fmt: str | None, reason: str) -> None:
    assert check(decode(raw, fmt, OPTIONS)) == [reason]


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"9" * 350, b"9" * 5000])
def test_an_impossible_number_matters_only_where_it_is_used(number: bytes) -> None:
    assert check(decode(NATIVE % (number, b"1"), None, OPTIONS)) == ["not_finite"]
    assert check(decode(NATIVE % (b"1", number), None, OPTIONS)) == ["accepted"]


@pytest.mark.parametrize("number", [b"NaN", b"1e999", b"9" * 5000])
def test_an_impossible_number_is_no_time_and_no_id(number: bytes) -> None:
    for field in (b'"time":', b'"person":', b'"id":'):
        raw = b'{"id":"e","type":"clicked","time":1690000000,"person":"p",' + field + number + b"}"
        assert check(decode(raw, None, OPTIONS)) == ["not_finite"]


@pytest.mark.parametrize("error", [TypeError, KeyError, RecursionError], ids=lambda error: error.__name__)
def test_a_reader_at_fault_stops_no_line_and_says_so(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def fails(_value: object, _options: FormatOptions) -> list[Outcome]:
        raise error("anna@example.test")

    monkeypatch.setitem(FORMATS, "native", msgspec.structs.replace(FORMATS["native"], decode=fails))
    (outcome,) = decode(NATIVE % (b"1", b"1"), "native", OPTIONS)
    assert isinstance(outcome, Rejection) and "anna" not in outcome.detail
    assert outcome.reason == ("too_deep" if error is RecursionError else "reader_failed")
    assert error.__name__ in outcome.detail or error is RecursionError


def test_a_reader_at_fault_is_told_of_once_with_where_and_without_what_was_sent(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def stumbles(value: object, _options: FormatOptions) -> list[Outcome]:
        raise ValueError(f"cannot read {value}")

    monkeypatch.setattr("streams.formats._told_bugs", set())
    monkeypatch.setitem(FORMATS, "native", msgspec.structs.replace(FORMATS["native"], decode=stumbles))
    for person in (b"anna@example.test", b"bert@example.test"):
        (outcome,) = decode(b'{"id":"e","person":"%s"}' % person, "native", OPTIONS)
        assert isinstance(outcome, Rejection) and "stumbles" in outcome.detail
    (record,) = caplog.records
    said = record.getMessage()
    assert record.levelname == "ERROR" and "ValueError in the reader of native (stumbles, line " in said
    assert "test_garbage.py" in said and "example.test" not in said


@pytest.mark.parametrize("fmt", ALL_FORMATS)
def test_punctuation_is_read_in_every_topic(fmt: str | None) -> None:
    (outcome,) = decode(b'{"type":"clock","time":1690000000}', fmt, OPTIONS)
    assert outcome == Event("", CLOCK, 1_690_000_000.0, "")


def test_of_duplicate_keys_the_last_counts() -> None:
    (outcome,) = decode(b'{"id":"a","id":"b","type":"clicked","time":1690000000,"person":"p"}', None, OPTIONS)
    assert outcome == Event("b", "clicked", 1_690_000_000.0, "p")


def test_null_bytes_within_strings_do_no_harm() -> None:
    raw = rb'{"id":"a\u0000","type":"clicked","time":1690000000,"person":"p","segment":{"channel":"e\u0000mail"}}'
    (outcome,) = decode(raw, None, OPTIONS)
    scrubbed = PRIVACY.scrub(outcome)
    assert isinstance(scrubbed, Event)
    assert scrubbed.segment == {"channel": "email"}


def test_a_byte_order_mark_is_forgiven() -> None:
    assert check(decode(b"\xef\xbb\xbf" + NATIVE % (b"1", b"1"), None, OPTIONS)) == ["accepted"]


@pytest.mark.parametrize("fmt", ALL_FORMATS)
def test_random_bytes_never_raise(fmt: str | None) -> None:
    rng = random.Random(7)
    for _ in range(2_000):
        check(decode(rng.randbytes(rng.randrange(64)), fmt, OPTIONS))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
TIMES = st.sampled_from([1_690_000_000, 1_690_000_000_000, "2023-01-01T00:00:00Z", "abc"])


def shaped(**likely: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects that are nearly right: each field plausible, absent, or any JSON."""
    fields = st.fixed_dictionaries({}, optional={name: values | JSON for name, values in likely.items()})
    return fields | JSON


IDS = st.sampled_from(["a", "", 7])
LABELS = st.fixed_dictionaries({}, optional={"channel": st.text(max_size=9) | JSON, "model": JSON})
CALL = shaped(
    type=st.sampled_from(["track", "page", "screen", "identify", "alias", "group"]),
    event=st.sampled_from(["Order Completed", "Clicked", "Lead Scored"]),
    messageId=IDS, anonymousId=IDS, userId=IDS, previousId=IDS, timestamp=TIMES, originalTimestamp=TIMES,
    sentAt=TIMES, receivedAt=TIMES, name=st.text(max_size=5),
    properties=shaped(revenue=st.floats(), x=JSON, path=JSON, url=JSON),
    context=shaped(
        page=shaped(path=JSON, url=st.text()), campaign=LABELS, device=shaped(type=JSON), traits=LABELS, sessionId=IDS,
    ),
)  # fmt: skip
MESSAGES = {
    "native": shaped(
        id=IDS, type=st.sampled_from(["clicked", "purchased", "clock"]), time=TIMES, device_time=TIMES, person=IDS,
        page=st.text(max_size=30), segment=LABELS, properties=shaped(value=st.floats(), promised_at=TIMES, form=JSON),
    ),
    "segment": CALL | st.fixed_dictionaries({"batch": st.lists(CALL, max_size=4)}),
    "hubspot": st.lists(shaped(
        subscriptionType=st.sampled_from(["contact.creation", "contact.propertyChange", "deal.creation", "contact"]),
        portalId=IDS, objectId=IDS, occurredAt=TIMES, propertyName=st.sampled_from(["hubspotscore", "lifecyclestage"]),
        propertyValue=st.sampled_from(["5", "customer", "nan"]), eventId=IDS,
    ), max_size=4),
}  # fmt: skip


@pytest.mark.parametrize("named", [True, False], ids=["format-named", "format-by-shape"])
@pytest.mark.parametrize("fmt", MESSAGES)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_nearly_right_messages_never_raise(fmt: str, named: bool, data: st.DataObject) -> None:
    message = data.draw(MESSAGES[fmt])
    check(decode(json.dumps(message).encode(), fmt if named else None, OPTIONS))

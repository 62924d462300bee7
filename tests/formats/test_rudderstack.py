"""RudderStack's events: Segment's calls with more around them ("RudderStack Event Specification")."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from streams.events import OTHER, Event
from streams.formats import segment
from streams.formats._common import parse
from tests.formats.kit import OPTIONS, event, outcomes, reason
from tests.formats.payloads import T0_S, iso, rudderstack

TRACK: dict[str, Any] = rudderstack(random.Random(1), 1)


@pytest.mark.parametrize("n", range(12))
def test_what_its_server_sends_on_is_read_quickly_and_rightly(n: int) -> None:
    made = rudderstack(random.Random(n), n)
    found = event(made)
    assert segment.read(msgspec.json.encode(made), OPTIONS) == found
    assert [found] == segment.decode(parse(msgspec.json.encode(made)), OPTIONS)
    assert found.type == ("item_added" if n % 2 else "page_viewed")
    assert (found.time, found.device_time, found.session) == (T0_S + n + 1, T0_S + n, str(1_690_000_000 + n))
    assert (found.person, found.also_person, found.page) == (made["anonymousId"], None, made["context"]["page"]["path"])


def test_its_channel_names_the_sdk_and_is_no_marketing_channel() -> None:
    assert event(TRACK | {"context": {}, "properties": {}}).segment == {}


def test_trap_timestamps_like_abc_occur() -> None:
    assert reason(TRACK | {"timestamp": "abc"}) == reason(TRACK | {"originalTimestamp": "abc"}) == "bad_time"


def test_trap_timestamp_is_received_at_minus_sent_at_minus_original_timestamp() -> None:
    times = {"originalTimestamp": iso(T0_S), "sentAt": iso(T0_S + 5), "receivedAt": iso(T0_S + 3605), "timestamp": None}
    found = event(TRACK | times)
    assert (found.time, found.device_time) == (T0_S + 3600, T0_S)


def test_trap_correction_reorders_events_so_gaps_are_taken_from_device_time() -> None:
    early = TRACK | {"originalTimestamp": iso(T0_S), "timestamp": iso(T0_S + 9)}
    later = TRACK | {"originalTimestamp": iso(T0_S + 3), "timestamp": iso(T0_S + 8)}
    first, second = event(early), event(later)
    assert first.time > second.time
    assert first.device_time is not None and second.device_time is not None
    assert second.device_time - first.device_time == 3


def test_trap_a_batch_shares_sent_at_and_context() -> None:
    bare = {
        name: value for name, value in TRACK.items() if name not in {"context", "sentAt", "receivedAt", "timestamp"}
    }
    shared = {"context": {"campaign": {"medium": "paid"}}, "sentAt": iso(T0_S + 11), "receivedAt": iso(T0_S + 71)}
    (found,) = outcomes({"batch": [bare], **shared})
    assert isinstance(found, Event)
    assert (found.time, found.segment) == (T0_S + 61, {"channel": "paid"})


def test_unknown_fields_are_harmless() -> None:
    odd = {
        "metadata": {"a": [1]},
        "rudderId": 7,
        "request_ip": None,
        "writeKey": [],
        "_metadata": "x",
        "hasExternalId": {},
    }
    assert event(TRACK | odd) == event(TRACK)


def test_what_it_calls_by_a_name_that_nobody_knows_is_other() -> None:
    assert event(TRACK | {"event": "Moon Landed"}).type == OTHER
    assert event(TRACK | {"type": "group", "groupId": "g"}).type == OTHER

"""The law of the door: whatever comes in, outcomes of known kinds in bounded time, that survive scrub and encoding."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Final

import msgspec

from streams.events import CLOCK, EVENT_TYPES, PROPERTY_TYPES, REASONS, Event, Outcome, Rejection
from streams.formats import FormatOptions, decode
from streams.formats._common import MAX_ID_CHARS, MAX_TEXT_CHARS
from streams.frames import Frame, Item, Place, Section, decode_frame, encode
from streams.privacy import Privacy
from tests.formats.kit import OPTIONS

MAX_S: Final = 1.0
"""CPU seconds that a message of up to a megabyte may take; the usual one takes some ten microseconds."""
SMALL: Final = msgspec.structs.replace(OPTIONS, max_batch_items=40)
"""A limit that mutations reach."""
_PRIVACY: Final = Privacy(b"0123456789abcdef", labels=OPTIONS.labels)


def check(
    raw: bytes, fmt: str | None, headers: Mapping[str, bytes] | None = None, options: FormatOptions = SMALL
) -> list[Outcome]:
    """Decode one message as ingest would, and see that the law holds.

    Raises:
        AssertionError: it does not.
    """
    began = time.process_time()
    outcomes = decode(raw, fmt, options, headers=headers)
    took_s = time.process_time() - began
    assert took_s < MAX_S, f"{took_s:.1f} s for {len(raw):,} bytes"
    assert outcomes == decode(raw, fmt, options, headers=headers), "the same message became something else"
    assert outcomes, "no outcome: an item would get lost"
    for outcome in outcomes:
        _valid(outcome, options)
    scrubbed = [_PRIVACY.scrub(outcome) for outcome in outcomes]
    for outcome in scrubbed:
        msgspec.json.encode(outcome)
    items = [Item(Place(0, at), one.time, one) for at, one in enumerate(scrubbed) if isinstance(one, Event)]
    assert decode_frame(encode(Frame({"web": 1}, [Section("web/0", 0.0, False, items)]))).sections[0].items == items
    return outcomes


def _valid(outcome: Outcome, options: FormatOptions) -> None:
    if isinstance(outcome, Rejection):
        assert outcome.reason in REASONS
        assert outcome.reason != "reader_failed", outcome.detail
        assert len(outcome.detail) < 400, "a detail names fields, it does not repeat what was sent"
        assert outcome.person is None or 0 < len(outcome.person) <= MAX_TEXT_CHARS + 3 * MAX_ID_CHARS
        return
    assert outcome.type in EVENT_TYPES | {CLOCK}
    assert options.earliest_s <= outcome.time <= options.now_s + options.max_future_s
    assert outcome.type == CLOCK or (outcome.id and outcome.person), "an event without id or person"
    assert outcome.properties.keys() <= PROPERTY_TYPES.keys()
    assert outcome.segment.keys() <= set(options.labels)
    texts = (outcome.person, outcome.also_person, outcome.session, outcome.page, outcome.stage)
    assert all(one is None or isinstance(one, str) for one in texts)
    assert all(type(value) is not float or math.isfinite(value) for value in outcome.properties.values())

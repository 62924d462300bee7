"""The door: places ascend, lateness follows each source's own order, and every item is accounted for once."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from streams.errors import ConfigError
from streams.events import FORGET_TYPES
from streams.frames import Frame, Item, Mark, Place, partition_of
from streams.ingest import HEADER_EVERY_S, Door, Flush, Raw
from streams.privacy import Privacy
from streams.sessionize import Sessionizer
from streams.units import Plan
from tests.kit import KEY, NOW, T0, door, native, raws, settings_of

SMALL = settings_of(ingest={"frame_events": 3}, topics={"events_partitions": 3})
CRM = "lead_touched"


def items(flush: Flush, target: int | None = None) -> list[Item]:
    return [
        item for where, frame in flush.frames if target in (None, where) for s in frame.sections for item in s.items
    ]


def marks(flush: Flush) -> list[Mark]:
    return [mark for _, frame in flush.frames for section in frame.sections for mark in section.marks]


def take(gate: Door, *values: bytes | None, first: int = 0) -> Flush:
    gate.take(raws(values, first=first), NOW)
    return gate.flush(NOW, everything=True)


def clock(at: float) -> bytes:
    return msgspec.json.encode({"type": "clock", "time": T0 + at})


def call(i: int, **more: Any) -> dict[str, Any]:
    return {"type": "page", "messageId": f"m{i}", "anonymousId": "anna", "timestamp": "2023-11-14T22:13:20Z", **more}


# ── places, frames, accounting ────────────────────────────────────────────────────────────────────────────────────

KINDS = st.sampled_from(["web", "crm", "garbage", "tombstone", "batch", "clock"])
MESSAGES = st.lists(st.tuples(KINDS, st.sampled_from("abcdefgh"), st.integers(0, 300), st.booleans()), max_size=60)


def wire(i: int, kind: str, person: str, at: int) -> bytes | None:
    if kind == "batch":
        return json.dumps({"batch": [call(i), {"type": "page"}, call(i + 1000), "text"]}).encode()
    if kind == "clock":
        return clock(at / 10)
    if kind in ("garbage", "tombstone"):
        return b"{" if kind == "garbage" else None
    return native("page_viewed" if kind == "web" else CRM, at, person, id=f"e{i}")


@given(MESSAGES)
@hypothesis_settings(max_examples=80, deadline=None)
def test_frames_never_lose_or_reorder_and_every_item_is_accounted_for(
    messages: list[tuple[str, str, int, bool]],
) -> None:
    gate = door(SMALL, **{"web-events": 2})
    expected: Counter[tuple[str, int, int]] = Counter()
    frames: list[tuple[int, Frame]] = []
    letters = 0
    for i, (kind, person, at, flush) in enumerate(messages):
        partition = i % 2
        gate.take(raws([wire(i, kind, person, at)], partition=partition, first=i), NOW)
        if kind != "clock":
            expected.update((f"web-events/{partition}", i, index) for index in range(4 if kind == "batch" else 1))
        if flush:
            flushed = gate.flush(NOW)
            frames += flushed.frames
            letters += len(flushed.dead_letters)
    flushed = gate.flush(NOW, everything=True)
    frames += flushed.frames
    letters += len(flushed.dead_letters)
    found: Counter[tuple[str, int, int]] = Counter()
    last: dict[tuple[int, str], Place] = {}
    for target, frame in frames:
        assert sum(len(s.items) + len(s.marks) for s in frame.sections) <= 3
        for s in frame.sections:
            for places in ([m.place for m in s.marks], [item.place for item in s.items]):
                assert places == sorted(places)
                found.update((s.source, place.offset, place.index) for place in places)
                assert all(place > last.get((target, s.source), Place(-1, -1)) for place in places)
            both = [mark.place for mark in s.marks] + [item.place for item in s.items]
            last[target, s.source] = max(both, default=last.get((target, s.source), Place(-1, -1)))
    assert found == expected
    assert sum(gate.outcomes.values()) == sum(expected.values())
    dead = sum(count for (_, outcome, _), count in gate.outcomes.items() if outcome == "dead_letter")
    assert letters == dead


def test_all_events_of_a_person_go_to_one_partition_under_a_pseudonym() -> None:
    gate = door(SMALL, **{"web-events": 2})
    for partition in (0, 1):
        gate.take(raws([native("page_viewed", i, "anna") for i in range(10)], partition=partition), NOW)
    flush = gate.flush(NOW)
    assert len({target for target, frame in flush.frames if any(s.items for s in frame.sections)}) == 1
    assert {item.event.person for item in items(flush)} == {Privacy(KEY).pseudonym("anna")}


def test_a_full_frame_leaves_at_once_and_the_rest_with_the_flush() -> None:
    gate = door(settings_of(ingest={"frame_events": 3}))
    flush = take(gate, *(native("clicked", i) for i in range(8)))
    assert [sum(len(s.items) for s in frame.sections) for _, frame in flush.frames] == [3, 3, 2]
    assert [frame.sections[0].time - T0 for _, frame in flush.frames] == [2, 5, 7]


# ── batches, tombstones, dead letters ─────────────────────────────────────────────────────────────────────────────


def test_good_and_bad_items_of_one_batch_share_its_offset_and_keep_their_index() -> None:
    batch = {"batch": [call(0), {"type": "page"}, call(2, timestamp="soon"), 7, call(4)]}
    flush = take(door(), json.dumps(batch).encode(), first=41)
    assert [item.place for item in items(flush)] == [Place(41, 0), Place(41, 4)]
    assert [mark.place for mark in marks(flush)] == [Place(41, 1), Place(41, 2), Place(41, 3)]
    assert [letter.id for letter in flush.dead_letters] == [f"web-events/0/41/{index}" for index in (1, 2, 3)]
    assert [letter.reason for letter in flush.dead_letters] == [mark.reason for mark in marks(flush)]


@pytest.mark.parametrize(
    ("value", "reason"), [(None, "tombstone"), (b"", "empty"), (b"{", "not_json"), (b"[]", "empty_batch")]
)
def test_a_message_that_holds_nothing_is_one_dead_letter(value: bytes | None, reason: str) -> None:
    gate = door()
    flush = take(gate, value, first=7)
    (letter,) = flush.dead_letters
    assert (letter.reason, letter.topic, letter.partition, letter.offset) == (reason, "web-events", 0, 7)
    assert letter.size_bytes == len(value or b"")
    assert marks(flush) == [Mark(Place(7, 0), "dead_letter", reason)]
    assert gate.outcomes == {("web-events", "dead_letter", reason): 1}


def test_a_dead_letter_names_the_person_by_pseudonym_and_holds_no_payload() -> None:
    flush = take(door(), native("clicked", 0, "anna@example.org", time="soon", page="/secret"))
    text = msgspec.json.encode(flush.dead_letters)
    assert flush.dead_letters[0].person == Privacy(KEY).pseudonym("anna@example.org")
    assert b"anna" not in text
    assert b"secret" not in text


def test_marks_of_a_source_always_go_to_the_same_partition() -> None:
    gate = door(SMALL)
    targets = {target for _ in range(5) for target, frame in take(gate, b"{").frames if frame.sections[0].marks}
    assert len(targets) == 1


# ── lateness ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("behind", "late"), [(30, False), (30.001, True), (0, False)])
def test_a_web_event_is_late_beyond_the_lateness_of_its_own_source(behind: float, late: bool) -> None:
    flush = take(door(), native("clicked", 1000), native("clicked", 1000 - behind, id="second"))
    assert [mark.outcome for mark in marks(flush)] == (["late"] if late else [])
    assert len(items(flush)) == (1 if late else 2)


@pytest.mark.parametrize("kind", [CRM, "erasure_requested", "other", "definition_changed"])
def test_what_is_no_web_event_is_never_late_but_due_at_the_first_open_moment(kind: str) -> None:
    flush = take(door(), native("clicked", 1000), native(kind, 5))
    assert marks(flush) == []
    assert items(flush)[1].due == T0 + 970
    assert items(flush)[1].event.time == T0 + 5


def test_how_sources_interleave_makes_nothing_late() -> None:
    gate = door(None, **{"web-events": 2})
    gate.take(raws([native("clicked", 1000)], partition=0), NOW)
    gate.take(raws([native("clicked", 5)], partition=1), NOW)
    assert marks(gate.flush(NOW)) == []


def test_an_event_of_the_future_does_not_make_the_present_late() -> None:
    gate = door()
    now = T0 + 1000
    gate.take(raws([native("clicked", 1290), native("clicked", 999)]), now)
    flush = gate.flush(now)
    assert len(items(flush)) == 2
    assert flush.frames[0][1].sections[0].time == now


def test_after_a_restart_the_clock_of_the_commit_decides_what_is_late() -> None:
    values = [native("clicked", at, id=str(at)) for at in (1000, 960, 1010, 985, 975)]
    whole = door()
    whole.take(raws(values), NOW)
    expected = [mark.place for mark in marks(whole.flush(NOW))]
    for cut in range(len(values) + 1):
        first = door()
        first.take(raws(values[:cut]), NOW)
        metadata = repr(first.clock_of("web-events/0").time)  # what `Ingest` commits beside the offset
        second = door()
        second.open_source("web-events/0", float(metadata))
        second.take(raws(values[cut:], first=cut), NOW)
        assert [m.place for m in (*marks(first.flush(NOW)), *marks(second.flush(NOW)))] == expected
    assert expected == [Place(1, 0), Place(4, 0)]


def test_punctuation_moves_the_clock_belongs_to_no_one_and_makes_older_events_late() -> None:
    gate = door()
    flush = take(gate, clock(500), native("clicked", 499.9), native("clicked", 500))
    assert gate.clock_of("web-events/0").time == T0 + 530
    assert [mark.outcome for mark in marks(flush)] == ["late"]
    assert len(items(flush)) == 1
    assert sum(gate.outcomes.values()) == 2


def test_punctuation_never_sets_the_clock_back() -> None:
    gate = door()
    take(gate, native("clicked", 1000), clock(5))
    assert gate.clock_of("web-events/0").time == T0 + 1000


# ── telling how far the sources are ───────────────────────────────────────────────────────────────────────────────


def test_every_partition_is_told_every_clock_and_only_news() -> None:
    gate = door(SMALL, **{"web-events": 2})
    take(gate, native("clicked", 10))
    assert gate.flush(NOW + 1).frames == []
    gate.take(raws([native("clicked", 20)], first=1), NOW)
    told = {target: {s.source: s.time - T0 for s in frame.sections} for target, frame in gate.flush(NOW + 2).frames}
    assert told == {target: {"web-events/0": 20.0} for target in range(3)}


def test_a_quiet_partition_is_not_told_with_every_poll() -> None:
    gate = door(SMALL)
    gate.flush(NOW, everything=True)
    gate.take(raws([native("clicked", 20)]), NOW)
    assert len(gate.flush(NOW + HEADER_EVERY_S / 2).frames) == 1
    assert len(gate.flush(NOW + HEADER_EVERY_S).frames) == 2


def test_an_idle_source_is_told_with_the_seconds_it_was_quiet_and_wakes_with_an_event() -> None:
    gate = door()
    take(gate, native("clicked", 100))
    gate.idle("web-events/0", 40.0)
    (section,) = gate.flush(NOW, everything=True).frames[0][1].sections
    assert (section.idle, section.time) == (True, T0 + 140)
    (section,) = take(gate, native("clicked", 101, id="next"), first=1).frames[0][1].sections
    assert (section.idle, section.time) == (False, T0 + 101)


def test_a_source_that_was_taken_away_is_told_no_more() -> None:
    gate = door(None, **{"web-events": 2})
    gate.close_source("web-events/1")
    (frame,) = (frame for _, frame in take(gate, native("clicked", 1)).frames)
    assert [s.source for s in frame.sections] == ["web-events/0"]
    assert frame.sources == {"web-events": 2}


def test_an_unknown_format_of_a_raw_topic_is_a_configuration_error_that_names_both() -> None:
    settings = settings_of(topics={"raw": [{"name": "shop", "format": "avro"}]})
    with pytest.raises(ConfigError, match=r"topics\.raw: shop: unknown format 'avro'; known: .*hubspot, .*native"):
        door(settings, shop=1)


def test_the_named_format_of_a_topic_is_used() -> None:
    gate = door(settings_of(topics={"raw": [{"name": "web-events", "format": "hubspot"}]}))
    flush = take(gate, native("clicked", 0))
    assert items(flush) == []
    assert flush.dead_letters[0].format == "hubspot"


def test_outcomes_that_the_caller_knows_are_not_decoded_again() -> None:
    gate = door()
    gate.take([Raw("web-events", 0, 0, b"never looked at", [])], NOW)
    assert gate.outcomes == {}


def test_random_bytes_are_all_counted() -> None:
    rng, gate = random.Random(3), door()
    take(gate, *(rng.randbytes(rng.randrange(40)) for _ in range(500)))
    assert sum(gate.outcomes.values()) == 500
    assert {outcome for _, outcome, _ in gate.outcomes} == {"dead_letter"}


# ── timestamps of messages, partitions added later ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("written", [4_102_444_800.0, NOW / 1000, 0.0, -1.0, None, 1e15], ids=str)
def test_a_wrong_timestamp_of_a_message_neither_rejects_it_nor_moves_the_clock(written: float | None) -> None:
    """A CreateTime of the year 2100, or one in seconds where milliseconds belong."""
    gate = door()
    good = native("page_viewed", 10, id="good")
    future = native("page_viewed", NOW - T0 + 40 * 86_400.0, id="future")
    gate.take([Raw("web-events", 0, 0, good, time=written), Raw("web-events", 0, 1, future, time=written),
               Raw("web-events", 0, 2, native("page_viewed", 11, id="next"), time=NOW)], NOW)  # fmt: skip
    flush = gate.flush(NOW, everything=True)
    assert [item.place.offset for item in items(flush)] == [0, 2]
    assert [(mark.outcome, mark.reason) for mark in marks(flush)] == [("dead_letter", "time_out_of_range")]
    assert gate.clock_of("web-events/0").time == T0 + 11


def test_a_message_read_again_is_judged_by_when_it_was_written() -> None:
    ahead = native("page_viewed", 40 * 86_400.0)
    for clock in (NOW, NOW + 86_400.0 * 365):
        gate = door()
        gate.take([Raw("web-events", 0, 0, ahead, time=T0)], clock)
        assert [mark.reason for mark in marks(gate.flush(clock))] == ["time_out_of_range"]


def test_late_and_dead_items_of_a_partition_that_was_added_later_are_counted() -> None:
    gate = door(SMALL, **{"web-events": 1})
    gate.open_source("web-events/7")  # before the door knows how many there are
    values = [native("page_viewed", 5000), native("page_viewed", 0, id="old"), b"{", None]
    gate.take(raws(values, partition=7), NOW)
    flush = gate.flush(NOW, everything=True)
    assert [mark.reason or mark.outcome for mark in marks(flush)] == ["late", "not_json", "tombstone"]
    gate.know({"web-events": 8})
    assert {frame.sources["web-events"] for _, frame in take(gate, b"{", first=1).frames} == {8}


# ── erasure by a second id ────────────────────────────────────────────────────────────────────────────────────────

FOUR = settings_of(topics={"events_partitions": 4}, ingest={"frame_events": 5})


def apply_to_four(flushes: list[Flush]) -> list[Sessionizer]:
    plan = Plan(FOUR)
    stages = [plan.sessionizer(partition) for partition in range(4)]
    offset = 0
    for flush in flushes:
        for target, frame in flush.frames:
            stages[target].apply(frame, offset)
            offset += 1
    return stages


@pytest.mark.parametrize("kind", sorted(FORGET_TYPES))
@pytest.mark.parametrize("again", [False, True], ids=["once", "read-again"])
def test_an_erasure_by_a_second_id_reaches_the_partition_that_holds_it(kind: str, again: bool) -> None:
    people = [f"person-{i}" for i in range(40)]
    pseudonym = Privacy(KEY).pseudonym
    messages = [native("page_viewed", i / 10, person, page="/cart") for i, person in enumerate(people)]
    messages += [native("lead_created", 5 + i / 10, person) for i, person in enumerate(people)]
    pairs = list(zip(people[:20], people[20:], strict=True))[:15]
    messages += [native(kind, 20 + i / 10, one, also_person=other) for i, (one, other) in enumerate(pairs)]
    crossing = [
        pair for pair in pairs if len({partition_of(pseudonym(person), 4) for person in pair}) == 2
    ]  # else it proves nothing
    assert len(crossing) > 5
    gate = door(FOUR)
    flushes = [take(gate, *messages)]
    if again:
        gate.open_source("web-events/0")
        flushes.append(take(gate, *messages))
    flushes.append(take(gate, clock(100), first=len(messages)))
    stages = apply_to_four(flushes)
    erased = {pseudonym(person) for pair in pairs for person in pair}
    kept = {pseudonym(person) for person in people} - erased
    assert {person for stage in stages for person in stage.state.sessions} == kept
    assert {person for stage in stages for person in stage.state.leads} == kept
    totals = [stage.state.totals for stage in stages]
    assert sum(total.consumed for total in totals) == sum(total.applied for total in totals) == len(messages)
    assert sum(total.repeats for total in totals) == (len(messages) if again else 0)
    assert sum(gate.outcomes.values()) == len(messages) * (1 + again)
    assert sum(total.failed for total in totals) == 0
    assert sum(stage.pending_events for stage in stages) == 0


def test_an_erasure_within_one_partition_is_told_once() -> None:
    flush = take(door(), native("erasure_requested", 0, "anna", also_person="bert"))
    assert [len(section.echoes) for _, frame in flush.frames for section in frame.sections] == [0]

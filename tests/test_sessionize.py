"""The sessionize stage: the same state whatever the arrival order, frame borders, repeats and restarts."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from streams.checkpoints import compressed, plain
from streams.combine import merge
from streams.erasure import number_of
from streams.errors import CheckpointRefused
from streams.events import WEB_TYPES
from streams.frames import NEVER, Counts, Frame, Item, Mark, Place, Section
from streams.ingest import Door, Raw
from streams.leads import DAY_S
from streams.sessionize import Sessionizer
from streams.settings import Settings
from streams.units import SessionizeUnit
from tests.kit import NOW, T0, after, door, event, frame, native, section, sessionizer, settings_of, tally

SETTINGS = settings_of(
    time={"session_gap_s": 120.0, "max_session_s": 900.0, "dwell_marks_s": (5.0, 20.0)},
    leads={"touch_horizon_days": 0.002, "acceptance_horizon_days": 0.004, "conversion_horizon_days": 0.01},
    detectors={"step_model": {"min_looks": 3, "trial_steps": 10, "useful_z": -99, "useless_z": -99, "novel_steps": 10}},
    segments={"max_values": 2},
    ingest={"frame_events": 7},
)
PAGES = ("/", "/product/a", "/pricing", "/cart", "/checkout", "/unknown")
WEB = ("page_viewed", "page_viewed", "page_viewed", "clicked", "searched", "purchased", "page_pinged", "error_shown")
CRM = ("lead_created", "lead_scored", "lead_handed_over", "lead_touched", "lead_accepted", "lead_won", "case_opened")


def story(rng: random.Random, kinds: tuple[str, ...], name: str, count: int = 150) -> list[bytes]:
    """Messages of one source in event-time order, with duplicates, garbage, old and unmapped events."""
    made: list[bytes] = []
    at = 0.0
    for i in range(count):
        at += rng.choice((0.0, 0.5, 3.0, 11.0, 40.0))
        kind = rng.choice((*kinds, "other")) if rng.random() > 0.03 else "erasure_requested"
        extra: dict[str, Any] = {"segment": {"device": rng.choice("xyz")}}
        if kind == "page_viewed":
            extra["page"] = rng.choice(PAGES)
        if kind == "clicked":
            extra["properties"] = {"x": 1, "y": 1, "dead": rng.random() < 0.2}
        if kind == "lead_scored":
            extra["properties"] = {"score": rng.randrange(100), "model": rng.choice("mn")}
        made.append(native(kind, at, rng.choice("abcdefghij"), id=f"{name}{i}", **extra))
        if rng.random() < 0.08:
            made.append(rng.choice(made[-4:]))
        if rng.random() < 0.04:
            made.append(b"{" if rng.random() < 0.5 else native(rng.choice(kinds), at - 500, "a", id=f"{name}old{i}"))
    return made


def close_all(gate: Door, sources: list[tuple[str, int, int]]) -> None:
    punctuation = msgspec.json.encode({"type": "clock", "time": T0 + 40_000.0})
    for topic, partition, offset in sources:
        gate.take([Raw(topic, partition, offset, punctuation)], NOW)


def run(
    streams: dict[tuple[str, int], list[bytes]], rng: random.Random, *, chunk: int = 10, re_read: bool = False,
    restart: bool = False, close: bool = True, settings: Settings = SETTINGS, frame_events: int | None = None,
) -> tuple[Sessionizer, dict[Any, dict[str, int]]]:  # fmt: skip
    """Feed sources in random turns through a door into a sessionizer; returns it and the cells by bucket."""
    if frame_events:
        settings = settings.model_copy(
            update={"ingest": settings.ingest.model_copy(update={"frame_events": frame_events})}
        )
    gate = door(settings, web=2, crm=1)
    stage, cells, offset = sessionizer(settings), dict[Any, dict[str, int]](), 0
    left = {where: 0 for where in streams}

    def drain() -> None:
        nonlocal stage, offset
        for _, one in gate.flush(NOW, everything=rng.random() < 0.5).frames:
            collect(cells, stage.apply(one, offset))
            offset += 1
            if restart and rng.random() < 0.2:
                fresh = sessionizer(settings)
                fresh.restore(stage.snapshot())
                stage = fresh

    while left:
        where = rng.choice(sorted(left))
        begin, clock = left[where], gate.clock_of(f"{where[0]}/{where[1]}").time
        part = streams[where][begin : begin + rng.randint(1, chunk)]
        gate.take([Raw(*where, begin + i, value) for i, value in enumerate(part)], NOW)
        if rng.random() < 0.6:
            drain()
        if re_read and rng.random() < 0.3:  # ingest crashed before it committed: the same offsets come again
            drain()
            gate.open_source(f"{where[0]}/{where[1]}", clock)
            gate.take([Raw(*where, begin + i, value) for i, value in enumerate(part)], NOW)
        left[where] = begin + len(part)
        if left[where] >= len(streams[where]):
            del left[where]
    if close:
        close_all(gate, [(*where, len(values)) for where, values in streams.items()])
    for _, one in gate.flush(NOW, everything=True).frames:
        collect(cells, stage.apply(one, offset))
        offset += 1
    return stage, cells


def collect(cells: dict[Any, dict[str, int]], counts: Counts | None) -> None:
    for cell in counts.cells if counts else ():
        merge(cells.setdefault((cell.ts, cell.stage, cell.segment), {}), cell.counts)


def streams_of(seed: int) -> dict[tuple[str, int], list[bytes]]:
    rng = random.Random(seed)
    return {("web", 0): story(rng, WEB, "w"), ("web", 1): story(rng, WEB, "v"), ("crm", 0): story(rng, CRM, "c")}


# ── order independence ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "how",
    [
        pytest.param({"chunk": 1}, id="one-by-one"),
        pytest.param({"chunk": 200}, id="all-at-once"),
        pytest.param({"frame_events": 1}, id="frames-of-one"),
        pytest.param({"frame_events": 500}, id="large-frames"),
        pytest.param({"re_read": True}, id="ingest-reads-again"),
        pytest.param({"restart": True}, id="restored-from-snapshots"),
        pytest.param({"re_read": True, "restart": True, "chunk": 3}, id="everything-at-once"),
    ],
)
def test_interleaving_frame_borders_re_reads_and_restarts_change_nothing(seed: int, how: dict[str, Any]) -> None:
    streams = streams_of(seed)
    expected, cells = run(streams, random.Random(0))
    found, other = run(streams, random.Random(seed + 1), **how)
    assert other == cells
    assert found.digest_part() == expected.digest_part()
    assert found.state.totals.applied > 300
    assert min(found.state.totals.duplicate, found.state.totals.late, found.state.totals.steps) > 0
    assert found.state.sessions == {}
    fields = {field for counts in cells.values() for field in counts}
    assert {"asked", "weighed", "soon", "not_soon", "at_all", "not_at_all"} <= fields, "the models never spoke"


@pytest.mark.parametrize("seed", range(4))
def test_the_digest_is_the_same_while_events_still_wait(seed: int) -> None:
    streams = streams_of(seed)
    expected, _ = run(streams, random.Random(0), close=False)
    found, _ = run(streams, random.Random(9), close=False, restart=True, chunk=40)
    assert found.pending_events > 0
    assert found.digest_part() == expected.digest_part()


@given(st.randoms(use_true_random=False), st.permutations(range(12)))
@hypothesis_settings(max_examples=40, deadline=None)
def test_disorder_within_the_lateness_changes_nothing(rng: random.Random, order: list[int]) -> None:
    events = [event("page_viewed", i * 2.0, "ab"[i % 2], page=PAGES[i % 5]) for i in range(12)]
    stage, cells = sessionizer(SETTINGS), dict[Any, dict[str, int]]()
    cut = rng.randint(0, 12)
    parts = [order[:cut], order[cut:]]
    for number, part in enumerate(parts):
        shuffled = [Item(Place(number, i), events[k].time, events[k]) for i, k in enumerate(part)]
        collect(cells, stage.apply(Frame({"web": 1}, [Section("web/0", T0 + 22, False, shuffled)]), number))
    collect(cells, stage.apply(frame(section([], 5000)), 2))
    straight, expected = sessionizer(SETTINGS), dict[Any, dict[str, int]]()
    collect(expected, straight.apply(frame(section(events, 5000)), 0))
    assert cells == expected
    assert stage.digest_part() == straight.digest_part()


def test_events_of_one_moment_are_processed_in_one_order() -> None:
    kinds = ("lead_created", "lead_scored", "lead_handed_over")
    events = [event(kind, 5, "a", properties={"score": 7.0, "model": "m"}) for kind in kinds]
    digests = {after(*order, until=60)[0].digest_part() for order in (events, events[::-1])}
    assert len(digests) == 1


# ── accounting ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("re_read", [False, True])
def test_every_item_ends_in_exactly_one_account(seed: int, re_read: bool) -> None:
    streams = streams_of(seed)
    stage, _ = run(streams, random.Random(seed), re_read=re_read)
    totals = stage.state.totals
    assert totals.consumed == sum(map(len, streams.values()))
    assert totals.consumed == totals.applied + totals.duplicate + totals.late + sum(totals.dead_letters.values())
    assert (totals.repeats > 0) is re_read
    assert set(totals.dead_letters) == {"not_json"}


def test_marks_are_counted_by_outcome_and_reason_once() -> None:
    marks = [
        Mark(Place(0, 0), "late"),
        Mark(Place(1, 0), "dead_letter", "empty"),
        Mark(Place(1, 1), "dead_letter", "empty"),
    ]
    stage = sessionizer()
    for offset in range(2):
        stage.apply(frame(section([], 10, marks=marks)), offset)
    totals = stage.state.totals
    assert (totals.late, totals.dead_letters, totals.repeats, totals.consumed) == (1, {"empty": 2}, 3, 3)


def test_ids_are_unique_within_a_topic_only() -> None:
    sources = {"web": 2, "crm": 1}
    same = [section([event("lead_created", 1, id="x")], 5, source=name) for name in ("web/0", "web/1", "crm/0")]
    stage = sessionizer()
    stage.apply(frame(*same, sources=sources), 0)
    assert (stage.state.totals.applied, stage.state.totals.duplicate) == (2, 1)


def test_ids_that_share_a_beginning_or_an_end_are_told_apart() -> None:
    ids = [f"{a}{'x' * 11}{b}" for a in "abc" for b in "abc"] + ["", "a", "b"]
    assert len({number_of(name) for name in ids}) == len(ids)
    assert all(0 <= number_of(name) < 2**61 for name in ids)


def test_a_duplicate_is_recognised_within_the_window_and_forgotten_after_it() -> None:
    stage = sessionizer(settings_of(time={"dedupe_window_s": 100.0}))
    stage.apply(frame(section([event("lead_touched", 0, id="x")], 50)), 0)
    assert stage.remembered_ids == 1
    stage.apply(frame(section([event("lead_touched", 0, id="x")], 50, first=1)), 1)
    assert stage.state.totals.duplicate == 1
    stage.apply(frame(section([], 200)), 2)
    assert stage.remembered_ids == 0
    stage.apply(frame(section([event("lead_touched", 0, id="x")], 200, first=2)), 3)
    assert stage.state.totals.applied == 2


def test_an_event_from_before_the_watermark_is_late_on_the_web_and_due_now_in_the_crm() -> None:
    stage = sessionizer()
    stage.apply(frame(section([], 1000)), 0)
    stage.apply(frame(section([event("clicked", 5), event("lead_touched", 5)], 1000)), 1)
    assert (stage.state.totals.late, stage.state.totals.applied) == (1, 1)
    assert min(stage.state.pending) * 10 == T0 + 970


def test_what_concerns_sessions_is_worked_off_as_the_watermark_moves_within_a_bucket() -> None:
    stage = sessionizer()
    events = [event("page_viewed", second, f"p{second}", page="/cart") for second in range(8)]
    assert stage.apply(frame(section(events, 30)), 0) is not None  # the watermark, told for the first time
    assert stage.apply(frame(section([], 35.5, first=8)), 1) is None
    assert (len(stage.state.sessions), stage.pending_events) == (5, 3)
    again = sessionizer()
    again.restore(stage.snapshot())
    ended = [one.apply(frame(section([], 40, first=9)), 2) for one in (stage, again)]
    assert ended[0] == ended[1]
    assert tally([ended[1]])["decide", "entered"] == 8


def test_what_concerns_leads_waits_for_the_end_of_the_bucket_and_is_sorted_there() -> None:
    """A late event is due when it arrives, but it still comes before what happened after it."""
    stage = sessionizer()
    on_time = [event("lead_scored", 101, properties={"score": 50.0})]
    stage.apply(frame(section(on_time, 138)), 0)
    late = [event("lead_created", 55, segment={"source": "fair"})]
    stage.apply(frame(section(late, 139, first=1)), 1)
    assert not stage.state.leads
    counts = stage.apply(frame(section([], 140, first=2)), 2)
    assert counts is not None
    assert {cell.segment: cell.counts for cell in counts.cells}[(("source", "fair"),)]["scored"] == 1


# ── watermark ─────────────────────────────────────────────────────────────────────────────────────────────────────

TWO = {"web": 1, "crm": 1}


def watermark(*frames: Frame, settings: Settings | None = None) -> list[float]:
    """Seconds after `T0` that the watermark has reached after each frame."""
    stage, reached = sessionizer(settings), list[float]()
    for offset, one in enumerate(frames):
        stage.apply(one, offset)
        reached.append(stage.state.watermark - T0)
    return reached


def told(reached: float, source: str = "web/0", idle: bool = False) -> Section:
    return section([], reached, source=source, idle=idle)


def test_the_watermark_waits_until_all_sources_have_spoken() -> None:
    assert watermark(frame(told(500), sources=TWO), frame(told(90, "crm/0"), sources=TWO)) == [NEVER, 60]


def test_the_watermark_is_that_of_the_slowest_source_minus_the_lateness() -> None:
    assert watermark(frame(told(500), told(90, "crm/0"), sources=TWO), frame(told(200, "crm/0"), sources=TWO)) == [
        60,
        170,
    ]


def test_idle_sources_do_not_hold_the_watermark_back() -> None:
    assert watermark(frame(told(500), told(90, "crm/0", idle=True), sources=TWO)) == [470]
    assert watermark(frame(told(500), section([], NEVER, source="crm/0", idle=True), sources=TWO)) == [470]


def test_when_all_are_idle_the_furthest_counts() -> None:
    assert watermark(frame(told(500, idle=True), told(90, "crm/0", idle=True), sources=TWO)) == [470]


def test_the_watermark_never_goes_back() -> None:
    reached = watermark(
        frame(told(500), told(90, "crm/0", idle=True), sources=TWO), frame(told(95, "crm/0"), sources=TWO),
        frame(told(10), sources=TWO), frame(told(510, "crm/0"), sources=TWO),
    )  # fmt: skip
    assert reached == [470, 470, 470, 470]
    assert watermark(frame(told(500)), frame(told(5)), frame(told(501))) == [470, 470, 471]


def test_a_new_source_holds_the_watermark_from_then_on_and_a_removed_one_no_more() -> None:
    reached = watermark(frame(told(500)), frame(told(600), sources=TWO), frame(told(700), sources={"web": 1}))
    assert reached == [470, 470, 670]


def test_counts_are_told_when_a_bucket_has_passed_and_not_twice() -> None:
    stage = sessionizer()
    assert stage.apply(frame(told(39)), 0) is not None
    assert stage.apply(frame(told(39.5)), 1) is None
    again = stage.apply(frame(told(40)), 2)
    assert again == Counts(0, 2, T0 + 10, [])


def test_the_watermark_is_pushed_when_too_many_events_wait() -> None:
    settings = settings_of(limits={"pending_events": 10})
    stage = sessionizer(settings)
    events = [event("page_viewed", i * 10.0, f"p{i}", page="/cart") for i in range(25)]
    counts = stage.apply(frame(section(events, 240), told(0, "crm/0"), sources=TWO), 0)
    assert stage.state.totals.forced == 15
    assert stage.pending_events == 10
    assert stage.state.watermark == T0 + 150
    assert tally([counts])["decide", "entered"] == 15


# ── limits ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_beyond_the_limit_of_open_sessions_the_oldest_close_and_are_counted() -> None:
    stage = sessionizer(settings_of(limits={"open_sessions": 3}))
    events = [event("page_viewed", float(i), f"p{i}", page="/cart") for i in range(8)]
    counts = [stage.apply(frame(section(events, 60)), 0)]
    assert list(stage.state.sessions) == ["p5", "p6", "p7"]
    assert stage.state.totals.evicted == 5
    assert tally(counts)["decide", "dropped"] == 5


def test_beyond_the_limit_of_leads_the_oldest_are_forgotten_and_counted() -> None:
    stage = sessionizer(settings_of(limits={"open_leads": 3}))
    stage.apply(frame(section([event("lead_created", float(i), f"p{i}") for i in range(8)], 60)), 0)
    assert list(stage.state.leads) == ["p5", "p6", "p7"]
    assert stage.state.totals.evicted == 5


def test_beyond_the_limit_of_ids_further_ones_are_not_remembered() -> None:
    stage = sessionizer(settings_of(limits={"dedupe_ids": 3}))
    events = [event("clicked", float(i), id=f"e{i}") for i in range(6)]
    stage.apply(frame(section([*events, *events], 6)), 0)
    assert stage.remembered_ids == 3
    assert (stage.state.totals.duplicate, stage.state.totals.applied) == (3, 9)


def test_a_border_that_rounds_down_is_no_endless_loop() -> None:
    events = [event("page_viewed", round(i * 0.1, 1), f"p{i}", page="/cart") for i in range(50)]
    settings = settings_of(time={"bucket_s": 0.1, "dwell_marks_s": (15.0,)})
    stage, counted = after(*events, until=20_000, settings=settings)
    assert counted["decide", "dropped"] == counted["decide", "open_15"] == 50
    assert stage.state.sessions == {}


# ── erasure ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["erasure_requested", "consent_withdrawn"])
def test_who_asks_to_be_forgotten_is(kind: str) -> None:
    events = [event("page_viewed", 0, "anna", page="/cart"), event("lead_created", 1, "anna"),
              event("page_viewed", 0, "bert", page="/cart"), event(kind, 5, "anna")]  # fmt: skip
    stage, _ = after(*events, until=60)
    assert (list(stage.state.sessions), stage.state.leads, stage.state.totals.forgotten) == (["bert"], {}, 2)
    assert b"anna" not in plain(stage.snapshot())


def test_forgetting_a_stranger_counts_nobody_and_life_goes_on_after() -> None:
    stage, counted = after(event("erasure_requested", 0, "zoe"), event("page_viewed", 10, "zoe", page="/cart"))
    assert stage.state.totals.forgotten == 0
    assert counted["decide", "dropped"] == 1


# ── checkpoints ───────────────────────────────────────────────────────────────────────────────────────────────────


def frames_of(streams: dict[tuple[str, int], list[bytes]]) -> Iterator[Frame]:
    gate = door(SETTINGS, web=2, crm=1)
    for start in range(0, 200, 9):
        for where, values in streams.items():
            gate.take([Raw(*where, start + i, value) for i, value in enumerate(values[start : start + 9])], NOW)
        yield from (one for _, one in gate.flush(NOW, everything=True).frames)
    close_all(gate, [(*where, len(values)) for where, values in streams.items()])
    yield from (one for _, one in gate.flush(NOW, everything=True).frames)


@pytest.mark.parametrize("seed", range(2))
def test_a_snapshot_at_any_point_changes_nothing(seed: int) -> None:
    frames = [msgspec.msgpack.encode(one) for one in frames_of(streams_of(seed))]
    decode: Callable[[bytes], Frame] = msgspec.msgpack.Decoder(Frame).decode
    straight, told, snapshots = sessionizer(SETTINGS), list[Counts | None](), list[bytes]()
    for offset, blob in enumerate(frames):
        snapshots.append(straight.snapshot())
        told.append(straight.apply(decode(blob), offset))
    for cut in range(0, len(frames), 8):
        other = sessionizer(SETTINGS)
        other.restore(snapshots[cut])
        assert [other.apply(decode(blob), cut + i) for i, blob in enumerate(frames[cut:])] == told[cut:]
        assert other.digest_part() == straight.digest_part()


@pytest.mark.parametrize(
    "other",
    [
        settings_of(topics={"events_partitions": 2}), settings_of(time={"bucket_s": 20.0}),
        settings_of(time={"dwell_marks_s": (15.0,)}), settings_of(leads={"score_bins": 10}),
        settings_of(leads={"score_max": 1.0}),
    ],
)  # fmt: skip
def test_a_state_of_other_parameters_is_refused(other: Settings) -> None:
    blob = sessionizer(settings_of()).snapshot()
    with pytest.raises(CheckpointRefused, match="other parameters"):
        sessionizer(other).restore(blob)


def test_a_state_survives_a_change_of_what_it_does_not_depend_on() -> None:
    stage, _ = after(event("page_viewed", 0, page="/cart"), until=50)
    other = sessionizer(settings_of(time={"session_gap_s": 60.0}))
    other.restore(stage.snapshot())
    assert list(other.state.sessions) == ["anna"]


@pytest.mark.parametrize(
    "blob",
    [b"", b"\x00", b"garbage", b"\x93\x01\xa1\xff\x90", b"\x93\x01\xa0" + b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff",
     msgspec.msgpack.encode((1, "x", [1, 2, 3])), msgspec.msgpack.encode({"a": 1})],
)  # fmt: skip
def test_garbage_is_no_state(blob: bytes) -> None:
    for stored in (blob, compressed(blob)):
        with pytest.raises(CheckpointRefused, match=r"sessionize\[0\]"):
            sessionizer().restore(stored)


def test_a_cut_or_altered_state_is_refused_or_read_but_never_breaks() -> None:
    stage, _ = run(streams_of(1), random.Random(1), close=False)
    blob, rng = plain(stage.snapshot()), random.Random(5)
    for _ in range(300):
        broken = bytearray(blob)
        broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
        for bad in (bytes(broken), blob[: rng.randrange(len(blob))]):
            try:
                sessionizer(SETTINGS).restore(compressed(bad))
            except CheckpointRefused:
                pass


def test_a_damaged_model_within_a_state_is_refused() -> None:
    stage, _ = run(streams_of(1), random.Random(1))
    stage.snapshot()
    stage.state.models["decide"] = b"\xc1"
    version_parameters = msgspec.msgpack.decode(plain(stage.snapshot()))[:2]
    stage.state.models["decide"] = b"\xc1"
    with pytest.raises(CheckpointRefused, match="cannot be read"):
        sessionizer(SETTINGS).restore(compressed(msgspec.msgpack.encode((*version_parameters, stage.state))))


# ── as a unit of the live line ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "value",
    [b"", b"{}", b"\x00\xff", b"\x92\x81\xa1\xff\x01\x90", b"\x93\x80\x90" + b"\x91" * 100_000 + b"\xc0", None],
    ids=["empty", "json", "bytes", "bad-utf8", "deep", "tombstone"],
)
def test_what_is_no_frame_is_counted_and_passed_over(value: Any) -> None:
    from streams.units import Plan  # noqa: PLC0415

    unit = SessionizeUnit(Plan(settings_of()), 0)
    assert unit.take(value, 0) == []
    assert unit.refused == 1
    assert unit.take(msgspec.msgpack.encode(frame(told(500))), 1)


def test_leads_and_sessions_of_one_person_live_side_by_side() -> None:
    _, counted = after(event("page_viewed", 0, page="/cart"), event("lead_created", 1), event("lead_handed_over", 2),
                       until=70 * DAY_S)  # fmt: skip
    assert counted["decide", "dropped"] == counted["leads", "win_n"] == 1


def test_only_web_events_make_sessions() -> None:
    stage, counted = after(event("email_opened", 0), event("case_opened", 1), event("deployed", 2), until=60)
    assert (stage.state.sessions, stage.state.leads) == ({}, {})
    assert set(counted) == {("contacts", "opened")}
    assert stage.state.totals.applied == 3
    assert "email_opened" not in WEB_TYPES


# ── errors of our own ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("what", ["advance", "apply", "judge"])
def test_what_raises_on_one_person_is_counted_and_stops_nobody_else(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an event, in the timer of a session, in the timer of a lead."""
    stage = sessionizer(SETTINGS)
    owner: Any = stage._leads if what == "judge" else stage._sessions
    real = getattr(owner, what)

    def fails(thing: Any, *more: Any) -> Any:
        if thing.person == "anna":
            raise ZeroDivisionError("a bug")
        return real(thing, *more)

    monkeypatch.setattr(owner, what, fails)
    events = [event(kind, at, person) for at, kind in ((0, "page_viewed"), (1, "lead_created"), (4, "page_viewed"))
              for person in ("anna", "bert")]  # fmt: skip
    stage.apply(frame(section(events, 10)), 0)
    stage.apply(frame(section([], 100_000)), 1)
    totals = stage.state.totals
    assert totals.failed > 0
    assert (totals.applied, totals.consumed, stage.pending_events) == (6, 6, 0)
    assert stage.state.sessions == {}
    assert "bert" not in stage.state.leads
    assert totals.steps > 0


def test_ids_beyond_the_limit_are_counted_as_unremembered() -> None:
    stage = sessionizer(settings_of(limits={"dedupe_ids": 3}))
    stage.apply(frame(section([event("page_viewed", i) for i in range(5)], 10)), 0)
    assert (stage.state.totals.unremembered, stage.remembered_ids, stage.state.totals.applied) == (2, 3, 5)

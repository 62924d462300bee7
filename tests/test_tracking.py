"""Tracking: what is counted of events, which rows are judged, and which findings wait for it."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from detectors._base import Verdict
from detectors._stages import TRACKING
from streams.events import Event
from streams.findings import HELD, Finding, is_held
from streams.frames import Cell, Counts, Mark, Place, Segment, partition_of
from streams.holds import AFTER_S, Holds, say
from streams.journey import load_journey
from streams.metrics_findings import severity_of
from streams.sessionize import Sessionizer
from streams.tracking import MOST_PAGES, WINDOW_S, Tracker
from streams.tracking_rows import rows_of
from streams.units import Plan, split
from streams.watch import Detectors, Watcher
from tests.kit import T0, door, event, frame, native, raws, section, sessionizer, settings_of

JOURNEY = ("discover", "evaluate", "compare", "decide", "buy", "keep")
WEB: Segment = (("source", "web"),)
CRM: Segment = (("source", "crm"),)
START = T0 // WINDOW_S * WINDOW_S
"""Begin of the window in which `T0` is."""


def counted(*messages: Counts | None) -> dict[Segment, Counter[str]]:
    """Source → field → count, over all windows."""
    found: dict[Segment, Counter[str]] = {}
    for message in messages:
        for cell in message.cells if message else ():
            if cell.stage == TRACKING:
                found.setdefault(cell.segment, Counter()).update(cell.counts)
    return found


def view(at: float, page: str, person: str = "anna", **fields: Any) -> Event:
    return event("page_viewed", at, person, page=page, **{"segment": {"device": "mobile"}, **fields})


def seen(*events: Event, until: float = 20_000.0) -> dict[Segment, Counter[str]]:
    return counted(sessionizer().apply(frame(section(events, until)), 0))


# ── counting ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_event_is_counted_by_type_page_stage_and_device() -> None:
    found = seen(view(0, "/"), view(5, "/cart"), event("purchased", 9, properties={"value": 80.0}))[WEB]
    assert found["event|page_viewed|/|discover|mobile"] == 1
    assert found["event|page_viewed|/cart|decide|mobile"] == 1
    assert found["event|purchased|||"] == 1
    assert found["size|purchased|value|7"] == 1
    assert found["part|0"] == 3
    assert found["session"] == 0


def test_sessions_are_counted_by_how_they_begin_and_what_they_get_past() -> None:
    found = seen(
        view(0, "/"), view(10, "/cart"), event("purchased", 20),
        event("clicked", 0, "bert"), view(30, "/", "carl", session="s1"), view(40, "/", "carl", session="s2"),
    )[()]  # fmt: skip
    assert {name: found[name] for name in ("begun", "headless", "cut")} == {"begun": 4, "headless": 1, "cut": 1}
    past = {field.split("|")[1]: n for field, n in found.items() if field.startswith("past|")}
    assert past == {"discover": 1, "evaluate": 1, "compare": 1, "decide": 1}


def test_a_tag_that_fires_twice_is_no_person_who_looks_twice() -> None:
    twice = seen(view(0, "/"), view(0.03, "/"), event("clicked", 1), event("clicked", 1.1), view(5, "/"))[()]
    assert {field: n for field, n in twice.items() if field.startswith("twice")} == {"twice|page_viewed|/|discover": 1}


def test_people_who_come_at_once_are_no_tag_that_fires_twice() -> None:
    crowd = seen(*(view(0.001 * i, "/", f"p{i}") for i in range(50)), view(0.01, "/cart", "p1"))[()]
    assert [field for field in crowd if field.startswith("twice")] == []


def test_a_number_that_is_not_given_is_counted_as_one_without_size() -> None:
    scores = [{"score": 50.0}, {}, {"score": 0.0}]
    found = seen(*(event("lead_scored", i, f"l{i}", properties=dict(given)) for i, given in enumerate(scores)))[WEB]
    sizes = {field: n for field, n in found.items() if field.startswith("size|")}
    assert sizes == {"size|lead_scored|score|": 2, "size|lead_scored|score|6": 1}


def test_pages_on_which_tags_fire_twice_are_bounded_as_the_others_are() -> None:
    twice = [view(i + part, f"/p{i}", f"a{i}") for i in range(MOST_PAGES + 40) for part in (0.0, 0.03)]
    found = seen(*sorted(twice, key=lambda one: one.time))[()]
    pages = {field.split("|")[2]: n for field, n in found.items() if field.startswith("twice")}
    assert len(pages) == MOST_PAGES + 1 and pages["other"] == 40


def test_a_page_that_found_no_room_stays_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what an event is counted as may be remembered."""
    monkeypatch.setattr("streams.tracking.MOST_PAGES", 2)
    tracker, told = Tracker(settings_of(), load_journey(None)), list[set[str]]()
    for pages in (("/a", "/z"), ("/a", "/b", "/z"), ("/b",)):
        window = len(told) * int(WINDOW_S / 10.0)
        tracker.take("web/0", [(window, view(0, page)) for page in pages])
        (cell,) = tracker.close(tracker.last_bucket(window))
        told.append({field.split("|")[2] for field in cell.counts if field.startswith("event|")})
    assert told == [{"/a", "/z"}, {"/a", "/z", "other"}, {"other"}]


def test_duplicates_late_events_and_dead_letters_are_counted_with_their_source() -> None:
    stage = sessionizer()
    marks = [Mark(Place(0, 0), "late", time=T0 + 5), Mark(Place(1, 0), "dead_letter", "bad_time", time=T0 + 5)]
    first = view(0, "/")
    late = view(1, "/", "bert")
    one = stage.apply(frame(section([first, first], 5.0, first=2, marks=marks)), 0)
    two = stage.apply(frame(section([], 3000.0, first=9)), 1)
    three = stage.apply(frame(section([late], 3000.0, first=9)), 2)
    four = stage.apply(frame(section([], 9000.0, first=20)), 3)
    found = counted(one, two, three, four)[WEB]
    assert {name: found[name] for name in ("dup", "late", "dead|bad_time")} == {"dup": 1, "late": 2, "dead|bad_time": 1}
    totals = stage.state.totals
    assert (totals.duplicate, totals.late, totals.dead_letters) == (1, 2, {"bad_time": 1})


def test_the_door_says_when_what_is_no_event_came() -> None:
    made = door()
    made.take(raws([native("page_viewed", 50.0, page="/"), b"{"]), T0 + 100.0)
    (_, sent), *_ = made.flush(T0 + 100.0, everything=True).frames
    (mark,) = [mark for part in sent.sections for mark in part.marks]
    assert (mark.outcome, mark.time) == ("dead_letter", T0 + 50.0)


def test_an_item_that_is_read_again_is_counted_once() -> None:
    stage = sessionizer()
    sent = frame(section([view(0, "/")], 5.0, marks=[Mark(Place(5, 0), "late", time=T0)]))
    messages = [stage.apply(sent, 0), stage.apply(sent, 1), stage.apply(frame(section([], 9000.0, first=9)), 2)]
    found = counted(*messages)[WEB]
    assert (found["late"], found["event|page_viewed|/|discover|mobile"]) == (1, 1)


def shuffled(seed: int, stage: Sessionizer) -> dict[Segment, Counter[str]]:
    """Three hours of events in frames of random size, some read again; the stage is stored and restored midway."""
    rng = random.Random(1)
    events = [
        view(i * 3.0, rng.choice(("/", "/cart", "/compare", f"/blog/{rng.randrange(99)}")), f"p{rng.randrange(60)}",
             id=f"e{i}")
        for i in range(3600)
    ]  # fmt: skip
    rng, messages, at, offset = random.Random(seed), [], 0, 0
    while at < len(events):
        size = rng.randrange(1, 120)
        part = events[at : at + size]
        messages.append(stage.apply(frame(section(part, part[-1].time - T0, first=at)), offset))
        if rng.random() < 0.2:
            blob = stage.snapshot()
            stage = sessionizer()
            stage.restore(blob)
        at, offset = at + size, offset + 1
    messages.append(stage.apply(frame(section([], 90_000.0, first=at)), offset))
    return counted(*messages)


def test_counts_depend_neither_on_frames_nor_on_restarts() -> None:
    first = shuffled(2, sessionizer())
    assert first == shuffled(3, sessionizer())
    assert sum(n for field, n in first[WEB].items() if field.startswith("event|")) == 3600


def test_a_window_leaves_once_with_its_last_bucket() -> None:
    message = sessionizer().apply(frame(section([view(0, "/"), view(1300, "/")], 20_000.0)), 0)
    assert message is not None
    at = [cell.ts - START for cell in message.cells if cell.stage == TRACKING and cell.segment == WEB]
    first = WINDOW_S * ((T0 - START) // WINDOW_S)
    assert at == [first + WINDOW_S - 10.0, (T0 + 1300 - START) // WINDOW_S * WINDOW_S + WINDOW_S - 10.0]


def test_pages_are_bounded_and_the_commonest_keep_their_name() -> None:
    events = [view(i * 0.5, f"/p{i}", f"a{i}") for i in range(MOST_PAGES + 40)] + [view(100, "/p69", "b")]
    found = seen(*events)[WEB]
    pages = {field.split("|")[2]: n for field, n in found.items() if field.startswith("event|")}
    assert len(pages) == MOST_PAGES + 1
    assert pages["/p69"] == 2 and pages["other"] == 40


def test_labels_and_shapes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.tracking.MOST_SHAPES", 10)
    tracker = Tracker(settings_of(), load_journey(None))
    events = [(0, view(0, f"/p{i}", segment={"channel": f"c{i}"})) for i in range(200)]
    tracker.take("web/0", events)
    (cell,) = tracker.close(tracker.last_bucket(0))
    assert sum(n for field, n in cell.counts.items() if field.startswith("event|")) == 200
    assert len(cell.counts) < 40


# ── rows ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def row(**labels: str) -> Segment:
    return tuple(sorted(labels.items()))


CELLS = {
    WEB: {"event|page_viewed|/cart|decide|mobile": 5, "event|clicked|/cart|decide|mobile": 3,
          "event|page_viewed|/|discover|desktop": 9, "event|other|/|discover|desktop": 1, "dup": 2, "part|0": 18},
    CRM: {"event|lead_accepted|||": 4, "event|lead_won|||": 1, "size|lead_scored|score|6": 7},
    (): {"begun": 6, "headless": 2, "past|decide|mobile": 4, "past|discover|desktop": 3, "twice|page_viewed|/cart|": 1},
}  # fmt: skip


def test_a_type_is_compared_with_its_page_and_with_who_got_past() -> None:
    rows = rows_of(CELLS, (), JOURNEY)
    views = rows[row(source="web", type="page_viewed", page="/cart", at="decide")]
    assert views == {"own": 5, "beside": 3, "beyond": 4, "flood": 1}
    assert rows[row(source="web", page="/cart", at="decide")] == {"own": 8, "beside": 10, "beyond": 4}
    assert rows[row(source="web", type="page_viewed")]["own"] == 14
    assert rows[row(source="web", device="mobile")] == {
        "own": 8, "beside": 10, "beyond": 4, "strict": 1}  # fmt: skip
    assert rows[row(source="web", type="page_viewed")]["beyond"] == 7
    assert rows[row(source="crm", type="lead_accepted")] == {"own": 4, "beside": 1, "beyond": 1}


def test_shares_sizes_and_arrivals_are_rows() -> None:
    rows = rows_of(CELLS, (), JOURNEY)
    assert rows[row(source="web", check="duplicates")] == {"bad": 2, "all": 20}
    assert rows[row(source="web", check="unknown")] == {"bad": 1, "all": 18}
    assert rows[row(check="headless")] == {"bad": 2, "all": 6}
    assert rows[row(check="twice", type="page_viewed", page="/cart")] == {"bad": 1, "all": 5}
    assert rows[row(source="crm", type="lead_scored", size="score")] == {"far": 3, "o|6": 7}
    assert rows[row(source="web", check="arrivals")] == {"came": 20}


def test_what_came_before_and_does_not_any_more_is_a_row_of_nothing() -> None:
    known = rows_of(CELLS, (), JOURNEY)
    gone = {WEB: {"event|clicked|/cart|decide|mobile": 3}, (): {"begun": 2, "past|decide|mobile": 4}}
    rows = rows_of(gone, known, JOURNEY)
    assert rows[row(source="web", type="page_viewed", page="/cart", at="decide")] == {
        "own": 0, "beside": 3, "beyond": 4, "flood": 1}  # fmt: skip
    assert rows[row(source="crm", check="arrivals")] == {"came": 0}
    assert rows[row(source="web", check="partition_0")] == {"own": 0, "beside": 3, "strict": 1}


def test_a_label_is_missed_in_the_types_that_usually_have_it() -> None:
    """Else more leads in a source of visits and leads would look as if devices went missing."""
    views = [view(i, "/", f"p{i}") for i in range(30)]
    bare = [event("page_viewed", 40.0 + i, f"q{i}", page="/") for i in range(4)]
    leads = [event("lead_created", 50.0 + i, f"l{i}") for i in range(50)]
    found = seen(*views, *bare, *leads)[WEB]
    assert (found["label|device|mobile"], found["label|device|"]) == (30, 4)


def test_a_label_that_nobody_gives_any_more_is_missing_from_all() -> None:
    stage = sessionizer()
    counted(stage.apply(frame(section([view(i, "/", f"p{i}") for i in range(30)], 1_000)), 0))
    again = sessionizer()
    again.restore(stage.snapshot())
    bare = [event("page_viewed", 1_100.0 + i, f"q{i}", page="/") for i in range(5)]
    found = counted(again.apply(frame(section(bare, 20_000, first=30)), 1))[WEB]
    assert (found["label|device|mobile"], found["label|device|"]) == (0, 5)
    assert rows_of({WEB: found}, (), JOURNEY)[row(source="web", label="device")] == {"v|": 5}


# ── holds ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

ALERT = Verdict("alert", onset=T0, kind="stopped")
KNOWN = [row(source="web", type="page_viewed"), row(source="crm", type="lead_won")]
PAID: Segment = (("channel", "paid"),)
MOBILE: Segment = (("device", "mobile"),)


@pytest.mark.parametrize(
    ("broken", "held", "free"),
    [
        (row(source="web", page="/cart", at="decide"),
         [("discover", ()), ("decide", PAID)], [("buy", ()), ("leads", ())]),
        (row(source="web", type="page_viewed", page="/cart", at="decide", device="mobile"),
         [("evaluate", MOBILE), ("evaluate", ())], [("evaluate", (("device", "desktop"),))]),
        (row(source="web", label="channel"), [("decide", PAID)], [("decide", ()), ("decide", MOBILE)]),
        (row(source="crm", type="lead_accepted"), [("leads", ())], [("decide", ())]),
        (row(source="crm", type="lead_scored", size="score"), [("leads", ())], [("decide", ())]),
        (row(source="web", type="purchased", size="value"), [], [("buy", ()), ("leads", ())]),
        (row(source="web", check="late"), [("keep", ())], [("leads", ())]),
        (row(source="crm", check="arrivals"), [("leads", ())], [("keep", ())]),
        (row(source="web", check="duplicates"), [], [("keep", ()), ("leads", ())]),
        (row(check="headless"), [("discover", ()), ("keep", ())], [("leads", ())]),
    ],
    ids=["page", "page on a device", "label", "lead type", "score", "value", "late", "silent source", "duplicates",
         "sessions"],
)  # fmt: skip
def test_what_depends_on_broken_tracking_is_held(
    broken: Segment, held: list[tuple[str, Segment]], free: list[tuple[str, Segment]]
) -> None:
    holds = Holds(JOURNEY)
    holds.hear(broken, ALERT, T0 + 600)
    for stage, segment in held:
        assert holds.broken(stage, segment, KNOWN) is not None, (stage, segment)
    for stage, segment in free:
        assert holds.broken(stage, segment, KNOWN) is None, (stage, segment)


def test_a_hold_outlives_what_broke_by_the_time_that_counts_need() -> None:
    holds, page = Holds(JOURNEY), row(source="web", page="/cart", at="decide")
    holds.hear(page, ALERT, T0)
    holds.hear(page, Verdict("ok"), T0 + 1000)
    holds.move_on(T0 + 1000 + AFTER_S)
    assert holds.broken("decide", (), KNOWN) is not None
    holds.move_on(T0 + 1001 + AFTER_S)
    assert holds.broken("decide", (), KNOWN) is None


def test_a_suspicion_holds_nothing_for_long() -> None:
    holds, page = Holds(JOURNEY), row(source="web", page="/cart", at="decide")
    holds.hear(page, Verdict("warn", onset=T0, kind="stopped"), T0)
    assert holds.suspected("decide", (), KNOWN) and holds.broken("decide", (), KNOWN) is None
    holds.hear(page, Verdict("ok"), T0 + 600)
    assert not holds.suspected("decide", (), KNOWN)


def test_what_is_held_says_why() -> None:
    holds, page = Holds(JOURNEY), row(source="web", type="page_viewed", page="/cart", at="decide")
    holds.hear(page, ALERT, T0)
    said = say(*(holds.broken("decide", (), KNOWN) or pytest.fail("not held")))
    assert said == ("Held back: tracking of type=page_viewed, page=/cart, source=web is broken (stopped) since"
                    " 2023-11-14 22:13 UTC.")  # fmt: skip


# ── the whole: detect and judge, over all counts partitions ───────────────────────────────────────────────────────────

STEP_S = 600.0
PARTS = 3


class Shop:
    """A counts topic of three partitions: the advance rate of `evaluate` falls when the tag of /compare is gone."""

    def __init__(self) -> None:
        self.settings = settings_of(
            topics={"counts_partitions": PARTS}, owners={"stages": {TRACKING: "tracking-team"}},
            detectors={"early_dropoff": {"warmup_s": 86_400.0}},
        )  # fmt: skip
        plan = Plan(self.settings)
        self.plan = plan
        self.watchers = [plan.watcher(p) for p in range(PARTS)]
        self.told: list[Finding] = []
        self.rng = random.Random(5)
        self.number = 0

    def window(self, views: float, advance: float) -> None:
        """One window: views of /compare as a part of the usual ones, and the advance rate of evaluate."""
        ts, self.number = START + self.number * STEP_S + STEP_S - 10.0, self.number + 1
        some = self.rng.randrange
        n = 20 + some(5)
        soon = sum(self.rng.random() < advance for _ in range(n))
        web = {"event|page_viewed|/compare|compare|": round(views * (8 + some(3))),
               "event|page_left|/compare|compare|": 8 + some(3),
               "event|page_viewed|/|discover|": 30 + some(6)}  # fmt: skip
        cells = [
            Cell(ts, TRACKING, WEB, {name: count for name, count in web.items() if count}),
            Cell(ts, TRACKING, (), {"begun": 30, "past|compare|": 6 + some(3), "past|discover|": 20}),
            *(Cell(ts, stage, (), {"soon": soon, "not_soon": n - soon}) for stage in ("evaluate", "buy")),
        ]
        message = Counts(0, self.number, ts + 10.0, cells)
        for part, portion in split(message, PARTS):
            self.told += self.watchers[part].apply(portion)

    def run(self, days: float, views: float = 1.0, advance: float = 0.45) -> list[Finding]:
        before = len(self.told)
        for _ in range(int(days * 86_400 / STEP_S)):
            self.window(views, advance)
        return self.told[before:]

    def restart(self) -> None:
        blobs = [watcher.snapshot() for watcher in self.watchers]
        self.watchers = [self.plan.watcher(p) for p in range(PARTS)]
        for watcher, blob in zip(self.watchers, blobs, strict=True):
            watcher.restore(blob)


def of(findings: list[Finding], detector: str) -> list[Finding]:
    return [finding for finding in findings if finding.detector == detector]


@pytest.mark.parametrize("restarts", [False, True])
def test_a_tag_that_is_gone_is_told_as_broken_data_and_holds_back_what_depends_on_it(restarts: bool) -> None:
    shop = Shop()
    assert partition_of(TRACKING, PARTS) != partition_of("evaluate", PARTS), "the hold has to cross partitions"
    assert shop.run(4) == []
    if restarts:
        shop.restart()
    broken = shop.run(1, views=0.0, advance=0.2)
    data, trust = of(broken, "data_trust"), of(broken, "early_dropoff")
    assert {finding.segment["page"] for finding in data} == {"/compare"} and {one.kind for one in data} == {"stopped"}
    assert {finding.owner for finding in data} == {"tracking-team"}
    assert trust and all(is_held(finding) for finding in trust)
    assert "Held back: tracking of type=page_viewed, page=/compare" in trust[0].summary
    assert {severity_of(finding, shop.plan.detectors.classes["early_dropoff"].alert) for finding in trust} == {"none"}
    if restarts:
        shop.restart()
    mended = shop.run(1)
    ended = [finding for finding in mended if finding.resolved_at]
    assert {finding.detector for finding in ended} == {"data_trust", "early_dropoff"}
    assert not [finding for watcher in shop.watchers for finding in watcher.findings if finding.resolved_at is None]


def test_an_erosion_is_told_while_tracking_is_whole() -> None:
    shop = Shop()
    shop.run(4)
    told = shop.run(1, advance=0.2)
    assert of(told, "data_trust") == []
    (first, *_) = of(told, "early_dropoff")
    assert HELD not in first.evidence


def test_an_erosion_that_goes_on_when_tracking_is_whole_again_is_told_then() -> None:
    shop = Shop()
    shop.run(4)
    assert all(is_held(one) for one in of(shop.run(1, views=0.0, advance=0.2), "early_dropoff"))
    after = of(shop.run(2, advance=0.2), "early_dropoff")
    assert [one for one in after if not is_held(one) and one.resolved_at is None]


def test_what_was_found_long_before_tracking_broke_is_not_held() -> None:
    shop = Shop()
    shop.run(4)
    shop.run(1, advance=0.2)
    told = of(shop.run(1, views=0.0, advance=0.2), "early_dropoff")
    assert told and not any(is_held(one) for one in told)


def test_one_partition_tells_of_tracking_and_all_hold() -> None:
    shop = Shop()
    shop.run(4)
    shop.run(1, views=0.0, advance=0.2)
    telling = [watcher for watcher in shop.watchers if any(one.detector == "data_trust" for one in watcher.findings)]
    assert telling == [shop.watchers[partition_of(TRACKING, PARTS)]]
    assert sum("data_trust" in watcher.allowances for watcher in shop.watchers) == 1
    assert all(watcher._holds.broken("evaluate", (), watcher._rows) for watcher in shop.watchers)


def test_without_the_detector_nothing_is_held() -> None:
    settings = settings_of()
    watcher = Watcher(settings, Detectors({}, ["early_dropoff"], JOURNEY), 0)
    assert watcher.apply(Counts(0, 0, T0 + 100, [Cell(T0, TRACKING, WEB, {"dup": 3})])) == []
    assert watcher.streams == 0

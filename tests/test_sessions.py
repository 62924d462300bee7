"""Sessions and steps, in event time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from detectors._step_model import StepModel, StepModelParams, step_features
from streams.combine import Labels
from streams.events import Event
from streams.journey import load_journey
from streams.sessions import Counter, Session, Sessions
from streams.settings import Settings
from tests.kit import T0, Tally, after, event, frame, section, sessionizer, settings_of, tally

GAP = 1800.0
DISCOVER, EVALUATE, COMPARE, DECIDE, BUY = "/", "/product/a", "/pricing", "/cart", "/checkout"


def view(at: float, page: str, person: str = "anna", **fields: Any) -> Event:
    return event("page_viewed", at, person, page=page, **fields)


def outcomes(counted: Tally) -> dict[str, str | list[str]]:
    """stage → how its steps ended."""
    found: dict[str, list[str]] = {}
    for (stage, field), count in sorted(counted.items()):
        if field in ("advanced", "returned", "dropped"):
            found.setdefault(stage, []).extend([field] * count)
    return {stage: ends[0] if len(ends) == 1 else ends for stage, ends in found.items()}


@pytest.mark.parametrize(
    ("pages", "expected"),
    [
        pytest.param([DISCOVER], {"discover": "dropped"}, id="left-at-once"),
        pytest.param([DISCOVER, EVALUATE], {"discover": "advanced", "evaluate": "dropped"}, id="one-stage-on"),
        pytest.param([DISCOVER, DECIDE], {"discover": "advanced", "decide": "dropped"}, id="over-several-stages"),
        pytest.param([COMPARE, EVALUATE], {"compare": "returned", "evaluate": "dropped"}, id="back"),
        pytest.param([EVALUATE, EVALUATE, "/product/b"], {"evaluate": "dropped"}, id="within-one-stage"),
        pytest.param([EVALUATE, COMPARE, EVALUATE, COMPARE],
                     {"evaluate": ["advanced", "advanced"], "compare": ["dropped", "returned"]}, id="to-and-fro"),
        pytest.param(["/unknown", EVALUATE], {"discover": "advanced", "evaluate": "dropped"}, id="unknown-page-first"),
        pytest.param([COMPARE, "/unknown"], {"compare": "dropped"}, id="unknown-page-stays-in-the-step"),
    ],
)  # fmt: skip
def test_a_step_ends_as_advanced_returned_or_dropped(pages: list[str], expected: dict[str, Any]) -> None:
    stage, counted = after(*(view(60.0 * i, page) for i, page in enumerate(pages)))
    assert outcomes(counted) == expected
    entered = sum(count for (_, field), count in counted.items() if field == "entered")
    assert entered == stage.state.totals.steps == sum(isinstance(e, str) or len(e) for e in expected.values())
    assert stage.state.sessions == {}


def test_dwell_of_a_step_runs_to_the_next_and_of_the_last_to_its_last_event() -> None:
    _, counted = after(view(0, DISCOVER), view(100, COMPARE), event("clicked", 130.5))
    assert counted["discover", "dwell_ms"] == 100_000
    assert counted["compare", "dwell_ms"] == 30_500


@pytest.mark.parametrize(("gap", "sessions"), [(GAP, 1), (GAP + 0.001, 2)])
def test_a_session_ends_after_the_gap_and_not_at_it(gap: float, sessions: int) -> None:
    _, counted = after(view(0, EVALUATE), view(gap, EVALUATE))
    assert counted["evaluate", "entered"] == counted["evaluate", "dropped"] == sessions


def test_the_watermark_closes_a_session_only_beyond_its_gap() -> None:
    stage = sessionizer(settings_of(time={"allowed_lateness_s": 1.0}))
    stage.apply(frame(section([view(0, EVALUATE)], GAP + 1)), 0)
    assert stage.state.sessions
    stage.apply(frame(section([], GAP + 1 + 10)), 1)
    assert not stage.state.sessions


def test_a_long_session_is_cut() -> None:
    settings = settings_of(time={"max_session_s": 3600.0})
    _, counted = after(*(view(i * 900.0, EVALUATE) for i in range(9)), settings=settings)
    assert counted["evaluate", "entered"] == 2  # 0 … 3600 and 4500 … 7200
    assert counted["evaluate", "dwell_ms"] == 3_600_000 + 2_700_000


@pytest.mark.parametrize(
    ("given", "sessions"),
    [(["s1", "s1"], 1), (["s1", "s2"], 2), ([None, "s1", "s1"], 1), (["s1", None, "s1"], 1), (["s1", None, "s2"], 2)],
)
def test_a_given_session_id_separates_and_a_missing_one_does_not(given: list[str | None], sessions: int) -> None:
    _, counted = after(*(view(i * 10.0, EVALUATE, session=name) for i, name in enumerate(given)))
    assert counted["evaluate", "dropped"] == sessions


def test_a_given_session_id_does_not_bridge_the_gap() -> None:
    _, counted = after(view(0, EVALUATE, session="s"), view(GAP + 1, EVALUATE, session="s"))
    assert counted["evaluate", "dropped"] == 2


def test_a_goal_advances_its_stage_and_the_receipt_is_no_new_step() -> None:
    _, counted = after(view(0, BUY), event("purchased", 30, properties={"value": 9.0}), view(40, "/order/:id"))
    assert outcomes(counted) == {"buy": "advanced"}
    assert counted["buy", "dwell_ms"] == 30_000


def test_who_shops_on_after_a_purchase_begins_new_steps_and_may_buy_again() -> None:
    _, counted = after(event("purchased", 0), view(10, EVALUATE), event("purchased", 20), event("purchased", 30))
    assert outcomes(counted) == {"buy": ["advanced", "advanced"], "evaluate": "advanced"}


def test_events_without_a_stage_stay_in_the_step_and_keep_it_alive() -> None:
    events = [view(0, COMPARE), *(event("page_pinged", 1000.0 * i) for i in range(1, 4))]
    _, counted = after(*events)
    assert outcomes(counted) == {"compare": "dropped"}
    assert counted["compare", "dwell_ms"] == 3_000_000


def test_an_event_that_nobody_mapped_lives_in_an_open_session_but_begins_none() -> None:
    _, counted = after(event("other", 0))
    assert counted == {}
    _, counted = after(view(0, COMPARE), event("other", 100))
    assert counted["compare", "dwell_ms"] == 100_000


@pytest.mark.parametrize("other", [event("other", GAP + 3), event("other", 60, session="another")])
def test_an_event_that_nobody_mapped_does_not_follow_a_session_that_has_ended(other: Event) -> None:
    # In the bucket in which the session ends, the session is still there when the event is looked at.
    _, counted = after(view(0, COMPARE, session="one"), other)
    assert outcomes(counted) == {"compare": "dropped"}


@pytest.mark.parametrize(
    ("left_at", "marks"),
    [(15.0, []), (15.5, [15]), (30.0, [15]), (61.0, [15, 30, 60]), (301.0, [15, 30, 60, 120, 300])],
)
def test_a_dwell_mark_counts_a_step_that_outlives_it(left_at: float, marks: list[int]) -> None:
    _, counted = after(
        view(0, EVALUATE), view(left_at, COMPARE), view(left_at + 1, DECIDE), event("purchased", left_at + 2)
    )
    assert [m for m in (15, 30, 60, 120, 300) if counted["evaluate", f"open_{m}"]] == marks
    assert all(counted["evaluate", f"open_{m}"] == 1 for m in marks)
    assert not counted["compare", "open_15"]


def test_dwell_marks_are_a_knob() -> None:
    settings = settings_of(time={"dwell_marks_s": (7.5, 1000.0)})
    _, counted = after(view(0, EVALUATE), settings=settings)
    assert (counted["evaluate", "open_7.5"], counted["evaluate", "open_1000"]) == (1, 1)


def test_a_signal_is_counted_once_a_step() -> None:
    clicks = [event("clicked", i / 2, properties={"x": 1, "y": 1, "dead": i == 9}) for i in range(10)]
    _, counted = after(view(0, COMPARE), *clicks, view(20, COMPARE), event("clicked", 30, properties={"dead": True}))
    assert counted["compare", "sig_rage_click"] == 1
    assert counted["compare", "sig_dead_click"] == 1


class Counted:
    """Sessions with a model that has learnt, and what they count."""

    def __init__(self, stayers_dwell_s: float = 200.0, advancers_dwell_s: float = 20.0, learnt: int = 800) -> None:
        self.model = StepModel(StepModelParams(min_looks=100, trial_steps=200, model_share=0.33, novel_steps=100))
        for i in range(learnt):
            stays = i % 3 == 0
            dwell_s = (stayers_dwell_s if stays else advancers_dwell_s) * (0.5 + i % 7 / 6)
            features = step_features(dwell_s, 2, 1, 0, 0, 0)
            self.model.weigh(features)
            self.model.learn([features], advanced=not stays)
        self.total: Tally = Tally()
        self.later: list[tuple[float, str]] = []
        settings = Settings()
        self.labels = Labels(settings.segments)
        counter = Counter(self.count, self.count_later, lambda *_: None)
        self.sessions = Sessions(settings, load_journey(None), counter, {"compare": self.model}, StepModel)

    def count(self, stage: str, cohort: str, fields: Sequence[str]) -> None:
        self.total.update((stage, field) for field in fields)

    def count_later(self, due: float, stage: str, cohort: str, field: str) -> None:
        self.later.append((due - T0, f"{stage}.{field}"))

    def run(
        self, *events: Event, fields: tuple[str, ...] = ("judged", "signalled", "asked", "hesitant")
    ) -> dict[str, int]:
        session = Session("anna", None, events[0].time, events[0].time, cohort="[[]]")
        for one in events:
            assert self.sessions.advance(session, one.time) is not None
            self.sessions.apply(session, one)
        assert self.sessions.advance(session, events[-1].time + GAP + 1) is None
        return {field: self.total["compare", field] for field in fields}


def judged(*, signalled: int = 0, asked: int = 1, hesitant: int = 0) -> dict[str, int]:
    """What one step counts."""
    return {"judged": 1, "signalled": signalled, "asked": asked, "hesitant": hesitant}


def stay(seconds: float) -> list[Event]:
    """A visit to `compare` that shows life every ten seconds."""
    return [view(0, COMPARE), *(event("page_pinged", float(at)) for at in range(10, int(seconds), 10))]


def dead_click(at: float) -> Event:
    return event("clicked", at, properties={"dead": True})


def test_who_dwells_like_those_who_leave_is_hesitant_once() -> None:
    assert Counted().run(*stay(400), view(400, DECIDE)) == judged(hesitant=1)


def test_a_step_is_called_hesitant_while_it_is_open() -> None:
    counted = Counted()
    session = Session("anna", None, T0, T0, cohort="[[]]")
    for one in stay(290):
        counted.sessions.advance(session, one.time)
        counted.sessions.apply(session, one)
    assert session.step is not None and counted.total["compare", "hesitant"] == 1


def test_who_moves_on_like_the_others_is_judged_and_not_hesitant() -> None:
    assert Counted().run(*stay(20), view(20, DECIDE)) == judged()


def test_where_those_who_move_on_read_as_long_reading_long_is_no_hesitation() -> None:
    readers = Counted(stayers_dwell_s=200.0, advancers_dwell_s=200.0)
    assert readers.run(*stay(290), view(290, DECIDE)) == judged(asked=0)


def test_a_step_is_judged_once_even_if_signals_come_after_the_last_mark() -> None:
    dead = [dead_click(400.0 + i) for i in range(3)]
    readers = Counted(stayers_dwell_s=200.0, advancers_dwell_s=200.0)
    assert readers.run(*stay(390), *dead, view(500, DECIDE)) == judged(asked=0)


def test_a_signal_decides_at_once() -> None:
    assert Counted().run(view(0, COMPARE), dead_click(2), dead_click(2), view(3, DECIDE)) == judged(signalled=1)


def test_what_the_model_says_takes_no_signal_away_nor_the_other_way_round() -> None:
    """The rate of micro-signals must not fall when a model begins to speak."""
    hesitant_first = [*stay(290), dead_click(290), view(291, DECIDE)]
    assert Counted().run(*hesitant_first) == judged(signalled=1, hesitant=1)
    assert Counted(learnt=20).run(*hesitant_first) == judged(signalled=1, asked=0)
    signal_first = [view(0, COMPARE), dead_click(1), *stay(290)[1:], view(291, DECIDE)]
    assert Counted().run(*signal_first) == judged(signalled=1, hesitant=1)


def test_a_model_that_does_not_know_the_stage_is_not_asked_and_signals_count_all_the_same() -> None:
    found = Counted(learnt=50).run(view(0, COMPARE), dead_click(2), view(3, DECIDE))
    assert found == judged(signalled=1, asked=0)


def test_the_model_learns_from_every_look_at_a_step_and_only_from_looks_that_showed_something_new() -> None:
    counted = Counted()
    before = counted.model.state.looks
    counted.run(view(0, COMPARE), view(10, DECIDE))
    assert counted.model.state.looks == before, "no mark passed, no signal shown"
    counted.run(view(0, COMPARE), view(16, DECIDE))
    assert counted.model.state.looks == before + 1
    counted.run(view(0, COMPARE), view(500, DECIDE))
    assert counted.model.state.looks == before + 2, "five marks passed in silence"
    counted.run(view(0, COMPARE), dead_click(1), event("page_pinged", 20), dead_click(40), view(41, DECIDE))
    assert counted.model.state.looks == before + 4, "at the signal, and at the mark of 30 s"


def test_a_step_unlike_all_before_is_novel_once() -> None:
    fields = ("weighed", "novel")
    assert Counted().run(*stay(20), view(20, DECIDE), fields=fields) == {"weighed": 1, "novel": 0}
    mad = [event("field_changed", 0.5 + i / 20, properties={"field": str(i)}) for i in range(200)]
    counted = Counted()
    assert counted.run(view(0, COMPARE), *mad, view(400, DECIDE), fields=fields) == {"weighed": 1, "novel": 1}
    assert Counted(learnt=20).run(*stay(20), view(20, DECIDE), fields=fields) == {"weighed": 0, "novel": 0}


# ── cohorts: who had advanced when the last dwell mark passed ─────────────────────────────────────────────────────


FULL_MINUTE = 40.0
"""`T0` is 20 s past a minute; what is known ahead is counted at the next full one."""


@pytest.mark.parametrize(
    ("events", "soon", "at_all"),
    [
        pytest.param([view(0, COMPARE), view(20, DECIDE)], "soon", "at_all", id="advanced"),
        pytest.param([view(0, COMPARE), view(300, DECIDE)], "soon", "at_all", id="at-the-very-mark"),
        pytest.param([view(0, COMPARE), view(300.5, DECIDE)], "not_soon", "at_all", id="just-after-it"),
        pytest.param([view(0, COMPARE), view(1800, DECIDE)], "not_soon", "at_all", id="after-the-gap"),
        pytest.param([view(0, COMPARE), view(900, COMPARE), view(1801, DECIDE)], "not_soon", "not_at_all",
                     id="too-late"),
        pytest.param([view(0, COMPARE), view(20, EVALUATE)], "not_soon", "not_at_all", id="returned"),
        pytest.param([view(0, COMPARE)], "not_soon", "not_at_all", id="dropped"),
        pytest.param([view(0, COMPARE, session="a"), view(20, EVALUATE, session="b")], "not_soon", "not_at_all",
                     id="cut-short"),
    ],
)  # fmt: skip
def test_every_step_counts_with_its_cohort_when_the_time_has_come(events: list[Event], soon: str, at_all: str) -> None:
    stage = sessionizer()
    counts = stage.apply(frame(section(events, 100_000)), 0)
    assert counts is not None
    fields = ("soon", "not_soon", "at_all", "not_at_all")
    where = {name: cell.ts - T0 for cell in counts.cells for name in fields
             if cell.segment == () and cell.stage == "compare" and name in cell.counts}  # fmt: skip
    assert where == {soon: 300 + FULL_MINUTE, at_all: 1800 + FULL_MINUTE}
    assert tally([counts])["compare", soon] == tally([counts])["compare", "entered"] == 1


def test_a_cohort_is_known_while_its_sessions_are_still_open() -> None:
    """Ten enter, four of them advance; nobody's session has ended when that is told."""
    stage = sessionizer(settings_of(time={"allowed_lateness_s": 1.0}))
    events = [view(i / 10, COMPARE, f"p{i}") for i in range(10)] + [view(60 + i, DECIDE, f"p{i}") for i in range(4)]
    counted = tally([stage.apply(frame(section(events, 300 + FULL_MINUTE + 11)), 0)])
    assert (counted["compare", "soon"], counted["compare", "not_soon"]) == (4, 6)
    assert len(stage.state.sessions) == 10 and not counted["compare", "dropped"]


def test_what_is_to_be_counted_later_survives_a_restart() -> None:
    settings = settings_of(time={"allowed_lateness_s": 1.0})
    stage = sessionizer(settings)
    stage.apply(frame(section([view(0, COMPARE), view(20, DECIDE)], 50)), 0)
    other = sessionizer(settings)
    other.restore(stage.snapshot())
    counted = tally([other.apply(frame(section([], 4000)), 1)])
    assert (counted["compare", "soon"], counted["compare", "at_all"]) == (1, 1)
    other.snapshot()
    assert other.state.later == {}


def test_who_asks_to_be_forgotten_leaves_no_cohort_behind_but_what_was_counted() -> None:
    events = [view(0, COMPARE), view(5, DECIDE), event("erasure_requested", 9)]
    _, counted = after(*events)
    assert counted["compare", "soon"] == 1
    assert not counted["decide", "soon"] and not counted["decide", "not_soon"]


def test_without_dwell_marks_there_are_no_cohorts_and_steps_are_judged_at_their_end() -> None:
    settings = settings_of(time={"dwell_marks_s": ()})
    _, counted = after(view(0, COMPARE), view(500, DECIDE), settings=settings)
    assert counted["compare", "judged"] == counted["compare", "advanced"] == 1
    assert not counted["compare", "soon"] and counted["compare", "at_all"] == 1


def test_labels_known_later_count_from_then_on_and_the_first_value_stays() -> None:
    stage = sessionizer()
    events = [
        view(0, DISCOVER),
        view(5, COMPARE, segment={"device": "mobile"}),
        view(9, COMPARE, segment={"device": "tv"}),
    ]
    counts = [stage.apply(frame(section(events, 100_000)), 0)]
    mobile = tally(counts, (("device", "mobile"),))
    assert mobile["compare", "dropped"] == 1
    assert tally(counts, (("device", "tv"),)) == {}
    assert mobile["discover", "entered"] == 0


def test_a_step_is_counted_in_the_bucket_in_which_it_began_and_its_end_where_it_ended() -> None:
    stage = sessionizer()
    counts = stage.apply(frame(section([view(0, DISCOVER), view(25, COMPARE)], 100_000)), 0)
    assert counts is not None
    where = {(cell.ts - T0, cell.stage, field) for cell in counts.cells for field in cell.counts if cell.segment == ()}
    assert {(0, "discover", "entered"), (20, "discover", "advanced"), (20, "compare", "entered")} <= where
    assert (1820, "compare", "dropped") in where  # 25 s + gap, in the bucket that holds that moment


# ── the landmark: what a step had shown by then, and whether it advanced ──────────────────────────────────────────────

LOOP = [view(0, EVALUATE), view(5, "/product/b"), view(8, EVALUATE)]
"""A u-turn and a way back within seconds."""


def landmark(counted: Tally, stage: str = "evaluate") -> dict[str, int]:
    return {field: n for (where, field), n in sorted(counted.items())
            if where == stage and field.startswith(("long_", "ind_"))}  # fmt: skip


def test_who_leaves_before_the_landmark_is_compared_with_nobody() -> None:
    assert landmark(after(*LOOP, view(50, COMPARE))[1]) == {}


@pytest.mark.parametrize(
    ("then", "outcome"), [([view(100, COMPARE)], "yes"), ([view(100, DISCOVER)], "no"), ([], "no")]
)
def test_what_was_shown_by_the_landmark_is_counted_by_what_came_of_it(then: list[Event], outcome: str) -> None:
    stay = event("page_pinged", 90)
    shown = landmark(after(*LOOP, stay, *then)[1])
    assert shown.pop(f"long_{outcome}") == 1
    assert shown.pop(f"ind_signal_{outcome}") == 1
    assert shown and all(name.endswith(f"_{outcome}") and n == 1 for name, n in shown.items())


def test_what_is_shown_after_the_landmark_says_nothing_of_it() -> None:
    late = [view(0, EVALUATE), view(65, "/product/b"), view(68, EVALUATE), view(100, COMPARE)]
    assert landmark(after(*late)[1]) == {"long_yes": 1}


def test_all_stages_are_told_side_by_side() -> None:
    _, counted = after(view(0, EVALUATE), view(100, DECIDE), event("purchased", 120, properties={"value": 19.9}))
    across = {field: n for (stage, field), n in counted.items() if stage == "journey"}
    wanted = {"entered_evaluate": 1, "advanced_evaluate": 1, "at_all_evaluate": 1, "long_yes_evaluate": 1,
              "entered_decide": 1, "entered_buy": 1, "value_buy": 20, "at_all_buy": 1}  # fmt: skip
    assert wanted.items() <= across.items()
    for field, n in across.items():
        name, _, stage = field.rpartition("_")
        assert counted[stage, name] == n

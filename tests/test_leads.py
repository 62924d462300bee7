"""Lead journeys: any order gives the same counts, and a cohort counts once its horizon has passed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.events import Event
from streams.leads import DAY_S, Lead, Leads
from streams.settings import LeadSettings
from tests.kit import T0, after, event, frame, section, sessionizer, settings_of, tally


def lead_event(kind: str, day: float, **properties: Any) -> Event:
    return event(f"lead_{kind}", day * DAY_S, "lead", properties=properties, id=f"{kind}{day}{properties}")


def counted(events: Sequence[Event], judged_day: float = 100.0, **knobs: Any) -> tuple[Counter[str], Lead, bool]:
    """What the events of one lead count, in the order given, and whether it is done by then."""
    counts: Counter[str] = Counter()
    leads = Leads(
        LeadSettings(**{"touch_marks_h": (), **knobs}), lambda _lead, field, many: counts.update({field: many})
    )
    lead = Lead("lead", min(one.time for one in events))
    for one in events:
        leads.apply(lead, one)
    return counts, lead, leads.judge(lead, T0 + judged_day * DAY_S)


STORY = [lead_event("created", 0), lead_event("scored", 0.5, score=72.0), lead_event("handed_over", 1),
         lead_event("touched", 2), lead_event("accepted", 3), lead_event("won", 30)]  # fmt: skip


@pytest.mark.parametrize("order", list(permutations(range(6))), ids=lambda order: "".join(map(str, order)))
def test_milestones_count_the_same_in_any_order(order: tuple[int, ...]) -> None:
    counts, lead, done = counted([STORY[i] for i in order])
    assert counts == {
        "created": 1, "scored": 1, "score_14": 1, "handed_over": 1, "touched": 1, "accepted": 1, "won": 1,
        "touch_n": 1, "touch_k": 1, "accept_n_14": 1, "accept_k_14": 1, "win_n_14": 1, "win_k_14": 1,
        "ind_touched_accept_yes": 1, "ind_touched_win_yes": 1,
    }  # fmt: skip
    assert done
    assert lead.milestones["lead_won"] == T0 + 30 * DAY_S


@pytest.mark.parametrize(
    ("kind", "field", "horizon"), [("touched", "touch", 2), ("accepted", "accept", 7), ("won", "win", 60)]
)
@pytest.mark.parametrize(("beyond_s", "hit"), [(0, True), (1, False), (-1, True)])
def test_an_outcome_counts_up_to_its_horizon_and_not_beyond(
    kind: str, field: str, horizon: float, beyond_s: float, hit: bool
) -> None:
    late = lead_event(kind, 1 + horizon + beyond_s / DAY_S)
    counts, _, _ = counted([lead_event("handed_over", 1), late])
    assert counts[f"{field}_n"] == 1
    assert counts[f"{field}_k"] == int(hit)


@pytest.mark.parametrize(
    ("day", "judged"),
    [(2.9, set()), (3.1, {"touch_n"}), (8.1, {"touch_n", "accept_n"}), (61.1, {"touch_n", "accept_n", "win_n"})],
)
def test_a_cohort_counts_only_once_its_horizon_has_passed(day: float, judged: set[str]) -> None:
    counts, _, done = counted([lead_event("handed_over", 1)], judged_day=day)
    assert {field for field in counts if field.endswith("_n")} == judged
    assert done is ("win_n" in judged)


def test_a_horizon_is_judged_once() -> None:
    counts: Counter[str] = Counter()
    leads = Leads(LeadSettings(touch_marks_h=()), lambda _lead, field, many: counts.update({field: many}))
    lead = Lead("lead", T0)
    leads.apply(lead, lead_event("handed_over", 0))
    for day in (3, 4, 8, 9, 50):
        assert not leads.judge(lead, T0 + day * DAY_S)
    assert (counts["touch_n"], counts["accept_n"]) == (1, 1)


def test_a_lead_is_kept_until_the_longest_horizon_whichever_that_is() -> None:
    counts, _, done = counted([lead_event("handed_over", 1)], judged_day=3, conversion_horizon_days=1.0)
    assert counts["win_n"] == 1
    assert not done
    counts, _, done = counted([lead_event("handed_over", 1)], judged_day=9, conversion_horizon_days=1.0)
    assert (counts["accept_n"], done) == (1, True)


def test_of_a_repeated_milestone_the_earliest_time_stands_and_it_counts_once() -> None:
    counts, lead, _ = counted([lead_event("handed_over", d) for d in (5, 3, 4)] + [lead_event("accepted", 11)])
    assert counts["handed_over"] == 1
    assert lead.milestones["lead_handed_over"] == T0 + 3 * DAY_S
    assert counts["accept_k"] == 0  # day 11 is more than 7 days after day 3


def test_only_a_new_hand_over_time_needs_new_deadlines() -> None:
    leads = Leads(LeadSettings(touch_marks_h=()), lambda *_: None)
    lead = Lead("lead", T0)
    told = [leads.apply(lead, lead_event(kind, day)) for kind, day in
            (("created", 0), ("handed_over", 3), ("handed_over", 4), ("handed_over", 2), ("won", 5))]  # fmt: skip
    assert told == [False, True, False, True, False]
    assert sorted(leads.deadlines(lead)) == [T0 + (2 + days) * DAY_S for days in (2, 7, 60)]


def test_scores_count_again_only_when_they_are_newer() -> None:
    counts, lead, _ = counted([lead_event("scored", day, score=score) for day, score in
                               ((1, 10.0), (1, 10.0), (0.5, 90.0), (2, 50.0))])  # fmt: skip
    assert counts == {"scored": 2, "score_2": 1, "score_10": 1}
    assert lead.score == 50.0


def test_a_score_after_the_hand_over_does_not_move_the_cohort() -> None:
    counts, lead, _ = counted([*STORY, lead_event("scored", 20, score=5.0)])
    assert lead.score == 72.0
    assert (counts["scored"], counts["score_1"], counts["win_n_14"]) == (2, 1, 1)


@pytest.mark.parametrize("properties", [{}, {"score": "high"}, {"model": "m"}])
def test_a_score_without_a_number_counts_nothing(properties: dict[str, Any]) -> None:
    counts, lead, _ = counted([lead_event("scored", 1, **properties)])
    assert (counts, lead.scored) == ({}, None)


def test_a_lead_without_a_score_counts_without_a_bin() -> None:
    counts, _, _ = counted([lead_event("handed_over", 0), lead_event("won", 1)])
    assert (counts["win_n"], counts["win_k"]) == (1, 1)


def test_the_first_value_of_a_label_stays_and_the_model_is_a_label() -> None:
    first = event("lead_created", 0, "lead", segment={"source": "ads"})
    later = event("lead_touched", 1, "lead", segment={"source": "fair", "team": "north"})
    _, lead, _ = counted([first, later, lead_event("scored", 1, score=1.0, model="m2"),
                          lead_event("scored", 2, score=1.0, model="m3")])  # fmt: skip
    assert lead.segment == {"source": "ads", "team": "north", "model": "m2"}


# ── bins ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("score", "expected"),
    [(0, 0), (4.999, 0), (5, 1), (35, 7), (55, 11), (95, 19), (99.99, 19), (100, 19), (-3, 0), (1e9, 19), (-1.7e308, 0),
     (1.7e308, 19)],
)  # fmt: skip
def test_scores_fall_into_bins_and_those_off_the_scale_into_the_outermost(score: float, expected: int) -> None:
    assert Leads(LeadSettings(touch_marks_h=()), lambda *_: None).bin_of(score) == expected


@pytest.mark.parametrize("bins", [4, 10, 20, 25, 50])
def test_every_edge_belongs_to_the_bin_above_it(bins: int) -> None:
    leads = Leads(LeadSettings(score_bins=bins), lambda *_: None)
    assert [leads.bin_of(100 * i / bins) for i in range(bins)] == list(range(bins))


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([(0.0, 1.0), (0.0, 100.0), (-5.0, 5.0)]))
def test_no_score_is_too_large_for_a_bin(score: float, scale: tuple[float, float]) -> None:
    leads = Leads(LeadSettings(score_min=scale[0], score_max=scale[1]), lambda *_: None)
    assert 0 <= leads.bin_of(score) < 20


# ── in the line ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_line_judges_a_lead_and_forgets_it() -> None:
    stage, counts = after(*STORY, until=70 * DAY_S)
    assert counts["leads", "win_k_14"] == 1
    assert stage.state.leads == {}


def test_a_lead_that_is_never_handed_over_is_forgotten_after_the_longest_wait() -> None:
    stage = sessionizer()
    stage.apply(frame(section([lead_event("created", 0)], 59 * DAY_S)), 0)
    assert stage.state.leads
    counts = stage.apply(frame(section([], 61 * DAY_S)), 1)
    assert stage.state.leads == {}
    assert counts is not None
    assert counts.cells == []


def test_a_win_that_is_told_late_still_counts_if_it_happened_in_time() -> None:
    stage = sessionizer()
    won = lead_event("won", 2)
    counts = [stage.apply(frame(section([lead_event("handed_over", 0)], 20 * DAY_S)), 0),
              stage.apply(frame(section([won], 20 * DAY_S, first=1)), 1),
              stage.apply(frame(section([], 61 * DAY_S)), 2)]  # fmt: skip
    assert stage.state.totals.late == 0
    assert tally(counts)["leads", "win_k"] == 1


def test_a_hand_over_that_is_told_after_its_horizon_is_judged_at_once() -> None:
    stage = sessionizer()
    counts = [stage.apply(frame(section([lead_event("created", 0)], 20 * DAY_S)), 0),
              stage.apply(frame(section([lead_event("handed_over", 1)], 20 * DAY_S + 60, first=1)), 1)]  # fmt: skip
    assert tally(counts)["leads", "accept_n"] == 1


def test_deadlines_survive_a_restart() -> None:
    one = sessionizer()
    first = one.apply(frame(section([lead_event("created", 0), lead_event("handed_over", 1)], 5 * DAY_S)), 0)
    other = sessionizer()
    other.restore(one.snapshot())
    counts = [first, other.apply(frame(section([], 100 * DAY_S)), 1)]
    assert {tally(counts)["leads", f"{name}_n"] for name in ("touch", "accept", "win")} == {1}
    assert other.state.leads == {}


def test_leads_are_counted_in_the_segments_of_leads() -> None:
    stage = sessionizer(settings_of())
    labels = {"source": "ads", "device": "tv"}
    counts = [stage.apply(frame(section([event("lead_created", 0, "x", segment=labels)], 100)), 0)]
    assert tally(counts, (("source", "ads"),))["leads", "created"] == 1
    assert tally(counts, (("device", "tv"),)) == {}


@pytest.mark.parametrize(
    ("touched_h", "by"), [(0.5, {"1h", "4h", "24h", "48h"}), (3, {"4h", "24h", "48h"}), (30, {"48h"}), (60, set())]
)
def test_touch_marks_count_who_was_touched_by_then(touched_h: float, by: set[str]) -> None:
    events = [lead_event("handed_over", 1), lead_event("touched", 1 + touched_h / 24)]
    counts, _, done = counted(events, touch_marks_h=(1, 4, 24, 48))
    assert {mark for mark in ("1h", "4h", "24h", "48h") if counts[f"touch_{mark}_n"] == 1} == {"1h", "4h", "24h", "48h"}
    assert {mark for mark in ("1h", "4h", "24h", "48h") if counts[f"touch_{mark}_k"]} == by
    assert done


def test_a_lead_that_ended_untouched_is_no_failure_of_follow_up() -> None:
    events = [lead_event("handed_over", 1), lead_event("rejected", 1.1)]
    counts, _, _ = counted(events, touch_marks_h=(1, 4, 24, 48))
    assert {field for field in counts if field.startswith("touch_") and field != "touch_n"} == {"touch_1h_n"}


def test_a_mark_that_has_not_passed_is_not_counted() -> None:
    counts, lead, _ = counted([lead_event("handed_over", 1)], judged_day=1.5, touch_marks_h=(1, 4, 24, 48))
    assert {field for field in counts if field.endswith("h_n")} == {"touch_1h_n", "touch_4h_n"}
    assert lead.marks == 2


def test_money_of_a_win_counts_with_the_win() -> None:
    events = [lead_event("handed_over", 1), lead_event("won", 20, value=1999.6)]
    assert counted(events, judged_day=30)[0]["value_won"] == 0
    assert counted(events)[0]["value_won"] == 2000

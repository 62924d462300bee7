"""Funnel divergence: fires when the early stages lose people and the late ones hold, not where all fall."""

from __future__ import annotations

import pytest

from detectors._base import Bucket
from detectors.funnel_divergence import FunnelDivergence, FunnelDivergenceParams
from tests.journey_kit import DAY_S, STAGES, START_S, World, alerts, begun, judge, since, whole

AT = 21
EARLY = STAGES[:3]
APART = World(advance=since(AT, 0.75, *EARLY))


def quiet() -> list[Bucket]:
    return whole(World(wobble=0.03), 42, 101)


def firing() -> tuple[list[Bucket], float]:
    return whole(APART, 30, 202), START_S + AT * DAY_S


@pytest.mark.parametrize("seed", range(3))
def test_early_stages_that_lose_while_late_ones_hold_are_found_within_days(seed: int) -> None:
    found = begun(judge(FunnelDivergence, whole(APART, 30, seed)))
    assert len(found) == 1 and AT < found[0][0] <= AT + 4


def test_it_is_one_too_where_the_late_stages_get_better() -> None:
    better = World(advance=lambda day, stage: 1.0 if day < AT else 0.75 if stage in EARLY else 1.15)
    numbers = begun(judge(FunnelDivergence, whole(better, 30, 3)))[0][1].evidence
    assert numbers["late_after"] > numbers["late_before_high"]


def test_evidence_names_every_stage() -> None:
    verdict = judge(FunnelDivergence, firing()[0])[-1][1]
    numbers = verdict.evidence
    assert {f"{part}_{stage}" for part in ("before", "after", "lost", "entered") for stage in STAGES} <= set(numbers)
    assert numbers["lost_early"] == pytest.approx(sum(numbers[f"lost_{stage}"] for stage in EARLY))
    assert all(numbers[f"before_{stage}"] - numbers[f"after_{stage}"] > 0.03 for stage in EARLY)
    assert numbers["late_before_low"] < numbers["late_after"] < numbers["late_before_high"] + 0.02
    early_n = sum(numbers[f"entered_{stage}"] for stage in EARLY)
    assert verdict.n_after == early_n
    assert verdict.before - verdict.after == pytest.approx(numbers["lost_early"] / early_n)


@pytest.mark.parametrize("seed", range(3))
def test_where_all_stages_fall_it_is_none(seed: int) -> None:
    assert not alerts(judge(FunnelDivergence, whole(World(advance=since(AT, 0.75)), 45, seed)))


def test_a_late_fall_and_a_rise_are_none() -> None:
    for world in (World(advance=since(AT, 0.7, *STAGES[3:])), World(advance=since(AT, 1.3, *EARLY))):
        assert not alerts(judge(FunnelDivergence, whole(world, 35, 4)))


def test_a_burst_of_people_and_a_season_are_none() -> None:
    burst = World(come=lambda day, stage: 3.0 if AT <= day < AT + 3 and stage == "discover" else 1.0)
    season = World(come=lambda day, _: 1.0 + day / 70, advance=lambda day, _: 1.0 + 0.2 * day / 70)
    for world in (burst, season):
        assert not alerts(judge(FunnelDivergence, whole(world, 70, 5)))


def test_it_ends_when_people_get_on_as_before() -> None:
    over = World(advance=lambda day, stage: 0.75 if AT <= day < AT + 8 and stage in EARLY else 1.0)
    found = alerts(judge(FunnelDivergence, whole(over, 45, 6)))
    assert found[0][0] < AT + 8 <= found[-1][0] < AT + 12


def test_the_order_of_stages_is_a_parameter() -> None:
    detector = FunnelDivergence(FunnelDivergenceParams(stages=("look", "take", "pay")))
    assert (list(detector.early), list(detector.late)) == ([0, 1], [2])
    x = detector.look(Bucket(0.0, 10.0, "journey", {"at_all_take": 2, "not_at_all_take": 3}), detector.params)
    assert x is not None and x.views == {"": (0, 0, 2, 5, 0, 0)}
    assert detector.look(Bucket(0.0, 10.0, "journey", {"entered_look": 2}), detector.params) is None
    assert detector.look(Bucket(0.0, 10.0, "look", {"at_all": 2}), detector.params) is None

"""Small losses: some percent in each of several stages add up to a finding; cycles, noise and one big fall do not."""

from __future__ import annotations

import pytest

from detectors._base import Bucket
from detectors.small_losses import SmallLosses
from tests.journey_kit import DAY_S, STAGES, START_S, World, alerts, begun, judge, since, whole

AT = 28
FEW_PERCENT = World(people=3000, direct=1500, advance=since(AT, 0.95, *STAGES[:4]))
"""3 % of those who advance, in each of four stages."""


def quiet() -> list[Bucket]:
    return whole(World(wobble=0.03), 63, 101)


def firing() -> tuple[list[Bucket], float]:
    return whole(World(people=6000, direct=3000, advance=since(AT, 0.88)), 42, 202), START_S + AT * DAY_S


@pytest.mark.parametrize("seed", range(3))
def test_three_percent_in_each_of_four_stages_are_found_within_weeks(seed: int) -> None:
    found = begun(judge(SmallLosses, whole(FEW_PERCENT, 56, seed)))
    assert len(found) == 1 and AT < found[0][0] <= AT + 21


def test_evidence_counts_people_and_the_budget() -> None:
    verdict = judge(SmallLosses, whole(FEW_PERCENT, 56, 0))[-1][1]
    numbers = verdict.evidence
    assert verdict.level == "alert"
    assert numbers["lost"] == pytest.approx(sum(numbers[f"lost_{stage}"] for stage in STAGES))
    assert numbers["lost"] == pytest.approx((verdict.before - verdict.after) * verdict.n_after)
    assert numbers["lost_discover"] > 0 and numbers["lost_evaluate"] > 0
    assert numbers["budget"] == pytest.approx(0.005 * verdict.n_after * 28 / numbers["days"], rel=0.1)
    assert numbers["budget_used"] == pytest.approx(numbers["lost"] / numbers["budget"], rel=0.15)


def test_a_loss_within_the_budget_is_no_alert() -> None:
    told = judge(SmallLosses, whole(FEW_PERCENT, 56, 1), budget=0.03)
    assert not alerts(told) and "warn" in {verdict.level for _, verdict in told}


@pytest.mark.parametrize("seed", range(3))
def test_days_that_vary_and_cycles_are_none(seed: int) -> None:
    varied = World(cycle=0.3, weekend=0.4, weekend_rate=0.7, wobble=0.06)
    assert not alerts(judge(SmallLosses, whole(varied, 70, seed)))


def test_one_big_fall_of_an_early_stage_is_an_early_dropoff() -> None:
    assert not alerts(judge(SmallLosses, whole(World(advance=since(AT, 0.7, "evaluate")), 56, 2)))


def test_a_season_and_a_burst_are_none() -> None:
    season = World(come=lambda day, _: 1.0 + day / 70, advance=lambda day, _: 1.0 + 0.2 * day / 70)
    burst = World(come=lambda day, stage: 3.0 if AT <= day < AT + 3 and stage == "discover" else 1.0)
    for world in (season, burst):
        assert not alerts(judge(SmallLosses, whole(world, 70, 3)))


def test_a_slow_erosion_is_found_though_no_day_is_worse_than_the_last() -> None:
    """From day 28 on the odds fall by 1.5 % a week."""
    slow = World(people=3000, direct=1500, advance=lambda day, _: 0.985 ** (max(0.0, day - AT) / 7))
    found = begun(judge(SmallLosses, whole(slow, 84, 4)))
    assert found and found[0][0] > AT

"""Vanity gap: fires when volume is up and its value is not; quiet on seasons, bursts, cycles and falls."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from detectors._base import Bucket
from detectors.vanity_gap import ACCEPTED, MAILS, VISITS, WON, VanityGap, VanityGapParams
from tests.journey_kit import DAY_S, HOUR_S, START_S, World, alerts, begun, judge, whole

AT = 28
EMPTY_VISITS = World(
    come=lambda day, stage: 1.4 if day >= AT and stage == "discover" else 1.0,
    advance=lambda day, stage: 0.58 if day >= AT and stage == "discover" else 1.0,
)
"""Two fifths more visits, and as many people as before get further."""


def quiet() -> list[Bucket]:
    return whole(World(wobble=0.03), 63, 101)


def firing() -> tuple[list[Bucket], float]:
    return whole(EMPTY_VISITS, 42, 202), START_S + AT * DAY_S


def pairs(stage: str, names: tuple[str, str], volume: Callable[[float], float], share: Callable[[float], float],
          days: int, seed: int) -> list[Bucket]:  # fmt: skip
    """Volume and value by the hour, fewer at weekends."""
    rng, buckets = np.random.default_rng(seed), []
    for hour in range(days * 24):
        day = hour / 24
        n = int(rng.poisson(volume(day) / 24 * (0.4 if day % 7 >= 5 else 1.0)))
        counts = {names[0]: n, names[1]: int(rng.binomial(n, share(day)))}
        buckets.append(Bucket(START_S + hour * HOUR_S, 10.0, stage, {key: n for key, n in counts.items() if n}))
    return buckets


def step(before: float, after: float) -> Callable[[float], float]:
    return lambda day: after if day >= AT else before


@pytest.mark.parametrize("seed", range(3))
def test_visits_that_buy_nothing_are_found_in_the_second_week(seed: int) -> None:
    found = begun(judge(VanityGap, whole(EMPTY_VISITS, 45, seed)))
    assert len(found) == 1 and AT + 7 <= found[0][0] <= AT + 14
    assert found[0][1].kind == VISITS


def test_evidence_shows_the_volume_beside_its_value() -> None:
    verdict = judge(VanityGap, firing()[0])[-1][1]
    numbers = verdict.evidence
    assert numbers["volume_per_day_after"] == pytest.approx(1.4 * numbers["volume_per_day_before"], rel=0.05)
    assert numbers["value_per_day_after"] == pytest.approx(numbers["value_per_day_before"], rel=0.12)
    assert numbers["volume_per_day_after_low"] > numbers["volume_per_day_before_high"]
    assert numbers["extra_volume"] == pytest.approx(verdict.n_after * 0.4 / 1.4, rel=0.1)
    assert numbers["missing_value"] == pytest.approx((verdict.before - verdict.after) * verdict.n_after)


def test_more_leads_of_which_no_more_are_accepted_are_found() -> None:
    leads = pairs("leads", ("accept_n_3", "accept_k_3"), step(150, 240), step(0.5, 0.31), 50, 1)
    found = begun(judge(VanityGap, leads, acceptance_lag_s=2 * DAY_S))
    assert found and found[0][1].kind == ACCEPTED
    assert found[0][1].onset == START_S + (AT - 2) * DAY_S, "told in time of hand-over"


def test_more_mails_with_no_more_clicks_are_found() -> None:
    found = begun(judge(VanityGap, pairs("contacts", ("sent", "clicked"), step(3000, 4500), step(0.04, 0.027), 50, 2)))
    assert found and found[0][1].kind == MAILS


@pytest.mark.parametrize("seed", range(3))
def test_a_season_in_which_both_rise_is_none(seed: int) -> None:
    season = World(come=lambda day, _: 1.0 + day / 70, wobble=0.03)
    assert not alerts(judge(VanityGap, whole(season, 70, seed)))


def test_a_short_campaign_a_fall_and_more_of_everything_are_none() -> None:
    burst = World(come=lambda day, stage: 3.0 if AT <= day < AT + 4 and stage == "discover" else 1.0,
                  advance=lambda day, stage: 0.4 if AT <= day < AT + 4 and stage == "discover" else 1.0)  # fmt: skip
    fall = World(advance=lambda day, stage: 0.7 if day >= AT and stage == "discover" else 1.0)
    more = World(come=lambda day, _: 1.5 if day >= AT else 1.0)
    for world in (burst, fall, more):
        assert not alerts(judge(VanityGap, whole(world, 56, 3)))


def test_better_leads_in_smaller_number_are_none() -> None:
    assert not alerts(judge(VanityGap, pairs("leads", ("accept_n", "accept_k"), step(240, 150), step(0.3, 0.5), 50, 4)))


def test_leads_have_two_pairs_and_both_are_kept() -> None:
    counts = {"accept_n": 2, "accept_n_4": 3, "accept_k_4": 1, "win_n_0": 5, "accepted": 9, "won": 3}
    x = VanityGap.look(Bucket(0.0, 10.0, "leads", counts), VanityGapParams())
    assert x is not None and x.views == {ACCEPTED: (5, 1), WON: (5, 0)}
    assert VanityGap.look(Bucket(0.0, 10.0, "leads", {"created": 3}), VanityGapParams()) is None
    assert VanityGap.look(Bucket(0.0, 10.0, "buy", {"at_all": 3}), VanityGapParams()) is None
    assert VanityGap.stages(VanityGapParams(), ("a", "b")) == ("journey", "leads", "contacts")

"""Score inflation: a rise beside a fall, whatever the score; neither alone."""

from __future__ import annotations

from statistics import median

import pytest

from detectors._base import Bucket
from detectors.score_inflation import ScoreInflation
from tests.detectors.slow_kit import DAY_S, alerts
from tests.detectors.test_lead_score_drift import CHANGE_DAY, NORMAL, ONSET_S, World, stream

SEEDS = range(400, 420)
LAGS = {"acceptance_lag_s": 7 * DAY_S, "conversion_lag_s": 7 * DAY_S}


def quiet() -> list[Bucket]:
    return stream(40, NORMAL, seed=61)


def firing() -> tuple[list[Bucket], float]:
    return stream(40, World(shift=4.0, accept=0.7), seed=63), ONSET_S


@pytest.mark.parametrize(
    ("world", "why"),
    [
        (NORMAL, "nothing"),
        (World(volume=2.0), "a season brings more leads, as good as ever"),
        (World(better=2.0), "better leads are scored higher, and accepted"),
        (World(accept=0.7), "acceptance falls alone"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_neither_half_alone_is_an_inflation(world: World, why: str) -> None:
    found = {seed: alerts(ScoreInflation, stream(60, world, seed), run_length=200_000)[:1] for seed in SEEDS}
    # One false alarm in 10,000 looks, three a day, of two outcomes: 0.6 expected of 20 runs while nothing else is up.
    assert sum(map(bool, found.values())) <= 1, why


def test_scores_that_rise_for_nothing_are_found_though_each_score_might_keep_its_promise() -> None:
    delays = []
    for seed in SEEDS:
        found = alerts(ScoreInflation, stream(60, World(shift=4.0), seed, lag_days=7.0), **LAGS)
        assert found and found[0][0] >= ONSET_S, seed
        delays.append((found[0][0] - ONSET_S) / DAY_S)
        evidence = found[0][1].evidence
        assert evidence["mean_score_after"] > evidence["mean_score_before"] + 0.1
        assert evidence["leads_a_day_after"] > evidence["leads_a_day_before"]
    print(f"score_inflation, 50 leads a day, 7 days to acceptance: median {median(delays):.1f} days")
    assert median(delays) <= 12.0
    assert CHANGE_DAY < 60


def test_fewer_accepted_leads_out_of_more_are_told_in_leads() -> None:
    first = alerts(ScoreInflation, stream(50, World(shift=4.0, accept=0.5), seed=421))[-1][1]
    evidence = first.evidence
    assert first.kind in ("acceptance", "conversion")
    assert evidence["accepted_a_day_after"] < evidence["accepted_a_day_before"]
    assert evidence["accepted_a_day_after"] == pytest.approx(evidence["leads_a_day_after"] * first.after)
    assert evidence["lost"] == pytest.approx(evidence["expected"] - evidence["observed"])

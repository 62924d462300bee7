"""Lead-score drift: its kinds, on sparse leads, one at a time and together."""

from __future__ import annotations

import math
import random
from typing import NamedTuple

import msgspec
import pytest

from detectors._base import Bucket, Verdict
from detectors._registry import build_params
from detectors.lead_score_drift import LeadScoreDrift, LeadScoreDriftParams

START_S = 1_700_006_400.0
DAY_S = 86_400.0
LEADS_A_DAY = 100
CHANGE_DAY = 30
ONSET_S = START_S + CHANGE_DAY * DAY_S
RARE = {"run_length": 200_000}


class World(NamedTuple):
    """How leads are from `CHANGE_DAY` on; bins are of 20.

    shift: bins by which scores rise for nothing; better: bins by which leads get better, so that acceptance rises, too;
    accept, volume: factors on acceptance and on the number of leads; win: share of wins among the best.
    """

    shift: float = 0.0
    better: float = 0.0
    spread: float = 4.0
    accept: float = 1.0
    win: float = 0.4
    volume: float = 1.0


NORMAL = World()


def stream(days: int, world: World, seed: int, *, lag_days: float = 0.0, until_day: float = 1e9) -> list[Bucket]:
    """One lead a bucket, scored, handed over if above bin 8, accepted and won (or not) after `lag_days`."""
    rng = random.Random(seed)
    buckets: list[Bucket] = []
    later: list[tuple[float, dict[str, int]]] = []
    ts = START_S
    while ts < START_S + days * DAY_S:
        now = world if ONSET_S <= ts < START_S + until_day * DAY_S else NORMAL
        ts += rng.expovariate(LEADS_A_DAY * now.volume / DAY_S)
        quality = rng.gauss(now.better, now.spread)
        b = min(19, max(0, int(9 + now.shift + quality + rng.gauss(0, 1))))
        p = 1 / (1 + math.exp(-(quality - 2) / 3))
        counts = {f"score_{b}": 1}
        if b > 8:
            counts["handed_over"] = 1
            outcome = {f"accept_n_{b}": 1, f"accept_k_{b}": int(rng.random() < p * now.accept)}
            outcome |= {f"win_n_{b}": 1, f"win_k_{b}": int(rng.random() < p * now.win)}
            later.append((ts + lag_days * DAY_S, outcome))
        while later and later[0][0] <= ts:
            for field, count in later.pop(0)[1].items():
                counts[field] = counts.get(field, 0) + count
        buckets.append(Bucket(ts, 10.0, "leads", counts))
    return buckets


def quiet() -> list[Bucket]:
    return stream(45, NORMAL, seed=31)


def firing() -> tuple[list[Bucket], float]:
    return stream(45, World(accept=0.6), seed=32), ONSET_S


def detector(**params: float) -> LeadScoreDrift:
    built = build_params(LeadScoreDrift, params)
    assert isinstance(built, LeadScoreDriftParams)
    return LeadScoreDrift(built)


def verdicts(buckets: list[Bucket], made: LeadScoreDrift | None = None) -> list[Verdict]:
    made = made or detector(**RARE)
    seen = (made.look(bucket, made.params) for bucket in buckets)
    return [made.observe(x) for x in seen if x is not None]


def alerts(buckets: list[Bucket], **params: float) -> list[Verdict]:
    return [v for v in verdicts(buckets, detector(**{**RARE, **params})) if v.level == "alert"]


def kinds(found: list[Verdict]) -> list[str]:
    """Kinds in the order in which they spoke, without repeats."""
    return [v.kind for i, v in enumerate(found) if not i or v.kind != found[i - 1].kind]


def test_acceptance_that_falls_at_the_same_scores_is_a_loss_of_calibration() -> None:
    found = alerts(firing()[0])
    last = found[-1]
    assert kinds(found) == ["calibration_acceptance"]
    assert last.after / last.before == pytest.approx(0.6, abs=0.12)
    assert last.evidence["lost"] == pytest.approx(last.evidence["expected"] - last.evidence["observed"])
    assert last.gain > 10


def test_the_evidence_names_the_band_that_lost_most_with_its_rates() -> None:
    evidence = alerts(firing()[0])[-1].evidence
    assert 0.4 <= evidence["band_from"] < evidence["band_to"] <= 1.0
    assert 0.0 < evidence["band_after"] < 0.8 * evidence["band_before"]
    lost = evidence["band_n"] * (evidence["band_before"] - evidence["band_after"])
    assert evidence["band_lost"] == pytest.approx(lost)
    assert evidence["band_lost"] <= evidence["lost"] * 1.5


def test_rates_and_onset_come_with_their_intervals() -> None:
    first = alerts(firing()[0])[0]
    assert first.evidence["effect_low"] < first.after < first.evidence["effect_high"] < first.before
    assert first.evidence["before_low"] < first.before < first.evidence["before_high"]
    assert first.onset is not None and first.onset_from is not None and first.onset_to is not None
    assert first.onset_from <= first.onset <= first.onset_to
    assert first.onset_from - DAY_S / 4 <= ONSET_S <= first.onset_to + DAY_S / 4


def test_conversion_is_judged_apart() -> None:
    found = alerts(stream(45, World(win=0.15), seed=33))
    assert kinds(found) == ["calibration_conversion"]
    assert found[-1].after < 0.7 * found[-1].before


@pytest.mark.parametrize(("world", "shift"), [(World(better=2.0), 0.1), (World(spread=6.0), 0.0)])
def test_scores_that_are_distributed_otherwise(world: World, shift: float) -> None:
    found = alerts(stream(36, world, seed=34))
    assert kinds(found) == ["distribution"], "higher scores that are accepted as they promise are no inflation"
    assert found[-1].evidence["shift"] == pytest.approx(shift, abs=0.03)
    assert found[-1].evidence["psi"] > 0.1
    assert found[0].onset == pytest.approx(ONSET_S, abs=DAY_S)
    moved = found[-1].evidence["band_share_after"] - found[-1].evidence["band_share_before"]
    assert abs(moved) > 0.05


def test_scores_that_rise_for_nothing_are_an_inflation_once_acceptance_is_known() -> None:
    found = alerts(stream(50, World(shift=3.0), seed=35, lag_days=7.0), acceptance_lag_s=7 * DAY_S,
                   conversion_lag_s=7 * DAY_S)  # fmt: skip
    assert kinds(found) == ["distribution", "inflation"]
    last = found[-1]
    assert last.after < last.before
    assert last.evidence["mean_score_after"] > last.evidence["mean_score_before"] + 0.05
    assert last.onset == pytest.approx(ONSET_S, abs=2 * DAY_S), "in time of hand-over, not of the horizon"
    assert last.evidence["lag_s"] == 7 * DAY_S


def test_more_qualified_leads_of_which_fewer_are_accepted_are_an_inflation() -> None:
    found = alerts(stream(55, World(volume=1.8, accept=0.75), seed=36))
    assert kinds(found)[-1] == "inflation"
    last = found[-1].evidence
    assert last["leads_a_day_after"] > 1.4 * last["leads_a_day_before"]


def test_more_leads_alone_are_no_news() -> None:
    assert alerts(stream(55, World(volume=1.8), seed=37)) == []


def test_a_kind_speaks_until_it_is_over_unless_a_graver_one_alerts() -> None:
    found = alerts(stream(52, World(shift=3.0, accept=0.8), seed=38))
    spoken = kinds(found)
    gravity = ["distribution", "calibration_conversion", "calibration_acceptance", "inflation"]
    assert spoken == sorted(set(spoken), key=gravity.index), "each once, and only graver ones after it"
    assert spoken[-1] == "inflation"


def test_an_alert_resolves_when_acceptance_is_as_before() -> None:
    said = verdicts(stream(60, World(accept=0.5), seed=39, until_day=38))
    levels = [v.level for v in said]
    assert "alert" in levels
    assert levels[-1] == "ok"


def test_a_new_normal_is_accepted_after_four_weeks() -> None:
    said = verdicts(stream(75, World(accept=0.5), seed=40))
    first = next(i for i, v in enumerate(said) if v.level == "alert")
    assert said[-1].level != "alert"
    assert "alert" in [v.level for v in said[first + 1500 : first + 2500]]


def test_a_smaller_allowance_raises_the_threshold() -> None:
    def statistic(pages: float | None) -> float:
        made = detector()
        if pages is not None:
            made.allow(pages)
        return next(v.evidence["statistic"] for v in verdicts(firing()[0], made) if v.level == "alert")

    plenty, few = statistic(1.0), statistic(0.001)
    assert few > plenty + 4


def test_an_allowance_outlives_a_restore() -> None:
    one, other = detector(), detector()
    buckets = firing()[0]
    for made in (one, other):
        made.allow(0.01)
    half = len(buckets) // 2
    verdicts(buckets[:half], one)
    other.restore(one.snapshot())
    assert verdicts(buckets[half:], one) == verdicts(buckets[half:], other)


def test_the_state_of_another_number_of_bins_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="bins"):
        detector(bins=10).restore(detector().snapshot())


def test_a_bucket_without_leads_is_no_observation() -> None:
    params = build_params(LeadScoreDrift)
    assert LeadScoreDrift.look(Bucket(0.0, 10.0, "leads", {"created": 2}), params) is None  # type: ignore[arg-type]

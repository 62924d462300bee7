"""Lead-score drift: its three kinds, on sparse leads, one at a time."""

from __future__ import annotations

import math
import random

import pytest

from detectors._base import Bucket, Verdict
from detectors._registry import build_params
from detectors.lead_score_drift import LeadScoreDrift

START_S = 1_700_006_400.0
DAY_S = 86_400.0
LEADS_A_DAY = 100
CHANGE_DAY = 30


def score(rng: random.Random, shift: float = 0.0, spread: float = 4.0) -> int:
    return min(19, max(0, int(9 + shift + rng.gauss(0, spread))))


def cohort(rng: random.Random, name: str, top: float) -> dict[str, int]:
    b = score(rng)
    p = top / (1 + math.exp(-(b - 11) / 3))
    return {f"{name}_n_{b}": 1, f"{name}_k_{b}": int(rng.random() < p)}


def stream(days: int, kind: str, seed: int) -> list[Bucket]:
    """One lead of each sort a bucket; from `CHANGE_DAY` on one thing is worse: `scores`, `spread`, `accept`, `win`."""
    rng = random.Random(seed)
    buckets, ts = [], START_S
    while ts < START_S + days * DAY_S:
        ts += rng.expovariate(LEADS_A_DAY / DAY_S)
        on = kind if ts >= START_S + CHANGE_DAY * DAY_S else ""
        b = score(rng, 2.0 if on == "scores" else 0.0, 6.0 if on == "spread" else 4.0)
        counts = {f"score_{b}": 1}
        counts |= cohort(rng, "accept", 0.6 if on == "accept" else 1.0)
        counts |= cohort(rng, "win", 0.15 if on == "win" else 0.4)
        buckets.append(Bucket(ts, 10.0, "leads", counts))
    return buckets


def quiet() -> list[Bucket]:
    return stream(90, "", seed=31)


def firing() -> tuple[list[Bucket], float]:
    return stream(50, "accept", seed=32), START_S + CHANGE_DAY * DAY_S


def alerts(buckets: list[Bucket]) -> list[Verdict]:
    detector = LeadScoreDrift(build_params(LeadScoreDrift))  # type: ignore[arg-type]
    seen = [detector.look(bucket, detector.params) for bucket in buckets]
    return [v for v in (detector.observe(x) for x in seen if x is not None) if v.level == "alert"]


def test_acceptance_that_falls_at_the_same_scores_is_a_loss_of_calibration() -> None:
    last = alerts(firing()[0])[-1]
    assert last.kind == "calibration_acceptance"
    assert last.after / last.before == pytest.approx(0.6, abs=0.12)
    assert last.evidence["lost"] == pytest.approx(last.evidence["expected"] - last.evidence["observed"])
    assert 0.4 <= last.evidence["band_from"] < last.evidence["band_to"] <= 1.0


def test_conversion_is_judged_apart() -> None:
    found = alerts(stream(60, "win", seed=33))
    assert {verdict.kind for verdict in found} == {"calibration_conversion"}
    assert found[-1].after < 0.7 * found[-1].before


@pytest.mark.parametrize(("kind", "shift"), [("scores", 0.1), ("spread", 0.0)])
def test_scores_that_are_distributed_otherwise(kind: str, shift: float) -> None:
    found = alerts(stream(40, kind, seed=34))
    assert {verdict.kind for verdict in found} == {"distribution"}
    assert found[-1].evidence["shift"] == pytest.approx(shift, abs=0.03)
    assert found[-1].evidence["psi"] > 0.1
    assert found[-1].onset == pytest.approx(START_S + CHANGE_DAY * DAY_S, abs=DAY_S)


def test_a_bucket_without_leads_is_no_observation() -> None:
    params = build_params(LeadScoreDrift)
    assert LeadScoreDrift.look(Bucket(0.0, 10.0, "leads", {"created": 2}), params) is None  # type: ignore[arg-type]

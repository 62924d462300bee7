"""Early drop-off: quiet on a daily cycle, fires on 0.30 → 0.24, recovers, and accepts what stays."""

from __future__ import annotations

import math
import random
from itertools import groupby

import pytest

from detectors._base import Bucket, Verdict
from detectors._registry import build_params
from detectors.early_dropoff import EarlyDropoff

START_S = 1_700_006_400.0
DAY_S = 86_400.0
STEP_S = 300.0
STEPS_A_BUCKET = 10


def stream(days: float, drops: dict[float, float], seed: int, cycle: float = 0.03) -> list[Bucket]:
    """2,880 closed steps a day; `drops` is day → how far the advance rate lies below 0.30 from then on."""
    rng = random.Random(seed)
    buckets = []
    for i in range(int(days * DAY_S / STEP_S)):
        ts = START_S + i * STEP_S
        p = 0.30 + cycle * math.sin(2 * math.pi * ts / DAY_S)
        p -= next((drop for day, drop in reversed(drops.items()) if ts >= START_S + day * DAY_S), 0.0)
        advanced = sum(rng.random() < p for _ in range(STEPS_A_BUCKET))
        counts = {"entered": 11, "advanced": advanced, "returned": 2, "dropped": STEPS_A_BUCKET - advanced - 2}
        buckets.append(Bucket(ts, 10.0, "evaluate", counts if advanced <= 8 else {"advanced": 10}))
    return buckets


def quiet() -> list[Bucket]:
    return stream(12, {}, seed=101)


def firing() -> tuple[list[Bucket], float]:
    return stream(7, {5: 0.06}, seed=202), START_S + 5 * DAY_S


def judge(buckets: list[Bucket], **params: float) -> list[tuple[float, Verdict]]:
    detector = EarlyDropoff(build_params(EarlyDropoff, params))  # type: ignore[arg-type]
    seen = [(b.ts, detector.look(b, detector.params)) for b in buckets]
    return [(ts, detector.observe(x)) for ts, x in seen if x is not None]


def day_of(ts: float) -> float:
    return (ts - START_S) / DAY_S


def test_evidence_says_how_many_progressions_are_lost() -> None:
    last = judge(firing()[0])[-1][1]
    assert last.level == "alert"
    assert last.evidence["expected_rate"] == pytest.approx(0.30, abs=0.02)
    assert last.evidence["rate_now"] == pytest.approx(0.24, abs=0.05)
    assert last.evidence["lost_progressions"] == pytest.approx(2 * 2880 * 0.06, rel=0.35)
    assert last.evidence["statistic"] > last.evidence["threshold"]


def test_a_rate_that_returns_resolves_and_a_second_break_is_found_again() -> None:
    levels = judge(stream(16, {5: 0.08, 8: 0.0, 13: 0.08}, seed=7))
    phases = [(level, [day_of(ts) for ts, _ in group]) for level, group in groupby(levels, lambda x: x[1].level)]
    alerts = [days for level, days in phases if level == "alert"]
    assert len(alerts) == 2
    assert 5 < alerts[0][0] < 6 and 8 < alerts[0][-1] < 9
    assert 13 < alerts[1][0] < 14


def test_a_level_that_stays_becomes_normal_and_is_watched_in_turn() -> None:
    levels = judge(stream(20, {4: 0.12, 15: 0.18}, seed=8), accept_after_s=5 * DAY_S)
    alerts = [day_of(ts) for ts, verdict in levels if verdict.level == "alert"]
    assert not [day for day in alerts if 9.6 < day < 15]
    second = next(verdict for ts, verdict in levels if verdict.level == "alert" and day_of(ts) > 15)
    assert second.before == pytest.approx(0.18, abs=0.02)


def test_the_rosy_first_minutes_of_a_stream_are_not_learnt() -> None:
    """Advances are known at once, drops half an hour later."""
    buckets = [Bucket(START_S + i * 60.0, 10.0, "evaluate", {"advanced": 20}) for i in range(30)]
    later = [b for b in stream(4, {}, seed=9, cycle=0.0) if b.ts > START_S + 1800]
    assert all(verdict.level in ("warming", "ok") for _, verdict in judge(buckets + later))


def test_warms_up_over_event_time_and_counts() -> None:
    flood = [Bucket(START_S + i, 10.0, "compare", {"advanced": 30, "dropped": 70}) for i in range(1000)]
    assert {verdict.level for _, verdict in judge(flood)} == {"warming"}


def test_late_stages_are_not_its_business() -> None:
    detector = EarlyDropoff(build_params(EarlyDropoff))  # type: ignore[arg-type]
    assert detector.look(Bucket(0.0, 10.0, "buy", {"advanced": 1}), detector.params) is None
    assert detector.look(Bucket(0.0, 10.0, "compare", {"entered": 4}), detector.params) is None

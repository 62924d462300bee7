"""The tests behind lead-score drift: what is learnt, when they alarm, what they forget."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise
from math import exp

import msgspec
import pytest

from detectors._scores import (
    AT_SCORE,
    OVERALL,
    Calibration,
    Rise,
    ScoreDistribution,
    ScoreParams,
    SlowTable,
    components,
    isotonic,
)
from detectors._volume import Volume, VolumeState

BINS = 20
DAY_S = 86_400.0
START_S = 1_700_006_400.0
RARE = ScoreParams(run_length=500_000)


def promise(b: int) -> float:
    return 1 / (1 + exp(-(b - 11) / 3))


def outcomes(count: int, seed: int, factor: float = 1.0, per_day: float = 100.0,
             start_s: float = START_S) -> Iterator[tuple[float, tuple[int, int, int]]]:  # fmt: skip
    rng, ts = random.Random(seed), start_s
    for _ in range(count):
        ts += rng.expovariate(per_day / DAY_S)
        b = min(BINS - 1, max(0, int(rng.gauss(10, 4))))
        yield ts, (b, 1, int(rng.random() < factor * promise(b)))


def calibration(params: ScoreParams = RARE) -> Calibration:
    return Calibration(params, SlowTable.of(BINS, hits=True))


def distribution(params: ScoreParams = RARE) -> ScoreDistribution:
    return ScoreDistribution(params, SlowTable.of(2 * BINS, hits=False))


# ── calibration ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_promise_is_the_rate_of_each_score_and_ascends() -> None:
    test = calibration()
    for ts, cohort in outcomes(6000, seed=1):
        test.observe(ts, (cohort,))
    curve = test.state.figures[0]
    assert all(a <= b for a, b in pairwise(curve))
    assert all(abs(curve[b] - promise(b)) < 0.08 for b in range(5, 16))


def test_few_leads_to_learn_from_give_no_more_false_alarms() -> None:
    params = ScoreParams(run_length=5000)
    alarms = judged = 0
    for seed in range(40):
        test = calibration(params)
        phases = [test.observe(ts, (cohort,)) for ts, cohort in outcomes(500, seed=seed, per_day=14.0)]
        judged += len(phases) - phases.count("warming")
        alarms += phases.count("alarmed") > 0
    assert judged > 12_000
    assert alarms <= 5, "the baseline is learnt from 100 leads, and that has to be allowed for"


def test_held_back_leads_join_the_baseline_once_nothing_is_suspected() -> None:
    test = calibration()
    for ts, cohort in outcomes(5000, seed=3):
        test.observe(ts, (cohort,))
    held = sum(sum(cell.n) for cell in test.onsets.cells)
    assert 200 <= held < 1000
    assert test.state.base.sum_n > 2500


def test_what_came_since_the_onset_is_kept_out_of_the_baseline() -> None:
    test = calibration()
    for ts, cohort in [*outcomes(3000, seed=4), *outcomes(1000, seed=5, factor=0.5, start_s=START_S + 30 * DAY_S)]:
        test.observe(ts, (cohort,))
    assert test.level == "alert"
    k, n = test.since_onset()
    assert sum(n) == pytest.approx(1000, abs=60)
    assert sum(k) / test.promised(n) == pytest.approx(0.5, abs=0.1)
    size, error = test.effect()
    assert size < -0.5 and 0.0 < error < 0.2


def test_higher_acceptance_is_learnt_and_no_alarm() -> None:
    test = calibration()
    better = outcomes(3000, seed=7, factor=1.3, start_s=START_S + 30 * DAY_S)
    phases = {test.observe(ts, (cohort,)) for ts, cohort in [*outcomes(3000, seed=6), *better]}
    assert phases == {"warming", "quiet"}
    assert test.state.base.level > 1.05 * sum(promise(b) for b in range(3, 17)) / 14


def test_a_fall_alone_needs_more_evidence_than_a_fall_beside_a_rise() -> None:
    def first_alarm(rise: Rise | None) -> tuple[int, bool]:
        test = calibration()
        stream = [*outcomes(3000, seed=8), *outcomes(1500, seed=9, factor=0.8, start_s=START_S + 30 * DAY_S)]
        for i, (ts, cohort) in enumerate(stream):
            if test.observe(ts, (cohort,), rise if i >= 3000 else None) == "alarmed":
                assert test.state.alarm
                return i, test.state.alarm.rose
        raise AssertionError("never alarmed")

    onset_s = START_S + 30 * DAY_S
    rise = Rise(12.0, 14.0, onset_s, onset_s, onset_s, onset_s, 0.5, 0.6)
    (alone, rose_alone), (beside, rose_beside) = first_alarm(None), first_alarm(rise)
    assert beside < alone
    assert (rose_alone, rose_beside) == (False, True)


def test_a_fall_of_the_mix_alone_is_no_loss_of_calibration() -> None:
    test = calibration()
    rng = random.Random(10)
    phases = set()
    for i in range(6000):
        b = min(BINS - 1, max(0, int(rng.gauss(10 if i < 3000 else 7, 4))))
        phases.add(test.observe(START_S + i * 864.0, ((b, 1, int(rng.random() < promise(b))),)))
    assert phases == {"warming", "quiet"}
    assert test.onsets.change(test.state.known, OVERALL).nats > test.onsets.change(test.state.known, AT_SCORE).nats


# ── distribution ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("counts", [[1, 5, 20, 40, 20, 9, 4, 1], [97, 1, 1, 1], [5] * 20])
def test_components_are_orthonormal_under_their_histogram(counts: list[int]) -> None:
    shares = [n / sum(counts) for n in counts]
    rows = components(shares)
    for i, a in enumerate(rows):
        assert sum(share * x for share, x in zip(shares, a, strict=True)) == pytest.approx(0.0, abs=1e-6)
        for j, b in enumerate(rows):
            product = sum(share * x * y for share, x, y in zip(shares, a, b, strict=True))
            assert product == pytest.approx(float(i == j and any(a)), abs=1e-6)


def scores(days: float, seed: int, mean: float = 10.0, weekend: float = 0.0, start_s: float = START_S,
           per_day: float = 100.0) -> Iterator[tuple[float, int]]:  # fmt: skip
    rng, ts = random.Random(seed), start_s
    while ts < start_s + days * DAY_S:
        ts += rng.expovariate(per_day / DAY_S)
        off = weekend if int(ts // DAY_S + 3) % 7 >= 5 else 0.0
        yield ts, min(BINS - 1, max(0, int(rng.gauss(mean + off, 4))))


def test_other_people_on_weekends_are_no_drift() -> None:
    test = distribution(ScoreParams(run_length=20_000))
    phases = {test.test(ts, ((b, 1, 0),)) for ts, b in scores(70, seed=11, weekend=-2.0)}
    assert phases == {"warming", "quiet"}


def test_a_shift_is_told_from_both_kinds_of_days() -> None:
    test = distribution()
    stream = [*scores(28, 12, weekend=-2.0), *scores(5, 13, mean=12.0, weekend=-2.0, start_s=START_S + 28 * DAY_S)]
    for ts, b in stream:
        test.test(ts, ((b, 1, 0),))
    assert test.level == "alert"
    before, after = test.means()
    assert after - before == pytest.approx(0.1, abs=0.02)
    rise = test.rise()
    assert rise is not None and rise.after > rise.before and not rise.volume


def test_a_fall_of_scores_is_no_rise() -> None:
    test = distribution()
    for ts, b in [*scores(28, 14), *scores(5, 15, mean=8.0, start_s=START_S + 28 * DAY_S)]:
        test.test(ts, ((b, 1, 0),))
    assert test.level == "alert"
    assert test.rise() is None


# ── volume ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def volume(days: list[float], seed: int) -> Volume:
    """A stream of so many leads a day."""
    rng, made = random.Random(seed), Volume(ScoreParams(), VolumeState.of())
    for day, mean in enumerate(days):
        count = max(0, round(rng.gauss(mean, mean**0.5 * 1.5)))
        for i in range(count):
            made.observe(START_S + (day + i / count) * DAY_S, 1)
    return made


def week(day: int) -> float:
    return 20.0 if day % 7 in (4, 5) else 80.0


def test_a_weekly_cycle_is_no_rise() -> None:
    for days in range(20, 70, 3):
        rise = volume([week(day) for day in range(days)], seed=days).rise()
        assert rise is None or rise.statistic < 5.5, "hints are weak, and count only beside a fall"


def test_more_leads_a_day_are_a_rise_with_its_onset() -> None:
    rise = volume([week(day) * (1.6 if day >= 42 else 1.0) for day in range(56)], seed=2).rise()
    assert rise is not None and rise.volume
    assert rise.onset == pytest.approx(START_S + 42 * DAY_S, abs=3 * DAY_S)
    assert rise.after / rise.before == pytest.approx(1.6, abs=0.25)


def test_fewer_leads_are_no_rise() -> None:
    assert volume([week(day) * (0.5 if day >= 42 else 1.0) for day in range(60)], seed=3).rise() is None


def test_what_has_lasted_for_a_season_is_normal() -> None:
    made = volume([week(day) * (1.6 if day >= 42 else 1.0) for day in range(240)], seed=4)
    assert made.rise() is None


def test_days_without_any_lead_count_as_such() -> None:
    made = volume([week(day) for day in range(30)], seed=5)
    days = made.state.base.sum_n + sum(sum(cell.n) for cell in made.onsets.cells)
    made.observe(START_S + 40 * DAY_S, 1)
    after = made.state.base.sum_n + sum(sum(cell.n) for cell in made.onsets.cells)
    assert after == pytest.approx(days + 11, abs=4)


# ── state ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_states_of_other_sizes_are_refused() -> None:
    mixed = SlowTable.of(BINS, hits=True)
    mixed.fresh = SlowTable.of(BINS + 1, hits=True).fresh
    with pytest.raises(msgspec.ValidationError):
        Calibration(RARE, mixed)
    with pytest.raises(msgspec.ValidationError):
        ScoreDistribution(RARE, SlowTable.of(BINS, hits=True))
    wrong = VolumeState.of()
    wrong.means = [0.0]
    with pytest.raises(msgspec.ValidationError):
        Volume(RARE, wrong)


def test_isotonic_leaves_what_ascends_alone() -> None:
    assert isotonic([0.1, 0.2, 0.3], [1, 5, 1]) == [0.1, 0.2, 0.3]

"""The learnt baseline: cycles, trend, shrinkage, what it says of its own error, bursts."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from detectors._cycle import SIZE, Cycle, CycleState, Fit

DAY_H = 24
START_H = 472_080  # some Monday, 00:00 UTC
MEMORY_S = 28 * 86_400.0


def rate_at(hour: int, daily: float = 0.0, weekend: float = 0.0, trend: float = 0.0) -> float:
    """0.30, with a daily cycle, less at the weekend, and a relative trend a day."""
    cycle = daily * math.sin(2 * math.pi * hour / DAY_H)
    return (0.30 + cycle - weekend * (hour % 168 >= 120)) * (1 + trend * hour / DAY_H)


def learnt(days: int, seed: int, per_hour: int = 208, clump: float = 0.0, **shape: float) -> Cycle:
    rng = np.random.default_rng(seed)
    base = Cycle(CycleState(), "binomial", MEMORY_S)
    for hour in range(days * DAY_H):
        p = rate_at(hour, **shape)
        p = 1 / (1 + (1 - p) / p * math.exp(-clump * rng.normal()))
        k = int(rng.binomial(per_hour, p))
        base.expect(START_H + hour)
        base.measure(k, per_hour)
        base.learn(START_H + hour, k, per_hour)
    return base


def errors(base: Cycle, days: int, hours: int = DAY_H, **shape: float) -> np.ndarray:
    """Expected minus true rate, for each of the next hours."""
    out = []
    for hour in range(days * DAY_H, days * DAY_H + hours):
        base.expect(START_H + hour)
        out.append(base.state.rate - rate_at(hour, **shape))
    return np.array(out)


def rms(values: list[np.ndarray]) -> float:
    return float(np.sqrt(np.mean(np.concatenate(values) ** 2)))


def test_two_days_show_the_daily_cycle() -> None:
    """A level alone would be 0.021 off; three coefficients cost 0.008."""
    got = rms([errors(learnt(2, seed, daily=0.03), 2, daily=0.03) for seed in range(900, 930)])
    assert got < 0.011


def test_a_flat_stream_is_expected_to_stay_flat() -> None:
    """The level alone costs 0.0046, all coefficients of the day 0.012."""
    assert rms([errors(learnt(2, seed), 2) for seed in range(900, 930)]) < 0.008


@pytest.mark.parametrize(("days", "limit"), [(28, 0.012), (10, 1.0)])
def test_weekends_are_learnt_from_two_weeks_on(days: int, limit: float) -> None:
    base = learnt(days, 7, weekend=0.06)
    off = errors(base, days, 168, weekend=0.06)
    assert float(np.abs(off).mean()) < limit
    if days < 14:
        base.expect(START_H + 13 * DAY_H)
        saturday = base.state.rate
        base.expect(START_H + 15 * DAY_H)
        assert saturday == pytest.approx(base.state.rate, abs=0.02)


def test_a_trend_is_followed() -> None:
    """Half a percent a day: after four weeks the mean of the past would be 0.02 behind."""
    off = [errors(learnt(28, seed, trend=0.005), 28, trend=0.005) for seed in range(900, 908)]
    assert rms(off) < 0.008
    assert abs(float(np.concatenate(off).mean())) < 0.004


@pytest.mark.parametrize("days", [2, 6])
def test_it_knows_its_own_error(days: int) -> None:
    scaled = []
    for seed in range(950, 990):
        base = learnt(days, seed, daily=0.03)
        scaled += [error / base.state.error for error in errors(base, days, daily=0.03)[-1:]]
    assert 0.6 < float(np.std(scaled)) < 1.5


def test_one_wild_day_is_no_new_normal() -> None:
    base = learnt(8, 3)
    before = errors(base, 8)[0] + 0.30
    for hour in range(8 * DAY_H, 9 * DAY_H):
        base.learn(START_H + hour, 150, 208)
    assert abs(errors(base, 9)[0] + 0.30 - before) < 0.02, "unclipped it would move by 0.05"


def test_trials_that_go_together_are_noticed_and_others_are_not() -> None:
    clean = [learnt(7, seed).state.clump for seed in range(20)]
    clumped = [learnt(7, seed, clump=0.2).state.clump for seed in range(20)]
    assert sum(value == 0.0 for value in clean) >= 18
    assert 0.003 < float(np.mean(clumped)) < 0.015, "0.2 logits are 0.0084 of the variance"


def test_rare_hits_are_counted_as_they_are() -> None:
    rng = np.random.default_rng(5)
    base = Cycle(CycleState(), "binomial", MEMORY_S)
    hits = rng.binomial(208, 0.005, size=96)
    for hour, k in enumerate(hits):
        base.learn(START_H + hour, int(k), 208)
    base.expect(START_H + 96)
    assert base.state.rate == pytest.approx(0.005, rel=0.4)
    for hour in range(96, 200):
        base.learn(START_H + hour, 0, 208)
    base.expect(START_H + 200)
    assert 0.0 < base.state.rate < 0.005


def test_counts_have_a_baseline_too() -> None:
    rng = np.random.default_rng(6)
    base = Cycle(CycleState(), "poisson", MEMORY_S)
    for hour in range(96):
        base.learn(START_H + hour, int(rng.poisson(40 + 20 * math.sin(2 * math.pi * hour / 24))), 1.0)
    seen = []
    for hour in (102, 114):
        base.expect(START_H + hour)
        seen.append(base.state.rate)
    assert seen == [pytest.approx(60, abs=5), pytest.approx(20, abs=5)]


def test_what_is_long_past_fades() -> None:
    base = learnt(2, 1)
    whole = base.state.fit.n
    base.learn(START_H + 47 + 28 * DAY_H, 0, 1)
    assert base.state.fit.n == pytest.approx(whole / math.e, abs=3)


def test_what_was_held_back_flows_over_as_if_it_had_been_learnt_at_once() -> None:
    whole, parts, fresh = learnt(3, 2), learnt(3, 2), Fit()
    for hour in range(3 * DAY_H, 4 * DAY_H):
        whole.expect(START_H + hour)
        whole.add(whole.state.fit, START_H + hour, 60, 208)
        parts.add(fresh, START_H + hour, 60, 208)
    parts.absorb(fresh)
    assert np.allclose(np.frombuffer(whole.state.fit.gram), np.frombuffer(parts.state.fit.gram))
    assert np.allclose(np.frombuffer(whole.state.fit.score), np.frombuffer(parts.state.fit.score))
    assert fresh == Fit()


def test_a_new_level_keeps_the_old_cycle_while_its_own_data_are_few() -> None:
    """One day of 50 an hour: the level alone costs 0.012, the day's coefficients from that day alone 0.03."""
    off = []
    for seed in range(20):
        base, fresh = learnt(14, seed, daily=0.06), Fit()
        rng = np.random.default_rng(seed)
        for hour in range(14 * DAY_H, 15 * DAY_H):
            base.add(fresh, START_H + hour, int(rng.binomial(50, rate_at(hour, 0.06) - 0.10)), 50)
        base.replace(fresh)
        off.append(errors(base, 15, daily=0.06) + 0.10)
    assert rms(off) < 0.021


def test_the_state_is_small_data() -> None:
    state = learnt(21, 8, daily=0.03).state
    blob = msgspec.msgpack.encode(state)
    assert len(blob) < 2000
    assert msgspec.msgpack.decode(blob, type=CycleState) == state
    assert len(state.theta) == 8 * SIZE

"""Evidence over all onsets: valid while nothing changes, dated well when something does, bounded."""

from __future__ import annotations

import random
from math import log, sqrt

import msgspec
import numpy as np
import pytest

from detectors._onsets import CELL_N, CELLS, Cell, Onsets, OnsetsState, Part, Sums

RATE = 0.3
DOWN = Part(-1, 0.43)
KNOWN = [1e9]


def weigh(cell: Cell) -> Sums:
    n, k = sum(cell.n), sum(cell.k)
    return ((k - n * RATE, n * RATE * (1 - RATE)),)


def fed(rates: list[float], seed: int, step_s: float = 60.0) -> Onsets:
    """One case a minute, a hit at these rates."""
    rng, onsets = random.Random(seed), Onsets(OnsetsState.of(2, hits=True), (DOWN,), weigh)
    for i, rate in enumerate(rates):
        onsets.add(1e9 + i * step_s, ((rng.randrange(2), 1, int(rng.random() < rate)),))
    return onsets


@pytest.mark.parametrize("side", [-1, 0, 1])
@pytest.mark.parametrize(("v", "known"), [(5.0, 1e9), (20.0, 1e9), (20.0, 30.0), (60.0, 20.0)])
def test_the_likelihood_ratio_averages_to_one_while_nothing_changes(side: int, v: float, known: float) -> None:
    # The baseline is off by an error of variance 1 / known, which all residuals share.
    rng = np.random.default_rng(7)
    draws = rng.normal(0.0, sqrt(v + v * v / known), 20_000)
    part = Part(side, 0.3)
    ratios = np.exp([part.log_ratio(s, v, known) for s in draws])
    assert ratios.mean() == pytest.approx(1.0, abs=5 * ratios.std() / sqrt(len(ratios)) + 0.01)


def test_a_baseline_of_few_cases_makes_evidence_smaller() -> None:
    assert DOWN.log_ratio(-20.0, 40.0, 1e9) > DOWN.log_ratio(-20.0, 40.0, 40.0) + 1.0
    size, error = Part.size(-20.0, 40.0, 40.0)
    assert size == pytest.approx(-0.5)
    assert error == pytest.approx(sqrt(1 / 40 + 1 / 40))


def test_only_the_side_that_counts_gains() -> None:
    assert DOWN.gain(-10.0, 20.0, 1e9) == pytest.approx(2.5)
    assert DOWN.gain(10.0, 20.0, 1e9) == 0.0
    assert Part(0, 0.4).gain(10.0, 20.0, 1e9) == pytest.approx(2.5)


def test_false_alarms_are_no_more_frequent_than_the_threshold_says() -> None:
    wanted, alarms, looks = 200, 0, 0
    rng = random.Random(11)
    while looks < 12_000:
        onsets = Onsets(OnsetsState.of(1, hits=True), (DOWN,), weigh)
        for i in range(400 * CELL_N):
            if onsets.add(1e9 + i * 60.0, ((0, 1, int(rng.random() < RATE)),)) is None:
                continue
            looks += 1
            if onsets.change(KNOWN).statistic >= log(wanted):
                alarms += 1
                break
    assert 0 < alarms <= 1.3 * looks / wanted


def test_the_onset_is_dated_and_its_interval_holds_it_mostly() -> None:
    errors, covered = [], 0
    for seed in range(30):
        change = fed([RATE] * 1200 + [0.18] * 400, seed).change(KNOWN)
        true_s = 1e9 + 1200 * 60.0
        errors.append(abs(change.onset - true_s) / 60.0)
        covered += change.first <= true_s <= change.last
    assert float(np.median(errors)) < 60
    assert covered >= 25


def test_nothing_is_lost_in_merging_and_cells_stay_in_order() -> None:
    onsets = fed([RATE] * 60_000, seed=3)
    cells = onsets.cells
    assert len(cells) < CELLS == len(onsets.state.cells)
    assert sum(sum(cell.n) for cell in cells) == 60_000
    assert sum(cell.looks for cell in cells) == 60_000 // CELL_N
    starts = [cell.ts for cell in cells]
    assert starts == sorted(starts) and starts[0] == 1e9


def test_old_cells_are_coarse_and_young_ones_fine() -> None:
    cells = fed([RATE] * 4000, seed=4).cells
    assert cells[-1].looks == 1
    age = 0
    for cell in reversed(cells[1:]):  # the oldest takes what does not fit
        assert cell.looks <= max(1, age / 4)
        age += cell.looks


def test_a_restored_state_says_the_same() -> None:
    onsets = fed([RATE] * 900 + [0.2] * 300, seed=5)
    state = msgspec.msgpack.decode(msgspec.msgpack.encode(onsets.state), type=OnsetsState)
    assert Onsets(state, (DOWN,), weigh).change(KNOWN) == onsets.change(KNOWN)


def test_a_day_fills_a_cell_however_few_the_cases() -> None:
    onsets = fed([RATE] * 12, seed=6, step_s=6 * 3600.0)
    assert 1 < len(onsets.cells) <= 3
    assert onsets.looks_per_week == pytest.approx(7, rel=0.6)


def test_the_oldest_cell_can_be_asked_and_taken_out() -> None:
    onsets = fed([0.05] * 200 + [RATE] * 200, seed=8)
    first = onsets.cells[0].ts
    whole = onsets.oldest(0, 1e9)
    assert onsets.pop().ts == first
    assert onsets.cells[0].ts > first
    assert whole > 5.0 > onsets.change(KNOWN).nats - whole


def test_without_cells_nothing_is_suspected() -> None:
    assert Onsets(OnsetsState.of(2, hits=True), (DOWN,), weigh).change(KNOWN).statistic == 0.0

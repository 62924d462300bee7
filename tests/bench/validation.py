"""How soon an indicator is proven, how soon it is lost, and how often wrongly: `python -m tests.bench.validation`.

Counts as the line makes them go through the real `Validator`, bucket by bucket; every run is a stage of its own, so that
hundreds of runs are one stream. Outcomes are drawn at random, with a fixed seed; seeds below `--first` are for tuning.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from math import pi
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from detectors._stages import JOURNEY, LEADS
from detectors._validation_intervals import ERROR
from streams.frames import Segment
from streams.validation import ADVANCE, ALL, ValidationParams, Validator

BUCKET_S: Final = 600.0
DAY_S: Final = 86_400.0
START: Final = 1_790_035_200.0
INDICATOR: Final = "signal"
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class Case(NamedTuple):
    """A kind of stream.

    Attributes:
        name: what it shows.
        odds_ratio: of a good outcome, with the indicator against without, before it is made useless.
        prevalence: share with the indicator.
        base: share of good outcomes without it.
        daily: part by which both swing with the time of day, together; negative: against each other.
        outcomes: length of a run.
        gap: it is made useless up to so many outcomes after its proof (at random); None: never.
        per_hour: outcomes an hour.
        mix: whether everyone is two segments of different base rate and prevalence, of which one comes and goes.
    """

    name: str
    odds_ratio: float = 1.0
    prevalence: float = 0.07
    base: float = 0.4
    daily: float = 0.0
    outcomes: int = 50_000
    gap: float | None = None
    per_hour: float = 400.0
    mix: bool = False


class Runs(NamedTuple):
    """What became of the runs; outcomes are counted from the start of each, infinite where nothing happened.

    Attributes:
        case: of these.
        proven: when first proven.
        useless: when made useless.
        lost: when first lost.
        losses: how often lost in all.
        outcomes: seen in all, of all runs.
        gain: nats per outcome at the end.
        covered: share of runs whose interval of the gain held the mean of what predictions could gain, at the end.
        seconds: of processor time.
    """

    case: Case
    proven: Floats
    useless: Floats
    lost: Floats
    losses: Integers
    outcomes: float
    gain: Floats
    seconds: float


class Stream:
    """Draws the counts of all runs, bucket by bucket."""

    def __init__(self, case: Case, runs: int, rng: np.random.Generator) -> None:
        self._case, self._rng = case, rng
        self._phase = rng.uniform(0.0, 2.0 * pi, runs)
        self.runs = runs

    def bucket(self, ts: float, useless: npt.NDArray[np.bool_]) -> list[tuple[Segment, Integers]]:
        """Of each segment (one, or two that are mixed): with and good, with and bad, good, bad; a column for each run."""
        case, rng = self._case, self._rng
        swing = 1.0 + case.daily * np.sin(2.0 * pi * ts / DAY_S + self._phase)
        together = 2.0 - swing if case.daily < 0.0 else swing
        prevalence, base = case.prevalence * swing, case.base * together
        mean = np.full(self.runs, case.per_hour * BUCKET_S / 3600.0)
        if not case.mix:
            return [((), self._draw(mean, prevalence, base, useless))]
        share = 0.5 + 0.4 * np.sin(2.0 * pi * ts / (9.0 * DAY_S) + self._phase)
        one = self._draw(mean * share, prevalence * 0.5, base * 1.4, useless)
        other = self._draw(mean * (1.0 - share), prevalence * 2.0, base * 0.5, useless)
        rng.random()
        return [((("channel", "paid"),), one), ((("channel", "search"),), other), ((), one + other)]

    def _draw(self, mean: Floats, prevalence: Floats, base: Floats, useless: npt.NDArray[np.bool_]) -> Integers:
        rng, ratio = self._rng, np.where(useless, 1.0, self._case.odds_ratio)
        n = rng.poisson(mean)
        shown = rng.binomial(n, prevalence)
        odds = ratio * base / (1.0 - base)
        good = rng.binomial(shown, odds / (1.0 + odds))
        others = rng.binomial(n - shown, base)
        return np.array([good, shown - good, good + others, n - good - others])


def simulate(case: Case, runs: int, seed: int, params: ValidationParams | None = None) -> Runs:
    """Runs of a case side by side."""
    began, rng = time.process_time(), np.random.default_rng(seed)
    stages = [f"run{i}" for i in range(runs)]
    names = [[f"{slot}_{stage}" for slot in (f"ind_{INDICATOR}_yes", f"ind_{INDICATOR}_no", "long_yes", "long_no")]
             for stage in stages]  # fmt: skip
    family = "channel" if case.mix else ALL
    validator, stream = Validator(stages, 20, params), Stream(case, runs, rng)
    proven, useless, lost = (np.full(runs, np.inf) for _ in range(3))
    losses, n, ts = np.zeros(runs, dtype=np.int64), np.zeros(runs), START
    while n.min() < case.outcomes:
        for segment, drawn in stream.bucket(ts, n >= useless):
            counts = {name: int(v) for i, own in enumerate(names) for name, v in zip(own, drawn[:, i], strict=True)}
            validator.observe(ts, JOURNEY, segment, counts)
            if not segment:
                n += drawn[2] + drawn[3]
        ts += BUCKET_S
        validator.settle(ts)
        for change in validator.changes:
            i = int(change.stage[3:])
            if change.family != family:
                continue
            if change.after == "proven" and proven[i] == np.inf:
                proven[i] = n[i]
                if case.gap is not None:
                    useless[i] = n[i] + rng.uniform(0.0, case.gap)
            elif change.after == "lost":
                losses[i] += 1
                lost[i] = min(lost[i], n[i])
    known = [(INDICATOR, ADVANCE, stage, family) for stage in stages]
    gain = np.array([validator.numbers(key).gain for key in known])
    return Runs(case, proven, useless, lost, losses, float(n.sum()), gain, time.process_time() - began)

"""How soon an indicator is proven, how soon it is lost, and how often wrongly: `python -m tests.bench.validation`.

Counts as the line makes them go through the real `Validator`, bucket by bucket; every run is a stage of its own, so
that hundreds of runs are one stream. Outcomes are drawn at random, with a fixed seed; seeds below 200 were tuned on.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from math import inf, pi
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from detectors._stages import JOURNEY, LEADS
from streams.frames import Segment
from streams.validation import Validator
from streams.validation_fields import ACCEPT, ADVANCE, SCORE
from streams.validation_states import ALL, ValidationParams

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
        """Of each segment (one, or two that are mixed), a column for each run: good with, bad with, good, bad."""
        case = self._case
        swing = 1.0 + case.daily * np.sin(2.0 * pi * ts / DAY_S + self._phase)
        together = 2.0 - swing if case.daily < 0.0 else swing
        prevalence, base = case.prevalence * swing, case.base * together
        mean = np.full(self.runs, case.per_hour * BUCKET_S / 3600.0)
        if not case.mix:
            return [((), self._draw(mean, prevalence, base, useless))]
        share = 0.5 + 0.4 * np.sin(2.0 * pi * ts / (9.0 * DAY_S) + self._phase)
        one = self._draw(mean * share, prevalence * 0.5, base * 1.4, useless)
        other = self._draw(mean * (1.0 - share), prevalence * 2.0, base * 0.5, useless)
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
            if change.family != ALL:
                continue
            if change.after == "proven" and proven[i] == np.inf:
                proven[i] = n[i]
                if case.gap is not None:
                    useless[i] = n[i] + rng.uniform(0.0, case.gap)
            elif change.after == "lost":
                losses[i] += 1
                lost[i] = min(lost[i], n[i])
    known = [(INDICATOR, ADVANCE, stage, ALL) for stage in stages]
    gain = np.array([validator.numbers(key).gain for key in known])
    return Runs(case, proven, useless, lost, losses, float(n.sum()), gain, time.process_time() - began)


class Scores(NamedTuple):
    """Runs of lead scores: leads until proven, and from being made useless to being lost; infinite if never."""

    proven: Floats
    lost: Floats
    auc: Floats


def simulate_scores(slope: float, runs: int, seed: int, leads: int, useless_at: float = inf) -> Scores:
    """Leads with scores that shift acceptance by so many log odds over the scale; 25 an hour, until so many."""
    found = [_scores(slope, np.random.default_rng([seed, run]), leads, useless_at) for run in range(runs)]
    return Scores(*(np.array(column) for column in zip(*found, strict=True)))


def _scores(slope: float, rng: np.random.Generator, leads: int, useless_at: float) -> tuple[float, float, float]:
    validator, bins = Validator([], 20), 20
    n, ts, proven, lost = 0, START, inf, inf
    while n < leads:
        drawn = rng.multinomial(rng.poisson(25.0), rng.dirichlet(np.full(bins, 50.0)))
        base = 0.35 + 0.1 * np.sin(2.0 * pi * ts / DAY_S)
        logit = np.log(base / (1.0 - base)) + (slope if n < useless_at else 0.0) * (
            (np.arange(bins) + 0.5) / bins - 0.5
        )
        good = rng.binomial(drawn, 1.0 / (1.0 + np.exp(-logit)))
        counts = {f"accept_n_{b}": int(drawn[b]) for b in range(bins)}
        counts |= {f"accept_k_{b}": int(good[b]) for b in range(bins)}
        validator.observe(ts, LEADS, (), counts)
        n, ts = n + int(drawn.sum()), ts + 3600.0
        validator.settle(ts)
        for change in validator.changes:
            if change.after == "proven":
                proven = min(proven, n)
            elif n >= useless_at:
                lost = min(lost, n - useless_at)
    return proven, lost, validator.numbers((SCORE, ACCEPT, LEADS, ALL)).auc


NOISE: Final = (
    Case("noise"),
    Case("noise, prevalence 2 %", prevalence=0.02),
    Case("noise, day and night together", daily=0.5),
    Case("noise, day and night against each other", daily=-0.5),
    Case("noise, 20 outcomes an hour, against each other", daily=-0.5, per_hour=20.0, outcomes=20_000),
    Case("noise, mix shift between two channels", mix=True, prevalence=0.1),
)
USEFUL: Final = tuple(
    Case(f"useful, prevalence {p:.0%}", 0.4, p, outcomes=16_000, gap=4_000.0) for p in (0.05, 0.07, 0.1)
)
GOOD: Final = (
    *(Case(f"stays useful, prevalence {p:.0%}", 0.4, p, outcomes=60_000) for p in (0.05, 0.07, 0.1)),
    Case("stays useful in each of two channels that mix", 0.4, 0.08, outcomes=60_000, mix=True),
)
LOSS_N: Final = 2_000.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.validation", description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=200, help="runs of each case")
    parser.add_argument("--seed", type=int, default=200, help="those below 200 were tuned on")
    options = parser.parse_args(arguments)
    for report in (report_noise, report_useful, report_good, report_scores):
        report(options.runs, options.seed)
    return 0


def report_noise(runs: int, seed: int) -> None:
    """How often useless indicators are ever proven."""
    print("| useless from the start | runs | outcomes each | ever proven |\n|---|---|---|---|")
    for case in NOISE:
        found = simulate(case, runs, seed)
        print(f"| {case.name} | {runs} | {case.outcomes} | {np.isfinite(found.proven).mean():.1%} |", flush=True)


def report_useful(runs: int, seed: int) -> None:
    """How soon useful ones are proven, and lost once they are useless."""
    print("\n| made useless after proof | runs | proven after (median, 90 %) | lost before that"
          " | lost within 2,000 | outcomes to the loss (median, 95 %) |\n|---|---|---|---|---|---|")  # fmt: skip
    for case in USEFUL:
        found = simulate(case, runs, seed)
        early = found.lost < found.useless
        delay = (found.lost - found.useless)[~early & np.isfinite(found.useless)]
        print(f"| {case.name} | {runs} | {np.median(found.proven):.0f}, {np.quantile(found.proven, 0.9):.0f}"
              f" | {early.mean():.1%} | {(delay <= LOSS_N).mean():.1%} of {len(delay)}"
              f" | {np.median(delay):.0f}, {np.quantile(delay, 0.95):.0f} |", flush=True)  # fmt: skip


def report_good(runs: int, seed: int) -> None:
    """How rarely useful ones are lost."""
    print("\n| never useless | runs | outcomes in all | false losses | outcomes between two | gain, nats |\n"
          "|---|---|---|---|---|---|")  # fmt: skip
    for case in GOOD:
        found = simulate(case, runs, seed)
        losses = int(found.losses.sum())
        print(f"| {case.name} | {runs} | {found.outcomes:.0f} | {losses} | {found.outcomes / max(losses, 1):.0f}"
              f" | {found.gain.mean():.4f} |", flush=True)  # fmt: skip


def report_scores(runs: int, seed: int) -> None:
    """The same for lead scores, which are bins."""
    print("\n| lead score | runs | leads | ever proven | proven after (median) | AUC | lost within 2,000 |\n"
          "|---|---|---|---|---|---|---|")  # fmt: skip
    for name, slope, leads, useless_at in (("noise", 0.0, 10_000, inf), ("useful", 3.0, 4_000, inf),
                                           ("made useless at 2,000", 3.0, 4_100, 2_000.0)):  # fmt: skip
        found = simulate_scores(slope, runs, seed, leads, useless_at)
        lost = f"{(found.lost <= LOSS_N).mean():.1%}" if useless_at < inf else ""
        print(f"| {name} | {runs} | {leads} | {np.isfinite(found.proven).mean():.1%}"
              f" | {np.median(found.proven):.0f} | {np.mean(found.auc):.3f} | {lost} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())

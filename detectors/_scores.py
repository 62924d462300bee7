"""What lead scores mean, and whether they still mean it: their distribution, and what becomes of them.

Score bins are numbered from 0 over the score scale; a bin's score is its middle as a fraction of the scale.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import exp, log, sqrt
from typing import Final, Literal, TypeAlias

import msgspec

from detectors._base import Level
from detectors._baseline import DAY_S, PRIOR, REFRESH_GROWTH, RateTable, fade_over
from detectors._sequential import QUIET_NATS, Cusum, CusumState, Phase, Run, SequentialParams

TILTS: Final = ((1, 0.35), (1, -0.35), (2, 0.35), (2, -0.35))
"""Alternatives as (moment, tilt): mean up, mean down, wider, narrower, by about 0.35 standard deviations."""
RECENT_LEADS: Final = 100.0
"""Leads that the free-form alternative is learnt from."""
FREE_PRIOR: Final = 50.0
"""Leads' worth of belief, in the free-form alternative, that the distribution is as it was."""
CURVE_PRIOR: Final = 20.0
"""Leads' worth of belief that a score bin is like the others."""
Warming: TypeAlias = Literal["warming"]
Cohort: TypeAlias = tuple[int, int, int]
"""(score bin, leads, hits) of one cohort."""


class SlowTable(msgspec.Struct):
    """State common to both tests here.

    Attributes:
        test: evidence.
        base: the baseline per score bin.
        fresh: held back from it since evidence began to rise.
        first_ts: event time of the first observation, seconds; None before it.
        day: last day learnt, days since the epoch.
        ready: the warm-up is over.
        at_n: leads known when `figures` were computed.
        figures: what the test needs of the baseline: log-likelihood ratios or expected rates.
        recent: counts per bin of the free-form alternative.
    """

    test: CusumState
    base: RateTable
    fresh: RateTable
    first_ts: float | None = None
    day: int = 0
    ready: bool = False
    at_n: float = -1.0
    figures: list[list[float]] = []
    recent: list[float] = []

    @classmethod
    def of(cls, bins: int, runs: int) -> SlowTable:
        """Return the state at the start, for so many score bins and alternatives."""
        return cls(CusumState.of(runs), RateTable.sized(bins), RateTable.sized(bins), recent=[0.0] * bins)


class _ScoreTest:
    """Warm-up, forgetting, holding back and taking over; subclasses say what is tested."""

    runs = 1
    quiet_at = 0.0

    def __init__(self, params: SequentialParams, state: SlowTable, margin: float = 0.0) -> None:
        self.params = params
        self.state = state
        self.cusum = Cusum(params, state.test, self.quiet_at, margin)

    @property
    def level(self) -> Level:
        """`warming`, `ok`, `warn` or `alert`."""
        return self.cusum.level if self.state.ready else "warming"

    @property
    def run(self) -> Run:
        """The run that alarmed, else the one with most evidence."""
        return self.cusum.worst

    def _warm(self, ts: float) -> bool:
        """Whether it still only learns."""
        state, params = self.state, self.params
        if state.first_ts is None:
            state.first_ts, state.day = ts, int(ts // DAY_S)
        if not state.ready:
            state.ready = ts - state.first_ts >= params.warmup_s and state.base.sum_n >= params.warmup_n
        return not state.ready

    def _learn(self, ts: float, cohorts: Iterable[Cohort], phase: Phase) -> None:
        state = self.state
        quiet = phase == "quiet"
        if quiet:
            day = int(ts // DAY_S)
            fade_over(state.base, day - state.day, self.params.memory_s / DAY_S)
            state.day = max(day, state.day)
            state.base.absorb(state.fresh)
        table = state.base if quiet else state.fresh
        for stratum, n, k in cohorts:
            table.learn(stratum, k, n)
        if phase == "recovered":
            state.fresh.clear()
        elif phase == "accepted":
            state.base, state.fresh, state.at_n = state.fresh, RateTable.sized(len(state.recent)), -1.0

    def _stale(self) -> bool:
        """Whether `figures` need computing anew; notes that they are."""
        state = self.state
        stale = not state.at_n / REFRESH_GROWTH <= state.base.sum_n <= state.at_n * REFRESH_GROWTH
        if stale:
            state.at_n = state.base.sum_n
        return stale


class ScoreDistribution(_ScoreTest):
    """Whether scores are still distributed as they were, whatever the change of shape.

    Five CUSUMs run at once over the multinomial log-likelihood ratio of each score: exponential tilts of the learnt
    histogram by its standardised first and second moment, up and down (the reference and its alternatives form an
    exponential family, Lorden 1971), and a free-form alternative: the histogram of the last leads, which is fixed
    before each score is seen, so it can be betted with (adaptive CUSUM, Dragalin 1997; Lorden & Pollak 2005).

    Args:
        params: thresholds, warm-up and memory; `n` are leads.
        state: taken up and changed in place.
        margin: added to all thresholds because five alternatives share the false alarms, nats.
    """

    runs = len(TILTS) + 1
    quiet_at = QUIET_NATS

    def observe(self, ts: float, scores: Sequence[Cohort]) -> Phase | Warming:
        """Learn from the scores of one bucket, (bin, leads, 0) each, at event time `ts` (s), and test them."""
        if self._warm(ts):
            self._learn(ts, scores, "quiet")
            self._remember(scores)
            return "warming"
        if self._stale():
            self._refresh()
        llrs = [sum(n * row[b] for b, n, _ in scores) for row in self.state.figures[:-1]]
        llrs.append(self._free_form(scores))
        n = sum(leads for _, leads, _ in scores)
        phase = self.cusum.advance(ts, llrs, 0.0, n, n)
        self._learn(ts, scores, phase)
        self._remember(scores)
        return phase

    def psi(self) -> float:
        """Population stability index of the scores since the onset against the baseline (0.1 small, 0.25 large)."""
        state = self.state
        now = _shares(state.fresh.n)
        return sum((a - b) * log(a / b) for a, b in zip(now, _shares(state.base.n), strict=True))

    def means(self) -> tuple[float, float]:
        """Mean score under the baseline and since the onset, fractions of the scale."""
        return _mean(_shares(self.state.base.n, 0.0)), _mean(_shares(self.state.fresh.n, 0.0))

    def _free_form(self, scores: Sequence[Cohort]) -> float:
        recent, reference = self.state.recent, self.state.figures[-1]
        total = sum(recent) + FREE_PRIOR
        return sum(n * log((recent[b] + FREE_PRIOR * reference[b]) / (total * reference[b])) for b, n, _ in scores)

    def _remember(self, scores: Sequence[Cohort]) -> None:
        keep = max(0.0, 1.0 - sum(n for _, n, _ in scores) / RECENT_LEADS)
        recent = [value * keep for value in self.state.recent]
        for b, n, _ in scores:
            recent[b] += n
        self.state.recent = recent

    def _refresh(self) -> None:
        shares = _shares(self.state.base.n)
        mean = sum(b * share for b, share in enumerate(shares))
        sd = sqrt(sum((b - mean) ** 2 * share for b, share in enumerate(shares))) or 1.0
        first = [(b - mean) / sd for b in range(len(shares))]
        spread = sqrt(sum((z**4 - 2 * z**2 + 1) * share for z, share in zip(first, shares, strict=True))) or 1.0
        moments = {1: first, 2: [(z * z - 1.0) / spread for z in first]}
        self.state.figures = [_tilted(moments[moment], tilt, shares) for moment, tilt in TILTS] + [shares]


class Calibration(_ScoreTest):
    """Whether leads at a given score still do as well as that score used to promise.

    The promise is the learnt rate per score bin, shrunk to the overall rate and made isotonic (pool adjacent violators,
    Ayer et al. 1955; Zadrozny & Elkan 2002). The test is a one-sided binomial CUSUM over all bins at once: each bin's
    hits against the bin's own promise.

    Args:
        params: thresholds, warm-up and memory; `n` are leads whose horizon has passed.
        state: taken up and changed in place.
        odds_ratio: smallest fall of the odds worth finding.
    """

    def __init__(self, params: SequentialParams, state: SlowTable, odds_ratio: float) -> None:
        super().__init__(params, state)
        self.odds_ratio = odds_ratio

    def observe(self, ts: float, cohorts: Sequence[Cohort]) -> Phase | Warming:
        """Learn from cohorts (bin, leads, hits) whose horizon passed at event time `ts` (seconds), and test them."""
        if self._warm(ts):
            self._learn(ts, cohorts, "quiet")
            return "warming"
        if self._stale():
            self._refresh()
        promised, logs = self.state.figures
        k = sum(hits for _, _, hits in cohorts)
        n = sum(leads for _, leads, _ in cohorts)
        llr = k * log(self.odds_ratio) - sum(leads * logs[b] for b, leads, _ in cohorts)
        phase = self.cusum.advance(ts, (llr,), k, n, sum(leads * promised[b] for b, leads, _ in cohorts))
        self._learn(ts, cohorts, phase)
        return phase

    def losses(self, bands: int) -> list[float]:
        """Hits that each of `bands` equal parts of the score scale lost since the onset."""
        fresh, promised = self.state.fresh, self.state.figures[0]
        lost = [0.0] * bands
        for b, (k, n) in enumerate(zip(fresh.k, fresh.n, strict=True)):
            lost[b * bands // len(promised)] += n * promised[b] - k
        return lost

    def _refresh(self) -> None:
        base = self.state.base
        level = base.level
        weights = [n + CURVE_PRIOR for n in base.n]
        raw = [(k + CURVE_PRIOR * level) / weight for k, weight in zip(base.k, weights, strict=True)]
        curve = isotonic(raw, weights)
        careful = max(0.1, 1.0 - self.params.caution * base.error / level)
        self.state.figures = [curve, [log(1.0 + (self.odds_ratio - 1.0) * rate * careful) for rate in curve]]


def isotonic(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Closest non-descending sequence in weighted least squares (pool adjacent violators).

    Example:
        >>> isotonic([0.1, 0.4, 0.2, 0.5], [1, 1, 1, 1])
        [0.1, 0.30000000000000004, 0.30000000000000004, 0.5]
    """
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights, strict=True):
        mean, mass, width = value, weight, 1
        while blocks and blocks[-1][0] > mean:
            other, other_mass, other_width = blocks.pop()
            mean = (mean * mass + other * other_mass) / (mass + other_mass)
            mass, width = mass + other_mass, width + other_width
        blocks.append((mean, mass, width))
    return [mean for mean, _, width in blocks for _ in range(width)]


def _shares(counts: Sequence[float], prior: float = PRIOR) -> list[float]:
    total = sum(counts) + prior * len(counts) or 1.0
    return [(value + prior) / total for value in counts]


def _mean(shares: Sequence[float]) -> float:
    return sum((b + 0.5) * share for b, share in enumerate(shares)) / len(shares)


def _tilted(moment: Sequence[float], tilt: float, shares: Sequence[float]) -> list[float]:
    """Log-likelihood ratio of each bin under the histogram tilted by `exp(tilt * moment)`."""
    normaliser = log(sum(share * exp(tilt * value) for share, value in zip(shares, moment, strict=True)))
    return [tilt * value - normaliser for value in moment]

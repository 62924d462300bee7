"""What is normal, and how well that is known: a learnt baseline with daily and weekly cycle, weekend and trend.

Recursive weighted least squares with forgetting (Haykin 2002, ch. 9) on Fourier terms (as in harmonic regression:
Young, Pedregal & Tych 1999): each hour enters with its hits and trials, old hours fade. The model is additive in the
rate itself, so the level is exactly hits over trials, however rare they are. The whole state is one information matrix
and one vector; what is kept beside a baseline after an alarm is a second pair of the same shape.

Each group of coefficients (a harmonic, the weekend, the trend) is shrunk by the evidence for it (empirical Bayes: Efron
& Morris 1975; g-prior: Zellner 1986), so a flat stream is expected to stay flat while data are few.
"""

from __future__ import annotations

import struct
from math import exp, log, pi, sqrt
from typing import Any, Final, Literal, Protocol, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors._baseline import HOUR_S, PRIOR

Vector: TypeAlias = NDArray[Any]
FamilyName: TypeAlias = Literal["binomial", "poisson"]

LEVEL, TREND, WEEKEND = 0, 1, 2
DAILY: Final = (1, 2, 3)
WEEKLY: Final = (1, 2)
SIZE: Final = 3 + 2 * (len(DAILY) + len(WEEKLY))
GROUPS: Final = tuple([(TREND,), (WEEKEND,), *[(3 + 2 * i, 4 + 2 * i) for i in range(len(DAILY) + len(WEEKLY))]])
"""Coefficients that are shrunk together."""
AFTER_H: Final = (160, 330, *[22] * len(DAILY), *[330] * len(WEEKLY))
"""Hours learnt from which on each group is used: half a cycle can't tell a cycle from a level."""
SOLVE_H: Final = 12
"""Hours after which coefficients are computed anew although the data have hardly grown: they have changed."""
AHEAD_H: Final = 48
"""Hours that a trend is followed ahead of the last hour learnt, while data are held back."""
WEAK_SD: Final = 1.0
"""Prior standard deviation of every coefficient on the link scale: 1 logit is a lot for a cycle."""
CHANCE: Final = 3.0
"""Times the strength that chance gives, below which a group is taken for nothing."""
TREND_SD: Final = 0.1
"""Prior standard deviation of the trend on the link scale, per week: 2 points a week at a rate of 30 %."""
CLIP_SD: Final = 3.5
"""Standard deviations beyond which an hour counts no more: a holiday or a burst is no new normal (Huber 1964)."""
KEPT_CYCLE: Final = 0.3
"""Share of its data that an old cycle is worth when a new level is accepted; a tenth forgot weekends."""
GUARD_H: Final = 22
"""Hours learnt before any hour is held to be odd."""
MEASURED_H: Final = 6
"""Hours measured before they are said to vary beyond chance."""
CLUMP_SURE: Final = 3.0
"""Standard errors that variance beyond chance must pass before it counts."""
CLUMP_SD: Final = 2.5
"""Standard deviations at which an hour is cut off when it is asked how far hours vary beyond chance."""
IGNORE: Final = 2.0
"""Times that limit beyond which an hour is not learnt from at all (Hampel 1974)."""
WEEK_H: Final = 168
EPOCH_SHIFT_H: Final = 72
"""Hours from the Monday before the epoch (a Thursday) to the epoch."""


def _features() -> Vector:
    """One row for each hour of the week, from Monday 00:00 UTC; the trend is 0, because it counts from now."""
    rows = np.zeros((WEEK_H, SIZE))
    hour = np.arange(WEEK_H) + 0.5
    rows[:, LEVEL] = 1.0
    rows[:, WEEKEND] = (hour >= 120) - 2 / 7
    at = 3
    for period_h, harmonics in ((24, DAILY), (WEEK_H, WEEKLY)):
        for harmonic in harmonics:
            angle = 2 * pi * harmonic * hour / period_h
            rows[:, at], rows[:, at + 1] = np.cos(angle), np.sin(angle)
            at += 2
    return rows


FEATURES: Final = _features()
SUMS: Final = np.concatenate([np.zeros((1, SIZE)), np.cumsum(np.tile(FEATURES, (2, 1)), axis=0)])
"""Sums of the rows of two weeks, for means over any hours of them."""


PACKED: Final = SIZE * (SIZE + 1) // 2
"""Numbers that a symmetric matrix is kept in."""
LOWER: Final = np.tril_indices(SIZE)


def _zeros(size: int) -> bytes:
    return bytes(8 * size)


class Fit(msgspec.Struct, array_like=True):
    """What hours of data say of the coefficients, as data: numbers are little-endian doubles.

    Attributes:
        gram: sum of trials times features times features, lower half row by row.
        score: sum of hits times features.
        n: trials (for counts: hours) behind it.
        hours: hours learnt from, none of them faded; tells which cycles can be known.
        steady: the same since the level was last accepted; tells whether a trend can be.
        slot: hour that its trend counts from.
    """

    gram: bytes = _zeros(PACKED)
    score: bytes = _zeros(SIZE)
    n: float = 0.0
    hours: int = 0
    steady: int = 0
    slot: int = 0


class CycleState(msgspec.Struct, array_like=True):
    """State of `Cycle`.

    Attributes:
        fit: all that was learnt.
        theta: coefficients as last computed.
        cover: their covariance, lower half row by row.
        at_n: trials known when they were computed.
        solved: hour that the trend counted from then.
        slot: hour that `rate` is for.
        rate: expected rate (for counts: per hour) in that hour.
        error: standard error of it.
        excess: variance beyond the family's, summed over hours.
        spread: variance that one unit of `clump` would add, summed over the same hours.
        doubt: variance of `excess` if there were no excess.
        measured: hours behind these, as far as it matters.
        clump: correlation of trials within an hour; 0 where trials are independent.
    """

    fit: Fit = msgspec.field(default_factory=Fit)
    theta: bytes = _zeros(SIZE)
    cover: bytes = _zeros(PACKED)
    at_n: float = 0.0
    solved: int = 0
    slot: int = -1
    rate: float = 0.5
    error: float = 1.0
    excess: float = 0.0
    spread: float = 0.0
    doubt: float = 0.0
    measured: int = 0
    clump: float = 0.0


class Family(Protocol):
    """A distribution with one parameter."""

    def variance(self, mean: float) -> float:
        """Variance of one trial; also the slope of the mean on the link scale (logit, log)."""

    def within(self, mean: float, level: float) -> float:
        """The mean, kept away from the impossible where the additive model leads there."""

    def normaliser(self, ratio: float, mean: float) -> float:
        """Log of the mean of `ratio ** x` over one trial: what keeps a likelihood ratio at 1 on average."""

    def units(self, n: float, mean: float) -> float:
        """How many things that can go together `n` trials are: trials, or events."""

    def ratio(self, k: float, n: float, expected: float) -> float:
        """The multiple of the odds (rate) that fits `k` best, kept finite."""


class Binomial:
    """Hits out of trials; values in [0, 1] are covered too (their variance is never larger)."""

    def variance(self, mean: float) -> float:
        """Of one trial."""
        return mean * (1.0 - mean)

    def within(self, mean: float, level: float) -> float:
        """At least a tenth of the level, of hits and of misses."""
        return min(max(mean, 0.1 * level), 1.0 - 0.1 * (1.0 - level))

    def normaliser(self, ratio: float, mean: float) -> float:
        """Log of the mean of `ratio ** x`."""
        return log(1.0 - mean + ratio * mean)

    def units(self, n: float, mean: float) -> float:
        """The trials."""
        return n

    def ratio(self, k: float, n: float, expected: float) -> float:
        """Odds now over odds expected."""
        return (k + 0.5) / (n - k + 0.5) * (n - expected + 0.5) / (expected + 0.5)


class Poisson:
    """Counts per hour; a trial is an hour of exposure."""

    def variance(self, mean: float) -> float:
        """Of the count of one hour."""
        return mean

    def within(self, mean: float, level: float) -> float:
        """At least a tenth of the level."""
        return max(mean, 0.1 * level)

    def normaliser(self, ratio: float, mean: float) -> float:
        """Log of the mean of `ratio ** x`."""
        return mean * (ratio - 1.0)

    def units(self, n: float, mean: float) -> float:
        """The events expected, and the one that is there."""
        return n * mean + 1.0

    def ratio(self, k: float, n: float, expected: float) -> float:
        """Rate now over rate expected."""
        return (k + 0.5) / (expected + 0.5)


FAMILIES: Final[dict[FamilyName, Family]] = {"binomial": Binomial(), "poisson": Poisson()}


class Cycle:
    """The baseline of one stream.

    Args:
        state: taken up and changed in place.
        family: `binomial` for rates, `poisson` for counts.
        memory_s: event time after which an hour weighs 1/e, seconds.

    Example:
        >>> base = Cycle(CycleState(), "binomial", memory_s=28 * 86_400.0)
        >>> for hour in range(24 * 3):
        ...     base.learn(hour, 60 if 8 <= hour % 24 < 20 else 30, 100)
        >>> rates = [(base.expect(24 * 3 + hour), round(base.state.rate, 2))[1] for hour in (2, 14)]
        >>> rates
        [0.32, 0.58]
    """

    def __init__(self, state: CycleState, family: FamilyName, memory_s: float) -> None:
        self.state = state
        self.family = FAMILIES[family]
        self.memory_h = memory_s / HOUR_S

    def learn(self, slot: int, k: float, n: float) -> None:
        """Learn from one hour.

        Args:
            slot: hours since the epoch; ascends.
            k: hits in that hour; for counts events.
            n: trials; for counts hours.
        """
        if n <= 0:
            return
        if self.state.slot != slot:
            self.expect(slot)
        if self.state.fit.hours >= GUARD_H:
            expected = n * self.state.rate
            variance = n * self.family.variance(self.state.rate)
            limit = CLIP_SD * sqrt(self._total_variance(variance, n))
            if abs(k - expected) > IGNORE * limit:
                return
            k = min(max(k, expected - limit), expected + limit)
        self.add(self.state.fit, slot, k, n)

    def add(self, fit: Fit, slot: int, k: float, n: float) -> None:
        """Enter one hour into a fit."""
        gram, score = _matrix(fit.gram), _vector(fit.score)
        fresh_hour = slot > fit.slot or not fit.hours
        self._age(fit, slot, gram, score)
        x = FEATURES[(slot + EPOCH_SHIFT_H) % WEEK_H]
        share = 1.0 / self._design_effect(n)
        gram += (n * share) * np.outer(x, x)
        score += (k * share) * x
        fit.gram, fit.score = _packed(gram), score.tobytes()
        fit.n += n
        fit.hours += fresh_hour
        fit.steady += fresh_hour

    def absorb(self, fresh: Fit, share: float = 1.0) -> None:
        """Take over what was held back, or a share of its weight, and empty it."""
        fit = self.state.fit
        if not fresh.hours:
            return
        new_hours = min(fresh.hours, max(fresh.slot - fit.slot, 0))
        gram, score = _matrix(fit.gram), _vector(fit.score)
        self._age(fit, fresh.slot, gram, score)
        fit.gram = _packed(gram + share * _matrix(fresh.gram))
        fit.score = (score + share * _vector(fresh.score)).tobytes()
        fit.n += share * fresh.n
        fit.hours += new_hours
        fit.steady += new_hours
        clear(fresh)

    def replace(self, fresh: Fit) -> None:
        """Accept `fresh` as the new normal; of the old one the cycle stays, at `KEPT_CYCLE` of its weight."""
        fit, family = self.state.fit, self.family
        spread = family.variance(_level(fresh, family)) / family.variance(_level(fit, family))
        old = Fit(fit.gram, fit.score, fit.n, fit.hours, fit.steady, fit.slot)
        gram, score = _matrix(old.gram) * KEPT_CYCLE, _vector(old.score) * KEPT_CYCLE
        self._age(old, fresh.slot, gram, score)
        _forget_level(gram, score)
        score *= spread
        fit.gram = _packed(gram + _matrix(fresh.gram))
        fit.score = (score + _vector(fresh.score)).tobytes()
        fit.n, fit.slot, fit.steady = fresh.n, fresh.slot, fresh.hours
        fit.hours += fresh.hours
        clear(fresh)
        self.state.at_n, self.state.slot = 0.0, -1
        self.expect(fit.slot)

    def expect(self, slot: int) -> None:
        """Bring `rate` and `error` up to date for an hour (hours since the epoch)."""
        state = self.state
        grown = state.fit.n > state.at_n * 1.03
        if grown or (state.at_n and state.fit.slot - state.solved >= SOLVE_H):
            self._solve()
        state.slot = slot
        if not state.at_n:
            return
        x = FEATURES[(slot + EPOCH_SHIFT_H) % WEEK_H].copy()
        x[TREND] = min(slot - state.solved, AHEAD_H) / WEEK_H
        theta = _vector(state.theta)
        state.rate = self.family.within(float(x @ theta), _level(state.fit, self.family))
        state.error = sqrt(max(float(x @ _matrix(state.cover) @ x), 0.0))

    def error_over(self, slot: int, hours: int) -> float:
        """Standard error of the expected rate averaged over hours: what is off by day only averages out over days.

        Args:
            slot: the last of them, hours since the epoch.
            hours: how many, at most a week counts.
        """
        state = self.state
        if not state.at_n:
            return state.error
        hours = min(max(hours, 1), WEEK_H)
        last = (slot + EPOCH_SHIFT_H) % WEEK_H + WEEK_H
        x = (SUMS[last + 1] - SUMS[last + 1 - hours]) / hours
        x[TREND] = (min(slot - state.solved, AHEAD_H) - (hours - 1) / 2) / WEEK_H
        return sqrt(max(float(x @ _matrix(state.cover) @ x), 0.0))

    def _age(self, fit: Fit, slot: int, gram: Vector, score: Vector) -> None:
        """Fade up to `slot`, and let the trend count from there; `gram` and `score` are changed in place."""
        passed = slot - fit.slot
        if fit.hours and passed > 0:
            fade = exp(-passed / self.memory_h)
            gram *= fade
            score *= fade
            fit.n *= fade
            step = passed / WEEK_H
            gram[TREND] -= step * gram[LEVEL]
            gram[:, TREND] -= step * gram[:, LEVEL]
            score[TREND] -= step * score[LEVEL]
        fit.slot = max(fit.slot, slot)

    def _solve(self) -> None:
        """Coefficients and covariance, each group shrunk by the evidence for it."""
        state = self.state
        gram, score = _matrix(state.fit.gram), _vector(state.fit.score)
        used = self._used()
        noise = self.family.variance(_level(state.fit, self.family))
        prior = np.full(SIZE, 1.0 / (noise * WEAK_SD**2))
        prior[LEVEL] = 0.0
        prior[TREND] = 1.0 / (noise * TREND_SD**2)
        whole = gram[np.ix_(used, used)] + np.diag(prior[used])
        cover = np.linalg.inv(whole)
        shrunk = whole + _shrinkage(used, cover @ score[used], cover, noise)
        cover = np.linalg.inv(shrunk)
        theta, whole_cover = np.zeros(SIZE), np.zeros((SIZE, SIZE))
        theta[used] = cover @ score[used]
        whole_cover[np.ix_(used, used)] = noise * cover
        state.theta, state.cover = theta.tobytes(), _packed(whole_cover)
        state.at_n, state.solved = state.fit.n, state.fit.slot

    def _used(self) -> list[int]:
        fit = self.state.fit
        known = [fit.steady if group == (TREND,) else fit.hours for group in GROUPS]
        enough = [hours >= after for hours, after in zip(known, AFTER_H, strict=True)]
        return [LEVEL, *(i for group, use in zip(GROUPS, enough, strict=True) if use for i in group)]

    def measure(self, k: float, n: float) -> None:
        """Learn from a whole hour how far hours vary beyond chance.

        Method of moments for the variance beyond the family's (McCullagh & Nelder 1989, ch. 4.5). Only what passes
        three standard errors (of a binomial or Poisson square) counts: a clean stream shall not pay for noise. An hour
        far off is cut, so that a single burst says little.

        Args:
            k: all hits of the hour that `expect` was asked for, learnt or held back; a part would be a biased one,
                because what is held back begins with misses and ends with a hit.
            n: all its trials.
        """
        state = self.state
        if state.fit.hours < GUARD_H or n <= 0:
            return
        expected, variance = n * state.rate, n * self.family.variance(state.rate)
        others = self.family.units(n, state.rate) - 1.0
        if others <= 0:
            return
        known = variance + (n * state.error) ** 2
        squared = min((k - expected) ** 2, CLUMP_SD**2 * self._total_variance(variance, n))
        fade = exp(-1.0 / self.memory_h)
        state.excess = state.excess * fade + squared - known
        state.spread = state.spread * fade + variance * others
        state.doubt = state.doubt * fade + 2.0 * known * known + variance
        state.measured = min(state.measured + 1, MEASURED_H)
        if state.measured >= MEASURED_H:
            state.clump = max(0.0, state.excess - CLUMP_SURE * sqrt(state.doubt)) / state.spread

    def _design_effect(self, n: float) -> float:
        """By how much `n` trials of one hour count less than independent ones (Kish 1965)."""
        return 1.0 + max(self.family.units(n, self.state.rate) - 1.0, 0.0) * self.state.clump

    def _total_variance(self, variance: float, n: float) -> float:
        return variance * self._design_effect(n) + (n * self.state.error) ** 2


def clear(fit: Fit) -> None:
    """Empty a fit."""
    fit.gram, fit.score = _zeros(PACKED), _zeros(SIZE)
    fit.n, fit.hours, fit.steady, fit.slot = 0.0, 0, 0, 0


def sound(state: CycleState | Fit) -> bool:
    """Whether all arrays have the size that they must have."""
    if isinstance(state, CycleState):
        return sound(state.fit) and (len(state.theta), len(state.cover)) == (8 * SIZE, 8 * PACKED)
    return (len(state.gram), len(state.score)) == (8 * PACKED, 8 * SIZE)


def _level(fit: Fit, family: Family) -> float:
    """Hits over trials of a fit, shrunk a little to one half (Jeffreys), so that no rate is ever 0 or 1."""
    k, n = struct.unpack_from("<d", fit.score)[0], struct.unpack_from("<d", fit.gram)[0]
    return float((k + PRIOR) / (n + family.units(2 * PRIOR, 0.0)))


def _shrinkage(used: list[int], theta: Vector, cover: Vector, noise: float) -> Vector:
    """Prior precision of every group but the level: its covariance times the evidence beyond chance."""
    prior = np.zeros((len(used), len(used)))
    place = {name: i for i, name in enumerate(used)}
    for group in GROUPS:
        if group[0] not in place:
            continue
        at = [place[i] for i in group]
        information = np.linalg.inv(cover[np.ix_(at, at)])
        strength = float(theta[at] @ information @ theta[at]) / (noise * len(at))
        prior[np.ix_(at, at)] = information / (strength - 1.0 if strength > CHANCE else 1e-3)
    return prior


def _forget_level(gram: Vector, score: Vector) -> None:
    """Marginalise the level and the trend out: what remains says only how hours differ from each other."""
    for i in (TREND, LEVEL):
        if gram[i, i] <= 0.0:
            continue
        column = gram[:, i] / gram[i, i]
        score -= column * score[i]
        gram -= np.outer(column, gram[i])


def _matrix(data: bytes) -> Vector:
    full = np.zeros((SIZE, SIZE))
    full[LOWER] = np.frombuffer(data, dtype="<f8")
    full.T[LOWER] = full[LOWER]
    return full


def _packed(matrix: Vector) -> bytes:
    return matrix[LOWER].astype("<f8").tobytes()


def _vector(data: bytes) -> Vector:
    return np.frombuffer(data, dtype="<f8").copy()

"""Evidence for a change of a rate, with onset, size and their intervals.

`Mixture` is an e-detector (Shin, Ramdas & Rinaldo 2022, "E-detectors: a nonparametric framework for sequential
change detection"): for each of several effect sizes a Shiryaev-Roberts statistic (Shiryaev 1963; Roberts 1966), mixed
with fixed weights. If the baseline is known, the mean number of updates to a false alarm is at least the limit that the
statistic is held against, whatever the weights. Beside it runs a CUSUM for each size (Page 1954): its last zero is the
likeliest onset for that size.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log
from typing import Final

import msgspec

from detectors._cycle import Family

MOST: Final = 1e250
"""A statistic stops growing here, far beyond any threshold and short of overflow."""
MOST_NATS: Final = 100.0
"""Evidence that one observation can bring."""
POINTS: Final = 24
"""Points that the recent past is kept in."""
KEEP: Final = 18
"""Points left when they are used up: the older, the farther apart."""
APART: Final = 3.0
"""A point is as far from the next as from now, divided by this."""
STEP_N: Final = 12.0
"""Trials between two new points."""
MISS_NATS: Final = 3.7
"""The onset interval ends where evidence is this much less: -ln of 2.5 % on each side (Brownian limit)."""
CLEARLY_NATS: Final = 1.5
"""Another size than the main one must explain the data this much better to date the onset."""


class Mark(msgspec.Struct, array_like=True):
    """A moment, and what had been counted until then (hits, trials, hits expected)."""

    ts: float = 0.0
    k: float = 0.0
    n: float = 0.0
    expected: float = 0.0


class Change(msgspec.Struct, frozen=True):
    """What is known of a suspected change.

    Attributes:
        onset: likeliest event time of the change, seconds.
        first: earliest event time that is as good as that, at 95 %.
        last: latest one.
        k: hits since the onset.
        n: trials since then.
        expected: hits that the baseline expected since then.
        gain: log-likelihood gained by the change over no change, at the size that fits best, nats.
    """

    onset: float
    first: float
    last: float
    k: float
    n: float
    expected: float
    gain: float


class MixtureState(msgspec.Struct, array_like=True):
    """State of `Mixture`.

    Attributes:
        ratio: Shiryaev-Roberts statistic of each alternative.
        page: CUSUM of each alternative, nats.
        starts: when that CUSUM last was zero.
        now: counts up to now.
        path: the recent past, oldest first.
        alarm: alternative that alarmed; -1 while none has.
        back: evidence that the old level has returned, nats.
    """

    ratio: list[float]
    page: list[float]
    starts: list[Mark]
    now: Mark = msgspec.field(default_factory=Mark)
    path: list[Mark] = []
    alarm: int = -1
    back: float = 0.0

    @classmethod
    def of(cls, size: int) -> MixtureState:
        """Return the state at the start, for so many alternatives."""
        return cls([0.0] * size, [0.0] * size, [Mark() for _ in range(size)])


class Mixture:
    """Weighs no change against several sizes of change; knows no threshold.

    Args:
        family: distribution of the observations.
        ratios: multiples of the odds (for counts: of the rate), one for each alternative; the one with most weight is
            the main one.
        weights: of the alternatives; they sum up to 1.
        state: taken up and changed in place.

    """

    def __init__(self, family: Family, ratios: Sequence[float], weights: Sequence[float], state: MixtureState) -> None:
        self.family = family
        self.ratios = ratios
        self.logs = [log(ratio) for ratio in ratios]
        self.weights = weights
        self.state = state
        self.main = max(range(len(weights)), key=weights.__getitem__)

    @property
    def statistic(self) -> float:
        """Natural log of the mixed statistic, nats."""
        return log(self.total() or 1e-300)

    def total(self) -> float:
        """The mixed statistic on the linear scale, added up as `advance` does, so that a restored one is the same."""
        total = 0.0
        for weight, value in zip(self.weights, self.state.ratio, strict=True):
            total += weight * value
        return total

    @property
    def best(self) -> int:
        """The alternative that explains the data best; the main one unless another is clearly better."""
        if self.state.alarm >= 0:
            return self.state.alarm
        page = self.state.page
        top = max(range(len(page)), key=page.__getitem__)
        return top if page[top] > page[self.main] + CLEARLY_NATS else self.main

    def advance(
        self, ts: float, k: float, n: float, expected: float, normalisers: Sequence[float], weight: float = 1.0
    ) -> float:
        """Take one observation; the statistic on the linear scale.

        Args:
            ts: event time, seconds.
            k: hits.
            n: trials.
            expected: hits that the baseline expected.
            normalisers: log-normaliser of one trial under the baseline, one for each alternative (or more), nats.
            weight: what the observation counts for, 1 if its trials are independent.
        """
        state = self.state
        ratio, page, weights = state.ratio, state.page, self.weights
        total = 0.0
        for i, log_ratio in enumerate(self.logs):
            llr = (k * log_ratio - n * normalisers[i]) * weight
            value = (ratio[i] + 1.0) * exp(llr if llr < MOST_NATS else MOST_NATS)
            ratio[i] = value = value if value < MOST else MOST
            total += weights[i] * value
            height = page[i] + llr
            if height <= 0.0:
                page[i] = 0.0
                continue
            if not page[i]:
                now = state.now
                state.starts[i] = Mark(ts, now.k, now.n, now.expected)
            page[i] = height
        self._record(ts, k, n, expected)
        return total

    def follow(self, ts: float, k: float, n: float, expected: float) -> None:
        """Take one observation while alarmed: counts go on, the onset stays."""
        self._record(ts, k, n, expected)

    def change(self) -> Change:
        """Date and size what is suspected."""
        state = self.state
        start, now = state.starts[self.best], state.now
        k, n, expected = now.k - start.k, now.n - start.n, now.expected - start.expected
        gain = self._gain(k, n, expected)
        first, last = self._interval(start, gain)
        return Change(start.ts, first, last, k, n, expected, gain)

    def mark(self, ts: float) -> Mark:
        """What had been counted by `ts` (event time, seconds): between the points remembered in proportion."""
        after = self.state.now
        for before in reversed(self.state.path):
            if before.ts <= ts:
                span_s = after.ts - before.ts
                part = (ts - before.ts) / span_s if span_s > 0.0 else 0.0
                return Mark(
                    ts, *(old + part * (new - old) for old, new in zip(_counts(before), _counts(after), strict=True))
                )
            after = before
        return after

    def clear(self) -> None:
        """Zero all evidence and end the alarm."""
        state = self.state
        size = len(state.ratio)
        state.ratio, state.page = [0.0] * size, [0.0] * size
        state.alarm, state.back = -1, 0.0

    def _record(self, ts: float, k: float, n: float, expected: float) -> None:
        now, path = self.state.now, self.state.path
        if not path or now.n - path[-1].n >= STEP_N:
            path.append(Mark(ts, now.k, now.n, now.expected))
            if len(path) > POINTS:
                self.state.path = _thinned(path)
        now.k += k
        now.n += n
        now.expected += expected

    def _interval(self, start: Mark, gain: float) -> tuple[float, float]:
        """Event times from which on a change, of whatever size, explains the data nearly as well."""
        now = self.state.now
        marks = sorted([*self.state.path, start], key=lambda mark: mark.ts)
        gains = [self._gain(now.k - mark.k, now.n - mark.n, now.expected - mark.expected) for mark in marks]
        enough = max(gain, *gains) - MISS_NATS
        good = [i for i, each in enumerate(gains) if each >= enough]
        # Between two points nothing is known, so the interval reaches to the next point that is not as good.
        return marks[max(good[0] - 1, 0)].ts, marks[min(good[-1] + 1, len(marks) - 1)].ts

    def _gain(self, k: float, n: float, expected: float) -> float:
        if n <= 0 or expected <= 0:
            return 0.0
        ratio = self.family.ratio(k, n, expected)
        return max(0.0, k * log(ratio) - n * self.family.normaliser(ratio, expected / n))


def _counts(mark: Mark) -> tuple[float, float, float]:
    return mark.k, mark.n, mark.expected


def _thinned(path: list[Mark]) -> list[Mark]:
    """The newest points, and older ones at growing distances."""
    newest = path[-1]
    kept = [newest]
    for mark in reversed(path):
        last = kept[-1]
        if last.n - mark.n >= max(STEP_N, (newest.n - last.n) / APART):
            kept.append(mark)
    return kept[KEEP - 1 :: -1]

"""The tests behind `data_trust`: each accumulates evidence that a share has jumped, not that it has moved.

What people do moves shares by half or doubles them; what breaks a tag takes an event away altogether. So the
alternative is far off (a twentieth of what was, odds times `FLOOD`, a tenth more of all), and a share that goes only
half the way is evidence against it. The sums are CUSUMs (Page 1954) of log-likelihood ratios, divided by how much more
the counts vary than binomial ones.
"""

from __future__ import annotations

from math import exp, log
from typing import Final, Literal

import msgspec

GONE: Final = 0.05
"""What stops keeps this part of its share; the evidence turns at about 0.3."""
FLOOD: Final = 4.0
"""What floods has its odds multiplied by this; the evidence turns at about 2."""
JUMP: Final = 0.15
"""A bad share rises by this at least; the evidence turns at about a third of it."""
LEAST_K: Final = 30.0
"""Cases known before anything is called gone."""
LEAST_N: Final = 100.0
"""Trials known before a share is called risen."""
MOST_MASS: Final = 20.0
QUIET_NATS: Final = 1.0
"""With more evidence than this a window is not learnt from."""
MOST_SPREAD: Final = 60.0
SPREAD_PRIOR: Final = 2.0
"""Spread that is believed in at first: events come in sessions, and those of one are alike …"""
SPREAD_WEIGHT: Final = 5.0
"""… as if so much variance had been seen."""
CORRELATED: Final = 3.0
"""Windows next to each other hold the same sessions, so that sums vary more than the windows do."""

Side = Literal["gone", "flood", "jump"]


class Jump(msgspec.Struct, array_like=True):
    """One share, its baseline and the evidence against it.

    Attributes:
        k: cases known, faded.
        n: trials known, faded.
        squares: squared residuals and binomial variances, both faded.
        stat: evidence, nats.
        since: event time at which it began to rise, seconds.
        k_since: cases since.
        n_since: trials since.
        back: evidence that the old share is back, nats.
        mass: evidence that far more come, nats; of what can be gone.
    """

    k: float = 0.0
    n: float = 0.0
    squares: tuple[float, float] = (SPREAD_PRIOR * SPREAD_WEIGHT, SPREAD_WEIGHT)
    stat: float = 0.0
    since: float = 0.0
    k_since: float = 0.0
    n_since: float = 0.0
    back: float = 0.0
    mass: float = 0.0

    @property
    def share(self) -> float:
        """Baseline share."""
        return (self.k + 0.5) / (self.n + 1.0)

    @property
    def spread(self) -> float:
        """How many times more the counts vary than binomial ones; at least 1."""
        beyond_chance = max(0.0, self.squares[0] / self.squares[1] - 1.0)
        return min(MOST_SPREAD, 1.0 + CORRELATED * beyond_chance)

    @property
    def expected(self) -> float:
        """Cases expected since the evidence began to rise."""
        return self.share * self.n_since

    def knows(self, side: Side) -> bool:
        """Whether enough is known to judge."""
        return self.k >= LEAST_K and self.n >= LEAST_K if side == "gone" else self.n >= LEAST_N

    def weigh(self, side: Side, k: float, n: float) -> float:
        """Log-likelihood ratio of `k` of `n` under the far alternative over the baseline, nats."""
        p0 = min(max(self.share, 1e-4), 1.0 - 1e-4)
        p1 = alternative(side, p0)
        return (k * log(p1 / p0) + (n - k) * log((1.0 - p1) / (1.0 - p0))) / self.spread

    def observe(self, side: Side, ts: float, k: float, n: float, keep: float, alarmed: bool) -> None:
        """Take up `k` of `n` at event time `ts`; `keep`: what is left of what was known before."""
        if n <= 0.0:
            return
        if not self.knows(side):
            self._learn(k, n, keep)
            return
        nats = self.weigh(side, k, n)
        self.back = max(0.0, self.back - nats) if alarmed else 0.0
        if self.stat <= 0.0:
            self.since, self.k_since, self.n_since = ts, 0.0, 0.0
        self.k_since, self.n_since = self.k_since + k, self.n_since + n
        self.stat = max(0.0, self.stat + nats)
        self._note_mass(side, k, n)
        if self.stat <= QUIET_NATS and self.mass <= QUIET_NATS and not alarmed:
            self._learn(k, n, keep)

    def _note_mass(self, side: Side, k: float, n: float) -> None:
        """What comes in masses for some hours is not learnt, so not missed afterwards: errors of an outage, a burst."""
        if side == "gone":
            self.mass = min(MOST_MASS, max(0.0, self.mass + self.weigh("flood", k, n)))

    def settle(self) -> None:
        """The evidence is spent: the old share is back."""
        self.stat = self.back = 0.0

    def accept(self) -> None:
        """What is since the evidence began is the new normal."""
        self.k, self.n = self.k_since, self.n_since
        self.settle()

    def _learn(self, k: float, n: float, keep: float) -> None:
        p = self.share
        if self.n >= LEAST_K:
            total, count = self.squares
            variance = n * p * (1.0 - p)
            self.squares = (total * 0.9995 + (k - n * p) ** 2, count * 0.9995 + variance)
        self.k, self.n = self.k * keep + k, self.n * keep + n


def alternative(side: Side, p0: float) -> float:
    """The share that a broken tag would have.

    >>> [round(alternative(side, 0.2), 3) for side in ("gone", "flood", "jump")]
    [0.01, 0.5, 0.6]
    """
    if side == "gone":
        return GONE * p0
    if side == "flood":
        return FLOOD * p0 / (1.0 + (FLOOD - 1.0) * p0)
    return min(max(3.0 * p0, p0 + JUMP), (1.0 + p0) / 2.0)


def faded(step_s: float, memory_s: float) -> float:
    """What is left of a count after some seconds of event time."""
    return exp(-max(0.0, step_s) / memory_s)

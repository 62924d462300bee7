"""What is normal, where it differs from stratum to stratum: rates learnt per stratum, forgotten slowly.

A `RateTable` is plain data: hits and trials per stratum (score bin). A detector keeps two: the baseline,
and beside it a fresh one that takes what was seen since a change was suspected. The fresh table flows into the baseline
when the suspicion passes, is dropped when an alarm resolves, and replaces the baseline when a new level is accepted. So
the baseline never learns from the change that it has to show, and the detector is never blind.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, sqrt
from typing import Final, Literal, TypeAlias

import msgspec

Side: TypeAlias = Literal["down", "up"]
HOURS: Final = 24
HOUR_S: Final = 3600.0
DAY_S: Final = 86_400.0
PRIOR: Final = 0.5
"""Pseudo-counts of hits and of misses in each level (Jeffreys' Beta prior): a rate is never exactly 0 or 1."""
REFRESH_GROWTH: Final = 1.01
"""Derived figures are computed anew when the data behind them grew by this factor."""
EMPTY: Final = -1
MANY: Final = -2


class RateTable(msgspec.Struct):
    """Hits and trials per stratum, as data. Counts are floats because forgetting makes them fractions.

    Attributes:
        k: hits per stratum.
        n: trials per stratum.
        sum_k: all hits.
        sum_n: all trials.
        extras: further sums over all strata, such as steps that showed each micro-signal.
        only: the one stratum that holds data, `EMPTY` or `MANY`; most suspicions end within an hour, and then this
            saves the walk over all strata.
    """

    k: list[float]
    n: list[float]
    sum_k: float = 0.0
    sum_n: float = 0.0
    extras: list[float] = []
    only: int = EMPTY

    @classmethod
    def sized(cls, strata: int, extras: int = 0) -> RateTable:
        """Return an empty table.

        Args:
            strata: number of strata.
            extras: number of further sums.
        """
        return cls(k=[0.0] * strata, n=[0.0] * strata, extras=[0.0] * extras)

    def learn(self, stratum: int, k: float, n: float, extras: Sequence[int] = ()) -> None:
        """Add `k` hits out of `n` trials to one stratum."""
        self.k[stratum] += k
        self.n[stratum] += n
        self.sum_k += k
        self.sum_n += n
        if self.only != stratum:
            self.only = stratum if self.only == EMPTY else MANY
        if extras:
            for i, value in enumerate(extras):
                self.extras[i] += value

    def absorb(self, other: RateTable) -> None:
        """Add all that another table holds, and empty that one."""
        if other.only == EMPTY:
            return
        strata = range(len(other.n)) if other.only == MANY else (other.only,)
        for i in strata:
            self.k[i] += other.k[i]
            self.n[i] += other.n[i]
        self.sum_k += other.sum_k
        self.sum_n += other.sum_n
        self.only = other.only if self.only in (EMPTY, other.only) else MANY
        for i, value in enumerate(other.extras):
            self.extras[i] += value
        other.clear()

    def clear(self) -> None:
        """Forget everything."""
        for i in range(len(self.n)) if self.only == MANY else (self.only,):
            self.k[i] = self.n[i] = 0.0
        self.sum_k = self.sum_n = 0.0
        if self.extras:
            self.extras = [0.0] * len(self.extras)
        self.only = EMPTY

    def fade(self, factor: float) -> None:
        """Multiply all counts by `factor` (forgetting)."""
        self.k = [value * factor for value in self.k]
        self.n = [value * factor for value in self.n]
        self.extras = [value * factor for value in self.extras]
        self.sum_k *= factor
        self.sum_n *= factor

    @property
    def level(self) -> float:
        """The rate over all strata, shrunk a little to one half."""
        return (self.sum_k + PRIOR) / (self.sum_n + 2 * PRIOR)

    @property
    def error(self) -> float:
        """Standard error of `level`."""
        level = self.level
        return sqrt(level * (1.0 - level) / (self.sum_n + 2 * PRIOR))


def fade_over(table: RateTable, slots: int, memory_slots: float) -> None:
    """Forget exponentially.

    Args:
        table: faded in place.
        slots: time steps (hours, days) that went by.
        memory_slots: time steps after which 1/e of a count is left.
    """
    if slots > 0:
        table.fade(exp(-slots / memory_slots))

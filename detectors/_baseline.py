"""What is normal: rates learnt per stratum, forgotten slowly.

A `RateTable` is plain data: hits and trials per stratum (hour of day, score bin). A detector keeps two: the baseline,
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
KERNEL: Final = ((0, 1.0), (-1, 2 / 3), (1, 2 / 3), (-2, 1 / 3), (2, 1 / 3))
"""Neighbouring hours lend their counts, because daily cycles are smooth."""
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


class HourlyState(msgspec.Struct):
    """State of `HourlyRate`; see there.

    Attributes:
        table: counts per hour of day, UTC.
        slot: last hour learnt from, hours since the epoch.
        hour: hour of day that `rate` is for; -1 before the first.
        at_n: trials known when `rate` was computed.
        rate: expected rate in `hour`.
        error: standard error of `rate`.
    """

    table: RateTable
    slot: int = 0
    hour: int = -1
    at_n: float = 0.0
    rate: float = 0.0
    error: float = 0.0


class HourlyRate:
    """A rate with a daily cycle: level plus an adjustment for each hour of day.

    An hour's adjustment is its mean residual over itself and its two neighbours on either side (triangular weights),
    shrunk towards 0 as if `prior_n` trials had shown none (empirical Bayes, Efron & Morris 1975). So it is flat while
    data are few and follows the cycle when they are many. Counts fade with `memory_s`.

    Args:
        state: taken up and changed in place.
        memory_s: event time after which 1/e of a count is left, seconds.
        prior_n: trials' worth of belief that an hour is like the others.
    """

    def __init__(self, state: HourlyState, memory_s: float, prior_n: float) -> None:
        self.state = state
        self.memory_h = memory_s / HOUR_S
        self.prior_n = prior_n

    def learn(self, ts: float, k: int, n: int, extras: Sequence[int] = ()) -> None:
        """Learn from `k` hits out of `n` trials at event time `ts` (seconds since the epoch)."""
        self._tick(ts)
        self.state.table.learn(int(ts // HOUR_S) % HOURS, k, n, extras)

    def absorb(self, ts: float, fresh: RateTable) -> None:
        """Take over what was held back in `fresh` until event time `ts`, and empty it."""
        self._tick(ts)
        self.state.table.absorb(fresh)

    def replace(self, fresh: RateTable) -> None:
        """Accept `fresh` as the new normal."""
        self.state.table = fresh
        self.state.hour = -1

    def refresh(self, ts: float) -> bool:
        """Bring `state.rate` up to date for event time `ts`; False if it was."""
        state = self.state
        hour = int(ts // HOUR_S) % HOURS
        if hour == state.hour and state.table.sum_n <= state.at_n * REFRESH_GROWTH:
            return False
        state.hour, state.at_n = hour, state.table.sum_n
        state.rate, state.error = self._expected(hour)
        return True

    def _expected(self, hour: int) -> tuple[float, float]:
        """The rate in `hour` and its standard error: that of the level and the posterior one of the adjustment."""
        table = self.state.table
        level = table.level
        residual = 0.0
        trials = self.prior_n
        for offset, weight in KERNEL:
            i = (hour + offset) % HOURS
            residual += weight * (table.k[i] - level * table.n[i])
            trials += weight * table.n[i]
        rate = min(max(level + residual / trials, 0.1 * level), 1.0 - 0.1 * (1.0 - level))
        return rate, sqrt(table.error**2 + level * (1.0 - level) / trials)

    def _tick(self, ts: float) -> None:
        """Fade once an hour only: it walks over all strata."""
        slot = int(ts // HOUR_S)
        if slot > self.state.slot:
            fade_over(self.state.table, slot - self.state.slot, self.memory_h)
            self.state.slot = slot

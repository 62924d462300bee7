"""False engagement: more time with less progress.

Long dwell looks like interest, and up to a point it is: who stays longer, progresses more often. Past that point people
are stuck. `Engagement` learns progress by dwell, finds the dwell with most progress, and says how sure it is that those
who dwell longest progress less than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import exp, log, log2
from typing import Annotated, Final

import msgspec
from pydantic import Field

from detectors._base import Params
from detectors._baseline import DAY_S, PRIOR, REFRESH_GROWTH, RateTable, fade_over
from detectors._intervals import wilson
from detectors._onsets import Cohort

PER_OCTAVE: Final = 8
SHORTEST: Final = -2
"""Dwell below 2^-2 seconds falls into the first bin …"""
OCTAVES: Final = 20
"""… and above 2^18 seconds, three days, into the last."""
BINS: Final = PER_OCTAVE * OCTAVES
GROUPS: Final = 10
TOP: Final = GROUPS - 1
SHRINK_N: Final = 50.0
"""Cases' worth of belief that a group progresses like all."""


class EngagementParams(Params):
    """Parameters of `Engagement`."""

    run_length: Annotated[float, Field(gt=1)] = Field(10_000, description="comparisons between two false alarms, on"
                                                      " average")  # fmt: skip
    warmup_n: Annotated[float, Field(gt=0)] = Field(1000, description="cases to learn before it compares")
    memory_s: Annotated[float, Field(gt=0)] = Field(90 * DAY_S, description="event time after which 1/e of a count is"
                                                    " left, seconds")  # fmt: skip


class Comparison(msgspec.Struct, array_like=True):
    """Cases of the two groups compared, not yet weighed: trials and hits of the top and of the peak."""

    top_n: float = 0.0
    top_k: float = 0.0
    peak_n: float = 0.0
    peak_k: float = 0.0


class EngagementState(msgspec.Struct, array_like=True):
    """State of `Engagement`.

    Attributes:
        table: cases and hits by dwell bin.
        group: group of each bin, by tenths of the cases learnt; they and the next three stay as they are while a
            comparison is open.
        peak: middle of the groups with most progress, below the top; -1 before the warm-up is over.
        p_top: progress expected in the top group.
        p_peak: that expected in the peak.
        open: the comparison that waits for cases.
        ratio: statistic of the e-detector.
        day: last day learnt, days since the epoch.
        at_n: cases known when the groups were made.
    """

    table: RateTable
    group: list[int]
    peak: int = -1
    p_top: float = 0.0
    p_peak: float = 0.0
    open: Comparison = msgspec.field(default_factory=Comparison)
    ratio: float = 0.0
    day: int = 0
    at_n: float = 0.0

    @classmethod
    def of(cls) -> EngagementState:
        """Return the state at the start."""
        return cls(RateTable.sized(BINS), [0] * BINS)


class Group(msgspec.Struct, frozen=True):
    """A tenth of all cases, by dwell.

    Attributes:
        longest_s: dwell up to which it reaches, seconds.
        n: cases.
        rate: share of them that progressed.
        low: start of its 95 % interval.
        high: end of it.
    """

    longest_s: float
    n: float
    rate: float
    low: float
    high: float


class Engagement:
    """Progress by dwell, in tenths learnt on the way, and evidence that the longest dwell is false engagement.

    Dwell is counted in bins of 9 % width (as in DDSketch, Masson et al. 2019), so tenths can be read off at any time
    and no case is kept. Who is new is first compared, then learnt. Compared are the top tenth and the peak: the three
    neighbouring tenths below it with most progress, as known before. As soon as there are new cases of both, they
    multiply an e-value for "the top progresses no less" (Turner, Ly & Grünwald 2024, "Generic E-variables for exact
    sequential k-sample tests"), which goes into an e-detector (Shin, Ramdas & Rinaldo 2022). So it is no advantage to
    have been chosen as the peak, a rate that drifts for all does no harm, and where long dwell does not hurt, `found`
    turns true by chance no sooner than after `run_length` comparisons on average.

    Args:
        params: false alarms, warm-up, memory.
        state: taken up and changed in place; None starts anew.

    Raises:
        msgspec.ValidationError: the state is none of this measure.

    Example:
        >>> measure = Engagement(EngagementParams())
        >>> for i in range(12_000):
        ...     dwell_s = 1.0 + i * 7919 % 100
        ...     measure.learn(i * 60.0, dwell_s, i % 10 < (1 if dwell_s > 90 else 4 if dwell_s > 50 else 2))
        >>> measure.found, measure.groups()[-1].rate < 0.15 < 0.35 < measure.groups()[measure.peak].rate
        (True, True)
    """

    def __init__(self, params: EngagementParams, state: EngagementState | None = None) -> None:
        self.params = params
        self.state = state or EngagementState.of()
        if {len(self.state.table.n), len(self.state.table.k), len(self.state.group)} != {BINS}:
            raise msgspec.ValidationError("not a state of this measure: arrays of other sizes")

    @property
    def evidence(self) -> float:
        """That the longest dwell progresses less than shorter ones, nats; 0 or more."""
        return log(max(self.state.ratio, 1.0))

    @property
    def threshold(self) -> float:
        """Evidence from which on it counts as found, nats."""
        return log(self.params.run_length)

    @property
    def found(self) -> bool:
        """Whether there is false engagement."""
        return self.evidence >= self.threshold

    @property
    def peak(self) -> int:
        """Number of the middle one of the three groups with most progress, below the top; -1 while it only learns."""
        return self.state.peak

    @staticmethod
    def bin_of(dwell_s: float) -> int:
        """Bin of a dwell, seconds."""
        if dwell_s <= 2.0**SHORTEST:
            return 0
        return min(BINS - 1, int((log2(dwell_s) - SHORTEST) * PER_OCTAVE))

    def learn(self, ts: float, dwell_s: float, progressed: bool) -> None:
        """Compare, then learn, one case.

        Args:
            ts: event time, seconds since the epoch; ascends.
            dwell_s: how long, seconds.
            progressed: what became of it.
        """
        self.observe(ts, ((self.bin_of(dwell_s), 1, int(progressed)),))

    def observe(self, ts: float, cohorts: Sequence[Cohort]) -> None:
        """Compare, then learn, (dwell bin, cases, those that progressed) of event time `ts` (seconds)."""
        state = self.state
        day = int(ts // DAY_S)
        if state.day and day > state.day:
            fade_over(state.table, day - state.day, self.params.memory_s / DAY_S)
        state.day = max(day, state.day)
        for b, n, k in cohorts:
            if state.peak >= 0:
                self._put(state.group[b], n, k)
            state.table.learn(b, k, n)
        if state.peak < 0 or self._weigh():
            self._regroup()

    def groups(self) -> list[Group]:
        """The tenths as they are now, shortest dwell first; empty ones are left out."""
        table = self.state.table
        group = _grouped(table.n)
        found = []
        for g in range(GROUPS):
            bins = [b for b in range(BINS) if group[b] == g and table.n[b]]
            if bins:
                n, k = sum(table.n[b] for b in bins), sum(table.k[b] for b in bins)
                longest_s = 2.0 ** (SHORTEST + (bins[-1] + 1) / PER_OCTAVE)
                found.append(Group(longest_s, n, k / n, *wilson(k, n)))
        return found

    def _put(self, group: int, n: int, k: int) -> None:
        pair = self.state.open
        if group == TOP:
            pair.top_n, pair.top_k = pair.top_n + n, pair.top_k + k
        elif abs(group - self.state.peak) <= 1:
            pair.peak_n, pair.peak_k = pair.peak_n + n, pair.peak_k + k

    def _weigh(self) -> bool:
        """Weigh the open comparison if it has cases of both groups; whether none is open now."""
        state, pair = self.state, self.state.open
        if not (pair.top_n and pair.peak_n):
            return not (pair.top_n or pair.peak_n)
        factor = 0.0
        if state.p_top < state.p_peak:
            both = (pair.top_n * state.p_top + pair.peak_n * state.p_peak) / (pair.top_n + pair.peak_n)
            factor = _log_ratio(pair.top_k, pair.top_n, state.p_top, both)
            factor += _log_ratio(pair.peak_k, pair.peak_n, state.p_peak, both)
        most = self.params.run_length**2  # so that it can end again
        state.ratio = min((state.ratio + 1.0) * exp(factor), most)
        state.open = Comparison()
        return True

    def _regroup(self) -> None:
        """Make the groups and what is expected of them anew, if enough has been learnt since."""
        state, table = self.state, self.state.table
        grown = table.sum_n >= state.at_n * REFRESH_GROWTH or table.sum_n <= state.at_n / REFRESH_GROWTH
        if table.sum_n < self.params.warmup_n or not grown:
            return
        state.at_n = table.sum_n
        state.group = _grouped(table.n)
        k, n = [0.0] * GROUPS, [0.0] * GROUPS
        for b, group in enumerate(state.group):
            k[group] += table.k[b]
            n[group] += table.n[b]
        rates = {g: _shrunk(sum(k[g - 1 : g + 2]), sum(n[g - 1 : g + 2]), table.level) for g in range(1, TOP - 1)}
        state.peak = max(rates, key=rates.__getitem__)
        state.p_top, state.p_peak = _shrunk(k[TOP], n[TOP], table.level), rates[state.peak]


def _grouped(counts: Sequence[float]) -> list[int]:
    """Group of each bin: tenths by the rank of its middle."""
    total = sum(counts) + PRIOR
    ends = accumulate(counts)
    return [min(TOP, int((end - n / 2.0) / total * GROUPS)) for end, n in zip(ends, counts, strict=True)]


def _shrunk(k: float, n: float, level: float) -> float:
    return (k + SHRINK_N * level) / (n + SHRINK_N)


def _log_ratio(k: float, n: float, p: float, q: float) -> float:
    return k * log(p / q) + (n - k) * log((1.0 - p) / (1.0 - q))

"""Counts by day, and whether a share has moved since one of the last days: for changes too small for hours.

Whole days (UTC) are kept as they were counted, twelve weeks of them, and each day is compared with the same weekdays
before: so neither the daily nor the weekly cycle is a change, nothing is learnt from what has to be shown, and a
baseline never follows a slow loss. For each of the last weeks' days "it changed here" is weighed against "it did not"
as in `detectors._onsets`: the size has a half-normal prior (Robbins 1970), the error of the baseline is reckoned with,
and the sum over the days is a Shiryaev-Roberts statistic (Shin, Ramdas & Rinaldo 2022). What days vary beyond chance
is measured from the same weekdays of successive weeks (Pearson's statistic: McCullagh & Nelder 1989, ch. 4.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import exp, log, sqrt
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors._baseline import DAY_S, PRIOR
from detectors._intervals import Z95
from detectors._onsets import TAIL, Part

Array: TypeAlias = NDArray[Any]
WEEK: Final = 7
KEPT_DAYS: Final = 84
"""Whole days kept."""
ONSET_DAYS: Final = 35
"""Days back to which a change may have begun: longer ago is the baseline."""
MOST_SQUARES: Final = 6.25
"""Squared usual deviations at which a day, or a week, is cut when it is asked how far they vary beyond chance."""
CUT: Final = 0.971
"""Mean of a squared standard normal value that is cut there."""
MEDIAN: Final = 0.455
"""Median of a squared standard normal value."""
CHANCE_PRIOR: Final = 3.0
"""Differences' worth of belief that days and weeks vary by chance alone."""
UNSURE: Final = 2.0
"""Standard errors by which what goes beyond chance is taken for more than it seems, so that few days prove little."""
NO_ERROR: Final = float("inf")


class DaysState(msgspec.Struct, array_like=True):
    """Counts of whole days.

    Attributes:
        day: the running day, days since the epoch; -1 before the first.
        whole: whether the running day was seen from its beginning.
        running: its counts so far.
        rows: counts of the days before it, oldest first; empty for a day that is not known or does not count.
    """

    day: int = -1
    whole: bool = False
    running: list[int] = []
    rows: list[list[int]] = []


def take(state: DaysState, ts: float, counts: Sequence[int]) -> bool:
    """Add counts of event time `ts` (seconds, ascends); True if a day was over.

    Example:
        >>> days = DaysState()
        >>> [take(days, day * DAY_S, (1, 2)) for day in (0, 0.5, 1, 1.5, 2, 4)]
        [False, False, True, False, True, True]
        >>> days.rows, days.running
        ([[], [2, 4], [1, 2], []], [1, 2])
    """
    day = int(ts // DAY_S)
    over = day > state.day >= 0
    if over:
        missed = min(day - state.day - 1, KEPT_DAYS)
        state.rows = [*state.rows, state.running if state.whole else [], *[[]] * missed][-KEPT_DAYS:]
    if day > state.day:
        # What is seen first may be the evening of a day: it says nothing of that day.
        state.day, state.whole, state.running = day, over, [0] * len(counts)
    for i, count in enumerate(counts):
        state.running[i] += count
    return over


def table(state: DaysState, width: int) -> tuple[Array, Array]:
    """The whole days as numbers: (days by counts, oldest first), and each day's weekday; unknown days hold zeros."""
    zeros = [0] * width
    rows = np.array([row or zeros for row in state.rows], dtype=float).reshape(len(state.rows), width)
    first = state.day - len(state.rows)
    return rows, (np.arange(len(state.rows)) + first) % WEEK


class Since(msgspec.Struct, frozen=True):
    """What was counted since a supposed onset, against the same weekdays before it; one number for each column.

    Attributes:
        k: hits.
        n: trials.
        expected: hits that the days before promise.
        info: variance of the hits if each were one of its own; also hits gained by one unit of the log odds (for
            counts: of the log rate).
        variance: the same with the error of what was promised; without what days vary beyond chance.
        n_before: trials behind the promise.
    """

    k: Array
    n: Array
    expected: Array
    info: Array
    variance: Array
    n_before: Array

    def pooled(self, columns: Sequence[int] | None = None) -> tuple[float, float, float, float, float]:
        """Hits, trials, expected hits, information and variance, added up over columns."""
        chosen = slice(None) if columns is None else list(columns)
        k, n, expected, info, variance = (
            float(part[chosen].sum()) for part in (self.k, self.n, self.expected, self.info, self.variance)
        )
        return k, n, expected, info, variance

    def before(self, columns: Sequence[int], clump: float) -> tuple[float, float, float]:
        """Share promised on average over columns, with its 95 % interval."""
        _, n, expected, info, variance = self.pooled(columns)
        error = Z95 * sqrt(clump * max(variance - info, 0.0))
        return expected / n, max(0.0, (expected - error) / n), (expected + error) / n

    def after(self, columns: Sequence[int], clump: float) -> tuple[float, float, float]:
        """Share seen, with its 95 % interval."""
        k, n, _, info, _ = self.pooled(columns)
        error = Z95 * sqrt(clump * info)
        return k / n, max(0.0, (k - error) / n), (k + error) / n


class Days:
    """Hits out of trials by day, in one or several columns (stages).

    Args:
        k: days by columns, oldest first.
        n: the same.
        weekdays: of the days.
        counts: hits are counts without an upper limit (Poisson); else each trial is a hit or none.
    """

    def __init__(self, k: Array, n: Array, weekdays: Array, *, counts: bool = False) -> None:
        self.k, self.n = k, n
        self._weekdays = weekdays
        days = np.arange(len(weekdays))
        by_weekday = np.zeros((len(weekdays) + 1, WEEK, 2, k.shape[1]))
        by_weekday[days + 1, weekdays, 0], by_weekday[days + 1, weekdays, 1] = k, n
        self._sums = np.cumsum(by_weekday, axis=0)
        level = (k.sum(axis=0) + PRIOR) / (n.sum(axis=0) + 2 * PRIOR)
        self.unit = level if counts else level * (1.0 - np.minimum(level, 1.0))
        self.unit = np.maximum(self.unit, 1e-9)

    def since(self, onsets: Array | int) -> Since:
        """Compare the days from each of some onsets on (numbers of days) with those before it."""
        before_k, before_n = self._sums[onsets, :, 0], self._sums[onsets, :, 1]
        like = before_n > 0.0  # a weekday that was not seen before can't be compared
        after_k = (self._sums[-1, :, 0] - before_k) * like
        after_n = (self._sums[-1, :, 1] - before_n) * like
        whole = np.where(like, before_n, 1.0)
        n = after_n.sum(axis=-2)
        return Since(
            k=after_k.sum(axis=-2), n=n, expected=(after_n * before_k / whole).sum(axis=-2), info=self.unit * n,
            variance=self.unit * (after_n + after_n * after_n / whole).sum(axis=-2), n_before=before_n.sum(axis=-2),
        )  # fmt: skip

    def last(self, onset: int) -> Since:
        """Compare the last day alone with the days before an onset."""
        before_k, before_n = (self._sums[onset, self._weekdays[-1], i] for i in (0, 1))
        like = before_n > 0.0
        k, n, whole = self.k[-1] * like, self.n[-1] * like, np.where(like, before_n, 1.0)
        return Since(k, n, n * before_k / whole, self.unit * n, self.unit * (n + n * n / whole), before_n)

    def clumps(self, onsets: Array, columns: Sequence[int] | None = None) -> Array:
        """By what factor days, or weeks, vary more than chance, all columns together; 1 or more, for each onset.

        From differences between the same weekdays of successive weeks, and between whole weeks. Those that a change at
        the onset goes through are left out: else the change would excuse itself.
        """
        chosen = list(range(self.k.shape[1])) if columns is None else list(columns)
        k, n, unit = self.k[:, chosen], self.n[:, chosen], self.unit[chosen]
        days = _mean(_squares(k, n, unit, WEEK), np.arange(len(k) - WEEK), WEEK, onsets)
        whole, rest = divmod(len(k), WEEK)
        size = (whole, WEEK, len(chosen))
        k, n = k[rest:].reshape(size), n[rest:].reshape(size)
        # Weeks of which some days are not known are no weeks.
        full = (n.sum(axis=2) > 0.0).all(axis=1)[:, None]
        squares = _squares(k.sum(axis=1) * full, n.sum(axis=1) * full, unit, 1)
        starts = np.arange(len(squares)) * WEEK + rest
        weeks = _mean(squares, starts, 2 * WEEK - 1, onsets)
        most: Array = np.maximum(1.0, np.maximum(days, weeks))
        return most

    def clump(self, onset: int, columns: Sequence[int] | None = None) -> float:
        """The same for one onset."""
        return float(self.clumps(np.array([onset]), columns)[0])


class Found(msgspec.Struct, frozen=True):
    """What is suspected as of the last whole day.

    Attributes:
        statistic: over all onsets, nats.
        nats: evidence for the likeliest onset, nats.
        onset: that day, a number of the days compared.
        first: start of its 95 % interval.
        last: end of it.
    """

    statistic: float
    nats: float
    onset: int
    first: int
    last: int


def weigh(days: Days, part: Part, least_days: int, columns: Sequence[int] | None = None) -> Found | None:
    """Weigh all onsets; None while too few days are known.

    Args:
        days: counts.
        part: the change that is looked for, in units of the log odds (for counts: of the log rate).
        least_days: days that must lie before an onset.
        columns: those that are pooled; None for all.
    """
    total = len(days.k)
    onsets = np.arange(max(least_days, total - ONSET_DAYS), total)
    if not len(onsets):
        return None
    chosen = list(range(days.k.shape[1])) if columns is None else list(columns)
    since = days.since(onsets)
    gap = (since.k - since.expected)[:, chosen].sum(axis=1)
    info, variance = (one[:, chosen].sum(axis=1) for one in (since.info, since.variance))
    seen = (gap, info, variance, days.clumps(onsets, chosen))
    logs = [evidence(part, *each) for each in zip(*(one.tolist() for one in seen), strict=True)]
    top = max(logs)
    shares = [exp(each - top) for each in logs]
    sums = list(accumulate(shares))
    at = logs.index(top)
    first, last = (next(i for i, each in enumerate(sums) if each >= q * sums[-1]) for q in (TAIL, 1.0 - TAIL))
    start = int(onsets[0])
    return Found(top + log(sums[-1]), top, start + at, start + min(first, at), start + max(last, at))


def evidence(part: Part, gap: float, info: float, variance: float, clump: float) -> float:
    """Log likelihood ratio of a change of some size over none, nats.

    Args:
        part: side and typical size.
        gap: hits beyond the expected ones.
        info: see `Since`.
        variance: see `Since`.
        clump: what days vary beyond chance.
    """
    if info <= 0.0:
        return -log(2.0)
    share = info / (variance * clump)
    return part.log_ratio(gap * share, info * share, NO_ERROR)


def gain(gap: float, variance: float, clump: float) -> float:
    """The same at the size that fits best, without its prior, nats."""
    return 0.5 * gap * gap / (variance * clump) if variance > 0.0 else 0.0


def flat_nats(gap: float, moved: float, variance: float) -> float:
    """Evidence that hits did not move, over that they moved by `moved`, nats (Wald 1945).

    Args:
        gap: hits beyond the expected ones.
        moved: hits beyond the expected ones if they had moved.
        variance: of the gap.

    Example:
        >>> flat_nats(0.0, 30.0, 100.0), flat_nats(30.0, 30.0, 100.0), flat_nats(-30.0, 30.0, 100.0)
        (4.5, -4.5, 13.5)
    """
    return (moved * moved / 2.0 - gap * moved) / variance if variance > 0.0 else 0.0


def _squares(k: Array, n: Array, unit: Array, apart: int) -> Array:
    """Squared differences between rows so far apart, over their variance by chance, all columns together; or NaN."""
    both = (n[apart:] > 0.0) & (n[:-apart] > 0.0)
    n_after, n_before = np.where(both, n[apart:], 0.0), np.where(both, n[:-apart], 1.0)
    gap = np.where(both, k[apart:] - n_after * k[:-apart] / n_before, 0.0).sum(axis=1)
    variance = (unit * (n_after + n_after * n_after / n_before)).sum(axis=1)
    squares: Array = np.where(variance > 0.0, gap**2 / np.where(variance > 0.0, variance, 1.0), np.nan)
    return squares


def _mean(squares: Array, starts: Array, span: int, onsets: Array) -> Array:
    """Mean, with a margin, of the squares that no change at an onset goes through, for each onset; 1 or more.

    A few that are far off say little: a burst, or a break of long ago, is no day like others.

    Args:
        squares: differences squared.
        starts: the day after which a change would go through each.
        span: days from there on for which it would.
        onsets: days of the change.
    """
    known = ~np.isnan(squares)
    squares, starts = squares[known], starts[known]
    if not len(squares):
        return np.ones(len(onsets))
    usual = max(1.0, float(np.median(squares)) / MEDIAN)
    squares = np.minimum(squares, MOST_SQUARES * usual) / CUT
    clean = ~((onsets[:, None] > starts) & (onsets[:, None] <= starts + span))
    count = CHANCE_PRIOR + clean.sum(axis=1)
    excess = np.maximum((CHANCE_PRIOR + clean @ squares) / count - 1.0, 0.0)
    mean: Array = 1.0 + excess * (1.0 + UNSURE * np.sqrt(2.0 / count))
    return mean

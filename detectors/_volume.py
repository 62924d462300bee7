"""How many leads a day are called qualified: half of what an inflation is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from detectors._baseline import DAY_S, PRIOR, REFRESH_GROWTH, RateTable, fade_over
from detectors._onsets import Cell, Cohort, Onsets, OnsetsState, Part, Sums
from detectors._scores import (
    NAMED_NATS,
    RISE_MEMORY_S,
    SHIFT_SD,
    WEEKDAYS,
    Rise,
    ScoreDistribution,
    ScoreParams,
    add_cell,
)

WEEKDAY_PRIOR: Final = 2.0
"""Days' worth of belief that a weekday is like the others."""
NOT_WHOLE: Final = -1
MAX_GAP_DAYS: Final = 28
"""Days without any lead are counted as such up to this many."""


class VolumeState(msgspec.Struct, array_like=True):
    """State of `Volume`.

    Attributes:
        onsets: days that may hold the onset of a rise, leads as hits.
        base: leads and days per weekday.
        means: leads a day, expected per weekday.
        known: information behind them.
        spread: variance of the daily number over its mean, 1 or more.
        squares: squared residuals over their variance by Poisson's law, as (sum, number).
        day: the running day, days since the epoch; -1 before the first.
        count: leads in it; `NOT_WHOLE` on the first day.
        at_n: days known when `means` were computed.
    """

    onsets: OnsetsState
    base: RateTable
    means: list[float]
    known: float = PRIOR
    spread: float = 1.0
    squares: tuple[float, float] = (float(WEEKDAYS), float(WEEKDAYS))
    day: int = -1
    count: int = 0
    at_n: float = -1.0

    @classmethod
    def of(cls) -> VolumeState:
        """Return the state at the start."""
        return cls(OnsetsState.of(WEEKDAYS, True), RateTable.sized(WEEKDAYS), [0.0] * WEEKDAYS)


class Volume:
    """Whether more leads are called qualified a day than used to be, by weekday.

    It gives no alarm of its own: more leads are bad news only if fewer of them are accepted.

    Args:
        params: memory.
        state: taken up and changed in place.

    Raises:
        msgspec.ValidationError: the state is none of this test.
    """

    def __init__(self, params: ScoreParams, state: VolumeState) -> None:
        if not state.onsets.fits(WEEKDAYS, True) or {len(state.base.k), len(state.base.n), len(state.means)} != {
            WEEKDAYS
        }:
            raise msgspec.ValidationError("not a state of this test: arrays of other sizes")
        self.params = params
        self.state = state
        self.onsets = Onsets(state.onsets, (Part(1, SHIFT_SD),), self.weigh)

    def weigh(self, cell: Cell) -> Sums:
        """Leads beyond the expected ones; the size of a change is that of the log of the mean."""
        state = self.state
        expected = sum(days * mean for days, mean in zip(cell.n, state.means, strict=True))
        return (((sum(cell.k) - expected) / state.spread, expected / state.spread),)

    def observe(self, ts: float, leads: int) -> bool:
        """Count leads at event time `ts` (seconds); True if a day was over."""
        state, today = self.state, int(ts // DAY_S)
        if state.day < 0:
            state.day, state.count = today, NOT_WHOLE
        over = state.day < today
        while state.day < today:
            if state.count != NOT_WHOLE:
                self._close(state.day, state.count)
            state.day, state.count = max(state.day + 1, today - MAX_GAP_DAYS), 0
        if state.count != NOT_WHOLE:
            state.count += leads
        return over

    def rise(self) -> Rise | None:
        """Whether the number has risen, if evidence says so."""
        state = self.state
        if state.at_n < 0.0:
            return None
        change = self.onsets.change([state.known])
        if change.nats < NAMED_NATS:
            return None
        cells = [cell for cell in self.onsets.cells if cell.ts >= change.onset]
        days = sum(sum(cell.n) for cell in cells)
        after = sum(sum(cell.k) for cell in cells) / days
        expected = sum(n * mean for cell in cells for n, mean in zip(cell.n, state.means, strict=True)) / days
        return Rise(change.nats, change.statistic, change.onset, change.first, change.last, state.day * DAY_S,
                    expected, after, volume=True)  # fmt: skip

    def _close(self, day: int, count: int) -> None:
        """Take up a day that is over."""
        state, weekday = self.state, day % WEEKDAYS
        if state.base.sum_n < 2 * WEEKDAYS:
            state.base.learn(weekday, count, 1)
            return
        self._refresh()
        cell = Cell.empty(WEEKDAYS, WEEKDAYS)
        cell.ts, cell.looks = day * DAY_S, 1
        cell.n[weekday], cell.k[weekday] = 1, count
        self.onsets.keep(cell)
        state.onsets.ts = cell.ts + DAY_S
        fade_over(state.base, 1, self.params.memory_s / DAY_S)
        while sum(sum(each.n) for each in self.onsets.cells) > WEEKDAYS and not self._suspects_oldest():
            self._learn(self.onsets.pop())

    def _suspects_oldest(self) -> bool:
        cell = self.onsets.cells[0]
        young = self.state.onsets.ts - cell.ts < RISE_MEMORY_S
        return young and self.onsets.oldest(0, self.state.known) > 0.0

    def _learn(self, cell: Cell) -> None:
        state, ((residual, information),) = self.state, self.weigh(cell)
        total, number = state.squares
        if information > 0.0:
            keep = 1.0 - 1.0 / (self.params.memory_s / DAY_S)
            state.squares = (total * keep + state.spread * residual**2 / information, number * keep + 1.0)
        add_cell(state.base, cell)

    def _refresh(self) -> None:
        state, base = self.state, self.state.base
        if state.at_n / REFRESH_GROWTH <= base.sum_n <= state.at_n * REFRESH_GROWTH:
            return
        mean = base.sum_k / base.sum_n
        state.means = [(k + WEEKDAY_PRIOR * mean) / (n + WEEKDAY_PRIOR) for k, n in zip(base.k, base.n, strict=True)]
        state.spread = max(1.0, state.squares[0] / state.squares[1])
        state.known = base.sum_k / state.spread + PRIOR
        state.at_n = base.sum_n
        self.onsets.reweigh()


Rises = tuple[Rise | None, Rise | None]
"""That scores, and that the number of qualified leads, have risen lately."""


def risen(
    rises: Rises, ts: float, scores_seen: tuple[ScoreDistribution, Sequence[Cohort]],
    volume_seen: tuple[Volume, int],
) -> Rises:  # fmt: skip
    """Test scores and volume, and say what has risen.

    Args:
        rises: what had risen until now.
        ts: event time, seconds.
        scores_seen: the test of the scores, and what it sees now.
        volume_seen: the test of the volume, and the leads that are called qualified now.
    """
    (test, scored), (volume_test, qualified) = scores_seen, volume_seen
    scores, volume = rises
    if scored:
        phase = test.test(ts, scored)
        if phase == "recovered":
            scores = None
        elif phase == "accepted" and scores:
            scores = msgspec.structs.replace(scores, lasts=True, at=ts)
        elif test.looked:
            scores = test.rise() or (scores if scores and scores.lasts else None)
    if scores and ts - scores.at > RISE_MEMORY_S:
        scores = None
    if volume_test.observe(ts, qualified):
        volume = volume_test.rise()
    return scores, volume

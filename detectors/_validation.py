"""Does an indicator predict an outcome, and does it still? Evidence that may be looked at at any time.

For each indicator (a row) three things run side by side over the tables of `detectors._validation_tables`:

- **Evidence** e against "it says nothing, or predicts the other way". A mixture over odds ratios of the likelihood
  given all margins, over that of chance; each table is foretold by what earlier ones taught, so under the null e is a
  nonnegative supermartingale that starts at 1, and P(e is ever ≥ 20) ≤ 5 % (Ville 1939), whatever the base rate does.
  Part of the mixture starts later, at any time, so that years of noise do not weigh on an indicator that becomes
  useful. See Grünwald, de Heide & Koolen 2024, "Safe testing"; Turner, Ly & Grünwald 2024, "Generic E-variables for
  exact sequential k-sample tests"; Ramdas, Grünwald, Vovk & Shafer 2023, "Game-theoretic statistics and safe
  anytime-valid inference". One-sided: likelihood ratios are monotone, so the other way counts against it.
- **Belief**: weights of the odds ratios, learnt from earlier tables and slowly forgotten (fixed share, Herbster &
  Warmuth 1998). What it predicts is tested before it is learnt from: gain over the base rate in nats per outcome, AUC
  within strata, calibration, with confidence sequences.
- **Doubt**, once proven: the test of Mantel & Haenszel (1959) over the last `window_n` outcomes. What cannot be told
  from nothing there any more is lost; a useless one passes with the probability of a normal deviate beyond `lose_z`.
  Beside it a CUSUM of the gain's negative, which loses a strong one sooner.

Outcomes of one person count as independent; evidence of rows is valid for each row by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log, sqrt
from typing import Final, NamedTuple

import msgspec
import numpy as np

from detectors._validation_intervals import mean_interval
from detectors._validation_numbers import LOST, PROVEN, STATUSES, Change, Numbers, ProofParams, Status
from detectors._validation_tables import (
    BANDS,
    LIMIT,
    SIZES,
    TILTS,
    Floats,
    Integers,
    Table,
    Tables,
    likelihoods,
)

_SIZES = len(SIZES)
ASLEEP: Final = slice(0, 2)
"""ln of the mass that may still start; the expected way, the other way."""
AWAKE: Final = slice(2, 2 + 2 * _SIZES)
"""ln of the mass that has started times its likelihood ratio; the same order."""
BELIEF: Final = slice(AWAKE.stop, AWAKE.stop + len(TILTS))
FORETOLD: Final = slice(BELIEF.stop, BELIEF.stop + BANDS - 1)
OBSERVED: Final = slice(FORETOLD.stop, FORETOLD.stop + BANDS - 1)
(
    AGE,
    N,
    INDICATED,
    GAIN,
    GAIN_SQUARES,
    LATE,
    LATE_N,
    RANKS,
    RANK_SQUARES,
    PAIRS,
    DOUBT,
    STATUS,
    REACH,
    TOTAL,
    WEIGHT,
) = range(OBSERVED.stop, OBSERVED.stop + 15)
"""Outcomes behind the evidence; behind the numbers; sums of these; the CUSUM; …; outcomes ever; information of late."""
WIDTH: Final = WEIGHT + 1
NUMBERS: Final = [*range(FORETOLD.start, OBSERVED.stop), N, INDICATED, GAIN, GAIN_SQUARES, RANKS, RANK_SQUARES, PAIRS]
PRIOR: Final[Floats] = np.array([0.5] + [0.25 / _SIZES] * 2 * _SIZES)
"""Belief at the start, and what forgetting leads back to: half that it says nothing."""


def _fresh() -> Floats:
    row = np.zeros(WIDTH)
    row[ASLEEP] = log(0.5)
    row[AWAKE] = log(0.5 / _SIZES)
    row[BELIEF] = PRIOR
    return row


FRESH: Final[Floats] = _fresh()
Cell = tuple[float, float, float]
"""Outcomes, good ones with the indicator above chance the way it is meant, and their variance."""


class BookState(msgspec.Struct, array_like=True):
    """State of `Book` as data.

    Attributes:
        rows: number of rows.
        numbers: `WIDTH` little-endian float64 for each.
        windows: row → the last outcomes of a proven one, oldest first.
    """

    rows: int = 0
    numbers: bytes = b""
    windows: dict[int, list[Cell]] = {}


class Seen(NamedTuple):
    """What one settlement brings, a line for each row that it is about.

    Attributes:
        rows: these rows, ascending.
        outcomes: outcomes of each.
        pairs: sum over blocks of good times bad, over all.
        tables: their tables; `row` is an index into `rows`.
    """

    rows: Integers
    outcomes: Floats
    pairs: Floats
    tables: Tables


class Book:
    """All rows of evidence, side by side, so that one settlement of many indicators costs about as much as one of one.

    >>> book = Book(ProofParams())
    >>> rows = [book.open(-1.0), book.open(-1.0)]
    >>> for _ in range(40):
    ...     useful, useless = Table(0, 10, 1, 90, 45, -1.0, 0, 100, 46), Table(1, 10, 5, 90, 45, -1.0, 0, 100, 50)
    ...     changes = book.settle(rows, [100, 100], [24.84, 25.0], [useful, useless])
    >>> [book.read(row).status for row in rows]
    ['proven', 'unproven']
    """

    def __init__(self, params: ProofParams) -> None:
        self.params = params
        self._data = np.zeros((0, WIDTH))
        self._rows = 0
        self._windows: dict[int, list[Cell]] = {}

    def __len__(self) -> int:
        return self._rows

    @property
    def state(self) -> BookState:
        """The state as data."""
        numbers = self._data[: self._rows].astype("<f8").tobytes()
        return BookState(self._rows, numbers, {row: list(self._windows[row]) for row in sorted(self._windows)})

    @state.setter
    def state(self, state: BookState) -> None:
        if len(state.numbers) != state.rows * WIDTH * 8 or not all(0 <= row < state.rows for row in state.windows):
            raise msgspec.ValidationError("not a state of this book: sizes differ")
        numbers = np.frombuffer(state.numbers, dtype="<f8").reshape(state.rows, WIDTH)
        self._data, self._rows = numbers.astype(np.float64), state.rows
        self._windows = {row: list(cells) for row, cells in state.windows.items()}

    def open(self, reach: float) -> int:
        """A new row: nothing known.

        Args:
            reach: -1 for an indicator that is meant to make good outcomes rarer, 1 for the contrary.
        """
        if self._rows == len(self._data):
            self._data = np.vstack([self._data, np.zeros((max(16, self._rows), WIDTH))])
        self._data[self._rows] = FRESH
        self._data[self._rows, REACH] = reach
        self._rows += 1
        return self._rows - 1

    def settle(
        self, rows: Sequence[int], outcomes: Sequence[float], pairs: Sequence[float], tables: Sequence[Table]
    ) -> list[Change]:
        """Learn from one or more blocks of each of these rows; returns those that changed their status.

        Args:
            rows: ascending.
            outcomes: of each, whether its tables tell anything or not.
            pairs: sum over its blocks of good times bad, over all.
            tables: `row` is an index into `rows`.
        """
        seen = Seen(np.array(rows), np.array(outcomes, dtype=float), np.array(pairs), Tables.of(tables))
        data = self._data[seen.rows]
        gained, expected = likelihoods(seen.tables)
        by_row = _sum_by(seen.tables.row, gained, len(data))
        self._restart(data)
        self._weigh(data, seen.outcomes, by_row)
        self._predict(data, seen, by_row, expected)
        self._data[seen.rows] = data
        cells = _cells(seen)
        self._data[seen.rows, WEIGHT] = data[:, WEIGHT] * np.exp(-seen.outcomes / self.params.forget_n) + cells[:, 2]
        return [change for i, row in enumerate(rows) if (change := self._judge(row, (*cells[i].tolist(),))) is not None]

    def _restart(self, data: Floats) -> None:
        """The numbers of what has not been proven for long begin anew: they would be about the distant past."""
        stale = (data[:, STATUS] != PROVEN) & (data[:, N] >= self.params.restart_n)
        data[np.ix_(stale, NUMBERS)] = 0.0

    def _weigh(self, data: Floats, outcomes: Floats, gained: Floats) -> None:
        """Evidence: some of the sleeping mass starts, then all that has started is multiplied by its likelihood."""
        waking = outcomes / (self.params.wake_n + data[:, AGE] + outcomes)
        data[:, AGE] += outcomes
        fresh = data[:, ASLEEP] + np.log(waking)[:, None] - log(_SIZES)
        data[:, ASLEEP] += np.log1p(-waking)[:, None]
        data[:, AWAKE] = np.logaddexp(data[:, AWAKE], np.repeat(fresh, _SIZES, axis=1)) + gained[:, 1:]

    def _predict(self, data: Floats, seen: Seen, gained: Floats, expected: Floats) -> None:
        """Belief is tested, then learns."""
        share = -np.expm1(-seen.outcomes / self.params.forget_n)[:, None]
        belief = (1.0 - share) * data[:, BELIEF] + share * PRIOR
        self._score(data, seen, belief, expected)
        top = gained.max(axis=1, keepdims=True)
        after = belief * np.exp(gained - top)
        total = after.sum(axis=1)
        gain = top[:, 0] + np.log(total)
        data[:, BELIEF] = after / total[:, None]
        faded = np.exp(-seen.outcomes / self.params.recent_n)
        data[:, LATE] = data[:, LATE] * faded + gain
        data[:, LATE_N] = data[:, LATE_N] * faded + seen.outcomes
        data[:, [N, TOTAL]] += seen.outcomes[:, None]
        data[:, GAIN] += gain
        data[:, DOUBT] = np.maximum(0.0, data[:, DOUBT] - gain) * (data[:, STATUS] == PROVEN)

    @staticmethod
    def _score(data: Floats, seen: Seen, belief: Floats, expected: Floats) -> None:
        """What was foretold against what came, table by table."""
        t, at = seen.tables, seen.tables.row
        foretold = (belief[at] * expected).sum(axis=1)
        np.add.at(data, (at, FORETOLD.start + t.part), foretold)
        np.add.at(data, (at, OBSERVED.start + t.part), t.k_with)
        np.add.at(data, (at, np.full(len(at), INDICATED)), t.n_with)
        np.add.at(data, (at, np.full(len(at), GAIN_SQUARES)), _squares(t, foretold))
        way = np.sign((belief * TILTS).sum(axis=1).round(12))[at] * np.sign(t.reach)
        ranks = way * (t.k_with * t.n_without - t.k_without * t.n_with) / (2.0 * t.block_n)
        spread = t.n_with * t.n_without * (t.n_with + t.n_without) / (4.0 * t.block_n**2)
        good = t.block_k / t.block_n
        np.add.at(data, (at, np.full(len(at), RANKS)), ranks)
        np.add.at(data, (at, np.full(len(at), RANK_SQUARES)), spread * good * (1.0 - good))
        data[:, PAIRS] += seen.pairs

    # ── status ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _judge(self, row: int, cell: Cell) -> Change | None:
        before = int(self._data[row, STATUS])
        if before == PROVEN:
            return self._lose(row) if self._doubts(row, cell) else None
        late, late_n = self._data[row, [LATE, LATE_N]]
        if late_n <= 0.0 or self._log_e(row, 0) < log(self.params.proof) or late / late_n < self.params.floor:
            return None
        self._data[row, STATUS] = PROVEN
        self._windows[row] = []
        return Change(row, STATUSES[before], "proven", self.read(row))

    def _doubts(self, row: int, cell: Cell) -> bool:
        """Whether a proven one is none any more."""
        window = self._windows[row]
        window.append(cell)
        n = sum(each[0] for each in window)
        while n - window[0][0] >= self.params.window_n:
            n -= window.pop(0)[0]
        if self._data[row, DOUBT] >= self.params.lose_nats:
            return True
        above, variance = sum(each[1] for each in window), sum(each[2] for each in window)
        return n >= self.params.window_n and above <= self.params.lose_z * sqrt(variance)

    def _lose(self, row: int) -> Change:
        """Counting starts anew: evidence, belief and numbers."""
        numbers = msgspec.structs.replace(self.read(row), status="lost")
        kept = self._data[row, [REACH, TOTAL]]
        self._data[row] = FRESH
        self._data[row, [REACH, TOTAL]] = kept
        self._data[row, STATUS] = LOST
        del self._windows[row]
        return Change(row, "proven", "lost", numbers)

    def _log_e(self, row: int, way: int) -> float:
        awake = self._data[row, AWAKE][way * _SIZES : (way + 1) * _SIZES]
        return float(np.logaddexp.reduce([self._data[row, way], *awake]))

    # ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────

    def status(self, row: int) -> Status:
        """`unproven`, `proven` or `lost`."""
        return STATUSES[int(self._data[row, STATUS])]

    def total(self, row: int) -> int:
        """Outcomes ever."""
        return round(float(self._data[row, TOTAL]))

    def believed(self, row: int) -> tuple[float, float]:
        """Log odds ratio that it is believed to have the way it is meant, and the information of late."""
        return float((self._data[row, BELIEF] * TILTS).sum()), float(self._data[row, WEIGHT])

    def is_evident(self, row: int) -> bool:
        """Whether there is evidence enough that it predicts as meant, whatever its gain."""
        return self._log_e(row, 0) >= log(self.params.proof)

    def read(self, row: int) -> Numbers:
        """All that is known of a row."""
        data = self._data[row]
        n, pairs = float(data[N]), float(data[PAIRS])
        gain = mean_interval(data[GAIN], data[GAIN_SQUARES], n, LIMIT)
        ranks = mean_interval(data[RANKS], data[RANK_SQUARES], pairs, 0.5)
        off = data[FORETOLD] - data[OBSERVED]
        return Numbers(
            status=self.status(row), outcomes=round(n), indicated=round(float(data[INDICATED])),
            gain=float(data[GAIN]) / max(n, 1.0), gain_low=float(gain[0]), gain_high=float(gain[1]),
            recent_gain=float(data[LATE]) / max(float(data[LATE_N]), 1.0),
            auc=0.5 + float(data[RANKS]) / pairs if pairs else 0.5,
            auc_low=0.5 + float(ranks[0]) if pairs else 0.0, auc_high=0.5 + float(ranks[1]) if pairs else 1.0,
            calibration_error=float(np.abs(off).sum() + abs(off.sum())) / max(n, 1.0),
            foretold=float(data[FORETOLD].sum()), observed=float(data[OBSERVED].sum()),
            log_odds=float(data[REACH]) * self.believed(row)[0], log_e=self._log_e(row, 0),
            log_e_other=self._log_e(row, 1), proof=log(self.params.proof),
        )  # fmt: skip


def _sum_by(rows: Integers, values: Floats, count: int) -> Floats:
    summed = np.zeros((count, values.shape[1]))
    np.add.at(summed, rows, values)
    return summed


def _squares(t: Tables, foretold: Floats) -> Floats:
    """Sum over outcomes of the squared gain of each, nats²: of its foretold chance over the base rate."""
    good = t.k_with + t.k_without
    base = good / (t.n_with + t.n_without)
    squares = np.zeros(len(base))
    for n, k, hit in ((t.n_with, t.k_with, foretold), (t.n_without, t.k_without, good - foretold)):
        chance = np.clip(hit / n, 1e-9, 1.0 - 1e-9)
        squares += k * np.log(chance / base) ** 2 + (n - k) * np.log((1.0 - chance) / (1.0 - base)) ** 2
    return squares


def _cells(seen: Seen) -> Floats:
    """What each row's window takes up."""
    t = seen.tables
    n, good = t.n_with + t.n_without, t.k_with + t.k_without
    above = t.reach * (t.k_with - t.n_with * good / n)
    variance = t.reach**2 * t.n_with * t.n_without * good * (n - good) / (n**2 * np.maximum(n - 1.0, 1.0))
    sums = _sum_by(t.row, np.column_stack([above, variance]), len(seen.rows))
    return np.column_stack([seen.outcomes, sums])

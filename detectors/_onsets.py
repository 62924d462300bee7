"""Evidence that something changed, over all moments at which the change may have begun, for streams of few cases.

Data come in cells: counts of some cases each. For every cell, the hypothesis "it changed here" is weighed against "it
did not" by a likelihood ratio that allows for what is not known: the size of the change has a normal prior, half-normal
where only one side counts (Robbins 1970), and the baseline's own error is integrated out. Their weighted sum over the
cells is the Shiryaev-Roberts statistic of an e-detector (Shin, Ramdas & Rinaldo 2022, "E-detectors: a nonparametric
framework for sequential change detection"): its natural log passes ln(L) by chance no sooner than after L looks on
average, as far as the normal approximation and the baseline's model hold. Divided by that sum, the same likelihood
ratios are the posterior of the onset: its mode and its 95 % interval.

Old cells are merged two and two (exponential histogram, Datar et al. 2002), so an onset is known to within an eighth of
its age and state is bounded.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import accumulate
from math import erfc, exp, log, sqrt
from typing import Final, TypeAlias

import msgspec

from detectors._baseline import DAY_S

CELLS: Final = 44
"""Cells kept. State holds always so many, unused ones in front, so that its size does not depend on the data."""
SAME_SIZE: Final = 8
"""More cells than this that stand for equally many looks: the two oldest of them are merged."""
CELL_N: Final = 8
"""Cases that fill a cell …"""
CELL_S: Final = DAY_S
"""… or event time, seconds."""
WEEK_S: Final = 7 * DAY_S
RATE_MEMORY_S: Final = 4 * WEEK_S
"""Event time over which looks are counted, seconds."""
MOST_NATS: Final = 600.0
"""Evidence for one onset is cut here, short of overflow."""
LEAST: Final = 1e-280
TAIL: Final = 0.025
"""Probability outside of the onset interval, on each side."""
Cohort: TypeAlias = tuple[int, int, int]
"""(stratum, cases, hits)."""
Sums: TypeAlias = tuple[tuple[float, float], ...]
"""For each part: (sum of residuals, their information), so that exp(a size · sum - size² · information / 2) is the
likelihood ratio of a change of that size."""


class Cell(msgspec.Struct, array_like=True):
    """Counts of a stretch of event time.

    Attributes:
        ts: its start, seconds.
        looks: looks that it stands for; 0: not used.
        n: cases per stratum.
        k: hits per stratum; empty where there are none to count.
    """

    ts: float
    looks: int
    n: list[int]
    k: list[int]

    @classmethod
    def empty(cls, strata: int, counted: int) -> Cell:
        """Return an unused cell."""
        return cls(0.0, 0, [0] * strata, [0] * counted)


class Part(msgspec.Struct, frozen=True):
    """One way in which the data may change.

    Attributes:
        side: -1 or 1 if only a fall or a rise counts, else 0.
        sd: typical size of a change: standard deviation of its prior, in units of residual sum / information.
        weight: of its evidence in the statistic; 0: it is only asked about.
    """

    side: int
    sd: float
    weight: float = 1.0

    def log_ratio(self, s: float, v: float, known: float) -> float:
        """Log likelihood ratio of a change whose residuals sum up to `s`, nats.

        Args:
            s: sum of the residuals since the supposed onset.
            v: their information.
            known: information behind the baseline; the less there is, the less the residuals say.
        """
        s, v = _sure(s, v, known)
        room = 1.0 + self.sd * self.sd * v
        z = s * self.sd / sqrt(room)
        value = 0.5 * (z * z - log(room))
        if self.side:
            value += log(max(erfc(-self.side * z / sqrt(2.0)), LEAST))
        return min(value, MOST_NATS)

    def gain(self, s: float, v: float, known: float) -> float:
        """The same at the size that fits best, without its prior: at least 0 nats."""
        s, v = _sure(s, v, known)
        return 0.5 * s * s / v if v > 0.0 and s * (self.side or s) > 0.0 else 0.0

    @staticmethod
    def size(s: float, v: float, known: float) -> tuple[float, float]:
        """The size that fits best, and its standard error."""
        s, v = _sure(s, v, known)
        return (s / v, 1.0 / sqrt(v)) if v > 0.0 else (0.0, 0.0)


class Change(msgspec.Struct, array_like=True):
    """What is suspected.

    Attributes:
        statistic: of the e-detector, nats.
        part: the way in which it changed, a number of the parts asked for.
        onset: likely event time of the change, seconds.
        first: start of its 95 % interval.
        last: end of it.
        nats: evidence for that part beginning at the likeliest moment, nats.
        s: residuals since the onset.
        v: their information.
    """

    statistic: float = 0.0
    part: int = 0
    onset: float = 0.0
    first: float = 0.0
    last: float = 0.0
    nats: float = 0.0
    s: float = 0.0
    v: float = 0.0


class OnsetsState(msgspec.Struct, array_like=True):
    """State of `Onsets`.

    Attributes:
        cells: oldest first.
        filling: the cell that is not full yet.
        looks: how often it was looked; fades.
        seen_s: event time that these looks took, seconds.
        looked_at: event time of the last look, seconds; 0 before it.
        ts: event time of the last case, seconds.
    """

    cells: list[Cell]
    filling: Cell
    looks: float = 0.0
    seen_s: float = 0.0
    looked_at: float = 0.0
    ts: float = 0.0

    @classmethod
    def of(cls, strata: int, hits: bool) -> OnsetsState:
        """Return the state at the start.

        Args:
            strata: number of strata.
            hits: whether hits are counted beside cases.
        """
        counted = strata if hits else 0
        return cls([Cell.empty(strata, counted) for _ in range(CELLS)], Cell.empty(strata, counted))

    def fits(self, strata: int, hits: bool) -> bool:
        """Whether it is a state of so many strata."""
        counted = strata if hits else 0
        cells = [*self.cells, self.filling]
        return len(cells) == CELLS + 1 and all(len(cell.n) == strata and len(cell.k) == counted for cell in cells)


class Onsets:
    """Collects cells and weighs where a change may have begun.

    Args:
        state: taken up and changed in place.
        parts: ways in which the data may change.
        weigh: residuals of a cell against the baseline and their information, for each part. It has to be the same
            for the same counts until `reweigh` is called.

    Example:
        >>> state = OnsetsState.of(strata=1, hits=True)
        >>> rate = 0.5
        >>> onsets = Onsets(state, (Part(-1, 0.43),), lambda c: ((c.k[0] - rate * c.n[0], 0.25 * c.n[0]),))
        >>> for i in range(400):
        ...     _ = onsets.add(float(i), ((0, 1, int(i % 2 if i < 200 else i % 4 == 0)),))
        >>> change = onsets.change([1e9])
        >>> change.statistic > 10, abs(change.onset - 200) <= 16, change.first <= 200 <= change.last
        (True, True, True)
    """

    def __init__(self, state: OnsetsState, parts: Sequence[Part], weigh: Callable[[Cell], Sums]) -> None:
        self.state = state
        self.parts = parts
        self._weigh = weigh
        self._sums: list[Sums] = []
        self.reweigh()

    @property
    def cells(self) -> list[Cell]:
        """Those in use, oldest first."""
        return self.state.cells[CELLS - len(self._sums) :]

    @property
    def looks_per_week(self) -> float:
        """Looks in a week of event time, as seen so far; a day at least is reckoned with."""
        return self.state.looks / max(self.state.seen_s, DAY_S) * WEEK_S

    def collect(self, ts: float, cohorts: Sequence[Cohort]) -> Cell | None:
        """Take cases of event time `ts` (seconds); returns the cell if they filled it."""
        state = self.state
        cell = state.filling
        if not cell.looks:
            cell.ts, cell.looks = ts, 1
        for stratum, n, k in cohorts:
            cell.n[stratum] += n
            if cell.k:
                cell.k[stratum] += k
        state.ts = ts
        if sum(cell.n) < CELL_N and ts - cell.ts < CELL_S:
            return None
        state.filling = Cell.empty(len(cell.n), len(cell.k))
        self._count_look(ts)
        return cell

    def add(self, ts: float, cohorts: Sequence[Cohort]) -> Cell | None:
        """`collect`, and keep the cell that was filled among those that may hold the onset."""
        if (cell := self.collect(ts, cohorts)) is not None:
            self.keep(cell)
        return cell

    def keep(self, cell: Cell) -> None:
        """Put a full cell last, and make room for the next one."""
        cells = self.state.cells
        del cells[0]
        cells.append(cell)
        self._sums.append(self._weigh(cell))
        looks, used = 1, len(self._sums)
        while (same := [i for i in range(CELLS - used, CELLS) if cells[i].looks == looks])[SAME_SIZE:]:
            self._merge(same[0])
            looks, used = 2 * looks, used - 1
        if used == CELLS:
            self._merge(0)

    def reweigh(self) -> None:
        """The baseline has moved: weigh all cells anew."""
        self._sums = [self._weigh(cell) for cell in self.state.cells if cell.looks]

    def clear(self) -> None:
        """Forget all full cells."""
        self.state.cells = [Cell.empty(len(cell.n), len(cell.k)) for cell in self.state.cells]
        self._sums = []

    def oldest(self, part: int, known: float) -> float:
        """Evidence that a part changed with the oldest cell, nats."""
        s, v = self.since(self.cells[0].ts, part)
        return self.parts[part].log_ratio(s, v, known)

    def pop(self) -> Cell:
        """Take out the oldest cell."""
        at = CELLS - len(self._sums)
        cell = self.state.cells[at]
        self.state.cells[at] = Cell.empty(len(cell.n), len(cell.k))
        del self._sums[0]
        return cell

    def since(self, onset: float, part: int) -> tuple[float, float]:
        """Residuals of the cells from `onset` on, and their information."""
        s = v = 0.0
        for cell, sums in zip(self.cells, self._sums, strict=True):
            if cell.ts >= onset:
                s, v = s + sums[part][0], v + sums[part][1]
        return s, v

    def change(self, known: Sequence[float], only: int | None = None) -> Change:
        """Date and size what is suspected.

        Args:
            known: information behind the baseline, for each part.
            only: number of the part to ask about; None: those that have weight.
        """
        cells = self.cells
        chosen = [i for i, part in enumerate(self.parts) if (part.weight if only is None else i == only)]
        if not cells:
            return Change(part=chosen[0])
        found = {i: self._log_ratios(i, known[i]) for i in chosen}
        top = max(max(logs) for logs, _ in found.values())
        shares = {i: self._share(i, logs, top) for i, (logs, _) in found.items()}
        part = max(chosen, key=lambda i: sum(shares[i]))
        statistic = top + log(max(sum(map(sum, shares.values())), LEAST))
        return self._dated(statistic, part, shares[part], found[part])

    def _dated(
        self, statistic: float, part: int, share: list[float], found: tuple[list[float], list[tuple[float, float]]]
    ) -> Change:
        """The likeliest onset, and the interval that the posterior gives."""
        logs, tails = found
        at = max(range(len(logs)), key=logs.__getitem__)
        total = list(accumulate(share))
        first, last = (min(bisect_left(total, q * total[-1]), len(share) - 1) for q in (TAIL, 1.0 - TAIL))
        first, last = min(first, at), max(last, at)
        cells = self.cells
        end = cells[last + 1].ts if last + 1 < len(cells) else self.state.ts
        s, v = tails[at]
        return Change(statistic, part, cells[at].ts, cells[first].ts, end, logs[at], s, v)

    def _share(self, part: int, logs: list[float], top: float) -> list[float]:
        """Weight of each cell as the onset, as multiples of exp(top)."""
        weight = self.parts[part].weight or 1.0
        return [weight * cell.looks * exp(each - top) for cell, each in zip(self.cells, logs, strict=True)]

    def _log_ratios(self, part: int, known: float) -> tuple[list[float], list[tuple[float, float]]]:
        """For every cell as the onset, oldest first: evidence, nats; residuals and information since then."""
        tails: list[tuple[float, float]] = []
        s = v = 0.0
        for sums in reversed(self._sums):
            s, v = s + sums[part][0], v + sums[part][1]
            tails.append((s, v))
        tails.reverse()
        log_ratio = self.parts[part].log_ratio
        return [log_ratio(s, v, known) for s, v in tails], tails

    def _merge(self, i: int) -> None:
        """Merge the cells `i` and `i + 1`; the unused ones stay in front."""
        cells = self.state.cells
        old, new = cells[i], cells[i + 1]
        n = [a + b for a, b in zip(old.n, new.n, strict=True)]
        k = [a + b for a, b in zip(old.k, new.k, strict=True)]
        cells[i + 1] = Cell(old.ts, old.looks + new.looks, n, k)
        del cells[i]
        cells.insert(0, Cell.empty(len(n), len(k)))
        j = i - (CELLS - len(self._sums))
        self._sums[j : j + 2] = [self._weigh(cells[i + 1])]

    def _count_look(self, ts: float) -> None:
        state = self.state
        passed = ts - state.looked_at if state.looked_at else 0.0
        keep = exp(-passed / RATE_MEMORY_S)
        state.looks = state.looks * keep + 1.0
        state.seen_s = state.seen_s * keep + passed
        state.looked_at = ts


def _sure(s: float, v: float, known: float) -> tuple[float, float]:
    """Residuals and information, less what the baseline itself is unsure of.

    With information `known` behind it, the baseline is off by an error of variance 1 / known that all residuals share.
    Integrating over it divides the log-likelihood ratio of each size by 1 + v / known.
    """
    unsure = 1.0 + v / known
    return s / unsure, v / unsure

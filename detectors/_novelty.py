"""Behaviour that a stage has not seen before: a bounded density over how steps look, without labels.

Steps are put into cells: every pair of magnitudes (log scale), every micro-signal with the dwell, the set of
micro-signals. A step is as unusual as its few rarest cells are. Cells are shrunk towards independence of the two, so a
cell that is merely unseen yet is less unusual than one that cannot be.

Why this and not River's HalfSpaceTrees: measured on simulated steps of five stages (another seed than the one it was
chosen on), 1,000 steps learnt, 1 % of normal steps flagged; share of strange steps that was flagged, over eight kinds
of strange behaviour, and time a step. HalfSpaceTrees 10 of height 6: 0.38, 8 µs; 10 of 8: 0.20, 10 µs; 25 of 8: 0.20,
23 µs; diagonal z-scores 0.40; LODA (Pevný 2016) 0.49, 27 µs; nearest neighbours 0.54, 18 µs; Mahalanobis 0.75; these
cells 0.83, 7 µs. Trees cut at random through features of which most are nearly always 0. The state is some 350 counts,
3 kB instead of 170. Histograms of single features are Goldstein & Dengel's (2012, HBOS); pairs show what is common by
itself and strange together; judging by the worst few is Aggarwal's advice for many dimensions (2017, ch. 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import ceil, log
from typing import Final

import msgspec

MAGNITUDES: Final = 6
"""So many features, the first ones, are magnitudes on a log scale; the rest are flags."""
PAIRS: Final = tuple((i, j) for i in range(MAGNITUDES) for j in range(i))
WIDTH: Final = 0.6
"""Width of a bin on the log scale: a factor of 1.8."""
BINS: Final = 16
RAREST: Final = 4
SHRINK: Final = 5.0
"""Steps' worth of belief that the two sides of a cell are independent."""
NEAR: Final = 0.1
"""What a bin borrows of each of its neighbours: a bin beside a full one is no great surprise."""
FAR: Final = 0.01
EMPTY: Final = 0.05
MOST_STEPS: Final = 4000
GRAIN: Final = 1000.0
KEPT: Final = 2000
"""Steps look alike often enough that remembering what was worked out saves most of it."""


class Cells(msgspec.Struct, array_like=True):
    """Counts of steps by how they look; bounded, for every feature has few bins.

    Attributes:
        n: steps counted.
        cells: number of a cell → steps in it.
        bins: of each magnitude, steps per bin.
        flags: of each flag, steps that had it.
    """

    n: int = 0
    cells: dict[int, int] = {}
    bins: list[list[int]] = msgspec.field(default_factory=lambda: [[0] * BINS for _ in range(MAGNITUDES)])
    flags: list[int] = []


class NoveltyState(msgspec.Struct, array_like=True):
    """What `Novelty` has learnt.

    Attributes:
        weighed: steps seen.
        known: the density in force; None before the first.
        cut: a step with a higher score is novel, thousandths of nats.
        growing: the density that comes next.
        size: steps that it learns from, and as many on which its cut is set.
        tried: steps on which the cut has been tried.
        top: the highest scores among these, descending, thousandths of nats.
        novel: steps among these that the density in force calls novel.
        next_at: value of `weighed` at which the next density begins to grow.
    """

    weighed: int = 0
    known: Cells | None = None
    cut: int = 0
    growing: Cells = msgspec.field(default_factory=Cells)
    size: int = 0
    tried: int = 0
    top: list[int] = []
    novel: int = 0
    next_at: int = 0


class Density:
    """The surprise of a step under `Cells` that no longer change.

    Args:
        cells: counts.

    Attributes:
        surprise: bins of the magnitudes, flags as bits → how rare its rarest cells are, thousandths of nats.
    """

    def __init__(self, cells: Cells) -> None:
        n = float(cells.n)
        self._cells = cells.cells
        self._log_n = log(n + SHRINK)
        self._bins = [_smooth(counts, n) for counts in cells.bins]
        self._flags = [(count + 0.5) / (n + 1.0) for count in cells.flags]

        self.surprise = lru_cache(maxsize=KEPT)(self._surprise)

    def _surprise(self, bins: tuple[int, ...], flags: int) -> int:
        """How rare the rarest cells of a step are, thousandths of nats."""
        count = self._cells.get
        p = [table[b] for table, b in zip(self._bins, bins, strict=True)]
        cell, found = 0, list[float]()
        for i, j in PAIRS:
            found.append(count(cell + bins[i] * BINS + bins[j], 0) + SHRINK * p[i] * p[j])
            cell += BINS * BINS
        alone = 1.0
        for i, share in enumerate(self._flags):
            if flags >> i & 1:
                alone *= share
                found.append(count(cell + i * BINS + bins[0], 0) + SHRINK * share * p[0])
            else:
                alone *= 1.0 - share
        found.append(count(cell + len(self._flags) * BINS + flags, 0) + SHRINK * alone)
        found.sort()
        rarest = found[:RAREST]
        return round(GRAIN * (len(rarest) * self._log_n - sum(map(log, rarest))))


class Novelty:
    """Whether a step is more unusual than nearly all of the past.

    A density is learnt, then frozen; its cut is set on as many further steps, so that `share` of them would be novel;
    then it is in force until the past has doubled. So what is new stays new for as long again as the past is long, and
    the share moves only if people do. A density that replaces another never calls a larger share novel than that did.

    Args:
        share: of normal steps, those called novel.
        steps: the first density learns from so many.
        flags: number of flags among the features.
        state: taken up and changed in place; None starts anew.

    Example:
        >>> novelty = Novelty(share=0.01, steps=200, flags=1)
        >>> for i in range(400):
        ...     _ = novelty.weigh([1.0 + i % 7 / 10, 2.0, 1.0, 0.0, 0.0, i % 3 / 2, float(i % 5 == 0)])
        >>> novelty.weigh([1.2, 2.0, 1.0, 0.0, 0.0, 0.5, 0.0]), novelty.weigh([1.2, 7.0, 1.0, 0.0, 6.0, 0.5, 0.0])
        (False, True)
    """

    def __init__(self, share: float, steps: int, flags: int, state: NoveltyState | None = None) -> None:
        self._share = share
        self._steps = steps
        self._flags = flags
        self.state = state or NoveltyState(size=steps, growing=self._empty())
        self._known = None if self.state.known is None else Density(self.state.known)
        self._tried = Density(self.state.growing) if self.state.growing.n >= self.state.size else None

    def weigh(self, features: Sequence[float]) -> bool | None:
        """Whether the step is novel, None while nothing is known; learns from it.

        Args:
            features: `MAGNITUDES` numbers on a log scale, then the flags.
        """
        state = self.state
        bins, flags = _bins(features)
        state.weighed += 1
        novel = None if self._known is None else self._known.surprise(bins, flags) > state.cut
        if self._tried is not None:
            self._try(self._tried.surprise(bins, flags), novel)
        elif state.weighed > state.next_at:
            self._learn(bins, flags)
        return novel

    def _learn(self, bins: Sequence[int], flags: int) -> None:
        growing = self.state.growing
        cells, cell = growing.cells, 0
        growing.n += 1
        for counts, b in zip(growing.bins, bins, strict=True):
            counts[b] += 1
        for i, j in PAIRS:
            where = cell + bins[i] * BINS + bins[j]
            cells[where] = cells.get(where, 0) + 1
            cell += BINS * BINS
        for i in range(self._flags):
            if flags >> i & 1:
                growing.flags[i] += 1
                where = cell + i * BINS + bins[0]
                cells[where] = cells.get(where, 0) + 1
        where = cell + self._flags * BINS + flags
        cells[where] = cells.get(where, 0) + 1
        if growing.n >= self.state.size:
            self._tried = Density(growing)

    def _try(self, surprise: int, novel: bool | None) -> None:
        state = self.state
        state.tried += 1
        state.novel += novel is True
        most = ceil(self._share * state.size) + 1
        if len(state.top) < most or surprise > state.top[-1]:
            state.top.append(surprise)
            state.top.sort(reverse=True)
            del state.top[most:]
        if state.tried >= state.size:
            self._put_in_force()

    def _put_in_force(self) -> None:
        state, size = self.state, self.state.size
        share = self._share
        if state.known is not None:
            share = min(share, max(state.novel, 1) / size)
        state.known, state.cut = state.growing, state.top[min(int(share * size), len(state.top) - 1)]
        self._known, self._tried = Density(state.known), None
        state.growing, state.tried, state.top, state.novel = self._empty(), 0, [], 0
        state.size = min(2 * size, max(MOST_STEPS, self._steps))
        state.next_at = max(2 * state.weighed - 2 * state.size, state.weighed)

    def _empty(self) -> Cells:
        return Cells(flags=[0] * self._flags)


def _bins(features: Sequence[float]) -> tuple[tuple[int, ...], int]:
    bins = tuple([min(int(value / WIDTH + 0.5), BINS - 1) for value in features[:MAGNITUDES]])
    flags = 0
    for i, value in enumerate(features[MAGNITUDES:]):
        if value:
            flags |= 1 << i
    return bins, flags


def _smooth(counts: Sequence[int], n: float) -> list[float]:
    """Shares of the bins, each with a little of its neighbours'."""
    padded = [0, 0, *counts, 0, 0]
    total = n * (1.0 + 2.0 * (NEAR + FAR)) + EMPTY * BINS
    return [
        (padded[i + 2] + NEAR * (padded[i + 1] + padded[i + 3]) + FAR * (padded[i] + padded[i + 4]) + EMPTY) / total
        for i in range(BINS)
    ]

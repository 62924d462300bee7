"""Steps and leads → counts per (stage, segment) of the bucket that is being closed.

All counts are integers, so their sum is the same in whatever order partitions are merged.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Final

from streams.frames import Cell, Segment
from streams.settings import SegmentSettings

OTHER_VALUE: Final = "other"
"""The value that takes the overflow of a label."""

LEADS: Final = "leads"
"""The stage under which lead journeys are counted."""


class Labels:
    """Bounds the values of every label: the first `max_values` keep their name, the rest becomes `other`.

    Attributes:
        values: label → values that kept their name; part of the state.
        overflowed: how many labellings were folded into `other`.
    """

    def __init__(self, settings: SegmentSettings) -> None:
        self._max = settings.max_values
        self._watch = {False: settings.watch, True: settings.watch_leads}
        self._pairs = settings.pairs
        self.values: dict[str, dict[str, None]] = {}
        self.overflowed = 0

    def segments(self, labels: dict[str, str], *, leads: bool = False) -> list[Segment]:
        """The segments that someone with these labels is counted in: all, each watched label, the configured pairs."""
        bounded = {label: self._bound(label, value) for label, value in labels.items()}
        watched: list[Segment] = [((label, bounded[label]),) for label in self._watch[leads] if label in bounded]
        pairs: list[Segment] = [
            tuple(sorted(((a, bounded[a]), (b, bounded[b])))) for a, b in self._pairs if a in bounded and b in bounded
        ]
        return list(chain(((),), watched, pairs))

    def _bound(self, label: str, value: str) -> str:
        known = self.values.setdefault(label, {})
        if value in known:
            return value
        if len(known) < self._max:
            known[value] = None
            return value
        self.overflowed += 1
        return OTHER_VALUE


class Combiner:
    """Adds up what happened in one bucket; empty again after `close`.

    >>> combiner = Combiner()
    >>> combiner.add("evaluate", [(), (("device", "mobile"),)], "entered", 2)
    >>> [(cell.segment, cell.counts) for cell in combiner.close(60.0)]
    [((), {'entered': 2}), ((('device', 'mobile'),), {'entered': 2})]
    """

    def __init__(self) -> None:
        self._cells: dict[tuple[str, Segment], dict[str, int]] = {}

    def add(self, stage: str, segments: list[Segment], field: str, count: int = 1) -> None:
        """Count something in every one of the segments."""
        cells = self._cells
        for segment in segments:
            counts = cells.get((stage, segment))
            if counts is None:
                counts = cells[stage, segment] = {}
            counts[field] = counts.get(field, 0) + count

    def add_each(self, stage: str, segments: list[Segment], fields: Sequence[str]) -> None:
        """Count one of each field in every one of the segments."""
        cells = self._cells
        for segment in segments:
            counts = cells.get((stage, segment))
            if counts is None:
                counts = cells[stage, segment] = {}
            for field in fields:
                counts[field] = counts.get(field, 0) + 1

    def close(self, ts: float) -> list[Cell]:
        """The cells of the bucket that starts at `ts`, in a fixed order."""
        cells = [Cell(ts, stage, segment, counts) for (stage, segment), counts in sorted(self._cells.items())]
        self._cells = {}
        return cells


def merge(into: dict[str, int], counts: dict[str, int]) -> None:
    """Add the counts of one cell to another."""
    for field, count in counts.items():
        into[field] = into.get(field, 0) + count

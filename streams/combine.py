"""Steps and leads → counts per (stage, segment) of the bucket that is being closed.

All counts are integers, so their sum is the same in whatever order partitions are merged.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import Final, NamedTuple

import msgspec

from streams.frames import Cell, Segment, encode_json
from streams.settings import SegmentSettings

OTHER_VALUE: Final = "other"
"""The value that takes the overflow of a label."""

LEADS: Final = "leads"
"""The stage under which lead journeys are counted."""


MOST_KEPT: Final = 20_000
"""Look-ups remembered; beyond it all are forgotten and found anew."""


class Known(NamedTuple):
    """What follows from a set of labels.

    Attributes:
        labels: the labels, as given; shared by everyone who has them, so never to be changed.
        cohort: those who are counted in the same segments; see `segments_of`.
        overflowed: labels of which the value was folded into `other`.
    """

    labels: dict[str, str]
    cohort: str
    overflowed: int


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
        self._known: dict[tuple[bool, tuple[tuple[str, str], ...]], Known] = {}
        self.values: dict[str, dict[str, None]] = {}
        self.overflowed = 0

    def know(self, labels: dict[str, str], *, leads: bool = False) -> Known:
        """What follows from these labels; a value that once kept its name, or once was `other`, stays so."""
        key = (leads, tuple(sorted(labels.items())))
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= MOST_KEPT:
                self._known.clear()
            known = self._known[key] = self._work_out(labels, leads)
        self.overflowed += known.overflowed
        return known

    def adopt(self, values: dict[str, list[str]]) -> None:
        """Take up the values of a stored state."""
        self.values = {label: dict.fromkeys(known) for label, known in values.items()}
        self._known.clear()

    def _work_out(self, labels: dict[str, str], leads: bool) -> Known:
        """The segments are all, each watched label, and the configured pairs."""
        bounded = {label: self._bound(label, value) for label, value in labels.items()}
        watched: list[Segment] = [((label, bounded[label]),) for label in self._watch[leads] if label in bounded]
        pairs: list[Segment] = [
            tuple(sorted(((a, bounded[a]), (b, bounded[b])))) for a, b in self._pairs if a in bounded and b in bounded
        ]
        overflowed = sum(bounded[label] != value for label, value in labels.items())
        return Known(labels, encode_json([(), *watched, *pairs]).decode(), overflowed)

    def _bound(self, label: str, value: str) -> str:
        known = self.values.setdefault(label, {})
        if value in known:
            return value
        if len(known) < self._max:
            known[value] = None
            return value
        return OTHER_VALUE


_decode_segments = msgspec.json.Decoder(list[Segment]).decode


def segments_of(cohort: str) -> list[Segment]:
    """The segments in which a cohort is counted.

    >>> segments_of(Labels(SegmentSettings()).know({"device": "mobile"}).cohort)
    [(), (('device', 'mobile'),)]
    """
    return _decode_segments(cohort)


class Tally(msgspec.Struct, gc=False):
    """Counts of one (stage, segment) in the bucket that is open; None while there are none. Sorted by `name`."""

    name: str
    stage: str
    segment: Segment
    counts: dict[str, int] | None = None


_NAME: Final = attrgetter("name")


class Combiner:
    """Adds up what happened in one bucket; empty again after `close`.

    Which tallies a (stage, cohort) is counted in is looked up once and kept over buckets: to hash segments, which are
    nested tuples, would take longer than to count.

    >>> combiner = Combiner()
    >>> combiner.add("evaluate", Labels(SegmentSettings()).know({"device": "mobile"}).cohort, "entered", 2)
    >>> [(cell.segment, cell.counts) for cell in combiner.close(60.0)]
    [((), {'entered': 2}), ((('device', 'mobile'),), {'entered': 2})]
    """

    def __init__(self) -> None:
        self._tallies: dict[tuple[str, Segment], Tally] = {}
        self._counted_in: dict[tuple[str, str], list[Tally]] = {}
        self._open: list[Tally] = []

    def add(self, stage: str, cohort: str, field: str, count: int = 1) -> None:
        """Count something in every segment of the cohort."""
        for tally in self._counted_in.get((stage, cohort)) or self._look_up(stage, cohort):
            counts = tally.counts
            if counts is None:
                counts = self._begin(tally)
            counts[field] = counts.get(field, 0) + count

    def add_each(self, stage: str, cohort: str, fields: Iterable[str]) -> None:
        """Count one of each field in every segment of the cohort."""
        for tally in self._counted_in.get((stage, cohort)) or self._look_up(stage, cohort):
            counts = tally.counts
            if counts is None:
                counts = self._begin(tally)
            for field in fields:
                counts[field] = counts.get(field, 0) + 1

    def close(self, ts: float) -> list[Cell]:
        """The cells of the bucket that starts at `ts`, in a fixed order."""
        cells = []
        self._open.sort(key=_NAME)
        for tally in self._open:
            assert tally.counts is not None  # that is what made it open
            cells.append(Cell(ts, tally.stage, tally.segment, tally.counts))
            tally.counts = None
        self._open = []
        if len(self._counted_in) > MOST_KEPT or len(self._tallies) > MOST_KEPT:
            self._counted_in, self._tallies = {}, {}
        return cells

    def _begin(self, tally: Tally) -> dict[str, int]:
        self._open.append(tally)
        counts: dict[str, int] = {}
        tally.counts = counts
        return counts

    def _look_up(self, stage: str, cohort: str) -> list[Tally]:
        found = []
        for segment in segments_of(cohort):
            tally = self._tallies.get((stage, segment))
            if tally is None:
                name = f"{stage} {encode_json(segment).decode()}"
                tally = self._tallies[stage, segment] = Tally(name, stage, segment)
            found.append(tally)
        self._counted_in[stage, cohort] = found
        return found


def merge(into: dict[str, int], counts: dict[str, int]) -> None:
    """Add the counts of one cell to another."""
    for field, count in counts.items():
        into[field] = into.get(field, 0) + count

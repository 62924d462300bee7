"""Steps and leads → counts per (stage, segment) of the bucket that is being closed.

All counts are integers, so their sum is the same in whatever order partitions are merged.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from detectors._stages import CONTACTS, CUSTOMERS, JOURNEY, LEADS
from streams.frames import Cell, Segment, encode_json
from streams.settings import SegmentSettings

OTHER_VALUE: Final = "other"
"""The value that takes the overflow of a label."""

MOST_KEPT: Final = 50_000
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
        self._watch = {
            JOURNEY: settings.watch, LEADS: settings.watch_leads, CONTACTS: settings.watch_contacts,
            CUSTOMERS: settings.watch_customers,
        }  # fmt: skip
        self._pairs = settings.pairs
        self._known: dict[tuple[str, tuple[tuple[str, str], ...]], Known] = {}
        self.values: dict[str, dict[str, None]] = {}
        self.overflowed = 0

    def know(self, labels: dict[str, str], *, of: str = JOURNEY, again: bool = False) -> Known:
        """What follows from these labels; a value that once kept its name, or once was `other`, stays so.

        Args:
            labels: label → value; not to be changed afterwards.
            of: what they are labels of: one of `detectors._stages`; it decides which labels are watched.
            again: they were counted before, when they were seen first.
        """
        key = (of, tuple(sorted(labels.items())))
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= MOST_KEPT:
                self._known.clear()
            known = self._known[key] = self._work_out(labels, of)
        if not again:
            self.overflowed += known.overflowed
        return known

    def adopt(self, values: dict[str, list[str]]) -> None:
        """Take up the values of a stored state."""
        self.values = {label: dict.fromkeys(known) for label, known in values.items()}
        self._known.clear()

    def _work_out(self, labels: dict[str, str], of: str) -> Known:
        """The segments are all, each watched label, and the configured pairs."""
        bounded = {label: self._bound(label, value) for label, value in labels.items()}
        watched: list[Segment] = [((label, bounded[label]),) for label in self._watch[of] if label in bounded]
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


Named = tuple[tuple[str, str], dict[str, int]]
"""(stage, cohort) → field → count: what codes stand for, as it is stored."""

FEW: Final = 64
"""So many codes are added up faster one by one than by numpy."""
_FIELD_BITS: Final = 12
_FIELD: Final = (1 << _FIELD_BITS) - 1


class _Tally(NamedTuple):
    """One (stage, segment); cells leave in the order of the names."""

    name: str
    stage: str
    segment: Segment


class Combiner:
    """Adds up what happened in one bucket; empty again after `close`.

    What is counted is noted as one integer, a code for (stage, cohort, field), and the bucket is added up as a whole:
    a cohort is in four segments or more, and to count in each of them at once would take several times as long.

    >>> combiner = Combiner()
    >>> combiner.add("evaluate", Labels(SegmentSettings()).know({"device": "mobile"}).cohort, "entered", 2)
    >>> [(cell.segment, cell.counts) for cell in combiner.close(60.0)]
    [((), {'entered': 2}), ((('device', 'mobile'),), {'entered': 2})]
    """

    def __init__(self) -> None:
        self._codes = array("q")
        self._sums: dict[int, int] = {}
        self._fields: dict[str, int] = {}
        self._field_names: list[str] = []
        self.forget()

    def forget(self) -> None:
        """Forget all (stage, cohort); codes given out before mean nothing any more."""
        self._groups: dict[tuple[str, str], int] = {}
        self._members: list[tuple[int, ...]] = []
        self._names: list[tuple[str, str]] = []
        self._tallies: list[_Tally] = []
        self._tally_of: dict[tuple[str, Segment], int] = {}
        self._table = np.zeros((0, 0), dtype=np.int64)
        self._filled = 0

    @property
    def is_crowded(self) -> bool:
        """Whether so many (stage, cohort) were seen that it is time to forget."""
        return len(self._members) > MOST_KEPT or len(self._tallies) > MOST_KEPT

    def code(self, stage: str, cohort: str, field: str) -> int:
        """The code for one of a field, counted in every segment of the cohort."""
        group = self._groups.get((stage, cohort))
        if group is None:
            group = self._new_group(stage, cohort)
        number = self._fields.get(field)
        return group + (self._new_field(field) if number is None else number)

    def add_each(self, stage: str, cohort: str, fields: Iterable[str]) -> None:
        """Count one of each field in every segment of the cohort."""
        group = self._groups.get((stage, cohort))
        if group is None:
            group = self._new_group(stage, cohort)
        for field in fields:
            number = self._fields.get(field)
            self._codes.append(group + (self._new_field(field) if number is None else number))

    def add(self, stage: str, cohort: str, field: str, count: int = 1) -> None:
        """Add to a field in every segment of the cohort; adding 0 makes the field appear."""
        code = self.code(stage, cohort, field)
        self._sums[code] = self._sums.get(code, 0) + count

    def add_codes(self, codes: array[int]) -> None:
        """Count one for each code."""
        self._codes.extend(codes)

    def named(self, codes: array[int]) -> list[Named]:
        """What codes stand for, in a fixed order."""
        return self._name(Counter(codes))

    def _name(self, totals: Mapping[int, int]) -> list[Named]:
        found: dict[tuple[str, str], dict[str, int]] = {}
        for code, count in sorted(totals.items()):
            counts = found.setdefault(self._names[code >> _FIELD_BITS], {})
            counts[self._field_names[code & _FIELD]] = count
        return [(name, dict(sorted(counts.items()))) for name, counts in sorted(found.items())]

    def counting(self) -> list[Named]:
        """What was counted since the last `close`, in a fixed order."""
        totals = Counter(self._codes)
        for code, count in self._sums.items():
            totals[code] += count
        return self._name(totals)

    def count(self, named: Iterable[Named]) -> None:
        """Count what `counting` gave."""
        for (stage, cohort), counts in named:
            for field, count in counts.items():
                self.add(stage, cohort, field, count)

    def codes(self, named: Iterable[Named]) -> array[int]:
        """The codes of what `named` gave."""
        codes = array("q")
        for (stage, cohort), counts in named:
            for field, count in counts.items():
                codes.extend([self.code(stage, cohort, field)] * count)
        return codes

    def close(self, ts: float) -> list[Cell]:
        """The cells of the bucket that starts at `ts`, in a fixed order."""
        if not self._codes and not self._sums:
            return []
        summed = self._sum_few() if len(self._codes) + len(self._sums) <= FEW else self._sum_many()
        self._codes, self._sums = array("q"), {}
        cells: list[tuple[str, Cell]] = []
        last = -1
        for key, count in summed:
            if key >> _FIELD_BITS != last:
                last = key >> _FIELD_BITS
                name, stage, segment = self._tallies[last]
                counts: dict[str, int] = {}
                cells.append((name, Cell(ts, stage, segment, counts)))
            counts[self._field_names[key & _FIELD]] = count
        cells.sort(key=_NAME)
        return [cell for _, cell in cells]

    def _sum_few(self) -> list[tuple[int, int]]:
        """(tally and field, count) in the order of the tallies."""
        found: dict[int, int] = {}
        for codes in (Counter(self._codes), self._sums):
            for code, count in codes.items():
                field = code & _FIELD
                for tally in self._members[code >> _FIELD_BITS]:
                    key = tally << _FIELD_BITS | field
                    found[key] = found.get(key, 0) + count
        return sorted(found.items())

    def _sum_many(self) -> Iterable[tuple[int, int]]:
        """The same as `_sum_few`, for many."""
        codes, counts = np.unique(np.frombuffer(self._codes, dtype=np.int64), return_counts=True)
        if self._sums:
            codes = np.concatenate([codes, np.fromiter(self._sums.keys(), np.int64, len(self._sums))])
            counts = np.concatenate([counts, np.fromiter(self._sums.values(), np.int64, len(self._sums))])
        tallies = self._padded()[codes >> _FIELD_BITS]
        keys = (tallies << _FIELD_BITS | (codes & _FIELD)[:, None]).ravel()
        counts = np.repeat(counts, tallies.shape[1])
        there = keys >= 0  # a cohort in fewer segments than others is padded with -1
        keys, where = np.unique(keys[there], return_inverse=True)
        sums = np.zeros(len(keys), dtype=np.int64)
        np.add.at(sums, where, counts[there])
        return zip(keys.tolist(), sums.tolist(), strict=True)

    def _padded(self) -> npt.NDArray[np.int64]:
        """Group → its tallies; -1 where it has fewer than others."""
        members, table = self._members, self._table
        width = max(table.shape[1], max(map(len, members[self._filled :]), default=0))
        if len(table) < len(members) or table.shape[1] < width:
            self._table = np.full((2 * len(members), width), -1, dtype=np.int64)  # room for some time
            self._filled, table = 0, self._table
        for group in range(self._filled, len(members)):
            table[group, : len(members[group])] = members[group]
        self._filled = len(members)
        return table

    def _new_field(self, field: str) -> int:
        number = len(self._field_names)
        if number > _FIELD:
            raise OverflowError(f"more than {_FIELD} counted fields")
        self._fields[field] = number
        self._field_names.append(field)
        return number

    def _new_group(self, stage: str, cohort: str) -> int:
        members = []
        for segment in segments_of(cohort):
            tally = self._tally_of.get((stage, segment))
            if tally is None:
                tally = self._tally_of[stage, segment] = len(self._tallies)
                name = f"{stage} {','.join(f'{label}={value}' for label, value in segment)}"
                self._tallies.append(_Tally(name, stage, segment))
            members.append(tally)
        group = self._groups[stage, cohort] = len(self._members) << _FIELD_BITS
        self._names.append((stage, cohort))
        self._members.append(tuple(members))
        return group


_NAME: Final = itemgetter(0)


def merge(into: dict[str, int], counts: Mapping[str, int]) -> None:
    """Add the counts of one cell to another."""
    for field, count in counts.items():
        into[field] = into.get(field, 0) + count

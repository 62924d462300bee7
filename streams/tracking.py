"""What the events themselves are like: counted for each source, so that broken tracking is told from broken trust.

A `Tracker` sits in the sessionize stage of one events partition. It counts, in windows of event time, every event by
source, type, page and device, the values of labels, the size of numbers, duplicates, late events, dead letters, what
sessions begin with, and how many went on past each stage. A window leaves as one cell a source (stage `TRACKING`) with
the last bucket in it; all counts are integers, so the sum over partitions does not depend on how events were spread.

`streams.tracking_rows` turns the merged cells into what `detectors.data_trust` judges.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from math import frexp
from typing import Any, Final, TypeAlias

import msgspec

from detectors._stages import TRACKING
from streams.combine import OTHER_VALUE
from streams.events import CONTROL_TYPES, Event
from streams.frames import Cell, Segment
from streams.journey import Journey
from streams.settings import Settings

WINDOW_S: Final = 600.0
"""Width of a window, event time: short enough to tell what broke before trust looks broken."""
DEVICE: Final = "device"
"""The label by which tracking breaks: snippets, apps and consent banners differ by device, seldom by campaign."""
MOST_PAGES: Final = 30
"""Page templates of a source that keep their name in a partition; the rest is counted as `other`."""
MOST_VALUES: Final = 20
"""Values of a label, and of a device, that are told for a source and window; the rest is counted as `other`."""
MOST_SHAPES: Final = 20_000
"""Different (type, page, labels) of a source and window; beyond it pages and labels of new ones are `other`."""
TWICE_S: Final = 0.5
"""The same person, type and page again so soon is a tag that fires twice."""
NUMBERS: Final[dict[str, tuple[str, ...]]] = {
    "page_left": ("dwell_s", "scroll_ratio"), "purchased": ("value",), "lead_scored": ("score",),
    "lead_won": ("value",), "survey_answered": ("score",),
}  # fmt: skip
"""Type → properties whose size is watched: a unit or a scale that changes moves them by a factor of ten or more."""
LEAST_GIVEN: Final = 20
"""Events of a type that have a label in one window, before the type is known to have it."""
_RAPID: Final = frozenset({"clicked"})
"""What people do twice within `TWICE_S` themselves."""

Tally: TypeAlias = "Counter[tuple[Any, ...]]"
Stored: TypeAlias = list[tuple[list[Any], int]]


class TrackingState(msgspec.Struct, array_like=True):
    """What a tracker knows; part of the checkpoint of sessionize.

    Attributes:
        windows: window number → source (empty: sessions of all) → (what, how many).
        pages: source → pages that kept their name, in the order in which they got it.
        given: source → (type, label) of which most events have had the label: missing there, it is missing.
    """

    windows: dict[int, dict[str, Stored]] = {}
    pages: dict[str, list[str]] = {}
    given: dict[str, list[tuple[str, str]]] = {}


class Tracker:
    """Counts what the events of one events partition are like.

    Args:
        settings: bucket width, and the labels that are watched.
        journey: which stage a page belongs to.
    """

    def __init__(self, settings: Settings, journey: Journey) -> None:
        self._bucket_s = settings.time.bucket_s
        self._per_window = WINDOW_S / self._bucket_s
        self._watched = frozenset((*settings.segments.watch, *settings.segments.watch_leads))
        self._called = {topic.name: topic.source for topic in settings.topics.raw if topic.source}
        self._journey = journey
        self._windows: dict[int, dict[str, Tally]] = {}
        self._pages: dict[str, dict[str, None]] = {}
        self._given: dict[str, set[tuple[str, str]]] = {}
        self._told: dict[str, dict[tuple[Any, ...], tuple[str, ...]]] = {}  # source → shape → its fields

    # ── counting ──────────────────────────────────────────────────────────────────────────────────────────────────

    def last_bucket(self, bucket: int) -> int:
        """The bucket with which the window of this one leaves."""
        window = int(bucket // self._per_window)
        return int(-(-(window + 1) * WINDOW_S // self._bucket_s)) - 1

    def take(self, source: str, events: Sequence[tuple[int, Event]]) -> None:
        """Count events that a source (`topic/partition`) sent, each with its bucket."""
        topic, _, partition = source.rpartition("/")
        topic = self._called.get(topic, topic)
        for window, mine in self._by_window(events):
            tally = self._tally(window, topic)
            # As tuples that are counted in C, and flat, names before values: every event comes by here.
            shapes = [
                (event.type, event.page, event.session is None, *event.segment, *event.segment.values())
                for event in mine
            ]
            if len(tally) + len(shapes) < MOST_SHAPES:
                tally.update(shapes)
            else:
                for shape in shapes:
                    tally[self._bounded(shape, tally)] += 1
            tally[0, partition] += len(mine)
            tally.update([_sizes(event) for event in mine if event.type in NUMBERS])

    def _by_window(self, events: Sequence[tuple[int, Event]]) -> Iterable[tuple[int, list[Event]]]:
        """Events by window; those of a frame are nearly always of one."""
        per_window, buckets = self._per_window, [bucket for bucket, _ in events]
        if int(min(buckets) // per_window) == (last := int(max(buckets) // per_window)):
            return ((last, [event for _, event in events]),)
        found: dict[int, list[Event]] = {}
        for bucket, event in events:
            found.setdefault(int(bucket // per_window), []).append(event)
        return found.items()

    def note(self, source: str, bucket: int, *what: str) -> None:
        """Count one item that was no event to apply: `dup`, `late`, or `dead` with its reason."""
        topic = source.rpartition("/")[0]
        self._tally(int(bucket // self._per_window), self._called.get(topic, topic))[(1, *what)] += 1

    def begin(self, bucket: int, event: Event, *, cut: bool) -> None:
        """Count a session that begins with this event; `cut`: the same person was in one a moment ago."""
        tally = self._tally(int(bucket // self._per_window), "")
        tally[(2, "begun")] += 1
        if event.type != "page_viewed":
            tally[(2, "headless")] += 1
        if cut:
            tally[(2, "cut")] += 1

    def cross(self, bucket: int, before: str, after: str, device: str) -> None:
        """Count a move from one stage to another one: each stage that it left behind was got past."""
        rank = self._journey.rank
        first, last = rank.get(before, 0), rank.get(after, 0)
        if first < last:
            tally = self._tally(int(bucket // self._per_window), "")
            for stage in self._journey.stages[first:last]:
                tally[(3, stage, device)] += 1

    def repeats(self, bucket: int, events: Sequence[Event]) -> None:
        """Count events of one slice of a bucket that came twice: not an id again, but a tag that fires twice."""
        if len({event.person for event in events}) == len(events):
            return
        keys = [(event.person, event.type, event.page_id or event.page) for event in events]
        if len(set(keys)) == len(keys):
            return
        times: dict[tuple[Any, ...], list[float]] = {}
        for key, event in zip(keys, events, strict=True):
            times.setdefault(key, []).append(event.time)
        pages = {key: event.page for key, event in zip(keys, events, strict=True)}
        for key, found in times.items():
            if len(found) > 1 and key[1] not in _RAPID:
                found.sort()
                twice = sum(later - earlier < TWICE_S for earlier, later in pairwise(found))
                if twice:
                    tally = self._tally(int(bucket // self._per_window), "")
                    what = (4, key[1], pages[key])
                    tally[what if what in tally or len(tally) < MOST_SHAPES else (4, key[1], OTHER_VALUE)] += twice

    def _tally(self, window: int, topic: str) -> Tally:
        tallies = self._windows.setdefault(window, {})
        found = tallies.get(topic)
        if found is None:
            found = tallies[topic] = Counter()
        return found

    @staticmethod
    def _bounded(shape: tuple[Any, ...], tally: Tally) -> tuple[Any, ...]:
        return shape if shape in tally or len(tally) < MOST_SHAPES else (shape[0], OTHER_VALUE, shape[2])

    # ── leaving ───────────────────────────────────────────────────────────────────────────────────────────────────

    def planned(self) -> Iterator[int]:
        """Buckets with which windows leave that hold something."""
        return (self.last_bucket(int(window * WINDOW_S // self._bucket_s)) for window in self._windows)

    def close(self, bucket: int) -> list[Cell]:
        """The cells of the window that ends with this bucket, in a fixed order; none, if none does."""
        window = int(bucket // self._per_window)
        if window not in self._windows or self.last_bucket(bucket) != bucket:
            return []
        tallies = self._windows.pop(window)
        ts = bucket * self._bucket_s
        told = {topic: self._fields(topic, tallies[topic]) for topic in sorted(tallies, reverse=True)}  # "" knows pages
        return [Cell(ts, TRACKING, _segment(topic), told[topic]) for topic in sorted(told)]

    def _fields(self, topic: str, tally: Tally) -> dict[str, int]:
        counts: Counter[str] = Counter()
        pages, missing = self._name_pages(topic, tally), self._missing(topic, tally)
        counts.update({f"label|{label}|": count for label, count in missing.items()})
        told = self._told.setdefault(topic, {})  # a page that was `other` stays so: nothing of it becomes untrue
        if len(told) > MOST_SHAPES:
            told.clear()
        for key, count in tally.items():
            first = key[0]
            if isinstance(first, str):
                fields = told.get(key)
                if fields is None:
                    fields = told[key] = self._event_fields(key, pages, self._given[topic])
                for field in fields:
                    counts[field] += count
            elif first == 4:
                named = next((pages for pages in self._pages.values() if key[2] in pages), {})
                counts[f"twice|{key[1]}|{self._place(key[2], named)}"] += count
            elif first == 5:
                for name, size in zip(NUMBERS[key[1]], key[2:], strict=True):
                    counts[f"size|{key[1]}|{name}|{'' if size is None else size}"] += count
            else:
                counts["|".join((("part", "", "", "past")[first], *key[1:])).lstrip("|")] += count
        return dict(sorted(_few(counts).items()))

    def _missing(self, topic: str, tally: Tally) -> Counter[str]:
        """Label → events that lack it, of types most of whose events have it, now or in a window before.

        By type: a source that sends leads and visits has more events without a device when more leads come, and a
        label that a type seldom has is no field of it.
        """
        have, totals = Counter[tuple[str, str]](), Counter[str]()
        for key, count in tally.items():
            if isinstance(key[0], str) and key[0] not in CONTROL_TYPES:
                kind, labels = key[0], key[3:]
                half = len(labels) // 2
                totals[kind] += count
                have.update({
                    (kind, label): count
                    for label, value in zip(labels[:half], labels[half:], strict=True)
                    if value and label in self._watched
                })  # fmt: skip
        given = self._given.setdefault(topic, set())
        new = {field for field, count in have.items() if count >= LEAST_GIVEN and 2 * count > totals[field[0]]} - given
        if new:
            given |= new
            self._told.pop(topic, None)
        missing = Counter[str]()
        for kind, label in given:
            missing[label] += totals[kind] - have[kind, label]
        return +missing

    def _event_fields(
        self, key: tuple[Any, ...], pages: dict[str, None], given: set[tuple[str, str]]
    ) -> tuple[str, ...]:
        """The fields in which events of a shape are counted."""
        kind, page, no_session, *labels = key
        if kind in CONTROL_TYPES:
            return ()
        fields, device, half = ["session"] * (not no_session), "", len(labels) // 2
        for label, value in zip(labels[:half], labels[half:], strict=True):
            if label == DEVICE:
                device = value
            if value and (kind, label) in given:
                fields.append(f"label|{label}|{value}")
        return (*fields, f"event|{kind}|{self._place(page, pages)}|{device}")

    def _place(self, page: str | None, pages: dict[str, None]) -> str:
        """`page|stage`; the stage of a page that its views do not tell is empty."""
        if page is None:
            return "|"
        if page not in pages:
            return f"{OTHER_VALUE}|"
        return f"{page}|{self._journey.stage_of(Event('', 'page_viewed', 0.0, '', page=page)) or ''}"

    def _name_pages(self, topic: str, tally: Tally) -> dict[str, None]:
        """Pages that keep their name: the commonest of the window in which they show first, while there is room."""
        known = self._pages.setdefault(topic, {})
        new: Counter[str] = Counter()
        for key, count in tally.items():
            if isinstance(key[0], str) and key[1] is not None and key[1] not in known:
                new[key[1]] += count
        for page, _ in sorted(new.items(), key=lambda each: (-each[1], each[0])):
            if len(known) >= MOST_PAGES:
                break
            known[page] = None
        return known

    # ── state as data ─────────────────────────────────────────────────────────────────────────────────────────────

    def snapshot(self) -> TrackingState:
        """The state as data, in a fixed order."""
        windows = {
            window: {topic: [(list(key), count) for key, count in sorted(tally.items(), key=_plain)]
                     for topic, tally in sorted(tallies.items())}
            for window, tallies in sorted(self._windows.items())
        }  # fmt: skip
        pages = {topic: list(pages) for topic, pages in sorted(self._pages.items())}
        return TrackingState(windows, pages, {topic: sorted(given) for topic, given in sorted(self._given.items())})

    def adopt(self, state: TrackingState) -> None:
        """Take up a state that `snapshot` gave."""
        self._windows = {
            window: {topic: Counter({_key(key): count for key, count in stored}) for topic, stored in tallies.items()}
            for window, tallies in state.windows.items()
        }
        self._pages = {topic: dict.fromkeys(pages) for topic, pages in state.pages.items()}
        self._given = {topic: set(given) for topic, given in state.given.items()}
        self._told = {}


def _sizes(event: Event) -> tuple[Any, ...]:
    """What the numbers of an event are counted as: powers of two; None for zero, and where none is given."""
    get = event.properties.get
    values = [get(name) for name in NUMBERS[event.type]]
    return (5, event.type, *(frexp(value)[1] if isinstance(value, int | float) and value else None for value in values))


def _key(stored: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(tuple(part) if isinstance(part, list | tuple) else part for part in stored)


def _plain(entry: tuple[tuple[Any, ...], int]) -> str:
    return repr(entry[0])


def _segment(topic: str) -> Segment:
    return (("source", topic),) if topic else ()


def _few(counts: Counter[str]) -> Counter[str]:
    """At most `MOST_VALUES` values of each label; the rest is `other`. Devices are bounded by the labels' own limit."""
    by_label: dict[str, list[tuple[int, str]]] = {}
    for field, count in counts.items():
        if field.startswith("label|") and not field.endswith("|"):
            by_label.setdefault(field.split("|", 2)[1], []).append((-count, field))
    for label, found in by_label.items():
        for count, field in sorted(found)[MOST_VALUES:]:
            del counts[field]
            counts[f"label|{label}|{OTHER_VALUE}"] -= count
    return counts

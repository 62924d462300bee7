"""What streams did since this worker started, by looking at them now and then: bounded, and at no cost per event.

The line keeps running sums for `/metrics`; the difference of two looks is what happened in between. Points get wider
as time goes on, so a track of any length takes the same memory. What was before this worker started is in Prometheus.
"""

from __future__ import annotations

import logging
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from math import isnan
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import numpy as np

from detectors._base import Detector
from detectors._rate import RateDetector
from detectors._several import SeveralRates
from detectors._slow import SlowRates
from detectors.lead_score_drift import ACCEPT, WIN, LeadScoreDrift
from streams.findings import Finding
from streams.frames import NEVER, Segment
from streams.judge import Where
from streams.metrics import OUTCOMES, _Breath
from streams.watch import Key, Watcher

if TYPE_CHECKING:
    from streams.app import Line

POINTS: Final = 160
"""Of a track; when it has more, each two become one."""
STEP_S: Final = 60.0
"""Width of a point at first, event time, seconds."""
TRACKS: Final = 256
"""Streams that are remembered: those with open findings, everyone of each stage, then the largest."""
CHOOSE_EVERY_S: Final = 30.0
PACE_EVERY_S: Final = 2.0
PACES: Final = 150
UNKNOWN: Final = float("nan")
AnswerT = TypeVar("AnswerT")
log = logging.getLogger(__name__)

Instances = Mapping[Where, Detector[Any, Any]]


class View(NamedTuple):
    """One rate that a detector watches.

    Attributes:
        detector: its name.
        name: the view; "" of a detector that has but one.
        hits: count fields that add up to the hits.
        trials: count fields that add up to the trials.
        worse: the bad side.
    """

    detector: str
    name: str
    hits: tuple[str, ...]
    trials: tuple[str, ...]
    worse: str

    @property
    def key(self) -> str:
        """What it is called in the JSON."""
        return f"{self.detector}.{self.name}" if self.name else self.detector


def views_of(classes: Mapping[str, type[Detector[Any, Any]]]) -> list[View]:
    """The rates that these detectors watch, from what they say of themselves."""
    found: list[View] = []
    for name, cls in classes.items():
        if issubclass(cls, SeveralRates | SlowRates):
            found += [View(name, kind, rate.hits, rate.trials, rate.worse) for kind, rate in cls.rates.items()]
        elif issubclass(cls, RateDetector):
            found.append(View(name, "", cls.hits, cls.trials, cls.worse))
        elif issubclass(cls, LeadScoreDrift):
            for kind, fields in (("acceptance", ("accept", ACCEPT)), ("conversion", ("win", WIN))):
                trials, hits = zip(*fields[1], strict=True)
                unscored = fields[0]
                found.append(View(name, kind, (f"{unscored}_k", *hits), (f"{unscored}_n", *trials), "down"))
    return found


class Point(NamedTuple):
    """What was seen between two looks.

    Attributes:
        ts: when it ends, event time, seconds.
        span_s: how long it is.
        k: hits.
        n: trials.
        expected: baseline of the rate; NaN while there is none.
        low: lower end of its 95 % interval.
        high: upper end.
    """

    ts: float
    span_s: float
    k: float
    n: float
    expected: float = UNKNOWN
    low: float = UNKNOWN
    high: float = UNKNOWN

    def join(self, later: Point) -> Point:
        """One point of two that follow one another; baselines count by trials, as they were."""
        numbers = []
        for mine, other in zip(self[4:], later[4:], strict=True):
            known = [(value, n) for value, n in ((mine, self.n), (other, later.n)) if not isnan(value)]
            weight = sum(n for _, n in known)
            if not known:
                numbers.append(UNKNOWN)
            else:
                numbers.append(sum(v * n for v, n in known) / weight if weight else known[-1][0])
        return Point(later.ts, self.span_s + later.span_s, self.k + later.k, self.n + later.n, *numbers)


WIDTH: Final = len(Point._fields)


class Series:
    """Points of one view, ascending, as plain numbers: the garbage collector has nothing to walk here."""

    def __init__(self) -> None:
        self._numbers = array("d")
        self._step_s = STEP_S

    def __len__(self) -> int:
        return len(self._numbers) // WIDTH

    def __iter__(self) -> Iterator[Point]:
        for begin in range(0, len(self._numbers), WIDTH):
            yield Point(*self._numbers[begin : begin + WIDTH])

    def total(self, window_s: float, until: float) -> Point | None:
        """All of so many seconds of event time until then, as one point; None if nothing was ever noted."""
        if not self._numbers:
            return None
        rows = np.frombuffer(self._numbers).reshape(-1, WIDTH)
        rows = rows[rows[:, 0] > until - window_s]
        n, known = rows[:, 3], ~np.isnan(rows[:, 4])
        baseline = [UNKNOWN] * 3
        if (weight := float(n[known].sum())) > 0:
            baseline = [float(n[known] @ rows[known, column]) / weight for column in (4, 5, 6)]
        return Point(until, float(rows[:, 1].sum()), float(rows[:, 2].sum()), float(n.sum()), *baseline)

    def add(self, point: Point) -> None:
        """Take a point; it joins the last one while both are not wider than a step."""
        if self._numbers:
            last = Point(*self._numbers[-WIDTH:])
            if last.span_s + point.span_s <= self._step_s:
                del self._numbers[-WIDTH:]
                point = last.join(point)
        self._numbers.extend(point)
        if len(self) > POINTS:
            points = list(self)
            self._numbers = array("d")
            self._step_s *= 2
            for one in range(0, len(points), 2):
                pair = points[one : one + 2]
                self._numbers.extend(pair[0].join(pair[1]) if len(pair) == 2 else pair[0])


class Track:
    """One stream: a stage and segment, with every view of it."""

    def __init__(self, at: float, sums: list[tuple[int, int]]) -> None:
        self.began = self.at = at
        self._sums = sums
        self.series = [Series() for _ in sums]

    def look(self, at: float, sums: list[tuple[int, int]], baselines: list[tuple[float, float, float]]) -> None:
        """Note what came since the last look."""
        for series, (k0, n0), (k1, n1), baseline in zip(self.series, self._sums, sums, baselines, strict=True):
            if n1 > n0:
                span_s = STEP_S if self.at == NEVER else at - self.at
                series.add(Point(at, span_s, k1 - k0, n1 - n0, *baseline))
        self.at, self._sums = at, sums


class Pace(NamedTuple):
    """How fast the line was: clock of the worker, seconds, and events a second until then."""

    at: float
    events_per_s: float


class History:
    """Looks at the line.

    Args:
        line: which.

    Attributes:
        views: the rates that are followed.
        tracks: counts partition → stream → what it did.
        paces: throughput, every few seconds.
        torn: questions that a detector did not answer, because it was learning meanwhile, or has a bug.
        since: when it began to look, seconds since the epoch.
    """

    def __init__(self, line: Line) -> None:
        self._line = line
        self.views = views_of(line.plan.detectors.classes)
        self.tracks: dict[int, dict[Key, Track]] = {}
        self._watchers: dict[int, Watcher] = {}
        self._chosen_at = 0.0
        self._known = 0
        self.paces: deque[Pace] = deque(maxlen=PACES)
        self._paced = (0.0, 0)
        self.torn = 0
        self._complained: set[str] = set()
        self.since = time.time()

    def watchers(self) -> dict[int, Watcher]:
        """Counts partition → its detect and judge stages, as owned now."""
        return {partition: slot.unit.stage for partition, slot in list(self._line.watch.slots.items())}

    def look(self) -> None:
        """Take note of what has happened since the last look; cheap while nothing has."""
        self._pace()
        watchers = self.watchers()
        for partition, watcher in watchers.items():
            if self._watchers.get(partition) is not watcher:  # new here, or loaded anew: its sums begin at zero
                self.tracks[partition] = {}
                self._chosen_at = 0.0
        self._watchers = watchers
        self.tracks = {partition: tracks for partition, tracks in self.tracks.items() if partition in watchers}
        self._choose()
        breath = _Breath()
        for partition, watcher in watchers.items():
            at = watcher.state.judged_until
            if at == NEVER:
                continue
            due = [(key, track) for key, track in self.tracks[partition].items() if at - track.at >= STEP_S]
            instances = dict(watcher.detectors()) if due else {}
            for key, track in due:
                breath.take()
                track.look(at, self._sums(watcher, key), self._baselines(instances, key))

    def ask(self, detector: str, question: Callable[[], AnswerT], otherwise: AnswerT) -> AnswerT:
        """What a detector says that may be learning at this moment; one that raises costs nobody else anything."""
        try:
            return question()
        except Exception as error:
            self.torn += 1
            if detector not in self._complained:
                self._complained.add(detector)
                log.warning("status page: %s was not read; said once, counted in torn_baselines", detector,
                            exc_info=error)  # fmt: skip
            return otherwise

    def track(self, stage: str, segment: Segment) -> Track | None:
        """What is remembered of a stream; None if it is not followed."""
        return next((tracks[stage, segment] for tracks in self.tracks.values() if (stage, segment) in tracks), None)

    def series(self, stage: str, segment: Segment, view: View) -> Series:
        """What is remembered of one view; empty if the stream is not followed."""
        track = self.track(stage, segment)
        return track.series[self.views.index(view)] if track else Series()

    # ── which streams ─────────────────────────────────────────────────────────────────────────────────────────────

    def _choose(self) -> None:
        """Begin to follow streams, and leave those that are small once there are too many."""
        known = sum(len(watcher.rates) for watcher in self._watchers.values())
        now = time.monotonic()
        crowded = known > TRACKS
        if self._chosen_at and (now - self._chosen_at < CHOOSE_EVERY_S if crowded else known == self._known):
            return
        self._known, self._chosen_at = known, now
        ranked = []
        for partition, watcher in self._watchers.items():
            told = _told(watcher)
            for key, counts in _Breath().over(list(watcher.rates.items())):
                size = sum(counts.get(name, 0) for name in ("entered", "scored", "sent", "ordered"))
                ranked.append((key in told, not key[1], size, partition, key))
        chosen = {(partition, key) for *_, partition, key in sorted(ranked, reverse=True)[:TRACKS]}
        for partition, watcher in self._watchers.items():
            tracks, at = self.tracks[partition], watcher.state.judged_until
            for key in [key for key in tracks if (partition, key) not in chosen]:
                del tracks[key]
            for key in [key for where, key in chosen if where == partition and key not in tracks]:
                tracks[key] = Track(at, self._sums(watcher, key))

    # ── what they did ─────────────────────────────────────────────────────────────────────────────────────────────

    def _sums(self, watcher: Watcher, key: Key) -> list[tuple[int, int]]:
        get = watcher.rates.get(key, {}).get
        return [
            (sum([get(name, 0) for name in view.hits]), sum([get(name, 0) for name in view.trials]))
            for view in self.views
        ]

    def _baselines(self, instances: Instances, key: Key) -> list[tuple[float, float, float]]:
        traces: dict[str, Mapping[str, float]] = {}
        found = []
        for view in self.views:
            if view.detector not in traces:
                traces[view.detector] = self._trace(instances.get((view.detector, *key)), view.detector)
            get, before = traces[view.detector].get, f"{view.name}." if view.name else ""
            found.append(
                (get(f"{before}expected", UNKNOWN), get(f"{before}low", UNKNOWN), get(f"{before}high", UNKNOWN))
            )
        return found

    def _trace(self, instance: Detector[Any, Any] | None, detector: str) -> Mapping[str, float]:
        if instance is None:
            return {}

        def trace() -> dict[str, float]:
            return {name: float(value) for name, value in (instance.trace() or _learnt(instance)).items()}

        return self.ask(detector, trace, {})

    def _pace(self) -> None:
        now, (then, before) = time.time(), self._paced
        if now - then < PACE_EVERY_S:
            return
        total = consumed(self._line)
        if then and total >= before:  # it falls when a partition goes
            self.paces.append(Pace(now, (total - before) / (now - then)))
        self._paced = now, total


def _learnt(instance: Detector[Any, Any]) -> dict[str, float]:
    """Overall acceptance and conversion as learnt, of a detector of leads, which gives no trace."""
    tables = ((name, getattr(instance.state, name, None)) for name in ("acceptance", "conversion"))
    return {
        f"{name}.expected": table.figures[1][0]
        for name, table in tables
        if table is not None and table.ready and len(table.figures) > 1
    }


def _told(watcher: Watcher) -> set[Key]:
    """Streams that an open finding is about."""
    return {(one.segment["stage"], segment_of(one)) for one in watcher.findings if one.resolved_at is None}


def segment_of(finding: Finding) -> Segment:
    """The segment without its stage."""
    return tuple(sorted((label, value) for label, value in finding.segment.items() if label != "stage"))


def consumed(line: Line) -> int:
    """Items that the partitions of this worker have accounted for; for ingest alone, items read."""
    if not line.stages:
        door = line.ingest.door if line.ingest else None
        return sum(list(door.outcomes.values())) if door else 0
    total = 0
    for slot in list(line.sessionize.slots.values()):
        for source in list(slot.unit.stage.state.sources.values()):
            total += sum(source.outcomes.get(outcome, 0) for outcome in OUTCOMES)
    return total

"""The answers: what a worker knows, as JSON, read without stopping it.

Dicts of the line are copied by `list(...)`, in one step under the GIL; long ones are read with breaths. A count of
fewer than five is left out (`null`), wherever it shows, and so is what would give it away: a rate with fewer than five
hits or misses, and a second part of a whole of which one part is hidden. What is counted are steps and leads: a person
who comes twice counts twice.
"""

from __future__ import annotations

import resource
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from math import isnan
from typing import TYPE_CHECKING, Any, Final

import msgspec

from detectors._base import Detector
from detectors._stages import BESIDE, LEADS, TRACKING
from streams.events import REASONS
from streams.findings import LEAST, Finding, is_small, iso
from streams.frames import NEVER
from streams.metrics import LEAD_COUNTS, LEVELS, OUTCOMES, STEP_OUTCOMES, _Breath, segment_label
from streams.watch import Key, Watcher
from streams.web.history import UNKNOWN, History, Instances, Point, View, consumed, segment_of

if TYPE_CHECKING:
    from streams.app import Line

WINDOW_S: Final = 86_400.0
"""Event time over which rates are told beside their baseline, seconds."""
LEADS_WINDOW_S: Final = 7 * 86_400.0
"""The same for leads, of which there are fewer."""
MOST_ROWS: Final = 300
MOST_RECENT: Final = 50
MOST_POINTS: Final = 90
ENOUGH_N: Final = 25
"""Trials in a point of a drawn series from which on its rate can be read."""
BANDS: Final = 5
"""Parts of the score scale for calibration."""

Body = dict[str, Any]


class NotFound(Exception):
    """There is no such answer, finding or stage."""


class Documents:
    """Makes them.

    Args:
        line: what is read.
        history: what was seen before.

    Attributes:
        worker: tells the answers of one process from those of another; it says nothing else.
    """

    def __init__(self, line: Line, history: History) -> None:
        self._line = line
        self._history = history
        self._version = version("trustwatch")
        self._makers = {"findings": self._findings, "leads": self._leads, "data": self._data,
                        "pipeline": self._pipeline}  # fmt: skip
        self.worker = secrets.token_hex(4)

    def require(self, name: str, what: str = "", stage: str = "") -> None:
        """See whether there may be such an answer, without reading the line.

        Raises:
            NotFound: there is none for sure.
        """
        if (name != "segments" and name not in self._makers) or (what and name != "findings"):
            raise NotFound(
                f"no such answer; known: /api/segments, /api/{', /api/'.join(self._makers)}, /api/findings/<id>"
            )
        journey = self._line.plan.journey.stages
        if stage and stage not in journey:
            raise NotFound(f"no stage {stage[:40]!r}; known: {', '.join(journey)}")

    def make(self, name: str, what: str = "", stage: str = "") -> Body:
        """One answer.

        Args:
            name: `findings`, `segments`, `leads`, `data` or `pipeline`.
            what: id of a finding; only with `findings`.
            stage: only rows of this stage; only with `segments`.

        Raises:
            NotFound: there is no such answer, finding or stage.
        """
        self.require(name, what, stage)
        if name == "segments":
            return self._segments(stage)
        return self._finding(what) if what else self._makers[name]()

    # ── findings ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _findings(self) -> Body:
        watchers = self._history.watchers()
        all_of_them = [finding for watcher in watchers.values() for finding in watcher.findings]
        still = [finding for finding in all_of_them if finding.resolved_at is None]
        ended = sorted((one for one in all_of_them if one.resolved_at), key=lambda one: one.resolved_at or "")
        return {
            **self._header(watchers),
            "open": [self._told(one) for one in sorted(still, key=_urgency)],
            "recent": [self._told(one) for one in reversed(ended[-MOST_RECENT:])],
            "quiet_since": ended[-1].resolved_at if ended and not still else None,
            "learning": [self._learning(name, watchers) for name in self._line.plan.detectors.classes],
        }

    def _told(self, finding: Finding) -> Body:
        cls = self._line.plan.detectors.classes.get(finding.detector)
        body: Body = msgspec.to_builtins(finding)
        if is_small(finding):
            hidden = dict.fromkeys(("before", "after", "n_before", "n_after"))
            body |= {**hidden, "evidence": {}, "summary": f"Fewer than {LEAST} people: not shown."}
        where = segment_label(segment_of(finding))
        return body | {"title": cls.title if cls else finding.detector, "segment_label": where,
                       "severity": cls.alert.severity if cls else None}  # fmt: skip

    def _finding(self, name: str) -> Body:
        watchers = self._history.watchers()
        found = next((one for w in watchers.values() for one in w.findings if one.id == name), None)
        if found is None:
            raise NotFound(f"no finding {name[:40]!r} here: it is older than limits.findings, or belongs to another"
                              " worker")  # fmt: skip
        segment = segment_of(found)
        views = [view for view in self._history.views if view.detector == found.detector]
        chosen = next((v for v in views if v.name == found.kind or f"seen_{v.name}" in found.evidence), None)
        chosen = chosen or (views[0] if views and found.kind != "distribution" else None)
        points = list(self._history.series(found.segment["stage"], segment, chosen)) if chosen else []
        return {
            **self._header(watchers),
            "finding": self._told(found),
            "view": chosen.key if chosen else None,
            "worse": chosen.worse if chosen else None,
            "series": _drawn(points),
            "sampled_since": points[0].ts - points[0].span_s if points else None,
        }

    def _learning(self, name: str, watchers: Mapping[int, Watcher]) -> Body:
        """How many streams of a detector are judged, and how far the oldest that learns has come."""
        said = Counter(one.level for w in watchers.values() for key, one in list(w.verdicts.items()) if key[0] == name)
        firsts = [
            watcher.state.judged_until - first
            for watcher in watchers.values()
            for key, instance in _Breath().over(watcher.detectors())
            if key[0] == name and (not key[2] or key[1] == TRACKING)  # which has no row of everybody
            and (first := self._history.ask(name, partial(_first_ts, instance), None)) is not None
        ]  # fmt: skip
        params = self._line.plan.detectors.params[name]
        return {
            "detector": name,
            "title": self._line.plan.detectors.classes[name].title,
            **{level: said.get(level, 0) for level in LEVELS},
            "seen_s": max(firsts, default=0.0),
            "warmup_s": getattr(params, "warmup_s", None),
        }

    # ── segments ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _segments(self, stage: str) -> Body:
        journey = self._line.plan.journey.stages
        watchers = self._history.watchers()
        keys = [
            (counts.get("entered", 0), key, partition)
            for partition, watcher in watchers.items()
            for key, counts in _Breath().over(list(watcher.rates.items()))
            if key[0] not in BESIDE and (not stage or key[0] == stage)
        ]
        keys.sort(key=lambda one: (bool(one[1][1]), -one[0], one[1]))  # everyone of each stage first
        shown = [(key, partition) for entered, key, partition in keys[:MOST_ROWS] if entered >= LEAST]
        rows = [self._row(key, watchers[partition]) for key, partition in _Breath().over(shown)]
        rows.sort(key=lambda row: journey.index(row["stage"]))
        return {
            **self._header(watchers),
            "window_s": WINDOW_S,
            "stages": list(journey),
            "segments": rows,
            "hidden": sum(entered < LEAST for entered, _, _ in keys[:MOST_ROWS]),
            "left_out": max(0, len(keys) - MOST_ROWS),
        }

    def _row(self, key: Key, watcher: Watcher) -> Body:
        stage, segment = key
        counts = dict(watcher.rates.get(key, {}))
        views = {
            view.key: self._rate(view, key, counts, watcher.state.judged_until)
            for view in self._history.views
            if view.detector != "lead_score_drift" and not counts.keys().isdisjoint(view.trials)
        }
        return {
            "stage": stage,
            "segment": dict(segment),
            "segment_label": segment_label(segment),
            "counts": _shown(counts, ("entered", *STEP_OUTCOMES), STEP_OUTCOMES),
            "rates": views,
            "levels": self._levels(key, watcher),
        }

    def _levels(self, key: Key, watcher: Watcher) -> dict[str, str]:
        said = ((name, watcher.verdicts.get((name, *key))) for name in self._line.plan.detectors.classes)
        return {name: verdict.level for name, verdict in said if verdict is not None}

    def _rate(self, view: View, key: Key, counts: Mapping[str, int], until: float, window_s: float = WINDOW_S) -> Body:
        """A rate of late beside its baseline; of all since the worker started where that is all there is."""
        whole = self._history.series(*key, view).total(window_s, until)
        if whole is None:
            k, n = (sum(counts.get(name, 0) for name in names) for names in (view.hits, view.trials))
            whole = Point(0.0, 0.0, k, n)
        return {"worse": view.worse, **_pointed(whole)}

    # ── leads ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _leads(self) -> Body:
        watchers = self._history.watchers()
        rows = []
        for watcher in watchers.values():
            instances = dict(watcher.detectors())
            for (stage, segment), counts in _Breath().over(list(watcher.rates.items())):
                if stage == LEADS and counts.get("scored", 0) >= LEAST:
                    rows.append(self._lead_row((stage, segment), dict(counts), watcher, instances))
        rows.sort(key=lambda row: (bool(row["segment"]), len(row["segment"]), -(row["counts"]["scored"] or 0)))
        scale = self._line.settings.leads
        return {
            **self._header(watchers),
            "score_min": scale.score_min,
            "score_max": scale.score_max,
            "window_s": LEADS_WINDOW_S,
            "acceptance_horizon_days": scale.acceptance_horizon_days,
            "segments": rows[:MOST_ROWS],
            "left_out": max(0, len(rows) - MOST_ROWS),
        }

    def _lead_row(self, key: Key, counts: dict[str, int], watcher: Watcher, instances: Instances) -> Body:
        views = [view for view in self._history.views if view.detector == "lead_score_drift"]
        bins = self._line.settings.leads.score_bins
        scored = [counts.get(f"score_{b}", 0) for b in range(bins)]
        mean = sum((b + 0.5) / bins * n for b, n in enumerate(scored)) / max(1, sum(scored))
        scale = self._line.settings.leads
        return {
            "segment": dict(key[1]),
            "segment_label": segment_label(key[1]),
            "counts": _shown(counts, LEAD_COUNTS, ("accepted", "rejected"), ("won", "lost")),
            "mean_score": scale.score_min + mean * (scale.score_max - scale.score_min),
            "rates": {
                view.key: self._rate(view, key, counts, watcher.state.judged_until, LEADS_WINDOW_S) for view in views
            },
            "calibration": self._calibration(counts, instances.get(("lead_score_drift", *key))),
            "levels": self._levels(key, watcher),
        }

    def _calibration(self, counts: Mapping[str, int], instance: Detector[Any, Any] | None) -> list[Body]:
        """Acceptance by part of the score scale, as observed and as the detector has learnt it."""
        bins, scale = self._line.settings.leads.score_bins, self._line.settings.leads
        curve = self._history.ask("lead_score_drift", partial(_curve, instance, bins), list[float]())
        width = (scale.score_max - scale.score_min) / bins
        bands: list[list[int]] = [[] for _ in range(BANDS)]
        for b in range(bins):
            bands[b * BANDS // bins].append(b)
        points = []
        for band in bands:
            leads = [counts.get(f"accept_n_{b}", 0) for b in band]
            n, k = sum(leads), sum(counts.get(f"accept_k_{b}", 0) for b in band)
            promised = sum(m * curve[b] for m, b in zip(leads, band, strict=True)) / n if curve and n else UNKNOWN
            points.append(Point(0.0, 0.0, k, n, promised))
        second = _second([point.n for point in points], [_gives_away(point) for point in points])
        return [
            {"from": scale.score_min + band[0] * width, "to": scale.score_min + (band[-1] + 1) * width,
             **_pointed(point, hidden=at == second)}
            for at, (band, point) in enumerate(zip(bands, points, strict=True))
        ]  # fmt: skip

    # ── data trust ────────────────────────────────────────────────────────────────────────────────────────────────

    def _data(self) -> Body:
        topics = {topic.name: self._topic() for topic in self._line.settings.topics.raw}
        for slot in list(self._line.sessionize.slots.values()):
            for name, source in list(slot.unit.stage.state.sources.items()):
                topic = topics.setdefault(name.rpartition("/")[0], self._topic())
                for outcome in OUTCOMES:
                    topic[outcome] += source.outcomes.get(outcome, 0)
                self._freshen(topic, source.time, source.idle)
        door = self._line.ingest.door if self._line.ingest else None
        for (name, outcome, detail), count in list(door.outcomes.items() if door else ()):
            if outcome == "dead_letter":
                reasons = topics.setdefault(name, self._topic())["reasons"]
                reasons[detail] = reasons.get(detail, 0) + count
        return {
            **self._header(self._history.watchers()),
            "topics": [{"topic": name, **topic} for name, topic in topics.items()],
            "reasons": list(REASONS),
            "reasons_known": door is not None,
        }

    @staticmethod
    def _topic() -> Body:
        return {**dict.fromkeys(OUTCOMES, 0), "reasons": {}, "reached": None, "sources": 0, "idle_sources": 0}

    @staticmethod
    def _freshen(topic: Body, reached: float, idle: bool) -> None:
        """The newest event of a topic; another partition may know of a newer one."""
        topic["sources"] += 1
        topic["idle_sources"] += idle
        if reached != NEVER:
            topic["reached"] = max(reached, topic["reached"] or reached)

    # ── pipeline ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _pipeline(self) -> Body:
        line, paces = self._line, list(self._history.paces)
        waiting = waits_for(line)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        watchers = self._history.watchers()
        lag = {stage.name: _worst(stage.lag_s(p) for p in list(stage.slots)) for stage in (line.sessionize, line.watch)}
        if line.ingest is not None:
            lag["ingest"] = _worst(line.ingest.lag_s(where) for where in list(line.ingest.behind))
        errors: Counter[str] = Counter()
        for watcher in watchers.values():
            errors.update(dict(watcher.state.errors))
        return {
            **self._header(watchers),
            "version": self._version,
            "ready": not waiting,
            "waits_for": waiting,
            "started_at": iso(self._history.since),
            "events": consumed(line),
            "paces": [[round(pace.at), round(pace.events_per_s, 1)] for pace in paces],
            "lag_s": lag,
            "delay_s": {name: _quantiles(line.delay, name) for name in ("sessionize", "watch")},
            "checkpoints": [self._checkpoint(stage) for stage in (line.sessionize, line.watch)],
            "watched_streams": sum(watcher.streams for watcher in watchers.values()),
            "detector_errors": dict(errors),
            "send_retries": line.outbox.retries,
            "send_waiting_s": round(line.outbox.waiting_s, 1),
            "peak_memory_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
            "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
            "torn_baselines": self._history.torn,
        }

    @staticmethod
    def _checkpoint(stage: Any) -> Body:
        slots = list(stage.slots.items())
        saved = [slot.saved_at for _, slot in slots if slot.saved_at]
        return {
            "stage": stage.name,
            "age_s": round(max(0.0, time.time() - min(saved)), 1) if saved else None,
            "size_bytes": sum(slot.size_bytes for _, slot in slots),
            "behind_messages": sum(stage.behind(partition) for partition, _ in slots),
            "refused": sum(slot.unit.refused for _, slot in slots),
        }

    # ── all of them ───────────────────────────────────────────────────────────────────────────────────────────────

    def _header(self, watchers: Mapping[int, Watcher]) -> Body:
        """What every answer begins with: whose view this is."""
        topics, line = self._line.settings.topics, self._line
        events, counts = sorted(list(line.sessionize.slots)), sorted(watchers)
        complete = len(events) == topics.events_partitions and len(counts) == topics.counts_partitions
        known = [w.state.judged_until for w in watchers.values() if w.state.judged_until != NEVER]
        return {
            "worker": self.worker,
            "partitions": {
                "events": events, "events_of": topics.events_partitions, "counts": counts,
                "counts_of": topics.counts_partitions, "complete": complete,
                "note": None if complete else self._note(len(events), len(counts)),
            },
            "judged_until": iso(min(known)) if known else None,
            "least": LEAST,
        }  # fmt: skip

    def _note(self, events: int, counts: int) -> str:
        topics = self._line.settings.topics
        if not self._line.stages:
            return "This process only ingests; steps, leads and findings are at the workers."
        return (
            f"This worker has {events} of {topics.events_partitions} events partitions and {counts} of"
            f" {topics.counts_partitions} counts partitions: what the others have is at the other workers."
        )


def waits_for(line: Line) -> list[str]:
    """What a worker that is not ready waits for; empty once it is."""
    if line.note_ready():
        return []
    waiting = []
    if line.ingest is not None and line.ingest.door is None:
        waiting.append("ingest: Kafka, and the raw topics")
    if line.stages and not line._assigned:
        waiting.append("partitions: to be assigned by Kafka")
    for _, stage in line.stages:
        if loading := sorted(list(stage._loading)):
            waiting.append(f"{stage.name}: checkpoints of partitions {', '.join(map(str, loading))}")
    return waiting or ["the line to start"]


def _urgency(finding: Finding) -> tuple[bool, bool, float, str]:
    return finding.direction != "worse", finding.level != "alert", -finding.score, finding.onset


def _shown(counts: Mapping[str, int], names: Sequence[str], *wholes: Sequence[str]) -> dict[str, int | None]:
    """Counts by name, but not those that are too few; wholes are parts that add up to something that is shown."""
    hidden = {name for name in names if _is_few(counts.get(name, 0))}
    for parts in wholes:
        at = _second([counts.get(name, 0) for name in parts], [name in hidden for name in parts])
        if at is not None:
            hidden.add(parts[at])
    return {name: None if name in hidden else counts.get(name, 0) for name in names}


def _second(sizes: Sequence[float], hidden: Sequence[bool]) -> int | None:
    """Which part is to be hidden, too, lest the one that is follows from the others; None if none need be."""
    if sum(hidden) != 1:
        return None
    return min((at for at, size in enumerate(sizes) if size and not hidden[at]), key=sizes.__getitem__, default=None)


def _is_few(count: float) -> bool:
    return 0 < count < LEAST


def _gives_away(point: Point) -> bool:
    """Whether the rate says how few hit, or did not."""
    return _is_few(point.n) or _is_few(point.k) or _is_few(point.n - point.k)


def _pointed(point: Point, *, hidden: bool = False) -> Body:
    """A rate with its baseline; NaN becomes null in JSON."""
    if hidden or not point.n or _gives_away(point):
        is_counted = not hidden and not _is_few(point.n)
        return {
            "n": round(point.n) if is_counted else None,
            "rate": None,
            "expected": _number(point.expected),
            "low": None,
            "high": None,
        }
    numbers = {"rate": point.k / point.n, "expected": point.expected, "low": point.low, "high": point.high}
    return {"n": round(point.n), **{name: _number(value) for name, value in numbers.items()}}


def _number(value: float) -> float | None:
    return None if isnan(value) else round(value, 5)


def _drawn(points: list[Point]) -> list[Body]:
    """A series that can be read: few points, each of enough trials for a rate."""
    joined: list[Point] = []
    least_s = sum(point.span_s for point in points) / MOST_POINTS
    for point in points:
        last = joined[-1] if joined else None
        if last is not None and (last.n < ENOUGH_N or last.span_s < least_s or _gives_away(last)):
            joined[-1] = last.join(point)
        else:
            joined.append(point)
    return [{"from": round(one.ts - one.span_s), "to": round(one.ts), **_pointed(one)} for one in joined]


def _first_ts(instance: Detector[Any, Any]) -> float | None:
    """Event time since when an instance learns, seconds; None if it does not say."""
    parts = [instance.state, *getattr(instance.state, "rates", ()), getattr(instance.state, "acceptance", None)]
    return min((first for part in parts if (first := getattr(part, "first_ts", None)) is not None), default=None)


def _curve(instance: Detector[Any, Any] | None, bins: int) -> list[float]:
    """Acceptance by score bin as learnt; empty while it is not."""
    acceptance = getattr(getattr(instance, "state", None), "acceptance", None)
    figures = getattr(acceptance, "figures", None)
    return list(figures[0]) if acceptance and acceptance.ready and figures and len(figures[0]) == bins else []


def _worst(lags: Iterable[float | None]) -> float | None:
    return max((lag for lag in lags if lag is not None), default=None)


def _quantiles(histogram: Any, stage: str) -> Body:
    """Median and 99th percentile since the start, read between the borders of the buckets; null while there is none."""
    buckets = [
        (float(sample.labels["le"]), sample.value)
        for family in histogram.collect()
        for sample in family.samples
        if sample.name.endswith("_bucket") and sample.labels["stage"] == stage
    ]
    total = buckets[-1][1] if buckets else 0
    return {name: _quantile(buckets, share * total) if total else None for name, share in (("p50", 0.5), ("p99", 0.99))}


def _quantile(buckets: list[tuple[float, float]], rank: float) -> float:
    lower, below = 0.0, 0.0
    for border, count in buckets:
        if count >= rank:
            return lower if border == float("inf") else lower + (border - lower) * (rank - below) / (count - below)
        lower, below = border, count
    return lower

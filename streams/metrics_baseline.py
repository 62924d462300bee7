"""What each watched rate is expected to be, and is; deploys and definition changes seen.

Read out of the detectors by `Detector.trace` when Prometheus scrapes, from the thread of the metrics: the line may be
in the middle of an observation meanwhile. Then a number may be that of the observation before, or one stream be left
out of this scrape, which is counted. Deploys are counted where they come in, at the door: what was counted twice
because ingest read it again after a crash marks a moment twice and does no harm.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from math import isfinite
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from detectors._base import Detector
from streams.findings import Finding
from streams.frames import Segment
from streams.watch import Watcher

MOST_SERIES: Final = 5_000
"""Series of baselines that one worker exports at most: whole stages come first, then what is suspicious, then segments
of one label, then the rest. What is left out is counted. A scrape takes some 10 µs of CPU for each."""
GAUGES: Final = {
    "recent": ("trustwatch_detector_observed", "A watched rate of late, averaged over some 200 trials."),
    "expected": ("trustwatch_detector_expected", "What the baseline of a watched rate expects now."),
    "low": ("trustwatch_detector_expected_low", "Lower end of the 95 % interval of the baseline."),
    "high": ("trustwatch_detector_expected_high", "Upper end of the 95 % interval of the baseline."),
}
TORN: Final = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What reading a state may raise that is being changed."""
SEEN: Final = "seen_"
"""Beginning of the evidence that names the view, see `detectors._several`."""
CONTROL: Final = ("deployed", "definition_changed")
log = logging.getLogger(__name__)

Where = tuple[str, str, Segment]
Breathe = Callable[[Iterable[Any]], Iterator[Any]]
"""The same items, with breaths in which the line goes on; see `streams.metrics`."""


def families(
    watchers: Iterable[Watcher], ingest: Any | None, breathe: Breathe, label_of: Callable[[Segment], str]
) -> Iterator[Metric]:
    """Baselines of all streams of these watchers, and control events.

    Args:
        watchers: of the partitions that this worker owns.
        ingest: the ingest service, if it runs here.
        breathe: gives the same items, with breaths.
        label_of: segment → label value.
    """
    labels = ["detector", "view", "stage", "segment"]
    gauges = {field: GaugeMetricFamily(name, meaning, labels=labels) for field, (name, meaning) in GAUGES.items()}
    left_out = torn = series = 0
    watchers = list(watchers)
    for where, detector in breathe(_in_order(watchers, breathe)):
        if series >= MOST_SERIES:
            left_out += 1
            continue
        try:
            traces = by_view(detector)
        except TORN as error:
            torn += 1
            log.debug("baseline of %s %s not read: %s", where[0], where[1], type(error).__name__)
            continue
        for view, numbers in traces.items():
            series += len(numbers)
            values = [where[0], view or where[0], where[1], label_of(where[2])]
            for field, value in numbers.items():
                gauges[field].add_metric(values, value)
    yield from gauges.values()
    unread = GaugeMetricFamily(
        "trustwatch_baselines_left_out",
        "Watched streams whose baseline is not in this scrape: too many (limit), or changed while it was read (torn).",
        labels=["why"],
    )
    unread.add_metric(["limit"], left_out)
    unread.add_metric(["torn"], torn)
    yield unread
    yield _views(watchers)
    yield from _control(ingest)


def by_view(detector: Detector[Any, Any]) -> dict[str, dict[str, float]]:
    """View → field of `GAUGES` → value, of what the detector shows; one with views has no plain ones."""
    views: dict[str, dict[str, float]] = {}
    for name, value in detector.trace().items():
        view, _, field = name.rpartition(".")
        if field in GAUGES and isfinite(value):
            views.setdefault(view, {})[field] = value
    if len(views) > 1:
        views.pop("", None)  # a copy of the view that the verdict is about
    return views


def view_of(finding: Finding) -> str:
    """Label value of the view that a finding is about: the one that saw it, where several watch one thing."""
    seen = (name.removeprefix(SEEN) for name in finding.evidence if name.startswith(SEEN))
    return next(seen, finding.kind)


def _views(watchers: Iterable[Watcher]) -> Metric:
    views = GaugeMetricFamily(
        "trustwatch_open_finding_view",
        "1 for each open finding, with the view of its detector that it is about: what was observed and expected of"
        " it is in the series of this view.",
        labels=["finding", "view"],
    )
    for finding in (finding for watcher in watchers for finding in watcher.findings):
        if finding.resolved_at is None:
            views.add_metric([finding.id, view_of(finding)], 1)
    return views


def _in_order(watchers: Iterable[Watcher], breathe: Breathe) -> list[tuple[Where, Detector[Any, Any]]]:
    """All streams, those first that must not be left out."""
    ranks: list[list[tuple[Where, Detector[Any, Any]]]] = [[], [], [], []]
    for watcher in watchers:
        verdicts = watcher.verdicts
        for where, detector in breathe(watcher.detectors()):
            said = verdicts.get(where)
            suspicious = said is not None and said.level in ("warn", "alert")
            rank = 0 if not where[2] else 1 if suspicious else min(1 + len(where[2]), 3)
            ranks[rank].append((where, detector))
    return list(itertools.chain.from_iterable(ranks))


def _control(ingest: Any | None) -> Iterator[Metric]:
    if ingest is None:
        return
    seen = CounterMetricFamily(
        "trustwatch_control_events", "Deploys and definition changes seen, by what it was.", labels=["type", "what"]
    )
    at = GaugeMetricFamily(
        "trustwatch_control_event_timestamp_seconds",
        "Event time of the last deploy or definition change of that name.",
        labels=["type", "what"],
    )
    told = dict(ingest.door.control) if ingest.door else {}
    never = dict.fromkeys(((kind, "unnamed") for kind in CONTROL), (0, 0.0))
    for (kind, what), (count, latest) in (never | told).items():
        seen.add_metric([kind, what], count)
        if count:
            at.add_metric([kind, what], latest)
    yield from (seen, at)

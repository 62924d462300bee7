"""Open findings as metrics: what alerts and dashboards know of each, and how urgent it is.

A finding is few: the judge keeps one open for each detector, stage and root segment. So each has its own series, named
by its id and by the labels of its segment, never by a person.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from math import asin, sqrt
from typing import Any, Final, Literal

from prometheus_client.core import GaugeMetricFamily, Metric

from detectors._base import AlertOn, Detector
from streams.findings import Finding, is_context, is_small
from streams.frames import Segment
from streams.guardrail_findings import DETECTOR as GUARDRAILS
from streams.watch import Watcher

Severity = Literal["page", "ticket", "none"]
TINY_EFFECT: Final = 0.1
"""A change of a share by less (Cohen's h, half of what is called small) never wakes anyone: 30 % that become 25.6 %."""
TINY_CHANGE: Final = 0.1
"""The same for other units: a tenth of what was before."""
GUARDRAIL: Final = AlertOn()
"""A guardrail's finding is an `alert` when it is to page."""
LABELS: Final = ("detector", "kind", "stage", "segment", "direction", "finding")
NUMBERS: Final[dict[str, tuple[str, Callable[[Finding], float]]]] = {
    "trustwatch_open_finding_onset_timestamp_seconds": (
        "Since when an open finding has been going on, event time.",
        lambda finding: _seconds(finding.onset),
    ),
    "trustwatch_open_finding_detected_timestamp_seconds": (
        "When an open finding was noticed, event time.",
        lambda finding: _seconds(finding.detected_at),
    ),
    "trustwatch_open_finding_before": (
        "What an open finding is about, before its onset, in the detector's unit.",
        lambda finding: finding.before,
    ),
    "trustwatch_open_finding_after": ("The same since its onset.", lambda finding: finding.after),
    "trustwatch_open_finding_observations": (
        "Observations since the onset of an open finding.",
        lambda finding: float(finding.n_after),
    ),
    "trustwatch_open_finding_score_ratio": (
        "Score of an open finding: 0 fine, 1 worst.",
        lambda finding: finding.score,
    ),
}
"""Metric → what it means, and where it is read."""
OF_PEOPLE: Final = frozenset(f"trustwatch_open_finding_{what}" for what in ("before", "after", "observations"))
"""Those of them that count people: a small finding has none of them, and whoever looks for one says "unknown"."""


def families(
    watchers: Iterable[Watcher],
    classes: Mapping[str, type[Detector[Any, Any]]],
    label_of: Callable[[Segment], str],
) -> Iterator[Metric]:
    """Every open finding of the partitions that this worker owns.

    Args:
        watchers: of these partitions.
        classes: detector name → class, for the severity.
        label_of: segment → label value.
    """
    found = [finding for watcher in watchers for finding in watcher.findings if finding.resolved_at is None]
    labelled = [(finding, _labels(finding, label_of)) for finding in found]
    is_open = GaugeMetricFamily(
        "trustwatch_open_finding",
        "1 for each finding that is open; severity says whether it wakes someone (page), waits for working hours"
        " (ticket) or does neither (none).",
        labels=[*LABELS, "level", "severity", "owner"],
    )
    for finding, values in labelled:
        alert = GUARDRAIL if finding.detector == GUARDRAILS else None
        if finding.detector in classes:
            alert = classes[finding.detector].alert
        severity = "ticket" if alert is None else severity_of(finding, alert)
        is_open.add_metric([*values, finding.level, severity, finding.owner], 1)
    yield is_open
    for name, (meaning, read) in NUMBERS.items():
        family = GaugeMetricFamily(name, meaning, labels=list(LABELS))
        for finding, values in labelled:
            if name not in OF_PEOPLE or not is_small(finding):
                family.add_metric(values, read(finding))
        yield family


def severity_of(finding: Finding, alert: AlertOn) -> Severity:
    """How urgent a finding is, from what its detector asks for, from confidence and from effect.

    A change for the better is none, and so is what is only context: tracking behind it is broken, its indicator is not
    proven to predict anything here, or only the mix of people has changed. A detector that asks for tickets gets
    tickets. Otherwise a finding pages when it is sure and not tiny: its level has reached the one its detector pages
    from (the thresholds of levels follow from the budget of false pages, so the level is the confidence), and its
    effect is at least `TINY_EFFECT` for shares, or `TINY_CHANGE` of what was before for all else. What is less sure or
    tiny is a ticket, until it grows.

    Args:
        finding: it.
        alert: when its detector pages.
    """
    if finding.direction != "worse" or is_context(finding):
        return "none"
    sure = finding.level == "alert" or alert.level == "warn"
    return alert.severity if sure and not _is_tiny(finding) else "ticket"


def _is_tiny(finding: Finding) -> bool:
    if finding.detector == GUARDRAILS:
        return False  # how much is too much its owner has said
    if finding.unit == "ratio":
        return effect_size(finding.before, finding.after) < TINY_EFFECT
    return abs(finding.after - finding.before) < TINY_CHANGE * abs(finding.before)


def effect_size(before: float, after: float) -> float:
    """Cohen's h: how far apart two shares are, on a scale on which small and large ones compare (Cohen 1988, ch. 6).

    >>> round(effect_size(0.43, 0.26), 2), round(effect_size(0.01, 0.025), 2), round(effect_size(0.3, 0.28), 2)
    (0.36, 0.12, 0.04)
    """
    angles = [2 * asin(sqrt(min(1.0, max(0.0, share)))) for share in (before, after)]
    return abs(angles[0] - angles[1])


def _labels(finding: Finding, label_of: Callable[[Segment], str]) -> list[str]:
    segment = tuple((label, value) for label, value in finding.segment.items() if label != "stage")
    stage = finding.segment["stage"]
    return [finding.detector, finding.kind, stage, label_of(segment), finding.direction, finding.id]


def _seconds(iso: str) -> float:
    return datetime.fromisoformat(iso).timestamp()

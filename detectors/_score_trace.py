"""What the tests of leads show of themselves: see `detectors._base.Detector.trace`."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

from detectors._intervals import Z95
from detectors._onsets import Cohort
from detectors._scores import OVERALL, WARN_NATS, Calibration, ScoreDistribution


def trace_of_scores(test: ScoreDistribution, scored: Sequence[Cohort]) -> dict[str, float]:
    """Trace of the mean score, as a fraction of the scale."""
    bins = len(test.state.base.n) // 2
    seen = {"n": float(sum(n for _, n, _ in scored)), "k": sum((b + 0.5) / bins * n for b, n, _ in scored)}
    if test.level == "warming":
        return seen
    expected, now = test.counts(float("-inf"))
    if not sum(now):
        return seen | _evidence(test)
    promised, recent = (sum((b + 0.5) * n for b, n in enumerate(each)) / bins / sum(each) for each in (expected, now))
    return seen | _expects(promised, mean_error(expected, test.state.base.sum_n)) | {"recent": recent} | _evidence(test)


def trace_of_outcomes(test: Calibration, last: Sequence[Cohort]) -> dict[str, float]:
    """Trace of the share that is accepted, or won."""
    seen = {"n": float(sum(n for _, n, _ in last)), "k": float(sum(k for _, _, k in last))}
    if test.level == "warming":
        return seen
    k, n = _recent(test)
    leads, level = sum(n), test.state.figures[1][0]
    if not leads:
        return seen | _evidence(test)
    promised = level if test.change.part == OVERALL else test.promised(n) / leads
    error = sqrt(level * (1.0 - level) / (test.state.base.sum_n + 1.0))
    return seen | _expects(promised, error) | {"recent": sum(k) / leads} | _evidence(test)


def _recent(test: Calibration) -> tuple[list[float], list[float]]:
    """Hits and leads per bin since the onset, while it alarms; of the leads that wait to be learnt otherwise."""
    if test.state.alarm:
        return test.since_onset()
    cells = test.onsets.cells
    bins = range(len(test.state.base.n))
    return [float(sum(cell.k[b] for cell in cells)) for b in bins], [
        float(sum(cell.n[b] for cell in cells)) for b in bins
    ]


def _expects(value: float, error: float) -> dict[str, float]:
    low, high = max(0.0, value - Z95 * error), min(1.0, value + Z95 * error)
    return {"expected": value, "low": min(low, value), "high": max(high, value)}


def _evidence(test: ScoreDistribution | Calibration) -> dict[str, float]:
    alarm, threshold = test.state.alarm, test.threshold
    found = {"statistic": max(0.0, test.change.statistic), "warn": threshold - WARN_NATS, "threshold": threshold}
    return found | ({"back": alarm.back, "back_at": test.params.recover_at} if alarm else {})


def mean_error(counts: list[float], leads: float) -> float:
    """Standard error of the mean score of so many leads that are distributed like `counts`."""
    total = sum(counts) or 1.0
    mean = sum((b + 0.5) * n for b, n in enumerate(counts)) / total
    variance = sum((b + 0.5 - mean) ** 2 * n for b, n in enumerate(counts)) / total
    return sqrt(variance / max(leads, 1.0)) / len(counts)

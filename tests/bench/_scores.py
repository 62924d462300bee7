"""What the detection bench counts: false alarms with their error, delays, missed changes, onsets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np

from tests.bench._streams import Floats

PER: Final = 100_000
RESAMPLES: Final = 400


class Alarm(NamedTuple):
    """One episode of alarm.

    Attributes:
        start: number of the event that raised it.
        end: number of the first event at which it is off again.
        onset: number of the event that the change began with, as the detector sees it; None if it does not say.
    """

    start: int
    end: int
    onset: float | None = None


class Quiet(NamedTuple):
    """One stream without change: false alarms, the events that could have raised one, and all events."""

    alarms: int
    at_risk_n: int
    events: int


class Outcome(NamedTuple):
    """One stream with a change.

    Attributes:
        before: an alarm was on already when the change came, a false one: it says nothing about the delay.
        delay: events from the change to the alarm; None if it was missed.
        onset_error: onset as the detector sees it minus the true one, events.
    """

    before: bool
    delay: int | None = None
    onset_error: float | None = None


class FalseAlarms(msgspec.Struct):
    """False alarms of many streams.

    Attributes:
        rate: episodes per 100,000 events at which no alarm was on already.
        error: standard error of `rate`, each stream a cluster.
        alarmed: share of the events at which one was on.
        streams: how many streams.
        events: their events after the learning.
    """

    rate: float
    error: float
    alarmed: float
    streams: int
    events: int


class Delays(msgspec.Struct):
    """Delays of many streams, in events; missed ones count as longer than any. Infinite values are None.

    Attributes:
        median: median delay.
        median_error: standard error of it (bootstrap over streams).
        p90: 90th percentile.
        p90_error: standard error of it.
        missed: share of changes that were not found in time.
        before: streams left out, because a false alarm was on already.
        streams: how many streams, without those.
        onset_error: median of |onset error|, events.
        onset_bias: median of the signed onset error, events.
        onset_share: `onset_error` / `median`.
        onset_share_error: standard error of it.
        each: all delays; None: missed.
    """

    median: float | None
    median_error: float | None
    p90: float | None
    p90_error: float | None
    missed: float
    before: int
    streams: int
    onset_error: float | None
    onset_bias: float | None
    onset_share: float | None
    onset_share_error: float | None
    each: list[int | None]


def judge_quiet(alarms: Sequence[Alarm], learn_n: int, count: int) -> Quiet:
    """Count the alarms raised after the learning. One that has been on since before is not counted again."""
    alarmed = sum(min(alarm.end, count) - max(alarm.start, learn_n) for alarm in alarms if alarm.end > learn_n)
    raised = [alarm for alarm in alarms if alarm.start >= learn_n]
    return Quiet(len(raised), count - learn_n - alarmed + len(raised), count - learn_n)


def judge_change(alarms: Sequence[Alarm], at: int, within_n: int) -> Outcome:
    """Find the first alarm raised from event `at` on, unless one was on already."""
    if any(alarm.start < at < alarm.end for alarm in alarms):
        return Outcome(before=True)
    for alarm in alarms:
        if at <= alarm.start < at + within_n:
            error = None if alarm.onset is None else alarm.onset - at
            return Outcome(False, alarm.start - at + 1, error)
    return Outcome(before=False)


def false_alarms(results: Sequence[Quiet]) -> FalseAlarms:
    """Sum up: the rate is a ratio of sums, its error that of a ratio with the streams as clusters (Cochran 1977)."""
    table = np.array(results, dtype=float)
    alarms, at_risk = table[:, 0], table[:, 1]
    rate = alarms.sum() / max(at_risk.sum(), 1.0)
    count = len(results)
    spread = np.sqrt(np.square(alarms - rate * at_risk).sum() * count / max(count - 1, 1))
    # No alarm at all has an error too: as if there had been one (Poisson).
    error = max(spread, 1.0 if not alarms.any() else 0.0) / max(at_risk.sum(), 1.0)
    events = table[:, 2].sum()
    alarmed = 1.0 - (at_risk.sum() - alarms.sum()) / events
    return FalseAlarms(float(PER * rate), float(PER * error), float(alarmed), count, int(events))


def delays(results: Sequence[Outcome]) -> Delays:
    """Sum up. Quantiles are of all changes, those that were missed included."""
    judged = [result for result in results if not result.before]
    each = np.array([np.inf if result.delay is None else result.delay for result in judged], dtype=float)
    errors = np.array([np.nan if result.onset_error is None else result.onset_error for result in judged], dtype=float)
    drawn = np.random.default_rng(0).integers(0, max(len(each), 1), (RESAMPLES, len(each)))
    has_onset = bool(np.isfinite(errors).any())
    medians, p90s = _quantiles(each[drawn], 0.5), _quantiles(each[drawn], 0.9)
    with np.errstate(invalid="ignore"):
        shares = np.nanmedian(np.abs(errors)[drawn], axis=1) / medians if has_onset else np.zeros(0)
    middle, p90 = _quantiles(each[None, :], 0.5)[0], _quantiles(each[None, :], 0.9)[0]
    onset = float(np.nanmedian(np.abs(errors))) if has_onset else None
    return Delays(
        median=_finite(middle), median_error=_spread(medians), p90=_finite(p90), p90_error=_spread(p90s),
        missed=float(np.mean(np.isinf(each))) if len(each) else 1.0,
        before=len(results) - len(judged), streams=len(judged),
        onset_error=onset, onset_bias=float(np.nanmedian(errors)) if has_onset else None,
        onset_share=None if onset is None or not np.isfinite(middle) else float(onset / middle),
        onset_share_error=_spread(shares) if has_onset else None,
        each=[None if result.delay is None else result.delay for result in judged],
    )  # fmt: skip


def _quantiles(rows: Floats, share: float) -> Floats:
    """Quantile of each row, by order statistics, because interpolating between infinities gives no number."""
    if not rows.shape[1]:
        return np.full(len(rows), np.inf)
    at = min(int(np.ceil(share * rows.shape[1])), rows.shape[1]) - 1
    return np.asarray(np.partition(rows, at, axis=1)[:, at])


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _spread(values: Floats) -> float | None:
    return float(np.std(values)) if len(values) and np.isfinite(values).all() else None

"""Simulated leads for the detector of lead-score drift, and what it makes of them."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from math import exp, sqrt
from typing import Final, NamedTuple

import numpy as np

from detectors._registry import build_params
from detectors.lead_score_drift import LeadScoreDrift, LeadScoreDriftParams, LeadScores

START_S: Final = 1_700_006_400.0
DAY_S: Final = 86_400.0
PER_DAY: Final = 150.0
LEADS: Final = 8000
CHANGE_AT: Final = 4000
SCORE_SD: Final = 16.3
SEEDS: Final = 90_000
"""First seed of what is reported; the detector was made while looking at seeds below 10,000."""


class Change(NamedTuple):
    """What happens from lead `CHANGE_AT` on.

    Attributes:
        what: in words.
        kind: kind of verdict that says so.
        accept: log odds added to acceptance at a given quality.
        better: standard deviations of score by which leads get better, so that scores and acceptance rise.
        points: points added to scores for nothing.
        horizon_days: days until acceptance is known.
    """

    what: str
    kind: str
    accept: float = 0.0
    better: float = 0.0
    points: float = 0.0
    horizon_days: float = 0.0


QUIET: Final = Change("no change", "")
CHANGES: Final = (
    Change("acceptance at given score 0.35 to 0.25", "calibration_acceptance", accept=-0.48),
    Change("acceptance at given score 0.35 to 0.30", "calibration_acceptance", accept=-0.23),
    Change("mean score +0.5 sd, leads as good as they look", "distribution", better=0.5),
    Change("mean score +0.25 sd, leads as good as they look", "distribution", better=0.25),
    Change("inflation: +8 points for nothing, accepted at once", "inflation", points=8.0),
    Change("inflation: +8 points for nothing, accepted 7 days later", "inflation", points=8.0, horizon_days=7.0),
)  # fmt: skip


class Told(NamedTuple):
    """What was said of one stream: leads since the change (in a quiet one: since the start) at which a kind alerted."""

    judged: int
    alerts: list[tuple[int, str]]
    onset_leads: float | None = None


def leads(seed: int, change: Change, count: int = LEADS) -> Iterator[tuple[bool, LeadScores]]:
    """One lead an observation; whether the change is on."""
    rng, ts = random.Random(seed), START_S
    waiting: deque[tuple[float, int, int]] = deque()
    for i in range(count):
        ts += rng.expovariate(PER_DAY / DAY_S)
        on = i >= CHANGE_AT
        seen = rng.gauss(change.better * 1.17 if on else 0.0, 1.0)
        score = 48.0 + 14.0 * (seen + 0.6 * rng.gauss(0.0, 1.0)) + (change.points if on else 0.0)
        b = min(19, max(0, int(score / 5.0)))
        accepted = rng.random() < 1.0 / (1.0 + exp(0.7 - 1.0 * seen - (change.accept if on else 0.0)))
        waiting.append((ts + change.horizon_days * DAY_S, b, int(accepted)))
        known = []
        while waiting and waiting[0][0] <= ts:
            known.append((waiting[0][1], 1, waiting.popleft()[2]))
        yield on, LeadScores(ts, ((b, 1, 0),), tuple(known), ())


def follow(seed: int, change: Change) -> Told:
    """Let the detector see one stream, to the end or until it has said the right thing."""
    params = build_params(LeadScoreDrift, {"acceptance_lag_s": change.horizon_days * DAY_S})
    assert isinstance(params, LeadScoreDriftParams)
    detector = LeadScoreDrift(params)
    alerts, last, judged, began = list[tuple[int, str]](), "", 0, 0.0
    for i, (on, x) in enumerate(leads(seed, change)):
        verdict = detector.observe(x)
        judged += verdict.level != "warming"
        began = began or (x.ts if on else 0.0)
        kind = verdict.kind if verdict.level == "alert" else ""
        if kind and kind != last:
            alerts.append((i - CHANGE_AT if change.kind else i, kind))
        last = kind
        if change.kind and on and kind == change.kind:
            return Told(judged, alerts, abs((verdict.onset or 0.0) - began) / DAY_S * PER_DAY)
    return Told(judged, alerts)


class Delay(NamedTuple):
    """How soon a change is told.

    Attributes:
        change: what happens.
        found: share of streams in which it was told.
        median: leads until then.
        p90: leads until then in nine of ten.
        onset_error: median error of the onset, leads.
        other_first: share of streams in which another kind spoke before, after the change.
    """

    change: str
    found: float
    median: float
    p90: float
    onset_error: float
    other_first: float


def delays(streams: int) -> list[Delay]:
    """Every change, over so many streams; a stream that alerted before the change is left out."""
    rows = []
    for change in CHANGES:
        told = [follow(SEEDS + seed, change) for seed in range(streams)]
        fair = [each for each in told if not any(at < 0 for at, _ in each.alerts)]
        found = [
            next(at for at, kind in each.alerts if kind == change.kind) for each in fair if each.onset_leads is not None
        ]
        errors = [each.onset_leads for each in fair if each.onset_leads is not None]
        other = sum(each.alerts[0][1] != change.kind for each in fair if each.alerts)
        rows.append(Delay(change.what, len(found) / len(fair), float(np.median(found)), float(np.quantile(found, 0.9)),
                          float(np.median(errors)), other / len(fair)))  # fmt: skip
    return rows


def false_alarms(streams: int) -> tuple[dict[str, float], float, int]:
    """False alarms per 1,000 leads judged by kind, the standard error of their sum, and the leads judged."""
    told = [follow(SEEDS + 10_000 + seed, QUIET) for seed in range(streams)]
    judged = sum(each.judged for each in told)
    counts: dict[str, int] = {}
    for each in told:
        for _, kind in each.alerts:
            counts[kind] = counts.get(kind, 0) + 1
    per = np.array([1000.0 * len(each.alerts) / max(each.judged, 1) for each in told])
    return {kind: 1000.0 * n / judged for kind, n in sorted(counts.items())}, float(per.std() / sqrt(streams)), judged

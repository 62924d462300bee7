"""Value delivered: late, wrong and unsolved, and what customers say of it; quiet through weeks and bad days."""

from __future__ import annotations

import random
from collections.abc import Callable
from statistics import median

import pytest

from detectors._base import Bucket, Verdict
from detectors._registry import build_params
from detectors.value_delivered import ValueDelivered
from tests.detectors.slow_kit import DAY_S, START_S, alerts, in_buckets, times, verdicts, weekday_of

CHANGE_DAY = 42
ONSET_S = START_S + CHANGE_DAY * DAY_S
LATE = (0.07, 0.05, 0.05, 0.05, 0.04, 0.03, 0.03)
"""Share late by weekday, from Monday on: what was due at a weekend is not, what piled up on it is on Monday."""
SEEDS = range(100, 120)
Factor = Callable[[float], float]


def steady(_: float) -> float:
    return 1.0


def orders(days: int, per_day: float, seed: int, late: Factor = steady, wrong: Factor = steady, unsolved: Factor = steady,
           volume: Factor = steady, *, at_midnight: bool = False) -> list[Bucket]:  # fmt: skip
    """Orders due, 4 to 5 % late, as many delivered, 2 % wrong; a case of each 5th, 15 % unsolved after three days."""
    rng = random.Random(seed)
    found: list[tuple[float, dict[str, int]]] = []
    for ts in times(days, per_day, rng, volume):
        due = ts // DAY_S * DAY_S if at_midnight else ts
        found.append((due, {"due_n": 1, "due_late": int(rng.random() < LATE[weekday_of(due)] * late(due))}))
        found.append((ts, {"delivered_n": 1, "delivered_wrong": int(rng.random() < 0.02 * wrong(ts))}))
        if rng.random() < 0.2:
            found.append((ts + 3 * DAY_S, {"case_n": 1, "case_unsolved": int(rng.random() < 0.15 * unsolved(ts))}))
    return in_buckets("customers", found)


def surveys(days: int, per_day: float, seed: int, worse: Factor = steady) -> list[Bucket]:
    """Answers: 15 % detractors and 50 % promoters; 12 % dissatisfied; 20 % found it hard."""
    rng = random.Random(seed)
    found: list[tuple[float, dict[str, int]]] = []
    for ts in times(days, per_day, rng):
        answer, bad = rng.random(), 0.15 * worse(ts)
        found.append((ts, {"nps_n": 1, "nps_bad": int(answer < bad), "nps_good": int(answer > 0.35 + bad)}))
        found.append((ts, {"csat_n": 1, "csat_bad": int(rng.random() < 0.12 * worse(ts))}))
        found.append((ts, {"ces_n": 1, "ces_bad": int(rng.random() < 0.2)}))
    return in_buckets("customers", found)


def since(factor: float) -> Factor:
    return lambda ts: factor if ts >= ONSET_S else 1.0


def quiet() -> list[Bucket]:
    return orders(60, 100, seed=31)


def firing() -> tuple[list[Bucket], float]:
    return orders(63, 300, seed=33, late=since(1.8)), ONSET_S


def delays(streams: list[list[Bucket]], kind: str) -> list[float]:
    """Days from the change to the first alert; every one has to be of that kind and after the change."""
    found = []
    for buckets in streams:
        first_ts, first = alerts(ValueDelivered, buckets)[0]
        assert (first.kind, first_ts >= ONSET_S) == (kind, True)
        assert first.onset_from is not None and first.onset_to is not None
        found.append((first_ts - ONSET_S) / DAY_S)
    return found

"""What the tests of slow processes share: event times of a working week, and what a detector says of a stream."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from detectors._base import Bucket, Detector, Verdict
from detectors._registry import build_params

START_S = 1_700_006_400.0
"""A Wednesday, 00:00 UTC."""
DAY_S = 86_400.0
HOUR_S = 3600.0
WEEK = (1.1, 1.1, 1.0, 1.0, 0.9, 0.4, 0.3)
"""Cases of each weekday, from Monday on, relative to a usual one."""


def weekday_of(ts: float) -> int:
    return int(ts // DAY_S + 3) % 7


def times(
    days: float, per_day: float, rng: random.Random, volume: Callable[[float], float] = lambda _: 1.0
) -> Iterable[float]:
    """Event times over a working week with a daily course; `volume`: factor by event time."""
    ts = START_S
    while True:
        ts += rng.expovariate(per_day * 5.0 / DAY_S)
        if ts >= START_S + days * DAY_S:
            return
        course = 1.0 - 0.9 * math.cos(2 * math.pi * (ts % DAY_S) / DAY_S)
        if rng.random() < WEEK[weekday_of(ts)] * course * volume(ts) / 5.0:
            yield ts


def poisson(mean: float, rng: random.Random) -> int:
    limit, count, product = math.exp(-mean), 0, rng.random()
    while product > limit:
        count, product = count + 1, product * rng.random()
    return count


def in_buckets(stage: str, counted: Iterable[tuple[float, Mapping[str, int]]]) -> list[Bucket]:
    """Counts at event times as the buckets of ten seconds that they fall into."""
    cells: dict[float, dict[str, int]] = {}
    for ts, counts in counted:
        cell = cells.setdefault(ts // 10.0 * 10.0, {})
        for field, count in counts.items():
            cell[field] = cell.get(field, 0) + count
    return [Bucket(ts, 10.0, stage, cells[ts]) for ts in sorted(cells)]


def verdicts(cls: type[Detector[Any, Any]], buckets: list[Bucket], **params: Any) -> list[tuple[float, Verdict]]:
    made = cls(build_params(cls, params))
    seen = ((bucket.ts, made.look(bucket, made.params)) for bucket in buckets)
    return [(ts, made.observe(x)) for ts, x in seen if x is not None]


def alerts(cls: type[Detector[Any, Any]], buckets: list[Bucket], **params: Any) -> list[tuple[float, Verdict]]:
    return [(ts, verdict) for ts, verdict in verdicts(cls, buckets, **params) if verdict.level == "alert"]

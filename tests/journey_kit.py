"""People on their way through a journey, counted by the hour: for tests of what judges days of it.

A world by a few numbers, with daily and weekly cycle; what changes is said as a function of the day. One bucket an hour
of each stage, and one of the whole journey, with the fields of `streams.combine`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from detectors._base import Bucket, Detector, Verdict
from detectors._registry import build_params
from detectors._stages import JOURNEY

START_S = 1_699_833_600.0
"""Monday, 2023-11-13, 00:00 UTC."""
DAY_S = 86_400.0
HOUR_S = 3600.0
STAGES = ("discover", "evaluate", "compare", "decide", "buy", "keep")
RATES = dict(zip(STAGES, (0.45, 0.40, 0.35, 0.50, 0.60, 0.30), strict=True))
"""Share that advances."""
LONG_YES, LONG_NO = 0.35, 0.20
"""Share that stays long, of those who advance and of those who do not."""
Change = Callable[[float, str], float]
"""(day, stage) → factor."""


def same(day: float, stage: str) -> float:
    """Nothing changes."""
    return 1.0


@dataclass(frozen=True)
class World:
    """What happens to people.

    Attributes:
        people: who enter the first stage, a day.
        direct: who enter each later stage from outside, a day.
        cycle: amplitude of the daily cycle of advancing, relative.
        weekend: share of people who come on Saturdays and Sundays.
        weekend_rate: factor on the odds to advance then.
        wobble: standard deviation of the log odds from day to day, the same for all stages.
        advance: factor on the odds to advance.
        stay: factor on the odds to stay long.
        come: factor on the number who enter from outside.
    """

    people: float = 2000.0
    direct: float = 500.0
    cycle: float = 0.10
    weekend: float = 0.6
    weekend_rate: float = 0.85
    wobble: float = 0.0
    advance: Change = field(default=same)
    stay: Change = field(default=same)
    come: Change = field(default=same)


def counted(world: World, days: int, seed: int) -> Iterator[tuple[float, dict[str, dict[str, int]]]]:
    """Hour by hour: its start (event time, seconds) and the counts of each stage."""
    rng = np.random.default_rng(seed)
    wobbles = rng.normal(0.0, world.wobble, days)
    for hour in range(days * 24):
        day, of_day = hour / 24, hour % 24
        weekend = day % 7 >= 5
        share = (1.0 + 0.8 * math.sin(2 * math.pi * (of_day - 9) / 24)) / 24 * (world.weekend if weekend else 1.0)
        shift = world.cycle * math.sin(2 * math.pi * (of_day - 4) / 24) + wobbles[hour // 24]
        shift += math.log(world.weekend_rate) if weekend else 0.0
        stages: dict[str, dict[str, int]] = {}
        before = 0
        for stage in STAGES:
            outside = world.people if stage == STAGES[0] else world.direct
            n = before + int(rng.poisson(outside * share * world.come(day, stage)))
            rate = moved(RATES[stage], math.exp(shift) * world.advance(day, stage))
            k = int(rng.binomial(n, rate))
            stay = world.stay(day, stage)
            yes, no = rng.binomial(k, moved(LONG_YES, stay)), rng.binomial(n - k, moved(LONG_NO, stay))
            stages[stage] = {"entered": n, "at_all": k, "not_at_all": n - k, "advanced": k, "dropped": n - k,
                             "long_yes": int(yes), "long_no": int(no)}  # fmt: skip
            before = k
        yield START_S + hour * HOUR_S, stages


def moved(rate: float, odds_ratio: float) -> float:
    """A rate with its odds multiplied."""
    return rate * odds_ratio / (1.0 - rate + rate * odds_ratio)


def whole(world: World, days: int, seed: int) -> list[Bucket]:
    """Buckets of the whole journey."""
    buckets = []
    for ts, stages in counted(world, days, seed):
        counts = {f"{name}_{stage}": n for stage, fields in stages.items() for name, n in fields.items()}
        buckets.append(Bucket(ts, 10.0, JOURNEY, counts))
    return buckets


def one(world: World, days: int, seed: int, stage: str) -> list[Bucket]:
    """Buckets of one stage."""
    return [Bucket(ts, 10.0, stage, stages[stage]) for ts, stages in counted(world, days, seed)]


def since(day: float, factor: float, *stages: str) -> Change:
    """A factor from a day on, in some stages (none given: in all)."""
    return lambda now, stage: factor if now >= day and (not stages or stage in stages) else 1.0


def judge(cls: type[Detector[Any, Any]], buckets: list[Bucket], allow: float | None = None,
          **params: Any) -> list[tuple[float, Verdict]]:  # fmt: skip
    """(day, verdict) of every observation."""
    detector = cls(build_params(cls, params))
    if allow is not None:
        detector.allow(allow)
    seen = [(bucket.ts, detector.look(bucket, detector.params)) for bucket in buckets]
    return [((ts - START_S) / DAY_S, detector.observe(x)) for ts, x in seen if x is not None]


def alerts(told: list[tuple[float, Verdict]]) -> list[tuple[float, Verdict]]:
    """Those that alert."""
    return [(day, verdict) for day, verdict in told if verdict.level == "alert"]


def begun(told: list[tuple[float, Verdict]]) -> list[tuple[float, Verdict]]:
    """The first of each run of alerts."""
    runs = [next(group) for level, group in groupby(told, lambda one: one[1].level) if level == "alert"]
    return runs

"""Follow-up decay: fewer touched, or later, and no weekend is one."""

from __future__ import annotations

import random
from statistics import median
from typing import NamedTuple

import pytest

from detectors._base import Bucket
from detectors.follow_up_decay import FollowUpDecay
from tests.detectors.slow_kit import DAY_S, HOUR_S, START_S, alerts, in_buckets, times, verdicts, weekday_of

CHANGE_DAY = 42
ONSET_S = START_S + CHANGE_DAY * DAY_S
SEEDS = range(300, 320)


class World(NamedTuple):
    """How sales is from `CHANGE_DAY` on: hours of work until a lead is called, on average; share that is called."""

    wait_h: float = 2.0
    called: float = 0.9
    volume: float = 1.0


NORMAL = World()


def worked(ts: float, work_h: float) -> float:
    """The time when so many hours of work have passed, from Monday to Friday, 8 to 17 UTC."""
    while True:
        opens, closes = ts // DAY_S * DAY_S + 8 * HOUR_S, ts // DAY_S * DAY_S + 17 * HOUR_S
        if weekday_of(ts) < 5 and ts < closes:
            ts = max(ts, opens)
            if ts + work_h * HOUR_S <= closes:
                return ts + work_h * HOUR_S
            work_h -= (closes - ts) / HOUR_S
        ts = closes + 7 * HOUR_S


def stream(days: int, per_day: float, world: World, seed: int, marks: tuple[str, ...] = ("1h", "4h", "24h", "48h")) -> list[Bucket]:  # noqa: E501
    """Leads handed over through the week; one of 20 is rejected without a call, after a day."""
    rng = random.Random(seed)
    found: list[tuple[float, dict[str, int]]] = []
    for ts in times(days, per_day, rng, lambda ts: world.volume if ts >= ONSET_S else 1.0):
        now = world if ts >= ONSET_S else NORMAL
        called = worked(ts, rng.expovariate(1.0 / now.wait_h)) if rng.random() < now.called else float("inf")
        closed = ts + DAY_S if rng.random() < 0.05 else float("inf")
        for mark in marks:
            at = ts + (float(mark[:-1]) if mark else 48.0) * HOUR_S
            if min(called, at) <= closed:
                field = f"touch_{mark}_" if mark else "touch_"
                found.append((at, {f"{field}n": 1, f"{field}k": int(called <= at)}))
    return in_buckets("leads", found)


def quiet() -> list[Bucket]:
    return stream(60, 80, NORMAL, seed=51)


def firing() -> tuple[list[Bucket], float]:
    return stream(56, 200, World(wait_h=5.0, called=0.7), seed=53), ONSET_S

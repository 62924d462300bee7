"""Simulated streams of the detection bench: what happens, when, and where it changes.

A stream is made event by event: its time from a Poisson process with a daily and weekly volume, its outcome (1: the
person advanced) from the rate at that time. Every stream has its own seed; those for tuning and those for reporting
come from different branches of one `SeedSequence`, so they never meet.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import Any, Final, Literal, NamedTuple, TypeAlias
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.floating[Any]]
Bits: TypeAlias = NDArray[np.int8]
Purpose: TypeAlias = Literal["tune", "report"]
BRANCHES: Final[dict[str, int]] = {"tune": 0, "report": 1}
ENTROPY: Final = 20_261_122
DAY_S: Final = 86_400.0
WEEK_S: Final = 7 * DAY_S
MONDAY_S: Final = 1_704_067_200.0
"""2024-01-01, a Monday, 00:00 UTC; streams begin at a random time of that week."""
STEP_S: Final = 300.0
"""Grid that the volume is laid out on, seconds."""
WEEKEND_VOLUME: Final = 0.6
BURST_S: Final = 1800.0
BURST_VOLUME: Final = 6.0
BURST_SHARED: Final = 25
"""Events of a burst that share a shift of their log-odds (one mailing, one bot), by which counts vary beyond chance."""
BURST_SPREAD: Final = 0.5
"""Standard deviation of that shift; the counts of a burst vary about 2.3 times as much as binomial ones."""
HOLIDAYS: Final = 0.1
"""Share of days that are holidays: `HOLIDAY_VOLUME` of the volume, `HOLIDAY_RATE` of the rate."""
HOLIDAY_VOLUME: Final = 0.4
HOLIDAY_RATE: Final = 0.95


@dataclass(frozen=True)
class Kind:
    """A kind of stream without change. Cycles are relative to the rate; their phases differ from stream to stream.

    Attributes:
        name: as in the report; the seeds depend on it.
        base: rate.
        per_day: events a day.
        learn_n: events before the change or before false alarms count.
        daily: amplitude of the daily cycle of the rate.
        weekly: amplitude of a slow weekly wave of the rate.
        weekend: by how much weekends differ, up in one half of the streams and down in the other.
        trend: relative change of the rate a day, likewise; the rate is `base` when the learning ends.
        volume: amplitude of the daily cycle of the volume; if it is not 0, weekends have less.
        bursts: bursts a day, and holidays.
        quiet_n: events that false alarms are counted over; 0: as many as on the other kinds.
    """

    name: str
    base: float = 0.30
    per_day: float = 5000.0
    learn_n: int = 10_000
    daily: float = 0.0
    weekly: float = 0.0
    weekend: float = 0.0
    trend: float = 0.0
    volume: float = 0.0
    bursts: float = 0.0
    quiet_n: int = 0


class Change(NamedTuple):
    """A fall of the rate right after the learning: `to` at the base rate, the same odds ratio at every other.

    Attributes:
        to: the rate that `Kind.base` becomes.
        ramp_n: events that it takes, evenly in log-odds; 0: at once.
        within_n: events after which a change that was not found counts as missed.
    """

    to: float
    ramp_n: int = 0
    within_n: int = 10_000


class Stream(NamedTuple):
    """One stream.

    Attributes:
        ts: event times, seconds since the epoch, ascending.
        xs: outcomes, 0 or 1.
        learn_n: events before the change, or before false alarms count.
        seed: for detectors that draw lots.
    """

    ts: Floats
    xs: Bits
    learn_n: int
    seed: int


def seeds(purpose: Purpose, name: str, number: int) -> np.random.SeedSequence:
    """Seed of stream `number` of a kind; the purposes are branches that share nothing."""
    return np.random.SeedSequence(ENTROPY, spawn_key=(BRANCHES[purpose], crc32(name.encode()), number))


def simulate(kind: Kind, purpose: Purpose, number: int, after_n: int, change: Change | None = None) -> Stream:
    """Make stream `number` of a kind.

    Args:
        kind: what it is like.
        purpose: branch of the seeds.
        number: which of the streams, from 0.
        after_n: events after the learning.
        change: what happens right after the learning; None: nothing.
    """
    rng = np.random.default_rng(seeds(purpose, kind.name, number))
    count = kind.learn_n + after_n
    ts, in_burst, holiday = _times(kind, rng, count)
    odds = _rates(kind, rng, ts)
    odds[holiday] *= HOLIDAY_RATE
    odds /= 1.0 - odds
    if change is not None:
        odds *= ratio_of(kind.base, change.to) ** _progress(kind.learn_n, count, change.ramp_n)
    shared = rng.normal(0.0, BURST_SPREAD, count // BURST_SHARED + 1) if kind.bursts else np.zeros(0)
    odds[in_burst] *= np.exp(shared[np.flatnonzero(in_burst) // BURST_SHARED])
    xs = (rng.random(count) < odds / (1.0 + odds)).astype(np.int8)
    return Stream(ts, xs, kind.learn_n, number)


def ratio_of(before: float, after: float) -> float:
    """Odds ratio of two rates."""
    return after / (1.0 - after) * (1.0 - before) / before


def _progress(learn_n: int, count: int, ramp_n: int) -> Floats:
    """How far the change has come at each event, 0 to 1."""
    since = np.arange(count) - learn_n
    return np.clip((since + 1.0) / max(ramp_n, 1), 0.0, 1.0)


def _times(kind: Kind, rng: np.random.Generator, count: int) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
    """Event times, and which events fall into a burst or on a holiday."""
    start = MONDAY_S + rng.uniform(0.0, WEEK_S)
    # Weekends and holidays take away less than half, so twice the days at full volume always suffice.
    grid = start + STEP_S * np.arange(int((count / kind.per_day * 2.0 + 3.0) * DAY_S / STEP_S))
    volume = np.full(len(grid), kind.per_day * STEP_S / DAY_S)
    if kind.volume:
        volume *= 1.0 + kind.volume * np.sin(2 * pi * grid / DAY_S + rng.uniform(0.0, 2 * pi))
        volume *= np.where(is_weekend(grid), WEEKEND_VOLUME, 1.0)
    burst, holiday = np.zeros(len(grid), dtype=bool), np.zeros(len(grid), dtype=bool)
    if kind.bursts:
        starts = rng.random(len(grid)) < kind.bursts * STEP_S / DAY_S
        burst = np.convolve(starts, np.ones(int(BURST_S / STEP_S)))[: len(grid)] > 0
        days = ((grid - MONDAY_S) // DAY_S).astype(int)
        holiday = (rng.random(days[-1] + 1) < HOLIDAYS)[days]
        volume *= np.where(burst, BURST_VOLUME, 1.0) * np.where(holiday, HOLIDAY_VOLUME, 1.0)
    arrivals = np.cumsum(rng.exponential(size=count))
    cumulated = np.concatenate(([0.0], np.cumsum(volume)))
    ts = np.interp(arrivals, cumulated, np.append(grid, grid[-1] + STEP_S))
    at = np.minimum(((ts - start) // STEP_S).astype(int), len(grid) - 1)
    return ts, burst[at], holiday[at]


def _rates(kind: Kind, rng: np.random.Generator, ts: Floats) -> Floats:
    """The rate at each event, without change."""
    turns, signs = rng.uniform(0.0, 2 * pi, 2), rng.choice([-1.0, 1.0], 2)
    rates = np.full(len(ts), kind.base)
    if kind.daily:
        rates *= 1.0 + kind.daily * np.sin(2 * pi * ts / DAY_S + turns[0])
    if kind.weekly:
        rates *= 1.0 + kind.weekly * np.sin(2 * pi * ts / WEEK_S + turns[1])
    if kind.weekend:
        rates *= np.where(is_weekend(ts), 1.0 + signs[0] * kind.weekend, 1.0)
    if kind.trend:
        rates *= (1.0 + signs[1] * kind.trend) ** ((ts - ts[kind.learn_n]) / DAY_S)
    return rates


def is_weekend(ts: Floats) -> NDArray[np.bool_]:
    """Whether each time (seconds since the epoch) is a Saturday or Sunday, UTC."""
    return np.asarray((ts - MONDAY_S) % WEEK_S >= 5 * DAY_S)

"""A whole installation under the false-page budget: 1,000 segments, 3 detectors each, in buckets of five minutes.

First for 28 days without change, to count false pages; then with drops on day 21 of streams of the same kind with the
same thresholds, to see how many progressions are lost before each is found.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import pi
from typing import Final, NamedTuple

import msgspec
import numpy as np

from detectors._baseline import Side
from tests.bench import _trustwatch
from tests.bench._streams import DAY_S, MONDAY_S, WEEKEND_VOLUME, Floats, is_weekend, ratio_of, seeds

BUCKET_S: Final = 300.0
DAYS: Final = 28
CHANGE_DAY: Final = 21
BUDGET: Final = 1.0
"""False pages a week, for the whole installation; the product's default."""
VOLUMES: Final = (200.0, 5000.0)
"""Fewest and most trials a day; between them log-normal around 1,000."""
CYCLE: Final = 0.1
"""Amplitude of the daily cycle of the rate, relative."""
VOLUME_CYCLE: Final = 0.5


class Watch(NamedTuple):
    """One of a segment's detectors: the change it looks for, its share of the segment's volume, and usual rates."""

    side: Side
    volume: float
    rates: tuple[float, ...]


WATCHES: Final = (
    Watch("down", 1.0, (0.05, 0.15, 0.30, 0.50)),  # steps that advance
    Watch("up", 1.0, (0.10, 0.20, 0.30)),  # steps that hesitate
    Watch("down", 0.25, (0.20, 0.35, 0.50)),  # leads that are accepted
)


class Buckets(NamedTuple):
    """One stream in buckets: start times, hits, trials, progressions lost so far, and whether it has changed."""

    ts: list[float]
    k: list[int]
    n: list[int]
    lost: list[float]
    changed: list[bool]


class Drop(NamedTuple):
    """An injected drop: from 0.30 to this rate, to be found before so many progressions were lost.

    Attributes:
        to: rate after the change.
        lost: progressions.
        per_day: trials a day of the stream; None: as different as in `VOLUMES`. Streams of 200 a day can't know 0.30
            from 0.27 by day 21 at the error that 3,000 streams leave, whatever the method, so no limit is set on these.
    """

    to: float
    lost: float
    per_day: float | None = None


class DropResult(msgspec.Struct):
    """Progressions lost before each drop was found; None: not found in time, or in alarm before it came."""

    to: float
    limit: float
    lost: list[float | None]
    per_day: float | None = None

    @property
    def share(self) -> float:
        """Share that was found in time."""
        return sum(value is not None for value in self.lost) / len(self.lost)

    @property
    def error(self) -> float:
        """Standard error of `share`."""
        return float(np.sqrt(self.share * (1.0 - self.share) / len(self.lost)))


def buckets(rng: np.random.Generator, per_day: float, rate: float, days: int, drop: Drop | None = None) -> Buckets:
    """Simulate one stream; buckets without trials are left out, as the product has it."""
    start = MONDAY_S + DAY_S * rng.integers(0, 7)
    ts = start + BUCKET_S * np.arange(int(days * DAY_S / BUCKET_S))
    n = rng.poisson(_volume(ts, per_day, rng.uniform(0.0, 2 * pi)))
    usual = rate * (1.0 + CYCLE * np.sin(2 * pi * ts / DAY_S + rng.uniform(0.0, 2 * pi)))
    changed = (ts >= start + CHANGE_DAY * DAY_S) & (drop is not None)
    odds = usual / (1.0 - usual) * (ratio_of(rate, drop.to) if drop else 1.0)
    rates = np.where(changed, odds / (1.0 + odds), usual)
    k = rng.binomial(n, rates)
    lost = np.cumsum(n * (usual - rates))
    seen = n > 0
    return Buckets(*(values[seen].tolist() for values in (ts, k, n, lost, changed)))


def false_pages(segments: Sequence[int], streams: int) -> list[int]:
    """Alarms raised by some segments of an installation of `streams` streams in `DAYS` days, one number a segment."""
    pages = []
    for segment in segments:
        rng = np.random.default_rng(seeds("report", "installation", segment))
        per_day, raised = _per_day(rng), 0
        for watch in WATCHES:
            stream = buckets(rng, per_day * watch.volume, float(rng.choice(watch.rates)), DAYS)
            test = _trustwatch.make(watch.side, BUDGET / streams)
            on = False
            for ts, k, n in zip(stream.ts, stream.k, stream.n, strict=True):
                alarmed = test.update_binomial(ts, k, n, ()) == "alarmed"
                raised += alarmed and not on
                on = alarmed
        pages.append(raised)
    return pages


def lost_before_found(drop: Drop, numbers: Sequence[int], streams: int) -> list[float | None]:
    """Progressions lost until each of some injected drops was found; None: not in time, or in alarm before it came."""
    found = []
    for number in numbers:
        rng = np.random.default_rng(seeds("report", f"drop to {drop.to}", number))
        per_day = drop.per_day or _per_day(rng)
        days = CHANGE_DAY + 3 + int(1.5 * drop.lost / (0.30 - drop.to) / per_day)
        stream = buckets(rng, per_day, 0.30, days, drop)
        found.append(_lost(_trustwatch.make("down", BUDGET / streams), stream, drop.lost))
    return found


def _lost(test: _trustwatch.Test, stream: Buckets, limit: float) -> float | None:
    was_alarmed = False
    for ts, k, n, lost, changed in zip(*stream, strict=True):
        if lost > limit:
            return None
        alarmed = test.update_binomial(ts, k, n, ()) == "alarmed"
        if changed and alarmed:
            return None if was_alarmed else lost
        was_alarmed = alarmed
    return None


def _per_day(rng: np.random.Generator) -> float:
    return float(np.clip(1000.0 * np.exp(rng.normal(0.0, 0.8)), *VOLUMES))


def _volume(ts: Floats, per_day: float, phase: float) -> Floats:
    """Expected trials in each bucket."""
    cycle = 1.0 + VOLUME_CYCLE * np.sin(2 * pi * ts / DAY_S + phase)
    return np.asarray(per_day * BUCKET_S / DAY_S * cycle * np.where(is_weekend(ts), WEEKEND_VOLUME, 1.0))

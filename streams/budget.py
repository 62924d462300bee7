"""The false-page budget: one number for the whole installation, split among all watched streams; and what became of it.

`false_pages_per_week` is split in equal parts over the (detector, stage) pairs that can exist by configuration, and the
part of a pair in equal parts over its streams (segments) that exist now. All streams of a pair live in one counts
partition, so the shares are the same in a backtest, in a replay and with any number of workers. Detectors that page and
detectors that write tickets have a budget of that size each: a ticket disturbs nobody at night.

Where it is a bound and where a target: the shares never add up to more than the budget, so if each stream keeps its
own, the installation keeps the budget in the long run, however much streams depend on each other (expected numbers add
up). A stream keeps its share for certain if its baseline is known: an e-detector with threshold ln(run length) alarms
falsely after so many updates or more on average (Shin, Ramdas & Rinaldo 2022). With a learnt baseline the share is a
target, and `make bench-detection` measures how it is met. One finding for many segments only makes pages fewer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from detectors._base import Detector, Params
from detectors._baseline import DAY_S

WEEK_DAYS: Final = 7
WINDOW_DAYS: Final = 28
"""Days of event time over which pages are counted."""
GROWTH: Final = 10
"""A pair is split among up to one stream in so many more than there are: shares do not change with each new one."""


def pair_shares(
    false_pages_per_week: float,
    classes: Mapping[str, type[Detector[Any, Any]]],
    params: Mapping[str, Params],
    journey: Sequence[str],
) -> dict[str, float]:
    """Detector → false pages a week of each stage that it watches.

    Args:
        false_pages_per_week: of the whole installation, for each severity.
        classes: detector name → class.
        params: detector name → parameters.
        journey: all stages of the journey.
    """
    pairs: Counter[str] = Counter()
    for name, cls in classes.items():
        pairs[cls.alert.severity] += max(1, len(cls.stages(params[name], journey)))
    return {name: false_pages_per_week / pairs[cls.alert.severity] for name, cls in classes.items()}


def capacity(streams: int) -> int:
    """How many streams a pair's part is split among while it has this many: never fewer, at most a tenth more.

    >>> [capacity(streams) for streams in (1, 2, 10, 19, 20, 21, 23, 1000)]
    [1, 2, 10, 19, 20, 22, 24, 1069]
    """
    size = 1
    while size < streams:
        size += max(1, size // GROWTH)
    return size


class PageLog(msgspec.Struct, array_like=True):
    """Pages begun, and pages that proved false, of the last 28 days of event time; part of the checkpoint.

    Attributes:
        days: detector → day since the epoch → (begun, false).
        since: event time of the first bucket judged, seconds; None before it.
        until: that of the last one.
    """

    days: dict[str, dict[int, tuple[int, int]]] = {}
    since: float | None = None
    until: float = 0.0

    def move_on(self, now: float) -> None:
        """Event time has come to `now`, seconds."""
        self.since = now if self.since is None else self.since
        self.until = max(self.until, now)

    def note(self, detector: str, now: float, *, begun: int = 0, false: int = 0) -> None:
        """Count pages that began or proved false at `now`, event time, seconds."""
        days, today = self.days.setdefault(detector, {}), int(now // DAY_S)
        before = days.get(today, (0, 0))
        days[today] = before[0] + begun, before[1] + false
        for day in [day for day in days if day <= today - WINDOW_DAYS]:
            del days[day]

    def per_week(self, detector: str) -> tuple[float, float]:
        """Pages begun and pages that proved false, a week, over the last 28 days or the time watched, at least a week.

        >>> log = PageLog()
        >>> for day in range(15):
        ...     log.move_on(day * DAY_S)
        ...     log.note("hesitation", day * DAY_S, begun=1, false=day % 3 == 0)
        >>> log.per_week("hesitation")
        (7.5, 2.5)
        """
        watched = 0.0 if self.since is None else (self.until - self.since) / DAY_S
        weeks = min(max(watched, WEEK_DAYS), WINDOW_DAYS) / WEEK_DAYS
        first = int(self.until // DAY_S) - WINDOW_DAYS
        window = [counts for day, counts in list(self.days.get(detector, {}).items()) if day > first]
        return sum(begun for begun, _ in window) / weeks, sum(false for _, false in window) / weeks

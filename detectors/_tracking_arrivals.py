"""Whether far fewer came than in the same hours of the days before: at once, for all, and for hours."""

from __future__ import annotations

from math import log
from typing import Final

import msgspec

from detectors._baseline import HOUR_S, HOURS

FALLEN: Final = 0.4
"""The part that comes still where visits break down; the evidence turns at 0.65."""
SILENT: Final = 0.05
LIKE_H: Final = (HOURS, 2 * HOURS, 7 * HOURS)
"""Hours back that are like this one; the least of them is expected, so that a weekend or a burst is no fall."""
KEPT_H: Final = 7 * HOURS + 1
LEAST_LIKE: Final = 2
SWING: Final = 0.03
"""Variance of a day's numbers beyond chance, relative to their square."""
SPREAD: Final = 15.0
"""Spread that is believed in at first, as if so many arrivals had been seen: those of a session come together."""
SPREAD_N: Final = 200.0
MOST_SPREAD: Final = 60.0
RECOVERED: Final = 0.7


class Came(msgspec.Struct):
    """Arrivals by hour, and the evidence that far fewer come.

    Attributes:
        slot: the running hour, hours since the epoch.
        count: arrivals in it.
        hours: arrivals of the hours before it, oldest first.
        stat: evidence, nats.
        since: event time at which it began to rise, seconds.
        k_since: arrivals since.
        expected_since: arrivals expected since.
        back: hours in a row that were as usual, as evidence; nats.
        known: arrivals known.
        squares: squared residuals and expected arrivals of hours, faded: events come in sessions.
    """

    slot: int = -1
    count: int = 0
    hours: list[int] = []
    stat: float = 0.0
    since: float = 0.0
    k_since: float = 0.0
    expected_since: float = 0.0
    back: float = 0.0
    known: int = 0
    squares: tuple[float, float] = (SPREAD * SPREAD_N, SPREAD_N)

    def observe(self, ts: float, came: int, drop: bool, alarmed: bool) -> None:
        """Take up arrivals at event time `ts`, seconds."""
        slot = int(ts // HOUR_S)
        if self.slot < 0:
            self.slot = slot
        while self.slot < slot:
            self._close(drop, alarmed)
        self.count += came
        self.known += came
        if came and not drop:
            self._heard(alarmed)

    def told(self) -> tuple[float, float, int, int]:
        """1 before, the part that came since, arrivals known, and arrivals expected since."""
        return 1.0, self.k_since / max(self.expected_since, 1.0), self.known, max(1, round(self.expected_since))

    def settle(self) -> None:
        """They come again."""
        self.stat = self.back = self.k_since = self.expected_since = 0.0

    def accept(self) -> None:
        """So few are the new normal."""
        self.hours = []
        self.settle()

    def _heard(self, alarmed: bool) -> None:
        """A source that sends anything is not silent."""
        if alarmed:
            self.back = 1000.0
        else:
            self.settle()

    def _close(self, drop: bool, alarmed: bool) -> None:
        expected, count = self._expected(), self.count
        if expected is not None and not alarmed:
            residual = (count - expected) ** 2 if count else 0.0
            self.squares = (self.squares[0] * 0.99 + residual, self.squares[1] * 0.99 + (expected if count else 0.0))
        if expected is not None and (expected >= 1.0 or self.stat > 0.0):
            self._weigh(expected, count, drop, alarmed)
        kept = count if expected is None or (not alarmed and self.stat <= 2.0) else max(count, round(expected))
        self.hours = [*self.hours, kept][-KEPT_H:]
        self.slot, self.count = self.slot + 1, 0

    def _weigh(self, expected: float, count: int, drop: bool, alarmed: bool) -> None:
        if not drop and count:
            return
        if self.stat <= 0.0:
            self.since, self.k_since, self.expected_since = self.slot * HOUR_S, 0.0, 0.0
        left, spread = (FALLEN, 2.0 + SWING * expected) if drop else (SILENT, self._spread())
        nats = (count * log(left) + (1.0 - left) * expected) / spread
        self.k_since, self.expected_since = self.k_since + count, self.expected_since + expected
        self.stat = max(0.0, self.stat + nats)
        if alarmed and drop:
            self.back = self.back + 4.0 if count >= RECOVERED * expected else 0.0

    def _spread(self) -> float:
        """How many times more the numbers of hours vary than Poisson's."""
        return min(MOST_SPREAD, max(2.0, self.squares[0] / max(self.squares[1], 1.0)))

    def _expected(self) -> float | None:
        like = [self.hours[-back] for back in LIKE_H if len(self.hours) >= back]
        return float(min(like)) if len(like) >= LEAST_LIKE else None

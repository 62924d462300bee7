"""How many came, hour by hour, so that "fewer came" and "fewer advanced" are told apart."""

from __future__ import annotations

from math import ceil
from typing import Final

import msgspec

from detectors._baseline import HOUR_S, HOURS

KEPT_H: Final = 15 * HOURS
WEEK_H: Final = 7 * HOURS


class Arrivals(msgspec.Struct, array_like=True):
    """People who entered in each of the last hours.

    Attributes:
        slot: the running hour, hours since the epoch.
        hours: counts of the hours up to and with that one, oldest first.

    Example:
        >>> arrivals = Arrivals()
        >>> for hour in range(72):
        ...     arrivals.add(hour * 3600.0, 10 if hour < 60 else 4)
        >>> arrivals.around(60 * 3600.0)
        (10.0, 4.0)
    """

    slot: int = -1
    hours: list[int] = []

    def add(self, ts: float, count: int) -> None:
        """Count people who entered at event time `ts`, seconds; ascends."""
        slot = int(ts // HOUR_S)
        if slot > self.slot:
            quiet = slot - self.slot - 1 if self.hours else 0
            self.hours = [*self.hours, *[0] * min(quiet, KEPT_H), 0][-KEPT_H:]
            self.slot = slot
        self.hours[-1] += count

    def around(self, onset: float) -> tuple[float, float] | None:
        """People an hour before and since the onset, in the same hours of the day (and week, where known).

        Args:
            onset: event time, seconds.

        Returns:
            None while no whole hour has passed since, or none like it is known from before.
        """
        first, oldest = ceil(onset / HOUR_S), self.slot - len(self.hours) + 1
        border = int(onset // HOUR_S)
        pairs = []
        for slot in range(max(first, oldest), self.slot):
            like = self._like(slot, border, oldest)
            if like is not None:
                pairs.append((self.hours[like - oldest], self.hours[slot - oldest]))
        if not pairs:
            return None
        return sum(before for before, _ in pairs) / len(pairs), sum(after for _, after in pairs) / len(pairs)

    @staticmethod
    def _like(slot: int, border: int, oldest: int) -> int | None:
        """The last hour before `border` that is like `slot`: of the same weekday if one is known, else of any day."""
        for period in (WEEK_H, HOURS):
            like = slot - max(1, -(-(slot - border + 1) // period)) * period
            if like >= oldest:
                return like
        return None

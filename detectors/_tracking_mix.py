"""Whether the values of a label, or the size of a number, changed their meaning at once for everybody.

A campaign that ends takes one value away, a new one adds one, and neither redefines the others. A definition that
changes does both at once: values go and others come in their place, or nearly all become one, or none is given any
more. Numbers are told by powers of two; a scale or unit that changes moves nearly all of them by a factor of ten or
more: by as many octaves as the row says, more of them for what people do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from detectors._tracking_tests import Jump

STRANGE: Final = 0.01
"""A value with a lesser share than this was not usual."""
USUAL: Final = 0.08
"""One with this share and more is missed when it goes."""
MOST: Final = 24
"""Values remembered."""
LEAST_VALUES: Final = 1000.0
"""Events known before a value is called strange: those of one session all have the same."""
LEAST_NUMBERS: Final = 30.0
"""Numbers known before one is called far off …"""
SELDOM_N: Final = 70.0
"""… and the belief, in trials, that it seldom is: sizes vary less than the shares of campaigns."""
NOT_A_NUMBER: Final = -10_000


class Mix(msgspec.Struct):
    """What values are usual, and the evidence that they are others now.

    Attributes:
        values: value → times seen, faded.
        strange: values that were not usual, or numbers that are far off.
        missing: no value, of all.
        gone: usual value → evidence that it has gone.
    """

    values: dict[str, float] = {}
    strange: Jump = msgspec.field(default_factory=Jump)
    missing: Jump = msgspec.field(default_factory=Jump)
    gone: dict[str, Jump] = {}

    @property
    def speaker(self) -> Jump:
        """Whose numbers are told."""
        if self._swapped():
            return self.strange
        if self.missing.stat >= max(self._merged(), self.strange.stat if not self.gone else 0.0):
            return self.missing
        return self.strange if not self.gone else max(self.gone.values(), key=lambda jump: jump.stat)

    @property
    def stat(self) -> float:
        """Evidence that the values were redefined, nats."""
        return max(self.missing.stat, self._swapped(), self._merged(), 0.0 if self.gone else self.strange.stat)

    def observe(self, ts: float, counts: Mapping[str, int], keep: float, alarmed: bool) -> None:
        """Take up the values of one window."""
        if "far" in counts:
            seen = {field[2:] or str(NOT_A_NUMBER): n for field, n in counts.items() if field != "far"}
            self._observe_numbers(ts, seen, counts["far"], keep, alarmed)
        else:
            self._observe_values(ts, {field[2:]: n for field, n in counts.items()}, keep, alarmed)

    def settle(self) -> None:
        """The old values are back."""
        for jump in (self.strange, self.missing, *self.gone.values()):
            jump.settle()

    def accept(self) -> None:
        """Start anew with what comes now."""
        self.values, self.gone = {}, {}
        self.strange, self.missing = Jump(), Jump()

    def _swapped(self) -> float:
        """One goes and another comes in its place."""
        return min(self.strange.stat, max((jump.stat for jump in self.gone.values()), default=0.0))

    def _merged(self) -> float:
        """Two usual values or more go, and at most one is left."""
        stats = sorted((jump.stat for jump in self.gone.values()), reverse=True)
        return stats[-2] if len(stats) >= 3 else 0.0

    def _observe_numbers(self, ts: float, seen: dict[str, int], octaves: int, keep: float, alarmed: bool) -> None:
        n = sum(seen.values())
        if sum(self.values.values()) < LEAST_NUMBERS:
            self._learn(seen, keep)
            self.strange.n = SELDOM_N
            return
        middle = self._median()
        far = sum(count for octave, count in seen.items() if abs(int(octave) - middle) >= octaves)
        # A scale moves nearly all: less than half of a jump is people.
        self.strange.observe("jump", ts, max(0.0, 2.0 * far - n) if far < n else n, n, keep, alarmed)
        if self.strange.stat <= 1.0 and not alarmed:
            self._learn(seen, keep)

    def _median(self) -> int:
        half, total = sum(self.values.values()) / 2.0, 0.0
        for octave in sorted(self.values, key=int):
            total += self.values[octave]
            if total >= half:
                return int(octave)
        return 0

    def _observe_values(self, ts: float, seen: dict[str, int], keep: float, alarmed: bool) -> None:
        n, known = sum(seen.values()), sum(self.values.values())
        if known >= LEAST_VALUES:
            share = {value: self.values.get(value, 0.0) / known for value in (*self.values, *seen)}
            strange = sum(count for value, count in seen.items() if share[value] < STRANGE)
            self.strange.observe("jump", ts, strange, n, keep, alarmed)
            self.missing.observe("jump", ts, seen.get("", 0), n, keep, alarmed)
            self._miss(ts, seen, share, keep, alarmed)
        if known < LEAST_VALUES or (self.stat <= 1.0 and not alarmed and self.strange.stat <= 6.0):
            self._learn(seen, keep)

    def _miss(self, ts: float, seen: dict[str, int], share: dict[str, float], keep: float, alarmed: bool) -> None:
        usual = sorted((-share[value], value) for value in self.values if value and share[value] >= USUAL)
        watched = {*(value for _, value in usual[:8]), *(self.gone if alarmed else ())}
        # Sorted: a set of words has another order in each process, and state has to be the same bytes in all of them.
        self.gone = {value: self.gone.get(value) or Jump() for value in sorted(watched)}
        n = sum(seen.values())
        for value, jump in self.gone.items():
            jump.observe("gone", ts, seen.get(value, 0), n, keep, alarmed)

    def _learn(self, seen: dict[str, int], keep: float) -> None:
        values = {value: count * keep for value, count in self.values.items()}
        for value, count in seen.items():
            values[value] = values.get(value, 0.0) + count
        kept = sorted(values, key=lambda value: (-values[value], value))[:MOST]
        self.values = {value: values[value] for value in sorted(kept)}

"""Tunes River's detectors on streams of their own: as fast as can be at the allowed rate of false alarms."""

from __future__ import annotations

from math import inf
from typing import Any, Final

import msgspec

from tests.bench._river_peers import PEERS, alarms_of
from tests.bench._scores import delays, false_alarms, judge_change, judge_quiet
from tests.bench._streams import Change, Kind, Stream, simulate

ALLOWED: Final = 2.0
"""False alarms per 100,000 events."""


class Effort(msgspec.Struct, frozen=True):
    """How much tuning is done: streams without change and their events, streams with one, halvings of the knob."""

    quiet: int
    quiet_n: int
    changed: int
    halvings: int


class Tuned(msgspec.Struct):
    """A setting, and what it does on the tuning streams."""

    name: str
    params: dict[str, Any]
    rate: float
    median: float | None
    missed: float

    @property
    def order(self) -> tuple[bool, float, float]:
        """Best first: within the allowance, then the shortest median delay, then the fewest missed."""
        return self.rate > ALLOWED, inf if self.median is None else self.median, self.missed


def tune_shape(name: str, shape: dict[str, Any], kind: Kind, change: Change, effort: Effort) -> Tuned:
    """Set the knob of one shape to the loosest value within the allowance, by halving, and measure the delay.

    Args:
        name: key of `PEERS`.
        shape: all parameters but the knob.
        kind: streams to tune on.
        change: the change that should be found soon.
        effort: how much to do.
    """
    peer = PEERS[name]
    streams = [simulate(kind, "tune", number, effort.quiet_n) for number in range(effort.quiet)]
    low, high, rate = 0.0, 1.0, _rate(name, {**shape, peer.knob: peer.strict}, streams)
    for _ in range(effort.halvings):
        middle = (low + high) / 2
        tried = _rate(name, {**shape, peer.knob: peer.between(middle)}, streams)
        if tried <= ALLOWED:
            high, rate = middle, tried
        else:
            low = middle
    params = {**shape, peer.knob: peer.between(high)}
    changed = delays([_outcome(name, params, kind, change, number) for number in range(effort.changed)])
    return Tuned(name, params, rate, changed.median, changed.missed)


def _rate(name: str, params: dict[str, Any], streams: list[Stream]) -> float:
    quiet = []
    for seen, stream in enumerate(streams, start=1):
        quiet.append(judge_quiet(alarms_of(name, params, stream), stream.learn_n, len(stream.xs)))
        if seen % 10 == 0 and false_alarms(quiet).rate > 5 * ALLOWED:
            break  # far off: no need to know by how much
    return false_alarms(quiet).rate


def _outcome(name: str, params: dict[str, Any], kind: Kind, change: Change, number: int) -> Any:
    stream = simulate(kind, "tune", number, change.within_n, change)
    return judge_change(alarms_of(name, params, stream, kind.learn_n), kind.learn_n, change.within_n)

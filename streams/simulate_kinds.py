"""What all parts of the simulator share: an erosion, how busy a moment is, a mix that shifts, lives side by side."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from heapq import heappop, heappush
from typing import Final, Literal, Protocol, TypeAlias

import msgspec

from streams.events import Event

DAY_S: Final = 86_400.0
EVERYWHERE: Final = "everywhere"
"""Stage of what concerns all that happens."""
RAMP_DAYS: Final = 10.0
"""A season comes so slowly."""
HOLIDAY_DAYS: Final = 3.0
SHIFT_H: Final = 5.0
"""Hours by which `rhythm` moves the day."""
LOW: Final = 0.6
"""What the value whose share `mix_shift` moves does to advance, from the first day on and for good."""
PEAK: Final = 2.0

Kind: TypeAlias = Literal[
    "hesitation", "early_dropoff", "lead_score_drift", "score_inflation", "false_engagement", "funnel_divergence",
    "small_losses", "follow_up_decay", "over_contact", "value_late", "value_wrong", "value_unsolved", "value_nps",
    "vanity", "price_change", "season", "rhythm", "holiday", "campaign_burst", "mix_shift", "bots", "relaunch",
]  # fmt: skip
Burst: TypeAlias = tuple[float, list[Event]]
"""Begin in epoch seconds, and the events of one session, lead, mail or order, none of them earlier than the begin."""
Busy: TypeAlias = Callable[[float], float]
"""How much is going on at a moment, `most` at most; 1 on an average day without a season."""


class Erosion(msgspec.Struct, frozen=True):
    """One thing that is put into the stream on purpose: a loss of trust, or what only looks like one.

    Attributes:
        kind: what is lost; see `streams.simulate_spec.KINDS`.
        stage: where: a journey stage, "journey" (all of them), "leads", "contacts", "customers" or "everywhere".
        segment: label → value that an event must carry to be hit; empty hits everyone.
        onset_day: days after the start of the simulation, fractions allowed.
        size: what it means depends on the kind, see `streams.simulate_spec.KINDS`.
    """

    kind: Kind
    stage: str
    segment: dict[str, str]
    onset_day: float
    size: float

    def concerns(self, segment: Mapping[str, str]) -> bool:
        """Whether someone with these labels is hit, once it has begun."""
        return all(segment.get(label) == value for label, value in self.segment.items())

    def since(self, start: float, time: float) -> float:
        """Days since its onset at this moment; negative before.

        Args:
            start: epoch seconds from which `onset_day` counts.
            time: epoch seconds.
        """
        return (time - start) / DAY_S - self.onset_day


def weighted(rng: random.Random, weights: Mapping[str, float]) -> str:
    """One key, drawn by its weight."""
    return rng.choices(tuple(weights), tuple(weights.values()))[0]


def busy(time: float, shift_h: float = 0.0, weekend: float = 0.8125) -> float:
    """How much is going on, 1 on average: quiet nights, a peak in the afternoon, weekends below working days."""
    hour, weekday = time / 3600 % 24, (int(time // DAY_S) + 3) % 7  # the epoch was a Thursday
    return (1 + 0.8 * math.cos((hour - shift_h - 15) * math.pi / 12)) * (1.075 if weekday < 5 else weekend)


def at_day(rng: random.Random, time: float, days: float = 0.0) -> float:
    """A moment so many whole days later, at an hour of the day at which things happen: most in the afternoon."""
    midnight = (time // DAY_S + int(days)) * DAY_S
    while True:
        moment = midnight + rng.random() * DAY_S
        if rng.random() * PEAK < busy(moment):
            return moment


def busy_with(erosions: Sequence[Erosion], start: float) -> tuple[Busy, float]:
    """How busy it is with seasons, holidays and another rhythm, and the most that it can be.

    Args:
        erosions: all; other kinds are ignored.
        start: epoch seconds from which `onset_day` counts.
    """
    shapes = [erosion for erosion in erosions if erosion.stage == EVERYWHERE]
    if not shapes:
        return busy, PEAK

    def shaped(time: float) -> float:
        factor, shift_h, weekend = 1.0, 0.0, 0.8125
        for erosion in shapes:
            days = erosion.since(start, time)
            if days < 0:
                continue
            if erosion.kind == "season":
                factor *= 1 + (erosion.size - 1) * min(days / RAMP_DAYS, 1.0)
            elif erosion.kind == "holiday":
                factor *= erosion.size if days < HOLIDAY_DAYS else 1.0
            else:
                shift_h, weekend = SHIFT_H, 1.075
        return factor * busy(time, shift_h, weekend)

    return shaped, PEAK * math.prod(max(erosion.size, 1.0) for erosion in shapes)


def poisson(rng: random.Random, begin: float, end: float, per_day: float, when: tuple[Busy, float]) -> Iterator[float]:
    """Poisson arrivals whose rate follows how busy it is, by thinning.

    Args:
        rng: of nothing else.
        begin: epoch seconds.
        end: epoch seconds, exclusive.
        per_day: arrivals on an average day.
        when: how busy it is, and the most that it can be.
    """
    shape, most = when
    time = begin
    while per_day > 0:
        time += rng.expovariate(per_day * most / DAY_S)
        if time >= end:
            return
        if rng.random() * most < shape(time):
            yield time


class Mix:
    """Shares of label values, of which some grow from a day on; each value behaves as before.

    Args:
        erosions: all; only `mix_shift` of this stage counts.
        stage: of those who are drawn.
        start: epoch seconds from which `onset_day` counts.
    """

    def __init__(self, erosions: Sequence[Erosion], stage: str, start: float) -> None:
        self._shifts = [erosion for erosion in erosions if erosion.kind == "mix_shift" and erosion.stage == stage]
        self._start = start

    def of(self, label: str, weights: Mapping[str, float], time: float) -> Mapping[str, float]:
        """Weights of the values of a label at a moment."""
        if not self._shifts:
            return weights
        shares = dict(weights)
        for shift in self._shifts:
            if label in shift.segment and shift.since(self._start, time) >= 0:
                shares[shift.segment[label]] *= shift.size
        return shares

    def low(self, segment: Mapping[str, str]) -> bool:
        """Whether these labels are those of people who are worse than others, before the shift and after."""
        return any(shift.concerns(segment) for shift in self._shifts)


class Life(Protocol):
    """Someone to whom things happen again and again."""

    @property
    def due(self) -> float:
        """When the next thing happens, epoch seconds; infinite at the end."""

    def live(self) -> list[Event]:
        """The events of the next thing, none before `due`; moves on."""


def side_by_side(lives: Iterator[tuple[float, Life]], end: float) -> Iterator[Burst]:
    """What happens to many, in the order in which it begins.

    Args:
        lives: (begin, life), ascending.
        end: epoch seconds; nothing begins after it.
    """
    waiting: list[tuple[float, int, Life]] = []
    coming = next(lives, None)
    number = 0
    while waiting or coming is not None:
        if coming is not None and (not waiting or coming[0] <= waiting[0][0]):
            heappush(waiting, (max(coming[0], coming[1].due), number, coming[1]))
            coming, number = next(lives, None), number + 1
            continue
        due, place, life = heappop(waiting)
        if due >= end:
            return  # a coming life begins no earlier
        yield due, life.live()
        if life.due < end:
            heappush(waiting, (life.due, place, life))

"""Simulated customers: orders with a promise, deliveries that keep it or not, cases, surveys, and whether they stay.

What a customer got decides what he says and whether he renews. Each draws from a seed of his own, so an erosion
leaves all others as they are.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Final, NamedTuple

from detectors._stages import CUSTOMERS
from streams.events import Event, Value
from streams.simulate_kinds import DAY_S, Burst, Erosion, at_day, busy_with, poisson, side_by_side, weighted

WEIGHTS: Final[dict[str, dict[str, float]]] = {
    "channel": {"shop": 0.6, "partner": 0.25, "phone": 0.15},
    "country": {"DE": 0.55, "AT": 0.17, "CH": 0.15, "NL": 0.13},
}
"""Labels of customers, their values and the share of each value."""
CYCLE_DAYS: Final = 14.0
"""A customer orders every so many days."""
WAIT_DAYS: Final = 4.2
"""Of these he waits so many for what he ordered, about."""
REVIEW_DAYS: Final = 60.0
"""And renews or leaves every so many."""
MEMORY_DAYS: Final = 180.0
"""What went wrong so long ago is forgotten."""
LATE: Final = 0.06
WRONG: Final = 0.03
UNSOLVED: Final = 0.12
"""Shares of orders that are late and wrong, and of cases that are not solved in three days."""
SURVEYED: Final = 0.35
CHURN: Final = {"": 0.10, "late": 0.20, "wrong": 0.20, "unsolved": 0.30, "unhappy": 0.20}
"""Probability to leave at a review, and what each bad experience adds."""
SURVEYS: Final = {"nps": 0.5, "csat": 0.3, "ces": 0.2}


class Scale(NamedTuple):
    """A kind of survey: lowest and highest score, mean and spread of content people, and what a bad order costs."""

    least: float
    most: float
    mean: float
    spread: float
    cost: float


SCALES: Final = {
    "nps": Scale(0.0, 10.0, 8.4, 1.4, 3.0), "csat": Scale(1.0, 5.0, 4.4, 0.7, 1.2),
    "ces": Scale(1.0, 7.0, 5.9, 1.0, 1.6),
}  # fmt: skip
UNHAPPY: Final = {"nps": 6, "csat": 3, "ces": 4}
"""The best score that counts as bad."""


def customers(
    orders_per_day: float, seed: int, erosions: Sequence[Erosion], start: float, end: float
) -> Iterator[Burst]:
    """Orders and what becomes of them.

    Args:
        orders_per_day: orders on an average day.
        seed: same seed, same orders.
        erosions: those of other stages are ignored here, but for seasons and their like.
        start: epoch seconds from which `onset_day` counts.
        end: epoch seconds.
    """
    world = _World(seed, erosions, start)
    size = round(orders_per_day * CYCLE_DAYS)
    leave = 1.5 * CHURN[""] / REVIEW_DAYS * size
    coming = poisson(random.Random(f"{seed}-customers"), start, end, leave, world.when)
    arrivals = chain([start] * size, coming)
    return side_by_side(((begin, _Customer(world, number, begin)) for number, begin in enumerate(arrivals)), end)


class _World:
    """What all customers share."""

    def __init__(self, seed: int, erosions: Sequence[Erosion], start: float) -> None:
        self.seed, self.start = seed, start
        self.when = busy_with(erosions, start)
        self.erosions = [erosion for erosion in erosions if erosion.stage == CUSTOMERS]


class _Customer:
    """One customer; `due` is the next order or review."""

    def __init__(self, world: _World, number: int, begin: float) -> None:
        self.world, self.person = world, f"k{number:x}"
        self.rng = rng = random.Random(f"{world.seed}-{self.person}")
        self.segment = {label: weighted(rng, values) for label, values in WEIGHTS.items()}
        self.erosions = [erosion for erosion in world.erosions if erosion.concerns(self.segment)]
        waits = (
            rng.random() * CYCLE_DAYS < WAIT_DAYS
        )  # for an order placed before: volume is the same from the first day
        self.order = begin + (rng.uniform(0.0, WAIT_DAYS) * DAY_S if waits else 0.0)
        self.review = round(at_day(rng, begin, rng.uniform(1.0, REVIEW_DAYS)), 3)
        self.bad: list[tuple[float, str]] = []
        self.events: list[Event] = []
        self.told = 0
        self._next_order()
        self.due = min(self.order, self.review)

    def live(self) -> list[Event]:
        """The next order with all that follows from it, or the next review."""
        self.events = []
        if self.review <= self.order:
            stays = self._decide()
            self.review += REVIEW_DAYS * DAY_S
        else:
            stays = True
            self.order = self._buy()
            self._next_order()
        self.due = min(self.order, self.review) if stays else math.inf
        return self.events

    def _size(self, kind: str, time: float) -> float:
        """Size of the erosions of this kind at this moment; 1 without one."""
        hit = (one for one in self.erosions if one.kind == kind and one.since(self.world.start, time) >= 0)
        return math.prod(one.size for one in hit)

    def _buy(self) -> float:
        """An order; when it was delivered."""
        rng, placed = self.rng, self.order
        # A promise is for the end of a day. What follows happens by day, as orders do: night is quiet for all of it.
        promised = round((placed // DAY_S + rng.randrange(4, 6)) * DAY_S - rng.uniform(1.0, 3600.0), 3)
        late = rng.random() < LATE * self._size("value_late", promised)
        days = 1 + rng.expovariate(0.8) if late else -float(rng.random() < 0.4)
        delivered = at_day(rng, promised, days)
        delivered = delivered if late else min(delivered, promised - 60.0)
        correct = rng.random() >= WRONG * self._size("value_wrong", delivered)
        self._emit("order_placed", placed, promised_at=promised, value=round(60 * math.exp(rng.gauss(0.0, 0.6)), 2))
        self._emit("order_delivered", delivered, promised_at=promised, correct=correct)
        unsolved = self._ask(delivered, late=late, correct=correct)
        went = {"late": late, "wrong": not correct, "unsolved": unsolved}
        self.bad += [(delivered, name) for name, happened in went.items() if happened]
        self._survey(delivered, sum(went.values()))
        return delivered

    def _ask(self, delivered: float, *, late: bool, correct: bool) -> bool:
        """Whether a case came of it that was not solved in time."""
        rng = self.rng
        asks, fails, never = (rng.random() for _ in range(3))
        opened = at_day(rng, delivered, 1)
        # Within three days of the opening, hours included, or on the fifth at the earliest.
        quick, slow = (at_day(rng, opened, days) for days in (rng.randrange(1, 3), 5 + rng.expovariate(0.5)))
        if asks >= 0.12 + 0.35 * late + 0.5 * (not correct):
            return False
        unsolved = fails < UNSOLVED * self._size("value_unsolved", opened)
        self._emit("case_opened", opened)
        if not unsolved or never < 0.6:
            self._emit("case_solved", slow if unsolved else quick)
        return unsolved

    def _survey(self, delivered: float, wrong: int) -> None:
        """What the customer says of it, if asked."""
        rng = self.rng
        asked, kind = rng.random() < SURVEYED, weighted(rng, SURVEYS)
        time, mood = at_day(rng, delivered, rng.randrange(1, 3)), rng.gauss(0.0, 1.0)
        if not asked:
            return
        scale = SCALES[kind]
        # The size is in points of NPS; other scales lose the same part of their range.
        hit = [one.size for one in self.erosions if one.kind == "value_nps" and one.since(self.world.start, time) >= 0]
        lost = sum(hit) / 10 * (scale.most - scale.least) + scale.cost * wrong
        score = min(max(float(round(scale.mean + scale.spread * mood - lost)), scale.least), scale.most)
        if score <= UNHAPPY[kind]:
            self.bad.append((time, "unhappy"))
        self._emit("survey_answered", time, kind=kind, score=score, scale_max=scale.most)

    def _decide(self) -> bool:
        """Renew or leave, by what was bad until now."""
        since = self.review - MEMORY_DAYS * DAY_S
        names = {name for time, name in self.bad if since < time <= self.review}
        stays = self.rng.random() >= CHURN[""] + sum(CHURN[name] for name in names)
        self._emit("renewed" if stays else "churned", self.review)
        return stays

    def _next_order(self) -> None:
        """Some time after the last one was delivered, when it is busy."""
        shape, peak = self.world.when
        while True:
            self.order += self.rng.expovariate(peak / ((CYCLE_DAYS - WAIT_DAYS) * DAY_S))
            if self.rng.random() * peak < shape(self.order):
                self.order = round(self.order, 3)
                return

    def _emit(self, type_: str, time: float, **properties: Value) -> None:
        id_ = f"{self.world.seed:x}-{self.person}-{self.told:x}"
        self.told += 1
        self.events.append(Event(id_, type_, round(time, 3), self.person, segment=self.segment, properties=properties))

"""Simulated mail: people are warm or cold, get some mails a week, answer, and leave the sooner the more they get.

Each person draws from a seed of their own, so an erosion leaves all others as they are. Ids stay, so that what a person
got in the last seven days adds up; who has left gets nothing more, and somebody else subscribes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import chain
from operator import itemgetter
from typing import Final

from detectors._stages import CONTACTS
from streams.events import Event
from streams.simulate_kinds import DAY_S, Burst, Erosion, Mix, busy_with, poisson, side_by_side, weighted

WEIGHTS: Final[dict[str, dict[str, float]]] = {
    "campaign": {"newsletter": 0.5, "promo": 0.3, "service": 0.2},
    "country": {"DE": 0.55, "AT": 0.17, "CH": 0.15, "NL": 0.13},
}
"""Labels of mails, their values and the share of each value."""
MAILS_PER_WEEK: Final = 1.5
"""Mails that an average person gets."""
WARM_SHARE: Final = 0.3
WARM_MAILS: Final = 1.35
"""Warm people get so many times as many mails as the average, so those who get most are not those who leave soonest."""
COLD_MAILS: Final = (1 - WARM_SHARE * WARM_MAILS) / (1 - WARM_SHARE)
LEAVES: Final = {"newsletter": 0.002, "promo": 0.003, "service": 0.001}
"""Probability that a mail makes a cold person leave who got none in the seven days before."""
DOSE_LEAVES: Final = 0.6
"""What each mail of the seven days before adds to that, relative to it."""
WARM_LEAVES: Final = 0.6
LOW_LEAVES: Final = 3.0
"""A campaign whose share `mix_shift` moves makes so many times as many leave, always."""
COMPLAINS: Final = 0.15
"""Share of those who leave that complain instead of unsubscribing."""
TURNOVER: Final = 0.004
"""New people a mail, about as many as leave."""
WEEK_S: Final = 7 * DAY_S


def leave_chance(campaign: str, dose: int, *, warm: bool) -> float:
    """Probability that one mail makes a person leave.

    Args:
        campaign: of the mail.
        dose: mails that the person got in the seven days before.
        warm: whether the person is.
    """
    return LEAVES[campaign] * (1 + DOSE_LEAVES * dose) * (WARM_LEAVES if warm else 1.0)


def contacts(mails_per_day: float, seed: int, erosions: Sequence[Erosion], start: float, end: float) -> Iterator[Burst]:
    """Mails and what people make of them.

    Args:
        mails_per_day: mails on an average day.
        seed: same seed, same mails.
        erosions: those of other stages are ignored here, but for seasons and their like.
        start: epoch seconds from which `onset_day` counts.
        end: epoch seconds.
    """
    mine = [erosion for erosion in erosions if erosion.stage == CONTACTS]
    world = _World(seed, mine, erosions, start)
    size = round(mails_per_day * 7 / MAILS_PER_WEEK)
    coming = poisson(random.Random(f"{seed}-contacts"), start, end, mails_per_day * TURNOVER, world.when)
    streams = [world.people("c", chain([start] * size, coming))]
    for number, erosion in enumerate(mine):
        if erosion.kind == "vanity":  # a bought list: nobody on it ever answers
            bought = [start + erosion.onset_day * DAY_S] * round(size * (erosion.size - 1))
            streams.append(world.people(f"b{number}-", iter(bought), erosion.segment))
    return side_by_side(merge(*streams, key=itemgetter(0)), end)


class _World:
    """What all people share."""

    def __init__(self, seed: int, mine: Sequence[Erosion], erosions: Sequence[Erosion], start: float) -> None:
        self.seed, self.start, self.erosions = seed, start, mine
        self.when = busy_with(erosions, start)
        self.mix = Mix(erosions, CONTACTS, start)

    def people(
        self, name: str, arrivals: Iterator[float], bought: dict[str, str] | None = None
    ) -> Iterator[tuple[float, _Contact]]:
        """People as they subscribe; `bought`: labels of people who never answer."""
        for number, begin in enumerate(arrivals):
            yield begin, _Contact(self, f"{name}{number:x}", begin, bought)


class _Contact:
    """One person; `due` is when the next mail comes."""

    def __init__(self, world: _World, person: str, begin: float, bought: dict[str, str] | None) -> None:
        self.world, self.person, self.bought = world, person, bought
        self.rng = random.Random(f"{world.seed}-{person}")
        self.country = weighted(self.rng, WEIGHTS["country"])
        self.warm = self.rng.random() < WARM_SHARE and bought is None
        per_week = MAILS_PER_WEEK * (1.0 if bought is not None else WARM_MAILS if self.warm else COLD_MAILS)
        self.per_s = per_week / WEEK_S
        where = {"channel": "email", "country": self.country}
        more = [one for one in world.erosions if one.kind == "over_contact" and one.concerns(where)]
        self.more = [(world.start + one.onset_day * DAY_S, one.size) for one in more]
        self.most = math.prod(size for _, size in self.more)
        self.got: list[float] = []
        self.sent = 0
        self.events: list[Event] = []
        self.due = begin
        self._wait()

    def live(self) -> list[Event]:
        """The next mail, and what comes of it."""
        rng, now = self.rng, self.due
        campaign = weighted(rng, self.world.mix.of("campaign", WEIGHTS["campaign"], now))
        segment = {"channel": "email", "campaign": campaign, "country": self.country, **(self.bought or {})}
        self.got = [time for time in self.got if time > now - WEEK_S]
        dose, self.events = len(self.got), []
        self.got.append(now)
        self._emit("email_sent", now, segment)
        answers, clicks, leaves, complains = (rng.random() for _ in range(4))
        if self.bought is None:
            opens = 1 / (1 + math.exp(1.3 - 1.6 * self.warm + 0.12 * dose))
            if answers < opens:
                opened = now + 3 * 3600 * math.exp(rng.gauss(0.0, 1.0))
                self._emit("email_opened", opened, segment)
                if clicks < 0.25:
                    self._emit("email_clicked", opened + rng.uniform(5.0, 90.0), segment)
            low = LOW_LEAVES if self.world.mix.low(segment) else 1.0
            if leaves < low * leave_chance(campaign, dose, warm=self.warm):
                gone = now + 2 * 3600 * math.exp(rng.gauss(0.0, 0.8))
                self._emit("complained" if complains < COMPLAINS else "unsubscribed", gone, segment)
                self.due = math.inf
                return self.events
        self._wait()
        return self.events

    def _wait(self) -> None:
        """Until the next mail: by thinning, as often as it is busy and as this person is written to."""
        shape, peak = self.world.when
        while True:
            self.due += self.rng.expovariate(self.per_s * peak * self.most)
            factor = math.prod(size for onset, size in self.more if self.due >= onset)
            if self.rng.random() * peak * self.most < shape(self.due) * factor:
                self.due = round(self.due, 3)
                return

    def _emit(self, type_: str, time: float, segment: dict[str, str]) -> None:
        id_ = f"{self.world.seed:x}-{self.person}-{self.sent:x}"
        self.sent += 1
        self.events.append(Event(id_, type_, round(time, 3), self.person, segment=segment))

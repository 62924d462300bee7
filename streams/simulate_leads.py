"""Simulated leads: a score says something about a quality that nobody sees, sales and customers judge the quality."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from streams.events import Event, Value
from streams.simulate_kinds import DAY_S, Burst, Erosion, Mix, weighted

STAGE: Final = "leads"
HANDOVER_SCORE: Final = 50.0
WEIGHTS: Final[dict[str, dict[str, float]]] = {
    "source": {"webinar": 0.34, "ads": 0.30, "partner": 0.14, "organic": 0.22},
    "model": {"v1": 0.4, "v2": 0.6},
}
"""Lead labels, their values and the share of each value."""
SOURCE_QUALITY: Final = {"webinar": 0.1, "ads": -0.25, "partner": 0.3, "organic": 0.15}
"""Mean quality of a source, in standard deviations."""
MODEL_NOISE: Final = {"v1": 0.8, "v2": 0.5}
"""How far a score model is off, in standard deviations of quality."""
REASONS: Final = ("no_budget", "wrong_contact", "no_need", "duplicate")
FIRST_ID: Final = 51_000_000_001
"""Lead ids are CRM object ids: numbers beyond 32 bits."""
IDLE_ID: Final = FIRST_ID + 20_000_000_000
"""First id of leads of `vanity`, who never wanted anything."""
NEVER_CALLED: Final = 0.06
WORSE: Final = 1.0
"""Standard deviations of quality by which scores overrate a source whose share `mix_shift` moves, always."""


def leads(
    arrivals: Iterator[float], seed: int, erosions: Sequence[Erosion], start: float, idle: dict[str, str] | None = None
) -> Iterator[Burst]:
    """Turn creation times into lead journeys, from creation to win, loss or silence.

    Args:
        arrivals: creation of each lead, epoch seconds, ascending.
        seed: same seed, same leads.
        erosions: those of web stages are ignored here.
        start: epoch seconds from which `onset_day` counts.
        idle: labels of leads who never wanted anything and are rejected, all of them; None for real ones.
    """
    rng = random.Random()
    onsets = [(erosion, start + erosion.onset_day * DAY_S) for erosion in erosions if erosion.stage == STAGE]
    mix, first = Mix(erosions, STAGE, start), FIRST_ID if idle is None else IDLE_ID
    for number, begin in enumerate(arrivals):
        rng.seed(((seed * 2 + 1) << 32) + number if idle is None else f"{seed}-idle-{number}")
        segment = {label: weighted(rng, mix.of(label, values, begin)) for label, values in WEIGHTS.items()}
        segment |= idle or {}
        active = [erosion for erosion, onset in onsets if begin >= onset and erosion.concerns(segment)]
        lead = _Lead(f"{seed:x}-{'l' if idle is None else 'i'}{number:x}-", str(first + number), rng, begin, segment)
        lead.worse, lead.idle = WORSE if mix.low(segment) else 0.0, idle is not None
        yield begin, lead.run(active)


class _Lead:
    """One lead while it is made; `now` is its clock."""

    worse = 0.0
    idle = False

    def __init__(self, prefix: str, person: str, rng: random.Random, begin: float, segment: Mapping[str, str]) -> None:
        self.prefix, self.person, self.rng, self.now, self.segment = prefix, person, rng, begin, dict(segment)
        self.events: list[Event] = []

    def run(self, active: Sequence[Erosion]) -> list[Event]:
        """From creation through scoring and sales to the outcome."""
        rng, model = self.rng, self.segment["model"]
        quality = SOURCE_QUALITY[self.segment["source"]] + rng.gauss(0.0, 1.0)
        score = _score(quality + MODEL_NOISE[model] * rng.gauss(0.0, 1.0), active)
        self._emit("lead_created")
        self.now += rng.uniform(1.0, 20.0)
        self._emit("lead_scored", score=score, model=model)
        if score >= HANDOVER_SCORE:
            self.now += rng.uniform(0.5, 3.0)
            self._emit("lead_handed_over")
            slower = math.prod(erosion.size for erosion in active if erosion.kind == "follow_up_decay")
            self._sales(quality - self.worse, slower)
        return self.events

    def _sales(self, quality: float, slower: float) -> None:
        """Sales sees the person, not the score: what follows depends on quality alone."""
        rng = self.rng
        if rng.random() > 1 - NEVER_CALLED * slower:
            return  # never called
        self._later(0.35 * slower, 0.8)
        self._emit("lead_touched")
        self._later(0.7, 0.6)
        if rng.random() > _sigmoid(0.2 + 1.4 * quality) or self.idle:
            self._emit("lead_rejected", reason=rng.choice(REASONS))
            return
        self._emit("lead_accepted")
        won = rng.random() < _sigmoid(-0.6 + 1.1 * quality)
        self._later(16.0, 0.45)
        if won:
            self._emit("lead_won", value=round(4000 * math.exp(rng.gauss(0.2 * quality, 0.5)), 2))
        else:
            self._emit("lead_lost", reason=rng.choice(REASONS))

    def _later(self, median_days: float, sigma: float) -> None:
        self.now += DAY_S * median_days * math.exp(self.rng.gauss(0.0, sigma))

    def _emit(self, type_: str, **properties: Value) -> None:
        id_ = f"{self.prefix}{len(self.events)}"
        self.events.append(
            Event(id_, type_, round(self.now, 3), self.person, segment=self.segment, properties=properties)
        )


def _score(seen: float, active: Sequence[Erosion]) -> float:
    """Score on 0 to 100 of a quality as the model sees it, eroded."""
    score = 48.0 + 14.0 * seen
    for erosion in active:
        if erosion.kind == "score_inflation":
            score *= erosion.size
        elif erosion.kind in ("lead_score_drift", "relaunch"):
            score += erosion.size
    return round(min(max(score, 0.0), 100.0), 1)


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


_HUBSPOT: Final = {
    "lead_scored": ("hubspotscore", ""), "lead_handed_over": ("lifecyclestage", "marketingqualifiedlead"),
    "lead_accepted": ("lifecyclestage", "salesqualifiedlead"), "lead_won": ("lifecyclestage", "customer"),
    "lead_touched": ("hs_lead_status", "CONNECTED"), "lead_rejected": ("hs_lead_status", "UNQUALIFIED"),
}  # fmt: skip
"""Event type → HubSpot property and the value it takes; the score is its own value."""


def hubspot_items(event: Event) -> list[dict[str, Any]]:
    """What HubSpot's webhook would say about one lead event: nothing, one item, or source and score."""
    if event.type == "lead_created":
        return [_item(event, subscriptionType="contact.creation")]
    if event.type not in _HUBSPOT:
        return []
    name, value = _HUBSPOT[event.type]
    if event.type != "lead_scored":
        return [_changed(event, name, value)]
    # The source goes first: a score is counted for the labels known by then.
    return [
        _changed(event, "hs_analytics_source", event.segment["source"], "s"),
        _changed(event, name, f"{event.properties['score']:g}"),
    ]


def _changed(event: Event, name: str, value: str, suffix: str = "") -> dict[str, Any]:
    return _item(event, suffix, subscriptionType="contact.propertyChange", propertyName=name, propertyValue=value)


def _item(event: Event, suffix: str = "", **fields: str) -> dict[str, Any]:
    return {
        "eventId": event.id + suffix,
        "portalId": 1,
        "occurredAt": round(event.time * 1000),
        "objectId": int(event.person),
        "attemptNumber": 0,
        "changeSource": "CRM",
        **fields,
    }

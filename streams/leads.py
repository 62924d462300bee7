"""Lead journeys: created, scored, handed over, touched, accepted, won; judged once, at fixed horizons.

CRM events come in any order and hours late, so a lead keeps only the earliest time of each milestone: that is the same
in whatever order they arrive. A cohort counts only once its horizon has passed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Literal

import msgspec

from streams.events import Event
from streams.frames import NEVER
from streams.settings import LeadSettings

DAY_S: Final = 86_400.0

Horizon = Literal["touch", "accept", "win"]
_HORIZONS: Final[tuple[Horizon, ...]] = ("touch", "accept", "win")
_MILESTONE_OF: Final[dict[Horizon, str]] = {"touch": "lead_touched", "accept": "lead_accepted", "win": "lead_won"}
TOUCHED_S: Final = DAY_S
"""A lead that was touched within this time of its hand-over is called `touched` when its outcome is judged."""
ENDS: Final = ("lead_won", "lead_lost", "lead_rejected")
HOUR_S: Final = 3600.0
MOST_VALUE: Final = 1e12
"""Money beyond this is a mistake, and would break the sums."""
MILESTONES: Final = frozenset({
    "lead_created", "lead_handed_over", "lead_accepted", "lead_rejected", "lead_touched", "lead_won", "lead_lost",
})  # fmt: skip
LEAD_TYPES: Final = MILESTONES | {"lead_scored"}

Count = Callable[["Lead", str, int], None]
"""Adds to a field for the segments of a lead: lead, field, how much."""


class Lead(msgspec.Struct, array_like=True, gc=False):
    """What is known of one lead.

    Attributes:
        person: pseudonym.
        seen: event time of its first event, seconds.
        segment: labels of all its events; the first value of a label stays, so that cohorts do not move.
        score: the last score before hand-over, on the configured scale.
        scored: event time of the last score that was counted.
        milestones: event type → earliest event time.
        judged: horizons that have passed and were counted.
        marks: touch marks that have passed and were counted.
        value: money of the win, whole units.
    """

    person: str
    seen: float
    segment: dict[str, str] = {}
    score: float | None = None
    scored: float | None = None
    milestones: dict[str, float] = {}
    judged: list[Horizon] = []
    marks: int = 0
    value: int = 0


def merged(one: Lead, other: Lead, person: str) -> Lead:
    """Two leads that turn out to be one person's, as one; the same whichever is named first.

    Each milestone counts from when it was first reached. A label of the lead that began first stays. The score is the
    last before hand-over. A horizon that was judged for either is not judged again; what was counted stays counted.
    """
    first, second = sorted((one, other), key=lambda lead: (lead.seen, lead.person))
    milestones = dict(first.milestones)
    for kind, time in second.milestones.items():
        milestones[kind] = min(time, milestones.get(kind, time))
    latest = max((one, other), key=lambda lead: (lead.score is not None, lead.scored or NEVER, lead.person))
    scored = [lead.scored for lead in (one, other) if lead.scored is not None]
    judged = [horizon for horizon in _HORIZONS if horizon in {*one.judged, *other.judged}]
    segment = {**second.segment, **first.segment}
    marks, value = max(one.marks, other.marks), max(one.value, other.value)
    return Lead(person, first.seen, segment, latest.score, max(scored, default=None), milestones, judged, marks, value)


class Leads:
    """The rules of lead journeys; `Lead` holds the state.

    Args:
        settings: horizons and score scale.
        count: called for every lead and field to be counted.
    """

    def __init__(self, settings: LeadSettings, count: Count) -> None:
        self._settings = settings
        self._count = count
        self.horizon_s: dict[Horizon, float] = {
            "touch": settings.touch_horizon_days * DAY_S,
            "accept": settings.acceptance_horizon_days * DAY_S,
            "win": settings.conversion_horizon_days * DAY_S,
        }
        self._marks = [(mark * HOUR_S, f"touch_{mark:g}h") for mark in settings.touch_marks_h]

    def apply(self, lead: Lead, event: Event) -> bool:
        """Take up one event; True if it set a new time from which horizons run."""
        for label, value in event.segment.items():
            lead.segment.setdefault(label, value)
        if event.type == "lead_scored":
            self._score(lead, event)
        elif event.type in MILESTONES:
            return self._reach(lead, event)
        return False

    def deadlines(self, lead: Lead) -> Iterator[float]:
        """Event times at which something of this lead is to be judged or forgotten."""
        handed_over = lead.milestones.get("lead_handed_over")
        if handed_over is None:
            yield lead.seen + self.horizon_s["win"]
        else:
            yield from (handed_over + self.horizon_s[h] for h in _HORIZONS if h not in lead.judged)
            yield from (handed_over + after for after, _ in self._marks[lead.marks :])

    def judge(self, lead: Lead, now: float) -> bool:
        """Count every horizon that has passed before `now`; True if nothing is left to wait for."""
        handed_over = lead.milestones.get("lead_handed_over")
        if handed_over is None:
            return lead.seen + self.horizon_s["win"] < now
        self._pass_marks(lead, handed_over, now)
        for horizon in _HORIZONS:
            deadline = handed_over + self.horizon_s[horizon]
            if horizon not in lead.judged and deadline < now:
                lead.judged = [*lead.judged, horizon]
                reached = lead.milestones.get(_MILESTONE_OF[horizon])
                self._count_outcome(lead, horizon, reached is not None and reached <= deadline)
        return len(lead.judged) == len(_HORIZONS) and lead.marks == len(self._marks)

    def _pass_marks(self, lead: Lead, handed_over: float, now: float) -> None:
        """Count who was touched by each mark that has passed, of those whom there was still a reason to touch."""
        touched = lead.milestones.get("lead_touched")
        ended = min((lead.milestones[kind] for kind in ENDS if kind in lead.milestones), default=None)
        while lead.marks < len(self._marks):
            after, name = self._marks[lead.marks]
            mark = handed_over + after
            if mark >= now:
                return
            lead.marks += 1
            by_then = touched is not None and touched <= mark
            if by_then or ended is None or ended > mark:
                self._count(lead, f"{name}_n", 1)
                if by_then:
                    self._count(lead, f"{name}_k", 1)

    def bin_of(self, score: float) -> int:
        """Bin of a score; scores off the scale fall into the outermost bins."""
        low, high, bins = self._settings.score_min, self._settings.score_max, self._settings.score_bins
        # Bounded first, so that no score is too large to be counted; multiplied first, so that edges stay edges.
        return min(bins - 1, int((min(max(score, low), high) - low) * bins / (high - low)))

    def _score(self, lead: Lead, event: Event) -> None:
        score, model = event.properties.get("score"), event.properties.get("model")
        if not isinstance(score, int | float) or (lead.scored is not None and event.time <= lead.scored):
            return  # a repeat, or older than what was counted
        if isinstance(model, str):
            lead.segment.setdefault("model", model)
        lead.scored = event.time
        if event.time <= lead.milestones.get("lead_handed_over", event.time):
            lead.score = float(score)
        self._count(lead, "scored", 1)
        self._count(lead, f"score_{self.bin_of(float(score))}", 1)

    def _reach(self, lead: Lead, event: Event) -> bool:
        known = lead.milestones.get(event.type)
        if known is None:
            self._count(lead, event.type.removeprefix("lead_"), 1)
            value = event.properties.get("value") if event.type == "lead_won" else None
            lead.value = round(value) if isinstance(value, int | float) and 0 < value < MOST_VALUE else lead.value
        if known is None or event.time < known:
            lead.milestones[event.type] = event.time
            return event.type == "lead_handed_over"
        return False

    def _count_outcome(self, lead: Lead, horizon: Horizon, reached: bool) -> None:
        suffix = "" if lead.score is None or horizon == "touch" else f"_{self.bin_of(lead.score)}"
        self._count(lead, f"{horizon}_n{suffix}", 1)
        if reached:
            self._count(lead, f"{horizon}_k{suffix}", 1)
        if reached and horizon == "win" and lead.value:
            self._count(lead, "value_won", lead.value)
        if horizon != "touch" and self._was_touched(lead):
            self._count(lead, f"ind_touched_{horizon}_{'yes' if reached else 'no'}", 1)

    @staticmethod
    def _was_touched(lead: Lead) -> bool:
        """Whether sales touched it soon after it was handed over."""
        touched = lead.milestones.get("lead_touched")
        return touched is not None and touched <= lead.milestones["lead_handed_over"] + TOUCHED_S

"""Small losses: each too small to be noticed, together more than the journey may lose."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import ClassVar, Final

from pydantic import Field

from detectors._base import AlertOn
from detectors._baseline import DAY_S
from detectors._daily import SURE_NATS, Case
from detectors._journey import JourneyDetector, JourneyParams

BUDGET_DAYS: Final = 28


class SmallLossesParams(JourneyParams):
    """Parameters of `SmallLosses`."""

    odds_ratio: float = Field(0.95, gt=0, lt=1, description="typical fall of the odds to advance that is looked for in"
                              " all stages together (0.95: 0.30 to 0.289); other sizes are found, too")  # fmt: skip
    warmup_s: float = Field(14 * DAY_S, gt=0, description="event time to learn before it judges, whole days, seconds")
    budget: float = Field(0.005, gt=0, lt=1, description="share of those who enter a stage that may be lost to it over"
                          " 28 days, beyond what is usual; losses below that rate are no alert")  # fmt: skip
    coarse: float = Field(0.85, gt=0, lt=1, description="a greater fall of the odds of an early stage is left to"
                          " early_dropoff")  # fmt: skip
    min_n: float = Field(2000, ge=0, description="people since the onset before it warns or alerts")
    min_cases: float = Field(30, ge=0, description="people lost since the onset before it warns or alerts")


class SmallLosses(JourneyDetector[SmallLossesParams]):
    """Losses that no single stage would show add up: over stages and days, in persons.

    For every stage, those who advanced of all who entered together are held against the same weekdays before; people
    missing are added up over all stages and over the days since the likeliest onset. The test is made for falls of some
    percent, over weeks: where `early_dropoff` looks for 0.30 to 0.24 within hours, it finds 0.30 to 0.29 in each of
    four stages within days or weeks. It allows for the error of its own baseline and for what days and weeks vary
    beyond chance. A stage of the early half that fell more than `coarse` is left out: that is an early drop-off.

    It has a budget: `budget` of those who enter a stage may be lost over 28 days. It alerts when a loss is sure and, at
    its rate since the onset, exceeds that. Evidence: `lost` people in all and `lost_<stage>`, the 28 days' `budget` in
    people, and `budget_used`, its share used since the onset (28 days at most count).

    In the segment of everybody it may be the mix of people alone that changed; then no part of them shows a loss.
    """

    title = "Small losses"
    state_version = 1
    alert = AlertOn(severity="ticket")
    Params = SmallLossesParams
    worse: ClassVar = "down"

    def tested(self, kind: str) -> Sequence[int]:
        """All stages."""
        return range(len(self.params.stages))

    def narrowed(self, case: Case) -> Sequence[int]:
        """Those whose loss is small, or that nobody else watches."""
        gap, info, limit = case.since.k - case.since.expected, case.since.info, log(self.params.coarse)
        return [i for i in case.columns if i not in self.early or gap[i] > limit * info[i]]

    def stands(self, case: Case) -> float:
        """Whether the loss exceeds the rate of the budget."""
        n = case.since.pooled(case.columns)[1]
        return SURE_NATS if -case.pooled[0] >= self.params.budget * n else 0.0

    def told(self, case: Case) -> dict[str, float]:
        """People lost, and what that is of the budget."""
        lost, days = -case.pooled[0], len(case.rows) - case.onset
        last = case.days.n[-BUDGET_DAYS:, list(case.columns)]
        budget = self.params.budget * float(last.sum()) * BUDGET_DAYS / len(last)
        numbers = {
            "lost": lost, "lost_per_1000": 1000.0 * lost / case.since.pooled(case.columns)[1], "budget": budget,
            "budget_used": lost * min(1.0, BUDGET_DAYS / days) / budget,
        }  # fmt: skip
        return numbers | self.by_stage(case)

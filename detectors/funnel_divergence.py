"""Funnel divergence: the end of the journey looks well while its beginning loses people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from detectors._base import AlertOn
from detectors._daily import Case
from detectors._days import flat_nats
from detectors._journey import JourneyDetector, JourneyParams

LATE = ("late_before", "late_before_low", "late_before_high", "late_after", "late_after_low", "late_after_high")


class FunnelDivergenceParams(JourneyParams):
    """Parameters of `FunnelDivergence`."""

    worth: float = Field(0.5, gt=0, le=1, description="share of the early stages' change that the late ones must be"
                         " shown not to share; they hold when no change is 20 times as likely")  # fmt: skip


class FunnelDivergence(JourneyDetector[FunnelDivergenceParams]):
    """Fewer people get past the early stages, while the late stages hold or do better.

    The early stages are the first half of the journey (as for `early_dropoff`), the late ones the rest; of each the
    share of those who entered together and advanced, against the same weekdays before, added up in persons. Reports of
    conversion look at the end of the journey, where those are left who would have bought anyway; so the rate at the end
    holds, or even rises, while the beginning loses those who were not sure. "The late stages did not move" has to be 20
    times as likely as "they changed by `worth` of what the early ones did" (Wald 1945). Where both fall it is a loss
    all along, and no divergence.

    Before and after are the share that advanced over all early stages, as the mix of stages since the onset has it.
    Evidence: `late_before`, `late_after` with their 95 % intervals; `lost_early`, people who should have advanced; and
    by stage `before_<stage>`, `after_<stage>`, `lost_<stage>`, `entered_<stage>`.

    In the segment of everybody it may be the mix of people alone that changed; then no part of them shows a loss.
    """

    title = "Funnel divergence"
    state_version = 1
    alert = AlertOn(severity="ticket")
    Params = FunnelDivergenceParams
    worse: ClassVar = "down"

    def tested(self, kind: str) -> Sequence[int]:
        """The early stages."""
        return self.early

    def stands(self, case: Case) -> float:
        """That the late stages did not move, over that they moved as the early ones did."""
        k, _, expected, info, variance = case.since.pooled(self.late)
        moved = self.params.worth * case.effect * info
        return flat_nats(k - expected, moved, variance * case.days.clump(case.onset, self.late))

    def told(self, case: Case) -> dict[str, float]:
        """The late stages, and each stage."""
        numbers = {"lost_early": -case.pooled[0]}
        if case.since.pooled(self.late)[1] > 0.0:
            clump = case.days.clump(case.onset, self.late)
            rates = (*case.since.before(self.late, clump), *case.since.after(self.late, clump))
            numbers |= dict(zip(LATE, rates, strict=True))
        return numbers | self.by_stage(case)

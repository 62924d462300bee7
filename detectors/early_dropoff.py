"""Early drop-off: fewer people than usual get past an early stage of the journey."""

from __future__ import annotations

from typing import ClassVar

import msgspec
from pydantic import Field

from detectors._arrivals import Arrivals
from detectors._base import AlertOn, Verdict
from detectors._dropoff_rates import AdvancedAtAll, AdvancedSoon
from detectors._rate import RateDetector, RateParams
from detectors._several import SeveralObservation, SeveralRates, SeveralState


class EarlyDropoffParams(RateParams):
    """Parameters of `EarlyDropoff`."""

    stages: tuple[str, ...] = Field(("discover", "evaluate", "compare"), description="the early stages of the journey")


class EarlyDropoffState(SeveralState):
    """What both rates have learnt, and how many came."""

    arrivals: Arrivals = msgspec.field(default_factory=Arrivals)


class EarlyDropoff(SeveralRates):
    """The advance rate of an early stage falls.

    Two views of it, one claim. Of all who entered, those who had advanced when the last dwell mark passed (5 min by
    default): known while their sessions are still open. And those who had when a session gap (30 min) had passed since
    they entered: it sees those who only take longer. The evidence holds `seen_soon` or `seen_at_all`.

    Both are shares of people who came together, so fewer people coming is no finding here. The evidence tells the two
    apart: `lost_progressions` is how many fewer advanced since the onset than of as many people before;
    `entered_per_hour_before` and `_after` are how many came in the same hours of the week, and
    `lost_by_fewer_entering` how many progressions that cost besides.
    """

    title = "Early drop-off"
    state_version = 2
    alert = AlertOn()
    Params = EarlyDropoffParams
    State = EarlyDropoffState
    rates: ClassVar[dict[str, type[RateDetector]]] = {"soon": AdvancedSoon, "at_all": AdvancedAtAll}
    beside = ("entered",)
    one_claim = True
    worse = "down"

    def observe(self, x: SeveralObservation) -> Verdict:
        """Learn from both rates and judge them."""
        if x.counts:
            self.state.arrivals.add(x.ts, x.counts[0])
        verdict = super().observe(x)
        if verdict.onset is None:
            return verdict
        around = self.state.arrivals.around(verdict.onset)
        if around is None:
            return verdict
        hours = max(x.ts - verdict.onset, 0.0) / 3600.0
        evidence = {
            **verdict.evidence,
            "entered_per_hour_before": around[0],
            "entered_per_hour_after": around[1],
            "lost_by_fewer_entering": max(0.0, (around[0] - around[1]) * hours * verdict.before),
        }
        return msgspec.structs.replace(verdict, evidence=evidence)

"""Early drop-off: fewer people than usual get past an early stage of the journey."""

from __future__ import annotations

from pydantic import Field

from detectors._base import AlertOn
from detectors._rate import RateDetector, RateParams


class EarlyDropoffParams(RateParams):
    """Parameters of `EarlyDropoff`."""

    stages: tuple[str, ...] = Field(("discover", "evaluate", "compare"), description="the early stages of the journey")


class EarlyDropoff(RateDetector):
    """The advance rate of an early stage falls.

    Hits are steps that advanced, trials are closed steps. An advance is known at once, a drop only when its session
    closes (30 min later by default), so the start of a stream looks better than it is: `settle_s` keeps it out of the
    baseline, and every later hour carries the drops of the hour before, which the time-of-day baseline learns.

    Evidence: `lost_progressions` is how many people fewer than expected advanced since the onset.
    """

    title = "Early drop-off"
    state_version = 1
    alert = AlertOn()
    Params = EarlyDropoffParams
    hits = ("advanced",)
    trials = ("advanced", "returned", "dropped")
    worse = "down"
    cases = "lost_progressions"

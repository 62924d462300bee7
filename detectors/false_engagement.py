"""False engagement: more people stay long in a step, and no more of them get on."""

from __future__ import annotations

from math import log
from typing import ClassVar

from pydantic import Field

from detectors._base import AlertOn, Bucket
from detectors._daily import Case, DailyDetector, DailyParams
from detectors._days import Array, Days, flat_nats
from detectors._stages import BESIDE


class FalseEngagementParams(DailyParams):
    """Parameters of `FalseEngagement`."""

    stages: tuple[str, ...] = Field((), description="journey stages to watch; empty: every stage that has the counts")
    worth: float = Field(0.5, gt=0, le=1, description="advances that each person more who stays long must bring for it"
                         " to be interest; it is called false when none at all is 20 times as likely")  # fmt: skip


class FalseEngagement(DailyDetector[FalseEngagementParams]):
    """The share of people who stay long in a step rises, and the share who advance does not rise with it.

    Of all who entered together, those who were still there at the landmark (60 s of dwell), against the same weekdays
    before. Time on page is told as engagement in most tools; here it counts as such only if people get further. Where
    the advance rate rises with it, it is interest, and no finding; where it stays or falls, longer stays are people who
    are held up. What is not known yet is `warn` at most: "the advance rate did not move" has to be 20 times as likely
    as "each person more who stays long brought `worth` advances" (sequential probability ratio test: Wald 1945). It
    is never told as good news.

    Before and after are the long share. Evidence: `advance_before`, `advance_after` with their 95 % intervals;
    `extra_long` is how many people more than expected stayed long since the onset, `stayed_without_advancing` how many
    more than expected did so and did not advance.
    """

    title = "False engagement"
    state_version = 1
    alert = AlertOn(severity="ticket")
    Params = FalseEngagementParams
    worse: ClassVar = "up"

    @classmethod
    def pick(cls, bucket: Bucket, params: FalseEngagementParams) -> dict[str, tuple[int, ...]]:
        """Stayed long, all, advanced, stayed long without advancing."""
        get = bucket.counts.get
        at_all = get("at_all", 0)
        n = at_all + get("not_at_all", 0)
        if not n or bucket.stage in BESIDE or (params.stages and bucket.stage not in params.stages):
            return {}
        stuck = get("long_no", 0)
        return {"": (get("long_yes", 0) + stuck, n, at_all, stuck)}

    def columns(self, kind: str, rows: Array) -> tuple[Array, Array]:
        """The long share."""
        return rows[:, :1], rows[:, 1:2]

    def stands(self, case: Case) -> float:
        """That the advance rate did not rise, over that the longer stays brought advances."""
        advanced, clump = _beside(case, 2)
        gap, _, variance = advanced.pooled
        return flat_nats(gap, self.params.worth * max(case.pooled[0], 0.0), variance * clump)

    def told(self, case: Case) -> dict[str, float]:
        """The advance rate, and people."""
        advanced, clump = _beside(case, 2)
        stuck, _ = _beside(case, 3)
        before, before_low, before_high = advanced.since.before((0,), clump)
        after, after_low, after_high = advanced.since.after((0,), clump)
        return {
            "advance_before": before, "advance_before_low": before_low, "advance_before_high": before_high,
            "advance_after": after, "advance_after_low": after_low, "advance_after_high": after_high,
            "extra_long": case.pooled[0], "stayed_without_advancing": max(0.0, stuck.pooled[0]),
            "no_more_advances_odds": min(self.stands(case), log(1e6)),
        }  # fmt: skip


def _beside(case: Case, column: int) -> tuple[Case, float]:
    """Another share of the same people since the same day, and what its days vary beyond chance."""
    days = Days(case.rows[:, column : column + 1], case.rows[:, 1:2], case.weekdays)
    clump = days.clump(case.onset)
    return Case(case.kind, case.rows, case.weekdays, days, case.onset, days.since(case.onset), (0,), clump), clump

"""Follow-up decay: sales calls fewer of the leads it was handed, or calls them later."""

from __future__ import annotations

from typing import ClassVar, Final

from pydantic import Field

from detectors._base import AlertOn, Bucket, Verdict
from detectors._baseline import DAY_S, HOUR_S
from detectors._slow import Rate, SlowObservation, SlowRates
from detectors._stages import LEADS
from detectors._strata import SlowParams

MARKS_H: Final = (1, 4, 24, 48)
"""Hours after hand-over at which it is asked who has been touched."""


class FollowUpDecayParams(SlowParams):
    """Parameters of `FollowUpDecay`."""

    touch_lag_s: float = Field(2 * DAY_S, ge=0, description="event time from hand-over until `touch_n` and `touch_k`"
                               " are counted, seconds; asked only where the marks are not counted")  # fmt: skip


class FollowUpDecay(SlowRates):
    """The share of leads that sales touches in time falls, or the time to the first touch grows.

    Asked at fixed marks after hand-over, 1, 4, 24 and 48 hours: of the leads whose mark has passed, and that were not
    won, lost or rejected untouched before it, how many had been touched by then? So each cohort is complete, young
    leads do not count as untouched, and closed ones need no call: each mark has its own leads at risk, as in the
    product-limit estimate (Kaplan & Meier 1958), of which these are the points at the marks. That speed matters is
    known: Oldroyd, McElheran & Elkington 2011, "The short life of online sales leads".

    Four views, one claim; the evidence holds `seen_touch_<mark>h`. What is promised depends on when a lead was handed
    over (third of the day; Monday to Thursday, Friday, Saturday, Sunday), so a weekend is no decay. Where marks are not
    counted, the one horizon of `touch_n` and `touch_k` stands in for them (`seen_touch`).

    Evidence: `leads_not_touched` is how many fewer than promised were touched by that mark since the onset;
    `touched_<mark>h_before` and `_after` are shares by each mark, before meaning what was promised of the same leads;
    `median_touch_h_before` and `_after` the hours until half were touched, interpolated between marks, or
    `median_beyond_48h_before` and `_after` where more than half were still waiting at the last mark. Onsets are in time
    of hand-over.
    """

    title = "Follow-up decay"
    state_version = 1
    alert = AlertOn(severity="ticket")
    Params = FollowUpDecayParams
    stage: ClassVar[str] = LEADS
    rates: ClassVar[dict[str, Rate]] = {
        **{f"touch_{h}h": Rate((f"touch_{h}h_k",), (f"touch_{h}h_n",), "down", "leads_not_touched", "hours")
           for h in MARKS_H},
        "touch": Rate(("touch_k",), ("touch_n",), "down", "leads_not_touched", "hours", lag="touch_lag_s"),
    }  # fmt: skip
    one_claim = True

    def __init__(self, params: FollowUpDecayParams) -> None:
        """Start with nothing learnt."""
        super().__init__(params)
        self._lags[: len(MARKS_H)] = [h * HOUR_S for h in MARKS_H]

    @classmethod
    def look(cls, bucket: Bucket, params: SlowParams) -> SlowObservation | None:
        """All marks of the bucket; None where there is none."""
        x = super().look(bucket, params)
        return x if x is not None and any([n for _, n in x.seen]) else None

    def observe(self, x: SlowObservation) -> Verdict:
        """Learn from all marks and judge them; the one horizon counts only where marks are not counted."""
        if self._marked:
            x = SlowObservation(x.ts, (*x.seen[:-1], (0, 0)))
        return super().observe(x)

    @property
    def _marked(self) -> bool:
        return any(self.state.at[: len(MARKS_H)])

    def more(self, i: int, verdict: Verdict) -> dict[str, float]:
        """Shares touched by each mark, and medians."""
        if verdict.onset is None or not self._marked:
            return {}
        found: dict[str, float] = {}
        before, after = [], []
        for mark, test in zip(MARKS_H, self._tests, strict=False):
            k, n = test.since(verdict.onset)
            if test.level == "warming" or not sum(n):
                continue
            old, new = test.promised(n) / sum(n), sum(k) / sum(n)
            found |= {f"touched_{mark}h_before": old, f"touched_{mark}h_after": new}
            before.append((mark, old))
            after.append((mark, new))
        return found | _median("before", before) | _median("after", after)


def _median(side: str, marks: list[tuple[int, float]]) -> dict[str, float]:
    """Hours until half were touched, by the shares at the marks; they can't fall.

    >>> _median("after", [(1, 0.25), (4, 0.75), (24, 0.8), (48, 0.9)])
    {'median_touch_h_after': 2.5}
    >>> _median("after", [(1, 0.1), (4, 0.2), (24, 0.3), (48, 0.4)])
    {'median_beyond_48h_after': 1.0}
    """
    if not marks:
        return {}
    at, share = 0.0, 0.0
    for mark, seen in marks:
        touched = max(seen, share)
        if touched >= 0.5:
            return {f"median_touch_h_{side}": at + (mark - at) * (0.5 - share) / (touched - share)}
        at, share = float(mark), touched
    return {f"median_beyond_{marks[-1][0]}h_{side}": 1.0}

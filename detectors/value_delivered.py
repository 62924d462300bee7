"""Value delivered: customers get less of what they were promised."""

from __future__ import annotations

from math import sqrt
from typing import ClassVar, Final

import msgspec
from pydantic import Field

from detectors._base import AlertOn, Verdict
from detectors._baseline import DAY_S
from detectors._intervals import Z95
from detectors._slow import Rate, SlowObservation, SlowRates, SlowState
from detectors._stages import CUSTOMERS
from detectors._strata import SlowParams

DAYS: Final = 60
"""Days of answers to the question of recommendation that are kept, for the score before and since an onset."""


class ValueDeliveredParams(SlowParams):
    """Parameters of `ValueDelivered`."""

    case_lag_s: float = Field(3 * DAY_S, ge=0, description="event time from the opening of a case until it is counted"
                              " as solved or not, seconds; onsets are told in time of opening")  # fmt: skip


class Answers(msgspec.Struct, array_like=True):
    """Answers of one day: how many, how many detractors, how many promoters."""

    day: int
    n: int = 0
    bad: int = 0
    good: int = 0


class ValueDeliveredState(SlowState):
    """What the rates have learnt, and the answers of the last days."""

    days: list[Answers] = msgspec.field(default_factory=list)


class ValueDelivered(SlowRates):
    """Customers get less of what they were promised; `kind` says of what.

    - `late`: orders whose promised date passed before they came, of all whose promised date passed. So an order that
      never comes is late, too, and is known to be at once.
    - `wrong`: orders that came but were not right, of those that came.
    - `unsolved`: cases not solved three days after they were opened, of those opened.
    - `nps`: detractors (0 to 6 of 10), of those who said whether they would recommend (Reichheld 2003); the evidence
      gives the score before and since the onset, promoters less detractors in points, with its interval.
    - `csat`: satisfaction below 4 of 5, of those who rated it.
    - `ces`: effort below 5 of 7, where 7 is easy, of those who rated it (Dixon, Freeman & Toman 2010).

    Each is tested against what its weekday promises (surveys: working day or weekend), with the luck that days have in
    common taken into account, see `detectors._strata`. Few cases say little: it warms up until enough were seen, every
    number comes with an interval, and the baseline's own error counts against an alarm.

    Evidence: `extra_<cases>` is how many more than promised since the onset.
    """

    title = "Value not delivered"
    state_version = 1
    alert = AlertOn(severity="ticket")
    Params = ValueDeliveredParams
    State = ValueDeliveredState
    stage: ClassVar[str] = CUSTOMERS
    rates: ClassVar[dict[str, Rate]] = {
        "late": Rate(("due_late",), ("due_n",), "up", "extra_late"),
        "wrong": Rate(("delivered_wrong",), ("delivered_n",), "up", "extra_wrong"),
        "unsolved": Rate(("case_unsolved",), ("case_n",), "up", "extra_unsolved", lag="case_lag_s"),
        "nps": Rate(("nps_bad",), ("nps_n",), "up", "extra_detractors", "weekend"),
        "csat": Rate(("csat_bad",), ("csat_n",), "up", "extra_dissatisfied", "weekend"),
        "ces": Rate(("ces_bad",), ("ces_n",), "up", "extra_hard", "weekend"),
    }
    beside = ("nps_good",)

    def observe(self, x: SlowObservation) -> Verdict:
        """Learn from all rates and judge them."""
        bad, n = x.seen[NPS]
        if n:
            self._note(int(x.ts // DAY_S), n, bad, x.counts[0])
        return super().observe(x)

    def more(self, i: int, verdict: Verdict) -> dict[str, float]:
        """The score of recommendation before and since the onset."""
        if i != NPS or verdict.onset is None:
            return {}
        border = int(verdict.onset // DAY_S)
        sides = {"before": [day for day in self.state.days if day.day < border],
                 "after": [day for day in self.state.days if day.day >= border]}  # fmt: skip
        return {name: value for side, days in sides.items() for name, value in _score(side, days).items()}

    def _note(self, today: int, n: int, bad: int, good: int) -> None:
        days = self.state.days
        if not days or days[-1].day != today:
            days.append(Answers(today))
            del days[:-DAYS]
        last = days[-1]
        last.n, last.bad, last.good = last.n + n, last.bad + bad, last.good + good


NPS: Final = tuple(ValueDelivered.rates).index("nps")


def _score(side: str, days: list[Answers]) -> dict[str, float]:
    """Net promoter score with its 95 % interval, in points from -100 to 100.

    >>> {name: round(value) for name, value in _score("after", [Answers(1, 100, 20, 50)]).items()}
    {'nps_after': 30, 'nps_after_low': 15, 'nps_after_high': 45, 'nps_after_n': 100}
    """
    n = sum(day.n for day in days)
    if not n:
        return {}
    bad, good = (sum(day.bad for day in days) + 0.5) / (n + 1.0), (sum(day.good for day in days) + 0.5) / (n + 1.0)
    error = Z95 * sqrt(max(good + bad - (good - bad) ** 2, 0.0) / n)
    score = sum(day.good - day.bad for day in days) / n
    return {
        f"nps_{side}": 100.0 * score,
        f"nps_{side}_low": max(-100.0, 100.0 * (score - error)),
        f"nps_{side}_high": min(100.0, 100.0 * (score + error)),
        f"nps_{side}_n": float(n),
    }

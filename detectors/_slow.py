"""Base of detectors that watch rates of slow processes: some cases a day, with weekly habits and bad days.

Where `detectors._several` learns a cycle hour by hour, which takes hundreds of cases a day and hours that have them,
these put cases into strata of the calendar (`CALENDARS`) and test at equal mix, see `detectors._strata`. What is due at
midnight only, or comes by the dozen, is told as well as what comes one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import sqrt
from typing import ClassVar, Final

import msgspec

from detectors._base import OK, WARMING, Bucket, Detector, Verdict
from detectors._baseline import DAY_S, HOUR_S, Side
from detectors._intervals import Z95, wilson
from detectors._scores import WARN_NATS
from detectors._strata import SlowParams, StrataTable, StratifiedRate

SILENT_S: Final = 7 * DAY_S
"""A rate that nothing was counted for so long has nothing to say any more."""
NOBODY: Final = -1
RANK: Final = {"warming": 0, "ok": 1, "warn": 2, "alert": 3}
MONDAY_S: Final = 3 * DAY_S
"""From the Monday before the epoch, a Thursday, to the epoch."""
BLOCK_S: Final = 8 * HOUR_S
FRIDAY: Final = 4


def weekday(ts: float) -> int:
    """Weekday of event time `ts` (seconds, UTC), from 0, a Monday.

    >>> weekday(0.0), weekday(4 * DAY_S)
    (3, 0)
    """
    return int((ts + MONDAY_S) // DAY_S) % 7


def weekend(ts: float) -> int:
    """1 on Saturdays and Sundays, UTC."""
    return int(weekday(ts) > FRIDAY)


def hours(ts: float) -> int:
    """Third of the day, of a day from Monday to Thursday, a Friday, a Saturday or a Sunday, UTC."""
    return max(weekday(ts) - FRIDAY + 1, 0) * 3 + int(ts % DAY_S // BLOCK_S)


CALENDARS: Final[dict[str, tuple[int, Callable[[float], int]]]] = {
    "hours": (12, hours), "weekday": (7, weekday), "weekend": (2, weekend),
}  # fmt: skip
"""Name → number of strata, and which one an event time is in."""


class Rate(msgspec.Struct, frozen=True):
    """One rate that is watched.

    Attributes:
        hits: count fields that add up to the hits.
        trials: count fields that add up to the trials.
        worse: the bad side.
        cases: name in the evidence of the cases lost, or had too many, since the onset.
        calendar: strata, a name of `CALENDARS`.
        lag: parameter with the event time from the cause until it is counted, seconds; "" for none.
    """

    hits: tuple[str, ...]
    trials: tuple[str, ...]
    worse: Side
    cases: str
    calendar: str = "weekday"
    lag: str = ""


class SlowObservation(msgspec.Struct, frozen=True, gc=False):
    """What is seen of one bucket.

    Attributes:
        ts: start of the bucket, event time, seconds since the epoch, UTC.
        seen: (hits, trials) of each rate, in the order of `SlowRates.rates`.
        counts: counts beside, in the order of `SlowRates.beside`.
    """

    ts: float
    seen: tuple[tuple[int, int], ...]
    counts: tuple[int, ...] = ()


class SlowState(msgspec.Struct):
    """What the rates have learnt.

    Attributes:
        rates: state of each.
        at: when each was last counted, event time, seconds.
        speaker: the rate whose alert is told; `NOBODY` while none alerts.
    """

    rates: list[StrataTable] = []
    at: list[float] = []
    speaker: int = NOBODY


class SlowRates(Detector[SlowObservation, SlowParams]):
    """Several slow rates of one stage; the worst is the verdict.

    A rate that alerts is told until it no longer does, though another may look worse meanwhile.

    Class attributes:
        rates: kind → rate, in order.
        beside: count fields to be seen beside.
        one_claim: the rates are views of the same thing, so whichever speaks, the finding is one; the evidence holds
            `seen_<kind>`. Otherwise they are different things, and the verdict has the `kind`.
    """

    unit = "ratio"
    Params = SlowParams
    State = SlowState
    rates: ClassVar[dict[str, Rate]]
    beside: ClassVar[tuple[str, ...]] = ()
    one_claim: ClassVar[bool] = False
    _fields: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls) -> None:
        """Note which fields it reads: many buckets hold none of them."""
        super().__init_subclass__()
        rates = getattr(cls, "rates", {}).values()
        cls._fields = frozenset((*cls.beside, *(field for rate in rates for field in (*rate.hits, *rate.trials))))

    def __init__(self, params: SlowParams) -> None:
        """Start with nothing learnt."""
        self.params = params
        self._kinds = tuple(self.rates)
        self._seen: tuple[tuple[int, int], ...] = ()
        self._lags = [float(getattr(params, rate.lag)) if rate.lag else 0.0 for rate in self.rates.values()]
        self._strata = [CALENDARS[rate.calendar][1] for rate in self.rates.values()]
        tables: list[StrataTable] = []
        for rate in self.rates.values():
            table = StrataTable.of(CALENDARS[rate.calendar][0], hits=True)
            assert isinstance(table, StrataTable)
            tables.append(table)
        self._take(self.State(rates=tables, at=[0.0] * len(tables)))

    @classmethod
    def look(cls, bucket: Bucket, params: SlowParams) -> SlowObservation | None:
        """All rates of the bucket; None where there is nothing."""
        if bucket.stage != cls.stage or cls._fields.isdisjoint(bucket.counts):
            return None
        get = bucket.counts.get
        seen = tuple(
            [
                (sum([get(f, 0) for f in rate.hits]), sum([get(f, 0) for f in rate.trials]))
                for rate in cls.rates.values()
            ]
        )
        return SlowObservation(bucket.ts, seen, tuple([get(field, 0) for field in cls.beside]))

    def observe(self, x: SlowObservation) -> Verdict:
        """Learn from all rates and judge them."""
        self._seen = x.seen
        at = self.state.at
        for i, (k, n) in enumerate(x.seen):
            if n:
                ts = x.ts - self._lags[i]
                self._tests[i].observe(ts, ((self._strata[i](ts), n, k),))
                at[i] = x.ts
        return self._tell(x.ts)

    def allow(self, false_pages_per_week: float) -> None:
        """Take this stream's share of the installation's false-page budget; the rates share it evenly."""
        super().allow(false_pages_per_week)
        for test in self._tests:
            test.allowance = false_pages_per_week / len(self._tests)

    def trace(self) -> Mapping[str, float]:
        """Every rate's, under `<kind>.<name>`; the plain names are those of the rate that the verdict is about."""
        numbers: dict[str, float] = {}
        for i, (kind, test, (k, n)) in enumerate(zip(self._kinds, self._tests, self._seen, strict=True)):
            own = trace_of(test, k, n)
            numbers |= {f"{kind}.{name}": value for name, value in own.items()}
            if i == self._told:
                numbers |= own
        return numbers

    def restore(self, blob: bytes) -> None:
        """Take up a state written by `snapshot`.

        Raises:
            msgspec.DecodeError: the bytes are no state of this detector.
        """
        state = msgspec.msgpack.decode(blob, type=self.State)
        sizes = [CALENDARS[rate.calendar][0] for rate in self.rates.values()]
        if [len(table.base.n) for table in state.rates] != sizes or len(state.at) != len(sizes):
            raise msgspec.ValidationError(f"state of {self.name()} is not of its {len(sizes)} rates")
        self._take(state)
        if self.allowance is not None:
            self.allow(self.allowance)

    def more(self, i: int, verdict: Verdict) -> dict[str, float]:
        """Further evidence of the rate with number `i`, which the verdict is about."""
        return {}

    def _take(self, state: SlowState) -> None:
        self.state = state
        self._told = NOBODY
        self._seen = ((0, 0),) * len(state.rates)
        self._tests = [
            StratifiedRate(self.params, table, rate.worse)
            for table, rate in zip(state.rates, self.rates.values(), strict=True)
        ]

    def _level(self, i: int, now: float) -> str:
        return "warming" if now - self.state.at[i] > SILENT_S else self._tests[i].level

    def _tell(self, now: float) -> Verdict:
        state = self.state
        levels = [self._level(i, now) for i in range(len(self._tests))]
        if "warn" not in levels and "alert" not in levels:  # nearly always
            self._told, state.speaker = (levels.index("ok") if "ok" in levels else 0), NOBODY
            return OK if "ok" in levels else WARMING
        if state.speaker != NOBODY and RANK[levels[state.speaker]] >= RANK["warn"]:
            worst = state.speaker
        else:
            worst = max(range(len(levels)), key=lambda i: (RANK[levels[i]], self._tests[i].score))
            state.speaker = worst if levels[worst] == "alert" else NOBODY
        self._told = worst
        verdict = verdict_of(self._tests[worst], self.rates[self._kinds[worst]].cases, self._lags[worst])
        evidence = {**verdict.evidence, **self.more(worst, verdict)}
        if self.one_claim:
            evidence[f"seen_{self._kinds[worst]}"] = 1.0
            return msgspec.structs.replace(verdict, evidence=evidence)
        return msgspec.structs.replace(verdict, evidence=evidence, kind=self._kinds[worst])


def verdict_of(test: StratifiedRate, cases: str, lag_s: float) -> Verdict:
    """What a test that warns or alerts says; intervals are 95 %.

    Args:
        test: that warns or alerts.
        cases: what the cases lost, or had too many, are called.
        lag_s: event time from the cause until it is counted, seconds.
    """
    change = test.change
    k, n = test.since_onset()
    trials, observed = max(sum(n), 1.0), sum(k)
    before, after = test.promised(n, change.part) / trials, observed / trials
    error = Z95 * test.error(n, change.part)
    low, high = wilson(observed / test.state.spread, trials / test.state.spread)
    evidence = {
        "expected": before * trials, "observed": observed, cases: abs(observed - before * trials),
        "before_low": max(0.0, before - error), "before_high": min(1.0, before + error),
        "effect_low": low, "effect_high": high, "day_to_day_spread": test.state.spread,
        "statistic": change.statistic, "threshold": test.threshold, "lag_s": lag_s,
    }  # fmt: skip
    return Verdict(
        level=test.level, score=test.score, onset=change.onset, onset_from=change.first, onset_to=change.last,
        before=before, after=after, n_before=round(test.state.base.sum_n), n_after=round(trials), evidence=evidence,
        gain=test.gain(),
    )  # fmt: skip


def trace_of(test: StratifiedRate, k: float, n: float) -> dict[str, float]:
    """Trace of a rate, see `Detector.trace`; `k` and `n` are of the last observation."""
    seen = {"k": float(k), "n": float(n)}
    if test.level == "warming":
        return seen
    hits, trials = test.since(float("-inf"))
    total, part = sum(trials), test.change.part
    numbers = {"statistic": max(0.0, test.change.statistic), "warn": test.threshold - WARN_NATS,
               "threshold": test.threshold}  # fmt: skip
    if total:
        expected, error = test.promised(trials, part) / total, Z95 * test.error(trials, part)
        numbers |= {"recent": sum(hits) / total, "expected": expected, "low": max(0.0, expected - error),
                    "high": min(1.0, expected + error)}  # fmt: skip
    if test.state.alarm:
        numbers |= {"back": test.state.alarm.back, "back_at": test.params.recover_at}
    return seen | numbers


def share_error(share: float, n: float) -> float:
    """Standard error of a share of `n`."""
    return sqrt(max(share * (1.0 - share), 0.0) / n) if n else 0.0

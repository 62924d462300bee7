"""Sequential change detection: the alarm comes as soon as the evidence is in, at a rate of false alarms set beforehand.

`Cusum` follows log-likelihood ratios of one or several alternatives; `BinomialCusum` makes them from (k of n) counts
against a learnt baseline. Both are `river.base.DriftDetector`s, and the whole state of each is a msgspec Struct.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from pydantic import Field
from river.base import DriftDetector

from detectors._base import Level, Params
from detectors._baseline import DAY_S, HOURS, HourlyRate, HourlyState, RateTable, Side

Phase: TypeAlias = Literal["quiet", "rising", "alarmed", "recovered", "accepted"]
Positive: TypeAlias = Annotated[float, Field(gt=0)]
NoLess: TypeAlias = Annotated[float, Field(ge=0)]
RECENT_N: Final = 200.0
"""Trials that the current rate is averaged over."""
QUIET_NATS: Final = 2.0
"""Below this, evidence against several alternatives at once is taken for noise and learnt; one of them is always a
little above zero."""


class SequentialParams(Params):
    """Parameters of every sequential test. Evidence is in nats (natural log of a likelihood ratio)."""

    warn_at: Positive = Field(5.0, description="evidence from which on it warns, nats")
    alert_at: Positive = Field(6.5, description="evidence from which on it alerts, nats; 1 more is e times fewer"
                               " false alarms")  # fmt: skip
    recover_at: Positive = Field(8.0, description="evidence for the old level at which an alert resolves, nats")
    caution: NoLess = Field(0.5, description="standard errors by which the baseline is moved to the careful side")
    settle_s: NoLess = Field(7200.0, description="event time at the start of a stream that is not learnt from, seconds"
                             " (drops become known later than advances)")  # fmt: skip
    warmup_s: NoLess = Field(DAY_S, description="event time to learn before it judges, seconds")
    warmup_n: Positive = Field(500, description="trials to learn before it judges")
    memory_s: Positive = Field(28 * DAY_S, description="event time after which 1/e of a count is left, seconds")
    accept_after_s: Positive = Field(14 * DAY_S, description="an alert that lasts so long becomes the new normal,"
                                     " seconds of event time")  # fmt: skip
    min_n: NoLess = Field(50, description="trials since the onset before it warns or alerts")
    min_cases: NoLess = Field(5.0, description="cases more or fewer than expected since the onset before it warns or"
                              " alerts")  # fmt: skip


class Run(msgspec.Struct):
    """The evidence for one alternative since it last was zero.

    Attributes:
        statistic: accumulated log-likelihood ratio, nats, never below 0.
        onset: event time of the first observation since the last zero, seconds: the estimate of the change (Page 1954).
        k: hits since then.
        n: trials since then.
        expected: hits that the baseline expected since then.
    """

    statistic: float = 0.0
    onset: float = 0.0
    k: float = 0.0
    n: float = 0.0
    expected: float = 0.0

    def extend(self, statistic: float, k: float, n: float, expected: float) -> None:
        """Take one observation; `statistic` already holds it."""
        self.statistic = statistic
        self.k += k
        self.n += n
        self.expected += expected

    def clear(self) -> None:
        """Back to zero."""
        self.statistic = self.k = self.n = self.expected = 0.0


class CusumState(msgspec.Struct):
    """State of `Cusum`.

    Attributes:
        runs: one for each alternative.
        alarm: the run that alarmed; -1 while none has.
        back: evidence that the old level has returned, nats.
        updates: observations so far; the clock of `update`.
    """

    runs: list[Run]
    alarm: int = -1
    back: float = 0.0
    updates: int = 0

    @classmethod
    def of(cls, runs: int) -> CusumState:
        """Return the state at the start, for so many alternatives."""
        return cls(runs=[Run() for _ in range(runs)])


class Cusum(DriftDetector):  # type: ignore[misc]  # river is untyped to mypy (pyproject)
    """Log-likelihood CUSUM of several alternatives at once, with onset, recovery and acceptance.

    Each run adds log-likelihood ratios and is held at 0 (Page 1954, Biometrika 41: 100-115); the first to pass
    `alert_at` alarms. While alarmed, a reversed CUSUM of the same run watches for the return of the old level. An alarm
    older than `accept_after_s` is accepted as the new level.

    Args:
        params: thresholds.
        state: taken up and changed in place; None starts anew with one alternative.
        quiet_at: highest statistic at which a phase counts as `quiet`, nats.
        margin: added to all thresholds, nats.

    Example:
        >>> test = Cusum(SequentialParams(min_n=0, min_cases=0))
        >>> for i in range(40):
        ...     test.update(-0.1 if i < 20 else 0.5)
        >>> test.drift_detected, test.worst.onset, test.worst.statistic
        (True, 20.0, 10.0)
    """

    def __init__(
        self,
        params: SequentialParams,
        state: CusumState | None = None,
        quiet_at: float = 0.0,
        margin: float = 0.0,
    ) -> None:
        self.params = params
        self.margin = margin
        self.state = state or CusumState.of(1)
        self.quiet_at = quiet_at
        self.alert_at, self.warn_at = params.alert_at + margin, params.warn_at + margin
        self.recover_at = params.recover_at + margin

    @property
    def drift_detected(self) -> bool:
        """Whether an alarm is on (river's API)."""
        return self.state.alarm >= 0

    @property
    def worst(self) -> Run:
        """The run that alarmed, else the one with most evidence."""
        state = self.state
        if state.alarm >= 0 or len(state.runs) == 1:
            return state.runs[max(state.alarm, 0)]
        return max(state.runs, key=_statistic)

    @property
    def level(self) -> Level:
        """`alert` while alarmed, `warn` from `warn_at` on, else `ok`."""
        if self.state.alarm >= 0:
            return "alert"
        for run in self.state.runs:
            if run.statistic >= self.warn_at and self._enough(run):
                return "warn"
        return "ok"

    @property
    def score(self) -> float:
        """Evidence squeezed into [0, 1): one half at `alert_at`."""
        statistic = self.worst.statistic
        return statistic / (statistic + self.alert_at)

    def update(self, x: float) -> None:
        """Take one log-likelihood ratio, in nats (river's API; the time is the number of updates before)."""
        self.advance(float(self.state.updates), (x,) * len(self.state.runs), 0.0, 1.0, 0.0)

    def advance(self, ts: float, llrs: Sequence[float], k: float, n: float, expected: float) -> Phase:
        """Take one observation.

        Args:
            ts: event time, seconds.
            llrs: log-likelihood ratio against the baseline, one for each alternative, nats.
            k: hits in the observation.
            n: its trials.
            expected: hits that the baseline expected.

        Returns:
            `quiet` (learn it), `rising` (hold it back), `alarmed`, or at the end of an alarm `recovered` (drop what was
            held back) or `accepted` (what was held back is the new baseline).
        """
        state = self.state
        state.updates += 1
        if state.alarm >= 0:
            return self._follow(ts, llrs[state.alarm], k, n, expected)
        top = self._rise(ts, llrs, k, n, expected)
        if top >= self.alert_at and self._alarm():
            return "alarmed"
        return "quiet" if top <= self.quiet_at else "rising"

    def reset(self) -> None:
        """Zero all evidence and end the alarm."""
        self.state.alarm = -1
        self.state.back = 0.0
        for run in self.state.runs:
            run.clear()

    def _rise(self, ts: float, llrs: Sequence[float], k: float, n: float, expected: float) -> float:
        """Carry every run on; the highest statistic."""
        top = 0.0
        for run, llr in zip(self.state.runs, llrs, strict=True):
            value = run.statistic + llr
            if value <= 0.0:
                if run.n:
                    run.clear()
                continue
            if not run.n:
                run.onset = ts
            run.extend(value, k, n, expected)
            if value > top:  # noqa: PLR1730  # not max(): this is the hot path
                top = value
        return top

    def _enough(self, run: Run) -> bool:
        return run.n >= self.params.min_n and abs(run.expected - run.k) >= self.params.min_cases

    def _alarm(self) -> bool:
        runs = self.state.runs
        over = [i for i, run in enumerate(runs) if run.statistic >= self.alert_at and self._enough(run)]
        if over:
            self.state.alarm = max(over, key=lambda i: runs[i].statistic)
        return bool(over)

    def _follow(self, ts: float, llr: float, k: float, n: float, expected: float) -> Phase:
        state = self.state
        run = state.runs[state.alarm]
        run.extend(max(0.0, run.statistic + llr), k, n, expected)
        state.back = max(0.0, state.back - llr)
        if state.back >= self.recover_at:
            self.reset()
            return "recovered"
        if ts - run.onset >= self.params.accept_after_s and run.n >= self.params.warmup_n:
            self.reset()
            return "accepted"
        return "alarmed"


def _statistic(run: Run) -> float:
    return run.statistic


class BinomialParams(SequentialParams):
    """Parameters of `BinomialCusum`."""

    odds_ratio: float = Field(0.74, gt=0, lt=1, description="smallest fall of the odds worth finding (0.74: 0.30 to"
                              " 0.24); a rise is its inverse")  # fmt: skip
    hour_prior_n: Positive = Field(400.0, description="trials' worth of belief that an hour of day is like the others")


class BinomialState(msgspec.Struct):
    """State of `BinomialCusum`.

    Attributes:
        test: evidence.
        base: the baseline.
        fresh: counts held back from it since evidence began to rise.
        logs: per alternative, log of the factor by which it makes a trial less likely; follows the baseline.
        first_ts: event time of the first observation, seconds; None before it.
        ready: the warm-up is over.
        recent: rate over the last `RECENT_N` trials or so.
    """

    test: CusumState
    base: HourlyState
    fresh: RateTable
    logs: list[float] = []
    first_ts: float | None = None
    ready: bool = False
    recent: float = 0.0

    @classmethod
    def of(cls, sides: int, extras: int = 0) -> BinomialState:
        """Return the state at the start, for so many alternatives and further sums."""
        return cls(CusumState.of(sides), HourlyState(RateTable.sized(HOURS, extras)), RateTable.sized(HOURS, extras))


class BinomialCusum(DriftDetector):  # type: ignore[misc]  # river is untyped to mypy (pyproject)
    """Binomial CUSUM on the residual of a learnt time-of-day baseline, one- or two-sided.

    With baseline rate p and odds ratio r, k hits of n add `k ln r - n ln(1 - p + r p)` (Bernoulli CUSUM, Reynolds &
    Stoumbos 1999, J. Quality Technology 31: 87-108). p is first moved by `caution` standard errors to the careful side,
    because it is itself an estimate. Counts flow into the baseline only while no evidence stands against them.

    Args:
        params: thresholds, warm-up and memory.
        sides: which changes to find: `("down",)`, `("up",)` or both.
        state: taken up and changed in place; None starts anew.

    Example:
        >>> test = BinomialCusum(BinomialParams(warmup_n=300, warmup_s=0, settle_s=0), ("down",))
        >>> for i in range(1000):
        ...     test.update(i % 3 == 0 if i < 600 else i % 6 == 0)
        >>> test.drift_detected, test.worst.onset, round(test.worst.k / test.worst.n, 2)
        (True, 601.0, 0.17)
    """

    def __init__(
        self, params: BinomialParams, sides: tuple[Side, ...] = ("down",), state: BinomialState | None = None
    ) -> None:
        self.params = params
        self.sides = sides
        self.state = state or BinomialState.of(len(sides))
        self.base = HourlyRate(self.state.base, params.memory_s, params.hour_prior_n)
        self.cusum = Cusum(params, self.state.test, 0.0 if len(sides) == 1 else QUIET_NATS)
        self._ratios = [params.odds_ratio if side == "down" else 1.0 / params.odds_ratio for side in sides]
        self._log_ratios = [log(ratio) for ratio in self._ratios]

    @property
    def drift_detected(self) -> bool:
        """Whether an alarm is on (river's API)."""
        return self.cusum.drift_detected

    @property
    def worst(self) -> Run:
        """The run that alarmed, else the one with most evidence."""
        return self.cusum.worst

    def update(self, x: float) -> None:
        """Take one trial, a hit if `x` is true (river's API); the time is the number of trials before, in seconds."""
        self.update_binomial(float(self.state.test.updates), int(bool(x)), 1)

    def update_binomial(self, ts: float, k: int, n: int, extras: Sequence[int] = ()) -> Phase | Literal["warming"]:
        """Take `k` hits out of `n` trials.

        Args:
            ts: event time, seconds since the epoch; ascends.
            k: hits.
            n: trials; 0 only carries `extras`.
            extras: further counts to learn beside, see `RateTable`.

        Returns:
            The phase, or `warming` while the baseline is too young to judge by.
        """
        state = self.state
        if not state.ready:
            self._warm(ts, k, n, extras)
            return "warming"
        if self.base.refresh(ts):
            self._refresh_logs()
        llrs = [k * ratio - n * each for ratio, each in zip(self._log_ratios, state.logs, strict=True)]
        phase = self.cusum.advance(ts, llrs, k, n, n * state.base.rate)
        if n:
            state.recent += (k / n - state.recent) * n / (n + RECENT_N)
        if phase == "quiet":
            if state.fresh.only != -1:
                self.base.absorb(ts, state.fresh)
            self.base.learn(ts, k, n, extras)
            return phase
        self._hold(ts, k, n, extras, phase)
        return phase

    def _warm(self, ts: float, k: int, n: int, extras: Sequence[int]) -> None:
        state, params = self.state, self.params
        state.test.updates += 1
        if state.first_ts is None:
            state.first_ts, state.base.slot = ts, int(ts // 3600)
        age_s = ts - state.first_ts
        if age_s >= params.settle_s:
            self.base.learn(ts, k, n, extras)
        state.ready = age_s >= params.warmup_s and state.base.table.sum_n >= params.warmup_n
        state.recent = state.base.table.level

    def _hold(self, ts: float, k: int, n: int, extras: Sequence[int], phase: Phase) -> None:
        fresh = self.state.fresh
        fresh.learn(int(ts // 3600) % HOURS, k, n, extras)
        if phase == "recovered":
            fresh.clear()
        elif phase == "accepted":
            self.base.replace(fresh)
            self.state.fresh = RateTable.sized(HOURS, len(fresh.extras))

    def _refresh_logs(self) -> None:
        base = self.state.base
        self.state.logs = []
        for ratio in self._ratios:
            careful = base.rate + (base.error if ratio > 1.0 else -base.error) * self.params.caution
            careful = min(max(careful, 0.1 * base.rate), 1.0 - 0.1 * (1.0 - base.rate))
            self.state.logs.append(log(1.0 - careful + ratio * careful))

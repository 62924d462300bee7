"""Base of detectors that watch one rate: hits out of trials, one side of it bad.

A rate detector names its count fields and its bad side; learning, testing, onset and evidence are here.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import ClassVar

import msgspec
from pydantic import Field

from detectors._base import OK, WARMING, Bucket, Detector, Since, Verdict
from detectors._baseline import Side
from detectors._edetector import Change
from detectors._intervals import wilson
from detectors._ratetest import WARN_SHARE, ChangeParams, ChangeState, RateTest


class RateObservation(msgspec.Struct, frozen=True, gc=False):
    """What a rate detector sees of one bucket.

    Attributes:
        ts: start of the bucket, event time, seconds since the epoch, UTC.
        k: hits.
        n: trials.
        shares: counts beside, in the order of `RateDetector.shares`.
    """

    ts: float
    k: int
    n: int
    shares: tuple[int, ...] = ()


class RateParams(ChangeParams):
    """Parameters of every rate detector."""

    stages: tuple[str, ...] = Field((), description="journey stages to watch; empty: every stage that has the counts")


class RateDetector(Detector[RateObservation, RateParams]):
    """One rate of one stage and segment, on a learnt baseline, tested by `RateTest`.

    Class attributes:
        hits: count fields that add up to the hits.
        trials: count fields that add up to the trials.
        worse: the bad side of the rate.
        cases: name in the evidence of the number of cases lost, or had too many, since the onset.
        shares: count field → name; the evidence shows each one's share of the trials before and after.
    """

    unit = "ratio"
    Params = RateParams
    State = ChangeState
    hits: ClassVar[tuple[str, ...]]
    trials: ClassVar[tuple[str, ...]]
    worse: ClassVar[Side]
    cases: ClassVar[str] = "cases"
    shares: ClassVar[dict[str, str]] = {}
    _fields: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls) -> None:
        """Note which fields it reads: most buckets hold none of them."""
        super().__init_subclass__()
        cls._fields = frozenset((*getattr(cls, "hits", ()), *getattr(cls, "trials", ()), *cls.shares))

    @classmethod
    def fields(cls) -> frozenset[str]:
        """The fields of a bucket that it reads."""
        return cls._fields

    def __init__(self, params: RateParams) -> None:
        """Start with nothing learnt."""
        self.params = params
        self._last: RateObservation | None = None
        self.resume(ChangeState.of(1, len(self.shares)))

    @classmethod
    def look(cls, bucket: Bucket, params: RateParams) -> RateObservation | None:
        """Hits and trials of the bucket; None for other stages and where there is nothing."""
        if cls._fields.isdisjoint(bucket.counts) or (params.stages and bucket.stage not in params.stages):
            return None
        get = bucket.counts.get
        n = sum([get(name, 0) for name in cls.trials])
        return RateObservation(
            bucket.ts, sum([get(name, 0) for name in cls.hits]), n, tuple([get(name, 0) for name in cls.shares])
        )

    def observe(self, x: RateObservation) -> Verdict:
        """Learn from hits and trials and judge their rate."""
        self._last = x
        phase = self._test.advance(x.ts, x.k, x.n, x.shares)
        if phase == "warming":
            return WARMING
        return OK if phase in ("quiet", "recovered", "accepted") else self._judge()

    def allow(self, false_pages_per_week: float) -> None:
        """Take this stream's share of the installation's false-page budget."""
        super().allow(false_pages_per_week)
        self._test.allow(false_pages_per_week)

    def since(self, onset: float, verdict: Verdict) -> Since | None:
        """Hits and trials since `onset`, and what the baseline expected; not exact, see `Mixture.mark`."""
        return self._test.since(onset)

    def trace(self) -> Mapping[str, float]:
        """The last observation, the baseline and the evidence; see `Detector.trace`."""
        last, test = self._last, self._test
        seen = {"k": float(last.k), "n": float(last.n)} if last else {}
        if test.level == "warming":
            return seen
        expected, low, high = test.before()
        # After an alarm has ended the total is that of the alarm until the next observation.
        statistic = max(0.0, test.evidence.statistic)
        numbers = {"recent": self.state.recent, "expected": expected, "low": low, "high": min(high, 1.0),
                   "statistic": statistic, "warn": test.threshold + log(WARN_SHARE),
                   "threshold": test.threshold}  # fmt: skip
        if test.drift_detected:
            numbers |= {"back": self.state.evidence.back, "back_at": self.params.recover_at}
        return seen | numbers

    def restore(self, blob: bytes) -> None:
        """Take up a state written by `snapshot`.

        Raises:
            msgspec.DecodeError: the bytes are no state of this detector.
        """
        super().restore(blob)
        self.resume(self.state)

    def resume(self, state: ChangeState) -> None:
        """Go on from a state; it is changed in place."""
        self.state = state
        self._test = RateTest(self.params, (self.worse,), state)

    def _judge(self) -> Verdict:
        test = self._test
        level = test.level
        if level == "ok":
            return Verdict("ok", test.score)
        change = test.change()
        return Verdict(
            level=level,
            score=test.score,
            onset=change.onset,
            onset_from=change.first,
            onset_to=change.last,
            before=change.expected / change.n,
            after=change.k / change.n,
            n_before=round(self.state.base.fit.n),
            n_after=round(change.n),
            evidence=self._evidence(change),
            gain=change.gain,
        )

    def _evidence(self, change: Change) -> dict[str, float]:
        """Numbers for the reader; intervals are 95 %."""
        state, test = self.state, self._test
        _, before_low, before_high = test.before_over(change)
        after_low, after_high = wilson(change.k, change.n)
        evidence = {
            "expected_rate": state.base.rate,
            "before_low": before_low,
            "before_high": before_high,
            "effect_low": after_low,
            "effect_high": after_high,
            "rate_now": state.recent,
            self.cases: abs(change.expected - change.k),
            "statistic": test.statistic,
            "threshold": test.threshold,
        }
        if state.worse_since is not None:
            evidence["worse_since"] = state.worse_since
        base_n, fresh_n = state.shares_n
        for i, name in enumerate(self.shares.values()):
            evidence[f"{name}_before"] = state.shares[i] / max(base_n, 1.0)
            evidence[f"{name}_after"] = state.fresh_shares[i] / max(fresh_n, 1.0)
        return evidence

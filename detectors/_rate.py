"""Base of detectors that watch one rate: hits out of trials, one side of it bad.

A rate detector names its count fields and its bad side; learning, testing, onset and evidence are here.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec
from pydantic import Field

from detectors._base import OK, WARMING, Bucket, Detector, Verdict
from detectors._baseline import Side
from detectors._sequential import BinomialCusum, BinomialParams, BinomialState


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


class RateParams(BinomialParams):
    """Parameters of every rate detector."""

    stages: tuple[str, ...] = Field((), description="journey stages to watch; empty: every stage that has the counts")


class RateDetector(Detector[RateObservation, RateParams]):
    """One rate of one stage and segment, on a learnt time-of-day baseline, tested by `BinomialCusum`.

    Class attributes:
        hits: count fields that add up to the hits.
        trials: count fields that add up to the trials.
        worse: the bad side of the rate.
        cases: name in the evidence of the number of cases lost, or had too many, since the onset.
        shares: count field → name; the evidence shows each one's share of the trials before and after.
    """

    unit = "ratio"
    Params = RateParams
    State = BinomialState
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

    def __init__(self, params: RateParams) -> None:
        """Start with nothing learnt."""
        self.params = params
        self.resume(BinomialState.of(1, len(self.shares)))

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
        phase = self._test.update_binomial(x.ts, x.k, x.n, x.shares)
        if phase == "warming":
            return WARMING
        return OK if phase in ("quiet", "recovered", "accepted") else self._judge()

    def restore(self, blob: bytes) -> None:
        """Take up a state written by `snapshot`.

        Raises:
            msgspec.DecodeError: the bytes are no state of this detector.
        """
        super().restore(blob)
        self.resume(self.state)

    def resume(self, state: BinomialState) -> None:
        """Go on from a state; it is changed in place."""
        self.state = state
        self._test = BinomialCusum(self.params, (self.worse,), state)

    def _judge(self) -> Verdict:
        test = self._test.cusum
        level, run = test.level, test.worst
        if level == "ok":
            return Verdict("ok", test.score)
        return Verdict(
            level=level,
            score=test.score,
            onset=run.onset,
            before=run.expected / run.n,
            after=run.k / run.n,
            n_before=round(self.state.base.table.sum_n),
            n_after=round(run.n),
            evidence=self._evidence(),
        )

    def _evidence(self) -> dict[str, float]:
        state: BinomialState = self.state
        run = self._test.worst
        evidence = {
            "expected_rate": run.expected / run.n,
            "rate_now": state.recent,
            self.cases: abs(run.expected - run.k),
            "statistic": run.statistic,
            "threshold": self.params.alert_at,
        }
        base, fresh = state.base.table, state.fresh
        for i, name in enumerate(self.shares.values()):
            evidence[f"{name}_before"] = base.extras[i] / max(base.sum_n, 1.0)
            evidence[f"{name}_after"] = fresh.extras[i] / max(fresh.sum_n, 1.0)
        return evidence

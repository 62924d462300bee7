"""Base of detectors that see one behaviour in several rates at once.

Each rate has its own baseline and test and its share of the allowance; the verdict is that of one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

import msgspec

from detectors._base import OK, WARMING, Bucket, Detector, Since, Verdict
from detectors._baseline import DAY_S
from detectors._rate import RateDetector, RateObservation, RateParams
from detectors._ratetest import ChangeState

LEVELS: Final = ("warming", "ok", "warn", "alert")
SILENT_S: Final = 3 * DAY_S
"""A rate that nothing was counted for so long has nothing to say any more: a model may have fallen silent."""
NOBODY: Final = -1


class SeveralObservation(msgspec.Struct, frozen=True, gc=False):
    """What is seen of one bucket.

    Attributes:
        ts: start of the bucket, event time, seconds since the epoch, UTC.
        seen: the counts of each rate, in the order of `SeveralRates.rates`; None where there are none.
        counts: counts beside, in the order of `SeveralRates.beside`.
    """

    ts: float
    seen: tuple[RateObservation | None, ...]
    counts: tuple[int, ...] = ()


class SeveralState(msgspec.Struct):
    """What the rates have learnt.

    Attributes:
        rates: state of each.
        last: what each said last.
        at: when it said so, event time, seconds.
        speaker: the rate whose alert is told; `NOBODY` while none alerts.
    """

    rates: list[ChangeState] = []
    last: list[Verdict] = []
    at: list[float] = []
    speaker: int = NOBODY


class SeveralRates(Detector[SeveralObservation, RateParams]):
    """Several rates of one stage and segment; the worst is the verdict.

    A rate that alerts is told until it no longer does, though another may look worse meanwhile: a finding that changes
    back and forth helps nobody.

    Class attributes:
        rates: kind → rate detector, in order.
        beside: count fields to be seen beside.
        one_claim: the rates are views of the same thing, so whichever speaks, the finding is one; the evidence holds
            `seen_<kind>`. Otherwise they are different things, and the verdict has the `kind`.
    """

    unit = "ratio"
    Params = RateParams
    State = SeveralState
    rates: ClassVar[dict[str, type[RateDetector]]]
    beside: ClassVar[tuple[str, ...]] = ()
    one_claim: ClassVar[bool] = False
    _fields: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls) -> None:
        """Note which fields it reads: many buckets hold none of them."""
        super().__init_subclass__()
        rates = getattr(cls, "rates", {}).values()
        cls._fields = frozenset((*cls.beside, *(field for rate in rates for field in rate.fields())))

    def __init__(self, params: RateParams) -> None:
        """Start with nothing learnt."""
        self.params = params
        self._kinds = tuple(self.rates)
        self._rates = [cls(self.params_of(kind, params)) for kind, cls in self.rates.items()]
        self._seen: tuple[RateObservation | None, ...] = (None,) * len(self._rates)
        self._told = NOBODY
        count = len(self._rates)
        self.state = self.State(
            rates=[rate.state for rate in self._rates], last=[WARMING] * count, at=[0.0] * count
        )  # fmt: skip

    @classmethod
    def params_of(cls, kind: str, params: RateParams) -> RateParams:
        """Parameters of one of the rates; all the same unless a subclass says otherwise."""
        return params

    @classmethod
    def look(cls, bucket: Bucket, params: RateParams) -> SeveralObservation | None:
        """All rates of the bucket; None where there is nothing."""
        if cls._fields.isdisjoint(bucket.counts):
            return None
        seen = tuple([rate.look(bucket, params) for rate in cls.rates.values()])
        if cls.beside and not (params.stages and bucket.stage not in params.stages):
            counts = tuple([bucket.counts.get(name, 0) for name in cls.beside])
            if any(counts):
                return SeveralObservation(bucket.ts, seen, counts)
        return SeveralObservation(bucket.ts, seen) if any([each is not None for each in seen]) else None

    def observe(self, x: SeveralObservation) -> Verdict:
        """Learn from all rates and judge them."""
        state, self._seen = self.state, x.seen
        for i, seen in enumerate(x.seen):
            if seen is not None:
                state.last[i], state.at[i] = self._rates[i].observe(seen), x.ts
            elif x.ts - state.at[i] > SILENT_S:
                state.last[i] = WARMING
        return self._tell()

    def allow(self, false_pages_per_week: float) -> None:
        """Take this stream's share of the installation's false-page budget; the rates share it evenly."""
        super().allow(false_pages_per_week)
        for rate in self._rates:
            rate.allow(false_pages_per_week / len(self._rates))

    def since(self, onset: float, verdict: Verdict) -> Since | None:
        """That of the rate which the verdict is about."""
        told = [i for i, kind in enumerate(self._kinds) if verdict.kind == kind or f"seen_{kind}" in verdict.evidence]
        return self._rates[told[0]].since(onset, verdict) if told else None

    def trace(self) -> Mapping[str, float]:
        """Every rate's, under `<kind>.<name>`; the plain names are those of the rate that the verdict is about."""
        numbers: dict[str, float] = {}
        for i, (kind, rate, seen) in enumerate(zip(self._kinds, self._rates, self._seen, strict=True)):
            # A rate that had nothing in the last bucket would tell what it saw before once more.
            own = dict(rate.trace()) | ({} if seen is not None else {"k": 0.0, "n": 0.0})
            numbers |= {f"{kind}.{name}": value for name, value in own.items()}
            if i == self._told:
                numbers |= own
        return numbers

    def restore(self, blob: bytes) -> None:
        """Take up a state written by `snapshot`.

        Raises:
            msgspec.DecodeError: the bytes are no state of this detector.
        """
        super().restore(blob)
        count = len(self._rates)
        if {len(part) for part in (self.state.rates, self.state.last, self.state.at)} != {count}:
            raise msgspec.ValidationError(f"state of {self.name()} is not of {count} rates")
        for rate, state in zip(self._rates, self.state.rates, strict=True):
            rate.resume(state)

    def _tell(self) -> Verdict:
        state, last = self.state, self.state.last
        if state.speaker == NOBODY or last[state.speaker].level not in ("warn", "alert"):
            if all([verdict is OK for verdict in last]):  # nearly always
                self._told, state.speaker = 0, NOBODY
                return OK
            worst = max(range(len(last)), key=lambda i: (LEVELS.index(last[i].level), last[i].score))
            state.speaker = worst if last[worst].level == "alert" else NOBODY
        else:
            worst = state.speaker
        self._told = worst
        verdict: Verdict = last[worst]
        if verdict.level in ("warming", "ok"):
            return verdict
        if self.one_claim:
            evidence = {**verdict.evidence, f"seen_{self._kinds[worst]}": 1.0}
            return msgspec.structs.replace(verdict, evidence=evidence)
        return msgspec.structs.replace(verdict, kind=self._kinds[worst])

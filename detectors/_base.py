"""What a detector is: its base class, what it sees, what it says.

A detector never reads a clock, does no I/O and knows neither Kafka nor people. It sees merged event-time buckets of one
segment, in order, and answers each with a verdict. Everything else (topics, checkpoints, findings, metrics, alerts,
dashboards) follows from the class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, Literal, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict

Level = Literal["warming", "ok", "warn", "alert"]
Direction = Literal["worse", "better"]


class Bucket(msgspec.Struct, frozen=True, gc=False):
    """Counts of one (stage, segment) in one event-time bucket, merged over all source partitions.

    Attributes:
        ts: start of the bucket, event time, seconds since the epoch, UTC.
        width_s: its width in seconds.
        stage: journey stage, or `leads`.
        counts: field → integer; names in `streams.combine`. Absent means 0.
    """

    ts: float
    width_s: float
    stage: str
    counts: Mapping[str, int]


class Params(BaseModel):
    """Base of every detector's parameters: frozen, unknown names refused, each with a description and unit."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Since(msgspec.Struct, frozen=True):
    """What was counted since some moment: trials `n`, hits `k`, and the hits that the baseline expected."""

    n: float
    k: float
    expected: float


class AlertOn(msgspec.Struct, frozen=True):
    """When a detector pages.

    Attributes:
        level: from this level on.
        for_s: held for so many seconds before it pages.
        severity: `page` or `ticket`.
    """

    level: Literal["warn", "alert"] = "alert"
    for_s: float = 0.0
    severity: Literal["page", "ticket"] = "page"


class Verdict(msgspec.Struct, frozen=True):
    """What a detector says of one observation.

    Attributes:
        level: `warming` while it has too little data to judge, then `ok`, `warn` or `alert`.
        score: 0 (fine) to 1 (worst).
        onset: event time since when, seconds; None while nothing is wrong.
        direction: whether the change is for the worse or the better; findings carry it.
        before: the quantity in `unit` under the baseline.
        after: the same since the onset.
        n_before: observations behind `before`.
        n_after: observations behind `after`.
        evidence: name → number, for the reader of the finding.
        kind: what kind of change, where a detector tells several apart.
        onset_from: earliest event time of the onset (95 % interval), seconds; None if not known.
        onset_to: latest one.
        gain: log-likelihood gained by "exactly this segment changed" over "nothing changed", at the size that fits
            best, nats. Segments of a family are compared by it to find the one that explains the others; 0: not known.
    """

    level: Level
    score: float = 0.0
    onset: float | None = None
    direction: Direction = "worse"
    before: float = 0.0
    after: float = 0.0
    n_before: int = 0
    n_after: int = 0
    evidence: Mapping[str, float] = {}
    kind: str = ""
    onset_from: float | None = None
    onset_to: float | None = None
    gain: float = 0.0


WARMING = Verdict(level="warming")
OK = Verdict(level="ok")

ObservationT = TypeVar("ObservationT")
ParamsT = TypeVar("ParamsT", bound=Params)


class Detector(ABC, Generic[ObservationT, ParamsT]):
    """One behaviour, watched in one segment. The instance is the state.

    Class attributes:
        title: what it watches, a few words.
        unit: unit of `before` and `after`, Prometheus base units (`ratio`, `seconds`).
        state_version: raise it when the meaning of the state changes; old checkpoints then start fresh.
        alert: when it pages.
        Params: its parameters (a `Params` subclass).
        State: a msgspec Struct that holds all it has learnt; `self.state` is one of it.
        stage: the one stage it watches, where that is none of the journey's (`leads`).
        indicators: what its claims rest on; it pages only where one of them provably predicts an outcome
            (`streams.validation`). Empty: it measures an outcome itself and needs no proof.
        indicator_by_kind: kind of change → the one of them that this kind rests on; other kinds rest on any.

    Attributes:
        allowance: false pages a week that this instance may give; None while nobody said.
    """

    title: ClassVar[str]
    unit: ClassVar[str]
    state_version: ClassVar[int]
    alert: ClassVar[AlertOn]
    Params: ClassVar[type[Params]]
    State: ClassVar[type[msgspec.Struct]]
    stage: ClassVar[str | None] = None
    indicators: ClassVar[tuple[str, ...]] = ()
    indicator_by_kind: ClassVar[Mapping[str, str]] = {}
    allowance: float | None = None

    def __init__(self, params: ParamsT) -> None:
        """Start with nothing learnt."""
        self.params = params
        self.state: Any = self.State()

    @classmethod
    @abstractmethod
    def look(cls, bucket: Bucket, params: ParamsT) -> ObservationT | None:
        """Take from a bucket what this detector observes; None if the bucket holds nothing for it."""

    @abstractmethod
    def observe(self, x: ObservationT) -> Verdict:
        """Learn from one observation and judge it.

        Args:
            x: frozen; `x.ts` is event time, seconds since the epoch, UTC. Ascends.

        Laws (checked by `tests/test_contract.py` for every detector): deterministic; x unchanged; same verdicts after
        a snapshot and restore; bounded state; no I/O, clock, logging.
        """

    def allow(self, false_pages_per_week: float) -> None:
        """Take this instance's share of the installation's false-page budget; thresholds follow from it.

        Called before the first observation, whenever the number of watched streams changes the share, and after a
        restore; to be told the same share again must change nothing. For a known baseline an e-detector keeps it as a
        bound (Shin, Ramdas & Rinaldo 2022: the mean number of updates to a false alarm is at least exp(threshold)); for
        a learnt one it is a target.

        Args:
            false_pages_per_week: of event time, over all that this instance tests; > 0.
        """
        self.allowance = false_pages_per_week

    def trace(self) -> Mapping[str, float]:
        """What it saw in its last observation, and what it made of that: a picture explains findings with it.

        Pure: it changes nothing. The metrics of a live line ask from another thread (`streams.metrics_baseline`), so
        it must read few and simple things. A detector without it (the default) is explained by its verdicts.

        Returns:
            Any of `n` (trials) and `k` (hits, or the sum of values) of the last observation alone; `expected`, `low`
            and `high` (baseline for `k / n`, with its 95 % interval); `recent` (`k / n` of late, smoothed);
            `statistic`, `warn` and `threshold` (nats); `back` and `back_at` (evidence that the old level has returned,
            and where that ends an alert, nats). What is not known yet is left out. A detector of several views gives
            each one's under `<view>.<name>`, and the plain names for the view that its verdict is about.
        """
        return {}

    def since(self, onset: float, verdict: Verdict) -> Since | None:
        """What it has seen since about `onset` (event time, seconds) of what a verdict is about; None: not known.

        Pure. Asked of segments beside the one that the verdict is of, so that a change of everyone can be told from a
        change of who they are.
        """
        return None

    @classmethod
    def stages(cls, params: ParamsT, journey: Sequence[str]) -> tuple[str, ...]:
        """The stages that it may watch; the budget is split over them.

        Args:
            params: if they have `stages` and these are not empty, it watches no others.
            journey: all stages of the journey.
        """
        if cls.stage is not None:
            return (cls.stage,)
        return tuple(getattr(params, "stages", ())) or tuple(journey)

    @classmethod
    def indicators_of(cls, kind: str) -> tuple[str, ...]:
        """What a claim of this kind rests on; see `indicators`."""
        own = cls.indicator_by_kind.get(kind)
        return cls.indicators if own is None else (own,)

    def snapshot(self) -> bytes:
        """The state as data (msgpack), never code."""
        return msgspec.msgpack.encode(self.state)

    def restore(self, blob: bytes) -> None:
        """Take up a state written by `snapshot`.

        Raises:
            msgspec.DecodeError: the bytes are no state of this detector.
        """
        self.state = msgspec.msgpack.decode(blob, type=self.State)

    @classmethod
    def name(cls) -> str:
        """Label value and file name: `EarlyDropoff` → `early_dropoff`."""
        return cls.__module__.rpartition(".")[2]

"""Counts of all partitions → verdicts → findings: the detect and judge stages of one counts partition.

Buckets of the source partitions are added up, and a bucket is judged when every partition's watermark has passed it, in
event-time order. One detector instance watches one (stage, segment) with its share of the false-page budget; one that
raises is counted and the line goes on. When all streams have seen a bucket, the judge settles what they said.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from detectors._base import Bucket, Detector, Params, Verdict
from detectors._registry import build_params, discover, params_digest
from detectors._stages import BESIDE, JOURNEY, TRACKING
from streams.books import Books
from streams.budget import PageLog, capacity, pair_shares
from streams.checkpoints import pack, unpack
from streams.combine import merge
from streams.confidence import Gain
from streams.context import Context
from streams.errors import ConfigError, DetectorFailed
from streams.findings import Finding, of_change
from streams.frames import NEVER, UNREADABLE, Counts, Segment, company_partition, partition_of
from streams.guardrail_findings import Guardrails, GuardrailsState
from streams.guardrails import Guardrail
from streams.holds import Hold, Holds
from streams.judge import Judge, JudgeState, Where
from streams.said import CONTROL, Said
from streams.settings import Settings
from streams.tracking_rows import rows_of
from streams.validation import Validator, ValidatorState
from streams.validation_fields import ADVANCE
from streams.validation_states import ALL

STATE_VERSION: Final = 2
CHANGES: Final = 200
"""Changes of what is proven that are kept."""
TRACKING_DETECTOR: Final = "data_trust"
"""What judges tracking. Every counts partition asks it, so that each knows what to hold back; one tells of it."""
log = logging.getLogger(__name__)

Key = tuple[str, Segment]
"""(stage, segment)."""


Observer: TypeAlias = Callable[[Where, float, Detector[Any, Any], Verdict], object]
"""Told of every observation: who watches what, start of the bucket (event time, seconds), the detector as it is now,
and what it said. It must change nothing."""


class Stream(msgspec.Struct, array_like=True):
    """State of one watched stream: who watches, what it has learnt, what it said last."""

    detector: str
    stage: str
    segment: Segment
    blob: bytes


class State(msgspec.Struct, array_like=True):
    """All that one counts partition knows; this is what a checkpoint holds.

    Attributes:
        watermarks: events partition → event time reached, seconds.
        applied: events partition → offset of its last counts that were applied; repeats are recognised by it.
        pending: bucket start → (stage, segment) → counts not yet judged.
        streams: detector states; filled for a snapshot.
        digests: detector → parameters that its states belong to.
        judge: open and recent findings.
        judged_until: event time up to which buckets were judged, seconds.
        observations: detector → observations made.
        errors: detector → observations on which it raised.
        unwatched: streams refused because `limits.streams` was reached.
        resets: detector → states started afresh, because parameters or version changed.
        shadows: detector states of tracking where another partition tells of it; filled for a snapshot.
        holds: what trust findings wait for; filled for a snapshot.
        validation: which indicators are proven; filled for a snapshot.
        changes: the latest changes of that, oldest first.
        books: index and ledger, where they are kept; filled for a snapshot.
        guardrails: state of the guardrails; filled for a snapshot.
    """

    watermarks: dict[int, float] = {}
    applied: dict[int, int] = {}
    pending: dict[float, list[tuple[Key, dict[str, int]]]] = {}
    streams: list[Stream] = []
    digests: dict[str, str] = {}
    judge: JudgeState = msgspec.field(default_factory=JudgeState)
    judged_until: float = NEVER
    observations: dict[str, int] = {}
    errors: dict[str, int] = {}
    unwatched: int = 0
    resets: dict[str, int] = {}
    shadows: list[Stream] = []
    holds: list[tuple[Segment, Hold]] = []
    validation: ValidatorState = msgspec.field(default_factory=ValidatorState)
    changes: list[Finding] = []
    books: bytes = b""
    guardrails: GuardrailsState = msgspec.field(default_factory=GuardrailsState)


class Detectors:
    """The configured detectors: classes with their parameters; shared by all counts partitions.

    Args:
        overrides: detector name → parameter → value.
        only: names to use; None for all.
        journey: stages of the journey; the false-page budget is split over them.

    Raises:
        ConfigError: an unknown detector or parameter; the message names it.
    """

    def __init__(
        self, overrides: Mapping[str, Mapping[str, Any]], only: list[str] | None = None, journey: Sequence[str] = ()
    ) -> None:
        try:
            known = discover()
        except TypeError as error:
            raise ConfigError(str(error)) from error
        self.journey = tuple(journey)
        if unknown := sorted({*overrides, *(only or ())} - set(known)):
            raise ConfigError(f"detectors: unknown {unknown[0]!r}; known: {', '.join(sorted(known))}")
        self.classes: dict[str, type[Detector[Any, Any]]] = {
            name: known[name] for name in sorted(known) if only is None or name in only
        }
        try:
            self.params: dict[str, Params] = {
                name: build_params(known[name], overrides.get(name, {})) for name in self.classes
            }
        except ValueError as error:
            raise ConfigError(f"detectors.{error}") from error
        self.digests = {name: params_digest(cls, self.params[name]) for name, cls in self.classes.items()}
        self._watching: dict[str, list[tuple[str, type[Detector[Any, Any]]]]] = {}

    def watching(self, stage: str) -> list[tuple[str, type[Detector[Any, Any]]]]:
        """Who may watch a stage, by what they say of themselves (`Detector.stages`)."""
        if stage not in self._watching:
            self._watching[stage] = [
                (name, cls)
                for name, cls in self.classes.items()
                if stage in cls.stages(self.params[name], self.journey or (stage,))
            ]
        return self._watching[stage]


class Watcher:
    """The detect and judge stages of one counts partition.

    Args:
        settings: all knobs.
        detectors: what watches.
        partition: number of the counts partition.
        observer: looks on; None for nobody.
        guardrails: as configured; only the partition that counts leads watches them.

    Attributes:
        guardrails: they, and what people said of findings.
        verdicts: what every watched stream said last; read by the metrics.
        rates: stage and segment → running sums of counts, for dashboards.
        books: confidence index and trust ledger; None in all partitions but the one that counts leads.
    """

    def __init__(
        self,
        settings: Settings,
        detectors: Detectors,
        partition: int,
        observer: Observer | None = None,
        guardrails: Sequence[Guardrail] = (),
    ) -> None:
        self._settings = settings
        self._observer = observer
        self._detectors = detectors
        self._partition = partition
        self._instances: dict[Where, Detector[Any, Any]] = {}
        self._sees_company = company_partition(settings.topics.counts_partitions) == partition
        self._tells_of_tracking = partition_of(TRACKING, settings.topics.counts_partitions) == partition
        self.guardrails = Guardrails(guardrails if self._sees_company else ())
        self._shadows: dict[Where, Detector[Any, Any]] = {}
        self._rows: dict[Segment, None] = {}
        self._holds = Holds(detectors.journey)
        self._pairs: dict[tuple[str, str], list[Detector[Any, Any]]] = {}
        self._pair_shares = pair_shares(
            settings.false_pages_per_week, detectors.classes, detectors.params, detectors.journey
        )
        self._pending: dict[float, dict[Key, dict[str, int]]] = {}
        self.validator = Validator(detectors.journey, settings.leads.score_bins)
        context = Context(detectors.classes, lambda: self._instances, self.validator)
        self._judge = Judge(
            settings,
            detectors.classes,
            lambda *pair: len(self._pairs.get(pair, ())),
            (self._holds, self._rows),
            context,
        )
        self.books = Books(detectors.journey) if self._sees_company else None
        self.verdicts: dict[Where, Verdict] = {}
        self.rates: dict[Key, dict[str, int]] = {}
        self.state = State(digests=dict(detectors.digests))

    @property
    def streams(self) -> int:
        """Watched streams."""
        return len(self._instances)

    def detectors(self) -> list[tuple[Where, Detector[Any, Any]]]:
        """Who watches what, now; for metrics, from another thread, too."""
        return list(self._instances.items())

    @property
    def findings(self) -> list[Finding]:
        """Open and recent findings, oldest first."""
        return list(self._judge.findings.values())

    @property
    def changes(self) -> list[Finding]:
        """The latest changes of what is proven, oldest first; told by the partition that sees the whole company."""
        return list(self.state.changes)

    @property
    def begun(self) -> dict[str, int]:
        """Findings begun, by detector."""
        return self._judge.begun

    @property
    def pages(self) -> PageLog:
        """Findings begun and proved false in the last weeks."""
        return self._judge.pages

    @property
    def allowances(self) -> dict[str, float]:
        """Detector → false pages a week that its streams may give, all together."""
        given: dict[str, float] = {}
        for (name, stage), streams in list(self._pairs.items()):
            if stage == TRACKING and not self._tells_of_tracking:
                continue
            given[name] = given.get(name, 0.0) + len(streams) * self._share(name, len(streams))
        return given

    def apply(self, counts: Counts) -> list[Finding]:
        """Take up counts of one events partition; returns the findings that began, changed or ended.

        Among them, once and over at once, is what became proven, or is no longer.
        """
        state = self.state
        if counts.offset <= state.applied.get(counts.partition, -1):
            return []
        state.applied[counts.partition] = counts.offset
        state.watermarks[counts.partition] = max(counts.watermark, state.watermarks.get(counts.partition, NEVER))
        for cell in counts.cells:
            merge(self._pending.setdefault(cell.ts, {}).setdefault((cell.stage, cell.segment), {}), cell.counts)
        return self._judge_buckets()

    def _judge_buckets(self) -> list[Finding]:
        state, changed = self.state, list[Finding]()
        if len(state.watermarks) < self._settings.topics.events_partitions:
            return changed  # a partition that has not spoken may still have something for any bucket
        until = min(state.watermarks.values())
        width_s = self._settings.time.bucket_s
        for ts in sorted(start for start in self._pending if start + width_s <= until):
            cells = self._pending.pop(ts)
            for field in sorted(cells.pop((CONTROL, ()), ())):
                self.guardrails.hear(Said.read(field))
            self._track(ts, {key[1]: counts for key, counts in cells.items() if key[0] == TRACKING})
            in_order = [(key, counts) for key, counts in sorted(cells.items()) if key[0] != TRACKING]
            for key, counts in in_order:
                if key[0] != JOURNEY or self._sees_company:
                    self._observe(Bucket(ts, width_s, key[0], counts), key)
            self._holds.move_on(ts + width_s)
            changed += self._validate(ts, ts + width_s, in_order)
            if self.books is not None:
                self.books.settle(ts + width_s, self._gains())
            changed += self._judge.settle(ts + width_s)
            changed += self._guard(ts + width_s)
        state.judged_until = max(state.judged_until, until)
        return changed

    def _validate(
        self, ts: float, now: float, cells: Sequence[tuple[Key, Mapping[str, int]]]
    ) -> list[Finding]:  # fmt: skip
        """Set indicators against outcomes; what has changed.

        Every partition does that for the journey, so that each knows what may page; the one that sees the whole company
        tells of it.
        """
        for (stage, segment), counts in cells:
            if stage in BESIDE:
                self.validator.observe(ts, stage, segment, counts)
        self.validator.settle(now)
        if not self._sees_company:
            return []
        changes = (change for change in self.validator.changes if change.family == ALL)  # labels are in the metrics
        told = [of_change(change, self._settings.owners.default) for change in changes]
        if told:
            self.state.changes = [*self.state.changes, *told][-CHANGES:]
        return told

    def _gains(self) -> Iterator[Gain]:
        """What proven indicators are worth; worked out only if it is asked for, once an hour."""
        for gain in self.validator.gains():
            if gain.outcome == ADVANCE:
                yield Gain(gain.stage, gain.indicator, gain.gain, gain.log_odds, gain.state)

    def _guard(self, now: float) -> list[Finding]:
        """What guardrails say of the bucket that ends now."""
        found = self.guardrails.settle(now, self._broken_since)
        for finding in found:
            self._judge.take(finding)
        return found

    def _broken_since(self, stage: str, segment: Segment) -> float | None:
        broken = self._holds.broken(stage, segment, self._rows)
        return None if broken is None else broken[1].onset

    def _track(self, ts: float, cells: dict[Segment, dict[str, int]]) -> None:
        """Judge tracking first: what it says decides which of the other findings have to wait."""
        name, width_s = TRACKING_DETECTOR, self._settings.time.bucket_s
        cls = self._detectors.classes.get(name)
        if cls is None or not cells:
            return
        for segment, counts in sorted(rows_of(cells, self._rows, self._detectors.journey).items()):
            key = (TRACKING, segment)
            verdict = self._consult(name, cls, Bucket(ts, width_s, TRACKING, counts), key)
            if verdict is not None:
                self._rows[segment] = None
                self._holds.hear(segment, verdict, ts + width_s)

    def _observe(self, bucket: Bucket, key: Key) -> None:
        merge(self.rates.setdefault(key, {}), bucket.counts)
        if self.books is not None and bucket.stage in BESIDE:
            self.books.observe(bucket.ts, *key, bucket.counts)
            self.guardrails.observe(bucket.ts, bucket.width_s, *key, bucket.counts)
        for name, cls in self._detectors.watching(bucket.stage):
            self._consult(name, cls, bucket, key)

    def _consult(self, name: str, cls: type[Detector[Any, Any]], bucket: Bucket, key: Key) -> Verdict | None:
        """Ask a detector and have the judge hear it; what it said, if that could be told."""
        verdict = self._ask(name, cls, bucket, key)
        if verdict is None or (name, *key) in self._shadows:
            return verdict
        try:
            self._judge.hear(name, key, verdict, bucket.ts + bucket.width_s)
        except Exception as error:  # a verdict that cannot be told, such as an onset of NaN
            self._note_failure(name, bucket, key, error)
            return None
        self.verdicts[name, *key] = verdict
        if self._observer is not None:
            self._observer((name, *key), bucket.ts, self._instances[name, *key], verdict)
        return verdict

    def _ask(self, name: str, cls: type[Detector[Any, Any]], bucket: Bucket, key: Key) -> Verdict | None:
        """What the detector says; None if the bucket holds nothing for it, or it failed (which is its own fault)."""
        try:
            observation = cls.look(bucket, self._detectors.params[name])
            instance = None if observation is None else self._instance(name, cls, key)
            if instance is None:
                return None
            if (name, *key) not in self._shadows:
                self._add(self.state.observations, name)
            verdict: Verdict = instance.observe(observation)
        except Exception as error:
            self._note_failure(name, bucket, key, error)
            return None
        return verdict

    def _note_failure(self, name: str, bucket: Bucket, key: Key, error: Exception) -> None:
        self._add(self.state.errors, name)
        failed = DetectorFailed(f"{name}: failed on {key[0]} {dict(key[1])} at {bucket.ts:.0f}: {type(error).__name__}")
        log.warning("%s", failed, exc_info=error if self.state.errors[name] == 1 else None)

    def _instance(self, name: str, cls: type[Detector[Any, Any]], key: Key) -> Detector[Any, Any] | None:
        instances = self._instances if key[0] != TRACKING or self._tells_of_tracking else self._shadows
        instance = instances.get((name, *key))
        if instance is None:
            if len(instances) >= self._settings.limits.streams:
                self.state.unwatched += 1
                return None
            instance = instances[name, *key] = cls(self._detectors.params[name])
            self._join(name, key[0], instance)
        return instance

    def _join(self, name: str, stage: str, instance: Detector[Any, Any]) -> None:
        """Give a new stream its share of the budget, and its siblings less, when they have become a tenth more."""
        pair = self._pairs.setdefault((name, stage), [])
        before = self._share(name, len(pair))
        pair.append(instance)
        share = self._share(name, len(pair))
        for one in (instance,) if share == before else pair:
            one.allow(share)

    def _share(self, name: str, streams: int) -> float:
        return self._pair_shares[name] / capacity(streams)

    @staticmethod
    def _add(counter: dict[str, int], name: str) -> None:
        counter[name] = counter.get(name, 0) + 1

    # ── state as data ─────────────────────────────────────────────────────────────────────────────────────────────

    def snapshot(self) -> bytes:
        """The state as msgpack."""
        self._gather()
        return pack(STATE_VERSION, self._parameters(), self.state)

    def restore(self, blob: bytes) -> None:
        """Take up a state written by `snapshot`; detectors whose version or parameters changed start afresh.

        Raises:
            CheckpointRefused: it is no such state, or one of another version or other partitions.
        """
        self._adopt(unpack(blob, State, STATE_VERSION, self._parameters(), f"watch[{self._partition}]"))

    def digest_part(self) -> bytes:
        """Canonical bytes of what the results depend on: detector states, findings, counts not yet judged."""
        self._gather()
        state = self.state
        judge = state.judge
        findings = [judge.findings[name] for name in sorted(judge.findings)]
        return msgspec.json.encode(
            (state.streams, findings, judge.open, judge.heard, judge.ended, sorted(state.pending.items()),
             sorted(state.errors.items()), state.shadows, state.holds, state.validation, state.changes, state.books,
             state.guardrails)
        )  # fmt: skip

    def _gather(self) -> None:
        state = self.state
        state.streams = [Stream(*key, self._instances[key].snapshot()) for key in sorted(self._instances)]
        state.shadows = [Stream(*key, self._shadows[key].snapshot()) for key in sorted(self._shadows)]
        state.validation = self.validator.snapshot()
        state.guardrails = self.guardrails.snapshot()
        state.holds = sorted(self._holds.rows.items(), key=lambda entry: entry[0])
        state.pending = {
            ts: [(key, dict(sorted(counts.items()))) for key, counts in sorted(cells.items())]
            for ts, cells in sorted(self._pending.items())
        }
        state.judge = self._judge.state
        state.books = b"" if self.books is None else self.books.snapshot()

    def _adopt(self, state: State) -> None:
        self.state = state
        self._judge.state = state.judge
        self.guardrails.restore(state.guardrails)
        self._pending = {ts: dict(cells) for ts, cells in state.pending.items()}
        self._instances, self._shadows, self._pairs = {}, {}, {}
        self._holds.rows = dict(state.holds)
        self.validator.restore(state.validation)
        self._rows.clear()
        self._open_books(state.books)
        for stream in (*state.streams, *state.shadows):
            cls = self._detectors.classes.get(stream.detector)
            if cls is None:
                continue
            instance = cls(self._detectors.params[stream.detector])
            if not self._resume(instance, stream):
                self._add(state.resets, stream.detector)
            tracking = stream.stage == TRACKING
            instances = self._shadows if tracking and not self._tells_of_tracking else self._instances
            instances[stream.detector, stream.stage, stream.segment] = instance
            if tracking:
                self._rows[stream.segment] = None
            self._pairs.setdefault((stream.detector, stream.stage), []).append(instance)
        for (name, _), pair in self._pairs.items():
            for instance in pair:  # once, with the share that it had: thresholds may depend on when a share changed
                instance.allow(self._share(name, len(pair)))
        state.digests = dict(self._detectors.digests)

    def _open_books(self, blob: bytes) -> None:
        if self.books is None:
            return
        self.books = Books(self._detectors.journey)
        if blob:
            try:
                self.books.restore(blob)
            except UNREADABLE:
                self._add(self.state.resets, "books")
                self.books = Books(self._detectors.journey)
                log.warning("books: stored state refused, the index and the ledger start afresh")

    def _resume(self, instance: Detector[Any, Any], stream: Stream) -> bool:
        if self.state.digests.get(stream.detector) != self._detectors.digests[stream.detector]:
            return False
        try:
            instance.restore(stream.blob)
        except UNREADABLE:
            log.warning(
                "%s: stored state of %s %s refused, starts afresh", stream.detector, stream.stage, stream.segment
            )
            return False
        return True

    def _parameters(self) -> str:
        topics, time = self._settings.topics, self._settings.time
        return f"{topics.events_partitions}/{topics.counts_partitions}/{time.bucket_s:g}"

"""Data trust: the events themselves break, by source, event type, page and device, before anybody's trust does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log
from typing import Annotated, Final, Literal

import msgspec
from pydantic import Field

from detectors._base import OK, WARMING, AlertOn, Bucket, Detector, Params, Verdict
from detectors._baseline import DAY_S
from detectors._tracking_arrivals import Came
from detectors._tracking_mix import Mix
from detectors._tracking_tests import Jump, faded

STAGE: Final = "tracking"
WEEK_UPDATES: Final = 1008.0
"""Windows of ten minutes in a week."""
LEAST_NATS: Final = 10.0
WARN_SHARE: Final = 0.35
"""From this share of the threshold on it warns: trust findings that depend on it wait."""
WARN_EXPECTED: Final = 2.0
FLOOD_EVENTS: Final = 150
"""Fewer events are no flood."""
MIX: Final = ("v|", "o|")


class DataTrustParams(Params):
    """Parameters of `DataTrust`."""

    run_length: Annotated[float, Field(gt=1)] = Field(500_000, description="windows between two false alarms of a row,"
        " on average, where no budget is given; a worker derives it from `false_pages_per_week`")  # fmt: skip
    warmup_s: Annotated[float, Field(gt=0)] = Field(DAY_S, description="event time to learn before it judges, seconds")
    memory_s: Annotated[float, Field(gt=0)] = Field(14 * DAY_S, description="event time after which 1/e of a count is"
                                                    " left, seconds")  # fmt: skip
    min_expected: Annotated[float, Field(gt=0)] = Field(8.0, description="events that should have come since the onset"
                                                        " before one is called stopped")  # fmt: skip
    min_n: Annotated[float, Field(gt=0)] = Field(12.0, description="events since the onset before their share is called"
                                                 " too high, or their values redefined")  # fmt: skip
    recover_at: Annotated[float, Field(gt=0)] = Field(8.0, description="evidence for the old share at which an alert"
                                                      " resolves, nats")  # fmt: skip
    accept_after_s: Annotated[float, Field(gt=0)] = Field(7 * DAY_S, description="an alert that lasts so long becomes"
                                                          " the new normal, seconds of event time")  # fmt: skip


class Row(msgspec.Struct, frozen=True, gc=False):
    """One row of one window (see `streams.tracking_rows`).

    Attributes:
        ts: start of the bucket with which the window left, event time, seconds since the epoch, UTC.
        counts: as they came.
        kind: which sort of row it is.
    """

    ts: float
    counts: Mapping[str, int]
    kind: Literal["flow", "share", "mix", "came"]


class DataTrustState(msgspec.Struct):
    """What a row has learnt.

    Attributes:
        first_ts: event time of the first window, seconds; None before it.
        last: event time of the last one, seconds.
        jumps: what is tested → its baseline and evidence.
        mix: values of a label, or sizes of a number.
        came: arrivals by hour.
        alarm: what alarms (`stopped`, `flooded`, `bad_share`, `redefined`, `fewer`); empty while nothing does.
        onset: since when, event time, seconds.
        since: when it was noticed, event time, seconds.
    """

    first_ts: float | None = None
    last: float = 0.0
    jumps: dict[str, Jump] = {}
    mix: Mix | None = None
    came: Came | None = None
    alarm: str = ""
    onset: float = 0.0
    since: float = 0.0


class DataTrust(Detector[Row, DataTrustParams]):
    """Tracking of a source breaks: a tag stops or fires twice, ids repeat, fields go missing, values change meaning.

    It sees windows of ten minutes, by source, event type, page and device, and compares events with events, never with
    the clock alone: an event is gone when the other events of its page still come and people still get past the page's
    stage; where fewer people advance, both fall with it. So fewer or hesitant customers are no broken data. Only whole
    sources, and the number of sessions, are compared with the same hours of the days before.

    While a row alerts (and from `warn` on for new ones), findings about trust that depend on it are held back: those of
    the stage of the page and of the stages before it, whose progress it tells; of everything, where sessions, a device
    or a whole source broke. The kind says what broke: `stopped`, `flooded`, `bad_share` (of the `check` in the segment:
    duplicates, late, dead letters, unknown names, twice, missing fields, sessions without a begin), `redefined` (values
    or units changed at once for everybody), `fewer` (visits fell at once to less than half, or a source fell silent).
    """

    title = "Broken data"
    unit = "ratio"
    state_version = 1
    alert = AlertOn()
    Params = DataTrustParams
    State = DataTrustState
    stage = STAGE

    @classmethod
    def look(cls, bucket: Bucket, params: DataTrustParams) -> Row | None:
        """The row; None for buckets of journey stages."""
        counts = bucket.counts
        if bucket.stage != STAGE or not counts:
            return None
        if "own" in counts:
            return Row(bucket.ts, counts, "flow")
        if "all" in counts:
            return Row(bucket.ts, counts, "share")
        return Row(bucket.ts, counts, "came" if "came" in counts else "mix")

    @classmethod
    def stages(cls, params: DataTrustParams, journey: Sequence[str]) -> tuple[str, ...]:
        """Its own one."""
        return (STAGE,)

    @property
    def threshold(self) -> float:
        """Evidence at which it alerts, nats."""
        updates = self.params.run_length if self.allowance is None else WEEK_UPDATES / self.allowance
        return max(LEAST_NATS, log(max(updates, 2.0)))

    def observe(self, x: Row) -> Verdict:
        """Learn from one row of one window and judge it."""
        state = self.state
        if state.first_ts is None:
            state.first_ts = state.last = x.ts
        keep = faded(x.ts - state.last, self.params.memory_s)
        state.last = x.ts
        getattr(self, f"_take_{x.kind}")(x, keep)
        if state.alarm and x.ts - state.since > self.params.accept_after_s:
            self._accept()
        if x.ts - state.first_ts < self.params.warmup_s:
            return WARMING
        return self._judge(x)

    def snapshot(self) -> bytes:
        """The state as data; the same bytes for the same state, whatever came first."""
        return msgspec.msgpack.encode(self.state, order="deterministic")

    # ── learning ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _take_flow(self, x: Row, keep: float) -> None:
        get = x.counts.get
        own, beside, alarmed = get("own", 0), get("beside", 0), bool(self.state.alarm)
        if own and "strict" in x.counts and not alarmed:
            self._jump("beside").settle()
        self._jump("beside").observe("gone", x.ts, own, own + beside, keep, alarmed)
        if "beyond" in x.counts:
            self._jump("beyond").observe("gone", x.ts, own, own + get("beyond", 0), keep, alarmed)
        if "flood" in x.counts:
            self._jump("flood").observe("flood", x.ts, own, own + beside, keep, alarmed)

    def _take_share(self, x: Row, keep: float) -> None:
        self._jump("bad").observe("jump", x.ts, x.counts.get("bad", 0), x.counts["all"], keep, bool(self.state.alarm))

    def _take_mix(self, x: Row, keep: float) -> None:
        mix = self.state.mix = self.state.mix or Mix()
        mix.observe(x.ts, x.counts, keep, bool(self.state.alarm))

    def _take_came(self, x: Row, keep: float) -> None:
        came = self.state.came = self.state.came or Came()
        came.observe(x.ts, x.counts["came"], "drop" in x.counts, bool(self.state.alarm))

    def _jump(self, name: str) -> Jump:
        jump: Jump | None = self.state.jumps.get(name)
        if jump is None:
            jump = self.state.jumps[name] = Jump()
        return jump

    # ── judging ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _judge(self, x: Row) -> Verdict:
        state, threshold = self.state, self.threshold
        if not state.alarm and all(claim[1] < WARN_SHARE * threshold for claim in self._claims(x)):
            return OK
        claims = [self._told(*claim) for claim in self._claims(x)]
        if state.alarm:
            told = next((verdict for verdict in claims if verdict.kind == state.alarm), None)
            if told is None or told.evidence.get("back", 0.0) >= self.params.recover_at:
                self._settle()
                return OK
            return msgspec.structs.replace(told, level="alert", onset=state.onset, score=1.0)
        best = max(claims, key=lambda verdict: verdict.gain, default=None)
        if best is None or best.gain < WARN_SHARE * threshold:
            return OK
        if best.gain < threshold or best.level != "alert":
            return msgspec.structs.replace(best, level="warn", score=min(0.99, best.gain / threshold))
        state.alarm, state.since = best.kind, x.ts
        state.onset = x.ts if best.onset is None else best.onset
        return msgspec.structs.replace(best, score=1.0)

    def _claims(self, x: Row) -> list[tuple[str, float, bool, Jump | Came]]:
        """(kind, evidence, whether it is enough to alert, whose numbers) of all that could be said."""
        state = self.state
        if x.kind == "share":
            jump = state.jumps["bad"]
            return [("bad_share", jump.stat, jump.n_since >= self.params.min_n, jump)]
        if x.kind == "mix":
            mix = state.mix
            return [("redefined", mix.stat, mix.speaker.n_since >= self.params.min_n, mix.speaker)] if mix else []
        if x.kind == "came":
            return [("fewer", state.came.stat, True, state.came)]
        return self._flow_claims("beyond" in x.counts)

    def _flow_claims(self, beyond: bool) -> list[tuple[str, float, bool, Jump | Came]]:
        jumps = self.state.jumps
        found: list[tuple[str, float, bool, Jump | Came]] = []
        tests = [jumps[name] for name in ("beside", "beyond") if name in jumps and (name == "beside" or beyond)]
        if all(jump.knows("gone") for jump in tests):
            least = min(tests, key=lambda jump: jump.stat)
            expected = min(jump.expected for jump in tests)
            if expected >= WARN_EXPECTED:
                found.append(("stopped", least.stat, expected >= self.params.min_expected, least))
        if (flood := jumps.get("flood")) is not None and flood.knows("flood"):
            # Some who go back and forth look like a flood for a while; what floods is many events.
            found.append(("flooded", flood.stat, flood.k_since >= FLOOD_EVENTS, flood))
        return found

    def _told(self, kind: str, stat: float, enough: bool, source: Jump | Came) -> Verdict:
        if isinstance(source, Came):
            before, after, n_before, n_after = source.told()
        else:
            before, after = source.share, source.k_since / max(source.n_since, 1.0)
            n_before, n_after = round(source.n), max(1, round(source.n_since))
        evidence = {"statistic": stat, "threshold": self.threshold, "back": source.back}
        if kind == "stopped" and isinstance(source, Jump):
            evidence |= {"expected_events": source.expected, "events": source.k_since}
            back = [jump.back for name, jump in self.state.jumps.items() if name != "flood"]
            evidence["back"] = max(back)
        return Verdict("alert" if enough else "warn", 1.0, source.since, "worse", before, after, n_before, n_after,
                       evidence, kind, gain=stat)  # fmt: skip

    def _settle(self) -> None:
        state = self.state
        state.alarm = ""
        for part in (*state.jumps.values(), state.mix, state.came):
            if part is not None:
                part.settle()

    def _accept(self) -> None:
        state = self.state
        state.alarm = ""
        for part in (*state.jumps.values(), state.mix, state.came):
            if part is not None:
                part.accept()

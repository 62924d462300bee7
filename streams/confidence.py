"""The confidence index of each segment: are people moving forward with clarity, against what is usual.

`streams.confidence_index` has the formula, with a worked example. Here is where its numbers come from:

* now: steps weighted by e^(-age / `recent_s`), a day by default;
* the segment's own baseline: all its steps, forgotten over `memory_s`, but for those of a time in which it is falling:
  these are held back for `suspect_s` and then dropped (as the detectors do); what lasts longer than `accept_s` is
  learnt again, slowly, so nothing jumps;
* the reference: the baseline of the whole company.

Few steps say little: the share now is drawn to the segment's own baseline, and that to the reference, each by `worth`
steps. A stage with fewer than five steps says nothing. All indexes are against one reference, so they rank segments;
the change is against the segment's own baseline.

An indicator enters when it is proven and leaves when it no longer is. Then the index is rebased, as chained price
indexes are: what all parts were worth under the old weights at that hour is kept as an offset, so the index and its
change go on from where they are and only what comes after is weighed anew. Offsets fade over `rebase_s`.

All in event time; within an hour only integers are added, in whatever order, and all else is done once an hour.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import exp, fsum
from typing import Final, Literal, NamedTuple

import msgspec
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from detectors._baseline import DAY_S, HOUR_S
from detectors._intervals import Z95
from detectors._micro_signals import SIGNALS
from streams.confidence_index import FORWARD, Numbers, index_of, parts_of, rounded, shrunk
from streams.findings import LEAST
from streams.frames import Segment

INDICATORS: Final = (*SIGNALS, "signal", "hesitant")
"""What a step may show by the landmark, see `streams.combine`."""
EVERYONE: Final[Segment] = ()
FALLING_Z: Final = -2.0
"""Standard errors below its own baseline at which a segment is falling, and is not learnt from."""
PART_Z: Final = 1.5
"""So many standard errors further must a single part be for that; there are many of them."""
RISEN_Z: Final = -1.0
"""The same at which it no longer is."""
KEPT_EVERY_H: Final = 6
WEEK_H: Final = 168
NONE: Final = -1
TINY: Final = 1e-4
"""Log odds below which an offset is forgotten; a hundredth of a point is 0.0004."""


class ConfidenceParams(BaseModel):
    """Knobs of the confidence index."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    recent_s: float = Field(DAY_S, gt=0, description="age at which a step counts for 1/e of now, event time, seconds")
    warmup_s: float = Field(7 * DAY_S, gt=0, description="event time to learn before there is a baseline, seconds")
    memory_s: float = Field(28 * DAY_S, gt=0, description="event time after which 1/e of a baseline is left, seconds")
    suspect_s: float = Field(
        3 * DAY_S, gt=0, description="a fall that is over so soon is learnt after all, event time, seconds"
    )
    accept_s: float = Field(
        28 * DAY_S, gt=0, description="a fall that lasts so long is learnt from then on, event time, seconds"
    )
    rebase_s: float = Field(28 * DAY_S, gt=0, description="event time after which 1/e of a rebase is left, seconds")
    worth: float = Field(10.0, gt=0, description="steps that what was known before counts for")
    weights: dict[str, float] = Field(
        {}, description="stage → weight; empty: by how many of the whole company enter the stage"
    )
    most_segments: int = Field(500, ge=1, description="segments that have an index")


class Gain(msgspec.Struct, frozen=True):
    """What outcome validation says of an indicator.

    Attributes:
        stage: of the journey.
        indicator: one of `INDICATORS`.
        gain: proven gain over the base rate, nats an outcome.
        log_odds_ratio: of advancing with it and without it; below 0 where it is a bad sign.
        state: only `proven` ones have a part.
    """

    stage: str
    indicator: str
    gain: float
    log_odds_ratio: float
    state: str


class Part(msgspec.Struct, frozen=True):
    """What one stage and indicator made of the change, points of the index; `forward` is advancing itself."""

    stage: str
    indicator: str
    points: float


class Standing(msgspec.Struct, frozen=True):
    """The index of one segment; numbers are None where there is nothing to say.

    Attributes:
        segment: whom it is of.
        state: `learning` while there is no reference, `few` with fewer than five people now, else `known`.
        index: 0 to 100; 50 is as usual in the whole company.
        low: lower end of its 95 % interval.
        high: upper end.
        baseline: the index that is usual for this segment; None while that is learnt.
        change: `index` - `baseline`; the parts sum to it.
        change_7d: `index` less what it was seven days of event time ago.
        parts: by size, largest first.
        steps: steps that make up now; None if fewer than five.
        falling_since: event time since when it, or a part of it, has been below its baseline beyond chance, seconds.
    """

    segment: Segment
    state: Literal["learning", "few", "known"]
    index: float | None = None
    low: float | None = None
    high: float | None = None
    baseline: float | None = None
    change: float | None = None
    change_7d: float | None = None
    parts: tuple[Part, ...] = ()
    steps: int | None = None
    falling_since: float | None = None


Name = tuple[str, str]
"""(stage, indicator)."""


class Kept(msgspec.Struct, array_like=True):
    """What is known of one segment.

    A list has a slot for each count: of each stage, those who advanced, those who did not, and those who showed each
    indicator.

    Attributes:
        first: hour of event time in which it was first seen.
        last: hour in which it was last seen.
        now: counts, weighted by age.
        base: counts of the baseline.
        held: counts held back while it may be falling.
        falling: hour since when it is falling; `NONE`.
        z: standard errors that it was above its baseline when the last hour closed.
        shift: (part, log odds added to now, and to the baseline), so that a rebase changes nothing.
        past: index in hundredths every `KEPT_EVERY_H` hours, newest last; `NONE` where there was none.
    """

    first: int
    last: int
    now: list[float]
    base: list[float]
    held: list[float] = []
    falling: int = NONE
    z: float = 0.0
    shift: list[tuple[int, float, float]] = []
    past: list[int] = []


class ConfidenceState(msgspec.Struct):
    """All that the index knows.

    Attributes:
        layout: stages and indicators that the slots are of.
        hour: hour of event time that is being counted; `NONE` before the first.
        weighed: hour in which it was last looked at what is proven.
        counting: segment, and (slot, count) of this hour.
        segments: segment, and what is known of it.
        voices: (stage, indicator), and gain-weighted log odds ratio, of the proven.
        left_out: hours of segments refused because there were too many.
    """

    layout: list[str] = []
    hour: int = NONE
    weighed: int = NONE
    counting: list[tuple[Segment, list[tuple[int, int]]]] = []
    segments: list[tuple[Segment, Kept]] = []
    voices: list[tuple[Name, float]] = []
    left_out: int = 0


class _Told(NamedTuple):
    """What was worked out when an hour closed; it never changes. A row is a segment, a column a part."""

    segments: tuple[Segment, ...]
    ready: bool
    learnt: list[bool]
    steps: Numbers
    now: Numbers
    base: Numbers
    variance: Numbers
    falling: list[int]
    past: list[int]


class _Matrix:
    """Numbers of all segments; a row is a segment, in their order.

    Attributes:
        segments: segment → row.
        kept: what is one number a segment, and the past, by row.
        now: counts weighted by age; a column is a slot.
        base: counts of the baselines.
        held: counts held back.
        shifts: offsets of now and of the baseline; a column is a part.
    """

    def __init__(self, slots: int, parts: int) -> None:
        self.segments: dict[Segment, int] = {}
        self.kept: list[Kept] = []
        self.now, self.base, self.held = (np.zeros((0, slots)) for _ in range(3))
        self.shifts = np.zeros((2, 0, parts))

    def take(self, segments: list[tuple[Segment, Kept]]) -> None:
        """Take up what was kept."""
        self.segments = {segment: row for row, (segment, _) in enumerate(segments)}
        self.kept = [msgspec.structs.replace(kept) for _, kept in segments]
        shape = (len(segments), self.now.shape[1])
        self.now, self.base, self.held = (np.zeros(shape) for _ in range(3))
        self.shifts = np.zeros((2, shape[0], self.shifts.shape[2]))
        for row, (_, kept) in enumerate(segments):
            self.now[row], self.base[row] = kept.now, kept.base
            if kept.held:
                self.held[row] = kept.held
            for part, *shift in kept.shift:
                self.shifts[:, row, part] = shift

    def give(self) -> list[tuple[Segment, Kept]]:
        """All of it, as data."""
        given = []
        for segment, row in self.segments.items():
            parts = np.flatnonzero(self.shifts[:, row].any(axis=0)).tolist()
            shift = [(part, *self.shifts[:, row, part].tolist()) for part in parts]
            held = self.held[row].tolist() if self.held[row].any() else []
            given.append((segment, msgspec.structs.replace(
                self.kept[row], now=self.now[row].tolist(), base=self.base[row].tolist(), held=held, shift=shift
            )))  # fmt: skip
        return given

    def choose(self, segments: Iterable[Segment], hour: int) -> None:
        """Go on with these segments only, in their order; new ones begin in `hour`."""
        chosen = sorted(segments)
        if chosen == list(self.segments):
            return
        rows = [self.segments.get(segment, len(self.kept)) for segment in chosen]
        for name in ("now", "base", "held"):
            numbers = getattr(self, name)
            setattr(self, name, np.vstack([numbers, np.zeros((1, numbers.shape[1]))])[rows])
        none = np.zeros((2, 1, self.shifts.shape[2]))
        self.shifts = np.concatenate([self.shifts, none], axis=1)[:, rows]
        self.kept = [self.kept[row] if row < len(self.kept) else Kept(hour, hour, [], []) for row in rows]
        self.segments = {segment: row for row, segment in enumerate(chosen)}


class Confidence:
    """The index of all segments of a company.

    Args:
        stages: of the journey, in order.
        params: knobs.
        indicators: that steps may show.

    Attributes:
        left_out: hours of segments that have no index, because there were too many.

    Example:
        >>> confidence = Confidence(["evaluate", "buy"])
        >>> for hour in range(24 * 9):
        ...     for segment, advanced in ((), 8), ((("device", "mobile"),), 2):
        ...         counts = {"at_all_evaluate": advanced, "not_at_all_evaluate": 20 - advanced if segment == () else 8}
        ...         confidence.observe(hour * 3600.0, segment, counts)
        ...     confidence.settle(hour * 3600.0 + 3600.0)
        >>> [(row.segment, row.index, row.change) for row in confidence.view()]
        [((), 50.0, 0.0), ((('device', 'mobile'),), 27.27, -0.13)]
    """

    def __init__(
        self, stages: Sequence[str], params: ConfidenceParams | None = None, indicators: Sequence[str] = INDICATORS
    ) -> None:
        self.params = params or ConfidenceParams()
        self._stages, self._indicators = tuple(stages), tuple(indicators)
        self._layout = [*stages, "", *indicators]
        self._names: list[Name] = [(stage, one) for stage in stages for one in (FORWARD, *indicators)]
        self._part_of = {name: part for part, name in enumerate(self._names)}
        self._slot_of = dict(_slots(self._stages, self._indicators))
        self._width = 2 + len(indicators)
        self._start(ConfidenceState(layout=self._layout))

    def _start(self, state: ConfidenceState) -> None:
        self._hour, self._weighed, self.left_out = state.hour, state.weighed, state.left_out
        self._counting = {segment: dict(cell) for segment, cell in state.counting}
        self._known = _Matrix(self._width * len(self._stages), len(self._names))
        self._known.take(state.segments)
        self._give_voice(dict(state.voices))
        self._told: _Told | None = None
        self._rows: tuple[_Told | None, tuple[Standing, ...]] = (None, ())

    # ── counting ──────────────────────────────────────────────────────────────────────────────────────────────────

    def observe(self, ts: float, segment: Segment, counts: Mapping[str, int]) -> None:
        """Add the counts of one cell of the stage `journey`.

        Args:
            ts: start of its bucket, event time, seconds; the hours before it are closed.
            segment: of the cell.
            counts: field → count, see `streams.combine`; fields that have no part are passed over.
        """
        if ts >= (self._hour + 1) * HOUR_S:
            self._close(int(ts // HOUR_S))
        cell = self._counting.get(segment)
        for field, count in counts.items():
            slot = self._slot_of.get(field)
            if slot is not None:
                if cell is None:
                    cell = self._counting[segment] = {}
                cell[slot] = cell.get(slot, 0) + count

    def settle(self, ts: float, gains: Iterable[Gain] = ()) -> None:
        """Close the hours that are over, and take up what is proven; nothing to do within an hour.

        Args:
            ts: event time up to which all was observed, seconds.
            gains: what outcome validation says, all of it.
        """
        if ts >= (self._hour + 1) * HOUR_S:
            self._close(int(ts // HOUR_S))
        if self._weighed != self._hour:
            self._weighed = self._hour
            self._weigh(gains)

    def _close(self, hour: int) -> None:
        """Close the hour that was counted, and those without any count up to `hour`."""
        closed, self._hour = self._hour, hour
        counted, self._counting = self._counting, {}
        if closed == NONE:
            return
        if closed % KEPT_EVERY_H == 0:
            self._keep_past()
        self._choose(counted, closed)
        self._add(counted, closed, hour - closed)
        self._told = self._tell()

    def _choose(self, counted: Iterable[Segment], closed: int) -> None:
        """Forget segments that were silent for long; take up new ones, as many as there is room for."""
        known, most = self._known, self.params.most_segments
        silent_h = self.params.memory_s / HOUR_S
        alive = [name for name, row in known.segments.items() if closed - known.kept[row].last <= silent_h]
        fresh = sorted(segment for segment in counted if segment not in known.segments)
        room = max(0, most - len(alive)) + (EVERYONE in fresh)
        self.left_out += max(0, len(fresh) - room)
        known.choose([*alive, *fresh[:room]], closed)

    def _add(self, counted: Mapping[Segment, Mapping[int, int]], closed: int, gone: int) -> None:
        """Take in the hour: into now, and into the baseline of what is not falling."""
        known, params = self._known, self.params
        hour = np.zeros_like(known.now)
        for segment, cell in counted.items():
            row = known.segments.get(segment)
            if row is not None:
                hour[row, list(cell)] = list(cell.values())
                known.kept[row].last = closed
        keep = exp(-HOUR_S / params.recent_s)
        known.now = (known.now * keep + hour) * keep ** (gone - 1)
        known.shifts = known.shifts * exp(-gone * HOUR_S / params.rebase_s)
        known.shifts[np.abs(known.shifts) < TINY] = 0.0
        into_base, into_held = self._judge(closed)
        base = known.base * np.where(into_base, exp(-gone * HOUR_S / params.memory_s), 1.0)[:, None]
        known.base = base + hour * into_base[:, None]
        known.held = known.held + hour * into_held[:, None]

    def _judge(self, closed: int) -> tuple[Numbers, Numbers]:
        """Which segments are falling; 1 for those whose baseline learns the hour, and whose hour is held back."""
        known, params = self._known, self.params
        into_base, into_held = np.ones(len(known.kept)), np.zeros(len(known.kept))
        for row, one in enumerate(known.kept):
            learnt = (closed - one.first) * HOUR_S >= params.warmup_s
            if learnt and one.z < (FALLING_Z if one.falling == NONE else RISEN_Z):
                one.falling = closed if one.falling == NONE else one.falling
                lasted_s = (closed - one.falling) * HOUR_S
                into_base[row] = lasted_s >= params.accept_s
                into_held[row] = lasted_s < params.suspect_s
                if lasted_s >= params.suspect_s:
                    known.held[row] = 0.0
            elif one.falling != NONE:
                known.base[row] += known.held[row]
                known.held[row], one.falling = 0.0, NONE
        return into_base, into_held

    # ── weighing ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _weigh(self, gains: Iterable[Gain]) -> None:
        """Give the proven indicators their weights; only when one has entered or left, so that weights stay put."""
        proven = {
            (one.stage, one.indicator): one
            for one in gains
            if one.state == "proven" and one.gain > 0.0 and (one.stage, one.indicator) in self._part_of
        }
        if proven.keys() == self._voices.keys():
            return
        totals: dict[str, float] = {}
        for name in sorted(proven):
            totals[name[0]] = totals.get(name[0], 0.0) + proven[name].gain
        known = self._known
        now, base, _, _ = self._parts()
        self._give_voice({name: one.gain / totals[name[0]] * one.log_odds_ratio for name, one in proven.items()})
        known.shifts = np.zeros_like(known.shifts)
        if self._told is None:
            return
        if self._told.ready:  # before that nothing was told that could jump
            new_now, new_base, _, _ = self._parts()
            known.shifts = np.stack([now - new_now, base - new_base])
        self._told = self._tell()

    def _give_voice(self, voices: Mapping[Name, float]) -> None:
        """Which parts there are: column, slot of the hits, stage, and what a share is multiplied by (1: log odds)."""
        self._voices = {name: voices[name] for name in sorted(voices)}
        names: list[tuple[Name, float]] = [((stage, FORWARD), 1.0) for stage in self._stages]
        names += self._voices.items()
        rank = {stage: i for i, stage in enumerate(self._stages)}
        self._stage_of = np.array([rank[stage] for (stage, _), _ in names])
        self._columns = np.array([self._part_of[name] for name, _ in names])
        at = [0 if one == FORWARD else 2 + self._indicators.index(one) for (_, one), _ in names]
        self._hits = self._stage_of * self._width + np.array(at)
        self._loud = np.array([loud for _, loud in names])
        self._is_forward = np.array([one == FORWARD for (_, one), _ in names])

    def _n(self, counts: Numbers) -> Numbers:
        """Steps of each stage, by segment."""
        by_stage = counts.reshape(len(counts), len(self._stages), self._width)
        numbers: Numbers = by_stage[:, :, 0] + by_stage[:, :, 1]
        return numbers

    def _parts(self) -> tuple[Numbers, Numbers, Numbers, Numbers]:
        """Log odds of every part by segment, offsets included: now, baseline; and the variance of each."""
        known = self._known
        found = np.zeros((4, len(known.kept), len(self._names)))
        if EVERYONE in known.segments:
            found[:, :, self._columns] = self._contributions()
        found[:2] += known.shifts
        return found[0], found[1], found[2], found[3]

    def _contributions(self) -> list[Numbers]:
        known, worth = self._known, self.params.worth
        everyone = known.segments[EVERYONE]
        n_base, n_now = self._n(known.base), self._n(known.now)
        weights = self._weights(n_base[everyone])[self._stage_of] * self._loud
        hits, n = known.base[:, self._hits], n_base[:, self._stage_of]
        one = np.full(len(self._hits), 0.5)
        usual, usual_variance = shrunk(hits[everyone], n[everyone], one, 1.0)
        enough = n >= LEAST
        base, base_variance = shrunk(hits * enough, n * enough, usual, worth)
        base[everyone], base_variance[everyone] = usual, usual_variance
        # A sum of counts weighted by age has the variance of one that is larger: (sum of w)^2 / sum of w^2 of them.
        n = n_now[:, self._stage_of]
        evidence = (1.0 + exp(-HOUR_S / self.params.recent_s)) * (n >= LEAST)
        now, now_variance = shrunk(known.now[:, self._hits] * evidence, n * evidence, base, worth)
        told = []
        for share in (now, base):
            told.append(weights * np.where(self._is_forward, _logit(share) - _logit(usual), share - usual))
        for share, variance in ((now, now_variance), (base, base_variance)):
            steep = np.where(self._is_forward, 1.0, share * (1.0 - share))  # d share = share (1 - share) d logit
            told.append((weights * steep) ** 2 * variance)
        return told

    def _weights(self, entered: Numbers) -> Numbers:
        """Of the stages; they sum to 1."""
        given = self.params.weights
        weights = np.array([given.get(stage, 0.0) for stage in self._stages]) if given else entered
        return weights / max(float(weights.sum()), 1e-9)

    # ── telling ───────────────────────────────────────────────────────────────────────────────────────────────────

    def view(self) -> tuple[Standing, ...]:
        """The index of every segment, as of the last full hour; may be read from any thread."""
        told = self._told
        rows = self._rows
        if told is not rows[0]:
            rows = self._rows = (told, () if told is None else tuple(_rows(told, self._names)))
        return rows[1]

    def _tell(self) -> _Told:
        known = self._known
        now, base, variance, base_variance = self._parts()
        total = np.maximum(variance.sum(axis=1) + base_variance.sum(axis=1), 1e-12)
        apart = (now - base) / np.sqrt(np.maximum(variance + base_variance, 1e-12))
        z = np.minimum((now - base).sum(axis=1) / np.sqrt(total), apart.min(axis=1) + PART_Z)
        learnt = [(self._hour - one.first) * HOUR_S >= self.params.warmup_s for one in known.kept]
        ready = EVERYONE in known.segments and learnt[known.segments[EVERYONE]]
        for one, value in zip(known.kept, z.tolist(), strict=True):
            one.z = value
        past = [one.past[0] if len(one.past) == WEEK_H // KEPT_EVERY_H else NONE for one in known.kept]
        return _Told(
            tuple(known.segments), ready, learnt, self._n(known.now).sum(axis=1), now, base, variance,
            [one.falling for one in known.kept], past,
        )  # fmt: skip

    def _keep_past(self) -> None:
        """Remember the indexes for a week."""
        told = self._told
        if told is None:
            return
        for one, steps, x in zip(self._known.kept, told.steps.tolist(), told.now.sum(axis=1).tolist(), strict=True):
            is_known = told.ready and steps >= LEAST
            one.past = [*one.past, round(100 * index_of(x)) if is_known else NONE][-(WEEK_H // KEPT_EVERY_H) :]

    # ── state as data ─────────────────────────────────────────────────────────────────────────────────────────────

    def snapshot(self) -> bytes:
        """The state as msgpack."""
        counting = [(segment, sorted(cell.items())) for segment, cell in sorted(self._counting.items())]
        state = ConfidenceState(
            self._layout, self._hour, self._weighed, counting, self._known.give(), sorted(self._voices.items()),
            self.left_out,
        )  # fmt: skip
        return msgspec.msgpack.encode(state)

    def restore(self, blob: bytes) -> None:
        """Take up a state written by `snapshot`.

        Raises:
            msgspec.DecodeError: the bytes are no such state, or one of other stages or indicators.
        """
        state = msgspec.msgpack.decode(blob, type=ConfidenceState)
        sizes = {len(counts) for _, kept in state.segments for counts in (kept.now, kept.base)}
        parts = {part for _, kept in state.segments for part, _, _ in kept.shift}
        if (
            state.layout != self._layout
            or sizes - {self._width * len(self._stages)}
            or parts - {*range(len(self._names))}
        ):
            raise msgspec.ValidationError("state of the confidence index is of other stages or indicators")
        self._start(state)
        if state.segments:
            self._told = self._tell()


def _rows(told: _Told, names: Sequence[Name]) -> Iterable[Standing]:
    for row, segment in enumerate(told.segments):
        if not told.ready:
            yield Standing(segment, "learning")
        elif told.steps[row] < LEAST:
            yield Standing(segment, "few")
        else:
            yield _row(told, row, names)


def _row(told: _Told, row: int, names: Sequence[Name]) -> Standing:
    now, base = (dict(zip(names, numbers[row].tolist(), strict=True)) for numbers in (told.now, told.base))
    total = fsum(now.values())
    around = Z95 * float(told.variance[row].sum()) ** 0.5
    index, past, falling = round(index_of(total) * 100), told.past[row], told.falling[row]
    baseline, parts = _change(now, base, index) if told.learnt[row] else (None, ())
    return Standing(
        told.segments[row], "known", index / 100, round(index_of(total - around), 2),
        round(index_of(total + around), 2), None if baseline is None else baseline / 100,
        None if baseline is None else (index - baseline) / 100, None if past == NONE else (index - past) / 100, parts,
        int(told.steps[row]), falling * HOUR_S if falling != NONE else None,
    )  # fmt: skip


def _change(now: Mapping[Name, float], base: Mapping[Name, float], index: int) -> tuple[int, tuple[Part, ...]]:
    """The segment's own usual index, hundredths, and what made the change from it; forward parts are always told."""
    baseline = round(index_of(fsum(base.values())) * 100)
    points = {name: one for name, one in parts_of(now, base).items() if one or name[1] == FORWARD}
    shown = rounded([100 * value for value in points.values()], index - baseline)
    told = [Part(*name, value / 100) for name, value in zip(points, shown, strict=True)]
    return baseline, tuple(sorted(told, key=lambda part: (-abs(part.points), part.stage, part.indicator)))


def _slots(stages: Sequence[str], indicators: Sequence[str]) -> Iterable[tuple[str, int]]:
    """Names of the counts, with their slots."""
    for i, stage in enumerate(stages):
        first = i * (2 + len(indicators))
        yield f"at_all_{stage}", first
        yield f"not_at_all_{stage}", first + 1
        for j, indicator in enumerate(indicators):
            yield f"ind_{indicator}_yes_{stage}", first + 2 + j
            yield f"ind_{indicator}_no_{stage}", first + 2 + j


def _logit(share: Numbers) -> Numbers:
    numbers: Numbers = np.log(share / (1.0 - share))
    return numbers

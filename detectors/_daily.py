"""Base of detectors that judge whole days: small or slow changes, which only weeks of data can show.

A detector says what it counts (`pick`), which columns of hits and trials are tested (`columns`), whether what was found
is the claim that it makes (`stands`), and what a reader is told (`told`). Keeping days, dating, thresholds, the end of
an alarm and what becomes normal are here. It judges when a day (UTC) is over; in between it says the same again.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from math import log
from typing import ClassVar, Final, TypeVar

import msgspec
import numpy as np
from pydantic import Field

from detectors._base import WARMING, Bucket, Detector, Level, Params, Verdict
from detectors._baseline import DAY_S, Side
from detectors._days import WEEK, Array, Days, DaysState, Found, Since, evidence, gain, table, take, weigh
from detectors._onsets import Part
from detectors._sequential import NoLess, Positive

LEVELS: Final = ("warming", "ok", "warn", "alert")
WEEK_DAYS: Final = 7.0
LEAST_RUN_DAYS: Final = 100.0
"""However large the budget, no stream alarms more often than this many days."""
WARN_NATS: Final = 1.5
"""How far below the alert the warning is: some five times the false alarms."""
SURE_NATS: Final = 3.0
"""Evidence of 20 to 1, from which on the second half of a claim is held to be so."""
BACK_SHARE: Final = 0.75
"""Share of the change found that the old level is weighed against while alarmed."""
NOBODY: Final = ""


class DailyParams(Params):
    """Parameters of every detector that judges whole days."""

    odds_ratio: float = Field(0.8, gt=0, lt=1, description="typical fall of the odds (for counts: of the rate) that is"
                              " looked for, a rise is its inverse; other sizes are found, too")  # fmt: skip
    run_length_days: Positive = Field(2000.0, description="days between two false alarms of a stream, on average,"
                                      " where no budget is given (a worker has `false_pages_per_week`)")  # fmt: skip
    warmup_s: Positive = Field(7 * DAY_S, description="event time to learn before it judges, whole days, seconds")
    accept_after_s: Positive = Field(28 * DAY_S, description="an alert that lasts so long becomes the new normal,"
                                     " seconds of event time")  # fmt: skip
    recover_at: Positive = Field(6.0, description="evidence for the old level at which an alert resolves, nats")
    min_n: NoLess = Field(200, description="trials since the onset before it warns or alerts")
    min_cases: NoLess = Field(10.0, description="cases more or fewer than expected since the onset before it warns or"
                              " alerts")  # fmt: skip


class DayCounts(msgspec.Struct, frozen=True, gc=False):
    """What is seen of one bucket.

    Attributes:
        ts: start of the bucket, event time, seconds since the epoch, UTC.
        views: kind → its counts.
    """

    ts: float
    views: dict[str, tuple[int, ...]]


class DayAlarm(msgspec.Struct, array_like=True):
    """An alarm that is on; days are those since the epoch.

    Attributes:
        onset: day of the change.
        first: start of its 95 % interval.
        last: end of it.
        noticed: day of which the end showed it.
        columns: those that it is about.
        effect: size of the change, log odds (for counts: log rate).
        back: evidence that the old level has returned, nats.
        back_from: first day of that evidence.
        statistic: when it alarmed, nats.
    """

    onset: int
    first: int
    last: int
    noticed: int
    columns: list[int]
    effect: float
    back: float = 0.0
    back_from: int = 0
    statistic: float = 0.0


class ViewState(msgspec.Struct, array_like=True):
    """What one view has seen, and what it says.

    Attributes:
        days: its counts.
        alarm: None while there is none.
        verdict: as of the last whole day.
        shown: of that day, for `trace`: expected share with its interval, the share of the last week, statistic.
    """

    days: DaysState = msgspec.field(default_factory=DaysState)
    alarm: DayAlarm | None = None
    verdict: Verdict = WARMING
    shown: tuple[float, float, float, float, float] | None = None


class DailyState(msgspec.Struct):
    """What a detector of whole days knows.

    Attributes:
        views: kind → what it has seen.
        speaker: the view whose alert is told; empty while none alerts.
    """

    views: dict[str, ViewState] = {}
    speaker: str = NOBODY


class Case(msgspec.Struct, frozen=True):
    """What is suspected of one view, for the hooks of a detector.

    Attributes:
        kind: the view.
        rows: counts of whole days, oldest first.
        weekdays: of these.
        days: the tested columns.
        onset: number of the day of the change among the rows.
        since: the tested columns since then.
        columns: those that it is about.
        clump: what days vary beyond chance.
    """

    kind: str
    rows: Array
    weekdays: Array
    days: Days
    onset: int
    since: Since
    columns: Sequence[int]
    clump: float

    @property
    def pooled(self) -> tuple[float, float, float]:
        """Hits beyond the expected ones, their information, and their variance, over the columns."""
        k, _, expected, info, variance = self.since.pooled(self.columns)
        return k - expected, info, variance

    @property
    def effect(self) -> float:
        """Size of the change, log odds (for counts: log rate)."""
        gap, info, _ = self.pooled
        return gap / info if info > 0.0 else 0.0


DailyT = TypeVar("DailyT", bound=DailyParams)


class DailyDetector(Detector[DayCounts, DailyT]):
    """A share, by whole days, against the same weekdays before.

    Class attributes:
        worse: the bad side of it.
        counts: hits are counts without an upper limit; else each trial is a hit or none.
        several: views are different claims, and the verdict has their `kind`.
    """

    unit = "ratio"
    State = DailyState
    worse: ClassVar[Side]
    counts: ClassVar[bool] = False
    several: ClassVar[bool] = False

    def __init__(self, params: DailyT) -> None:
        """Start with nothing learnt."""
        super().__init__(params)
        self._last: DayCounts | None = None
        self._sign = 1.0 if self.worse == "up" else -1.0
        self._part = Part(int(self._sign), -log(params.odds_ratio))
        self._least_days = max(1, round(params.warmup_s / DAY_S))

    # ── what a detector says of itself ────────────────────────────────────────────────────────────────────────────

    @classmethod
    @abstractmethod
    def pick(cls, bucket: Bucket, params: DailyT) -> dict[str, tuple[int, ...]]:
        """Kind → counts of a bucket, always equally many; empty if the bucket holds nothing for it."""

    @abstractmethod
    def columns(self, kind: str, rows: Array) -> tuple[Array, Array]:
        """Hits and trials by day (days by columns) from the counts by day."""

    def tested(self, kind: str) -> Sequence[int]:
        """The columns that are pooled in the test."""
        return (0,)

    def narrowed(self, case: Case) -> Sequence[int]:
        """Those of them that a claim may be about, when something was found in all."""
        return case.columns

    def stands(self, case: Case) -> float:
        """Evidence for the rest of the claim, nats: below 0 nothing is said, from `SURE_NATS` on it may alert."""
        return SURE_NATS

    @abstractmethod
    def told(self, case: Case) -> dict[str, float]:
        """Numbers for the reader, beside those that all have."""

    def lag_s(self, kind: str) -> float:
        """Event time from what happens until it is counted, seconds; onsets are told without it."""
        return 0.0

    def closed(self, kind: str, counts: Sequence[int], ts: float) -> None:
        """Take note of counts beside the days; called for each observation before a day is judged."""

    # ── the detector ──────────────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def look(cls, bucket: Bucket, params: DailyT) -> DayCounts | None:
        """The counts of the bucket; None where there are none."""
        views = cls.pick(bucket, params)
        return DayCounts(bucket.ts, views) if views else None

    def observe(self, x: DayCounts) -> Verdict:
        """Count, and judge the day before when one is over."""
        self._last, views = x, self.state.views
        over = False
        for kind, counts in x.views.items():
            view = views.get(kind)
            if view is None:
                view = views[kind] = ViewState()
            self.closed(kind, counts, x.ts)
            if take(view.days, x.ts, counts):
                self._close(kind, view)
                over = True
        return self._speak(choose=over)

    def trace(self) -> Mapping[str, float]:
        """The last observation and, as of the last whole day, what it is held against; see `Detector.trace`."""
        numbers: dict[str, float] = {}
        told = self.state.speaker or next(iter(self.state.views), NOBODY)
        for kind, view in list(self.state.views.items()):
            own = self._trace_of(kind, view)
            if self.several:
                numbers |= {f"{kind}.{name}": value for name, value in own.items()}
            if kind == told:
                numbers |= own
        return numbers

    def _trace_of(self, kind: str, view: ViewState) -> dict[str, float]:
        counts = self._last.views.get(kind) if self._last else None
        numbers: dict[str, float] = {}
        if counts is not None:
            k, n = self.columns(kind, _row(counts))
            at = list(self.tested(kind))
            numbers = {"k": float(k[0, at].sum()), "n": float(n[0, at].sum())}
        if view.shown is None:
            return numbers
        expected, low, high, recent, statistic = view.shown
        threshold = self.threshold
        numbers |= {"expected": expected, "low": low, "high": high, "recent": recent, "statistic": statistic,
                    "warn": max(threshold - WARN_NATS, 0.1), "threshold": threshold}  # fmt: skip
        if view.alarm:
            numbers |= {"back": view.alarm.back, "back_at": self.params.recover_at}
        return numbers

    @property
    def threshold(self) -> float:
        """Evidence at which it alerts, nats."""
        run_days = self.params.run_length_days if self.allowance is None else WEEK_DAYS / self.allowance
        return log(max(run_days, LEAST_RUN_DAYS) * max(1, len(self.state.views)))

    def restore(self, blob: bytes) -> None:
        """Take up a state written by `snapshot`.

        Raises:
            msgspec.DecodeError: the bytes are no state of this detector.
        """
        state = msgspec.msgpack.decode(blob, type=self.State)
        for view in state.views.values():
            if len({len(row) for row in (*view.days.rows, view.days.running) if row}) > 1:
                raise msgspec.ValidationError(f"state of {self.name()}: days of different widths")
        self.state, self._last = state, None

    # ── when a day is over ────────────────────────────────────────────────────────────────────────────────────────

    def _close(self, kind: str, view: ViewState) -> None:
        """Judge a view as of the last whole day."""
        state = view.days
        rows, weekdays = table(state, len(state.running))
        days = Days(*self.columns(kind, rows), weekdays, counts=self.counts)
        tested = self.tested(kind)
        least = _index_after(state.rows, self._least_days)
        found = weigh(days, self._part, least, tested)
        if found is None:
            view.verdict, view.shown = WARMING, None
            return
        onset = found.onset
        base = Case(kind, rows, weekdays, days, onset, days.since(onset), tested, days.clump(onset, tested))
        view.shown = self._figures(base, found)
        if view.alarm is not None:
            self._follow(view, base)
        else:
            self._search(view, base, found, least)

    def _search(self, view: ViewState, base: Case, found: Found, least: int) -> None:
        """Begin an alarm, warn, or say that all is well."""
        threshold = self.threshold
        view.verdict = Verdict("ok", _score(found.statistic, threshold))
        if found.statistic < threshold - WARN_NATS:
            return
        case, columns = base, self.narrowed(base)
        if list(columns) != list(case.columns):
            other = weigh(case.days, self._part, least, columns) if columns else None
            if other is None or other.statistic < threshold - WARN_NATS:
                return
            found, case = other, _dated(base, other.onset, columns)
        n = case.since.pooled(columns)[1]
        if n < self.params.min_n or case.pooled[0] * self._sign < self.params.min_cases:
            return
        stands = self.stands(case)
        if stands < 0.0:
            return
        today, first = view.days.day - 1, view.days.day - len(view.days.rows)
        alarm = DayAlarm(first + found.onset, first + found.first, first + found.last, today, list(columns),
                         case.effect, statistic=found.statistic)  # fmt: skip
        sure = found.statistic >= threshold and stands >= SURE_NATS
        view.alarm = alarm if sure else None
        view.verdict = self._verdict("alert" if sure else "warn", alarm, case, found.statistic)

    def _follow(self, view: ViewState, base: Case) -> None:
        """While alarmed: has the old level returned, was it chance, or has it lasted long enough to be normal?"""
        alarm, state = view.alarm, view.days
        if alarm is None:
            return
        first = state.day - len(state.rows)
        case = _dated(base, max(alarm.onset - first, 1), alarm.columns)
        gap, info, variance = case.pooled
        self._weigh_back(alarm, case, state.day - 1)
        view.verdict = Verdict("ok")
        if alarm.back >= self.params.recover_at:
            # What is over is no part of the normal; the days since the return are.
            for i in range(alarm.onset - first, alarm.back_from - first):
                state.rows[i] = []
        elif state.day - alarm.noticed > self.params.accept_after_s / DAY_S:
            state.rows = state.rows[alarm.onset - first :]
        elif evidence(self._part, gap, info, variance, case.clump) >= 0.0 and self.stands(case) > -SURE_NATS:
            view.verdict = self._verdict("alert", alarm, case, alarm.statistic)
            return
        view.alarm = None

    def _weigh_back(self, alarm: DayAlarm, case: Case, today: int) -> None:
        """Weigh the last day: the old level, or most of the change that was found?"""
        last = case.days.last(case.onset)
        k, _, expected, info, _ = last.pooled(alarm.columns)
        effect = BACK_SHARE * alarm.effect
        changed = (effect * (k - expected) - effect * effect * info / 2.0) / case.clump
        if alarm.back <= 0.0:
            alarm.back_from = today
        alarm.back = max(0.0, alarm.back - changed)

    # ── what is said ──────────────────────────────────────────────────────────────────────────────────────────────

    def _speak(self, *, choose: bool) -> Verdict:
        state = self.state
        views = state.views
        if choose:
            told = views.get(state.speaker)
            if told is None or told.verdict.level != "alert":
                best = max(views, key=lambda kind: (LEVELS.index(views[kind].verdict.level), views[kind].verdict.score))
                state.speaker = best if views[best].verdict.level == "alert" else NOBODY
        if state.speaker:
            return views[state.speaker].verdict  # type: ignore[no-any-return]
        if len(views) == 1:
            return next(iter(views.values())).verdict  # type: ignore[no-any-return]
        verdicts = [view.verdict for view in views.values()]
        return max(verdicts, key=lambda verdict: (LEVELS.index(verdict.level), verdict.score))  # type: ignore[no-any-return]

    def _verdict(self, level: Level, alarm: DayAlarm, case: Case, statistic: float) -> Verdict:
        columns, clump, since = case.columns, case.clump, case.since
        gap, _, variance = case.pooled
        before, before_low, before_high = since.before(columns, clump)
        after, after_low, after_high = since.after(columns, clump)
        lag_s = self.lag_s(case.kind)
        numbers = {
            "before_low": before_low, "before_high": before_high, "effect_low": after_low, "effect_high": after_high,
            "days": float(len(case.rows) - case.onset), "day_to_day": clump, "statistic": statistic,
            "threshold": self.threshold,
        }  # fmt: skip
        first, onset, last = (day * DAY_S - lag_s for day in (alarm.first, alarm.onset, alarm.last))
        return Verdict(
            level=level, score=_score(statistic, self.threshold), onset=onset, onset_from=first, onset_to=last,
            before=before, after=after, n_before=round(float(since.n_before[list(columns)].sum())),
            n_after=round(since.pooled(columns)[1]), evidence=self.told(case) | numbers,
            kind=case.kind if self.several else "", gain=gain(gap, variance, clump),
        )  # fmt: skip

    def _figures(self, base: Case, found: Found) -> tuple[float, float, float, float, float]:
        """For `trace`: the last week against what lies before it."""
        week = max(len(base.rows) - WEEK, 1)
        since = base.days.since(week)
        if since.pooled(base.columns)[1] <= 0.0:
            return 0.0, 0.0, 0.0, 0.0, max(0.0, found.statistic)
        expected, low, high = since.before(base.columns, base.clump)
        recent = since.after(base.columns, base.clump)[0]
        return expected, low, high, recent, max(0.0, found.statistic)


def _dated(base: Case, onset: int, columns: Sequence[int]) -> Case:
    days = base.days
    return msgspec.structs.replace(
        base, onset=onset, since=days.since(onset), columns=columns, clump=days.clump(onset, columns)
    )  # fmt: skip


def _index_after(rows: Sequence[Sequence[int]], least_days: int) -> int:
    """Number of the first day that has so many known ones before it."""
    known = 0
    for i, row in enumerate(rows):
        if known == least_days:
            return i
        known += bool(row)
    return len(rows)


def _score(statistic: float, threshold: float) -> float:
    """Evidence squeezed into [0, 1): one half at the threshold."""
    return max(statistic, 0.0) / (max(statistic, 0.0) + threshold)


def _row(counts: Sequence[int]) -> Array:
    return np.array([counts], dtype=float)

"""Has a rate changed? A learnt baseline and an e-detector on it, as river drift detectors.

`RateTest` takes hits out of trials (or sums of values in [0, 1]), `CountTest` events per time. Both learn while nothing
is suspected, hold back what they see while something is, and answer each update with a phase.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log, sqrt
from typing import ClassVar, Final, Literal, TypeAlias

import msgspec
from pydantic import Field
from river.base import DriftDetector

from detectors._base import Level, Params, Since
from detectors._baseline import DAY_S, HOUR_S, Side
from detectors._cycle import FAMILIES, Cycle, CycleState, FamilyName, Fit, clear, sound
from detectors._edetector import Change, Mark, Mixture, MixtureState
from detectors._intervals import Z95
from detectors._sequential import NoLess, Phase, Positive

Answer: TypeAlias = Literal[Phase, "warming"]
PACE_H: Final = 168.0
"""Hours that the rate of updates is reckoned over."""
RECENT_N: Final = 200.0
"""Trials that the current rate is averaged over."""
WARN_SHARE: Final = 0.2
"""Share of the alert's run length at which it warns: five times the false alarms."""
SIZES: Final = (0.5, 1.0, 2.0)
"""Alternatives as multiples of the log odds ratio that is worth finding."""
WEIGHTS: Final = (0.04, 0.92, 0.04)
"""A big change is found soon even at a small weight; most of it goes to the size that is worth finding."""
HOLD_NATS: Final = (2.0, 0.0, 0.0)
"""Evidence of each size from which on data are held back; some for the smallest is nearly always there."""
BETTER_NATS: Final = 8.0
"""Evidence for the good side from which on data are held back: a burst or a sale must not become the normal that later
hours are measured by."""
BACK_SHARE: Final = 0.75
"""Share of the change found that the old level is weighed against while alarmed."""
HEAD_START: Final = 4.5
"""Nats that a Shiryaev-Roberts statistic has without any change; the rest must come from a run."""
FREE: Final = 0.3
STEEP: Final = 2.6
"""See `_refresh_logs`; found by simulation of installations and single streams (seeds other than the harness's). To
limit the shift would find changes of sparse streams sooner, and page falsely where segments are small."""
CHANCE_SD: Final = 3.5
"""Standard deviations since the onset below which an alarm that has passed is taken for a false one."""
WEEKS_KNOWN_H: Final = 500
"""Hours learnt from which on a weekly cycle is known; its coefficients are used from 330 on."""
RECURRING: Final = 0.25
"""Weight at which a break that has passed is learnt then."""
LEAST_RUN: Final = 100.0
"""However large the budget, no test alarms more often than this many updates."""
MOST_RUN: Final = 1e15


class ChangeParams(Params):
    """Parameters of every test on a learnt baseline."""

    odds_ratio: float = Field(0.74, ge=0.01, le=0.99, description="fall of the odds (for counts: of the rate) that is"
                              " found soonest (0.74: 0.30 to 0.24); a rise is its inverse; half and twice the size are"
                              " looked for beside it")  # fmt: skip
    run_length: float = Field(55_000, ge=100, le=1e15, description="mean number of updates between false alarms where"
                              " no budget is given; a worker derives it from `false_pages_per_week`")  # fmt: skip
    prior_alarms: Positive = Field(1.0, description="false alarms' worth of belief that a stream alarms falsely as"
                                   " often as it should; one that does so more often must show more")  # fmt: skip
    recover_at: Positive = Field(11.0, description="evidence for the old level at which an alert resolves, nats")
    caution: NoLess = Field(0.1, description="standard errors by which the baseline is moved to the careful side at"
                            " least")  # fmt: skip
    settle_s: NoLess = Field(7200.0, description="event time at the start of a stream that is not learnt from, seconds"
                             " (drops become known later than advances)")  # fmt: skip
    warmup_s: NoLess = Field(DAY_S, description="event time to learn before it judges, seconds")
    warmup_n: Positive = Field(500, description="trials to learn before it judges")
    memory_s: Positive = Field(28 * DAY_S, description="event time after which 1/e of a count is left, seconds")
    accept_after_s: Positive = Field(14 * DAY_S, description="an alert that lasts so long becomes the new normal,"
                                     " seconds of event time")  # fmt: skip
    accept_better_s: Positive = Field(3 * DAY_S, description="an improvement that lasts so long becomes the new normal,"
                                      " seconds of event time")  # fmt: skip
    min_n: NoLess = Field(50, description="trials since the onset before it warns or alerts")
    min_cases: NoLess = Field(5.0, description="cases more or fewer than expected since the onset before it warns or"
                              " alerts")  # fmt: skip


class Hour(msgspec.Struct, array_like=True):
    """Counts of the running hour, not yet in a fit."""

    k: float = 0.0
    n: float = 0.0


class ChangeState(msgspec.Struct, array_like=True):
    """State of a test.

    Attributes:
        evidence: against the baseline.
        base: the baseline.
        fresh: held back from it since evidence began to rise, or the rate got better.
        hour: what of the running hour goes into the baseline.
        held: what of the running hour is held back.
        slot: the running hour, hours since the epoch.
        seen: all of it, learnt or held back.
        logs: what the test needs of the baseline, one for each alternative, and one for the good side.
        first_ts: event time of the first observation, seconds; None before it.
        ready: the warm-up is over.
        recent: current rate, averaged over some 200 trials.
        better: evidence that the rate has got better, nats.
        better_since: since when data are held back for that reason, event time; None if not.
        worse: evidence that an alarmed rate has got worse still, nats.
        worse_from: since when, if it has.
        worse_since: event time of the last time it had, seconds; None if it has not since the alarm.
        shares: sums beside the baseline, such as steps that showed each micro-signal.
        fresh_shares: the same for what is held back.
        shares_n: trials behind `shares` and behind `fresh_shares`.
        updates: observations so far.
        allowance: false alarms a week that it may give; None while nobody said.
        run_length: mean number of updates between false alarms that is aimed at.
        updates_at: observations when the running hour began.
        pace_n: observations of the last hours; they fade over a week.
        pace_h: these hours.
        due: false alarms that were to be expected so far.
        false: alarms so far that have passed and may well have been chance; like `due`, these fade.
        limit: what the statistic alarms at.
        back_ratio: multiple of the odds that the old level is weighed against while alarmed.
    """

    evidence: MixtureState
    shares: list[float]
    fresh_shares: list[float]
    base: CycleState = msgspec.field(default_factory=CycleState)
    fresh: Fit = msgspec.field(default_factory=Fit)
    hour: Hour = msgspec.field(default_factory=Hour)
    held: Hour = msgspec.field(default_factory=Hour)
    slot: int = -1
    seen: Hour = msgspec.field(default_factory=Hour)
    logs: list[float] = []
    first_ts: float | None = None
    ready: bool = False
    recent: float = 0.0
    better: float = 0.0
    better_since: float | None = None
    shares_n: tuple[float, float] = (0.0, 0.0)
    worse: float = 0.0
    worse_from: Mark = msgspec.field(default_factory=Mark)
    worse_since: float | None = None
    updates: int = 0
    allowance: float | None = None
    run_length: float = 0.0
    updates_at: int = 0
    pace_n: float = 0.0
    pace_h: float = 0.0
    due: float = 0.0
    false: float = 0.0
    limit: float = 0.0
    back_ratio: float = 1.0

    @classmethod
    def of(cls, sides: int, shares: int = 0) -> ChangeState:
        """Return the state at the start, for a number of sides and of sums beside."""
        return cls(MixtureState.of(len(SIZES) * sides), [0.0] * shares, [0.0] * shares)


class ChangeTest(DriftDetector):  # type: ignore[misc]  # river is untyped to mypy (pyproject)
    """A stream against its own learnt baseline.

    Args:
        params: sizes, thresholds, memory.
        sides: `down`, `up` or both.
        state: taken up and changed in place; None starts anew.

    Raises:
        msgspec.ValidationError: the state is none of such a test.
    """

    family: ClassVar[FamilyName]

    def __init__(
        self, params: ChangeParams, sides: Sequence[Side] = ("down",), state: ChangeState | None = None
    ) -> None:
        self.params = params
        self.sides = tuple(sides)
        self.state = state or ChangeState.of(len(sides))
        self._check()
        self.base = Cycle(self.state.base, self.family, params.memory_s)
        self._kind = FAMILIES[self.family]
        self.evidence = self._mixture()
        self.total = self.evidence.total()
        if not self.state.run_length:
            self.state.run_length = self.state.limit = float(params.run_length)

    @property
    def drift_detected(self) -> bool:
        """Whether an alarm is on (river's API)."""
        return self.state.evidence.alarm >= 0

    @property
    def level(self) -> Level:
        """`warming` while it only learns, `alert` while alarmed, `warn` shortly below that, else `ok`."""
        if not self.state.ready:
            return "warming"
        if self.drift_detected:
            return "alert"
        return "warn" if self.total >= WARN_SHARE * self.state.limit and self._enough() else "ok"

    @property
    def statistic(self) -> float:
        """Evidence for a change, nats, not below 0."""
        return log(max(1.0, self.total))

    @property
    def threshold(self) -> float:
        """Evidence at which it alerts, nats."""
        return log(self.state.limit)

    @property
    def score(self) -> float:
        """Evidence squeezed into [0, 1): one half at the threshold."""
        return self.statistic / (self.statistic + self.threshold)

    @property
    def side(self) -> Side:
        """The side that the evidence is for."""
        return "down" if self.evidence.ratios[self.evidence.best] < 1.0 else "up"

    @property
    def updates_per_week(self) -> float:
        """Updates in a week of event time, as of the last week or so (a day at least is reckoned with)."""
        state = self.state
        running = state.updates - state.updates_at
        return (state.pace_n + running) / max(state.pace_h + 1.0, 24.0) * PACE_H

    def change(self) -> Change:
        """Onset and size of what is suspected."""
        return self.evidence.change()

    def since(self, ts: float) -> Since | None:
        """What was counted since event time `ts`, seconds; of the remote past only some points are remembered."""
        if not self.state.ready:
            return None
        then, now = self.evidence.mark(ts), self.state.evidence.now
        return Since(now.n - then.n, now.k - then.k, now.expected - then.expected)

    def before(self) -> tuple[float, float, float]:
        """Rate that the baseline expects now, with its 95 % interval."""
        base, spread = self.state.base, Z95 * self.state.base.error
        return base.rate, *self._within(base.rate, spread)

    def before_over(self, change: Change) -> tuple[float, float, float]:
        """Rate that the baseline expected on average since the onset, with its 95 % interval."""
        hours = round(self.state.slot + 1 - change.onset / HOUR_S)
        mean, spread = change.expected / change.n, Z95 * self.base.error_over(self.state.slot, hours)
        return mean, *self._within(mean, spread)

    def _within(self, mean: float, spread: float) -> tuple[float, float]:
        most = 1.0 if self.family == "binomial" else mean + spread
        return max(0.0, mean - spread), min(mean + spread, most)

    def allow(self, false_alarms_per_week: float) -> None:
        """Take a share of the installation's budget of false alarms; the threshold follows from it hour by hour."""
        if self.state.allowance != false_alarms_per_week:
            self.state.allowance = float(false_alarms_per_week)
            self._refresh_run_length()

    def advance(self, ts: float, k: float, n: float, extras: Sequence[int] = ()) -> Answer:
        """Take one observation.

        Args:
            ts: event time, seconds; ascends.
            k: hits.
            n: trials (for counts: hours of exposure).
            extras: counts beside, as many as the state has shares.

        Returns:
            `warming`, `quiet` (learnt), `rising` (held back), `alarmed`, and at the end of an alarm `recovered` (what
            was held back is dropped) or `accepted` (it is the new baseline).
        """
        state = self.state
        slot = int(ts // HOUR_S)
        if slot != state.slot:
            self._turn(ts, slot)
        if n <= 0:
            return self._suspicion() if state.ready else "warming"
        state.updates += 1
        if not state.ready:
            if state.first_ts is not None and ts - state.first_ts >= self.params.settle_s:
                self._note(state.hour, k, n, extras, fresh=False)
            return "warming"
        phase = self._judge(ts, k, n)
        state.seen.k += k
        state.seen.n += n
        state.recent += (k / n - state.recent) * n / (n + RECENT_N)
        if phase == "quiet" and state.better_since is None:
            if state.held.n or state.fresh.hours:
                self._release()
            self._note(state.hour, k, n, extras, fresh=False)
        else:
            self._note(state.held, k, n, extras, fresh=True)
        if phase == "recovered":
            self._recover()
        elif phase == "accepted":
            self._accept()
        return phase

    # ── the test ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _judge(self, ts: float, k: float, n: float) -> Phase:
        state = self.state
        expected = n * state.base.rate
        weight = self._weigh(n) if state.base.clump else 1.0
        evidence = state.evidence
        if evidence.alarm >= 0:
            return self._follow(ts, k, n, expected, weight)
        if self._good_log:
            better = state.better + (k * self._good_log - n * state.logs[-1]) * weight
            if better > 0.0 or state.better:
                self._watch_better(ts, better)
        self.total = self.evidence.advance(ts, k, n, expected, state.logs, weight)
        if self.total >= state.limit and self._enough():
            evidence.alarm = self.evidence.best
            state.worse, state.worse_since = 0.0, None
            self._set_back()
            return "alarmed"
        return self._suspicion()

    def _suspicion(self) -> Phase:
        """The phase as it stands."""
        evidence = self.state.evidence
        if evidence.alarm >= 0:
            return "alarmed"
        for i, enough in self._holds:
            if evidence.page[i] > enough:
                return "rising"
        return "quiet"

    def _weigh(self, n: float) -> float:
        """What a trial counts for where trials of an hour go together.

        An hour of `n` trials is worth `n / (1 + (n - 1) * clump)` independent ones (Kish 1965); this is the mean slope
        of that between the trials seen before and after.
        """
        base, seen, units = self.state.base, self.state.seen.n, self._kind.units
        before, after = max(units(seen, base.rate) - 1.0, 0.0), max(units(seen + n, base.rate) - 1.0, 0.0)
        return 1.0 / ((1.0 + before * base.clump) * (1.0 + after * base.clump))

    def _follow(self, ts: float, k: float, n: float, expected: float, weight: float) -> Phase:
        """While alarmed: has the old level returned, or lasted the new one long enough?"""
        state = self.state
        mixture = self.evidence
        mixture.follow(ts, k, n, expected)
        start, now = mixture.state.starts[mixture.state.alarm], mixture.state.now
        self._watch_worse(ts, k, n, expected, weight)
        llr = k * log(state.back_ratio) - n * self._kind.normaliser(state.back_ratio, state.base.rate)
        state.evidence.back = max(0.0, state.evidence.back - llr * weight)
        if state.evidence.back >= self.params.recover_at:
            if self._was_chance():
                self._release()
                state.false += 1.0
            mixture.clear()
            return "recovered"
        if ts - start.ts >= self.params.accept_after_s and now.n - start.n >= self.params.warmup_n:
            mixture.clear()
            return "accepted"
        return "alarmed"

    def _watch_worse(self, ts: float, k: float, n: float, expected: float, weight: float) -> None:
        """Has it got worse still? A CUSUM against the level since the onset; then all is told from the new onset on."""
        state, now = self.state, self.state.evidence.now
        start = state.evidence.starts[state.evidence.alarm]
        before_n = now.n - n - start.n
        if before_n < self.params.min_n:
            return
        family, base = self._kind, state.base.rate
        found = family.ratio(now.k - k - start.k, before_n, now.expected - expected - start.expected)
        log_ratio = -self._size if self.side == "down" else self._size
        normaliser = family.normaliser(found * exp(log_ratio), base) - family.normaliser(found, base)
        worse = state.worse + (k * log_ratio - n * normaliser) * weight
        if worse > 0.0 and not state.worse:
            state.worse_from = Mark(ts, now.k - k, now.n - n, now.expected - expected)
        state.worse = max(0.0, worse)
        if state.worse >= self.threshold:
            state.evidence.starts[state.evidence.alarm] = state.worse_from
            state.worse, state.worse_since = 0.0, state.worse_from.ts
            self._set_back()

    def _was_chance(self) -> bool:
        """Whether all since the onset may well be the old level: then it is learnt.

        Dropping it would leave out just the unlucky part of the normal, and so raise the next false alarm. What broke
        twice is no chance; and its onset is the second one by now.
        """
        if self.state.worse_since is not None:
            return False
        change = self.evidence.change()
        spread = sqrt(change.n * self._kind.variance(change.expected / change.n))
        return abs(change.k - change.expected) < CHANCE_SD * spread

    def _set_back(self) -> None:
        """Choose what the old level is weighed against while alarmed: most of the change that was found."""
        change = self.evidence.change()
        found = abs(log(self._kind.ratio(change.k, change.n, change.expected))) if change.n else 0.0
        least = min(abs(each) for each in self.evidence.logs)
        size = max(least, BACK_SHARE * found)
        self.state.back_ratio = exp(-size if self.side == "down" else size)

    def _watch_better(self, ts: float, better: float) -> None:
        """Hold back what is clearly better than the baseline: it is learnt if it lasts, else it was a burst."""
        state = self.state
        state.better = max(0.0, better)
        if state.better_since is None:
            if state.better >= BETTER_NATS:
                state.better_since = ts
            return
        state.better = min(state.better, 2.0 * BETTER_NATS)
        if not state.better:
            state.better_since = None
            self._drop()
        elif ts - state.better_since >= self.params.accept_better_s:
            state.better, state.better_since = 0.0, None
            self._accept()

    def _enough(self) -> bool:
        now, start = self.state.evidence.now, self.state.evidence.starts[self.evidence.best]
        cases = abs((now.expected - start.expected) - (now.k - start.k))
        return now.n - start.n >= self.params.min_n and cases >= self.params.min_cases

    # ── what is learnt and what is held back ──────────────────────────────────────────────────────────────────────

    def _note(self, hour: Hour, k: float, n: float, extras: Sequence[int], *, fresh: bool) -> None:
        hour.k += k
        hour.n += n
        if not extras:
            return
        state = self.state
        sums = state.fresh_shares if fresh else state.shares
        for i, value in enumerate(extras):
            sums[i] += value
        base_n, fresh_n = state.shares_n
        state.shares_n = (base_n, fresh_n + n) if fresh else (base_n + n, fresh_n)

    def _release(self) -> None:
        """The suspicion has passed: learn what was held back."""
        state = self.state
        state.hour.k += state.held.k
        state.hour.n += state.held.n
        state.held.k = state.held.n = 0.0
        self.base.absorb(state.fresh)
        state.shares = [a + b for a, b in zip(state.shares, state.fresh_shares, strict=True)]
        state.shares_n = (sum(state.shares_n), state.shares_n[1])
        self._forget_held_shares()

    def _recover(self) -> None:
        """The old level is back: was what was held back a part of the normal?

        Perhaps, while a week is not known yet: a first weekend looks like a break. Later a little of it, so that what
        comes back week after week is learnt in the end.
        """
        known = self.state.base.fit.hours >= WEEKS_KNOWN_H
        self.base.absorb(self.state.fresh, share=RECURRING if known else 1.0)
        self._drop()

    def _drop(self) -> None:
        """What was held back is no part of the normal."""
        self.state.held.k = self.state.held.n = 0.0
        clear(self.state.fresh)
        self._forget_held_shares()

    def _accept(self) -> None:
        """What was held back is the new normal."""
        state = self.state
        if state.held.n:
            self.base.add(state.fresh, state.slot, state.held.k, state.held.n)
        if state.fresh.hours:
            self.base.replace(state.fresh)
            self.base.expect(state.slot)
        state.shares, state.shares_n = state.fresh_shares, (state.shares_n[1], 0.0)
        state.held.k = state.held.n = state.hour.k = state.hour.n = 0.0
        self._forget_held_shares()
        self._refresh_logs()

    def _forget_held_shares(self) -> None:
        state = self.state
        state.fresh_shares = [0.0] * len(state.fresh_shares)
        state.shares_n = (state.shares_n[0], 0.0)

    # ── once an hour ──────────────────────────────────────────────────────────────────────────────────────────────

    def _turn(self, ts: float, slot: int) -> None:
        """Close the running hour and make ready for the next."""
        state = self.state
        if state.first_ts is None:
            state.first_ts = ts
        if state.ready and state.evidence.alarm < 0 and state.better_since is None:
            self.base.measure(state.seen.k, state.seen.n)
        if state.hour.n:
            self.base.learn(state.slot, state.hour.k, state.hour.n)
        if state.held.n:
            self.base.add(state.fresh, state.slot, state.held.k, state.held.n)
        if state.slot >= 0:
            self._fade_shares(slot - state.slot)
            self._note_pace(slot - state.slot)
        for hour in (state.hour, state.held, state.seen):
            hour.k = hour.n = 0.0
        state.slot = slot
        self.base.expect(slot)
        if not state.ready:
            age_s = ts - state.first_ts
            state.ready = age_s >= self.params.warmup_s and state.base.fit.n >= self.params.warmup_n
            state.recent = state.base.rate
        self._refresh_run_length()
        self._refresh_logs()

    def _fade_shares(self, hours: int) -> None:
        state = self.state
        if state.shares:
            fade = exp(-hours / self.base.memory_h)
            state.shares = [value * fade for value in state.shares]
            state.shares_n = (state.shares_n[0] * fade, state.shares_n[1])

    def _refresh_logs(self) -> None:
        """Log-normalisers at the baseline, moved to the careful side by its error."""
        base, family = self.state.base, self._kind
        if not base.at_n:
            return
        self.state.logs = []
        slope, need = family.variance(base.rate), max(self.threshold - HEAD_START, 1.0)
        for log_ratio in self._logs:
            # A baseline that may be off multiplies false alarms by about exp((2 * x) ** 2 / 2): little while x is
            # small, then everything. A shift to the careful side takes that back and costs delay, so only the rest is
            # shifted. What counts is how far it is off on average over the time that a run takes.
            trials = need / (0.5 * slope * log_ratio**2)
            error = self.base.error_over(self.state.slot, round(trials / self._trials_per_hour()))
            x = need * error / (slope * abs(log_ratio))
            shift = error * max(self.params.caution * self._size / abs(log_ratio), STEEP * max(x - FREE, 0.0) ** 3)
            careful = family.within(base.rate + (shift if log_ratio > 0.0 else -shift), base.rate)
            self.state.logs.append(family.normaliser(exp(log_ratio), careful))

    def _trials_per_hour(self) -> float:
        """Trials in an hour of event time, on average over what is remembered."""
        state, memory_h = self.state, self.base.memory_h
        age_h = state.slot + 1 - (state.first_ts or 0.0) / HOUR_S
        return max(state.base.fit.n / (memory_h * (1.0 - exp(-max(age_h, 1.0) / memory_h))), 1e-3)

    def _refresh_run_length(self) -> None:
        """What the allowance comes to at this rate of updates, and more for a stream that alarms falsely too often.

        A baseline that does not fit shows in more false alarms than were due; their rate is estimated with a Gamma
        prior worth `prior_alarms` of them, and the limit grows with it. It never falls below the run length.
        """
        state = self.state
        if state.allowance is not None:
            state.run_length = min(max(self.updates_per_week / state.allowance, LEAST_RUN), MOST_RUN)
        prior = self.params.prior_alarms
        excess = (prior + state.false) / (prior + state.due)
        state.limit = state.run_length * max(1.0, excess)

    def _note_pace(self, hours: int) -> None:
        """Reckon the updates of the closing hour, and the false alarms that it was allowed."""
        state = self.state
        updates, fade, week = state.updates - state.updates_at, exp(-hours / self.base.memory_h), exp(-hours / PACE_H)
        state.pace_n, state.pace_h = state.pace_n * week + updates, state.pace_h * week + hours
        state.due = state.due * fade + (updates / state.limit if state.ready else 0.0)
        state.false *= fade
        state.updates_at = state.updates

    # ── set-up ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _mixture(self) -> Mixture:
        self._size = -log(self.params.odds_ratio)
        signs = {"down": -1.0, "up": 1.0}
        logs = [signs[side] * self._size * each for side in self.sides for each in SIZES]
        weights = [each / len(self.sides) for _ in self.sides for each in WEIGHTS]
        self._holds = [(i * len(SIZES) + j, nats) for i in range(len(self.sides)) for j, nats in enumerate(HOLD_NATS)]
        self._good_log = -signs[self.sides[0]] * self._size if len(self.sides) == 1 else 0.0
        self._logs = [*logs, *([self._good_log] if self._good_log else [])]
        return Mixture(self._kind, [exp(each) for each in logs], weights, self.state.evidence)

    def _check(self) -> None:
        state, size = self.state, len(SIZES) * len(self.sides)
        evidence = state.evidence
        lengths = {len(evidence.ratio), len(evidence.page), len(evidence.starts)}
        if lengths != {size} or not sound(state.base) or not sound(state.fresh):
            raise msgspec.ValidationError("not a state of this test: arrays of other sizes")


class RateTest(ChangeTest):
    """Hits out of trials against a learnt rate.

    Sums of values in [0, 1] may be taken as hits: conservative, because the likelihood ratio is convex in the value
    (Waudby-Smith & Ramdas 2023).

    Example:
        >>> test = RateTest(ChangeParams())
        >>> for minute in range(3 * 1440):
        ...     answer = test.update_binomial(minute * 60.0, 3 if minute < 2 * 1440 else 2, 10)
        ...     if answer == "alarmed":
        ...         break
        >>> minute - 2 * 1440 < 60, abs(test.change().onset / 60 - 2 * 1440) < 5
        (True, True)
    """

    family = "binomial"

    def update_binomial(self, ts: float, k: float, n: float, extras: Sequence[int] = ()) -> Answer:
        """Take `k` hits out of `n` trials at event time `ts` (seconds); see `advance`."""
        return self.advance(ts, k, n, extras)

    def update(self, x: float) -> None:
        """Take one trial, a hit or a miss (river's API): one a minute of event time."""
        self.advance(self.state.updates * 60.0, x, 1.0)


class CountTest(ChangeTest):
    """Events per time against a learnt rate per hour; variance beyond Poisson's is learnt.

    Example:
        >>> test = CountTest(ChangeParams(warmup_n=24, min_n=3), ("down",))
        >>> for hour in range(24 * 6):
        ...     answer = test.update_count(hour * 3600.0, 40 if hour < 24 * 5 else 20, 1.0)
        >>> answer, round(test.before()[0])
        ('alarmed', 40)
    """

    family = "poisson"

    def update_count(self, ts: float, events: float, hours: float) -> Answer:
        """Take a number of events seen in so many hours from event time `ts` (seconds) on; see `advance`."""
        return self.advance(ts, events, hours)

    def update(self, x: float) -> None:
        """Take the count of one hour (river's API)."""
        self.advance(self.state.updates * HOUR_S, x, 1.0)

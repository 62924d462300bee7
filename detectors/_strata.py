"""Has a rate changed at equal mix? For processes of few cases a day, whose rate depends on whom or when it is about.

Trials fall into strata (the weekday of a promise, the hours in which a lead came, how often a person is mailed). Each
has its own learnt rate, and what is tested is hits against the promise of each trial's own stratum: indirect
standardisation, so that another mix of the same strata is no change. A part may put strata together and then asks the
same at equal mix of these groups only.

Evidence for every onset is weighed as in `detectors._onsets`, with three things that hours of few cases need:

- Rare hits are skewed. A size `a` of change is weighed by a shifted Poisson law with the variance and the skewness of
  the counts: exp(a * s - v * (exp(c * a) - 1 - c * a) / c ** 2) for residuals `s` of variance `v`, where `c` is 1 - 2 *
  rate in the direction of the change (Bennett 1962); c = 0 is the normal law. Sizes have fixed weights.
- Strata that were seldom seen are known badly. The error of their promise is integrated out for the trials that the
  evidence rests on, so that a sudden flood into a rare stratum says little.
- Days have luck in common: a strike, a bad batch, a day off. Variance beyond chance from day to day is learnt, and
  evidence is divided by it (quasi-likelihood, Wedderburn 1974).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import exp, expm1, log, sqrt
from typing import Final

import msgspec
from pydantic import Field

from detectors._base import Level
from detectors._baseline import DAY_S, HOUR_S, Side
from detectors._onsets import CELL_N, CELL_S, Cell, Change, Cohort, Onsets, OnsetsState, Part, Sums
from detectors._scores import BACK_SHARE, LEAST_LOOKS, WARN_NATS, Alarm, Phase, Rise, ScoreParams, SlowTable, _ScoreTest
from detectors._sequential import NoLess, Positive

LOOK_S: Final = 8 * HOUR_S
"""Event time between two looks, at least: what a day brings is not weighed mail by mail."""
STRATUM_PRIOR: Final = 4.0
"""Trials' worth of belief that a stratum is like the others."""
SIZES: Final = (0.25, 0.75, 1.25, 2.0)
SIZE_WEIGHTS: Final = (0.25, 0.35, 0.25, 0.15)
"""Sizes of change that are weighed, as multiples of the typical one; about a half-normal prior."""
LEAST_WARN: Final = log(LEAST_LOOKS) - WARN_NATS
"""Evidence below which no test warns, whatever its budget, nats."""
LEAST_JUMP: Final = 0.02
MOST_NATS: Final = 600.0
SURE: Final = 1e18
"""Information of a baseline that is known for certain."""
SPREAD_DAYS: Final = 7.0
"""Days' worth of belief that days have nothing in common."""
SPREAD_MEMORY_DAYS: Final = 60.0
KNOWN_DAYS: Final = 7
"""Days of the warm-up after which it is known well enough what strata are like to measure days against it."""
ODD: Final = 6.0
"""A day's squared residual counts up to so many times what is usual."""
ROWS: Final = 2
"""Rows of `figures` for each part: promise per stratum, error per group."""


class SlowParams(ScoreParams):
    """Parameters of every test of stratified rates; evidence is in nats (natural log of a likelihood ratio)."""

    run_length: Positive = Field(10_000, description="looks, one in eight hours at most, between two false alarms of a"
                                 " rate on average, where no budget is given; a worker derives it from"
                                 " `false_pages_per_week`")  # fmt: skip
    warmup_s: NoLess = Field(14 * DAY_S, description="event time to learn before it judges, seconds: two weeks know"
                             " weekends")  # fmt: skip
    warmup_n: Positive = Field(100, description="trials to learn before it judges")
    min_n: NoLess = Field(30, description="trials since the onset before it warns or alerts")
    min_cases: NoLess = Field(5.0, description="cases more or fewer than expected since the onset before it warns or"
                              " alerts")  # fmt: skip
    odds_ratio: float = Field(0.55, gt=0, lt=1, description="typical fall of the odds; a rise is its inverse; from a"
                              " quarter to twice that size is looked for")  # fmt: skip


class RatePart(Part, frozen=True):
    """One side of a rate; see the module.

    Attributes:
        sizes: (weight, size, what a unit of variance costs at that size, nats) of each change that is weighed.
    """

    sizes: tuple[tuple[float, float, float], ...] = ()

    @classmethod
    def of(cls, side: int, sd: float, jump: float = 0.0) -> RatePart:
        """A part whose trials have skewness `jump` in the direction of the change, relative to their variance."""
        c = max(jump, LEAST_JUMP)
        costs = [(expm1(c * each * sd) - c * each * sd) / (c * c) for each in SIZES]
        sizes = [(w, each * sd, cost) for w, each, cost in zip(SIZE_WEIGHTS, SIZES, costs, strict=True)]
        return cls(side, sd, sizes=tuple(sizes))

    def log_ratio(self, s: float, v: float, known: float) -> float:
        """Log likelihood ratio of a change whose residuals sum up to `s`, nats; see `Part.log_ratio`."""
        unsure = 1.0 + v / known
        s, v = self.side * s / unsure, v / unsure
        top = max([a * s - v * cost for _, a, cost in self.sizes])
        if top >= MOST_NATS:
            return MOST_NATS
        return top + log(sum([weight * exp(a * s - v * cost - top) for weight, a, cost in self.sizes]))


class StrataTable(SlowTable):
    """State of `StratifiedRate`.

    Attributes:
        spread: variance of a day's residual over what chance gives, 1 or more.
        squares: squared differences of residuals from day to day over their variance by chance, as (sum, number).
        today: the running day, days since the epoch.
        sums: residual and information of the running day.
        off: residual of the day before it, standard deviations by chance.
    """

    spread: float = 1.0
    squares: tuple[float, float] = (SPREAD_DAYS, SPREAD_DAYS)
    today: int = -1
    sums: tuple[float, float] = (0.0, 0.0)
    off: float = 0.0


class _StrataOnsets(Onsets):
    """As `Onsets`; looks are at least `LOOK_S` apart, and the baseline's error is that of the trials at hand."""

    def __init__(
        self, state: OnsetsState, parts: Sequence[Part], weigh: Callable[[Cell], Sums],
        known_by: Callable[[Sequence[float], float, int], float],
    ) -> None:  # fmt: skip
        self._known_by = known_by
        super().__init__(state, parts, weigh)

    def collect(self, ts: float, cohorts: Sequence[Cohort]) -> Cell | None:
        """Take cases of event time `ts` (seconds); returns the cell if they filled it."""
        state = self.state
        cell = state.filling
        if not cell.looks:
            cell.ts, cell.looks = ts, 1
        for stratum, n, k in cohorts:
            cell.n[stratum] += n
            cell.k[stratum] += k
        state.ts = ts
        passed = ts - cell.ts
        if passed < CELL_S and (passed < LOOK_S or sum(cell.n) < CELL_N):
            return None
        state.filling = Cell.empty(len(cell.n), len(cell.k))
        self._count_look(ts)
        return cell

    def oldest(self, part: int, known: float) -> float:
        """Evidence that a part changed with the oldest cell, nats."""
        s = v = 0.0
        n = [0] * len(self.state.filling.n)
        for sums, cell in zip(self._sums, self.cells, strict=True):
            s, v = s + sums[part][0], v + sums[part][1]
            n = [a + b for a, b in zip(n, cell.n, strict=True)]
        return self.parts[part].log_ratio(s, v, self._known_by(n, v, part))

    def _log_ratios(self, part: int, known: float) -> tuple[list[float], list[tuple[float, float]]]:
        tails: list[tuple[float, float]] = []
        nats: list[float] = []
        s = v = 0.0
        n = [0] * len(self.state.filling.n)
        for sums, cell in zip(reversed(self._sums), reversed(self.cells), strict=True):
            s, v = s + sums[part][0], v + sums[part][1]
            n = [a + b for a, b in zip(n, cell.n, strict=True)]
            tails.append((s, v))
            nats.append(self.parts[part].log_ratio(s, v, self._known_by(n, v, part)))
        return nats[::-1], tails[::-1]


class StratifiedRate(_ScoreTest):
    """Whether a rate is still what each stratum used to have.

    Args:
        params: warm-up, memory, false alarms and typical change.
        state: taken up and changed in place.
        side: the bad side, `down` or `up`.
        groups: for each part, stratum → group; the first is to be the strata themselves. None: only these.

    Raises:
        msgspec.ValidationError: the state is none of this test.
    """

    hits = True
    state: StrataTable

    def __init__(
        self, params: ScoreParams, state: StrataTable, side: Side, groups: Sequence[tuple[int, ...]] | None = None
    ) -> None:
        self._groups = groups or (tuple(range(len(state.base.n))),)
        self._sign = -1 if side == "down" else 1
        self._sd = -log(params.odds_ratio)
        if state.figures and len(state.figures) != ROWS * len(self._groups):
            raise msgspec.ValidationError("not a state of this test: of other parts")
        super().__init__(params, state, [RatePart.of(self._sign, self._sd)] * len(self._groups))
        self.onsets: Onsets = _StrataOnsets(state.onsets, self.parts, self.weigh, self.known_by)
        self._take_parts()

    @property
    def level(self) -> Level:
        """`warming`, `ok`, `warn` or `alert`."""
        state = self.state
        if state.ready and not state.alarm and state.change.statistic < LEAST_WARN:
            return "ok"  # nearly always; saves the threshold
        return super().level

    @property
    def threshold(self) -> float:
        """Evidence from which on it alarms, nats."""
        looks = float(self.params.run_length)
        if self.allowance is not None:
            looks = self.onsets.looks_per_week / self.allowance
        return log(max(looks, LEAST_LOOKS))

    @property
    def change(self) -> Change:
        """What is suspected, or alarmed of: the evidence is that of now."""
        state = self.state
        if not state.alarm:
            return state.change
        then, part = state.alarm.change, state.alarm.change.part
        s, v = self._fresh_sums(part)
        nats = self.parts[part].log_ratio(s, v, self.known_by(state.fresh.n, v, part))
        statistic = max(0.0, then.statistic + nats - then.nats)
        return msgspec.structs.replace(then, statistic=statistic, nats=nats, s=s, v=v)

    def observe(self, ts: float, cohorts: Sequence[Cohort], rise: Rise | None = None) -> Phase:
        """Learn from what one bucket says of trials of event time `ts` (seconds), and test it."""
        day = int(ts // DAY_S)
        if day > self.state.today:
            self._close_day(day)
        if self.state.figures and not self.state.alarm:
            s, v = self._sums_of(cohorts)
            self.state.sums = (self.state.sums[0] + s, self.state.sums[1] + v)
        return super().observe(ts, cohorts, rise)

    def promised(self, n: Sequence[float], part: int = 0) -> float:
        """Hits that the baseline promises of trials, counted per stratum."""
        return sum([trials * rate for trials, rate in zip(n, self.state.figures[ROWS * part], strict=True)])

    def since(self, onset: float) -> tuple[list[float], list[float]]:
        """Hits and trials per stratum since an onset, as far as they are kept apart from the baseline."""
        state = self.state
        k, n = (list(state.fresh.k), list(state.fresh.n)) if state.alarm else ([0.0] * len(state.base.n),) * 2
        for cell in () if state.alarm else (*self.onsets.cells, state.onsets.filling):
            if cell.looks and cell.ts >= onset:
                n = [a + b for a, b in zip(n, cell.n, strict=True)]
                k = [a + b for a, b in zip(k, cell.k, strict=True)]
        return k, n

    def error(self, n: Sequence[float], part: int = 0) -> float:
        """Standard error of the rate that the baseline promises of trials, counted per stratum."""
        total = sum(n)
        return sqrt(self._doubt(n, part) * self.state.spread) / total if total else 0.0

    def effect(self) -> tuple[float, float]:
        """Size of the change and its standard error, see `Part.size`."""
        change = self.change
        return Part.size(change.s, change.v, self._known_since(change))

    def gain(self) -> float:
        """Log-likelihood gained by the change over none, at the size that fits best, nats."""
        change = self.change
        return self.parts[change.part].gain(change.s, change.v, self._known_since(change))

    def known_by(self, n: Sequence[float], v: float, part: int) -> float:
        """Information behind the promise of trials, counted per stratum, whose residual has information `v`."""
        doubt = self._doubt(n, part)
        return v * v * self.state.spread / doubt if doubt > 0.0 else SURE

    def weigh(self, cell: Cell) -> Sums:
        """Hits beyond the promise, for each part."""
        return self._weigh_counts(cell.n, cell.k)

    def refresh(self) -> None:
        """`figures`: for each part the promise per stratum, and the variance of that of a group."""
        state, figures = self.state, list[list[float]]()
        base, level = state.base, state.base.level
        for groups in self._groups:
            k, n = [0.0] * (max(groups) + 1), [0.0] * (max(groups) + 1)
            for b, group in enumerate(groups):
                k[group], n[group] = k[group] + base.k[b], n[group] + base.n[b]
            rates = [(a + STRATUM_PRIOR * level) / (b + STRATUM_PRIOR) for a, b in zip(k, n, strict=True)]
            figures.append([rates[group] for group in groups])
            figures.append([rate * (1.0 - rate) / (b + STRATUM_PRIOR) for rate, b in zip(rates, n, strict=True)])
        state.figures = figures
        state.known = [SURE] * len(self._groups)
        state.spread = max(1.0, state.squares[0] / state.squares[1])
        self._take_parts()

    def _take_parts(self) -> None:
        """Parts as skewed as the promised rate makes them."""
        figures = self.state.figures
        if figures:
            rates = figures[0]
            jump = self._sign * (1.0 - 2.0 * sum(rates) / len(rates))
            self.parts = self.onsets.parts = [RatePart.of(self._sign, self._sd, jump)] * len(self._groups)

    def _doubt(self, n: Sequence[float], part: int) -> float:
        """Variance of the hits promised of trials, because strata are known by few."""
        groups, variances = self._groups[part], self.state.figures[ROWS * part + 1]
        sums = [0.0] * len(variances)
        for trials, group in zip(n, groups, strict=True):
            sums[group] += trials
        return sum([trials * trials * variance for trials, variance in zip(sums, variances, strict=True)])

    def _known_since(self, change: Change) -> float:
        return self.known_by(self.since_onset()[1], change.v, change.part) or SURE

    def _weigh_counts(self, n: Sequence[float], k: Sequence[float]) -> Sums:
        state, found = self.state, list[tuple[float, float]]()
        for part in range(len(self._groups)):
            s = v = 0.0
            for trials, hits, rate in zip(n, k, state.figures[ROWS * part], strict=True):
                if trials:
                    s, v = s + hits - trials * rate, v + trials * rate * (1.0 - rate)
            found.append((s / state.spread, v / state.spread))
        return tuple(found)

    def _sums_of(self, cohorts: Sequence[Cohort]) -> tuple[float, float]:
        """Residual and variance by chance of what came together."""
        rates, s, v = self.state.figures[0], 0.0, 0.0
        for stratum, n, k in cohorts:
            rate = rates[stratum]
            s, v = s + k - n * rate, v + n * rate * (1.0 - rate)
        return s, v

    def _close_day(self, day: int) -> None:
        """Learn how far days are off, beyond chance: from one to the next, which a lasting change does not widen."""
        state = self.state
        s, v = state.sums
        if v > 0.0:
            z, before = s / sqrt(v), state.off
            total, number = state.squares
            keep = 1.0 - 1.0 / SPREAD_MEMORY_DAYS
            state.squares = (total * keep + min(0.5 * (z - before) ** 2, ODD * state.spread), number * keep + 1.0)
            state.off = z
        state.today, state.sums, state.at_n = day, (0.0, 0.0), -1.0
        if not state.ready and state.first_ts is not None and day - state.day >= KNOWN_DAYS:
            self.refresh()

    def _enough(self, change: Change) -> bool:
        return super()._enough(change) and abs(change.s) * self.state.spread >= self.params.min_cases

    def _set_back(self, alarm: Alarm) -> None:
        part = self.parts[alarm.change.part]
        size, error = Part.size(alarm.change.s, alarm.change.v, self._known_since(alarm.change))
        size *= part.sd**2 / (part.sd**2 + error**2)  # alarms come when a change looks larger than it is
        alarm.effect = max(BACK_SHARE * abs(size), 0.5 * part.sd) * (1.0 if size > 0.0 else -1.0)

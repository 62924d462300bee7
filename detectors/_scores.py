"""What lead scores mean, and whether they still mean it: their distribution, and what becomes of them.

Score bins are numbered from 0 over the score scale; a bin's score is its middle as a fraction of the scale. Leads are
few, so all tests here weigh every onset and allow for the error of their baseline (`detectors._onsets`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import log, sqrt
from typing import ClassVar, Final, Literal, TypeAlias

import msgspec
from pydantic import Field

from detectors._base import Level, Params
from detectors._baseline import DAY_S, PRIOR, REFRESH_GROWTH, RateTable, fade_over
from detectors._onsets import CELL_N, Cell, Change, Cohort, Onsets, OnsetsState, Part, Sums
from detectors._sequential import NoLess, Positive

CURVE_PRIOR: Final = 20.0
"""Leads' worth of belief that a score bin is like the others."""
HELD_N: Final = 200
"""So many leads are held back from the baseline even while nothing is suspected: the onset of a slow change."""
WARN_NATS: Final = 1.0
"""How far below the alert the warning is: 2.7 times the false alarms."""
RARER: Final = 0.1
"""False alarms of the distribution, and of inflation, for one of a fall of acceptance or of wins."""
RARER_NATS: Final = -log(RARER)
NAMED_NATS: Final = 3.0
"""Evidence of 20 to 1, from which on each half of an inflation counts as seen."""
SLACK: Final = 2.5
"""By this factor false alarms are rarer than the e-detector's bound, because its statistic jumps past the threshold.
Measured on simulated leads of 150 and 1,500 a day (2.5 to 3; of 15 a day, where the baseline stays uncertain, 7 and
more). Thresholds use it up, so run lengths are targets and no bounds."""
LEAST_LOOKS: Final = 100.0
"""However large the budget, no test alarms by chance more often than after so many looks."""
BACK_SHARE: Final = 0.75
"""Share of the change found that the old level is weighed against while alarmed."""
TOGETHER_S: Final = 7 * DAY_S
"""A rise and a fall whose onsets are further apart than this, by their intervals, are no inflation."""
RISE_MEMORY_S: Final = 90 * DAY_S
"""Event time over which a rise that became normal is remembered, seconds: conversions are known late."""
SHIFT_SD: Final = 0.35
"""Typical change of a component of the distribution, standard deviations."""
COMPONENTS: Final = 4
RISE: Final = COMPONENTS
"""Part of `ScoreDistribution` that asks for higher scores only."""
AT_SCORE, OVERALL = 0, 1
"""Parts of `Calibration`: hits at equal score, and whatever the score."""
WEEKEND_PRIOR: Final = 50.0
"""Leads' worth of belief that weekends are like working days."""
WEEKDAYS: Final = 7
Phase: TypeAlias = Literal["warming", "quiet", "alarmed", "recovered", "accepted"]


class ScoreParams(Params):
    """Parameters of every test of leads; trials are leads, evidence is in nats (natural log of a likelihood ratio)."""

    run_length: Positive = Field(5000, description="leads between two false alarms of a fall of acceptance or of wins,"
                                 " on average, where no budget is given (tests, benchmarks); ten times as many for the"
                                 " distribution. A worker derives it from `false_pages_per_week`")  # fmt: skip
    warmup_s: NoLess = Field(7 * DAY_S, description="event time to learn before it judges, seconds")
    warmup_n: Positive = Field(100, description="leads to learn before it judges")
    memory_s: Positive = Field(90 * DAY_S, description="event time after which 1/e of a count is left, seconds")
    accept_after_s: Positive = Field(28 * DAY_S, description="an alert that lasts so long becomes the new normal,"
                                     " seconds of event time")  # fmt: skip
    recover_at: Positive = Field(8.0, description="evidence for the old level at which an alert resolves, nats")
    min_n: NoLess = Field(50, description="leads since the onset before it warns or alerts")
    min_cases: NoLess = Field(5.0, description="accepted or won leads fewer than expected since the onset before it"
                              " warns or alerts")  # fmt: skip
    odds_ratio: float = Field(0.65, gt=0, lt=1, description="typical fall of the odds of acceptance or a win; other"
                              " sizes are found, too")  # fmt: skip


class Alarm(msgspec.Struct, array_like=True):
    """An alarm that is on.

    Attributes:
        change: as it was when it alarmed.
        rose: whether scores or volume had risen by then, so that it is an inflation.
        effect: size of the change that the old level is weighed against; its sign is that of the change.
        back: evidence that the old level has returned, nats.
    """

    change: Change
    rose: bool = False
    effect: float = 0.0
    back: float = 0.0


class SlowTable(msgspec.Struct, array_like=True):
    """State common to the tests here.

    Attributes:
        onsets: data that may hold the onset of a change.
        base: the baseline per stratum.
        fresh: what was seen since the onset, while alarmed.
        figures: what the test needs of the baseline, per stratum; see the tests.
        known: information behind the baseline, for each part.
        change: what is suspected, as of the last look.
        alarm: None while there is none.
        first_ts: event time of the first observation, seconds; None before it.
        day: last day learnt, days since the epoch.
        ready: the warm-up is over.
        at_n: trials known when `figures` were computed.
    """

    onsets: OnsetsState
    base: RateTable
    fresh: RateTable
    figures: list[list[float]] = []
    known: list[float] = []
    change: Change = msgspec.field(default_factory=Change)
    alarm: Alarm | None = None
    first_ts: float | None = None
    day: int = 0
    ready: bool = False
    at_n: float = -1.0

    @classmethod
    def of(cls, strata: int, *, hits: bool) -> SlowTable:
        """Return the state at the start, for so many strata; `hits`: whether they are counted."""
        return cls(OnsetsState.of(strata, hits), RateTable.sized(strata), RateTable.sized(strata))


class Rise(msgspec.Struct, array_like=True):
    """Scores or the number of qualified leads have risen.

    Attributes:
        nats: evidence for one onset, nats.
        statistic: over all onsets, nats.
        onset: event time of the rise, seconds.
        at: event time when it was last seen, seconds.
        first: start of its 95 % interval.
        last: end of it.
        before: mean score, or qualified leads a day, before.
        after: the same since then.
        volume: whether it is the number that rose.
        lasts: it has become the new normal and is only remembered.
    """

    nats: float
    statistic: float
    onset: float
    first: float
    last: float
    at: float
    before: float
    after: float
    volume: bool = False
    lasts: bool = False


class _ScoreTest(ABC):
    """Warm-up, forgetting, holding back and taking over; subclasses say what is tested.

    Attributes:
        allowance: false alarms a week that it may give; None while nobody said.
        looked: whether the last observation filled a cell, so that evidence was weighed.

    Class attributes:
        share: of false alarms, that it may give where others may give one.
        hits: whether it counts hits.
    """

    share: ClassVar[float] = 1.0

    hits: ClassVar[bool]

    def __init__(self, params: ScoreParams, state: SlowTable, parts: Sequence[Part]) -> None:
        strata = len(state.base.n)
        if not state.onsets.fits(strata, self.hits) or {len(state.fresh.n), len(state.base.k)} != {strata}:
            raise msgspec.ValidationError("not a state of this test: arrays of other sizes")
        self.params = params
        self.state = state
        self.parts = parts
        self.allowance: float | None = None
        self.looked = False
        self.onsets = Onsets(state.onsets, parts, self.weigh)

    @abstractmethod
    def weigh(self, cell: Cell) -> Sums:
        """Residuals of a cell against the baseline and their information, for each part."""

    @abstractmethod
    def refresh(self) -> None:
        """Compute `figures` and `known` from the baseline."""

    @property
    def threshold(self) -> float:
        """Evidence from which on it alarms, nats."""
        looks = self.params.run_length / CELL_N / self.share
        if self.allowance is not None:
            looks = self.onsets.looks_per_week / self.allowance
        return log(max(looks / SLACK, LEAST_LOOKS))

    @property
    def level(self) -> Level:
        """`warming`, `ok`, `warn` or `alert`."""
        state = self.state
        if not state.ready:
            return "warming"
        if state.alarm:
            return "alert"
        return "warn" if state.change.statistic >= self.threshold - WARN_NATS and self._enough(state.change) else "ok"

    @property
    def change(self) -> Change:
        """What is suspected, or alarmed of: the evidence is that of now."""
        state = self.state
        if not state.alarm:
            return state.change
        then, part = state.alarm.change, state.alarm.change.part
        s, v = self._fresh_sums(part)
        nats = self.parts[part].log_ratio(s, v, state.known[part])
        statistic = max(0.0, then.statistic + nats - then.nats)
        return msgspec.structs.replace(then, statistic=statistic, nats=nats, s=s, v=v)

    @property
    def score(self) -> float:
        """Evidence squeezed into [0, 1): one half at the threshold."""
        statistic = max(0.0, self.change.statistic)
        return statistic / (statistic + self.threshold)

    def observe(self, ts: float, cohorts: Sequence[Cohort], rise: Rise | None = None) -> Phase:
        """Learn from what one bucket says at event time `ts` (seconds), and test it.

        Args:
            ts: event time of the bucket, seconds.
            cohorts: (stratum, leads, hits).
            rise: that scores or volume have risen lately.
        """
        if self._warming(ts):
            for stratum, n, k in cohorts:
                self.state.base.learn(stratum, k, n)
            return "warming"
        cell = self.onsets.collect(ts, cohorts)
        self.looked = cell is not None
        if cell is None:
            return "alarmed" if self.state.alarm else "quiet"
        if self.state.alarm:
            self.state.alarm.rose |= self.rose(self.state.alarm.change, rise, self.threshold + RARER_NATS)
            return self._follow(ts, cell, self.state.alarm)
        self._fade(ts)
        self.onsets.keep(cell)
        return self._look(rise)

    def since_onset(self) -> tuple[list[float], list[float]]:
        """Hits and leads per stratum since the onset of what is suspected or alarmed of."""
        state = self.state
        if state.alarm:
            return list(state.fresh.k), list(state.fresh.n)
        k, n = [0.0] * len(state.base.n), [0.0] * len(state.base.n)
        for cell in self.onsets.cells:
            if cell.ts >= state.change.onset:
                n = [a + b for a, b in zip(n, cell.n, strict=True)]
                k = [a + b for a, b in zip(k, cell.k, strict=True)] if cell.k else k
        return k, n

    def effect(self) -> tuple[float, float]:
        """Size of the change and its standard error, see `Part.size`."""
        change = self.change
        return Part.size(change.s, change.v, self.state.known[change.part])

    def gain(self) -> float:
        """Log-likelihood gained by the change over none, at the size that fits best, nats."""
        change = self.change
        return self.parts[change.part].gain(change.s, change.v, self.state.known[change.part])

    def _warming(self, ts: float) -> bool:
        state, params = self.state, self.params
        if state.ready:
            return False
        if state.first_ts is None:
            state.first_ts, state.day = ts, int(ts // DAY_S)
        state.ready = ts - state.first_ts >= params.warmup_s and state.base.sum_n >= params.warmup_n
        if state.ready:
            self._refresh_if_stale()
        return not state.ready

    def _look(self, rise: Rise | None) -> Phase:
        state = self.state
        self._refresh_if_stale()
        state.change = self.onsets.change(state.known)
        if state.change.statistic >= self.threshold and self._enough(state.change):
            self._alarm(state.change, rose=self.rose(state.change, rise, self.threshold + RARER_NATS - WARN_NATS))
            return "alarmed"
        self._learn()
        return "quiet"

    def _alarm(self, change: Change, *, rose: bool) -> None:
        """Put what came since the onset aside, and learn what came before."""
        state = self.state
        for cell in self.onsets.cells:
            add_cell(state.fresh if cell.ts >= change.onset else state.base, cell)
        self.onsets.clear()
        state.change = change
        state.alarm = Alarm(change, rose)
        self._set_back(state.alarm)

    def rose(self, change: Change, rise: Rise | None, least: float) -> bool:
        """Whether a change, together with what has risen with evidence `least` (nats), is an inflation."""
        return False

    def _learn(self) -> None:
        """Learn the oldest cells, as long as nothing says that a change began with them."""
        state, held = self.state, sum(sum(cell.n) for cell in self.onsets.cells)
        while held - (oldest := sum(self.onsets.cells[0].n)) >= HELD_N and not self._suspects_oldest():
            add_cell(state.base, self.onsets.pop())
            held -= oldest

    def _suspects_oldest(self) -> bool:
        known = self.state.known
        return any(part.weight and self.onsets.oldest(i, known[i]) > 0.0 for i, part in enumerate(self.parts))

    def _follow(self, ts: float, cell: Cell, alarm: Alarm) -> Phase:
        """While alarmed: has the old level returned, or lasted the new one long enough?"""
        state, params = self.state, self.params
        part = alarm.change.part
        s, v = self.weigh(cell)[part]
        alarm.back = max(0.0, alarm.back - alarm.effect * s + 0.5 * alarm.effect**2 * v)
        add_cell(state.fresh, cell)
        if alarm.back:
            self.onsets.keep(cell)  # since the old level seems to be back, data are such as any
        else:
            self.onsets.clear()
        if alarm.back >= params.recover_at:
            self._end()
            return "recovered"
        if ts - alarm.change.onset >= params.accept_after_s and state.fresh.sum_n >= params.warmup_n:
            state.base, state.fresh, state.at_n = state.fresh, RateTable.sized(len(state.base.n)), -1.0
            self.onsets.clear()
            self._end()
            self._refresh_if_stale()
            return "accepted"
        return "alarmed"

    def _end(self) -> None:
        state = self.state
        state.fresh.clear()
        state.alarm, state.change = None, Change()
        state.day = max(state.day, int(state.onsets.ts // DAY_S))

    def _set_back(self, alarm: Alarm) -> None:
        part, known = self.parts[alarm.change.part], self.state.known[alarm.change.part]
        size, error = Part.size(alarm.change.s, alarm.change.v, known)
        size *= part.sd**2 / (part.sd**2 + error**2)  # alarms come when a change looks larger than it is
        alarm.effect = max(BACK_SHARE * abs(size), 0.5 * part.sd) * (1.0 if size > 0.0 else -1.0)

    def _fresh_sums(self, part: int) -> tuple[float, float]:
        fresh = self.state.fresh
        return self._weigh_counts(fresh.n, fresh.k)[part]

    @abstractmethod
    def _weigh_counts(self, n: Sequence[float], k: Sequence[float]) -> Sums:
        """As `weigh`, for counts."""

    def _enough(self, change: Change) -> bool:
        n = sum(sum(cell.n) for cell in self.onsets.cells if cell.ts >= change.onset)
        return n >= self.params.min_n

    def _fade(self, ts: float) -> None:
        state = self.state
        day = int(ts // DAY_S)
        if day > state.day:
            fade_over(state.base, day - state.day, self.params.memory_s / DAY_S)
            state.day = day

    def _refresh_if_stale(self) -> None:
        state = self.state
        if not state.at_n / REFRESH_GROWTH <= state.base.sum_n <= state.at_n * REFRESH_GROWTH:
            state.at_n = state.base.sum_n
            self.refresh()
            self.onsets.reweigh()


class ScoreDistribution(_ScoreTest):
    """Whether scores are still distributed as they were, whatever the change of shape.

    Neyman's smooth test (1937) made sequential: a score is turned into its rank under the learnt histogram, and four
    orthonormal polynomials of the rank are each watched for a mean other than 0: location, spread, skewness, tails.
    Weekends have a histogram of their own, shrunk towards that of all days, because other people come then.

    Args:
        params: warm-up, memory and false alarms.
        state: taken up and changed in place; it has a stratum for each bin on working days, then one on weekends (UTC).

    Raises:
        msgspec.ValidationError: the state is none of this test.
    """

    share = RARER  # who comes is known at once, and a shift is told soon however sure one wants to be
    hits = False

    def __init__(self, params: ScoreParams, state: SlowTable) -> None:
        weights = (0.4, 0.2, 0.2, 0.2)  # location first: that is what re-tuned models and new sources move
        parts = [Part(0, SHIFT_SD, weight) for weight in weights]
        super().__init__(params, state, (*parts, Part(1, SHIFT_SD, 0.0)))

    def weigh(self, cell: Cell) -> Sums:
        """Components of the ranks, whose variance is 1 each."""
        return self._weigh_counts(cell.n, cell.k)

    def refresh(self) -> None:
        """`figures`: the components of each stratum; information is the number of leads."""
        state = self.state
        by_day = [components(shares) for shares in self._histograms()]
        state.figures = [working + weekend for working, weekend in zip(*by_day, strict=True)]
        state.known = [state.base.sum_n] * len(self.parts)

    def test(self, ts: float, scores: Sequence[Cohort]) -> Phase:
        """Learn from the scores of one bucket, (bin, leads, 0) each, at event time `ts` (seconds), and test them."""
        if is_weekend(ts):
            bins = len(self.state.base.n) // 2
            scores = [(b + bins, n, k) for b, n, k in scores]
        return self.observe(ts, scores)

    def rise(self) -> Rise | None:
        """Whether scores have risen, if evidence says so."""
        state = self.state
        change = self._rising()
        if change.nats < NAMED_NATS:
            return None
        before, after = self.means(change.onset)
        when = (change.onset, change.first, change.last, state.onsets.ts)
        return Rise(change.nats, change.statistic, *when, before, after)

    def _rising(self) -> Change:
        state = self.state
        if not state.alarm:
            return self.onsets.change(state.known, RISE)
        s, v = self._fresh_sums(RISE)
        nats, then = self.parts[RISE].log_ratio(s, v, state.known[RISE]), state.alarm.change
        return msgspec.structs.replace(then, nats=nats, statistic=nats + then.statistic - then.nats)

    def counts(self, onset: float | None = None) -> tuple[list[float], list[float]]:
        """Leads per bin since an onset (None: the one suspected), and as many as the baseline would have them."""
        if onset is None or self.state.alarm:
            _, now = self.since_onset()
        else:
            cells = [cell for cell in self.onsets.cells if cell.ts >= onset]
            now = [float(sum(cell.n[b] for cell in cells)) for b in range(len(self.state.base.n))]
        bins = len(now) // 2
        totals = sum(now[:bins]), sum(now[bins:])
        expected = [sum(n * share for n, share in zip(totals, shares, strict=True))
                    for shares in zip(*self._histograms(), strict=True)]  # fmt: skip
        return expected, [a + b for a, b in zip(now[:bins], now[bins:], strict=True)]

    def psi(self) -> float:
        """Population stability index of the scores since the onset against the baseline (0.1 small, 0.25 large)."""
        expected, now = self.counts()
        return sum((a - b) * log(a / b) for a, b in zip(_shares(now), _shares(expected), strict=True))

    def means(self, onset: float | None = None) -> tuple[float, float]:
        """Mean score under the baseline and since an onset, fractions of the scale."""
        expected, now = self.counts(onset)
        return _mean(expected), _mean(now)

    def _histograms(self) -> tuple[list[float], list[float]]:
        """Shares of the bins on working days, and on weekends."""
        n = self.state.base.n
        bins = len(n) // 2
        overall = _shares([a + b for a, b in zip(n[:bins], n[bins:], strict=True)])
        working, weekend = ([leads + WEEKEND_PRIOR * share for leads, share in zip(part, overall, strict=True)]
                            for part in (n[:bins], n[bins:]))  # fmt: skip
        return _shares(working, 0.0), _shares(weekend, 0.0)

    def _weigh_counts(self, n: Sequence[float], k: Sequence[float]) -> Sums:
        total = float(sum(n))
        used = [(b, value) for b, value in enumerate(n) if value]
        sums = [(sum([value * row[b] for b, value in used]), total) for row in self.state.figures]
        return (*sums, sums[0])


class Calibration(_ScoreTest):
    """Whether leads at a given score still do as well as that score used to promise.

    The promise is the learnt rate per score bin, shrunk to the overall rate and made isotonic (pool adjacent violators,
    Ayer et al. 1955; Zadrozny & Elkan 2002). Residuals are hits against the promise of each lead's own bin; a change is
    a fall of the log odds, the same at all scores.

    Args:
        params: warm-up, memory, false alarms and typical fall.
        state: taken up and changed in place.

    Raises:
        msgspec.ValidationError: the state is none of this test.
    """

    hits = True

    def __init__(self, params: ScoreParams, state: SlowTable) -> None:
        sd = -log(params.odds_ratio)
        super().__init__(params, state, (Part(-1, sd), Part(-1, sd, 0.0)))

    def weigh(self, cell: Cell) -> Sums:
        """Hits beyond the promise, and beyond the overall rate."""
        return self._weigh_counts(cell.n, cell.k)

    def refresh(self) -> None:
        """`figures`: the promise of each bin, and the overall rate."""
        base = self.state.base
        level = base.level
        weights = [n + CURVE_PRIOR for n in base.n]
        raw = [(k + CURVE_PRIOR * level) / weight for k, weight in zip(base.k, weights, strict=True)]
        curve = isotonic(raw, weights)
        self.state.figures = [curve, [level]]
        known = sum(n * p * (1.0 - p) for n, p in zip(base.n, curve, strict=True))
        self.state.known = [known + PRIOR, base.sum_n * level * (1.0 - level) + PRIOR]

    def promised(self, n: Sequence[float]) -> float:
        """Hits that the baseline promises of leads, counted per bin."""
        return sum(leads * rate for leads, rate in zip(n, self.state.figures[0], strict=True))

    def rose(self, change: Change, rise: Rise | None, least: float) -> bool:
        """Whether scores or volume rose at about the time that acceptance or conversion fell."""
        if rise is None or rise.statistic < least:
            return False
        return change.first - TOGETHER_S <= rise.onset <= change.last + TOGETHER_S

    def _look(self, rise: Rise | None) -> Phase:
        phase = super()._look(rise)
        if phase == "quiet" and rise is not None and (joint := self._joint(rise)) is not None:
            self._alarm(joint, rose=True)
            return "alarmed"
        return phase

    def _joint(self, rise: Rise) -> Change | None:
        """A fall that began with or after a rise, if both together are enough.

        The two are independent while nothing changes, so the product of the e-detector of the rise and the likelihood
        ratio of a fall at its onset is an e-detector again.
        """
        known = self.state.known
        best: Change | None = None
        for part in (AT_SCORE, OVERALL):
            s, v = self.onsets.since(rise.onset, part)
            nats = self.parts[part].log_ratio(s, v, known[part]) - log(2.0)
            if nats >= NAMED_NATS and (best is None or nats > best.nats):
                best = Change(rise.statistic + nats, part, rise.onset, rise.first, rise.last, nats, s, v)
        return best if best and best.statistic >= self.threshold + RARER_NATS and self._enough(best) else None

    def _enough(self, change: Change) -> bool:
        return super()._enough(change) and abs(change.s) >= self.params.min_cases

    def _weigh_counts(self, n: Sequence[float], k: Sequence[float]) -> Sums:
        curve, (level,) = self.state.figures
        used = [(leads, hits, rate) for leads, hits, rate in zip(n, k, curve, strict=True) if leads]
        at_score = sum([hits - leads * rate for leads, hits, rate in used])
        information = sum([leads * rate * (1.0 - rate) for leads, _, rate in used])
        total = float(sum(n))
        return (at_score, information), (sum(k) - total * level, total * level * (1.0 - level))


def components(shares: Sequence[float]) -> list[list[float]]:
    """Orthonormal polynomials of degree 1 to 4 of the rank under a histogram, as values per bin.

    Args:
        shares: of the histogram, all above 0; they sum up to 1.
    """
    ranks, below = list[float](), 0.0
    for share in shares:
        ranks.append(2.0 * below + share - 1.0)
        below += share
    found: list[list[float]] = [[1.0] * len(shares)]
    for degree in range(1, COMPONENTS + 1):
        row = [rank**degree for rank in ranks]
        for known in found:
            overlap = sum(share * a * b for share, a, b in zip(shares, row, known, strict=True))
            row = [a - overlap * b for a, b in zip(row, known, strict=True)]
        norm = sqrt(sum(share * a * a for share, a in zip(shares, row, strict=True)))
        found.append([a / norm for a in row] if norm > 1e-4 else [0.0] * len(shares))
    return found[1:]


def isotonic(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Closest non-descending sequence in weighted least squares (pool adjacent violators).

    Example:
        >>> isotonic([0.1, 0.4, 0.2, 0.5], [1, 1, 1, 1])
        [0.1, 0.30000000000000004, 0.30000000000000004, 0.5]
    """
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights, strict=True):
        mean, mass, width = value, weight, 1
        while blocks and blocks[-1][0] > mean:
            other, other_mass, other_width = blocks.pop()
            mean = (mean * mass + other * other_mass) / (mass + other_mass)
            mass, width = mass + other_mass, width + other_width
        blocks.append((mean, mass, width))
    return [mean for mean, _, width in blocks for _ in range(width)]


def is_weekend(ts: float) -> bool:
    """Whether event time `ts` (seconds since the epoch, a Thursday) is on a Saturday or Sunday, UTC.

    >>> is_weekend(0.0), is_weekend(2 * DAY_S)
    (False, True)
    """
    return int(ts // DAY_S + 3) % WEEKDAYS >= 5


def add_cell(table: RateTable, cell: Cell) -> None:
    """Add the counts of a cell to a table."""
    for b, n in enumerate(cell.n):
        if n:
            table.learn(b, cell.k[b] if cell.k else 0, n)


def _shares(counts: Sequence[float], prior: float = PRIOR) -> list[float]:
    total = sum(counts) + prior * len(counts) or 1.0
    return [(value + prior) / total for value in counts]


def _mean(counts: Sequence[float]) -> float:
    shares = _shares(counts, 0.0)
    return sum((b + 0.5) * share for b, share in enumerate(shares)) / len(shares)

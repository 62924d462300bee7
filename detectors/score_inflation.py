"""Score inflation: more leads are called good, or leads better, and fewer of them are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final

import msgspec
from pydantic import Field

from detectors._base import OK, WARMING, AlertOn, Bucket, Detector, Verdict
from detectors._baseline import DAY_S
from detectors._intervals import Z95, wilson
from detectors._onsets import Cohort
from detectors._score_trace import trace_of_outcomes
from detectors._scores import Calibration, Rise, ScoreDistribution, ScoreParams, SlowTable
from detectors._slow import share_error
from detectors._stages import LEADS
from detectors._volume import Volume, VolumeState, risen

MOST_BINS: Final = 50
ACCEPTANCE, CONVERSION = "acceptance", "conversion"
SCORED: Final = tuple([f"score_{b}" for b in range(MOST_BINS)])


class LeadOutcomes(msgspec.Struct, frozen=True, gc=False):
    """What one bucket says of leads.

    Attributes:
        ts: start of the bucket, event time, seconds since the epoch, UTC.
        scored: (score bin, leads scored, 0).
        qualified: leads handed over to sales.
        accepted: (leads, accepted) of cohorts that reached the acceptance horizon, at all scores and without one.
        won: (leads, won) of cohorts that reached the conversion horizon, likewise.
    """

    ts: float
    scored: tuple[Cohort, ...]
    qualified: int
    accepted: tuple[int, int]
    won: tuple[int, int]


class ScoreInflationParams(ScoreParams):
    """Parameters of `ScoreInflation`."""

    bins: Annotated[int, Field(ge=4, le=MOST_BINS)] = Field(20, description="bins of the score histogram")
    acceptance_lag_s: float = Field(0.0, ge=0, description="event time from hand-over until acceptance is counted,"
                                    " seconds; onsets are told in time of hand-over")  # fmt: skip
    conversion_lag_s: float = Field(0.0, ge=0, description="the same for wins, seconds")


class ScoreInflationState(msgspec.Struct, array_like=True):
    """State of `ScoreInflation`.

    Attributes:
        scores: of the test of the scores.
        acceptance: of the test of acceptance, all leads together.
        conversion: of the test of wins, all leads together.
        volume: of the number of qualified leads.
        rises: that scores, and that volume, have risen lately.
    """

    scores: SlowTable
    acceptance: SlowTable
    conversion: SlowTable
    volume: VolumeState
    rises: tuple[Rise | None, Rise | None] = (None, None)

    @classmethod
    def of(cls, bins: int) -> ScoreInflationState:
        """Return the state at the start."""
        return cls(SlowTable.of(2 * bins, hits=False), SlowTable.of(1, hits=True), SlowTable.of(1, hits=True),
                   VolumeState.of())  # fmt: skip


class _Fall(Calibration):
    """A fall that has to be seen by itself.

    A rise is nothing bad, and a season is one without doubt: weighed together with it, the least fall by chance would
    be enough.
    """

    def _joint(self, rise: Rise) -> None:
        return None


class ScoreInflation(Detector[LeadOutcomes, ScoreInflationParams]):
    """More leads are handed over, or their scores rise, while the share that sales accepts, or that is won, falls.

    The definition of the business: all leads together, whatever their score. `lead_score_drift` asks whether a score
    still promises what it did, at equal score; a model that is re-tuned until the volume looks right may keep that
    promise bin by bin and still fill the pipeline with leads that nobody wants. Either half alone says nothing here:
    a season brings more leads, and a fall of acceptance alone has other causes. Each half has to be seen by itself.

    `kind` is the outcome that fell, `acceptance` or `conversion`; before and after are its rate.

    Evidence: `mean_score_before` and `_after` (fractions of the scale), `leads_a_day_before` and `_after`, and what
    came of them, `accepted_a_day_before` and `_after` (`won_a_day_…`): fewer accepted leads out of more qualified ones,
    in leads. `risen_scores` and `risen_volume` say which of the two has risen for certain; `lost` is how many fewer
    leads were accepted than of as many before.
    """

    title = "Score inflation"
    unit = "ratio"
    state_version = 1
    alert = AlertOn(severity="ticket")
    Params = ScoreInflationParams
    State = ScoreInflationState
    stage: ClassVar[str] = LEADS

    def __init__(self, params: ScoreInflationParams) -> None:
        """Start with nothing learnt."""
        self.params = params
        self._last: LeadOutcomes | None = None
        self._take(ScoreInflationState.of(params.bins))

    @classmethod
    def look(cls, bucket: Bucket, params: ScoreInflationParams) -> LeadOutcomes | None:
        """Scores, hand-overs and cohorts of the bucket; None for other stages and where there are none."""
        if bucket.stage != cls.stage:
            return None
        counts = bucket.counts
        scored = tuple([(b, n, 0) for b in range(params.bins) if (n := counts.get(SCORED[b], 0))])
        accepted, won = _together(counts, "accept", params.bins), _together(counts, "win", params.bins)
        qualified = counts.get("handed_over", 0)
        if scored or qualified or accepted[0] or won[0]:
            return LeadOutcomes(bucket.ts, scored, qualified, accepted, won)
        return None

    def observe(self, x: LeadOutcomes) -> Verdict:
        """Learn from scores, volume and outcomes and judge them together."""
        self._last = x
        self._rise(x)
        rise = max((rise for rise in self.state.rises if rise), key=lambda rise: rise.statistic, default=None)
        for test, (n, k), lag_s in (
            (self._acceptance, x.accepted, self.params.acceptance_lag_s),
            (self._conversion, x.won, self.params.conversion_lag_s),
        ):
            if n:
                test.observe(x.ts - lag_s, ((0, n, k),), rise)
        return self._speak()

    def allow(self, false_pages_per_week: float) -> None:
        """Share the budget among both outcomes; what the scores do is no alarm here."""
        super().allow(false_pages_per_week)
        for test in (self._acceptance, self._conversion):
            test.allowance = false_pages_per_week / 2.0
        self._scores.allowance = false_pages_per_week

    def trace(self) -> Mapping[str, float]:
        """What each outcome was, was promised and weighed; see `Detector.trace`."""
        last = self._last
        cohorts = {ACCEPTANCE: last.accepted if last else (0, 0), CONVERSION: last.won if last else (0, 0)}
        views = {
            kind: trace_of_outcomes(test, [(0, *cohorts[kind])] if cohorts[kind][0] else [])
            for kind, test in ((ACCEPTANCE, self._acceptance), (CONVERSION, self._conversion))
        }
        numbers = {f"{view}.{name}": value for view, own in views.items() for name, value in own.items()}
        return numbers | views[self._speaker()[0]]

    def restore(self, blob: bytes) -> None:
        """Take up a state written by `snapshot`.

        Raises:
            msgspec.DecodeError: the bytes are no state of this detector.
        """
        state = msgspec.msgpack.decode(blob, type=ScoreInflationState)
        strata = len(state.scores.base.n), len(state.acceptance.base.n), len(state.conversion.base.n)
        if strata != (2 * self.params.bins, 1, 1):
            raise msgspec.ValidationError("a state of another number of score bins")
        self._take(state)
        if self.allowance is not None:
            self.allow(self.allowance)

    def _take(self, state: ScoreInflationState) -> None:
        self.state = state
        self._last = None
        self._scores = ScoreDistribution(self.params, state.scores)
        self._acceptance = _Fall(self.params, state.acceptance)  # of one bin: all scores together
        self._conversion = _Fall(self.params, state.conversion)
        self._volume = Volume(self.params, state.volume)

    def _rise(self, x: LeadOutcomes) -> None:
        """Test scores and volume, and note what has risen."""
        seen = (self._scores, x.scored), (self._volume, x.qualified)
        self.state.rises = risen(self.state.rises, x.ts, *seen)

    def _speaker(self) -> tuple[str, Calibration]:
        """The outcome that is told: one that fell beside a rise, acceptance first."""
        pairs = ((ACCEPTANCE, self._acceptance), (CONVERSION, self._conversion))
        return next((pair for pair in pairs if _inflated(pair[1])), pairs[0])

    def _speak(self) -> Verdict:
        kind, test = self._speaker()
        if not _inflated(test):
            levels = {self._acceptance.level, self._conversion.level}
            return WARMING if levels == {"warming"} else OK
        change = test.change
        (observed,), (leads,) = (list(map(float, part)) for part in test.since_onset())
        before, after = test.state.figures[1][0], observed / leads
        low, high = wilson(observed, leads)
        error = Z95 * share_error(before, test.state.base.sum_n + 1.0)
        lag_s = self.params.acceptance_lag_s if kind == ACCEPTANCE else self.params.conversion_lag_s
        evidence = {
            "expected": before * leads, "observed": observed, "lost": before * leads - observed,
            "before_low": before - error, "before_high": before + error, "effect_low": low, "effect_high": high,
            **self._risen(change.onset, "accepted" if kind == ACCEPTANCE else "won", before, after),
            "statistic": change.statistic, "threshold": test.threshold, "lag_s": lag_s,
        }  # fmt: skip
        return Verdict(
            level="alert", score=test.score, onset=change.onset, onset_from=change.first, onset_to=change.last,
            before=before, after=after, n_before=round(test.state.base.sum_n), n_after=round(leads), kind=kind,
            evidence=evidence, gain=test.gain(),
        )  # fmt: skip

    def _risen(self, onset: float, outcome: str, before: float, after: float) -> dict[str, float]:
        """Scores and leads a day before and since the onset, and how many of them came to something."""
        scores, volume = self.state.rises
        old, new = (scores.before, scores.after) if scores else self._scores.means(onset)
        leads_old, leads_new = (volume.before, volume.after) if volume else _leads_a_day(self._volume, onset)
        return {
            "risen_scores": float(scores is not None), "risen_volume": float(volume is not None),
            "mean_score_before": old, "mean_score_after": new or old,
            "leads_a_day_before": leads_old, "leads_a_day_after": leads_new,
            f"{outcome}_a_day_before": leads_old * before, f"{outcome}_a_day_after": leads_new * after,
        }  # fmt: skip


def _together(counts: Mapping[str, int], outcome: str, bins: int) -> tuple[int, int]:
    """(leads, hits) at all scores and without one."""
    get = counts.get
    fields = FIELDS[outcome][: bins + 1]
    n = sum([get(trials, 0) for trials, _ in fields])
    return (n, sum([get(hits, 0) for _, hits in fields])) if n else (0, 0)


FIELDS: Final = {
    outcome: ((f"{outcome}_n", f"{outcome}_k"), *[(f"{outcome}_n_{b}", f"{outcome}_k_{b}") for b in range(MOST_BINS)])
    for outcome in ("accept", "win")
}


def _inflated(test: Calibration) -> bool:
    return test.state.alarm is not None and test.state.alarm.rose


def _leads_a_day(volume: Volume, onset: float) -> tuple[float, float]:
    """Leads a day that the baseline expects of the days since an onset, and that came."""
    cells = [cell for cell in volume.onsets.cells if cell.ts >= onset // DAY_S * DAY_S]
    means, days = volume.state.means, sum([sum(cell.n) for cell in cells])
    if not days:
        usual = sum(means) / len(means)
        return usual, usual
    expected = sum([n * mean for cell in cells for n, mean in zip(cell.n, means, strict=True)])
    return expected / days, sum([sum(cell.k) for cell in cells]) / days

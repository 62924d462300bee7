"""Lead-score drift: a score no longer means what it meant."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Annotated, ClassVar, Final

import msgspec
from pydantic import Field

from detectors._base import WARMING, AlertOn, Bucket, Detector, Verdict
from detectors._intervals import Z95, wilson
from detectors._onsets import Cohort
from detectors._score_trace import mean_error, trace_of_outcomes, trace_of_scores
from detectors._scores import (
    OVERALL,
    RARER,
    Calibration,
    Rise,
    ScoreDistribution,
    ScoreParams,
    SlowTable,
)
from detectors._volume import Volume, VolumeState, risen

MAX_BINS: Final = 50
BANDS: Final = 4
DISTRIBUTION, ACCEPTANCE, CONVERSION, INFLATION = (
    "distribution", "calibration_acceptance", "calibration_conversion", "inflation",
)  # fmt: skip
GRAVITY: Final = {DISTRIBUTION: 0, CONVERSION: 1, ACCEPTANCE: 2, INFLATION: 3}
"""Which kind speaks where several alert: what has been lost before what may be lost."""
RANK: Final = {"warming": 0, "ok": 1, "warn": 2, "alert": 3}


class LeadScores(msgspec.Struct, frozen=True, gc=False):
    """What one bucket says of scored leads.

    Attributes:
        ts: start of the bucket, event time, seconds since the epoch, UTC.
        scored: (score bin, leads scored, 0).
        accepted: (score bin, leads, accepted) of cohorts that reached the acceptance horizon.
        won: (score bin, leads, won) of cohorts that reached the conversion horizon.
        qualified: leads handed over to sales.
    """

    ts: float
    scored: tuple[Cohort, ...]
    accepted: tuple[Cohort, ...]
    won: tuple[Cohort, ...]
    qualified: int = 0


class LeadScoreDriftParams(ScoreParams):
    """Parameters of `LeadScoreDrift`."""

    bins: Annotated[int, Field(ge=4, le=MAX_BINS)] = Field(20, description="bins of the score histogram")
    acceptance_lag_s: float = Field(0.0, ge=0, description="event time from hand-over until acceptance is counted,"
                                    " seconds; onsets are told in time of hand-over")  # fmt: skip
    conversion_lag_s: float = Field(0.0, ge=0, description="the same for wins, seconds")


class LeadScoreState(msgspec.Struct, array_like=True):
    """State of `LeadScoreDrift`.

    Attributes:
        distribution: of the test of the scores.
        acceptance: of the test of acceptance.
        conversion: of the test of wins.
        volume: of the number of qualified leads.
        rises: that scores, and that volume, have risen lately.
    """

    distribution: SlowTable
    acceptance: SlowTable
    conversion: SlowTable
    volume: VolumeState
    rises: tuple[Rise | None, Rise | None] = (None, None)

    @classmethod
    def of(cls, bins: int) -> LeadScoreState:
        """Return the state at the start."""
        acceptance, conversion = SlowTable.of(bins, hits=True), SlowTable.of(bins, hits=True)
        return cls(SlowTable.of(2 * bins, hits=False), acceptance, conversion, VolumeState.of())


class LeadScoreDrift(Detector[LeadScores, LeadScoreDriftParams]):
    """The distribution of scores moves, acceptance or conversion at a given score falls, or scores are inflated.

    Kinds, by gravity:

    - `inflation`: scores, or the number of qualified leads, rise while acceptance or conversion falls, at equal score
      or overall. Before and after are acceptance (conversion) as the baseline promised it and as observed.
    - `calibration_acceptance`, `calibration_conversion`: the same fall at equal score, while nothing rises.
    - `distribution`: before and after are mean scores, fractions of the scale; either way is for the worse, because
      thresholds were set on the old scores.

    One verdict speaks for all: the kind that alerted goes on speaking until it is over, unless a graver one alerts.
    """

    title = "Lead-score drift"
    unit = "ratio"
    state_version = 2
    alert = AlertOn(severity="ticket")
    Params = LeadScoreDriftParams
    State = LeadScoreState
    stage: ClassVar[str] = "leads"

    def __init__(self, params: LeadScoreDriftParams) -> None:
        """Start with nothing learnt."""
        self.params = params
        self._last: LeadScores | None = None
        self._take(LeadScoreState.of(params.bins))

    @classmethod
    def look(cls, bucket: Bucket, params: LeadScoreDriftParams) -> LeadScores | None:
        """Scores and cohorts of the bucket; None for other stages and where there are none."""
        if bucket.stage != cls.stage:
            return None
        counts = bucket.counts
        scored = tuple((b, n, 0) for b in range(params.bins) if (n := counts.get(SCORED[b], 0)))
        accepted, won = _cohorts(counts, ACCEPT, params.bins), _cohorts(counts, WIN, params.bins)
        qualified = counts.get("handed_over", 0)
        if scored or accepted or won or qualified:
            return LeadScores(bucket.ts, scored, accepted, won, qualified)
        return None

    def observe(self, x: LeadScores) -> Verdict:
        """Learn from scores and outcomes and judge what scores mean."""
        self._last = x
        self._rise(x)
        rise = max((rise for rise in self.state.rises if rise), key=lambda rise: rise.statistic, default=None)
        if x.accepted:
            self._acceptance.observe(x.ts - self.params.acceptance_lag_s, x.accepted, rise)
        if x.won:
            self._conversion.observe(x.ts - self.params.conversion_lag_s, x.won, rise)
        return self._speak()

    def allow(self, false_pages_per_week: float) -> None:
        """Share the budget among the tests."""
        super().allow(false_pages_per_week)
        tests = (self._distribution, self._acceptance, self._conversion)
        shares = sum(test.share for test in tests) + 2 * RARER  # two falls beside a rise
        for test in tests:
            test.allowance = false_pages_per_week * test.share / shares

    def trace(self) -> Mapping[str, float]:
        """What each test saw, promised and weighed, by kind; see `Detector.trace`.

        Observed of late is what waits to be learnt, some hundred leads, or what came since the onset while it alarms;
        expected is what the baseline promises of these same leads. An inflation shows the fall that it is about.
        """
        views = {
            DISTRIBUTION: trace_of_scores(self._distribution, self._last.scored if self._last else ()),
            ACCEPTANCE: trace_of_outcomes(self._acceptance, self._last.accepted if self._last else ()),
            CONVERSION: trace_of_outcomes(self._conversion, self._last.won if self._last else ()),
        }
        spoken, test = self._speaker()
        if spoken == INFLATION:
            views[INFLATION] = views[ACCEPTANCE if test is self._acceptance else CONVERSION]
        numbers = {f"{view}.{name}": value for view, own in views.items() for name, value in own.items()}
        return numbers | views[spoken]

    def restore(self, blob: bytes) -> None:
        """Take up a state written by `snapshot`.

        Raises:
            msgspec.DecodeError: the bytes are no state of this detector.
        """
        state = msgspec.msgpack.decode(blob, type=LeadScoreState)
        strata = len(state.distribution.base.n), len(state.acceptance.base.n), len(state.conversion.base.n)
        if strata != (2 * self.params.bins, self.params.bins, self.params.bins):
            raise msgspec.ValidationError("a state of another number of score bins")
        self._take(state)
        if self.allowance is not None:
            self.allow(self.allowance)

    def _take(self, state: LeadScoreState) -> None:
        self.state = state
        self._last = None
        self._distribution = ScoreDistribution(self.params, state.distribution)
        self._acceptance = Calibration(self.params, state.acceptance)
        self._conversion = Calibration(self.params, state.conversion)
        self._volume = Volume(self.params, state.volume)

    # ── what rises ────────────────────────────────────────────────────────────────────────────────────────────────

    def _rise(self, x: LeadScores) -> None:
        """Test scores and volume, and note what has risen."""
        seen = (self._distribution, x.scored), (self._volume, x.qualified)
        self.state.rises = risen(self.state.rises, x.ts, *seen)

    # ── what is said ──────────────────────────────────────────────────────────────────────────────────────────────

    def _speaker(self) -> tuple[str, ScoreDistribution | Calibration]:
        """The kind that is told, and its test."""
        tests: list[tuple[str, ScoreDistribution | Calibration]] = [
            (_kind(self._acceptance, ACCEPTANCE), self._acceptance),
            (_kind(self._conversion, CONVERSION), self._conversion),
            (DISTRIBUTION, self._distribution),
        ]
        alerting = [each for each in tests if each[1].level == "alert"]
        if alerting:
            return max(alerting, key=lambda each: GRAVITY[each[0]])
        return max(tests, key=lambda each: (RANK[each[1].level], each[1].score))

    def _speak(self) -> Verdict:
        kind, test = self._speaker()
        level = test.level
        if level in ("warming", "ok"):
            return WARMING if level == "warming" else Verdict("ok", test.score)
        if isinstance(test, ScoreDistribution):
            return self._of_distribution(test)
        return self._of_calibration(test, kind)

    def _of_distribution(self, test: ScoreDistribution) -> Verdict:
        expected, now = test.counts()
        before, after = test.means()
        band, share_before, share_after = _moved(expected, now)
        evidence = {
            "psi": test.psi(), "mean_score_before": before, "mean_score_after": after, "shift": after - before,
            "band_from": band / BANDS, "band_to": (band + 1) / BANDS,
            "band_share_before": share_before, "band_share_after": share_after,
            **_around("before", before, mean_error(expected, test.state.base.sum_n)),
            **_around("effect", after, mean_error(now, sum(now))),
        }  # fmt: skip
        return self._verdict(test, DISTRIBUTION, before, after, sum(now), evidence, 0.0)

    def _of_calibration(self, test: Calibration, kind: str) -> Verdict:
        k, n = test.since_onset()
        leads, observed = sum(n), sum(k)
        overall = test.change.part == OVERALL
        level = test.state.figures[1][0]
        expected = leads * level if overall else test.promised(n)
        low, high = wilson(observed, leads)
        evidence = {
            "expected": expected, "observed": observed, "lost": expected - observed,
            **_band(test, k, n), "effect_low": low, "effect_high": high,
            **_around("before", expected / leads, sqrt(level * (1.0 - level) / (test.state.base.sum_n + 1.0))),
        }  # fmt: skip
        if kind == INFLATION:
            evidence |= self._risen()
        lag_s = self.params.acceptance_lag_s if test is self._acceptance else self.params.conversion_lag_s
        return self._verdict(test, kind, expected / leads, observed / leads, leads, evidence, lag_s)

    def _risen(self) -> dict[str, float]:
        scores, volume = self.state.rises
        found = {"mean_score_before": scores.before, "mean_score_after": scores.after} if scores else {}
        return found | ({"leads_a_day_before": volume.before, "leads_a_day_after": volume.after} if volume else {})

    def _verdict(
        self, test: ScoreDistribution | Calibration, kind: str, before: float, after: float, n: float,
        evidence: dict[str, float], lag_s: float,
    ) -> Verdict:  # fmt: skip
        change = test.change
        return Verdict(
            level=test.level, score=test.score, onset=change.onset, before=before, after=after,
            n_before=round(test.state.base.sum_n), n_after=round(n), kind=kind,
            evidence={**evidence, "statistic": change.statistic, "threshold": test.threshold, "lag_s": lag_s},
            onset_from=change.first, onset_to=change.last, gain=test.gain(),
        )  # fmt: skip


SCORED: Final = tuple(f"score_{b}" for b in range(MAX_BINS))
ACCEPT: Final = tuple((f"accept_n_{b}", f"accept_k_{b}") for b in range(MAX_BINS))
WIN: Final = tuple((f"win_n_{b}", f"win_k_{b}") for b in range(MAX_BINS))


def _cohorts(counts: Mapping[str, int], fields: tuple[tuple[str, str], ...], bins: int) -> tuple[Cohort, ...]:
    get = counts.get
    return tuple((b, n, get(fields[b][1], 0)) for b in range(bins) if (n := get(fields[b][0], 0)))


def _kind(test: Calibration, kind: str) -> str:
    return INFLATION if test.state.alarm and test.state.alarm.rose else kind


def _bands(values: list[float]) -> list[float]:
    """Sums over equal parts of the score scale."""
    sums = [0.0] * BANDS
    for b, value in enumerate(values):
        sums[b * BANDS // len(values)] += value
    return sums


def _band(test: Calibration, k: list[float], n: list[float]) -> dict[str, float]:
    """The part of the score scale that lost most, with its rate before and after."""
    curve = test.state.figures[0]
    promised = _bands([leads * rate for leads, rate in zip(n, curve, strict=True)])
    leads, hits = _bands(n), _bands(k)
    band = max(range(BANDS), key=lambda b: promised[b] - hits[b])
    return {
        "band_from": band / BANDS,
        "band_to": (band + 1) / BANDS,
        "band_before": promised[band] / max(leads[band], 1.0),
        "band_after": hits[band] / max(leads[band], 1.0),
        "band_n": leads[band],
        "band_lost": promised[band] - hits[band],
    }


def _moved(before: list[float], after: list[float]) -> tuple[int, float, float]:
    """The part of the score scale whose share of leads changed most; its shares before and after."""
    old, new = _bands(before), _bands(after)
    shares = [(a / (sum(old) or 1.0), b / (sum(new) or 1.0)) for a, b in zip(old, new, strict=True)]
    band = max(range(BANDS), key=lambda b: abs(shares[b][1] - shares[b][0]))
    return (band, *shares[band])


def _around(name: str, value: float, error: float) -> dict[str, float]:
    return {f"{name}_low": value - Z95 * error, f"{name}_high": value + Z95 * error}

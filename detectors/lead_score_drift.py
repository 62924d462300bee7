"""Lead-score drift: a score no longer means what it meant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final

import msgspec
from pydantic import Field

from detectors._base import OK, WARMING, AlertOn, Bucket, Detector, Verdict
from detectors._baseline import DAY_S
from detectors._scores import Calibration, Cohort, ScoreDistribution, SlowTable
from detectors._sequential import NoLess, Positive, SequentialParams

MAX_BINS: Final = 50
BANDS: Final = 4
RANK: Final = {"warming": 0, "ok": 1, "warn": 2, "alert": 3}
OddsRatio = Annotated[float, Field(gt=0, lt=1)]


class LeadScores(msgspec.Struct, frozen=True, gc=False):
    """What one bucket says of scored leads.

    Attributes:
        ts: start of the bucket, event time, seconds since the epoch, UTC.
        scored: (score bin, leads scored, 0).
        accepted: (score bin, leads, accepted) of cohorts that reached the acceptance horizon.
        won: (score bin, leads, won) of cohorts that reached the conversion horizon.
    """

    ts: float
    scored: tuple[Cohort, ...]
    accepted: tuple[Cohort, ...]
    won: tuple[Cohort, ...]


class LeadScoreDriftParams(SequentialParams):
    """Parameters of `LeadScoreDrift`; trials are leads."""

    settle_s: float = Field(0.0, ge=0, le=0, description="not used: leads become known in one piece")
    warmup_s: Positive = Field(7 * DAY_S, description="event time to learn before it judges, seconds")
    warmup_n: Positive = Field(300, description="leads to learn before it judges")
    memory_s: Positive = Field(90 * DAY_S, description="event time after which 1/e of a count is left, seconds")
    accept_after_s: Positive = Field(28 * DAY_S, description="an alert that lasts so long becomes the new normal,"
                                     " seconds of event time")  # fmt: skip
    odds_ratio: OddsRatio = Field(0.65, description="smallest fall of the odds worth finding")
    distribution_margin: NoLess = Field(3.0, description="added to all thresholds for the distribution, where five"
                                        " alternatives share the false alarms, nats")  # fmt: skip
    bins: Annotated[int, Field(ge=4, le=MAX_BINS)] = Field(20, description="bins of the score histogram")


class LeadScoreState(msgspec.Struct):
    """State of `LeadScoreDrift`: one part for each kind of drift."""

    distribution: SlowTable
    acceptance: SlowTable
    conversion: SlowTable


class LeadScoreDrift(Detector[LeadScores, LeadScoreDriftParams]):
    """The distribution of scores moves, or acceptance or conversion at a given score falls.

    Kinds: `distribution` (before and after are mean scores, fractions of the scale; either way is for the worse,
    because thresholds were set on the old scores), `calibration_acceptance` and `calibration_conversion` (before and
    after are the rate that the scores promised and the one observed). One verdict speaks for the worst of the three.
    """

    title = "Lead-score drift"
    unit = "ratio"
    state_version = 1
    alert = AlertOn(severity="ticket")
    Params = LeadScoreDriftParams
    State = LeadScoreState
    stage: ClassVar[str] = "leads"

    def __init__(self, params: LeadScoreDriftParams) -> None:
        """Start with nothing learnt."""
        self.params = params
        bins = params.bins
        scores = SlowTable.of(bins, ScoreDistribution.runs)
        self._take(LeadScoreState(scores, SlowTable.of(bins, 1), SlowTable.of(bins, 1)))

    @classmethod
    def look(cls, bucket: Bucket, params: LeadScoreDriftParams) -> LeadScores | None:
        """Scores and cohorts of the bucket; None for other stages and where there are none."""
        if bucket.stage != cls.stage:
            return None
        counts = bucket.counts
        scored = tuple((b, n, 0) for b in range(params.bins) if (n := counts.get(SCORED[b], 0)))
        accepted, won = _cohorts(counts, ACCEPT, params.bins), _cohorts(counts, WIN, params.bins)
        return LeadScores(bucket.ts, scored, accepted, won) if scored or accepted or won else None

    def observe(self, x: LeadScores) -> Verdict:
        """Learn from scores and outcomes and judge what scores mean."""
        if x.scored:
            self._distribution.observe(x.ts, x.scored)
        for test, cohorts in ((self._acceptance, x.accepted), (self._conversion, x.won)):
            if cohorts:
                test.observe(x.ts, cohorts)
        verdicts = [
            self._judge_distribution(),
            self._judge_calibration(self._acceptance, "calibration_acceptance"),
            self._judge_calibration(self._conversion, "calibration_conversion"),
        ]
        return max(verdicts, key=lambda verdict: (RANK[verdict.level], verdict.score))

    def restore(self, blob: bytes) -> None:
        """Take up a state written by `snapshot`.

        Raises:
            msgspec.DecodeError: the bytes are no state of this detector.
        """
        super().restore(blob)
        self._take(self.state)

    def _take(self, state: LeadScoreState) -> None:
        self.state = state
        self._distribution = ScoreDistribution(self.params, state.distribution, self.params.distribution_margin)
        self._acceptance = Calibration(self.params, state.acceptance, self.params.odds_ratio)
        self._conversion = Calibration(self.params, state.conversion, self.params.odds_ratio)

    def _judge_distribution(self) -> Verdict:
        test = self._distribution
        if (calm := _calm(test)) is not None:
            return calm
        before, after = test.means()
        evidence = {"psi": test.psi(), "mean_score_before": before, "mean_score_after": after, "shift": after - before}
        return self._verdict(test, "distribution", before, after, evidence)

    def _judge_calibration(self, test: Calibration, kind: str) -> Verdict:
        if (calm := _calm(test)) is not None:
            return calm
        run = test.run
        losses = test.losses(BANDS)
        band = max(range(BANDS), key=losses.__getitem__)
        evidence = {
            "expected": run.expected,
            "observed": run.k,
            "lost": run.expected - run.k,
            "band_from": band / BANDS,
            "band_to": (band + 1) / BANDS,
            "band_lost": losses[band],
        }
        return self._verdict(test, kind, run.expected / run.n, run.k / run.n, evidence)

    def _verdict(
        self, test: ScoreDistribution | Calibration, kind: str, before: float, after: float, evidence: dict[str, float]
    ) -> Verdict:
        run = test.run
        return Verdict(
            level=test.level,
            score=test.cusum.score,
            onset=run.onset,
            before=before,
            after=after,
            n_before=round(test.state.base.sum_n),
            n_after=round(run.n),
            evidence={**evidence, "statistic": run.statistic, "threshold": test.cusum.alert_at},
            kind=kind,
        )


SCORED: Final = tuple(f"score_{b}" for b in range(MAX_BINS))
ACCEPT: Final = tuple((f"accept_n_{b}", f"accept_k_{b}") for b in range(MAX_BINS))
WIN: Final = tuple((f"win_n_{b}", f"win_k_{b}") for b in range(MAX_BINS))


def _cohorts(counts: Mapping[str, int], fields: tuple[tuple[str, str], ...], bins: int) -> tuple[Cohort, ...]:
    get = counts.get
    return tuple((b, n, get(fields[b][1], 0)) for b in range(bins) if (n := get(fields[b][0], 0)))


def _calm(test: ScoreDistribution | Calibration) -> Verdict | None:
    """The verdict while there is nothing to tell."""
    level = test.level
    return {"warming": WARMING, "ok": OK}.get(level)

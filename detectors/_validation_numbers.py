"""When an indicator counts as proven, and what is told of it; see `detectors._validation`."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import msgspec
from pydantic import Field

from detectors._base import Params

Status = Literal["unproven", "proven", "lost"]
STATUSES: Final[tuple[Status, ...]] = ("unproven", "proven", "lost")
UNPROVEN, PROVEN, LOST = range(3)


class ProofParams(Params):
    """When an indicator counts as proven, and when no longer."""

    proof: float = Field(20.0, gt=1, description="evidence e from which on it is proven; 1/e of useless ones ever are")
    floor: float = Field(0.003, gt=0, description="gain of late that it must have, too, nats per outcome: with less,"
                         " its loss could not be told within `window_n` from chance")  # fmt: skip
    recent_n: float = Field(4000.0, gt=0, description="outcomes after which 1/e of the gain of late is left")
    window_n: float = Field(1800.0, gt=0, description="outcomes over which a proven one must show itself useful")
    lose_z: float = Field(1.85, ge=0, description="standard errors from nothing within which it does not")
    lose_nats: float = Field(10.0, gt=0, description="evidence against what it predicts that loses it sooner, nats")
    wake_n: float = Field(10_000.0, gt=0, description="outcomes by which half of the evidence that may start later has")
    forget_n: float = Field(20_000.0, gt=0, description="outcomes after which 1/e of the belief is left")
    restart_n: float = Field(10_000.0, gt=0, description="outcomes after which the numbers of one that is not proven"
                             " begin anew")  # fmt: skip


class Numbers(msgspec.Struct, frozen=True):
    """What is known of an indicator; intervals are 95 % confidence sequences.

    Attributes:
        status: `unproven`, `proven` or `lost`.
        outcomes: since its numbers began: with the status, or anew.
        indicated: those with the indicator (for bins: in the lower bands).
        gain: log-loss gained over the base rate, test-then-train, nats per outcome.
        gain_low: lower end of its interval.
        gain_high: upper end.
        recent_gain: the same of late.
        auc: how often a good outcome was foretold rather than a bad one of the same stratum.
        auc_low: lower end of its interval.
        auc_high: upper end.
        calibration_error: share of outcomes by which predictions for the indicated and the others are off.
        foretold: good outcomes among the indicated that were expected.
        observed: and that there were.
        log_odds: believed log odds ratio of a good outcome, with against without; for bins, of the upper half of ranks
            against the lower.
        log_e: evidence that it predicts as meant, nats.
        log_e_other: evidence that it predicts the other way, nats.
        proof: evidence from which on one of the two is believed, nats.
    """

    status: Status
    outcomes: int
    indicated: int
    gain: float
    gain_low: float
    gain_high: float
    recent_gain: float
    auc: float
    auc_low: float
    auc_high: float
    calibration_error: float
    foretold: float
    observed: float
    log_odds: float
    log_e: float
    log_e_other: float
    proof: float

    @property
    def note(self) -> str:
        """A remark for the reader; empty if there is none."""
        return "predicts the other way" if self.log_e_other >= self.proof and self.status != "proven" else ""


class Change(NamedTuple):
    """A row that changed its status, with its numbers just before what it knew was dropped."""

    row: int
    before: Status
    after: Status
    numbers: Numbers

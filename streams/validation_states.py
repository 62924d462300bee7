"""What outcome validation says of an indicator, and its parameters; see `streams.validation`."""

from __future__ import annotations

from math import exp
from typing import Final, NamedTuple, TypeAlias

import msgspec
from pydantic import Field

from detectors._validation_numbers import Numbers, ProofParams, Status

HOUR_S: Final = 3600.0
ALL: Final = "all"
"""The family of everyone."""
Key: TypeAlias = tuple[str, str, str, str]
"""(indicator, outcome, stage, family)."""


class ValidationParams(ProofParams):
    """All parameters of outcome validation."""

    block_n: int = Field(100, gt=0, description="outcomes of everyone at which a block closes before the hour ends")
    least_n: int = Field(20, gt=0, description="outcomes that a stratum waits for")
    longest_s: float = Field(3 * HOUR_S, ge=HOUR_S, description="how long it waits, event time, seconds")
    longest_crm_s: float = Field(24 * HOUR_S, ge=HOUR_S, description="the same for leads and customers, who are few")
    most_keys: int = Field(1000, gt=0, description="indicators, by outcome, stage and family, at most")
    most_strata: int = Field(5000, gt=0, description="open blocks at most")


class StateChange(msgspec.Struct, frozen=True):
    """An indicator changed its state: told like a finding, drawn as an annotation.

    Attributes:
        ts: event time at which the block ended that changed it, seconds.
        indicator: what is meant to predict.
        outcome: what.
        stage: of the journey, or `leads`, `customers`.
        family: `all`, or the label whose values are the strata.
        before: state until now.
        after: state from now on.
        numbers: what was known just then.
        explained_by: the label that explains what it showed, where that is the reason.
    """

    ts: float
    indicator: str
    outcome: str
    stage: str
    family: str
    before: Status
    after: Status
    numbers: Numbers
    explained_by: str = ""

    @property
    def summary(self) -> str:
        """One sentence.

        >>> numbers = Numbers("proven", 2400, 190, 0.0055, 0.001, 0.011, 0.0056, 0.53, 0.51, 0.55, 0.003, 45.2, 44.0,
        ...                   -0.9, 4.1, -0.6, 3.0)
        >>> StateChange(0.0, "rage_click", "advance", "evaluate", "all", "unproven", "proven", numbers).summary
        'rage_click at evaluate now provably predicts advance (all): odds ratio 0.41, 0.0055 nats per outcome on 2400
        outcomes.'
        """
        told = f"{self.indicator} at {self.stage}"
        if self.after == "proven":
            says = f"{told} now provably predicts {self.outcome} ({self.family})"
        elif self.explained_by:
            says = f"{told} predicts {self.outcome} only through {self.explained_by}, and does not page"
        else:
            says = f"{told} no longer predicts {self.outcome} ({self.family}) and stops paging until it does"
        odds = exp(self.numbers.log_odds)
        numbers = (
            f"odds ratio {odds:.2f}, {self.numbers.gain:.4f} nats per outcome on {self.numbers.outcomes} outcomes."
        )
        return f"{says}: {numbers}"


class Gain(NamedTuple):
    """What an indicator is worth, for everyone; the confidence index is weighted by it.

    Attributes:
        stage: of the journey, or `leads`, `customers`.
        indicator: name.
        outcome: what it predicts.
        gain: log-loss gained over the base rate, nats per outcome.
        log_odds: log odds ratio of a good outcome, with against without.
        state: `unproven`, `proven` or `lost`.
    """

    stage: str
    indicator: str
    outcome: str
    gain: float
    log_odds: float
    state: Status

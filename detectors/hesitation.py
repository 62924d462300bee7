"""Hesitation: more people than usual are stuck or unsure within a step, whatever they do next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from detectors._base import AlertOn
from detectors._hesitation_rates import ModelRate, NoveltyRate, SignalRate
from detectors._micro_signals import SIGNALS
from detectors._rate import RateDetector, RateParams
from detectors._several import SeveralRates

__all__ = ["SIGNALS", "Hesitation", "HesitationParams"]


class HesitationParams(RateParams):
    """Parameters of `Hesitation`."""

    novelty_odds_ratio: float = Field(
        0.4, gt=0, lt=1, description="the same for the share of novel steps, which is small: 0.4 is 1 % to 2.5 %"
    )
    novelty_warmup_n: float = Field(
        3000, gt=0, description="steps weighed before novelty is judged: a small rate takes long to learn"
    )


class Hesitation(SeveralRates):
    """The share of hesitant steps rises: with a micro-signal, called so by the stage's model, or unlike any before.

    Three rates, because they mean different things and begin at different times: micro-signals are defined once and for
    all; the model (`detectors._step_model`) speaks only while it can tell who will advance, so long reading that leads
    on is no hesitation; novelty (`detectors._novelty`) needs no outcome and shows what nobody thought of defining.
    `kind` says which it was: `micro_signals`, `model` or `novelty`.

    Evidence: `extra_hesitant` (`extra_novel`) is how many people more than expected hesitated since the onset;
    `<signal>_before` and `<signal>_after` are steps that showed a micro-signal per judged step, so the reader sees what
    changed.
    """

    title = "Hesitation"
    state_version = 3
    alert = AlertOn()
    indicators = ("signal", "hesitant")
    indicator_by_kind: ClassVar[Mapping[str, str]] = {"micro_signals": "signal", "model": "hesitant"}
    Params = HesitationParams
    rates: ClassVar[dict[str, type[RateDetector]]] = {
        "micro_signals": SignalRate, "model": ModelRate, "novelty": NoveltyRate,
    }  # fmt: skip

    @classmethod
    def params_of(cls, kind: str, params: RateParams) -> RateParams:
        """Novelty is looked for in bigger changes: its rate is small."""
        if kind != "novelty" or not isinstance(params, HesitationParams):
            return params
        own = {"odds_ratio": params.novelty_odds_ratio, "warmup_n": params.novelty_warmup_n}
        return params.model_copy(update=own)

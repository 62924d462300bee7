"""Hesitation: more people than usual are stuck or unsure within a step, whatever they do next."""

from __future__ import annotations

from typing import Final

import msgspec

from detectors._base import AlertOn, Bucket, Detector, Verdict
from detectors._hesitation_rates import SIGNALS, ModelRate, SignalRate
from detectors._rate import RateDetector, RateObservation, RateParams
from detectors._sequential import BinomialState

__all__ = ["SIGNALS", "Hesitation", "HesitationObservation"]

LEVELS: Final = ("warming", "ok", "warn", "alert")


class HesitationObservation(msgspec.Struct, frozen=True):
    """What is seen of one bucket: the counts of both rates, None where there are none."""

    ts: float
    micro_signals: RateObservation | None
    model: RateObservation | None


class HesitationState(msgspec.Struct):
    """What both rates have learnt, and what they said last, in the order micro-signals, model."""

    rates: list[BinomialState] = []
    last: list[Verdict] = []


class Hesitation(Detector[HesitationObservation, RateParams]):
    """The share of hesitant steps rises: those with a micro-signal, or those that the stage's model calls hesitant.

    Two rates, because they mean different things and begin at different times: micro-signals are defined once and for
    all, the model (`detectors._step_model`) speaks only while it can tell who will advance. The worse of the two is the
    verdict; `kind` says which (`micro_signals` or `model`).

    Evidence: `extra_hesitant` is how many people more than expected hesitated since the onset; `<signal>_before` and
    `<signal>_after` are steps that showed a micro-signal per judged step, so the reader sees what changed.
    """

    title = "Hesitation"
    unit = "ratio"
    state_version = 2
    alert = AlertOn()
    Params = RateParams
    State = HesitationState

    def __init__(self, params: RateParams) -> None:
        """Start with nothing learnt."""
        self.params = params
        self._rates: list[RateDetector] = [SignalRate(params), ModelRate(params)]
        warming = Verdict(level="warming")
        self.state = HesitationState([rate.state for rate in self._rates], [warming, warming])

    @classmethod
    def look(cls, bucket: Bucket, params: RateParams) -> HesitationObservation | None:
        """Both rates of the bucket; None where there is neither."""
        signals, model = SignalRate.look(bucket, params), ModelRate.look(bucket, params)
        return None if signals is None and model is None else HesitationObservation(bucket.ts, signals, model)

    def observe(self, x: HesitationObservation) -> Verdict:
        """Learn from both rates and judge them; the worse counts."""
        last = self.state.last
        for number, (seen, kind) in enumerate(((x.micro_signals, "micro_signals"), (x.model, "model"))):
            if seen is not None:
                last[number] = msgspec.structs.replace(self._rates[number].observe(seen), kind=kind)
        worst: Verdict = max(last, key=lambda verdict: (LEVELS.index(verdict.level), verdict.score))
        return worst

    def restore(self, blob: bytes) -> None:
        """Take up a state written by `snapshot`.

        Raises:
            msgspec.DecodeError: the bytes are no state of this detector.
        """
        super().restore(blob)
        for rate, state in zip(self._rates, self.state.rates, strict=True):
            rate.resume(state)

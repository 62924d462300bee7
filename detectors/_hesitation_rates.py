"""The three rates that show hesitation; `detectors.hesitation` watches them together."""

from __future__ import annotations

from detectors._base import AlertOn
from detectors._micro_signals import SIGNALS
from detectors._rate import RateDetector


class SignalRate(RateDetector):
    """Steps that showed a micro-signal, of all judged steps. Free of any model."""

    title = "Hesitation by micro-signals"
    state_version = 1
    alert = AlertOn()
    hits = ("signalled",)
    trials = ("judged",)
    worse = "up"
    cases = "extra_hesitant"
    shares = {f"sig_{name}": name for name in SIGNALS}  # noqa: RUF012  # ClassVar in the base


class ModelRate(RateDetector):
    """Steps that the stage's model calls hesitant, of those it was asked about while it could tell."""

    title = "Hesitation by the model"
    state_version = 2
    alert = AlertOn()
    hits = ("hesitant",)
    trials = ("asked",)
    worse = "up"
    cases = "extra_hesitant"


class NoveltyRate(RateDetector):
    """Steps unlike nearly all that the stage has seen before, of those weighed against them."""

    title = "Behaviour not seen before"
    state_version = 1
    alert = AlertOn()
    hits = ("novel",)
    trials = ("weighed",)
    worse = "up"
    cases = "extra_novel"

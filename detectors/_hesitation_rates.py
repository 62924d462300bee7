"""The two rates that show hesitation; `detectors.hesitation` watches both."""

from __future__ import annotations

from typing import Final

from detectors._base import AlertOn
from detectors._rate import RateDetector

SIGNALS: Final = (
    "rage_click", "dead_click", "error_click", "u_turn", "page_loop", "field_return", "repeated_search", "compare_loop",
)  # fmt: skip
"""Micro-signals of hesitation, in the order of every vector that holds them."""


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
    state_version = 1
    alert = AlertOn()
    hits = ("hesitant",)
    trials = ("asked",)
    worse = "up"
    cases = "extra_hesitant"

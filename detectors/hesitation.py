"""Hesitation: more people than usual are stuck or unsure in a stage."""

from __future__ import annotations

from typing import Final

from detectors._base import AlertOn
from detectors._rate import RateDetector

SIGNALS: Final = (
    "rage_click", "dead_click", "error_click", "u_turn", "page_loop", "field_return", "repeated_search", "compare_loop",
)  # fmt: skip
"""Micro-signals of hesitation, in the order of every vector that holds them."""


class Hesitation(RateDetector):
    """The share of judged steps that are called hesitant rises.

    Whether one step is hesitant is decided on the spot by the stage's own model (`detectors._step_model`).

    Evidence: `extra_hesitant` is how many people more than expected hesitated since the onset; `<signal>_before` and
    `<signal>_after` are steps that showed a micro-signal per judged step, so the reader sees what changed.
    """

    title = "Hesitation"
    state_version = 1
    alert = AlertOn()
    hits = ("hesitant",)
    trials = ("judged",)
    worse = "up"
    cases = "extra_hesitant"
    shares = {f"sig_{name}": name for name in SIGNALS}  # noqa: RUF012  # ClassVar in the base

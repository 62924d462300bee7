"""The two rates of an early drop-off; `detectors.early_dropoff` watches both.

Each is a share of a cohort: of those who entered together, counted together when their time is up. So it does not move
when more or fewer people come. A rate of the steps that happen to end now would: its advances are those of people who
have just come, its drops those of people who came half an hour ago.
"""

from __future__ import annotations

from detectors._base import AlertOn
from detectors._rate import RateDetector


class AdvancedSoon(RateDetector):
    """Steps that had advanced when the last dwell mark passed, of all that began."""

    title = "Early drop-off at the last dwell mark"
    state_version = 1
    alert = AlertOn()
    hits = ("soon",)
    trials = ("soon", "not_soon")
    worse = "down"
    cases = "lost_progressions"


class AdvancedAtAll(RateDetector):
    """Steps that had advanced when a session gap had passed since they began, of all that began."""

    title = "Early drop-off at the session gap"
    state_version = 1
    alert = AlertOn()
    hits = ("at_all",)
    trials = ("at_all", "not_at_all")
    worse = "down"
    cases = "lost_progressions"

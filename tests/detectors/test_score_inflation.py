"""Score inflation: a rise beside a fall, whatever the score; neither alone."""

from __future__ import annotations

import pytest

from detectors._base import Bucket
from detectors.score_inflation import ScoreInflation
from tests.detectors.slow_kit import DAY_S, START_S, alerts, verdicts
from tests.detectors.test_lead_score_drift import CHANGE_DAY, NORMAL, ONSET_S, World, stream

SEEDS = range(400, 420)
LAGS = {"acceptance_lag_s": 7 * DAY_S, "conversion_lag_s": 7 * DAY_S}


def quiet() -> list[Bucket]:
    return stream(60, NORMAL, seed=61)


def firing() -> tuple[list[Bucket], float]:
    return stream(50, World(shift=4.0, accept=0.7), seed=63), ONSET_S

"""The regression gives River's numbers."""

from __future__ import annotations

import random

import pytest
from river.compose import Pipeline
from river.linear_model import LogisticRegression
from river.optim import SGD
from river.preprocessing import StandardScaler

from detectors._regression import INTERCEPT_RATE, Regression, RegressionState


def stream(n: int, seed: int) -> list[tuple[list[float], bool]]:
    """Four features: one tells, one is nearly constant, one is constant, one is rare."""
    rng = random.Random(seed)
    made = []
    for _ in range(n):
        x = [rng.gauss(3.0, 2.0), 7.0 + rng.random() / 1000, 1.0, float(rng.random() < 0.02)]
        made.append((x, rng.random() < (0.7 if x[0] + 4 * x[3] > 3.0 else 0.2)))
    return made


def test_the_same_numbers_as_river() -> None:
    ours = Regression(0.02, RegressionState.sized(4))
    scaler, regression = StandardScaler(), LogisticRegression(optimizer=SGD(0.02), intercept_lr=INTERCEPT_RATE)
    theirs = Pipeline(scaler, regression)
    for x, yes in stream(3000, seed=1):
        named = dict(enumerate(x))
        assert ours.probability(x) == pytest.approx(theirs.predict_proba_one(named)[True], rel=1e-9, abs=1e-12)
        ours.learn(x, yes)
        theirs.learn_one(named, yes)
    assert ours.state.means == pytest.approx([scaler.means[i] for i in range(4)])
    assert ours.state.variances == pytest.approx([scaler.vars[i] for i in range(4)])
    assert ours.state.weights == pytest.approx([regression.weights[i] for i in range(4)])
    assert ours.state.intercept == pytest.approx(regression.intercept)


def test_a_frozen_copy_scores_as_the_original_and_learns_no_more() -> None:
    ours = Regression(0.02, RegressionState.sized(4))
    data = stream(800, seed=2)
    for x, yes in data[:400]:
        ours.learn(x, yes)
    rule = ours.frozen()
    said = [rule.calibrated(rule.score(x)) for x, _ in data]
    assert said == pytest.approx([ours.probability(x) for x, _ in data])
    for x, yes in data[400:]:
        ours.learn(x, yes)
    assert [rule.calibrated(rule.score(x)) for x, _ in data] == said


def test_extreme_numbers_break_nothing() -> None:
    ours = Regression(0.5, RegressionState.sized(2))
    for i in range(200):
        ours.learn([1e12 if i % 50 == 0 else 0.0, float(i)], i % 2 == 0)
    assert 0.0 <= ours.probability([1e300, -1e300]) <= 1.0

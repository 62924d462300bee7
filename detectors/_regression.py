"""River's `StandardScaler | LogisticRegression`, on lists.

The same numbers (a test holds them side by side) at a fifth of the time, because nothing is hashed and predicting and
learning share their sums; and the state is plain data.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Final

import msgspec

from detectors._frozen import Rule, sigmoid

INTERCEPT_RATE: Final = 0.05
"""Step size of the intercept. With River's default, 0.01, a stage that nearly everyone leaves is learnt too slowly."""


class RegressionState(msgspec.Struct, array_like=True):
    """What has been learnt.

    Attributes:
        means: of each feature.
        variances: of each feature (population).
        weights: of each standardised feature.
        intercept: log-odds of an average step.
        n: observations.
    """

    means: list[float]
    variances: list[float]
    weights: list[float]
    intercept: float = 0.0
    n: int = 0

    @classmethod
    def sized(cls, features: int) -> RegressionState:
        """Return the state at the start."""
        return cls([0.0] * features, [0.0] * features, [0.0] * features)


class Regression:
    """Online logistic regression on standardised features, by stochastic gradient descent.

    Args:
        learning_rate: step size of the weights.
        state: taken up and changed in place.
    """

    def __init__(self, learning_rate: float, state: RegressionState) -> None:
        self.state = state
        self._rate = learning_rate

    def probability(self, x: Sequence[float]) -> float:
        """P(yes), before learning from it."""
        state, total = self.state, self.state.intercept
        for value, mean, variance, weight in zip(x, state.means, state.variances, state.weights, strict=True):
            if variance > 0.0:
                total += weight * (value - mean) / sqrt(variance)
        return sigmoid(total)

    def learn(self, x: Sequence[float], yes: bool) -> None:
        """Take one observation: the scaling learns first, then the weights."""
        state = self.state
        state.n += 1
        share, total = 1.0 / state.n, state.intercept
        means, variances, weights = state.means, state.variances, state.weights
        scaled = []
        for i, value in enumerate(x):
            off = value - means[i]
            means[i] += off * share
            still_off = value - means[i]
            variance = variances[i] = variances[i] + (off * still_off - variances[i]) * share
            each = still_off / sqrt(variance) if variance > 0.0 else 0.0
            scaled.append(each)
            total += weights[i] * each
        gradient = sigmoid(total) - yes
        state.intercept -= INTERCEPT_RATE * gradient
        step = self._rate * gradient
        state.weights = [weight - step * each for weight, each in zip(weights, scaled, strict=True)]

    def frozen(self) -> Rule:
        """A copy as it is now, on the scale of the features."""
        state, weights, intercept = self.state, list[float](), self.state.intercept
        for mean, variance, weight in zip(state.means, state.variances, state.weights, strict=True):
            weights.append(weight / sqrt(variance) if variance > 0.0 else 0.0)
            intercept -= weights[-1] * mean
        return Rule(weights, intercept)

"""A rule that does not learn: what a model had learnt at one moment, tried out on people and then kept.

Whoever watches a share that a learning model calls cannot tell a change of people from a change of the model. So the
learning model never calls anybody. From time to time a copy of it is frozen and tried on the steps that come next
(`Trial`); if it tells well, it becomes the rule in force, with its cut set so that on the very same steps it calls the
same share as the rule before it. Between two such moments the share moves only if people do.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log, sqrt
from typing import Final

import msgspec

TINY: Final = 1e-6
GRAIN: Final = 1000.0
"""Scores are compared in thousandths, so that a restored rule and a kept one split ties alike."""
NOTHING: Final = -16_000
"""Score of a step that was never looked at, in thousandths; below that of any other."""
PRIOR: Final = 25.0
"""Looks' worth of belief that scores need no recalibration."""
SAME_SHARE: Final = 0.1
"""A rule that would change the share by more than this, relatively, does not replace another: its scores clump."""
BETTER_Z: Final = 2.0
"""Standard errors by which a new rule must tell better than the one in force."""


class Rule(msgspec.Struct, array_like=True):
    """A frozen logistic regression, with a calibration that goes on (it changes no order, so no call).

    Calibration is Platt's sigmoid (Platt 1999), followed online by recursive Newton steps with a fading memory; why
    that holds on a stream of any kind: Gupta & Ramdas 2023, Online Platt Scaling with Calibeating.

    Attributes:
        weights: one a feature, on the scale of the features.
        intercept: log-odds of a step of which all features are 0.
        cut: a step with a higher score is called, thousandths of log-odds.
        slope: of Platt's sigmoid.
        shift: of Platt's sigmoid.
        curvature: second derivatives of the calibration's loss: slope-slope, slope-shift, shift-shift.
    """

    weights: list[float]
    intercept: float
    cut: int = -NOTHING
    slope: float = 1.0
    shift: float = 0.0
    curvature: list[float] = msgspec.field(default_factory=lambda: [PRIOR, 0.0, PRIOR])

    def score(self, features: Sequence[float]) -> float:
        """Log-odds that the step will not advance, before calibration."""
        total = self.intercept
        for weight, value in zip(self.weights, features, strict=True):
            total += weight * value
        return total

    def calls(self, features: Sequence[float]) -> bool:
        """Whether the step is hesitant."""
        return self.place(self.score(features)) > self.cut

    @staticmethod
    def place(score: float) -> int:
        """A score in thousandths, bounded."""
        return round(min(max(score * GRAIN, NOTHING + 1), -NOTHING))

    def calibrated(self, score: float) -> float:
        """P(the step will not advance)."""
        return sigmoid(self.slope * score + self.shift)

    def calibrate(self, score: float, stayed: bool, keep: float) -> None:
        """Learn from the outcome of a step; `keep` is what is left of older ones."""
        p = self.calibrated(score)
        weight, error = p * (1.0 - p), p - stayed
        a, b, c = (keep * value for value in self.curvature)
        a, b, c = a + weight * score * score, b + weight * score, c + weight
        self.curvature = [a, b, c]
        determinant = a * c - b * b
        if determinant <= TINY:
            return
        slope = self.slope - error * (c * score - b) / determinant
        self.slope = min(max(slope, 0.05), 5.0)  # never the other way round: that would be another rule
        self.shift -= error * (a - b * score) / determinant


class Trial(msgspec.Struct, array_like=True):
    """A candidate that is tried beside the rule in force.

    Attributes:
        rule: the candidate.
        results: per step, twice its highest score in thousandths, plus 1 if it did not advance.
        called: steps that the rule in force called.
        looks: looks compared.
        gain: sum of the log-losses of the rule in force minus those of the candidate, nats.
        squares: sum of their squares.
    """

    rule: Rule
    results: list[int] = []
    called: int = 0
    looks: int = 0
    gain: float = 0.0
    squares: float = 0.0

    def compare(self, gain: float) -> None:
        """Take the advantage of the candidate at one look, nats."""
        self.looks += 1
        self.gain += gain
        self.squares += gain * gain

    def note(self, best: int, stayed: bool, called: bool) -> None:
        """Take a closed step: the candidate's highest score, the outcome, whether the rule in force called it."""
        self.results.append(2 * best + stayed)
        self.called += called

    def replaces(self, share: float, tally: Tally) -> bool:
        """Whether the candidate may take over: it calls the same share, and tells better beyond chance."""
        if self.looks < 2 or abs(tally.share - share) > SAME_SHARE * share:
            return False
        mean = self.gain / self.looks
        variance = max(self.squares / self.looks - mean * mean, 0.0)
        return mean > BETTER_Z * sqrt(variance / self.looks)

    def settle(self, share: float) -> Tally:
        """Set the candidate's cut so that it calls `share` of the steps, as nearly as ties let it; what it then calls.

        Equal scores are never split: who behaves alike is called alike.
        """
        results = sorted(self.results, reverse=True)
        wanted, best, cut = share * len(results), 0, -NOTHING
        for i, result in enumerate(results):
            score = result >> 1
            if score <= NOTHING:
                break
            last_of_its_score = i + 1 == len(results) or results[i + 1] >> 1 != score
            if last_of_its_score and abs(i + 1 - wanted) < abs(best - wanted):
                best, cut = i + 1, score - 1
        self.rule.cut = cut
        stayed = [result & 1 for result in results]
        return Tally(float(best), float(sum(stayed[:best])), float(len(results) - best), float(sum(stayed[best:])))


class Tally(msgspec.Struct, array_like=True):
    """How steps that a rule calls, and the others, ended.

    Attributes:
        called: steps called hesitant.
        called_stayed: of these, those that did not advance.
        others: the other steps.
        others_stayed: of these, those that did not advance.
    """

    called: float = 0.0
    called_stayed: float = 0.0
    others: float = 0.0
    others_stayed: float = 0.0

    def add(self, called: bool, stayed: bool) -> None:
        """Take one closed step."""
        if called:
            self.called += 1.0
            self.called_stayed += stayed
        else:
            self.others += 1.0
            self.others_stayed += stayed

    def fade(self, factor: float) -> None:
        """Forget a part."""
        self.called *= factor
        self.called_stayed *= factor
        self.others *= factor
        self.others_stayed *= factor

    @property
    def share(self) -> float:
        """Share of the steps that was called."""
        return self.called / max(self.called + self.others, 1.0)

    @property
    def lift(self) -> float:
        """By how much more of those called stayed than of the others; 0 while there is nothing to compare."""
        if not self.called or not self.others:
            return 0.0
        return self.called_stayed / self.called - self.others_stayed / self.others

    @property
    def z(self) -> float:
        """`lift` in standard errors (two proportions, pooled)."""
        n = self.called + self.others
        rate = (self.called_stayed + self.others_stayed + 0.5) / (n + 1.0)
        if not self.called or not self.others:
            return 0.0
        return self.lift / sqrt(rate * (1.0 - rate) * (1.0 / self.called + 1.0 / self.others))


def sigmoid(x: float) -> float:
    """1 / (1 + e^-x), without overflow.

    >>> sigmoid(0.0), sigmoid(-1000.0), sigmoid(1000.0)
    (0.5, 0.0, 1.0)
    """
    if x >= 0.0:
        return 1.0 / (1.0 + exp(-min(x, 700.0)))
    growth = exp(max(x, -745.2))
    return growth / (1.0 + growth)


def log_loss(p: float, happened: bool) -> float:
    """Surprise at an outcome that was given probability `p`, nats, bounded."""
    return -log(max(p if happened else 1.0 - p, TINY))
